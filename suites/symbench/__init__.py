"""SymBench: its procedural puzzles, by family."""

from suites.symbench import boards, cards, deduction, numbers, placements, planning, rooms, stocks, strings
from suites.symbench.common import Puzzle

FAMILIES = (boards, cards, deduction, numbers, placements, planning, rooms, stocks, strings)

TASKS: list[Puzzle] = [puzzle for family in FAMILIES for puzzle in family.TASKS]

# Published samples whose stored solution is wrong, with the rule that it breaks.
FAULTY: dict[str, str] = {path: rule for family in FAMILIES for path, rule in getattr(family, "FAULTY", {}).items()}
