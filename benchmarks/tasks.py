"""All tasks in one table, and what their problems cost to make and to judge.

    python benchmarks/tasks.py [--count 100] [--out docs/tasks.md]

Makes `count` problems of every task that is generated. Per problem: milliseconds, the part of them that is ours rather
than reasoning-gym's (finding out whether an item contradicts itself, preparing what the rule needs), milliseconds to
judge the reference answer; and the share of items that were passed over as their question has no one answer.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from suites.gym.common import GymTask
from suites.symbench.common import Puzzle
from tasks import SPLIT_FILE, TASKS, Row, overview, read_split

HEADER = """\
# The tasks

107 are for training, 37 are held out (`suites/split.json`, drawn with a seed, each suite in proportion). The rules in
full are the docstrings of the functions named under "check", in `suites/`; what is left out of reasoning-gym, and why,
is in `suites/gym/__init__.py`. [symbench.md](symbench.md) has a question of every puzzle and level.

"""


class Meter:
    """Counts the items that the library makes for one task, and the seconds it takes."""

    def __init__(self, make: Callable[[int], Any]):
        self._make = make
        self.items, self.seconds = 0, 0.0

    def __call__(self, seed: int) -> Any:
        started = time.perf_counter()
        entry = self._make(seed)
        self.seconds += time.perf_counter() - started
        self.items += 1
        return entry


def measure(task: GymTask | Puzzle, count: int) -> tuple[float, float, float, float]:
    """Seconds to make `count` problems, those of them that are ours, seconds to judge the reference answers, and the
    share of items passed over."""
    task.problem(count)  # imports, and files that the library reads once
    meter = Meter(task.make)
    if isinstance(task, GymTask):
        task.make = meter
    started = time.perf_counter()
    drawn = [task.problem(index) for index in range(count)]
    made = time.perf_counter()
    assert all(task.score(problem, problem.answer) for problem in drawn)
    judged = time.perf_counter() - made
    seconds = made - started
    return seconds, seconds - meter.seconds, judged, 1 - count / max(count, meter.items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="problems of each data set")
    parser.add_argument("--out", help="file to write the tables to, as Markdown")
    arguments = parser.parse_args()
    costs: dict[str, tuple[float, float, float, float]] = {}
    for name, task in tqdm(TASKS.items(), unit="task"):
        if isinstance(task, GymTask | Puzzle):
            costs[name] = measure(task, arguments.count)
    split = read_split(SPLIT_FILE)

    def total(names: list[str]) -> str:
        made, ours, *_ = map(sum, zip(*(costs[name] for name in names), strict=True))
        return f"{len(names)} tasks x {arguments.count} problems take {made:.0f} s to make, {ours:.1f} s of them ours"

    slowest = sorted(costs, key=lambda name: -costs[name][0])[:4]
    train = [name for name in split["train"] if name in costs]
    text = HEADER + (
        f"`python benchmarks/tasks.py --count {arguments.count}`, one core: {total(list(costs))}; the tasks for "
        f"training: {total(train)}. Slowest: {', '.join(slowest)}.\n\n"
    )

    def line(row: Row) -> str:
        cells = [f"`{row.task}`", row.suite, row.split, row.check]
        if row.task in costs:
            seconds, own, judging, passed = costs[row.task]
            per = 1000 / arguments.count
            cells += [f"{seconds * per:.2f}", f"{own / seconds:.0%}", f"{judging * per:.3f}", f"{passed:.0%}"]
        else:
            cells += ["", "", "", ""]
        return "| " + " | ".join(cells) + " |"

    heads = ["task", "suite", "split", "check", "ms to make", "ours", "ms to judge", "passed over"]
    text += "| " + " | ".join(heads) + " |\n| --- | --- | --- | --- | ---: | ---: | ---: | ---: |\n"
    text += "\n".join(line(row) for row in overview() if row.split) + "\n"
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
