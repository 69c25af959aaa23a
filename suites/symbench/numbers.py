"""Arithmetic: expressions to find, and to work out."""

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from suites.parsers import fraction_parts, parse_number, unwrap, without_brackets
from suites.symbench.common import Data, Puzzle, Sample, stored_samples
from suites.symbench.expressions import (
    ARITHMETIC,
    Operation,
    find,
    find_sum,
    in_any_order,
    in_order,
    symbols,
    uses_and_makes,
    value_of,
    ways_to,
    written,
)

_RULES = (
    "- Each number is used exactly once, and no other number occurs. Digits may not be joined to longer numbers.\n"
    "- Each of the signs + - * / stands between two values. No sign may stand in front of a value, as in -3, and no * "
    "may be left out.\n"
    "- Brackets may stand anywhere. As usual, * and / go before + and -, and signs of the same rank go from left to "
    "right.\n"
    "- Division is exact: 7 / 2 is 3.5. Nothing may be divided by zero.\n"
)


class CombinatorialCalculation(Puzzle):
    """The signs and brackets between numbers in a given order that make them a target."""

    name, kind = "combinatorial_calculation", "order and exact value"
    levels = ((3, 10), (4, 24), (5, 78), (5, 69), (6, 100))  # numbers, target

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        count, target = level
        while True:
            numbers = random.choices(range(1, 10), k=count)
            if find(tuple(numbers), target, in_order) is not None:
                return {"numbers": numbers, "target": target}

    def ask(self, data: Data) -> str:
        return (
            "Write an arithmetic sign between every two neighbours of the following numbers, and brackets where you "
            f"need them, so that the expression has the value {data['target']}.\n\n"
            f"{' '.join(map(str, data['numbers']))}\n\n"
            f"The rules are:\n- The numbers stay in the order in which they are given.\n{_RULES}\n"
            "Return the expression alone, without an equals sign, in the format <<<expression>>>. For example, "
            "<<<(2 + 3) * 4>>> makes 20 of the numbers 2 3 4. You may also return a list of the numbers, signs and "
            "brackets: <<<[(, 2, +, 3, ), *, 4]>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return uses_and_makes(answer, data["numbers"], data["target"], keep_order=True)

    def solve(self, data: Data) -> str:
        return written(find(tuple(data["numbers"]), data["target"], in_order))

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "combinatorial_calculation"):
            data = {"numbers": solution["numbers"], "target": solution["target"]}
            yield Sample(path, data, f"[{', '.join(solution['solution'])}]")


class Draw(NamedTuple):
    """What a level of game24 draws: how many numbers up to which, for which target; of three or four, in how many of
    all the ways to combine them the target has to come out. The fewer, the harder."""

    count: int
    largest: int
    target: int = 24
    ways: range | None = None


class Game24(Puzzle):
    """An expression that makes 24, or another target, of given numbers in any order."""

    name, kind = "game24", "numbers and exact value"
    levels = (
        Draw(3, 13, ways=range(1, 10_000)),
        Draw(4, 13, ways=range(64, 10_000)),
        Draw(4, 13, ways=range(20, 64)),
        Draw(4, 13, ways=range(1, 20)),
        Draw(5, 9),
        Draw(6, 11),
        Draw(8, 100),
        Draw(20, 20),
        Draw(20, 20, target=240),
        Draw(40, 20_000),
    )

    def make(self, random: Random, level: Draw) -> Data:
        while True:
            numbers = sorted(random.choices(range(1, level.largest + 1), k=level.count))
            if level.ways:
                suitable = ways_to(tuple(numbers), level.target) in level.ways
            else:
                suitable = find_sum(numbers, level.target) is not None
            if suitable:
                return {"numbers": numbers, "target": level.target}

    def ask(self, data: Data) -> str:
        return (
            f"Write an arithmetic expression of the following {len(data['numbers'])} numbers that has the value "
            f"{data['target']}.\n\n{' '.join(map(str, data['numbers']))}\n\nThe rules are:\n"
            "- The numbers may come in any order. A number that is given several times is used as many times.\n"
            f"{_RULES}\nReturn the expression alone, without an equals sign, in the format <<<expression>>>. For "
            "example, <<<(4 + 1) * 3>>> makes 15 of the numbers 1 3 4."
        )

    def check(self, data: Data, answer: str) -> bool:
        return uses_and_makes(answer, data["numbers"], data["target"], keep_order=False)

    def solve(self, data: Data) -> str:
        numbers, target = data["numbers"], data["target"]
        tree = find_sum(numbers, target) if len(numbers) > 4 else None
        return written(tree or find(tuple(numbers), target, in_any_order))

    def published(self, folder: Path) -> Iterator[Sample]:
        tables = (folder / "game24_dataset").glob("*/*.csv")
        for table in sorted(tables, key=lambda path: (len(path.name), path.name)):
            with table.open(encoding="utf-8", newline="") as file:
                for row in islice(csv.DictReader(file), 40):  # some tables have thousands
                    numbers = [int(number) for number in row["Puzzles"].split()]
                    data = {"numbers": numbers, "target": int(table.parent.name)}
                    yield Sample(f"{table.relative_to(folder)}#{row['Rank']}", data, row.get("Solutions"))


class NumberMultiply(Puzzle):
    """The product of whole numbers, some of them negative."""

    name, kind = "number_multiply", "equal number"
    levels = ((1, 2, 4), (1, 3, 4), (1, 2, 2, 4))  # digits of each number

    def make(self, random: Random, level: tuple[int, ...]) -> Data:
        sizes = [random.randrange(max(2, 10 ** (digits - 1)), 10**digits) for digits in level]
        return {"numbers": [random.choice((-1, 1)) * size for size in sizes]}

    def ask(self, data: Data) -> str:
        product = " * ".join(f"({number})" if number < 0 else str(number) for number in data["numbers"])
        return (
            f"What is the exact value of this product?\n\n{product}\n\n"
            "Return all of its digits, with a minus sign in front if it is negative, in the format <<<number>>>, for "
            "example <<<-12345>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return parse_number(without_brackets(unwrap(answer))) == math.prod(data["numbers"])

    def solve(self, data: Data) -> str:
        return str(math.prod(data["numbers"]))

    def published(self, folder: Path) -> Iterator[Sample]:
        samples = (folder / "number_multiply").glob("digit_*/sample_*")
        for sample in sorted(samples, key=lambda path: (path.parent.name, len(path.name), path.name)):
            numbers = json.loads((sample / "input_value_list.txt").read_text(encoding="utf-8"))
            stored = (sample / "target_answer.txt").read_text(encoding="utf-8").strip()
            yield Sample(str(sample.relative_to(folder)), {"numbers": numbers}, stored)


class NewOperator(Puzzle):
    """The value of an expression in operations that the question defines."""

    name, kind = "new_operator", "value, error < 0.001"
    levels = (1, 2, 3)  # operators

    def make(self, random: Random, level: int) -> Data:
        signs = random.sample("#@$&%~", level)
        return {
            "operators": {sign: self._definition(random) for sign in signs},
            "expression": self._expression(random, random.sample([*signs, random.choice(signs)], level + 1)),
        }

    @staticmethod
    def _definition(random: Random) -> str:
        p, q = random.randint(1, 5), random.randint(1, 5)
        return random.choice((f"{p}*a + {q}*b", f"{p}*a*b", "(a + b)/b"))

    def _expression(self, random: Random, signs: Sequence[str]) -> str:
        """The signs, in this order, between numbers, with brackets where they can matter and sometimes where not."""
        if not signs:
            return str(random.randint(1, 10))
        last = random.randrange(len(signs))
        left = self._expression(random, signs[:last])
        right = self._expression(random, signs[last + 1 :])
        if last and random.random() < 0.5:
            left = f"({left})"
        return f"{left} {signs[last]} " + (f"({right})" if last + 1 < len(signs) else right)

    def ask(self, data: Data) -> str:
        definitions = "\n".join(f"- a {sign} b = {meaning}" for sign, meaning in data["operators"].items())
        return (
            "Operations on two numbers a and b are defined as follows, where + - * / mean what they usually do:\n\n"
            f"{definitions}\n\nWhat is the value of this expression?\n\n{data['expression']}\n\n"
            "What is in brackets is worked out first. Apart from that, all operations have the same rank: they are "
            "worked out from left to right.\n\n"
            "Return the value in the format <<<number>>>. A whole number or a fraction must be exact; a decimal number "
            "that is not exact must have at least three decimal places and be less than 0.001 away from the exact "
            "value. For example, <<<-8>>>, <<<-7/3>>> or <<<-2.333>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        text, value = without_brackets(unwrap(answer)), self._value(data)
        number = parse_number(text)
        if number is None:
            parts = fraction_parts(text)
            return parts is not None and parts[1] != 0 and parts[0] == value * parts[1]
        places = re.search(r"\.[0-9]{3}", text)
        return number == value or (places is not None and abs(number - value) < Fraction(1, 1000))

    def solve(self, data: Data) -> str:
        return str(self._value(data))

    @staticmethod
    def _value(data: Data) -> Fraction:
        def operation(meaning: str) -> Callable[[Fraction, Fraction], Fraction]:
            tokens = symbols(meaning)
            return lambda a, b: value_of([{"a": a, "b": b}.get(token, token) for token in tokens], ARITHMETIC)

        operations = {sign: Operation(1, operation(meaning)) for sign, meaning in data["operators"].items()}
        return value_of(symbols(data["expression"]), operations)

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, "new_operator_dataset"):
            expression = re.search(r"Calculate (.+)\.", question)[1]
            data = {"operators": solution["operator_definitions"], "expression": expression}
            yield Sample(path, data, str(solution["solution"]))


TASKS: list[Puzzle] = [CombinatorialCalculation(), Game24(), NumberMultiply(), NewOperator()]

_INEXACT = "The expression must have exactly the value of the target; it only comes near it."
_PART = "The whole expression is to be worked out; the stored value leaves out one or two of its three operations."
_PARTS = (26, 34, 40, 56, 58, 88, 100, 104, 112, 114, 124, 132, 134, 146, 154, 168, 170, 178, 192, 198)
FAULTY = {
    "game24_dataset/24/24_8_number.csv#32": _INEXACT,
    **{f"game24_dataset/24/24_40_number.csv#{rank}": _INEXACT for rank in range(1, 8)},
    **{f"game24_dataset/24/24_60_number.csv#{rank}": _INEXACT for rank in range(1, 11)},
    **{f"game24_dataset/24/24_80_number.csv#{rank}": _INEXACT for rank in range(1, 18)},
    **{f"new_operator_dataset/sample_{number}": _PART for number in _PARTS},
}
