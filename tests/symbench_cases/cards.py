"""Games of cards."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
