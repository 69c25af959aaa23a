"""What tests/test_ranks.py compares between one, two and three processes. Every result is saved by the first rank.

torchrun --nproc-per-node 2 tests/ranks.py FOLDER OUT
"""

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from conftest import Coin
from torch import Tensor

import answering
import evaluate
import grpo
import measure
import sft
import tasks
from checkpoint import load_bundle
from cli import run_main
from grpo import GRPOArguments, update
from rollout import Episode, Turn
from suites.base import Problem
from training import Policy, backward, reduce_over_ranks, start_processes, whole


def documents() -> list[tuple[Tensor, Tensor]]:
    """Eleven ragged documents; of some hardly a token is scored."""
    g, made = torch.Generator().manual_seed(1), []
    for n in (23, 2, 40, 7, 33, 12, 61, 5, 18, 29, 3):
        sampled = torch.rand(n, generator=g) < 0.5
        sampled[-1] = True
        made.append((torch.randint(4, 1024, (n,), generator=g), sampled))
    return made


def episodes() -> list[Episode]:
    """Six groups of four, of different lengths, with an observation inside and any advantage."""
    made = []
    for number in range(24):
        g = torch.Generator().manual_seed(number)
        n = 14 + 5 * (number % 7)
        sampled = torch.arange(n) >= 4
        sampled[8:11] = False
        tokens, advantage = torch.randint(3, 1024, (n,), generator=g), float(torch.randn((), generator=g))
        problem, turns = Problem("coin", number // 4, "", "1"), [Turn(4, 8), Turn(11, n)]
        made.append(
            Episode(
                number, number // 4, 0, problem, tokens, sampled, torch.zeros(n), turns, "answer", "1", True, 1.0,
                advantage,
            )
        )  # fmt: skip
    return made


class Watched(Policy):
    """A policy that takes steps of plain SGD, so that weights tell of gradients, and keeps every gradient."""

    def __init__(self, name: str, **more):
        super().__init__(name, 0.0, **more)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.0)
        self.gradients: list[dict[str, Tensor]] = []

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        self.gradients.append({name: whole(p.grad).clone() for name, p in self.model.named_parameters()})
        return super().step(learning_rate, max_grad_norm)

    def result(self, **figures: float) -> dict:
        self.sync()
        weights = {name: p.detach().clone() for name, p in self.bundle.model.named_parameters()}
        return {"figures": figures, "gradients": self.gradients, "weights": weights}


def supervised(model: str, mine: list[tuple[Tensor, Tensor]], **more) -> dict:
    """One update as in sft.py, in micro-batches so small that ranks have different numbers of them."""
    policy, nll = Watched(model, **more), torch.zeros(())

    def loss(_, owner, log_probs, entropy):
        nll.sub_(log_probs.detach().sum())
        return -log_probs.sum() / 100

    backward(policy.model, mine, loss, budget=64)
    norm = policy.step(0.5, max_grad_norm=1.0)
    return policy.result(loss=reduce_over_ranks([float(nll)])[0], norm=norm)


def reinforced(model: str, mine: list[Episode], **more) -> dict:
    """All updates of one step of grpo.py, held to a reference that is a little off."""
    policy, reference = Watched(model), load_bundle(model).model
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.01)
    arguments = GRPOArguments(learning_rate=0.1, micro_batch_tokens=64, kl=0.1, importance_cap=2.0, **more)
    figures = update(policy, mine, arguments, 0, reference)
    return policy.result(**{name: value for name, value in figures.items() if not name.startswith("seconds")})


def skipped(model: str) -> str:
    """What `sync` says when a tensor is left out of the copy."""
    policy = Policy(model, 0.1)
    for parameter in policy.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    policy.step(0.1, 1.0)
    left_out, copy = policy.bundle.model.layers[1].mlp.down_proj.weight, Tensor.copy_
    try:
        Tensor.copy_ = lambda target, source: target if target is left_out else copy(target, source)
        policy.sync()
    except RuntimeError as error:
        return str(error)
    finally:
        Tensor.copy_ = copy
    return "the copy was taken for right"


def coin_settings(folder: Path) -> dict:
    """Of grpo.py, with five groups, which two or three ranks cannot share evenly."""
    return {
        "model": str(folder / "warm"), "tasks": "coin", "problems_per_task": 5, "prompts_per_step": 5, "group_size": 4,
        "max_reply_tokens": 60, "learning_rate": 2e-4, "micro_batch_tokens": 400,
    }  # fmt: skip


def scripts(folder: Path, out: Path) -> None:
    """Both scripts by their front doors; out/resumed is gone on with, where there is anything."""
    data = str(folder / "coins.jsonl")
    paths = {"model": str(folder / "warm"), "out": str(out / "sft"), "data": data, "tasks": "coin"}
    held_out = {"validation": 5, "held_out_problems": 5, "save_every": 3, "max_reply_tokens": 60}
    sft.train(sft.SFTArguments(**paths, **held_out, batch_size=10, epochs=1, warmup=3))
    settings = coin_settings(folder)
    grpo.train(GRPOArguments(out=str(out / "grpo"), steps=2, **settings))
    grpo.train(GRPOArguments(out=str(out / "resumed"), steps=2, resume=True, **settings))
    more = {"deterministic": False, "slots": 8, "shuffle_rewards": True, "advantage": "batch", "refills": 1}
    more |= {"curriculum": "online", "measured": str(folder / "measured.jsonl"), "stage_steps": 1}
    grpo.train(GRPOArguments(out=str(out / "claimed"), steps=2, **more, **settings))


def evaluated(folder: Path, out: Path) -> None:
    """The warm model's answers to coins, and how often they are right, in batches that no number of ranks divides."""
    measure.CHUNK = 4
    measure.measure(
        measure.MeasureArguments(
            model=str(folder / "warm"), out=str(out / "measured"), tasks="coin", problems_per_task=7, samples=4,
            max_reply_tokens=60,
        )
    )  # fmt: skip
    answering.BATCH = 4
    flags = f"--model {folder / 'warm'} --out {out / 'evaluated'} --tasks coin --problems_per_task 7 --samples 2"
    evaluate.main([*flags.split(), "--max_reply_tokens", "60", "--show", "0", "--no_deterministic"])


def work(folder: Path, out: Path) -> None:
    """Everything; `folder` holds `model`, a random checkpoint, `warm`, one that can toss, and coins.jsonl."""
    state, model = PartialState(), str(folder / "model")
    rank, ranks = state.process_index, state.num_processes
    mine = [e for e in episodes() if e.group % ranks == rank]
    one_busy = mine if ranks == 1 else episodes() if rank == ranks - 1 else []
    results = {
        "supervised": supervised(model, documents()[rank::ranks]),
        "recomputed": supervised(model, documents()[rank::ranks], recompute=True),
        "replicated": supervised(model, documents()[rank::ranks], replicas=ranks),
        "one update": reinforced(model, mine, updates_per_step=1),
        "three updates": reinforced(model, mine, updates_per_step=3),
        "mean per episode": reinforced(model, mine, aggregation="sequence"),
        "ratio per episode": reinforced(model, mine, preset="gspo", aggregation="constant", entropy_bonus=0.1),
        "one busy rank": reinforced(model, one_busy, updates_per_step=2),
        "no signal": reinforced(model, []),
        "skipped": skipped(model) if ranks > 1 else "",
    }
    if state.is_main_process:
        torch.save(results, out / "results.pt")
    if ranks < 3:  # what three would add to two is in the updates
        scripts(folder, out)
        evaluated(folder, out)


def main() -> None:
    start_processes()
    torch.set_num_threads(1)
    tasks.TASKS["coin"] = Coin()
    work(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    run_main(main)
