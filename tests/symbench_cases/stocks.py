"""Stocks of things that are turned into each other, by methods in cycles."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
