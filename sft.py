"""Warm start: supervised fine-tuning on multi-turn trajectories with executed code.

    python sft.py                                            the embedded default: tiny model, scripted teacher
    torchrun --nproc-per-node 8 sft.py runs/sft-qwen2.5-3b.yaml --data trajectories.jsonl
    python sft.py --help

A trajectory is a list of segments (prompt, model, observation); see trajectories.py. The loss is the negative
log-likelihood of what the model wrote, summed over the batch and divided by one constant: the number of such tokens in
an average batch. (A mean per batch over-weights the tokens of batches that happen to hold short replies.)

Differs from the paper: the embedded default learns from a scripted teacher that is wrong on purpose a fifth of the
time, and mostly guesses in text, so that reinforcement learning has something to choose from. The paper keeps correct
trajectories of GPT-4o only.
"""

import dataclasses
import random
import time
from pathlib import Path

import torch
from accelerate.utils import set_seed
from tqdm import tqdm

import scripted
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
from executor import Executor, check_sandbox
from rollout import choose_style, encode_trajectory
from tasks import resolve
from training import (
    SCHEDULES,
    Documents,
    Policy,
    backward,
    learning_rate_at,
    reduce_over_ranks,
    start_processes,
    stop_requested,
)
from trajectories import load_trajectories, write_trajectories


@dataclasses.dataclass
class SFTArguments(TrainingArguments):
    """The defaults are those of the embedded model; runs/ holds those for Qwen2.5."""

    model: str = dataclasses.field(default="assets/tiny", metadata={"help": "folder or hub name to start from"})
    out: str = dataclasses.field(default="out/sft", metadata={"help": "run folder"})
    data: str = dataclasses.field(default="", metadata={"help": "trajectories (.jsonl); empty: the scripted teacher"})
    tasks: str = dataclasses.field(default="embedded", metadata={"help": "what the scripted teacher teaches"})
    trajectories: int = dataclasses.field(default=2560, metadata={"help": "how many the scripted teacher writes"})
    epochs: int = dataclasses.field(default=2, metadata={"help": "passes over the data"})
    batch_size: int = dataclasses.field(default=32, metadata={"help": "trajectories per update, over all ranks"})
    learning_rate: float = dataclasses.field(default=2e-3, metadata={"help": "peak"})
    schedule: str = dataclasses.field(default="wsd", metadata={"help": "constant | cosine | wsd (see training.py)"})
    warmup: int = dataclasses.field(default=30, metadata={"help": "updates of linear warm-up"})
    weight_decay: float = dataclasses.field(default=0.01, metadata={"help": "on matrices"})
    max_grad_norm: float = dataclasses.field(default=1.0, metadata={"help": "gradients are clipped to this norm"})
    max_length: int = dataclasses.field(default=512, metadata={"help": "longer trajectories are dropped, and counted"})
    max_observation_tokens: int = dataclasses.field(
        default=96, metadata={"help": "longer output is cut, as in rollouts"}
    )
    prompt_style: str = dataclasses.field(default="", metadata={"help": "see rollout.py; empty: the checkpoint's own"})
    best_effort: bool = dataclasses.field(
        default=False, metadata={"help": "run programs even where the sandbox does not hold, with your rights"}
    )
    save_every: int = dataclasses.field(
        default=100, kw_only=True, metadata={"help": "updates between checkpoints; 0: only at the end"}
    )
    report_to: str = dataclasses.field(default="", metadata={"help": "tensorboard | wandb"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of the data order and the scripted teacher"})

    def __post_init__(self):
        check_arguments(self, schedule=SCHEDULES)


def train(arguments: SFTArguments) -> Path:
    """Runs the warm start and returns the checkpoint's folder."""
    state = start_processes()
    Run.check(arguments.out, arguments.report_to)
    if not arguments.data:
        check_sandbox(arguments.best_effort)
    set_seed(arguments.seed)
    with user_input():
        names = resolve(arguments.tasks)
        if not arguments.data:
            scripted.check_tasks(names)
        last = arguments.resume_from()
        rate, decay = arguments.learning_rate, arguments.weight_decay
        policy = Policy(str(last or arguments.model), rate, decay, arguments.recompute, arguments.replicas)
        bundle = policy.bundle
        style = bundle.config.prompt_style = choose_style(arguments.prompt_style, bundle)  # the checkpoint remembers it
    limit = min(arguments.max_length, bundle.model.config.max_positions)

    def encode(path: str) -> Documents:
        documents = [
            encode_trajectory(bundle.tokenizer, segments, style, bundle.end_id, arguments.max_observation_tokens)
            for segments in load_trajectories(path)
        ]
        kept = [document for document in documents if len(document[0]) <= limit]
        if len(kept) < len(documents) and state.is_main_process:
            print(f"dropped {len(documents) - len(kept)} of {len(documents)} trajectories: longer than {limit} tokens")
        if len(kept) < arguments.batch_size:
            left = f"{len(kept)} trajectories" + (f" of at most {limit} tokens" if len(kept) < len(documents) else "")
            raise UserError(f"{left} are fewer than one batch of {arguments.batch_size}")
        return kept

    # Bad data must be found before an older run is moved aside, and may itself lie in that run's folder.
    kept = encode(arguments.data) if arguments.data else []
    run = Run(arguments.out, arguments, arguments.report_to, room=2 * policy.checkpoint_bytes)
    if last:
        policy.load(last / "trainer")
    if not kept:
        path = run.folder / "trajectories.jsonl"
        if run.main and not last:
            print(f"writing and running {arguments.trajectories} scripted trajectories", flush=True)
            with Executor(best_effort=arguments.best_effort) as executor:
                written = scripted.compose(names, arguments.trajectories, arguments.seed, executor)
                write_trajectories(written, path)
        state.wait_for_everyone()
        kept = encode(str(path))

    per_epoch = len(kept) // arguments.batch_size
    total = per_epoch * arguments.epochs
    denominator = arguments.batch_size * sum(int(sampled.sum()) for _, sampled in kept) / len(kept)
    order, before = random.Random(arguments.seed), run.restored
    epochs = [order.sample(kept, len(kept)) for _ in range(arguments.epochs)]
    started = time.perf_counter() - before.get("seconds", 0.0)

    def save(step: int) -> Path:
        policy.sync()
        return run.save(step, bundle, policy.save, seconds=time.perf_counter() - started)

    steps = range(before["step"], total)
    bar = tqdm(steps, "warm start", total, unit="update", initial=steps.start, disable=not run.main, mininterval=1)
    with SIGNALS.waiting():
        for step in bar:
            at = step % per_epoch * arguments.batch_size
            batch = epochs[step // per_epoch][at : at + arguments.batch_size]
            mine = batch[state.process_index :: state.num_processes]
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
            run.log(step, metrics)
            done = step + 1
            bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
            if run.main and (done % max(1, total // 8) == 0 or done == total):
                bar.write(f"update {done:4d}/{total}  loss {metrics['loss']:.3f}  grad {grad_norm:.2f}  lr {rate:.1e}")
            number = stop_requested()
            if number or done == total or (arguments.save_every and done % arguments.save_every == 0):
                save(done)
            if number and done < total:
                raise Stopped(number)
    folder = run.folder / "checkpoint"
    if run.main:
        print(f"warm start done in {time.perf_counter() - started:.0f} s: {folder}")
    return folder


def main(argv: list[str] | None = None) -> None:
    train(parse_arguments(SFTArguments, argv))


if __name__ == "__main__":
    run_main(main)
