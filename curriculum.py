"""Which problems when: all alike, or first those that have most to teach.

With p the share of a problem's answers that are right, 4 p (1 - p) is its improvement potential: four times the
variance of the outcome, to which the signal of its group is proportional. measure.py estimates p. A curriculum has four
stages; stage k draws from groups 1 to k of

    potential   the potential, most first: groups with edges 0.64, 0.48 and 0.32, the paper's
    difficulty  p, easiest first: equally large groups (the paper tried it, and found it worse)
    online      the potential, estimated anew at the start of each stage, with what training itself has seen since

Differs from the paper: "equally large" and the edges, which it claims at once, exclude each other with 20 answers per
problem, so `--groups` says which; online estimates come from the episodes of training, at no further cost.
"""

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cli import UserError
from suites.base import Problem

CURRICULA = ("uniform", "potential", "difficulty", "online")
GROUPINGS = ("edges", "quantiles")
EDGES = (64, 48, 32)  # hundredths of the potential; integers, since 4 * 0.8 * 0.2 < 0.64 in floating point
STAGES = len(EDGES) + 1
MEMORY = 0.5  # online: what older outcomes of a problem weigh beside those of a new group

Key = tuple[str, int]  # task and index of a problem
Counts = tuple[float, float]  # right answers, and all


@dataclasses.dataclass
class CurriculumArguments:
    """A part of the arguments of grpo.py."""

    curriculum: str = dataclasses.field(default="uniform", metadata={"help": f"{' | '.join(CURRICULA)}"})
    measured: str = dataclasses.field(
        default="", metadata={"help": "what measure.py wrote; needed by any curriculum but uniform"}
    )
    groups: str = dataclasses.field(
        default="edges", metadata={"help": "by the potential's edges | by quantiles: equally large"}
    )
    stage_steps: int = dataclasses.field(
        default=0, metadata={"help": "steps of each of the four stages, the last one goes on; 0: a quarter of all"}
    )


def potential(right: float, samples: float) -> float:
    """4 p (1 - p) of a problem with so many right answers; 0 for one without answers."""
    return 4 * right * (samples - right) / samples**2 if samples else 0.0


def group_of(right: float, samples: float) -> int:
    """The group (0 to 3) by the potential's edges; exact where counts are integers."""
    for group, edge in enumerate(EDGES):
        if samples and 400 * right * (samples - right) >= edge * samples**2:
            return group
    return len(EDGES)


def quantile_groups(values: Sequence[float], seed: int) -> list[int]:
    """The group (0 to 3) of each value, equally many in each, the largest first; the seed orders equal ones."""
    order = random.Random(seed).sample(range(len(values)), len(values))
    order.sort(key=lambda i: -values[i])
    groups = [0] * len(values)
    for place, i in enumerate(order):
        groups[i] = place * STAGES // len(values)
    return groups


def read_measured(path: str) -> dict[Key, Counts]:
    """What measure.py wrote. UserError for what is none of it."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
        found = {(r["task"], int(r["index"])): (int(r["right"]), int(r["samples"])) for r in records}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--measured {path} cannot be read ({error}): python measure.py makes such a file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--measured {path} is not what measure.py writes: {error!r}") from error
    if bad := [key for key, (right, samples) in found.items() if not 0 <= right <= samples or not samples]:
        raise UserError(f"--measured {path}: impossible counts for {bad[0][0]} #{bad[0][1]}")
    return found


class Bag:
    """Problems in random order, every one of the pool once before any comes again."""

    def __init__(self, pool: list[Problem], seed: int | str):
        self.pool, self.random = pool, random.Random(seed)
        self.left: list[int] = []

    def take(self, count: int) -> list[Problem]:
        """The next `count`, at most as many as the pool has."""
        if len(self.left) < count:
            self.left += self.random.sample(range(len(self.pool)), len(self.pool))
        taken, self.left = self.left[:count], self.left[count:]
        return [self.pool[i] for i in taken]

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as plain JSON values."""
        return {"left": list(self.left), "random": self.random.getstate()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        version, internal, gauss = state["random"]
        self.random.setstate((version, tuple(internal), gauss))
        self.left = list(state["left"])


class Curriculum:
    """The problems of every step. All ranks build the same, and tell it of the same episodes."""

    def __init__(self, pool: list[Problem], arguments: CurriculumArguments, seed: int, steps: int, batch: int):
        """`batch`: problems per step; a stage that has fewer takes from the groups that follow. UserError where the
        measurement does not fit the pool."""
        self.kind, self.by, self.seed, self.batch = arguments.curriculum, arguments.groups, seed, batch
        self.stage_steps, self.steps = arguments.stage_steps, steps
        self.stage, self.counts = 0, {}
        if self.kind != "uniform":
            if not arguments.measured:
                raise UserError(f"--curriculum {self.kind} needs --measured: python measure.py makes that file")
            self.counts = read_measured(arguments.measured)
            everything, pool = len(pool), [p for p in pool if (p.task, p.index) in self.counts]
            if len(pool) < batch:
                raise UserError(
                    f"--measured {arguments.measured} knows {len(pool)} of the {everything} problems: measure the same "
                    "--tasks and --problems_per_task"
                )
        self.pool, self.chosen = pool, list(range(len(pool)))
        self.bag = Bag(pool, seed)
        if self.kind != "uniform":
            self.enter(0)

    def grouped(self) -> list[int]:
        """The group of each problem of the pool, by what is known now."""
        counts = [self.counts[problem.task, problem.index] for problem in self.pool]
        if self.kind == "difficulty":
            return quantile_groups([right / samples for right, samples in counts], self.seed)
        if self.by == "quantiles":
            return quantile_groups([potential(*both) for both in counts], self.seed)
        return [group_of(*both) for both in counts]

    def enter(self, stage: int) -> None:
        """Begins a stage (0 to 3)."""
        groups, last = self.grouped(), stage
        while sum(group <= last for group in groups) < self.batch:
            last += 1
        self.stage, self.chosen = stage, [i for i, group in enumerate(groups) if group <= last]
        self.bag = Bag([self.pool[i] for i in self.chosen], f"{self.seed} stage {stage}")

    def take(self, count: int, step: int) -> list[Problem]:
        """The next `count` problems, of the stage that `step` (from 0) is in. No stage comes twice, also where a run
        that is resumed has more steps, and so longer stages, than before."""
        stage = step // self.stage_steps if self.stage_steps else step * STAGES // self.steps
        if self.kind != "uniform" and min(stage, STAGES - 1) > self.stage:
            self.enter(min(stage, STAGES - 1))
        return self.bag.take(count)

    def observe(self, outcomes: Iterable[tuple[Problem, bool]]) -> None:
        """Takes note of the episodes of a step that have an outcome, which those that the sandbox failed have not:
        problem, and whether it was right. Only an online curriculum cares."""
        if self.kind != "online":
            return
        seen: dict[Key, list[bool]] = {}
        for problem, right in outcomes:
            seen.setdefault((problem.task, problem.index), []).append(right)
        for key, group in seen.items():
            right, samples = self.counts[key]
            self.counts[key] = MEMORY * right + sum(group), MEMORY * samples + len(group)

    def metrics(self) -> dict[str, int]:
        """Where a step is, for metrics.jsonl."""
        return {"stage": self.stage + 1, "stage_problems": len(self.chosen)} if self.kind != "uniform" else {}

    def state(self) -> dict[str, Any]:
        """What `restore` takes, as plain JSON values."""
        where = {"of": [self.kind, self.by], "pool": self._digest(), "stage": self.stage, "chosen": self.chosen}
        counts = [self.counts[problem.task, problem.index] for problem in self.pool] if self.kind == "online" else []
        return {**where, "counts": counts, "bag": self.bag.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken; UserError for another kind of curriculum or another pool."""
        if state["of"] != [self.kind, self.by]:
            raise UserError(
                "the curriculum was {} by {}: resume with the same --curriculum and --groups".format(*state["of"])
            )
        if state["pool"] != self._digest():
            raise UserError(
                "the pool of problems is another: resume with the same --tasks, --split, --problems_per_task and "
                "--measured"
            )
        self.stage, self.chosen = state["stage"], state["chosen"]
        self.bag = Bag([self.pool[i] for i in self.chosen], 0)
        if self.kind == "online":
            for problem, counts in zip(self.pool, state["counts"], strict=True):
                self.counts[problem.task, problem.index] = tuple(counts)
        self.bag.restore(state["bag"])

    def _digest(self) -> str:
        """Which problems the pool has, in which order."""
        names = "\n".join(f"{problem.task} {problem.index}" for problem in self.pool)
        return hashlib.sha256(names.encode()).hexdigest()
