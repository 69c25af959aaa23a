"""Tasks of your own, from a file: one JSON object a line, with `question`, `answer` and `check`.

    {"question": "What is 6 * 7?", "answer": "42", "check": "number"}

check: exact (the same text, white space aside), number (equal numbers), set (the same items between commas, in any
order), or python. Then `program` is a Python program that judges: it finds the answer in the variable `answer`, the
question and the reference in `question` and `reference`, and prints True or False. It runs in the executor, as what
models write does. An optional `split` (sft, rl, dev, test) says where a question belongs; else its text decides.
"""

import json
from pathlib import Path

from suites.base import Problem, Task
from suites.parsers import outer_items, parse_number, unwrap

CHECKS = ("exact", "number", "set", "python")
SPLITS = ("sft", "rl", "dev", "test")
MAX_ANSWER = 10_000  # characters


class FileTask(Task):
    """The questions of one file; its name is the file's, without the ending."""

    suite = "custom"

    def __init__(self, path: str):
        self.name, self.source = Path(path).stem, path
        try:
            lines = Path(path).read_text(encoding="utf-8").split("\n")  # splitlines() cuts within JSON's texts
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the tasks in {path} cannot be read: {error}") from error
        rows = [self._row(f"{path}, line {n}", line) for n, line in enumerate(lines, 1) if line.strip()]
        if not rows:
            raise ValueError(f"{path} has no questions")
        unique: dict[str, dict[str, str]] = {}
        for row in rows:
            unique.setdefault(row["question"], row)
        self._problems = [
            Problem(self.name, index, row["question"], row["answer"], row) for index, row in enumerate(unique.values())
        ]
        self.size = len(self._problems)

    @staticmethod
    def _row(where: str, line: str) -> dict[str, str]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict) or not all(isinstance(value, str) for value in row.values()):
            raise ValueError(f'{where}: must be an object of texts (a number is a text too: "42")')
        check = row.setdefault("check", "exact")
        needed = ["question", "answer", *(["program"] if check == "python" else [])]
        if missing := [name for name in needed if name not in row]:
            raise ValueError(f"{where}: lacks {', '.join(missing)}")
        if unknown := sorted(row.keys() - {"question", "answer", "check", "program", "split"}):
            raise ValueError(f"{where}: {', '.join(unknown)} is not known here")
        if check not in CHECKS:
            raise ValueError(f"{where}: unknown check {check!r}: one of {', '.join(CHECKS)}")
        if row.get("split", "rl") not in SPLITS:
            raise ValueError(f"{where}: unknown split {row['split']!r}: one of {', '.join(SPLITS)}")
        if check == "number" and parse_number(row["answer"]) is None:
            raise ValueError(f"{where}: check is number, but the answer {row['answer']!r} is none")
        return row

    def problem(self, index: int) -> Problem:
        """The question of this number, from 0."""
        if not 0 <= index < self.size:
            raise ValueError(f"{self.name} has {self.size} problems, no number {index}")
        return self._problems[index]

    def score(self, problem: Problem, answer: str) -> int:
        """1 if the check holds, else 0; of check "python", see `judging_program`."""
        if len(answer) > MAX_ANSWER:
            return 0
        given, wanted = unwrap(answer), unwrap(problem.answer)
        if problem.data["check"] == "number":
            value = parse_number(given)
            return int(value is not None and value == parse_number(wanted))
        if problem.data["check"] == "set":
            return int(sorted(outer_items(given)) == sorted(outer_items(wanted)))
        return int(problem.data["check"] == "exact" and given.split() == wanted.split())

    def judging_program(self, problem: Problem, answer: str) -> str | None:
        """The user's own check of this answer, with its variables."""
        if problem.data["check"] != "python" or len(answer) > MAX_ANSWER:
            return None
        names = {"answer": answer, "question": problem.question, "reference": problem.answer}
        return "".join(f"{name} = {text!r}\n" for name, text in names.items()) + problem.data["program"]
