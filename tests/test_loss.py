"""Advantages, weights and losses: by hand, against loops over the papers' equations, and against TRL's figures."""

import dataclasses
import json
import math
from itertools import chain
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import PartialState
from conftest import episode
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cli import parse_arguments
from grpo import GRPOArguments, judge
from loss import ADVANTAGES, PRESETS, LossArguments, Tokens, group_advantages, policy_loss, token_weights
from rollout import Episode
from suites.base import Problem

STORED = Path(__file__).parent / "data/trl_losses.json"


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


def choices(**more) -> LossArguments:
    made = LossArguments(**more)
    made.fill()
    return made


def advantages(episodes: list[Episode]) -> list[float]:
    return [round(e.advantage, 4) for e in episodes]


# --------------------------------------------------------------------------------------------------------------------
# advantages


def test_advantages_by_hand():
    """The standard deviation is the unbiased one; groups are taken by number, not by place in the list."""
    mixed = [episode(0, 0, True), episode(1, 1, True), episode(2, 0), episode(3, 0), episode(4, 1), episode(5, 0)]
    assert group_advantages(mixed) == [mixed[i] for i in (0, 2, 3, 5, 1, 4)]
    # group 0: rewards 1 0 0 0, mean 1/4, std 1/2; group 1: rewards 1 0, mean 1/2, std 1/sqrt 2
    assert advantages(mixed) == [1.5, 0.7071, -0.5, -0.5, -0.7071, -0.5]


def test_flat_groups_are_dropped():
    """A group that is all right or all wrong says nothing, but would enter the denominator."""
    flat = [episode(0, 0, True), episode(1, 0, True), episode(2, 1), episode(3, 1)]
    for e in flat:
        e.advantage = 9.0  # left over from another computation
    assert group_advantages(flat) == [] and advantages(flat) == [0] * 4


def test_groups_are_filtered_by_outcome_not_by_reward():
    """With a reward beyond right and wrong, a group of wrong answers has a variance, and normalising would blow a
    difference of a hundredth up to full size."""
    wrong = [episode(0, 0, reward=0.0), episode(1, 0, reward=0.01), episode(2, 0, reward=0.02)]
    assert group_advantages(wrong) == [] and advantages(wrong) == [0, 0, 0]
    mixed = [episode(0, 0, True, reward=1.5), episode(1, 0, True, reward=1.0), episode(2, 0, reward=0.5)]
    assert group_advantages(mixed) == mixed and advantages(mixed) == [1, 0, -1]


@pytest.mark.parametrize("finish", ["sandbox_error", "prompt_too_long"])
def test_what_the_sandbox_failed_leaves_the_statistics(finish):
    """Counted as wrong, an episode is punished for what it did not do, and lifts the others of its group."""
    group = [episode(0, 0, True), episode(1, 0, finish=finish), episode(2, 0)]
    assert group_advantages(group) == [group[0], group[2]]
    assert advantages(group) == [0.7071, 0, -0.7071]
    alone = [episode(0, 0, True), episode(1, 0, finish=finish), episode(2, 0, finish=finish)]
    assert group_advantages(alone) == [] and advantages(alone) == [0, 0, 0]
    assert group_advantages([]) == []


def test_other_advantages_by_hand():
    """A variant that is another one under its name: the ablation would compare GRPO with itself."""

    def mixed() -> list[Episode]:
        return [episode(0, 0, True), episode(1, 1, True), *map(episode, (2, 3)), episode(4, 1), episode(5, 0)]

    for kind, expected in {
        "group_mean": [0.75, 0.5, -0.25, -0.25, -0.5, -0.25],
        "rloo": [1, 1, -1 / 3, -1 / 3, -1, -1 / 3],  # each reward, less the mean of the others
        # the squares of group_mean sum to 9/16 + 3/16 + 1/2 = 5/4: a root mean square of sqrt(5/24)
        "batch": [x / (5 / 24) ** 0.5 for x in (0.75, 0.5, -0.25, -0.25, -0.5, -0.25)],
    }.items():
        episodes = mixed()
        assert judge(episodes, GRPOArguments(advantage=kind), 0) == [episodes[i] for i in (0, 2, 3, 5, 1, 4)]
        assert advantages(episodes) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("finish", ["length", "turns"])
def test_replies_cut_short_are_wrong_unless_masked(finish):
    """Masked always, a model learns to ramble; never, DAPO's filter is missing."""
    group = [episode(0, 0, True), episode(1, 0, finish=finish), episode(2, 0)]
    assert judge(group, GRPOArguments(), 0) == group
    assert judge(group, GRPOArguments(mask_truncated=True), 0) == [group[0], group[2]]
    assert advantages(group) == [0.7071, 0, -0.7071]


@pytest.mark.parametrize("kind", ADVANTAGES)
@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), max_size=24))
def test_advantages_are_centred_and_only_where_outcomes_differ(kind, drawn):
    """Whatever the groups: the mean of a live group is 0, right answers stand above wrong ones, the rest is 0."""
    problem, nothing = Problem("coin", 0, "", ""), torch.zeros(1)
    episodes = [
        Episode(
            i, group, 0, problem, nothing, nothing.bool(), nothing, [], "sandbox_error" if failed else "answer", "1",
            correct, float(correct),
        )
        for i, (group, correct, failed) in enumerate(drawn)
    ]  # fmt: skip
    live = group_advantages(episodes, kind)
    for group in range(5):
        counted = [e for e in episodes if e.group == group and e.finish == "answer"]
        mine = [e for e in live if e.group == group]
        assert mine == (counted if len({e.correct for e in counted}) == 2 else [])
        assert sum(e.advantage for e in mine) == pytest.approx(0, abs=1e-5)
        assert all((e.advantage > 0) == e.correct for e in mine)
    assert all((e.advantage != 0) == any(e is m for m in live) for e in episodes)


# --------------------------------------------------------------------------------------------------------------------
# weights and loss


def test_token_weights():
    """The readings of "mean": over all tokens, or over each episode's and then over episodes. Weights that do not sum
    to 1 are a learning rate that moves with the length of replies; those of "constant" must not know of it."""
    counts = [2, 8, 10]
    assert token_weights(counts, "token") == pytest.approx([1 / 20] * 3)
    assert token_weights(counts, "sequence") == pytest.approx([1 / 6, 1 / 24, 1 / 30])
    assert token_weights(counts, "constant", 50) == pytest.approx([1 / 150] * 3)
    for aggregation in ("token", "sequence"):
        total = sum(n * w for n, w in zip(counts, token_weights(counts, aggregation), strict=True))
        assert total == pytest.approx(1)


def plain_tokens(log_probs: Tensor, old: Tensor, advantages: Tensor, **more) -> Tokens:
    """Tokens of one episode each, as the generator reported them."""
    values = {"owner": torch.arange(len(old)), "entropy": torch.zeros_like(old), "sampler": old}
    return Tokens(log_probs, old, advantages, **(values | more))


def loss_by_hand(log_prob, old, advantage, low, high, reference=None, kl=0.0) -> tuple[float, float, float, float]:
    """Loss, its derivative by the log-prob, whether the clip holds, and the KL estimate, of one token."""
    ratio = math.exp(log_prob - old)
    held = (advantage > 0 and ratio > 1 + high) or (advantage < 0 and ratio < 1 - low)
    bounded = 1 + high if ratio > 1 + high else 1 - low
    loss = -(bounded if held else ratio) * advantage
    slope = 0.0 if held else -ratio * advantage
    k3 = 0.0
    if reference is not None:
        k3 = math.exp(reference - log_prob) - (reference - log_prob) - 1
        loss += kl * k3
        slope += kl * (1 - math.exp(reference - log_prob))
    return loss, slope, float(held), k3


@pytest.mark.parametrize("kl", [0.0, 0.3])
def test_policy_loss_token_by_token(kl):
    """A clip on the wrong side, bounds exchanged, a maximum for the minimum, or KL the wrong way round: each trains,
    only worse. Values and gradients, with both bounds active for both signs of the advantage."""
    g = torch.Generator().manual_seed(0)
    old, reference = -3 * torch.rand(400, generator=g), -3 * torch.rand(400, generator=g)
    log_probs = (old + 0.4 * torch.randn(400, generator=g)).requires_grad_()
    signal = torch.randn(400, generator=g)
    anchor = reference if kl else None
    made = choices(preset="dapo", clip_low=0.2, clip_high=0.28, kl=kl)
    loss, measured = policy_loss(plain_tokens(log_probs, old, signal, reference=anchor), made)
    loss.sum().backward()
    rows = zip(log_probs.tolist(), old.tolist(), signal.tolist(), reference.tolist(), strict=True)
    by_hand = [loss_by_hand(lp, o, a, 0.2, 0.28, r if kl else None, kl) for lp, o, a, r in rows]
    values, slopes, held, k3 = torch.tensor(by_hand).T
    torch.testing.assert_close(loss, values, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(log_probs.grad, slopes, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(measured["clip_fraction"], held)
    assert not measured["clip_fraction"].requires_grad
    assert ("kl" in measured) == (kl > 0)
    if kl:
        torch.testing.assert_close(measured["kl"], k3, atol=1e-5, rtol=1e-4)
        assert (measured["kl"] >= 0).all() and not measured["kl"].requires_grad
    ratio = (log_probs - old).exp()
    for sign in (1, -1):  # all four corners were there
        assert (held[(signal * sign > 0) & (ratio > 1.28)] == (sign > 0)).all()
        assert (held[(signal * sign > 0) & (ratio < 0.8)] == (sign < 0)).all()
        assert ((signal * sign > 0) & (ratio > 1.28)).sum() > 5 < ((signal * sign > 0) & (ratio < 0.8)).sum()


def test_absurd_log_ratios_stay_finite():
    """exp of a log-ratio of 100 is inf, and inf * 0 in the backward pass is nan for the whole model."""
    log_probs = torch.tensor([0.0, -500.0, -0.1, -300.0], requires_grad=True)
    old, anchor = torch.tensor([-500.0, 0.0, -300.0, -0.1]), torch.tensor([-400.0, 0.0, -0.1, -0.2])
    for preset in PRESETS:
        made = choices(preset=preset, kl=0.1, importance_cap=2.0)
        for signal in (torch.ones(4), -torch.ones(4)):
            seen = plain_tokens(log_probs, old, signal, reference=anchor, sampler=old.flip(0))
            loss, measured = policy_loss(seen, made)
            (gradient,) = torch.autograd.grad(loss.sum(), log_probs)
            assert all(torch.isfinite(x).all() for x in (loss, gradient, *measured.values()))


# --------------------------------------------------------------------------------------------------------------------
# presets


class Reply:
    """What the papers' equations speak of: a reward, and log-probs of each token under the policies."""

    def __init__(self, number: int, group: int, reward: float, length: int):
        g = torch.Generator().manual_seed(number)
        self.group, self.reward = group, reward
        self.old = -3 * torch.rand(length, generator=g, dtype=torch.float64)
        self.new = (self.old + 0.4 * torch.randn(length, generator=g, dtype=torch.float64)).requires_grad_()
        self.start = self.old + 0.3 * torch.randn(length, generator=g, dtype=torch.float64)


LONGEST = 40


def objective(preset: str, replies: list[Reply]) -> Tensor:
    """What the paper of a preset maximises, token by token as it is printed there; nothing is shared with loss.py."""
    groups: dict[int, list[Reply]] = {}
    for reply in replies:
        groups.setdefault(reply.group, []).append(reply)
    mean = {k: sum(r.reward for r in group) / len(group) for k, group in groups.items()}
    centred = [r.reward - mean[r.group] for r in replies]
    spread = {
        k: (sum((r.reward - mean[k]) ** 2 for r in group) / (len(group) - 1)) ** 0.5 for k, group in groups.items()
    }
    overall = (sum(x * x for x in centred) / len(centred)) ** 0.5
    tokens, total = sum(len(r.old) for r in replies), 0.0
    for r, difference in zip(replies, centred, strict=True):
        n, sum_of_reply = len(r.old), 0.0
        geometric = torch.exp(sum(r.new[t] - r.old[t] for t in range(n)) / n)
        for t in range(n):
            ratio = torch.exp(r.new[t] - r.old[t])
            kl = torch.exp(r.start[t] - r.new[t]) - (r.start[t] - r.new[t]) - 1
            if preset in ("grpo", "dapo"):
                high = {"grpo": 1.2, "dapo": 1.28}[preset]
                a = difference / spread[r.group]
                value = torch.min(ratio * a, torch.clip(ratio, 0.8, high) * a)
                value = value - 0.001 * kl if preset == "grpo" else value
            elif preset == "dr_grpo":
                value = torch.min(ratio * difference, torch.clip(ratio, 0.8, 1.2) * difference)
            elif preset == "gspo":
                a = difference / spread[r.group]
                value = torch.min(geometric * a, torch.clip(geometric, 1 - 3e-4, 1 + 4e-4) * a)
            elif preset == "cispo":
                value = torch.clip(ratio, max=5.0).detach() * difference / spread[r.group] * r.new[t]
            elif preset == "reinforce_pp":
                a = difference / overall
                value = torch.min(ratio * a, torch.clip(ratio, 0.8, 1.2) * a) - 0.001 * kl
            sum_of_reply = sum_of_reply + value
        per_reply = {"grpo": n, "gspo": n, "dr_grpo": LONGEST}.get(preset)
        total = total + (sum_of_reply / (len(replies) * per_reply) if per_reply else sum_of_reply / tokens)
    return total


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_what_their_papers_say(preset):
    """A preset that is off by a denominator, a bound or a sign carries another algorithm's name."""
    rewards = [(0, 1.0), (0, 0.0), (0, 0.0), (1, 1.0), (1, 0.9), (1, 0.0), (1, 0.1), (1, 1.0)]
    replies = [Reply(i, group, reward, 3 + 5 * (i % 4)) for i, (group, reward) in enumerate(rewards)]
    wanted = -objective(preset, replies)
    wanted.backward()
    slopes = [reply.new.grad.clone() for reply in replies]

    made = choices(preset=preset)
    episodes = [episode(i, r.group, r.reward > 0.5, reward=r.reward) for i, r in enumerate(replies)]
    assert len(group_advantages(episodes, made.advantage)) == len(replies)
    lengths = torch.tensor([len(reply.old) for reply in replies])
    per_episode = torch.tensor([e.advantage for e in episodes], dtype=torch.float64)
    weights = torch.tensor(token_weights(lengths.tolist(), made.aggregation, LONGEST), dtype=torch.float64)
    owner = torch.repeat_interleave(torch.arange(len(replies)), lengths)
    log_probs = torch.cat([reply.new.detach() for reply in replies]).requires_grad_()
    old, start = (torch.cat([getattr(reply, name) for reply in replies]) for name in ("old", "start"))
    more = {"owner": owner, "reference": start if made.kl else None}
    loss, measured = policy_loss(plain_tokens(log_probs, old, per_episode[owner], **more), made)
    total = (weights[owner] * loss).sum()
    total.backward()
    assert float(total) == pytest.approx(float(wanted), rel=1e-4)
    torch.testing.assert_close(log_probs.grad, torch.cat(slopes), rtol=1e-4, atol=1e-7)
    # Bounds that never hold would be tested by nothing: CISPO's is the only one beyond these tokens' reach.
    assert (measured["clip_fraction"].mean() > 0.1) == (preset != "cispo")


def test_another_preset_takes_a_files_choices_along(tmp_path, monkeypatch):
    """A run folder's own file holds every choice: they made of --preset gspo the DAPO of before, under GSPO's name."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(dataclasses.asdict(GRPOArguments(preset="dapo", seed=3))))
    made = parse_arguments(GRPOArguments, [str(path), "--preset", "gspo", "--kl", "0.5"])
    assert {name: getattr(made, name) for name in PRESETS["gspo"]()} == PRESETS["gspo"]() | {"kl": 0.5}
    assert made.seed == 3
    assert parse_arguments(GRPOArguments, [str(path), "--seed", "4"]).aggregation == "token"


@pytest.mark.parametrize("name", json.loads(STORED.read_text())["results"])
def test_losses_are_those_of_a_public_library(name):
    """Two readings of one equation by the same person agree; these figures are TRL's (runs/trl_losses.py)."""
    stored = json.loads(STORED.read_text())
    batch, wanted = stored["batch"], stored["results"][name]
    preset, *capped = name.split(",")
    made = choices(preset=preset, importance_cap=2.0 if capped else 0.0)
    counts = [len(row) for row in batch["old"]]
    owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    flat = {k: torch.tensor([*chain.from_iterable(batch[k])]) for k in ("old", "log_probs", "sampler", "reference")}
    log_probs = flat["log_probs"].requires_grad_()
    seen = Tokens(
        log_probs, flat["old"], torch.tensor(batch["advantages"])[owner], owner, torch.zeros(len(owner)),
        flat["sampler"], flat["reference"] if made.kl else None,
    )  # fmt: skip
    weights = torch.tensor(token_weights(counts, made.aggregation, stored["longest"]))
    total = (weights[owner] * policy_loss(seen, made)[0]).sum()
    total.backward()
    assert float(total) == pytest.approx(wanted["loss"], rel=1e-5)
    torch.testing.assert_close(
        log_probs.grad, torch.tensor([*chain.from_iterable(wanted["gradient"])]), rtol=1e-4, atol=1e-6
    )


def test_flags_depart_from_a_preset_one_by_one():
    """A flag that a preset overrides, or one that resets the others."""
    made = GRPOArguments(preset="gspo", clip_high=0.5)
    assert (made.clip_low, made.clip_high, made.ratio, made.kl) == (3e-4, 0.5, "sequence", 0.0)
    assert GRPOArguments(preset="grpo", kl=0.0).kl == 0.0
    default = GRPOArguments()
    assert (default.aggregation, default.clip_low, default.clip_high, default.kl) == ("token", 0.2, 0.28, 0.0)


def test_every_preset_names_its_paper():
    """A name without a source is a rumour."""
    for preset in PRESETS.values():
        assert any(word in preset.__doc__ for word in ("et al., 2024", "et al., 2025"))
        assert any(word in preset.__doc__ for word in ("equation", "section"))


def test_the_entropy_bonus_raises_entropy():
    """A bonus with the wrong sign hastens the collapse that it is to prevent."""
    logits = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    every = logits.log_softmax(-1)
    entropy = -(every.exp() * every).sum(-1)
    log_probs = every[:, 0]
    seen = plain_tokens(log_probs, log_probs.detach(), torch.zeros(1), entropy=entropy)
    loss, _ = policy_loss(seen, choices(entropy_bonus=0.5))
    assert float(loss) == pytest.approx(-0.5 * float(entropy), rel=1e-6)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    moved = (logits - slope).log_softmax(-1)
    assert float(-(moved.exp() * moved).sum()) > float(entropy)
