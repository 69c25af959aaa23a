"""What every task is made of: `Problem` and `Task`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One question of a task.

    `answer` is the reference answer, for display; `data` holds what else scoring needs, as plain JSON values.
    """

    task: str
    index: int
    question: str
    answer: str
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Task(ABC):
    """A source of problems and the exact rule that scores answers to them."""

    name: str
    suite: str
    kind: str = "own"  # of check, in a few words, for tables
    source: str = "own"  # where the questions come from
    size: int | None = None  # how many problems there are; None: one for every seed
    few: bool = False  # one for every seed, but only some hundred different ones

    @abstractmethod
    def problem(self, index: int) -> Problem:
        """The problem of this index, a seed >= 0: the same index gives the same problem on every machine."""

    @abstractmethod
    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer is right, else 0.

        Exact: never credit for being close. Total: any text is judged quickly and without an exception, and no
        part of it is ever evaluated.
        """

    def judging_program(self, problem: Problem, answer: str) -> str | None:
        """A program that judges in place of `score`, to be run in the executor: it prints True as its last line if and
        only if the answer is right. None, as for nearly all tasks: `score` does."""
        return None
