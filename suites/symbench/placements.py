"""Grids to be filled by rules."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
