"""GRPO: rewards; updates against gradients by hand; whole runs. (The loss itself: test_loss.py.)"""

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from conftest import Coin, episode
from safetensors.torch import load_file
from test_training import assert_same, gradients, naive_score, random_bundle
from torch import Tensor
from transformers import AutoModelForCausalLM

import grpo
import sft
import tasks
from checkpoint import load_bundle, save_bundle
from cli import ROOT, UserError
from executor import Executor
from grpo import (
    GRPOArguments,
    judge,
    shuffled_outcomes,
    update,
)
from loss import Tokens, policy_loss
from rollout import Episode, Rollout, RolloutArguments, Turn
from tasks import problems
from training import Policy, log_probs_of

TINY = str(ROOT / "assets/tiny")


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


def advantages(episodes: list[Episode]) -> list[float]:
    return [round(e.advantage, 4) for e in episodes]


# --------------------------------------------------------------------------------------------------------------------
# rewards


def test_the_terms_of_the_reward():
    """A term that cannot be switched off, or one that makes groups of wrong answers worth learning from."""
    many = [Turn(4, 8)] * 6
    made = [
        episode(0, 0, True),
        episode(1, 0, True, turns=[*many, Turn(8, 9)]),
        episode(2, 0, turns=many),
        episode(3, 0, finish="length", answer=None),
        episode(4, 1),
        episode(5, 1, finish="no_answer", answer=None),
    ]
    judge(made, GRPOArguments(), 0)
    assert [e.reward for e in made] == [1, 1, 0, 0, 0, 0]
    live = judge(made, GRPOArguments(format_reward=0.1, efficiency_penalty=0.3), 0)
    assert [round(e.reward, 6) for e in made] == [1.1, 0.8, 0.1, -0.1, 0.1, -0.1]
    assert live == made[:4]  # the other group is all wrong, whatever its form
    assert made[0].advantage > made[1].advantage > 0 > made[2].advantage > made[3].advantage


# --------------------------------------------------------------------------------------------------------------------
# updates


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model") / "random"
    save_bundle(random_bundle(), folder)
    return str(folder)


def signal(count: int = 6) -> list[Episode]:
    """Episodes of every length with advantages of both signs and several sizes."""
    return [episode(i, advantage=(-1) ** i * (0.5 + 0.25 * i)) for i in range(count)]


def capture(policy: Policy, monkeypatch) -> list[dict[str, Tensor]]:
    """Has `policy` hand out its gradients in place of each optimizer step."""
    found: list[dict[str, Tensor]] = []

    def step(learning_rate: float, max_grad_norm: float) -> float:
        found.append(gradients(policy.model))
        return 1.0

    monkeypatch.setattr(policy, "step", step)
    return found


def total_log_probs(policy: Policy, episodes: list[Episode]) -> list[float]:
    documents = [(e.tokens, e.sampled) for e in episodes]
    return [float(x.sum()) for x in log_probs_of(policy.model, documents, 10_000)]


@pytest.mark.parametrize("updates", [1, 3])
def test_an_update_raises_what_was_better_and_lowers_what_was_worse(updates, model_folder):
    """A sign that is wrong, or an advantage that goes to the neighbour's tokens."""
    policy, episodes = Policy(model_folder, 1e-3), signal()
    arguments = GRPOArguments(learning_rate=1e-3, updates_per_step=updates)
    before = total_log_probs(policy, episodes)
    for step in range(4):
        metrics = update(policy, episodes, arguments, step, None)
        assert all(math.isfinite(value) for value in metrics.values()) and metrics["grad_norm"] > 0
    for e, a, b in zip(episodes, before, total_log_probs(policy, episodes), strict=True):
        assert (b > a) == (e.advantage > 0)


@pytest.mark.parametrize("budget", [16384, 30])
@pytest.mark.parametrize("aggregation", ["token", "sequence"])
def test_gradients_are_those_of_the_sampled_tokens(aggregation, budget, model_folder, monkeypatch):
    """Gradient on prompts or observations teaches the model to write the interpreter's output; one that depends on
    the micro-batches, or on the order after shuffling, is another algorithm. The judge: the policy gradient, summed
    episode by episode over sampled tokens alone, at the temperature of sampling."""
    policy, episodes = Policy(model_folder, 1e-3), signal()
    found = capture(policy, monkeypatch)
    arguments = GRPOArguments(
        updates_per_step=1, aggregation=aggregation, micro_batch_tokens=budget, temperature=0.8, steps=1
    )
    metrics = update(policy, episodes, arguments, 0, None)
    tokens = sum(int(e.sampled.sum()) for e in episodes)

    def by_hand(masks: list[Tensor]) -> dict[str, Tensor]:
        total = 0
        for e, mask in zip(episodes, masks, strict=True):
            weight = 1 / tokens if aggregation == "token" else 1 / (len(episodes) * int(e.sampled.sum()))
            total = total - weight * e.advantage * naive_score(policy.model, e.tokens, mask, 0.8)[0].sum()
        total.backward()
        return gradients(policy.model)

    (ours,) = found
    assert_same(ours, by_hand([e.sampled for e in episodes]))
    with pytest.raises(AssertionError):  # the comparison would see a gradient on an observation, or on a prompt
        assert_same(ours, by_hand([(torch.arange(len(e.tokens)) == 9) | e.sampled for e in episodes]))
    with pytest.raises(AssertionError):
        assert_same(ours, by_hand([(torch.arange(len(e.tokens)) == 2) | e.sampled for e in episodes]))
    entropy = sum(float(naive_score(policy.model, e.tokens, e.sampled, 0.8)[1].sum().detach()) for e in episodes)
    assert metrics["entropy"] == pytest.approx(entropy / tokens, rel=1e-4)
    weights = [1 / tokens if aggregation == "token" else 1 / (6 * int(e.sampled.sum())) for e in episodes]
    expected = -sum(w * e.advantage * int(e.sampled.sum()) for w, e in zip(weights, episodes, strict=True))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert metrics["clip_fraction"] == 0


def test_the_ablation_without_a_mask_trains_on_observations(model_folder, monkeypatch):
    """An ablation that does nothing shows that the mask does not matter; one that takes the prompt too shows another
    thing than it says."""
    policy, episodes = Policy(model_folder, 1e-3), signal()
    found = capture(policy, monkeypatch)
    metrics = update(policy, episodes, GRPOArguments(updates_per_step=1, mask_observations=False), 0, None)
    masks = [torch.arange(len(e.tokens)) >= 4 for e in episodes]
    tokens = sum(int(mask.sum()) for mask in masks)
    scores = [naive_score(policy.model, e.tokens, mask)[0] for e, mask in zip(episodes, masks, strict=True)]
    (-sum(e.advantage * score.sum() for e, score in zip(episodes, scores, strict=True)) / tokens).backward()
    assert_same(found[0], gradients(policy.model))
    # Nobody sampled an observation, so there is nothing that its log-prob could differ from.
    compared = [score[e.sampled[4:]].detach() for e, score in zip(episodes, scores, strict=True)]
    gap = float(-torch.cat(compared).mean())
    assert metrics["logprob_gap"] == pytest.approx(gap, rel=1e-4)
    assert metrics["logprob_gap_max"] == pytest.approx(float(-torch.cat(compared).min()), rel=1e-4)


@pytest.mark.parametrize("updates", [1, 2])
def test_rejection_sampling_is_fine_tuning_on_right_episodes(updates, model_folder, monkeypatch):
    """A baseline with a clip, a ratio or the wrong episodes in it is no baseline. All right episodes count alike, those
    of groups that are all right too."""
    episodes = [episode(i, i // 3, correct=i in (0, 3, 4, 5)) for i in range(6)]
    arguments = GRPOArguments(updates_per_step=updates, method="rejection")
    live = judge(episodes, arguments, 0)
    assert live == [episodes[i] for i in (0, 3, 4, 5)] and advantages(episodes) == [1, 0, 0, 1, 1, 1]
    policy = Policy(model_folder, 1e-3)
    found = capture(policy, monkeypatch)
    update(policy, live, arguments, 0, None)
    total = {name: sum(g[name] for g in found) for name in found[0]}
    tokens = sum(int(e.sampled.sum()) for e in live)
    if updates == 1:
        (-sum(naive_score(policy.model, e.tokens, e.sampled)[0].sum() for e in live) / tokens).backward()
        assert_same(total, gradients(policy.model))
    before = total_log_probs(policy, live)
    monkeypatch.undo()
    for step in range(3):
        update(policy, live, arguments, step, None)
    assert all(b > a for a, b in zip(before, total_log_probs(policy, live), strict=True))


def test_several_updates_share_the_old_log_probs(model_folder, monkeypatch):
    """Recomputed after each update, every ratio would be 1 and the clip would never hold; and every episode must be
    in exactly one of the updates."""
    policy, episodes = Policy(model_folder, 1e-2), signal(7)
    documents = {tuple(log_probs.tolist()): i for i, log_probs in enumerate(all_log_probs(policy, episodes))}
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def watching(seen: Tokens, choices):
        calls.append((seen.log_probs.detach(), seen.old, seen.advantages))
        return policy_loss(seen, choices)

    monkeypatch.setattr(grpo, "policy_loss", watching)
    # One document per micro-batch, so that a call is an episode.
    arguments = GRPOArguments(updates_per_step=3, learning_rate=1e-2, micro_batch_tokens=1)
    metrics = update(policy, episodes, arguments, 0, None)
    order = [documents[tuple(old.tolist())] for _, old, _ in calls]
    assert sorted(order) == list(range(7))
    for i, (_, _, advantage) in zip(order, calls, strict=True):
        assert advantage.tolist() == pytest.approx([episodes[i].advantage] * len(advantage))
    assert all(torch.equal(log_probs, old) for log_probs, old, _ in calls[:3])  # the first update: seven in three
    assert not any(torch.equal(log_probs, old) for log_probs, old, _ in calls[3:])
    assert 0 < metrics["clip_fraction"] < 1


def all_log_probs(policy: Policy, episodes: list[Episode]) -> list[Tensor]:
    return log_probs_of(policy.model, [(e.tokens, e.sampled) for e in episodes], 1)


@pytest.mark.parametrize("updates", [1, 2])
def test_no_signal_no_update(updates, model_folder):
    """Early steps of a weak model have no live group at all: nothing to divide by, and no step of the optimizer's
    momentum either."""
    policy = Policy(model_folder, 1e-2)
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    metrics = update(policy, [], GRPOArguments(updates_per_step=updates), 0, None)
    assert all(math.isfinite(value) for value in metrics.values()) and metrics["grad_norm"] == 0
    assert all(torch.equal(p, before[name]) for name, p in policy.model.named_parameters())
    # A single episode in two updates: one of them has nothing to do.
    assert math.isfinite(update(policy, signal(1), GRPOArguments(updates_per_step=updates), 0, None)["loss"])


def test_kl_holds_the_policy_to_its_reference(model_folder, tmp_path):
    """A KL term whose reference is the policy itself is always 0; one with the wrong sign drives it away."""
    save_bundle(random_bundle(seed=1), tmp_path / "other")
    policy, reference = Policy(model_folder, 1e-3), load_bundle(str(tmp_path / "other")).model
    arguments = GRPOArguments(learning_rate=1e-3, kl=1.0, updates_per_step=1)
    episodes = [dataclasses.replace(e, advantage=0.0) for e in signal()]
    same = update(Policy(model_folder, 1e-3), episodes, arguments, 0, load_bundle(model_folder).model)
    assert same["kl"] == pytest.approx(0, abs=1e-6)
    distances = [update(policy, episodes, arguments, step, reference)["kl"] for step in range(5)]
    assert distances[0] > 0.1 and distances == sorted(distances, reverse=True) and distances[-1] < distances[0]


def test_shuffled_rewards_say_nothing_of_their_episodes():
    """A control that keeps some of the truth would learn; one that changes how many are right is another experiment.
    What is stored and counted of the episodes stays true."""
    episodes = [episode(i, i // 8, correct=i % 8 < 3) for i in range(64)]
    arguments = GRPOArguments(shuffle_rewards=True)
    agree = []
    for step in range(50):
        live = judge(episodes, arguments, step)
        assert [e.correct for e in episodes] == [i % 8 < 3 for i in range(64)]
        assert {e.id: e.advantage for e in live} == {e.id: e.advantage for e in episodes if e.advantage}
        assert sum(e.advantage for e in episodes) == pytest.approx(0, abs=1e-3)
        agree += [(e.advantage > 0) == e.correct for e in episodes if e.advantage]
    # By chance 3/8 * 3/8 + 5/8 * 5/8 = 0.53 of signs are right; fifty shuffles of 64 have a standard error of 0.01.
    assert sum(agree) / len(agree) == pytest.approx(0.53, abs=0.04)
    copies = shuffled_outcomes(episodes, "seed")
    assert sum(e.correct for e in copies) == 24 and all(e.reward == e.correct for e in copies)
    assert [e.correct for e in copies] == [e.correct for e in shuffled_outcomes(episodes, "seed")]
    assert [e.correct for e in copies] != [e.correct for e in shuffled_outcomes(episodes, "another")]


# --------------------------------------------------------------------------------------------------------------------
# whole runs: a task that a few updates of warm start solve about half of the time


@pytest.fixture(autouse=True)
def coin(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "coin", Coin())


@pytest.fixture(scope="module")
def executor():
    with Executor() as running:
        yield running


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("updates", [1, 2])
def test_generator_and_trainer_agree_on_log_probs(updates, temperature, warm, executor):
    """Sampling and training that see different models, positions, or temperatures make every ratio wrong from the
    start. Real episodes, with observations in between, scored by the weights that sampled them."""
    policy = Policy(warm, 0.0)
    rollout = Rollout(policy.bundle, executor, RolloutArguments(max_reply_tokens=60), seed=1)
    episodes, _ = rollout(problems("coin", "rl", 6), 4, temperature)
    assert sum(e.code_runs for e in episodes) >= 3
    for i, e in enumerate(episodes):
        e.advantage = float((-1) ** i)
    arguments = GRPOArguments(learning_rate=0.0, updates_per_step=updates, temperature=temperature)
    assert update(policy, episodes, arguments, 0, None)["logprob_gap_max"] < 1e-5
    for e in episodes:
        e.logprobs = torch.where(e.sampled, e.logprobs - 0.01, e.logprobs)
    assert update(policy, episodes, arguments, 0, None)["logprob_gap"] == pytest.approx(0.01, rel=0.01)


def run(warm: str, out: Path, **more) -> Path:
    settings = {
        "tasks": "coin", "problems_per_task": 6, "steps": 2, "prompts_per_step": 4, "group_size": 4,
        "max_reply_tokens": 60, "deterministic": True, "learning_rate": 2e-4,
    }  # fmt: skip
    assert grpo.train(GRPOArguments(model=warm, out=str(out), **(settings | more))) == out / "checkpoint"
    return out


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(warm, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        return run(warm, tmp_path_factory.mktemp("grpo") / "run")


def test_a_run_leaves_everything_behind(finished, warm):
    """Figures without episodes cannot be checked, and a checkpoint that was not trained looks like one that was."""
    names = {path.name for path in finished.iterdir()}
    assert names == {"config.yaml", "revision.txt", "metrics.jsonl", "episodes.jsonl", "checkpoint", "checkpoints"}
    lines, episodes = records(finished / "metrics.jsonl"), records(finished / "episodes.jsonl")
    assert [line["step"] for line in lines] == [0, 1]
    assert all(math.isfinite(value) for line in lines for value in line.values())
    assert [(e["step"], e["group"], e["id"]) for e in episodes] == [
        (step, i // 4, i) for step in range(2) for i in range(16)
    ]
    indices = [[e["index"] for e in episodes if e["step"] == step and e["id"] % 4 == 0] for step in range(2)]
    assert len({*indices[0]}) == 4 and len({*indices[0], *indices[1]}) == 6  # none again before all were drawn
    for line in lines:
        mine = [e for e in episodes if e["step"] == line["step"]]
        assert line["accuracy"] == line["reward"] == sum(e["correct"] for e in mine) / 16
        assert line["code_use"] == sum(e["code_runs"] > 0 for e in mine) / 16
        assert line["finish/answer"] == sum(e["finish"] == "answer" for e in mine) / 16
        assert line["reply_tokens"] == sum(e["sampled_tokens"] for e in mine) / 16
        assert line["live"] == sum(e["advantage"] != 0 for e in mine) / 16
        assert line["logprob_gap"] < 1e-5
        useful = sum(e["sampled_tokens"] for e in mine if e["advantage"] != 0)
        assert line["useful_tokens_per_second"] == pytest.approx(useful / line["seconds"])
        for e in mine:
            assert (e["segments"][0]["source"], e["segments"][-1]["source"]) == ("prompt", "model")
            assert e["correct"] == (e["answer"] == "1") and e["question"] in e["segments"][0]["text"]
    assert any(e["code_runs"] for e in episodes) and lines[0]["live"] > 0
    before, after = load_file(Path(warm) / "model.safetensors"), load_file(finished / "checkpoint/model.safetensors")
    assert before.keys() == after.keys() and not any(torch.equal(before[name], after[name]) for name in before)
    AutoModelForCausalLM.from_pretrained(finished / "checkpoint")
    assert load_bundle(str(finished / "checkpoint")).prompt_style == load_bundle(warm).prompt_style


def test_everything_that_is_logged_is_explained(finished):
    """A name that only its author understands."""
    described = Path("docs/metrics.md").read_text(encoding="utf-8").split("## grpo.py")[1]
    names = {"step", *re.findall(r"`([a-z_/*]+)`", described)}
    for name in records(finished / "metrics.jsonl")[0]:
        assert name in names or f"{name.split('/')[0]}/*" in names


def test_the_same_seed_gives_the_same_run_bit_for_bit(finished, warm, tmp_path):
    """Randomness that depends on time, threads or the latency of programs: no failure could be replayed."""
    again, other = run(warm, tmp_path / "again"), run(warm, tmp_path / "other", seed=1, steps=1)
    assert (again / "episodes.jsonl").read_text() == (finished / "episodes.jsonl").read_text()
    ours, theirs = (load_file(folder / "checkpoint/model.safetensors") for folder in (finished, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    replies = [[e["segments"] for e in records(folder / "episodes.jsonl")[:16]] for folder in (finished, other)]
    assert replies[0] != replies[1]


def test_settings_that_cannot_work_are_refused(warm, tmp_path):
    """Each would otherwise show after minutes, or never."""
    with pytest.raises(UserError, match="--group_size must be at least 2"):
        run(warm, tmp_path / "run", group_size=1)
    with pytest.raises(UserError, match="3 problems are fewer than --prompts_per_step 4"):
        run(warm, tmp_path / "run", problems_per_task=3)
    with pytest.raises(UserError, match="'tokens': one of token, sequence"):
        run(warm, tmp_path / "run", aggregation="tokens")
    with pytest.raises(UserError, match="unknown advantage 'gae': one of group_norm, group_mean"):
        run(warm, tmp_path / "run", advantage="gae")
    with pytest.raises(UserError, match="unknown method 'ppo': one of grpo, rejection"):
        run(warm, tmp_path / "run", method="ppo")
    with pytest.raises(UserError, match="unknown schedule 'steps'"):
        run(warm, tmp_path / "run", schedule="steps")
    with pytest.raises(UserError, match="--temperature must be a number above 0"):
        run(warm, tmp_path / "run", temperature=0.0)
    assert not (tmp_path / "run").exists()


def test_the_problems_of_the_warm_start_are_an_ablation(finished, warm, tmp_path):
    """Trained on by default, they would make RL look better than it is; never, the ablation shows nothing."""
    again = run(warm, tmp_path / "run", steps=1, split="sft")
    for folder, split in ((again, "sft"), (finished, "rl")):
        pool = {problem.index for problem in problems("coin", split, 6)}
        assert {e["index"] for e in records(folder / "episodes.jsonl")} <= pool
    with pytest.raises(UserError, match="unknown split 'test': one of rl, sft"):
        run(warm, tmp_path / "run", split="test")


def test_the_warm_start_is_run_where_the_default_is_missing(warm, tmp_path, monkeypatch):
    """The first command of a newcomer must work; a misspelt path must fail, not train something else for minutes."""
    monkeypatch.chdir(tmp_path)
    calls, small = [], {"tasks": "coin", "steps": 1, "prompts_per_step": 1, "group_size": 2, "max_reply_tokens": 8}

    def train(arguments):
        calls.append(arguments)
        save_bundle(load_bundle(warm), Path(arguments.out) / "checkpoint")

    monkeypatch.setattr(sft, "train", train)
    with pytest.raises(UserError, match="nowhere"):
        grpo.train(GRPOArguments(model=str(tmp_path / "nowhere"), **small))
    assert calls == []
    for _ in range(2):  # the second time it is there
        assert grpo.train(GRPOArguments(**small)) == Path("out/grpo/checkpoint")
        assert calls == [sft.SFTArguments()]
    assert Path("out/grpo/checkpoint/config.json").exists()
