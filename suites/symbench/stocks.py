"""Stocks of things that are turned into each other, by methods in cycles."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
