"""Games of cards."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
