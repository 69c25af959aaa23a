"""Plans of moves: lifters, agents and stacks of blocks."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
