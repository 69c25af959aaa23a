"""The data sets of reasoning-gym, by family: 84 of its 106."""

from suites.base import Task
from suites.gym import basic, games, grids, logic, numbers, plans, words

FAMILIES = (basic, games, grids, logic, numbers, plans, words)

EXCLUDED = {
    "composite": "a wrapper around other data sets",
    "path_star": "came after the paper",
    **dict.fromkeys(
        (
            *("boxnet", "mahjong_puzzle", "n_queens", "pool_matrix", "puzzle24", "rotate_matrix", "string_insertion"),
            *("string_manipulation", "string_splitting", "string_synthesis", "sudoku"),
        ),
        "a task of SymBench",
    ),
    "simple_integration": "its answer is a class of expressions, which only a computer algebra system can judge",
    "intermediate_integration": "its answer is a class of expressions, which only a computer algebra system can judge",
    "codeio": "half of it asks for any input that gives an output, which only the reference program can judge",
    "propositional_logic": "any consequence of the premises is right, so a premise said again is",
    "sentence_reordering": "other orders of the words are sentences too",
    "letter_jumble": "half of its items have a second reading (rats, star, arts)",
    "word_ladder": "asks for valid English words, and names no list of them",
    "arc_agi": "some 800 puzzles, turned and recoloured: the same one would be trained on and held out",
    "aiw": "half of its items name people who were never introduced, or have a wrong reference",
}

TASKS: list[Task] = [task for family in FAMILIES for task in family.TASKS]
