"""All tasks in one table, and what their problems cost to make and to judge.

    python benchmarks/tasks.py [--count 100] [--out docs/tasks.md]

Makes `count` problems of every data set that is generated. Per problem: milliseconds, the part of them that is ours
rather than the library's (finding out whether an item contradicts itself, preparing what the rule needs), milliseconds
to judge the reference answer; and the share of items that were passed over as their question has no one answer.
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
from tasks import SPLIT_FILE, TASKS, Row, overview, read_split

HEADER = """\
# The tasks

107 are for training, 37 are held out (`suites/split.json`, drawn with a seed, each suite in proportion). The rules in
full are the docstrings of the functions named under "check", in `suites/`; what is left out of reasoning-gym, and why,
is in `suites/gym/__init__.py`.

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


def measure(task: GymTask, count: int) -> tuple[float, float, float, float]:
    """Seconds to make `count` problems, those of them that are ours, seconds to judge the reference answers, and the
    share of items passed over."""
    task.problem(count)  # imports, and files that the library reads once
    meter = task.make = Meter(task.make)
    started = time.perf_counter()
    drawn = [task.problem(index) for index in range(count)]
    made = time.perf_counter()
    assert all(task.score(problem, problem.answer) for problem in drawn)
    judged = time.perf_counter() - made
    seconds = made - started
    return seconds, seconds - meter.seconds, judged, 1 - count / meter.items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="problems of each data set")
    parser.add_argument("--out", help="file to write the tables to, as Markdown")
    arguments = parser.parse_args()
    costs: dict[str, tuple[float, float, float, float]] = {}
    for name, task in tqdm(TASKS.items(), unit="task"):
        if isinstance(task, GymTask):
            costs[name] = measure(task, arguments.count)
    made, ours, judged, _ = map(sum, zip(*costs.values(), strict=True))
    slowest = sorted(costs, key=lambda name: -costs[name][0])[:4]
    text = HEADER + (
        f"`python benchmarks/tasks.py --count {arguments.count}`, one core: {len(costs)} data sets x {arguments.count} "
        f"problems take {made:.0f} s to make, {ours:.1f} s of them ours, and {judged:.1f} s to judge. "
        f"{', '.join(slowest)} take {sum(costs[name][0] for name in slowest) / made:.0%} of the time.\n\n"
    )

    def line(row: Row) -> str:
        cells = [f"`{row.task}`", row.suite, row.split, row.check or row.source]
        if row.task in costs:
            seconds, own, judging, passed = costs[row.task]
            per = 1000 / arguments.count
            cells += [f"{seconds * per:.2f}", f"{own / seconds:.0%}", f"{judging * per:.3f}", f"{passed:.0%}"]
        else:
            cells += ["", "", "", ""]
        return "| " + " | ".join(cells) + " |"

    heads = ["task", "suite", "split", "check", "ms to make", "ours", "ms to judge", "passed over"]
    text += "| " + " | ".join(heads) + " |\n| --- | --- | --- | --- | ---: | ---: | ---: | ---: |\n"
    split = {name for part in read_split(SPLIT_FILE).values() for name in part}
    text += "\n".join(line(row) for row in overview() if row.task in split) + "\n"
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
