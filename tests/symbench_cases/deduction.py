"""Puzzles whose conditions leave one answer, or a few: passwords, equations, shelves."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
