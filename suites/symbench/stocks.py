"""Stocks of things that are turned into each other, by methods in cycles."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, compress, cycle
from pathlib import Path
from random import Random
from typing import Any

from suites.parsers import parse_number, unwrap
from suites.symbench.common import Data, Puzzle, Sample, numbered, stored_samples

Amounts = list[list[Any]]
"""How much of what: [[2, "X"], [1, "Y"]]."""


def in_words(amounts: Amounts) -> str:
    """Such as "1 A, 2 B and 1 C"."""
    *most, last = (f"{number} {name}" for number, name in amounts)
    return f"{', '.join(most)} and {last}" if most else last


def is_counts(answer: str, names: Sequence[str], counts: Sequence[int]) -> bool:
    """Whether the answer is these numbers in this order, each with its name or none of them: 1, 0, 12 or A: 1, B: 0,
    C: 12 or 1 A, 0 B, 12 C."""
    text = unwrap(answer)
    if text[:1] + text[-1:] in ("[]", "()", "{}"):
        text = text[1:-1]
    words = [word for word in re.split(r"[\s,;:=\"']+", text) if word]
    if words[::2] == names:
        words = words[1::2]
    elif words[1::2] == names:
        words = words[::2]
    return [parse_number(word) for word in words] == counts


class Stocks(Puzzle):
    """A puzzle about what is in stock when no method can be used any more.

    A problem's `names` are the things in the order of the answer, `start` is how many there are of each, and `methods`
    says what each method takes and what it gives, as `Amounts`.
    """

    kind = "final counts"
    folder: str  # of the published samples
    names: Sequence[str]  # of all things, in the order of the stored solutions
    scene: str  # where it happens
    often = False  # whether a method is used as often as it can be when it is its turn, or once
    steps: tuple[int, int]  # fewest and most uses of methods

    @abstractmethod
    def draw(self, random: Random, level: Any) -> Data:
        """Any problem. What a method gives comes after what it takes in some order of things, so that each problem
        has an end."""

    def make(self, random: Random, level: Any) -> Data:
        fewest, most = self.steps
        while True:
            data = self.draw(random, level)
            if fewest <= self._work(data)[1] <= most:
                return data

    def ask(self, data: Data) -> str:
        names, methods = data["names"], data["methods"]
        start = [[number, name] for number, name in zip(data["start"], names, strict=True) if number]
        turn = (
            "it is used again and again for as long as all that it takes is in stock, before the next one has its turn"
            if self.often
            else "it is used exactly once if all that it takes is in stock, and is skipped otherwise"
        )
        return (
            f"{self.scene} There are these methods:\n\n"
            f"{numbered([f'Turn {in_words(takes)} into {in_words(gives)}.' for takes, gives in methods])}\n\n"
            f"The methods take turns in this order, and after method {len(methods)} it is the turn of method 1 again. "
            f"When it is a method's turn, {turn}. What a method gives is in stock at once, and can be taken by any "
            "method from then on. The work ends when there is no method that can be used.\n\n"
            f"At the start, {in_words(start)} are in stock, and nothing else. How many are there of each at the end? "
            f"Return the {len(names)} numbers in the order {', '.join(names)}, separated by commas, in the format "
            f"<<<number, number, ...>>>, for example <<<{', '.join(str(10 * i) for i in range(1, len(names) + 1))}>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_counts(answer, data["names"], self._work(data)[0])

    def solve(self, data: Data) -> str:
        return ", ".join(map(str, self._work(data)[0]))

    def _work(self, data: Data) -> tuple[list[int], int]:
        """What is in stock at the end, and how often methods were used until then."""
        stock = dict(zip(data["names"], data["start"], strict=True))
        uses = skipped = 0
        methods = cycle(data["methods"])
        while skipped < len(data["methods"]):
            takes, gives = next(methods)
            times = min(stock[name] // number for number, name in takes)
            if not self.often:
                times = min(times, 1)
            for number, name in takes:
                stock[name] -= times * number
            for number, name in gives:
                stock[name] += times * number
            uses, skipped = uses + times, 0 if times else skipped + 1
        return list(stock.values()), uses

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, self.folder):
            start, methods = published_problem(question, self.names)
            # Where fewer crops are grown, the stored solutions have zeros for the others.
            used = {name for sides in ([start], *methods) for amounts in sides for _, name in amounts}
            kept = [name in used for name in self.names]
            data = {"names": list(compress(self.names, kept)), "methods": methods}
            counts = dict.fromkeys(data["names"], 0) | {name: number for number, name in start}
            stored = compress(self.stored(solution), kept)
            yield Sample(path, data | {"start": list(counts.values())}, ", ".join(map(str, stored)))

    @staticmethod
    @abstractmethod
    def stored(solution: Any) -> Sequence[Any]:
        """The counts in a stored solution, one for each of `names`."""


class StringSplitting(Stocks):
    """What is left when machines are taken apart and parts are put together."""

    name = folder = "string_splitting"
    levels = ((1, 3), (2, 4), (3, 6), (4, 7), (5, 10))  # fewest and most machines of each kind
    names = "ABCXYZ"
    scene = "A workshop has old machines A, B and C, and makes parts X, Y and Z of them."
    steps = (3, 40)

    def draw(self, random: Random, level: tuple[int, int]) -> Data:
        def some(names: str) -> Amounts:
            return [[random.choice((1, 1, 2)), name] for name in names]

        plan = (("A", "XY"), ("B", "X"), ("C", "Y"), ("BC", "A"), ("XY", "Z"))
        methods = [[some(takes), some(gives)] for takes, gives in plan]
        random.shuffle(methods)
        start = [random.randint(*level) for _ in "ABC"]
        return {"names": list(self.names), "start": [*start, 0, 0, 0], "methods": methods}

    @staticmethod
    def stored(solution: Any) -> Sequence[Any]:
        return solution["expected_answer"]


class StringSynthesis(Stocks):
    """What is left when blocks are put together, and the new blocks again."""

    name = folder = "string_synthesis"
    levels = ((3, 4, 4), (4, 6, 5), (5, 8, 7))  # most blocks [A], [B] and [C]
    names = ("[A]", "[B]", "[C]", "{A}", "{B}", "{C}", "(A)", "(B)", "(C)")
    scene = "Blocks are put together. Their brackets are a part of their names: [A], {A} and (A) are different blocks."
    often = True
    steps = (3, 20)

    def draw(self, random: Random, level: tuple[int, int, int]) -> Data:
        square, curly, rounded = self.names[:3], self.names[3:6], self.names[6:]
        sets = [blocks for size in (2, 3) for blocks in combinations_with_replacement(square, size)]
        plan = [(blocks, [random.choice(curly)]) for blocks in random.sample(sets, 4)]
        pairs = list(combinations_with_replacement(curly, 2))
        plan += [(pair, random.sample(rounded, random.choice((1, 2)))) for pair in random.sample(pairs, 2)]
        random.shuffle(plan)
        methods = [[[[n, name] for name, n in sorted(Counter(side).items())] for side in method] for method in plan]
        start = [random.randint(1, most) for most in level]
        return {"names": list(self.names), "start": start + [0] * 6, "methods": methods}

    @staticmethod
    def stored(solution: Any) -> Sequence[Any]:
        return solution["final_counts"]


class SynthesisDecomposition(Stocks):
    """What is left when crops are exchanged for each other and for products."""

    name, folder = "synthesis_decomposition", "synthesis_decomposition_dataset"
    levels = (  # fewest and most of each crop, products, how many methods
        (((3, 6), (2, 4)), "X", 2),
        (((4, 8), (3, 6), (2, 5)), "X", 3),
        (((5, 8), (2, 4), (4, 7)), "XY", 4),
    )
    names = "ABCXY"
    scene = "A farm exchanges its crops for each other and for other goods."
    steps = (3, 20)

    def draw(self, random: Random, level: tuple[Sequence[tuple[int, int]], str, int]) -> Data:
        crops, products, how_many = level
        names = "ABC"[: len(crops)] + products
        plan = [
            (takes, given)
            for i, given in enumerate(names)
            for size in (1, 2, 3)
            for takes in combinations(names[:i], size)
            if given > "B"
        ]
        chosen = [random.choice([method for method in plan if method[1] == product]) for product in products]
        chosen += random.sample([method for method in plan if method not in chosen], how_many - len(products))
        random.shuffle(chosen)
        methods = [[[[random.choice((1, 1, 2, 3)), name] for name in side] for side in method] for method in chosen]
        start = [random.randint(*bounds) for bounds in crops] + [0] * len(products)
        return {"names": list(names), "start": start, "methods": methods}

    @staticmethod
    def stored(solution: Any) -> Sequence[Any]:
        return solution["solution"]["answer"]


# ---------------------------------------------------------------------------------------------------------------------
# Reading what was published

_NUMBERS = {"one": 1, "a single": 1, "two": 2}
_VERB = re.compile(
    r"can be (?:dismantled into|combined into|combined to form|exchanged for)|breaks? down into|merge to form"
    r"|yields|produces|results in|creates"
)


def published_problem(question: str, names: Sequence[str]) -> tuple[Amounts, list[list[Amounts]]]:
    """What there is at the start, and the methods; ValueError if a method has no two sides."""
    pattern = re.compile(
        rf"\b(?i:({'|'.join(_NUMBERS)}|\d+) (?:(?:units?|of|machines?|parts?|crops?|products?) )*)"
        rf"({'|'.join(map(re.escape, names))})(?!\w)"
    )

    def amounts(text: str) -> Amounts:
        found = [[_NUMBERS.get(number.lower()) or int(number), name] for number, name in pattern.findall(text)]
        if not found:
            raise ValueError(f"no amounts: {text}")
        return found

    methods = []
    for line in re.findall(r"^(?:Method )?\d+[.:] (.*)", question, re.MULTILINE):
        takes, gives = _VERB.split(line)
        methods.append([amounts(takes), amounts(gives)])
    _, start = re.split(r"Initially,? there are|If we now have", question)
    return amounts(start.split(".")[0]), methods


TASKS = [StringSplitting(), StringSynthesis(), SynthesisDecomposition()]
