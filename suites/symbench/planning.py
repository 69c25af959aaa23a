"""Plans of moves: lifters, agents and stacks of blocks."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
