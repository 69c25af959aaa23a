"""Boards on which something happens: the question says what, the answer is the board behind it."""

from suites.symbench.common import Puzzle

TASKS: list[Puzzle] = []
