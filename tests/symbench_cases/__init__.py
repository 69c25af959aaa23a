"""Answers to the puzzles that are right or wrong for a reason, a module per family: `CASES` by the puzzle's name."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from suites.base import Problem


class Case(NamedTuple):
    """Makers of answers to one puzzle's problems, which take their chances from the random source.

    `right`: the solver's answer in other layouts, and other solutions where there are any. `wrong`: answers that break
    a rule of the question by as little as possible; each must be wrong for certain.
    """

    right: Callable[[Problem, Random], list[str]]
    wrong: Callable[[Problem, Random], list[str]]


def number_right(problem: Problem, random: Random) -> list[str]:
    """Layouts of a whole number."""
    return [
        problem.answer,
        f"+{problem.answer}".replace("+-", "-"),
        f"{problem.answer}.0",
        f" {problem.answer}.",
        f"**{problem.answer}**",
    ]


def number_wrong(problem: Problem, random: Random) -> list[str]:
    """Other numbers, and more than a number."""
    number = int(problem.answer)
    near = [number + 1, number - 1, number * 10 + 1, -number or 1, number + random.randint(2, 99)]
    return [*map(str, near), f"{number} {number}", f"{number}, {number}", f"{number}.5", f"{number} or {number + 1}"]
