"""Arithmetic: expressions to find, and to work out."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
