"""Puzzles whose conditions leave one answer, or a few: passwords, equations, shelves."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
