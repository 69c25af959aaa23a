"""Puzzles whose conditions leave one answer, or a few: passwords, equations, shelves."""

import operator
import re
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import permutations
from math import log
from pathlib import Path
from random import Random
from typing import Any

from suites.parsers import number_row, symbols, unwrap
from suites.symbench.common import Data, Puzzle, Sample, numbered, stored_samples

# ---------------------------------------------------------------------------------------------------------------------
# What several puzzles need


Condition = tuple[str, Callable[..., bool]]
"""One letter or two, and what has to hold of their values."""


def hold(conditions: Sequence[Condition], found: Mapping[str, Any]) -> bool:
    """Whether these values of the letters meet all conditions."""
    return all(test(*(found[letter] for letter in letters)) for letters, test in conditions)


def assign(letters: str, values: Sequence[int], conditions: Sequence[Condition]) -> dict[str, int]:
    """Values of the letters, a different one for each, that meet all conditions; ValueError if there are none."""
    possible = {letter: list(values) for letter in letters}
    for subject, test in conditions:
        if len(subject) == 1:
            possible[subject] = [value for value in possible[subject] if test(value)]
        else:
            one, two = subject
            possible[one] = [a for a in possible[one] if any(test(a, b) for b in possible[two])]
            possible[two] = [b for b in possible[two] if any(test(a, b) for a in possible[one])]
    found = _extend({}, possible, [condition for condition in conditions if len(condition[0]) == 2])
    if found is None:
        raise ValueError("no values meet all conditions")
    return found


def _extend(
    found: dict[str, int], possible: Mapping[str, list[int]], conditions: Sequence[Condition]
) -> dict[str, int] | None:
    """What was found, extended to the letters that have these values left; None if that is impossible."""
    if not possible:
        return found
    letter = min(possible, key=lambda letter: len(possible[letter]))
    for value in possible[letter]:
        left = {other: [v for v in rest if v != value] for other, rest in possible.items() if other != letter}
        for (one, two), test in conditions:
            if one == letter and two in left:
                left[two] = [v for v in left[two] if test(value, v)]
            elif two == letter and one in left:
                left[one] = [v for v in left[one] if test(v, value)]
        if all(left.values()) and (extended := _extend({**found, letter: value}, left, conditions)):
            return extended
    return None


# ---------------------------------------------------------------------------------------------------------------------
# Passwords


class Half:
    """What the digits of a password can be, or its letters: all pairs of different characters.

    A set of pairs is an integer with a bit for each of them, so that weighing a guess takes a few operations rather
    than hundreds of comparisons.
    """

    def __init__(self, noun: str, characters: str, small: str, large: str) -> None:
        self.noun = noun
        self.sizes = {"": "", "small": f" and {small}", "large": f" and {large}"}
        self.pairs = ["".join(pair) for pair in permutations(characters, 2)]
        self.all = (1 << len(self.pairs)) - 1
        self.first, self.second = (
            {c: sum(1 << i for i, pair in enumerate(self.pairs) if pair[place] == c) for c in characters}
            for place in (0, 1)
        )
        self.right_or_small = self._right_or_outside(characters)
        self.right_or_large = self._right_or_outside(characters[::-1])

    def _right_or_outside(self, characters: str) -> dict[str, int]:
        """For each character, the pairs that contain it, or none of those before it."""
        found, contain_earlier = {}, 0
        for character in characters:
            contain = self.first[character] | self.second[character]
            found[character] = contain | ~contain_earlier
            contain_earlier |= contain
        return found

    def fitting(self, guess: str, reply: Sequence[Any]) -> int:
        """The pairs for which `reply_to` this guess is this."""
        one, two = guess
        in_place, elsewhere, size = reply
        fitting = _exactly(in_place, self.first[one], self.second[two])
        fitting &= _exactly(elsewhere, self.second[one], self.first[two])
        if in_place + elsewhere < 2:
            small = self.right_or_small[one] & self.right_or_small[two]
            large = self.right_or_large[one] & self.right_or_large[two]
            fitting &= {"": ~(small | large), "small": small, "large": large}[size]
        return fitting & self.all

    def words(self, reply: Sequence[Any]) -> str:
        """The reply as the question puts it."""
        in_place, elsewhere, size = reply
        right = "right and in the right place" if in_place else "right but in the wrong place"
        wrong = f"wrong{self.sizes[size]}"
        if in_place + elsewhere == 1:
            return f"one {self.noun} is {right}, the other is {wrong}"
        return f"both {self.noun}s are {right if in_place + elsewhere else wrong}"


def _exactly(count: int, one: int, two: int) -> int:
    """What is in so many of two sets."""
    return (~(one | two), one ^ two, one & two)[count]


def reply_to(guess: str, pair: str) -> list[Any]:
    """How many characters of the guess are right and in place, how many right but elsewhere, and the size of the wrong
    ones: "small", "large" or ""."""
    in_place = sum(map(operator.eq, guess, pair))
    wrong = [character for character in guess if character not in pair]
    size = ""
    if wrong and max(wrong) < min(pair):
        size = "small"
    elif wrong and min(wrong) > max(pair):
        size = "large"
    return [in_place, 2 - in_place - len(wrong), size]


DIGITS = Half("digit", string.digits, "too small", "too large")
LETTERS = Half("letter", string.ascii_uppercase, "too early", "too late")
DRAWS = 12  # random guesses from which each guess is chosen


class Cryptanalysis(Puzzle):
    """The password of a lock, from guesses and the reply to each."""

    name, kind = "cryptanalysis", "every reply fits"
    levels = ((4, 6), (7, 9), (10, 12), (13, 15), (16, 18))  # fewest and most guesses

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        count = random.randint(*level)
        while (guesses := self._guesses(random, count)) is None:
            pass
        return {"guesses": guesses}

    @staticmethod
    def _guesses(random: Random, count: int) -> list[list[Any]] | None:
        """Guesses that leave one password, which is none of them; None if the last one did not manage that."""
        password = [random.choice(DIGITS.pairs), random.choice(LETTERS.pairs)]
        digits, letters = DIGITS.all, LETTERS.all
        everything = log(digits.bit_count() * letters.bit_count())
        guesses: list[list[Any]] = []
        for later in reversed(range(count)):
            draws = []
            while len(draws) < DRAWS:
                guess = [random.choice(DIGITS.pairs), random.choice(LETTERS.pairs)]
                if guess != password:
                    replies = list(map(reply_to, guess, password))
                    left = (
                        digits & DIGITS.fitting(guess[0], replies[0]),
                        letters & LETTERS.fitting(guess[1], replies[1]),
                    )
                    # Each guess is to rule out the same share of what was left: so nearly all of them are needed.
                    distance = abs(log(left[0].bit_count() * left[1].bit_count()) - everything * later / count)
                    draws.append((distance, guess + replies, left))
            _, guess, (digits, letters) = min(draws, key=lambda draw: draw[0])
            guesses.append(guess)
        return guesses if digits.bit_count() * letters.bit_count() == 1 else None

    def ask(self, data: Data) -> str:
        guesses = [
            f"{digits}{letters}: {DIGITS.words(about_digits)}; {LETTERS.words(about_letters)}."
            for digits, letters, about_digits, about_letters in data["guesses"]
        ]
        example = ", ".join("".join(data["guesses"][0][:2]))
        return (
            "The password of a lock consists of two different digits (0 to 9), followed by two different letters (A to "
            f"Z). Here are some guesses, each with a reply:\n\n{numbered(guesses)}\n\n"
            "A digit or letter of a guess is right if it occurs in the password, and wrong if it does not. A right one "
            "is in the right place if the password has it at the same position as the guess. A wrong digit is too "
            "small if it is smaller than both digits of the password, and too large if it is larger than both; a wrong "
            "letter is too early if it comes before both letters of the password in the alphabet, and too late if it "
            "comes after both. A reply uses these words whenever they are true of everything that it calls wrong. So "
            "if it only says that both digits are wrong, they are neither both too small nor both too large; if it "
            "only says that the other is wrong, that one is neither.\n\n"
            "Exactly one password fits all replies. Which one? Return your answer in the format <<<digit, digit, "
            f"letter, letter>>>, for example <<<{example}>>> if it were the first guess."
        )

    def check(self, data: Data, answer: str) -> bool:
        password = symbols(answer)
        halves = password[:2], password[2:]
        return (
            halves[0] in DIGITS.pairs
            and halves[1] in LETTERS.pairs
            and all(list(map(reply_to, guess[:2], halves)) == guess[2:] for guess in data["guesses"])
        )

    def solve(self, data: Data) -> str:
        digits, letters = DIGITS.all, LETTERS.all
        for two_digits, two_letters, about_digits, about_letters in data["guesses"]:
            digits &= DIGITS.fitting(two_digits, about_digits)
            letters &= LETTERS.fitting(two_letters, about_letters)
        if digits.bit_count() * letters.bit_count() != 1:
            raise ValueError("the guesses do not leave exactly one password")
        return ", ".join(DIGITS.pairs[digits.bit_length() - 1] + LETTERS.pairs[letters.bit_length() - 1])

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, "cryptanalysis"):
            lines = re.findall(r"Guess: ([0-9]{2})([A-Z]{2}), Feedback: (.*number.*?); (.*letter.*)", question)
            guesses = [[*line[:2], *map(self._published_reply, line[2:])] for line in lines]
            yield Sample(path, {"guesses": guesses}, ", ".join(solution["answer"]))

    @staticmethod
    def _published_reply(text: str) -> list[Any]:
        """The reply as `reply_to` gives it. "Incorrect and incorrect" is wrong, neither too small nor too large."""
        count = 2 if text.startswith("both") else 1
        in_place, elsewhere = (
            count * (place in text) for place in ("in the correct position", "in the wrong position")
        )
        size = re.search("too (?:(small|early)|large|late)", text)
        return [in_place, elsewhere, ("small" if size[1] else "large") if size else ""]


# ---------------------------------------------------------------------------------------------------------------------
# Equations


VALUES = [n for n in range(1, 226) if 210**8 % n == 0]
"""The numbers that letters stand for: products of 2, 3, 5 and 7, many of which are simple multiples of each other."""
MOST = 5  # times one number is another


class LogicalEquation(Puzzle):
    """Which letter stands for which number, from equations and inequalities of two letters each."""

    name, kind = "logical_equation", "conditions, each once"
    # letters and conditions
    levels = ((9, 7), (9, 8), (11, 10), (11, 11), (13, 10), (13, 11), (13, 12), (15, 12), (15, 13), (15, 14))

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        count, wanted = level
        values = random.sample(VALUES, count)
        pairs = list(permutations(zip(string.ascii_uppercase, values, strict=False), 2))
        random.shuffle(pairs)
        conditions: list[list[Any]] = []
        while len(conditions) < wanted:
            relation = random.choices("+-*>", (34, 27, 32, 7))[0]  # about as often as in what was published
            for pair in pairs:
                if condition := self._true_condition(relation, *pair):
                    conditions.append(condition)
                    pairs = [other for other in pairs if set(other) != set(pair)]
                    break
        return {"values": sorted(values), "conditions": conditions}

    @staticmethod
    def _true_condition(relation: str, one: tuple[str, int], two: tuple[str, int]) -> list[Any] | None:
        """The condition with this relation between two letters with their numbers; None if there is none."""
        (letter, a), (other, b) = one, two
        if relation == "+":
            return [letter, relation, other, a + b]
        if relation == "-":
            return [letter, relation, other, a - b]
        if relation == "*":
            return [letter, relation, other, f"{a / b:g}"] if b < a <= MOST * b and 10 * a % b == 0 else None
        return [letter, relation, other] if a > b else None

    def ask(self, data: Data) -> str:
        letters = self._letters(data)
        lines = [self._line(*condition) for condition in data["conditions"]]
        return (
            f"Each of the {len(letters)} letters {', '.join(letters)} stands for one of the following numbers, and "
            f"each of these numbers belongs to exactly one letter:\n\n{', '.join(map(str, data['values']))}\n\n"
            f"These conditions hold:\n\n{numbered(lines)}\n\n"
            "Which number does each letter stand for? If several answers meet all conditions, give any one of them. "
            "Return the numbers of all letters, in the alphabetical order of the letters, in the format <<<number of "
            "A, number of B, ...>>>. If there were only three letters, for example, <<<8, 5, 12>>> would mean A = 8, "
            "B = 5 and C = 12."
        )

    @staticmethod
    def _line(letter: str, relation: str, other: str, number: Any = None) -> str:
        if relation == "*":
            return f"{letter} = {number} × {other}"
        return f"{letter} {relation} {other}" + ("" if number is None else f" = {number}")

    def check(self, data: Data, answer: str) -> bool:
        row = number_row(unwrap(answer))
        numbers = [number for number in row if number is not None]
        return (
            len(numbers) == len(row)
            and sorted(numbers) == data["values"]
            and hold(self._conditions(data), dict(zip(self._letters(data), numbers, strict=True)))
        )

    def solve(self, data: Data) -> str:
        found = assign(self._letters(data), data["values"], self._conditions(data))
        return ", ".join(str(found[letter]) for letter in self._letters(data))

    @staticmethod
    def _letters(data: Data) -> str:
        return string.ascii_uppercase[: len(data["values"])]

    @staticmethod
    def _conditions(data: Data) -> list[Condition]:
        return [
            (letter + other, _equation(relation, *number)) for letter, relation, other, *number in data["conditions"]
        ]

    def published(self, folder: Path) -> Iterator[Sample]:
        for path, question, solution in stored_samples(folder, "logical_equation"):
            values, text = question.split("one of the numbers")[1].split(". ", 1)
            conditions = [
                self._published_condition(line) for line in re.findall(r"^[0-9]+\. (.+)$", text, re.MULTILINE)
            ]
            data = {"values": sorted(map(int, values.split(","))), "conditions": conditions}
            yield Sample(path, data, str(solution))

    @staticmethod
    def _published_condition(line: str) -> list[Any]:
        if match := re.fullmatch(r"([A-Z]) = ([0-9.]+)([A-Z])", line):
            return [match[1], "*", match[3], match[2].removesuffix(".0")]
        if match := re.fullmatch(r"([A-Z]) ([+-]) ([A-Z]) = (-?[0-9]+)", line):
            return [match[1], match[2], match[3], int(match[4])]
        letter, other = line.split(" > ")
        return [letter, ">", other]


def _equation(relation: str, number: Any = None) -> Callable[[Any, Any], bool]:
    """What one condition asks of its two numbers."""
    if relation == "*":
        dividend, divisor = Fraction(number).as_integer_ratio()
        return lambda a, b: a * divisor == b * dividend
    return {"+": lambda a, b: a + b == number, "-": lambda a, b: a - b == number, ">": operator.gt}[relation]


# ---------------------------------------------------------------------------------------------------------------------
# Shelves


PLACED: dict[str, tuple[str, Callable[[int, int], bool]]] = {
    "at": ("stands at position", operator.eq),
    "not at": ("does not stand at position", operator.ne),
    "left of": ("stands to the left of book", operator.lt),
    "right of": ("stands to the right of book", operator.gt),
    "next to": ("stands directly next to book", lambda one, two: abs(one - two) == 1),
}
"""What the conditions say of a book and a position or another book, in words and as a test of the positions."""
PUBLISHED = {
    "must be placed in position": "at",
    "cannot be placed in position": "not at",
    "must be to the left of book": "left of",
    "must be to the right of book": "right of",
    "must be adjacent to book": "next to",
}


class PermutationsAndCombinations(Puzzle):
    """In which order books stand on a shelf, from conditions on their positions."""

    name, kind = "permutations_and_combinations", "conditions, each once"
    levels = ((6, 7), (6, 8), (7, 8), (7, 9), (8, 9), (8, 10), (9, 10), (9, 11))  # books and conditions

    def make(self, random: Random, level: tuple[int, int]) -> Data:
        count, wanted = level
        books = string.ascii_uppercase[:count]
        places = dict(zip(books, random.sample(range(1, count + 1), count), strict=True))
        conditions: list[list[Any]] = []
        while len(conditions) < wanted:
            relation = random.choices(list(PLACED), (45, 85, 75, 77, 75))[0]  # about as often as in what was published
            fitting = [
                [book, relation, other]
                for book in books
                for other in (range(1, count + 1) if relation.endswith("at") else books)
                if PLACED[relation][1](places[book], places.get(other, other))
                and all({book, other} != {said[0], said[2]} for said in conditions)
            ]
            if fitting:
                conditions.append(random.choice(fitting))
        return {"books": books, "conditions": conditions}

    def ask(self, data: Data) -> str:
        books = data["books"]
        conditions = [f"Book {book} {PLACED[relation][0]} {other}." for book, relation, other in data["conditions"]]
        return (
            f"The {len(books)} books {', '.join(books)} are to stand side by side on a shelf, at the positions 1 (far "
            f"left) to {len(books)} (far right), one book at each position. These conditions have to be met:\n\n"
            f"{numbered(conditions)}\n\n"
            "To the left or to the right means anywhere on that side; directly next to means at the position before "
            "or after. If several orders meet all conditions, give any one of them. Return all books from left to "
            "right in the format <<<book, book, ...>>>. If there were only three books, for example, <<<C, A, B>>> "
            "would mean that C stands at position 1, A at position 2 and B at position 3."
        )

    def check(self, data: Data, answer: str) -> bool:
        order = symbols(answer)
        places = {book: place for place, book in enumerate(order, 1)}
        return sorted(order) == list(data["books"]) and hold(self._conditions(data["conditions"]), places)

    def solve(self, data: Data) -> str:
        books = data["books"]
        places = assign(books, range(1, len(books) + 1), self._conditions(data["conditions"]))
        return ", ".join(sorted(books, key=places.__getitem__))

    @staticmethod
    def _conditions(conditions: Sequence[Sequence[Any]]) -> list[Condition]:
        return [
            (book + other, PLACED[relation][1])
            if isinstance(other, str)
            else (book, partial(PLACED[relation][1], other))
            for book, relation, other in conditions
        ]

    def published(self, folder: Path) -> Iterator[Sample]:
        line = re.compile(rf"Book ([A-Z]) ({'|'.join(PUBLISHED)}) ([A-Z]|[0-9]+)\.")
        for path, question, solution in stored_samples(folder, "permutations_and_combinations"):
            conditions = [
                [book, PUBLISHED[relation], int(other) if other.isdigit() else other]
                for book, relation, other in line.findall(question)
            ]
            data = {"books": "".join(solution["items"]), "conditions": conditions}
            yield Sample(path, data, ", ".join(solution["correct_solution"]))


TASKS = [Cryptanalysis(), LogicalEquation(), PermutationsAndCombinations()]
