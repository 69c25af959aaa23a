"""Letters and strings."""

import re
import string
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from random import Random

from suites.parsers import parse_number, unwrap
from suites.symbench.common import Data, Puzzle, Sample, stored_samples


class Letters(Puzzle):
    """How often a letter occurs in a word, and where."""

    name, kind = "letters", "count and positions"
    levels = ((5, 9), (10, 15), (20, 25), (30, 60), (80, 150), (300, 400), (700, 800))  # shortest and longest word
    max_answer = 8000

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        word = random.choices(string.ascii_lowercase, k=random.randint(*level))
        letter = random.choice(string.ascii_lowercase)
        for place in random.sample(range(len(word)), random.randint(0, 5)):
            word[place] = letter
        return {"word": "".join(word), "letter": letter}

    def ask(self, data: Data) -> str:
        return (
            f"How many times does the letter '{data['letter']}' occur in the following word, and at which positions? "
            f"The first letter of the word is at position 1.\n\n{data['word']}\n\n"
            "Return your answer in the format <<<count: position, position, ...>>>, for example <<<3: 1, 4, 12>>>, or "
            "<<<0>>> if the letter does not occur."
        )

    def check(self, data: Data, answer: str) -> bool:
        text = re.sub(r"count|positions?|[\[\]():;,\"'=\s]+", " ", unwrap(answer).lower())
        places = self._places(data)
        return text.split() == [str(number) for number in (len(places), *places)]

    def solve(self, data: Data) -> str:
        places = self._places(data)
        return f"{len(places)}: {', '.join(map(str, places))}" if places else "0"

    @staticmethod
    def _places(data: Data) -> list[int]:
        return [i for i, letter in enumerate(data["word"], 1) if letter == data["letter"]]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path in sorted((folder / "Letters").glob("*/*/test_words.json")):
            word = path.read_text(encoding="utf-8").strip().strip('"')
            yield Sample(str(path.relative_to(folder)), {"word": word, "letter": path.parent.name[0]}, None)


class StatisticalCounting(Puzzle):
    """The score of a string: points for each run of two or more of the same letter."""

    name, kind = "statistical_counting", "equal number"
    levels = ((5, 2), (10, 3), (15, 3), (20, 4), (25, 4), (35, 5), (45, 5), (55, 6), (65, 7))  # length, letters

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        length, letters = level
        text = "".join(random.choices(string.ascii_uppercase[:letters], k=length))
        return {"text": text, "points": {letter: i for i, letter in enumerate(string.ascii_uppercase[:letters], 1)}}

    def ask(self, data: Data) -> str:
        points = "\n".join(f"- a run of {letter}: {number}" for letter, number in data["points"].items())
        return (
            "A run is a longest possible stretch of two or more equal letters that follow each other directly. Each "
            "run in a string scores points once, however long it is:\n\n"
            f"{points}\n\nA letter that stands alone scores nothing. What is the total score of this string?\n\n"
            f"{data['text']}\n\nReturn your answer in the format <<<number>>>, for example <<<5>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return parse_number(unwrap(answer)) == self._score(data)

    def solve(self, data: Data) -> str:
        return str(self._score(data))

    @staticmethod
    def _score(data: Data) -> int:
        return sum(data["points"][letter] for letter, run in groupby(data["text"]) if len(list(run)) > 1)

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, "statistical_counting_dataset"):
            points = {rule["letter"]: rule["score"] for rule in solution["rules"]}
            yield Sample(path, {"text": solution["sequence"], "points": points}, str(solution["solution"]))


TASKS = [Letters(), StatisticalCounting()]
