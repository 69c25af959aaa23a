"""GRPO with the interpreter in the loop: sample groups of episodes, reward right answers, raise what beat its
group.

    python grpo.py                                           the embedded default, from sft.py's checkpoint
    torchrun --nproc-per-node 8 grpo.py runs/grpo-qwen2.5-3b.yaml
    python grpo.py --help

A step: draw problems (curriculum.py); sample `group_size` episodes of each (rollout.py); advantages within each group,
and one or several updates on all episodes of groups with signal (loss.py). Tokens of prompts and observations carry no
loss. guards.py stops a run that has come apart.

Differs from the paper: groups are filtered by the variance of the binary outcome; the embedded default takes the mean
over tokens rather than over the tokens of each episode first, a larger learning rate, no KL term, and all problems
alike. `--preset grpo --curriculum potential`, as in runs/, has the paper's.
"""

import dataclasses
import random
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object, set_seed
from torch import Tensor

import sft
from cli import (
    SIGNALS,
    Run,
    Stopped,
    TrainingArguments,
    UserError,
    check_arguments,
    parse_arguments,
    run_main,
    user_input,
)
from curriculum import CURRICULA, GROUPINGS, Curriculum, CurriculumArguments
from executor import check_sandbox
from guards import Guards
from loss import (
    ADVANTAGES,
    AGGREGATIONS,
    BOUNDS,
    RATIOS,
    LossArguments,
    Tokens,
    group_advantages,
    live_groups,
    policy_loss,
    token_weights,
)
from model import Decoder, ModelConfig
from plan import CARDS, planned
from rollout import Episode, Rollout, RolloutArguments, check_prompts
from suites.base import Problem
from tasks import MANY_TURNS, draw_problems, reward
from throughput import RolloutStats
from training import (
    SCHEDULES,
    Policy,
    backward,
    document_cost,
    even_shares,
    held_out_accuracy,
    learning_rate_at,
    load_reference,
    log_probs_of,
    over_ranks,
    reduce_over_ranks,
    shared_groups,
    start_processes,
    stop_requested,
    world_size,
)

WARM_START = "out/sft/checkpoint"
METHODS = ("grpo", "rejection")


@dataclasses.dataclass
class GRPOArguments(TrainingArguments, RolloutArguments, LossArguments, CurriculumArguments):
    """The defaults are those of the embedded model; runs/ holds those for Qwen2.5."""

    model: str = dataclasses.field(default=WARM_START, metadata={"help": "folder or hub name to start from"})
    out: str = dataclasses.field(default="out/grpo", metadata={"help": "run folder"})
    tasks: str = dataclasses.field(
        default="embedded", metadata={"help": "names, suites, embedded, all, train, test, or a .jsonl file"}
    )
    split: str = dataclasses.field(
        default="rl", metadata={"help": "rl: problems that no warm start has seen; sft: its own, an ablation"}
    )
    problems_per_task: int = dataclasses.field(default=200, metadata={"help": "size of the pool, per task"})
    steps: int = dataclasses.field(default=20, metadata={"help": "rollouts, each followed by its updates"})
    prompts_per_step: int = dataclasses.field(default=16, metadata={"help": "problems per rollout, over all ranks"})
    group_size: int = dataclasses.field(default=8, metadata={"help": "episodes per problem"})
    refills: int = dataclasses.field(
        default=0, metadata={"help": "dynamic sampling: problems without signal are replaced, at most so many times"}
    )
    updates_per_step: int = dataclasses.field(default=2, metadata={"help": "optimizer updates per rollout"})
    temperature: float = dataclasses.field(
        default=1.0, metadata={"help": "of sampling, and of the log-probs in the loss"}
    )
    learning_rate: float = dataclasses.field(default=4e-4, metadata={"help": "peak"})
    schedule: str = dataclasses.field(
        default="constant", metadata={"help": "constant | cosine | wsd (see training.py)"}
    )
    warmup: int = dataclasses.field(default=0, metadata={"help": "updates of linear warm-up"})
    max_grad_norm: float = dataclasses.field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    code_timeout: float = dataclasses.field(
        default=2.0, metadata={"help": "seconds a program may run; those of the embedded tasks need milliseconds"}
    )
    method: str = dataclasses.field(
        default="grpo",
        metadata={"help": "grpo | rejection: plain fine-tuning on the right episodes, a baseline"},
    )
    mask_truncated: bool = dataclasses.field(
        default=False, metadata={"help": "replies cut short by a limit leave the update, rather than count as wrong"}
    )
    mask_observations: bool = dataclasses.field(
        default=True, metadata={"help": "no loss on what programs printed; False is an ablation"}
    )
    shuffle_rewards: bool = dataclasses.field(
        default=False, metadata={"help": "a control: rewards dealt out anew among the episodes; must not learn"}
    )
    format_reward: float = dataclasses.field(
        default=0.0, metadata={"help": "added to the reward of replies with an answer in its marks, else taken off"}
    )
    efficiency_penalty: float = dataclasses.field(
        default=0.0, metadata={"help": f"taken off the reward of replies of more than {MANY_TURNS} turns"}
    )
    plan: int = dataclasses.field(
        default=0, metadata={"help": "on this many GPUs: print memory and least times, then end; see plan.py"}
    )
    plan_card: str = dataclasses.field(default="h100", metadata={"help": f"which GPUs: {', '.join(CARDS)}"})
    held_out_problems: int = dataclasses.field(
        default=0, metadata={"help": "per task, of dev, asked at every checkpoint to find the best; 0: none"}
    )
    report_to: str = dataclasses.field(default="", metadata={"help": "tensorboard | wandb"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of the problems drawn and of everything sampled"})

    def __post_init__(self):
        self.fill()
        check_arguments(
            self, advantage=ADVANTAGES, ratio=RATIOS, bound=BOUNDS, aggregation=AGGREGATIONS, method=METHODS,
            schedule=SCHEDULES, plan_card=CARDS, curriculum=CURRICULA, groups=GROUPINGS, split=("rl", "sft"),
        )  # fmt: skip
        if self.group_size < 2 and self.method == "grpo":
            raise UserError("--group_size must be at least 2: an advantage compares an episode with its group")


# --------------------------------------------------------------------------------------------------------------------
# the algorithm


def right_episodes(episodes: list[Episode]) -> list[Episode]:
    """Rejection sampling: the right episodes, each with advantage 1 (RAFT, Dong et al., 2023; at every step anew)."""
    for episode in episodes:
        episode.advantage = float(episode.correct)
    return [episode for episode in episodes if episode.correct]


def shuffled_outcomes(episodes: list[Episode], seed: str) -> list[Episode]:
    """Copies of this rank's episodes with the outcomes of all ranks dealt out anew: as many right ones as before, but
    nothing to learn from. The control for whatever improves by itself."""
    outcomes = {episode.id: (episode.correct, episode.reward) for episode in episodes}
    if world_size() > 1:
        outcomes = dict(gather_object(list(outcomes.items())))
    ids = sorted(outcomes)
    dealt = dict(zip(ids, random.Random(seed).sample(ids, len(ids)), strict=True))
    copies = []
    for episode in episodes:
        correct, reward = outcomes[dealt[episode.id]]
        copies.append(dataclasses.replace(episode, correct=correct, reward=reward))
    return copies


def judge(episodes: list[Episode], arguments: GRPOArguments, step: int) -> list[Episode]:
    """Sets the rewards and advantages of this rank's episodes and returns those to train on."""
    for episode in episodes:
        weights = arguments.format_reward, arguments.efficiency_penalty
        episode.reward = reward(episode.correct, episode.finish == "answer", len(episode.turns), *weights)
    judged = episodes
    if arguments.shuffle_rewards:
        judged = shuffled_outcomes(episodes, f"{arguments.seed} {step} rewards")
    if arguments.method == "grpo":
        live = group_advantages(judged, arguments.advantage, arguments.mask_truncated)
    else:
        live = right_episodes(judged)
    for episode, copy in zip(episodes, judged, strict=True):
        episode.advantage = copy.advantage
    return live


def loss_mask(episode: Episode, mask_observations: bool) -> Tensor:
    """bool [n]: the tokens that carry loss. All that the model wrote; unmasked, observations too, never the prompt."""
    if mask_observations:
        return episode.sampled
    return torch.arange(len(episode.tokens)) >= episode.turns[0].start


# --------------------------------------------------------------------------------------------------------------------
# one step


def update(
    policy: Policy, episodes: list[Episode], arguments: GRPOArguments, step: int, reference: Decoder | None
) -> dict[str, float]:
    """All updates on this rank's episodes with signal. Returns averages over their tokens, on all ranks, and the mean
    loss of an update."""
    # Which update an episode belongs to is drawn over the episodes of all ranks, so that their number does not matter.
    ids = [episode.id for episode in episodes]
    ids = sorted(gather_object(ids) if world_size() > 1 else ids)
    order = random.Random(f"{arguments.seed} {step}").sample(ids, len(ids))
    part_of = {id: place % arguments.updates_per_step for place, id in enumerate(order)}
    masks = [loss_mask(episode, arguments.mask_observations) for episode in episodes]
    documents = [(episode.tokens, mask) for episode, mask in zip(episodes, masks, strict=True)]
    budget, temperature = arguments.micro_batch_tokens, arguments.temperature
    # Before the first update the policy is the old one: only what later updates train on must be scored ahead.
    clipped = arguments.method == "grpo"
    began = time.perf_counter()
    later = [i for i, episode in enumerate(episodes) if clipped and part_of[episode.id] > 0]
    scored = log_probs_of(policy.model, [documents[i] for i in later], budget, temperature)
    old = dict(zip(later, scored, strict=True))
    anchors = log_probs_of(reference, documents, budget, temperature) if reference is not None else None
    scoring = time.perf_counter() - began
    names = ("tokens", "compared", "entropy", "logprob_gap", "clip_fraction", "kl", "loss")
    sums: dict[str, float] = dict.fromkeys(names, 0.0)
    grad_norms, gaps = [], [0.0]
    for part in range(arguments.updates_per_step):
        mine = [i for i, episode in enumerate(episodes) if part_of[episode.id] == part]
        if reduce_over_ranks([len(mine)]) == [0.0]:
            continue
        weights = token_weights([int(masks[i].sum()) for i in mine], arguments.aggregation, arguments.max_reply_tokens)

        def loss(indices, owner, log_probs, entropy, part=part, mine=mine, weights=weights):
            chosen = [mine[i] for i in indices]
            per_episode = torch.tensor([[episodes[i].advantage for i in chosen], [weights[i] for i in indices]])
            advantages, weight = per_episode.to(log_probs.device)[:, owner]
            sampler = torch.cat([episodes[i].logprobs[masks[i]] for i in chosen]).to(log_probs.device)
            sampled = torch.cat([episodes[i].sampled[masks[i]] for i in chosen]).to(log_probs.device)
            before = torch.cat([old[i] for i in chosen]) if part and clipped else log_probs.detach()
            sampler = torch.where(sampled, sampler, before)  # nobody sampled what programs printed
            anchor = torch.cat([anchors[i] for i in chosen]) if anchors is not None else None
            if clipped:
                seen = Tokens(log_probs, before, advantages, owner, entropy, sampler, anchor)
                per_token, measured = policy_loss(seen, arguments)
            else:
                per_token, measured = -log_probs, {}
            total = (weight * per_token).sum()
            measured["entropy"] = entropy.detach()
            if clipped or part == 0:  # else `before` is no longer the policy that sampled
                measured["logprob_gap"] = (before - sampler).abs()[sampled]
                sums["compared"] += int(sampled.sum())
                gaps.append(max(measured["logprob_gap"].tolist(), default=0.0))
            for name, values in measured.items():
                sums[name] += float(values.sum())
            sums["tokens"] += len(log_probs)
            sums["loss"] += float(total.detach())
            return total

        backward(policy.model, [documents[i] for i in mine], loss, budget, temperature)
        total_updates = arguments.steps * arguments.updates_per_step
        at = step * arguments.updates_per_step + part
        rate = learning_rate_at(at, total_updates, arguments.learning_rate, arguments.warmup, arguments.schedule)
        grad_norms.append(policy.step(rate, arguments.max_grad_norm))
    summed = dict(zip(sums, reduce_over_ranks(list(sums.values())), strict=True))
    loss_sum, tokens, compared = summed.pop("loss"), summed.pop("tokens"), summed.pop("compared")
    averages = {name: value / max(1.0, compared if name == "logprob_gap" else tokens) for name, value in summed.items()}
    (largest_gap,) = reduce_over_ranks([max(gaps)], dist.ReduceOp.MAX)
    more = {"logprob_gap_max": largest_gap, "grad_norm": max(grad_norms, default=0.0), "seconds/scoring": scoring}
    return {"loss": loss_sum / max(1, len(grad_norms)), **averages, **more}


def sample(
    rollout: Rollout, curriculum: Curriculum, arguments: GRPOArguments, step: int, progress: str
) -> tuple[list[Episode], RolloutStats] | None:
    """This rank's episodes of a step, and what they cost; None as soon as a signal has come to any rank.

    With `refills`, problems whose groups turn out to be all right or all wrong are followed by as many others, until
    there are enough with signal or no refill is left (dynamic sampling, DAPO, Yu et al., 2025, section 3.2). Theirs
    throws the surplus of a last refill away; here a refill asks only for what is missing.
    """
    drawn: list[Problem] = []
    episodes, stats = [], RolloutStats()
    missing = arguments.prompts_per_step
    for _ in range(1 + arguments.refills):
        first, drawn = len(drawn), drawn + curriculum.take(missing, step)
        groups = shared_groups(len(drawn) - first, arguments, first)
        sampled = SIGNALS.interruptible(
            lambda drawn=drawn, groups=groups: rollout(
                drawn, arguments.group_size, arguments.temperature, step, progress, groups
            )
        )
        if stop_requested():
            return None
        episodes, stats = episodes + sampled[0], stats + sampled[1]
        if arguments.refills:
            (live,) = reduce_over_ranks([len(live_groups(episodes, arguments.mask_truncated))])
            missing = arguments.prompts_per_step - int(live)
            if missing <= 0:
                break
    return episodes, stats


def measure(episodes: list[Episode]) -> dict[str, float]:
    """Averages over all episodes of a rollout, those of all ranks together."""
    count = len(episodes)
    finishes = ("answer", "turns", "length", "no_answer", "prompt_too_long", "sandbox_error")
    return {
        "accuracy": sum(e.correct for e in episodes) / count,
        "reward": sum(e.reward for e in episodes) / count,
        "code_use": sum(e.code_runs > 0 for e in episodes) / count,
        "code_runs": sum(e.code_runs for e in episodes) / count,
        "reply_tokens": sum(int(e.sampled.sum()) for e in episodes) / count,
        **{f"finish/{name}": sum(e.finish == name for e in episodes) / count for name in finishes},
    }


def balanced(episodes: list[Episode], config: ModelConfig) -> list[Episode]:
    """This rank's share of the episodes of all ranks, such that everybody has about the same to compute."""
    if world_size() == 1:
        return episodes
    everybody = sorted(gather_object(episodes), key=lambda episode: episode.id)
    shares = even_shares([document_cost(len(e.tokens), config) for e in everybody], world_size())
    return [everybody[i] for i in sorted(shares[PartialState().process_index])]


def train(arguments: GRPOArguments) -> Path:
    """Runs GRPO and returns the checkpoint's folder."""
    state = start_processes()
    Run.check(arguments.out, arguments.report_to)
    check_sandbox(arguments.best_effort)
    held_out: list[Problem] = []
    with user_input():
        pool = draw_problems(arguments.tasks, arguments.split, arguments.problems_per_task)
        if arguments.held_out_problems:
            held_out = draw_problems(arguments.tasks, "dev", arguments.held_out_problems)
    if len(pool) < arguments.prompts_per_step:
        raise UserError(f"{len(pool)} problems are fewer than --prompts_per_step {arguments.prompts_per_step}")
    curriculum = Curriculum(pool, arguments, arguments.seed, arguments.steps, arguments.prompts_per_step)
    last = arguments.resume_from()
    if not last and arguments.model == WARM_START and not Path(WARM_START).exists():
        if state.is_main_process:
            print(f"{WARM_START} is not there: running the warm start first", flush=True)
        sft.train(sft.SFTArguments())
    set_seed(arguments.seed)
    with user_input():
        more = {"recompute": arguments.recompute, "replicas": arguments.replicas}
        policy = Policy(str(last or arguments.model), arguments.learning_rate, **more)
        reference = load_reference(arguments.model, arguments.replicas) if arguments.kl > 0 else None
        check_prompts(pool + held_out, policy.bundle, arguments.prompt_style, arguments.model)
    run = Run(arguments.out, arguments, arguments.report_to, room=2 * policy.checkpoint_bytes)
    before = run.restored
    if last:
        policy.load(last / "trainer")
        curriculum.restore(before["curriculum"])
    guards = Guards(before.get("guards"))
    best, program_cpu = before.get("best", -1.0), before.get("program_cpu", 0.0)
    began = time.perf_counter() - before.get("seconds", 0.0)
    cpu_began = time.process_time() - before.get("cpu", 0.0)

    def save(step: int, drawn_until: dict[str, Any], better: bool = False) -> Path:
        times = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu_began}
        more = {"best": best, "program_cpu": program_cpu, "curriculum": drawn_until, "guards": guards.history}
        return run.save(step, policy.bundle, policy.save, better, **times, **more)

    folder, saving = run.folder / "checkpoint", 0.0  # seconds of the checkpoint that came before a step
    with arguments.executor() as executor, SIGNALS.waiting():
        rollout = Rollout(policy.bundle, executor, arguments, arguments.seed)
        policy.bundle.config.prompt_style = rollout.style  # the checkpoint remembers it
        for step in range(before["step"], arguments.steps):
            started, drawn_until = time.perf_counter(), curriculum.state()
            label = f"step {step + 1}/{arguments.steps}" if run.main else ""
            sampled = sample(rollout, curriculum, arguments, step, label)
            if sampled is None:  # nothing of this step counts
                save(step, drawn_until)
                raise Stopped(stop_requested())
            episodes, stats = sampled
            live = balanced(judge(episodes, arguments, step), policy.model.config)
            updating = time.perf_counter()
            metrics = update(policy, live, arguments, step, reference)
            syncing = time.perf_counter()
            policy.sync()
            ended = time.perf_counter()
            records = [episode.record(policy.bundle.tokenizer) for episode in episodes]
            everybody = gather_object(episodes) if state.num_processes > 1 else episodes
            if state.num_processes > 1:
                records = sorted(gather_object(records), key=lambda record: record["id"])
            curriculum.observe((e.problem, e.correct) for e in everybody if e.finish != "sandbox_error")
            stats, idle = over_ranks(stats)
            program_cpu += stats.program_cpu_seconds
            used = [episode for episode in everybody if episode.advantage != 0]
            useful_tokens = sum(int(episode.sampled.sum()) for episode in used)
            metrics = {**measure(everybody), "live": len(used) / len(everybody), **metrics, **curriculum.metrics()}
            metrics |= {**dataclasses.asdict(stats), **stats.rates(useful_tokens), "rank_idle": idle}
            metrics |= {
                "seconds/rollout": updating - started,
                "seconds/update": syncing - updating,
                "seconds/sync": ended - syncing,
                "seconds/checkpoint": saving,
                "seconds/total": ended - began,
                "seconds/cpu": reduce_over_ranks([time.process_time() - cpu_began])[0] + program_cpu,
            }
            saving = 0.0
            due = step + 1 == arguments.steps or (arguments.save_every and (step + 1) % arguments.save_every == 0)
            if due and held_out:
                progress = f"{label}, held out" if label else ""
                metrics["held_out"] = held_out_accuracy(rollout, held_out, arguments.temperature, step, progress)
            run.log(step, metrics)
            if run.main:
                run.append("episodes.jsonl", records)
                print(step_line(step, arguments.steps, metrics), flush=True)
            for warning in guards.look(metrics):
                if run.main:
                    print(warning, flush=True)
            if due:
                better = metrics.get("held_out", -1.0) > best
                best = max(best, metrics.get("held_out", -1.0))
                saved = time.perf_counter()
                save(step + 1, curriculum.state(), better)
                saving = time.perf_counter() - saved
    if run.main:
        print(f"GRPO done in {time.perf_counter() - began:.0f} s: {folder}")
    return folder


def step_line(step: int, steps: int, m: dict[str, float]) -> str:
    """One step as one line."""
    stage = f"  stage {m['stage']}" if "stage" in m else ""
    return (
        f"step {step + 1:3d}/{steps}{stage}  right {m['accuracy']:.2f}  "
        f"code {m['code_use']:.2f}  runs {m['code_runs']:.1f}  "
        f"tokens {m['reply_tokens']:3.0f}  live {m['live']:.2f}  entropy {m['entropy']:.2f}  "
        f"grad {m['grad_norm']:.2f}  clip {m['clip_fraction']:.3f}  "
        f"rollout {m['seconds/rollout']:.1f} s ({m['tokens_per_second']:.0f} tok/s)  update {m['seconds/update']:.1f} s"
    )


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(GRPOArguments, argv)
    if arguments.plan:
        with user_input():
            print(planned(arguments))
    else:
        train(arguments)


if __name__ == "__main__":
    run_main(main)
