"""Puzzles whose conditions leave one answer, or a few: passwords, equations, shelves.

What is right is found here from the text of the question, by other means than the solvers use.
"""

import json
import re
import string
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cache
from itertools import permutations
from random import Random

from suites.base import Problem
from tests.symbench_cases import Case


def layouts(items: Sequence[str]) -> list[str]:
    """Forms that a list of letters or numbers may have."""
    commas = ", ".join(items)
    return [
        commas,
        ",".join(items),
        " ".join(items),
        "\n".join(items),
        ",\n".join(items) + ",",
        f"  {commas}.\n",
        f"**{commas}**",
        f"[{commas}]",
        f"({commas})",
        f"[[{commas}]]",
        json.dumps(items),
        str(list(items)),
        f"`{items!r}`.",
    ]


def wrong_lists(items: Sequence[str], stranger: str, random: Random) -> list[str]:
    """Lists that lack an item, repeat one, or have one that does not belong: wrong wherever each is needed once."""
    i, j = random.sample(range(len(items)), 2)
    repeated, foreign = [*items], [*items]
    repeated[i], foreign[i] = items[j], stranger
    changed = [repeated, foreign, items[1:], items[:-1], [*items, items[i]], [*items, stranger], [*items, *items]]
    commas = ", ".join(items)
    return [
        *map(", ".join, changed),
        f"{commas}; {commas}",
        f"{commas} or {', '.join(reversed(items))}",
        f"[{commas}] [{commas}]",
        f"{{{commas}}}",
        f"{commas}..",
        f"x = {commas}",
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Passwords


def replies(guess: str, pair: Sequence[str], noun: str, small: str, large: str) -> str:
    """What a question says about this half of a guess if this is the same half of the password."""
    right = [c for c in guess if c in pair]
    places = {guess.index(c) == pair.index(c) for c in right}
    where = "right and in the right place" if True in places else "right but in the wrong place"
    wrong = "wrong"
    if all(c in pair or (c < pair[0] and c < pair[1]) for c in guess):
        wrong += f" and {small}"
    if all(c in pair or (c > pair[0] and c > pair[1]) for c in guess):
        wrong += f" and {large}"
    if not right:
        return f"both {noun}s are {wrong}"
    return f"both {noun}s are {where}" if len(right) == 2 else f"one {noun} is {where}, the other is {wrong}"


def passwords(problem: Problem) -> list[str]:
    """All passwords that fit every reply."""
    guesses = re.findall(r"^[0-9]+\. (..)(..): (.*); (.*)\.$", problem.question, re.MULTILINE)
    return [
        "".join(digits + letters)
        for digits in permutations(string.digits, 2)
        if all(replies(guess, digits, "digit", "too small", "too large") == said for guess, _, said, _ in guesses)
        for letters in permutations(string.ascii_uppercase, 2)
        if all(replies(guess, letters, "letter", "too early", "too late") == said for _, guess, _, said in guesses)
    ]


def cryptanalysis_right(problem: Problem, random: Random) -> list[str]:
    [password] = passwords(problem)  # the question says that there is only one
    return [password, password.lower(), f"{password[:2]} {password[2:]}", f'"{password}".', *layouts([*password])]


def cryptanalysis_wrong(problem: Problem, random: Random) -> list[str]:
    password = problem.answer.split(", ")
    a, b, c, d = password
    other_digit = random.choice([x for x in string.digits if x not in (a, b)])
    other_letter = random.choice([x for x in string.ascii_uppercase if x not in (c, d)])
    # There is one right password, so that all others are wrong.
    others = [b + a + c + d, a + b + d + c, other_digit + b + c + d, a + b + c + other_letter, c + d + a + b]
    malformed = [a + b, a + b + c, a + b + c + d + d, a + a + c + d, a + b + d + d, f"1{a}{b}{c}{d}", f"{a}{b}-{c}{d}"]
    return [*others, *malformed, *(", ".join(x) for x in others), *wrong_lists(password, other_letter, random)]


# ---------------------------------------------------------------------------------------------------------------------
# Equations and shelves: other answers are found by small changes to one


def nearby(items: Sequence[str]) -> Iterator[list[str]]:
    """Other orders: two items exchanged, or one moved to another place."""
    for i in range(len(items)):
        for j in range(len(items)):
            moved = [*items[:i], *items[i + 1 :]]
            moved.insert(j, items[i])
            swapped = [*items]
            swapped[i], swapped[j] = items[j], items[i]
            yield from (moved, swapped)


def orders(
    problem: Problem, obeys: Callable[[str, Sequence[str]], bool], random: Random
) -> tuple[list[list[str]], list[list[str]]]:
    """Orders of the items of the answer that obey the question, found in some steps from one to the next, and orders
    that do not."""
    items, right, wrong = problem.answer.split(", "), [], []
    for _ in range(4):
        near = list(nearby(items))
        obeying = [obeys(problem.question, order) for order in near]
        right += [order for order, obeyed in zip(near, obeying, strict=True) if obeyed]
        wrong += [order for order, obeyed in zip(near, obeying, strict=True) if not obeyed]
        items = random.choice(right)  # the answer is among its own neighbours
    return random.sample(right, min(len(right), 20)), random.sample(wrong, min(len(wrong), 40))


@cache
def conditions(question: str) -> list[list[str]]:
    """The words of each condition."""
    return [line.rstrip(".").split() for line in re.findall(r"^[0-9]+\. (.*)$", question, re.MULTILINE)]


def equations_hold(question: str, numbers: Sequence[str]) -> bool:
    value = dict(zip(string.ascii_uppercase, map(int, numbers), strict=False))
    for words in conditions(question):
        match words:
            case [one, "+", two, "=", number]:
                held = value[one] + value[two] == int(number)
            case [one, "-", two, "=", number]:
                held = value[one] - value[two] == int(number)
            case [one, "=", number, "×", two]:
                held = Fraction(value[one], value[two]) == Fraction(number)
            case [one, ">", two]:
                held = value[one] > value[two]
            case _:
                raise AssertionError(words)
        if not held:
            return False
    return True


def equations_right(problem: Problem, random: Random) -> list[str]:
    right, _ = orders(problem, equations_hold, random)
    decimals = [f"{number}.0" for number in right[0]]
    return [*layouts(problem.answer.split(", ")), *map(", ".join, right), ", ".join(decimals)]


def equations_wrong(problem: Problem, random: Random) -> list[str]:
    numbers = problem.answer.split(", ")
    _, wrong = orders(problem, equations_hold, random)
    labelled = [f"{letter}{number}" for letter, number in zip(string.ascii_uppercase, numbers, strict=False)]
    return [
        *map(", ".join, wrong),
        *wrong_lists(numbers, "1000", random),
        *wrong_lists(numbers, f"{numbers[0]}.5", random),
        *wrong_lists(numbers, "-" + numbers[0], random),
        *wrong_lists(numbers, "A", random),
        ", ".join(labelled),
        "".join(numbers),
    ]


def shelf_obeys(question: str, books: Sequence[str]) -> bool:
    place = {book: i for i, book in enumerate(books, 1)}
    for words in conditions(question):
        book, what, other = place[words[1]], " ".join(words[2:-1]), words[-1]
        other_place = place[other] if other in place else int(other)
        obeyed = {
            "stands at position": book == other_place,
            "does not stand at position": book != other_place,
            "stands to the left of book": book < other_place,
            "stands to the right of book": book > other_place,
            "stands directly next to book": book in (other_place - 1, other_place + 1),
        }
        if not obeyed[what]:
            return False
    return True


def shelf_right(problem: Problem, random: Random) -> list[str]:
    right, _ = orders(problem, shelf_obeys, random)
    if len(right[0]) == 6:  # few enough to try all orders
        right += [list(order) for order in permutations("ABCDEF") if shelf_obeys(problem.question, order)]
    return [
        *layouts(problem.answer.split(", ")),
        *map(", ".join, right),
        problem.answer.lower(),
        problem.answer.replace(", ", ""),
    ]


def shelf_wrong(problem: Problem, random: Random) -> list[str]:
    books = problem.answer.split(", ")
    _, wrong = orders(problem, shelf_obeys, random)
    places = [str(books.index(book) + 1) for book in sorted(books)]
    return [
        *map(", ".join, wrong),
        *wrong_lists(books, "Z", random),
        *wrong_lists(books, "7", random),
        " ".join(places),
    ]


CASES = {
    "cryptanalysis": Case(cryptanalysis_right, cryptanalysis_wrong),
    "logical_equation": Case(equations_right, equations_wrong),
    "permutations_and_combinations": Case(shelf_right, shelf_wrong),
}
