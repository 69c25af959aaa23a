"""Arithmetic: expressions to find, and to work out."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
