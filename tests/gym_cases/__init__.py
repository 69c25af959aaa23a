"""Right and wrong answers to the problems of reasoning-gym's data sets, made from the problem and its reference answer.

Each module has `CASES`, by the name of the data set. tests/test_gym.py holds them, and answers that it makes itself,
against the rules.
"""

from collections.abc import Callable
from dataclasses import dataclass

from suites.base import Problem


@dataclass(frozen=True)
class Case:
    """Makers of answers to one data set's problems.

    `right`: other ways to write a right answer, and other right answers where there are several: spaces, line breaks,
    brackets, case, order, as far as they do not change the meaning. `wrong`: near misses, such as one cell changed,
    two items swapped, one step too many, a part of the answer; each must be wrong for certain, so a maker that cannot
    be sure leaves it out.
    """

    right: Callable[[Problem], list[str]]
    wrong: Callable[[Problem], list[str]]
