"""Boards on which something happens: the question says what, the answer is the board behind it."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
