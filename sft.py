"""Warm start: supervised fine-tuning on multi-turn trajectories with executed code.

    python sft.py                                            the embedded default: tiny model, scripted teacher
    torchrun --nproc-per-node 8 sft.py runs/sft-qwen2.5-3b.yaml --data trajectories.jsonl
    python sft.py --show_mask                                what is trained on, in colours
    python sft.py --help

A trajectory is a list of segments (prompt, model, observation); see trajectories.py. The loss is the negative
log-likelihood of what the model wrote, summed over the batch and divided by one constant: the number of such tokens in
an average batch. (A mean per batch over-weights the tokens of batches that happen to hold short replies.)

Differs from the paper: the embedded default learns from a scripted teacher that is wrong on purpose a fifth of the
time, and mostly guesses in text, so that reinforcement learning has something to choose from. The paper keeps correct
trajectories of GPT-4o only.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from tqdm import tqdm

import scripted
from checkpoint import Bundle, load_bundle, write_whole
from cli import (
    SIGNALS,
    Run,
    Stopped,
    TrainingArguments,
    UserError,
    check_arguments,
    check_same,
    parse_arguments,
    run_main,
    user_input,
)
from executor import Executor, check_sandbox
from rollout import Rollout, RolloutArguments, check_prompts, choose_style, encode_trajectory
from suites.base import Problem
from tasks import draw_problems, resolve
from training import (
    SCHEDULES,
    Documents,
    Policy,
    backward,
    document_cost,
    even_shares,
    held_out_accuracy,
    learning_rate_at,
    log_probs_of,
    micro_batches,
    reduce_over_ranks,
    start_processes,
    stop_requested,
)
from trajectories import Segments, load_trajectories, write_trajectories


@dataclasses.dataclass
class SFTArguments(TrainingArguments, RolloutArguments):
    """The defaults are those of the embedded model; runs/ holds those for Qwen2.5."""

    model: str = dataclasses.field(default="assets/tiny", metadata={"help": "folder or hub name to start from"})
    out: str = dataclasses.field(default="out/sft", metadata={"help": "run folder"})
    data: str = dataclasses.field(
        default="", metadata={"help": "trajectories or conversations, see trajectories.py; empty: the scripted teacher"}
    )
    tasks: str = dataclasses.field(
        default="embedded", metadata={"help": "what the scripted teacher teaches, and held-out problems are of"}
    )
    trajectories: int = dataclasses.field(default=2560, metadata={"help": "how many the scripted teacher writes"})
    validation: int = dataclasses.field(
        default=0, metadata={"help": "about so many trajectories are held out, all of a question or none"}
    )
    epochs: int = dataclasses.field(default=2, metadata={"help": "passes over the data"})
    batch_size: int = dataclasses.field(default=32, metadata={"help": "trajectories per update, over all ranks"})
    learning_rate: float = dataclasses.field(default=2e-3, metadata={"help": "peak"})
    schedule: str = dataclasses.field(default="wsd", metadata={"help": "constant | cosine | wsd (see training.py)"})
    warmup: int = dataclasses.field(default=30, metadata={"help": "updates of linear warm-up"})
    weight_decay: float = dataclasses.field(default=0.01, metadata={"help": "on matrices"})
    max_grad_norm: float = dataclasses.field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    max_length: int = dataclasses.field(default=512, metadata={"help": "tokens of a trajectory, its prompt included"})
    overlong: str = dataclasses.field(
        default="drop",
        metadata={"help": "longer ones: drop | cut (behind the last program that fits); they are listed"},
    )
    save_every: int = dataclasses.field(
        default=100,
        kw_only=True,
        metadata={
            "help": "updates between checkpoints, each with what is measured on held-out data; 0: only at the end"
        },
    )
    held_out_problems: int = dataclasses.field(
        default=0, metadata={"help": "problems per task, of the dev split, on which sampled accuracy is measured"}
    )
    patience: int = dataclasses.field(
        default=0,
        metadata={"help": "stop once so many measurements were no better (held-out accuracy, else loss); 0: never"},
    )
    show_mask: bool = dataclasses.field(
        default=False, metadata={"help": "show a packed batch in colours, trained tokens set apart, and train nothing"}
    )
    report_to: str = dataclasses.field(default="", metadata={"help": "tensorboard | wandb"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of the data order and the scripted teacher"})

    def __post_init__(self):
        check_arguments(self, schedule=SCHEDULES, overlong=("drop", "cut"))
        if self.patience and not (self.validation or self.held_out_problems):
            raise UserError("--patience needs something to measure: --validation or --held_out_problems")
        if not self.data and self.trajectories < self.batch_size + self.validation and not self.show_mask:
            raise UserError(
                f"{self.trajectories} trajectories are fewer than one batch of {self.batch_size}"
                + (f" and {self.validation} for validation" if self.validation else "")
            )


# --------------------------------------------------------------------------------------------------------------------
# data


class Data(NamedTuple):
    """Trajectories as tokens (int64 [n]) and what was sampled (bool [n])."""

    train: Documents
    validation: Documents
    left_out: list[str]  # a line for each trajectory that is not there, or not whole


def encoded(trajectories: list[Segments], left_out: list[str], bundle: Bundle, arguments: SFTArguments) -> Data:
    """What is trained on, and what is held out: whole questions, drawn by the seed. UserError where there is not
    enough."""
    style = choose_style(arguments.prompt_style, bundle)
    limit = min(arguments.max_length, bundle.model.config.max_positions)

    def tokens_of(segments: Segments):
        return encode_trajectory(bundle.tokenizer, segments, style, bundle.end_id, arguments.max_observation_tokens)

    def shortened(segments: Segments):
        """The longest beginning that fits and ends with a program. It has no end token: the model did not stop."""
        for end in range(len(segments) - 1, 1, -1):
            if segments[end - 1]["source"] == "model" and segments[end]["source"] == "observation":
                tokens, sampled = (part[:-1] for part in tokens_of(segments[:end]))
                if len(tokens) <= limit:
                    return tokens, sampled
        return None

    questions = sorted({segments[0]["text"] for segments in trajectories})
    random.Random(arguments.seed).shuffle(questions)
    sizes = Counter(segments[0]["text"] for segments in trajectories)
    held_out: set[str] = set()
    while questions and sum(sizes[question] for question in held_out) < arguments.validation:
        held_out.add(questions.pop())
    data = Data([], [], list(left_out))
    for segments in trajectories:
        document = tokens_of(segments)
        if (length := len(document[0])) > limit:
            document = shortened(segments) if arguments.overlong == "cut" else None
            what = "dropped" if document is None else f"cut to {len(document[0])}"
            data.left_out.append(f"{segments[0]['text'][:60]!r}: {length} tokens are more than {limit}: {what}")
        if document is not None:
            (data.validation if segments[0]["text"] in held_out else data.train).append(document)
    if len(data.train) < (least := 1 if arguments.show_mask else arguments.batch_size):
        short = f" of at most {limit} tokens" if data.left_out else ""
        rest = f", after {len(data.validation)} for validation," if data.validation else ""
        raise UserError(f"{len(data.train)} trajectories{short}{rest} are fewer than one batch of {least}")
    return data


def coloured(bundle: Bundle, data: Data, arguments: SFTArguments) -> str:
    """The first micro-batch as text. What is trained on is green, or in «» where NO_COLOR is set."""
    batch = data.train[: arguments.batch_size]
    chosen = micro_batches([len(tokens) for tokens, _ in batch], arguments.micro_batch_tokens)[0]
    marks = ("«", "»") if os.environ.get("NO_COLOR") else ("\033[32m", "\033[0m")
    lines = []
    for tokens, sampled in (batch[i] for i in sorted(chosen)):
        text = ""
        both = zip(sampled.tolist(), tokens.tolist(), strict=True)
        for trained, pairs in itertools.groupby(both, lambda pair: pair[0]):
            piece = bundle.tokenizer.decode([token for _, token in pairs])
            text += piece.join(marks) if trained else piece
        lines.append(f"--- {len(tokens)} tokens, {int(sampled.sum())} trained on\n{text}")
    total = sum(len(batch[i][0]) for i in chosen)
    return "\n".join([*lines, f"--- {len(chosen)} documents in one micro-batch of {total} tokens"])


def show_mask(arguments: SFTArguments) -> None:
    """Prints a packed batch and what of it is trained on."""
    with user_input():
        bundle, names = load_bundle(arguments.model), resolve(arguments.tasks)
        if arguments.data:
            stored, left_out = load_trajectories(arguments.data)
        else:
            with Executor(best_effort=arguments.best_effort) as executor:
                written = scripted.compose(names, arguments.batch_size, arguments.seed, executor)
            stored, left_out = [trajectory["segments"] for trajectory in written], []
            arguments = dataclasses.replace(arguments, validation=0)
        print(coloured(bundle, encoded(stored, left_out, bundle, arguments), arguments))


# --------------------------------------------------------------------------------------------------------------------
# training


def validation_loss(policy: Policy, documents: Documents, budget: int) -> float:
    """The mean negative log-likelihood of the sampled tokens, over all ranks."""
    found = log_probs_of(policy.model, shared(policy, documents), budget)
    total, count = reduce_over_ranks([-sum(float(part.sum()) for part in found), sum(map(len, found))])
    return total / max(1.0, count)


def shared(policy: Policy, documents: Documents) -> Documents:
    """This rank's share, such that everybody has about the same to compute."""
    state = PartialState()
    costs = [document_cost(len(tokens), policy.model.config) for tokens, _ in documents]
    return [documents[i] for i in sorted(even_shares(costs, state.num_processes)[state.process_index])]


def write_scripted(names: list[str], path: Path, arguments: SFTArguments) -> None:
    """What the scripted teacher has to say about the tasks, its programs run."""
    print(f"writing and running {arguments.trajectories} scripted trajectories", flush=True)
    with Executor(best_effort=arguments.best_effort) as executor:
        write_trajectories(scripted.compose(names, arguments.trajectories, arguments.seed, executor), path)


def measure(
    policy: Policy, documents: Documents, rollout: Rollout | None, problems: list[Problem], budget: int, step: int
) -> dict[str, float]:
    """The loss on held-out trajectories and the sampled accuracy on held-out problems, where there are any."""
    policy.sync()
    measured = {}
    if documents:
        measured["validation_loss"] = validation_loss(policy, documents, budget)
    if rollout:
        shown = "held out" if PartialState().is_main_process else ""
        measured["held_out"] = held_out_accuracy(rollout, problems, 1.0, step, shown)
    return measured


def train(arguments: SFTArguments) -> Path:
    """Runs the warm start and returns the checkpoint's folder."""
    state = start_processes()
    Run.check(arguments.out, arguments.report_to)
    if not arguments.data or arguments.held_out_problems:
        check_sandbox(arguments.best_effort)
    set_seed(arguments.seed)
    problems: list[Problem] = []
    with user_input():
        names = resolve(arguments.tasks)
        if not arguments.data:
            scripted.check_tasks(names)
        if arguments.held_out_problems:
            problems = draw_problems(arguments.tasks, "dev", arguments.held_out_problems)
        last = arguments.resume_from()
        if last and not arguments.data:
            check_same(Path(arguments.out), arguments, ("tasks", "trajectories"))  # the teacher has written already
        rate, decay = arguments.learning_rate, arguments.weight_decay
        policy = Policy(str(last or arguments.model), rate, decay, arguments.recompute, arguments.replicas)
        bundle = policy.bundle
        bundle.config.prompt_style = choose_style(arguments.prompt_style, bundle)  # the checkpoint remembers it
        if problems:
            check_prompts(problems, bundle, arguments.prompt_style, arguments.model)
    # Bad data must be found before an older run is moved aside, and may itself lie in that run's folder.
    data = encoded(*load_trajectories(arguments.data), bundle, arguments) if arguments.data else None
    run = Run(arguments.out, arguments, arguments.report_to, room=2 * policy.checkpoint_bytes)
    if last:
        policy.load(last / "trainer")
    if data is None:
        path = run.folder / "trajectories.jsonl"
        if run.main and not last:
            write_scripted(names, path, arguments)
        state.wait_for_everyone()
        data = encoded(*load_trajectories(str(path)), bundle, arguments)
    if data.left_out and run.main:
        write_whole(run.folder / "left_out.txt", (line + "\n" for line in data.left_out))
        print(f"{len(data.left_out)} trajectories are left out or cut: {run.folder / 'left_out.txt'} lists them")

    per_epoch = len(data.train) // arguments.batch_size
    total = per_epoch * arguments.epochs
    denominator = arguments.batch_size * sum(int(sampled.sum()) for _, sampled in data.train) / len(data.train)
    order, before = random.Random(arguments.seed), run.restored
    epochs = [order.sample(data.train, len(data.train)) for _ in range(arguments.epochs)]
    started = time.perf_counter() - before.get("seconds", 0.0)
    best, stale = before.get("best", -math.inf), before.get("stale", 0)

    with contextlib.ExitStack() as stack:
        rollout = None
        if problems:
            rollout = Rollout(bundle, stack.enter_context(arguments.executor()), arguments, arguments.seed)
        stack.enter_context(SIGNALS.waiting())
        steps = range(before["step"], total)
        bar = tqdm(steps, "warm start", total, unit="update", initial=steps.start, disable=not run.main, mininterval=1)
        for step in bar:
            if arguments.patience and stale >= arguments.patience:
                bar.close()
                if run.main:
                    print(f"stopped after update {step}: {stale} measurements no better than {run.folder / 'best'}")
                break
            at = step % per_epoch * arguments.batch_size
            mine = shared(policy, epochs[step // per_epoch][at : at + arguments.batch_size])
            nll = torch.zeros((), device=state.device)

            def loss(_, owner, log_probs, entropy, nll=nll):
                nll -= log_probs.detach().sum()
                return -log_probs.sum() / denominator

            backward(policy.model, mine, loss, arguments.micro_batch_tokens)
            rate = learning_rate_at(step, total, arguments.learning_rate, arguments.warmup, arguments.schedule)
            grad_norm = policy.step(rate, arguments.max_grad_norm)
            counts = [float(nll), sum(int(s.sum()) for _, s in mine), sum(len(t) for t, _ in mine)]
            nll_sum, sampled, tokens = reduce_over_ranks(counts)
            metrics = {
                "loss": nll_sum / sampled,
                "grad_norm": grad_norm,
                "learning_rate": rate,
                "tokens": int(tokens),
                "sampled_tokens": int(sampled),
                "seconds": round(time.perf_counter() - started, 2),
            }
            done = step + 1
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
            due = done == total or (arguments.save_every > 0 and done % arguments.save_every == 0)
            better = False
            if due and (data.validation or rollout):
                metrics |= measure(policy, data.validation, rollout, problems, arguments.micro_batch_tokens, done)
                reached = metrics.get("held_out", -metrics.get("validation_loss", 0.0))
                better = reached > best
                best, stale = max(best, reached), 0 if better else stale + 1
            run.log(step, metrics)
            if run.main and (due or done % max(1, total // 8) == 0):
                more = {"validation": "validation_loss", "held out": "held_out"}
                said = "".join(f"  {name} {metrics[key]:.3f}" for name, key in more.items() if key in metrics)
                said = f"loss {metrics['loss']:.3f}  grad {grad_norm:.2f}  lr {rate:.1e}{said}"
                bar.write(f"update {done:4d}/{total}  {said}")
            number = stop_requested()
            if due or number:
                policy.sync()
                state_now = {"seconds": time.perf_counter() - started, "best": best, "stale": stale}
                run.save(done, bundle, policy.save, better, **state_now)
            if number and done < total:
                raise Stopped(number)
    folder = run.folder / "checkpoint"
    if run.main:
        print(f"warm start done in {time.perf_counter() - started:.0f} s: {folder}")
    return folder


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(SFTArguments, argv)
    if arguments.show_mask:
        show_mask(arguments)
    else:
        train(arguments)


if __name__ == "__main__":
    run_main(main)
