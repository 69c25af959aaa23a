"""What the tests of both families of generated tasks share."""

import importlib
import pkgutil
import random
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from suites.base import Problem

ALPHABET = "0123456789 .,-+*/=()[]{}<>|#_\"'\\\nabcxyzABCXYZ—é\u2588√\0"


def cases(package: ModuleType) -> dict[str, Any]:
    """The cases in all modules of a package, by the task's name."""
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    return {name: case for module in modules for name, case in module.CASES.items()}


def judge_any_text(score: Callable[[Problem, str], int], problems: Sequence[Problem]) -> None:
    """Gives a rule 250 random texts for each of four problems, texts that are nearly an answer, and long ones."""
    r = random.Random(problems[0].task)
    for problem in problems[:4]:
        for _ in range(250):  # too long to be right by chance
            assert score(problem, "".join(r.choices(ALPHABET, k=r.choice((10, 20, 60))))) == 0
        pieces = list(problem.answer) or ["x"]
        for _ in range(50):  # what is nearly an answer goes deeper into a rule
            text = list(problem.answer)
            for _ in range(r.choice((1, 2, 5))):
                text[r.randrange(len(text) + 1) : r.randrange(len(text) + 1)] = r.choices(pieces + list(ALPHABET), k=2)
            assert score(problem, "".join(text)) in (0, 1)
        whole = problem.answer * (100_000 // max(1, len(problem.answer)))
        for long in ("(" * 100_000, "9" * 100_000, whole, "[1," * 33_000):
            assert score(problem, long) == 0
