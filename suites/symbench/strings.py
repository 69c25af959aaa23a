"""Letters and strings."""

import json
import re
import string
from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path
from random import Random
from typing import Any

from suites.parsers import parse_number, unwrap
from suites.symbench.common import Data, Puzzle, Sample, numbered, stored_samples


def is_string(answer: str, text: str) -> bool:
    """Whether the answer is this string of letters, which may be spelled out: "a b c", ["a", "b", "c"]."""
    return re.sub(r"[\s,\"'\[\]()]", "", unwrap(answer)) == text


class Letters(Puzzle):
    """How often a letter occurs in a word, and where."""

    name, kind = "letters", "count and positions"
    levels = ((5, 9), (10, 15), (20, 25), (30, 60), (80, 150), (300, 400), (700, 800))  # shortest and longest word

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
            "Return your answer in the format <<<count: position, position, ...>>>, for example "
            "<<<3: 901, 904, 912>>>, or <<<0>>> if the letter does not occur."
        )

    def check(self, data: Data, answer: str) -> bool:
        text = re.sub(r"count|positions?|[\[\](){}:;,\"'=\s]+", " ", unwrap(answer).lower())
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
            word = json.loads(path.read_text(encoding="utf-8"))
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
            f"{data['text']}\n\nReturn your answer in the format <<<number>>>, for example <<<500>>>."
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


TRIGGERS = {"ABCD": "A", "BCDE": "B", "CDEA": "C", "DEAB": "D", "EABC": "E"}


class StringInsertion(Puzzle):
    """The string after a letter is inserted behind each of certain groups of four letters."""

    name, kind = "string_insertion", "equal string"
    levels = (3,)  # groups that are there for certain; more of them come about by chance

    def make(self, random: Random, level: int) -> Data:
        def filling() -> str:
            return "".join(random.choices("ABCDE", k=random.randint(0, 2)))

        groups = random.choices(list(TRIGGERS), k=level)
        return {"text": filling() + "".join(group + filling() for group in groups)}

    def ask(self, data: Data) -> str:
        rules = [f"Behind each {group}, insert the letter {letter}." for group, letter in TRIGGERS.items()]
        return (
            "Change a string once, from left to right, by all of these rules:\n\n"
            f"{numbered(rules)}\n\n"
            "Only groups of four letters that stand in the string as it is given count: an inserted letter neither "
            "completes such a group nor breaks one up. Groups may overlap; each of them gets its letter directly "
            "behind its own last letter. For example, ABCDE contains ABCD and BCDE, and becomes ABCDAEB.\n\n"
            f"What does this string become?\n\n{data['text']}\n\n"
            "Return your answer in the format <<<string>>>, for example <<<ABCDAEB>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_string(answer, self.solve(data))

    def solve(self, data: Data) -> str:
        text = data["text"]
        return "".join(letter + TRIGGERS.get(text[max(0, i - 3) : i + 1], "") for i, letter in enumerate(text))

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, self.name):
            yield Sample(path, {"text": solution["original_string"]}, solution["modified_string"])


class StringDeletionAndModification(Puzzle):
    """What becomes of a string when rules are applied to it, always the first one that fits, until none does."""

    name, kind = "string_deletion_and_modification", "equal string"
    levels = ((4, 4), (5, 6), (7, 12))  # fewest and most steps

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        fewest, most = level
        several = [random_rule(random) for _ in range(24)]
        several = list({(rule["place"], rule["find"]): rule for rule in several}.values())
        while True:
            data = {"text": random_letters(random, 10, 20), "rules": random.sample(several, 6)}
            states = list(islice(self._states(data), most + 2))
            if fewest <= len(states) - 1 <= most and len(states[-1]) > 2:
                return data

    def ask(self, data: Data) -> str:
        return (
            "A string is changed step by step, by these rules:\n\n"
            f"{numbered([rule_in_words(**rule) for rule in data['rules']])}\n\n"
            "In each step, only one rule is applied, once: the first in the list whose condition is true of the "
            "string as it is then. After each step, begin again with rule 1. The end is reached when no rule's "
            "condition is true.\n\n"
            f"This is the string at the start:\n\n{data['text']}\n\n"
            "What is it at the end? Return your answer in the format <<<string>>>, for example <<<xyyxy>>>."
        )

    def check(self, data: Data, answer: str) -> bool:
        return is_string(answer, self.solve(data))

    def solve(self, data: Data) -> str:
        *_, text = self._states(data)
        return text

    @staticmethod
    def _states(data: Data) -> Iterator[str]:
        """The string at the start and after each step; without end if there is always a rule that fits."""
        text: str | None = data["text"]
        while text is not None:
            yield text
            changed = (apply_rule(text, **rule) for rule in data["rules"])
            text = next((string for string in changed if string is not None), None)

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, _, solution in stored_samples(folder, self.name):
            rules = [published_rule(sentence) for sentence in solution["selected_rules"]]
            yield Sample(path, {"text": solution["initial_string"], "rules": rules}, solution["final_string"])


# ---------------------------------------------------------------------------------------------------------------------
# The rules of StringDeletionAndModification, as dictionaries
#
# Letters to "find" at a "place" are replaced by those to "put": at the "start", at the "end", "anywhere", or "later",
# which is anywhere but at the very start. A rule for the start may also "add" letters at the end or "drop" the one
# there, a rule for the end may "add" letters at the start. The places "even" and "longer" stand for two other rules:
# one adds letters at the end if there is an even number of a letter, and one removes the middle of a long string.

# How many of the published rules are about which place.
PLACES = {"start": 8, "end": 6, "anywhere": 3, "later": 1, "even": 1, "longer": 1}


def random_letters(random: Random, fewest: int, most: int) -> str:
    return "".join(random.choices("abc", k=random.randint(fewest, most)))


def random_rule(random: Random) -> Data:
    place = random.choices(list(PLACES), list(PLACES.values()))[0]
    if place == "longer":
        return {"place": place, "find": random.randint(10, 18)}
    if place == "even":
        return {"place": place, "find": random.choice("abc"), "add": random_letters(random, 1, 2)}
    find = put = random_letters(random, 2, 3 if place == "anywhere" else 2)
    while put == find:
        put = random_letters(random, 0, len(find))
    rule = {"place": place, "find": find, "put": put}
    if place in ("start", "end") and random.random() < 0.25:
        rule["add"] = random_letters(random, 1, 2)
    elif place == "start" and random.random() < 0.1:
        rule["drop"] = True
    return rule


def rule_in_words(place: str, find: Any, put: str = "", add: str = "", drop: bool = False) -> str:
    if place == "longer":
        return (
            f"If the string has more than {find} letters, remove the one in the middle; where two are in the middle, "
            "remove the right one of them."
        )
    if place == "even":
        return f"If the string has an even number of letters '{find}', and at least one, add '{add}' at the end."
    condition, which = {
        "start": (f"If the string starts with '{find}'", f"this '{find}'"),
        "end": (f"If the string ends with '{find}'", f"this '{find}'"),
        "anywhere": (f"If the string contains '{find}'", f"the leftmost '{find}'"),
        "later": (
            f"If the string contains '{find}' anywhere but at its very start",
            f"the leftmost '{find}' that is not at the very start",
        ),
    }[place]
    change = f"replace {which} by '{put}'" if put else f"remove {which}"
    if add:
        change += f", and add '{add}' at the {'end' if place == 'start' else 'start'}"
    if drop:
        change += ", and then remove the last letter"
    return f"{condition}, {change}."


def apply_rule(text: str, place: str, find: Any, put: str = "", add: str = "", drop: bool = False) -> str | None:
    """The string after this rule, or None if its condition is not true."""
    if place == "longer":
        middle = len(text) // 2
        return text[:middle] + text[middle + 1 :] if len(text) > find else None
    if place == "even":
        return text + add if find in text and text.count(find) % 2 == 0 else None
    if place == "start" and text.startswith(find):
        text = put + text.removeprefix(find) + add
        return text[:-1] if drop else text
    if place == "end" and text.endswith(find):
        return add + text.removesuffix(find) + put
    if place in ("anywhere", "later") and (at := text.find(find, int(place == "later"))) >= 0:
        return text[:at] + put + text[at + len(find) :]
    return None


_CONDITIONS = {
    "start": r"(?:prefix is|starts with) '(\w+)'",
    "end": r"(?:suffix is|ends with) '(\w+)'",
    "anywhere": r"contains '(\w+)'",
    "later": r"contains '(\w+)' \(not at the start\)",
    "even": r"contains an even number of '(\w)'s \(and at least one '\1'\)",
    "longer": r"length is greater than (\d+)",
}
_CHANGE = re.compile(
    r"(?:replace (?:it|the first occurrence|the first two characters) with (?:its reverse \()?'(?P<put>\w+)'\)?"
    r"|(?:remove|delete) the (?:(?P<one>first|second|last|middle) character|(?:first|last) two characters"
    r"|first occurrence(?: entirely| found after the first character)))?"
    r"(?: and )?(?:(?:ap|pre)pend '(?P<add>\w+)' (?:at|to) the (?:end|start)|(?P<drop>delete the last character))?\."
)


def published_rule(sentence: str) -> Data:
    """The rule that a published sentence states; ValueError if it reads like none of them."""
    for place, condition in _CONDITIONS.items():
        found = re.match(f"If the string {condition}, ", sentence)
        change = found and _CHANGE.fullmatch(sentence, found.end())
        if not found or not change:
            continue
        find = found[1]
        if place == "longer":
            return {"place": place, "find": int(find)}
        left = {"first": find[1:], "second": find[:1] + find[2:], "last": find[:-1]}  # where one letter is removed
        rule = {"place": place, "find": find, "put": change["put"] or left.get(change["one"], "")}
        if change["add"]:
            rule["add"] = change["add"]
        if change["drop"]:
            rule["drop"] = True
        return rule
    raise ValueError(f"no known rule: {sentence}")


TASKS = [Letters(), StatisticalCounting(), StringInsertion(), StringDeletionAndModification()]
