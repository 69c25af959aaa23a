"""Makes suites/split.json: which of the 144 tasks are for training (107) and which are held out (37).

    python runs/split.py

Drawn with a seed, each suite in proportion. The paper's own choice was not published. The file is data: it is read, not
made anew, and stays as it is when rules change.
"""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from suites import bbh, gym
from tasks import SPLIT_FILE

SYMBENCH = (
    "2048", "combinatorial_calculation", "constrained_linear_arrangement", "cryptanalysis", "eight_queens",
    "letter_logic_diagram", "light_puzzles", "logic_puzzle", "logical_equation", "mahjong_pattern",
    "matrix_transformation", "new_operator", "pattern_recognition", "permutations_and_combinations", "pooling",
    "reversi", "standard_sudoku", "statistical_counting", "string_deletion_and_modification", "string_insertion",
    "string_splitting", "string_synthesis", "synthesis_decomposition", "BoxLift", "BoxNet", "Blocksworld", "game24",
    "letters", "number_multiply", "path_plan_continuous", "gsm", "MATH_geometry", "MATH_counting_and_probability",
)  # fmt: skip
HELD_OUT = {"symbench": 8, "bbh": 7, "gym": 22}  # of 33, 27 and 84
SEED = 0


def main() -> None:
    suites = {
        "symbench": list(SYMBENCH),
        "bbh": [task.name for task in bbh.TASKS],
        "gym": [task.name for task in gym.TASKS],
    }
    split: dict[str, list[str]] = {"train": [], "test": []}
    for suite, names in suites.items():
        held_out = set(random.Random(f"{SEED} {suite}").sample(sorted(names), HELD_OUT[suite]))
        for name in names:
            split["test" if name in held_out else "train"].append(name)
    SPLIT_FILE.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    print({part: len(names) for part, names in split.items()})


if __name__ == "__main__":
    main()
