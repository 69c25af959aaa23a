"""Ways through rooms with walls."""

from tests.symbench_cases import Case

CASES: dict[str, Case] = {}
