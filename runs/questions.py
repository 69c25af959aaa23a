"""Writes docs/symbench.md: one question of every puzzle of SymBench at every level, to be read and tried by a person.

python runs/questions.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from suites import symbench
from tasks import ROOT, SPLIT_FILE, read_split

HEADER = """\
# The puzzles of SymBench

One question of every puzzle at every level, with the answer that our solver finds (`python runs/questions.py`). Where a
question leaves room for several answers, all of them are right. `python tasks.py reversi@2 --index 7` shows another
one, `--answer TEXT` says whether an answer is right.

"""
INDEX = 1  # of the problems shown: below all splits


def main() -> None:
    split = {name: part for part, names in read_split(SPLIT_FILE).items() for name in names}
    text = HEADER
    for puzzle in symbench.TASKS:
        text += f"## {puzzle.name}\n\n{' '.join((puzzle.__doc__ or '').split())} For {split[puzzle.name]}.\n\n"
        for level in range(len(puzzle.levels)):
            problem = puzzle.at(level).problem(INDEX)
            text += (
                f"Level {level}:\n\n```text\n{problem.question}\n```\n\nAnswer:\n\n```text\n{problem.answer}\n```\n\n"
            )
    text += "## Faulty published samples\n\nTheir stored solutions break a rule that their questions state.\n\n"
    for rule in dict.fromkeys(symbench.FAULTY.values()):
        paths = [f"`{path}`" for path, broken in symbench.FAULTY.items() if broken == rule]
        text += f"- {rule.rstrip('.')}: {', '.join(sorted(paths))}\n"
    (ROOT / "docs/symbench.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
