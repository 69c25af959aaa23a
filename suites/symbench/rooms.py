"""Ways through rooms with walls."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
