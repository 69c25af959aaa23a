"""Grids to be filled by rules."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
