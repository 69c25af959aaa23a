"""SymBench's puzzles (Chen et al., 2025): the class that all share, and what several of them need.

Each puzzle makes its problems, asks in its own words, checks by the rules that the question states, and solves what it
asks. The original checkers accept some wrong answers and refuse some right ones; ours accept every answer that obeys
the rules, and nothing else.
"""

import copy
import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from suites.base import Problem, Task
from suites.parsers import text_grid
from suites.stored import MissingDataError

MAX_ANSWER = 2000  # characters, unless a puzzle needs more

Data = dict[str, Any]
"""What a problem consists of, as plain JSON values: all that asking, checking and solving need."""


class Sample(NamedTuple):
    """A published problem: where it lies in the folder, and the solution stored with it, as an answer; None if there is
    none."""

    path: str
    data: Data
    stored: str | None


class Puzzle(Task):
    """One puzzle. A subclass has a docstring that says what is asked, `name`, `kind` (of the check, in a few words),
    `levels`, and the methods below.

    `levels`: what `make` gets, from the easiest to the hardest, as published. Problems are drawn over all of them;
    `at(level)` is the same puzzle at one.
    """

    suite = "symbench"
    source = "own words"
    levels: Sequence[Any]
    max_answer = MAX_ANSWER

    @abstractmethod
    def make(self, random: Random, level: Any) -> Data:
        """A problem of this level that has a solution; it takes all its chances from `random`."""

    @abstractmethod
    def ask(self, data: Data) -> str:
        """The question: every rule that `check` enforces, and the form of the answer between <<< and >>>."""

    @abstractmethod
    def check(self, data: Data, answer: str) -> bool:
        """Whether the answer, as it stood between the marks, is right."""

    @abstractmethod
    def solve(self, data: Data) -> str:
        """A right answer, found from what the question says."""

    @abstractmethod
    def published(self, folder: Path) -> Iterator[Sample]:
        """The published problems below this folder, in the order of their names."""

    def at(self, level: int) -> "Puzzle":
        """The same puzzle at one of its levels, 0 being the easiest, under the name "name@level"."""
        if not 0 <= level < len(self.levels):
            raise ValueError(f"{self.name} has the levels 0 to {len(self.levels) - 1}, no {level}")
        puzzle = copy.copy(self)
        puzzle.name, puzzle.levels = f"{self.name}@{level}", [self.levels[level]]
        puzzle.few = True  # light_puzzles@0 has 192 different questions: dev and test would hold out nearly all
        return puzzle

    def problem(self, index: int) -> Problem:
        """The problem of this seed, of a level that the seed decides."""
        if index < 0:
            raise ValueError(f"{self.name}: a problem's index is a seed >= 0, not {index}")
        random = Random(f"{self.name} {index}")
        return self._problem(index, self.make(random, random.choice(self.levels)))

    def load_published(self, folder: Path) -> list[tuple[Problem, Sample]]:
        """The published problems below this folder, in our words; MissingDataError if none can be read."""
        try:
            loaded = [(self._problem(i, sample.data), sample) for i, sample in enumerate(self.published(folder))]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise MissingDataError(f"{self.name}: its published problems cannot be read: {error!r}") from error
        if not loaded:
            raise MissingDataError(f"{self.name}: no published problems in {folder}")
        return loaded

    def _problem(self, index: int, data: Data) -> Problem:
        return Problem(self.name, index, self.ask(data), self.solve(data), data)

    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer obeys the rules, else 0."""
        return int(len(answer) <= self.max_answer and self.check(dict(problem.data), answer.strip()))


# ---------------------------------------------------------------------------------------------------------------------
# Reading what was published


def stored_samples(folder: Path, name: str) -> Iterator[tuple[str, str, Any]]:
    """Path, question and solution of each sample in a folder with one folder a sample."""
    for sample in sorted((folder / name).glob("sample_*"), key=lambda path: (len(path.name), path.name)):
        question = (sample / "question.txt").read_text(encoding="utf-8")
        solution = json.loads((sample / "solution.json").read_text(encoding="utf-8"))
        yield f"{name}/{sample.name}", question, solution


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def numbered(lines: Sequence[str]) -> str:
    """The lines as a numbered list."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))


def rows_of(grid: Sequence[Sequence[Any]], separator: str = " ") -> str:
    """The grid, a row a line."""
    return "\n".join(separator.join(map(str, row)) for row in grid)


# ---------------------------------------------------------------------------------------------------------------------
# Checking


def is_grid(answer: str, grid: Sequence[Sequence[Any]]) -> bool:
    """Whether the answer has the cells of this grid, row by row or all in one line."""
    rows = [[str(cell) for cell in row] for row in grid]
    return text_grid(answer) in (rows, [[cell for row in rows for cell in row]])
