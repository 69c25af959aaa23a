"""Games of cards.

What is right is found here from the text of the question, by other means than the solvers use.
"""

import re
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import permutations, product
from random import Random

from suites.base import Problem
from tests.symbench_cases import Case, number_right, number_wrong
from tests.symbench_cases.deduction import layouts, wrong_lists


def mahjong_right(problem: Problem, random: Random) -> list[str]:
    text = problem.question
    hand = Counter(re.search(r"^[A-Z]{13}$", text, re.MULTILINE)[0])
    result = 0
    for new, gone in re.findall(r"^Round [0-9]: (.) comes(?:, (.) goes)?\.$", text, re.MULTILINE):
        held = {ord(card) - ord(new) for card in +hand}
        chi = "Chi" in text and any({i, i + 1, i + 2} <= held | {0} for i in (-2, -1, 0))
        result = 1 if hand[new] > 1 else 2 if chi else 0
        hand[new] += 1
        hand[gone] -= 1
    return number_right(replace(problem, answer=str(result)), random)


def mahjong_wrong(problem: Problem, random: Random) -> list[str]:
    others = {"0": "Pass", "1": "Peng", "2": "Chi"}
    result = others.pop(problem.answer)
    answers = [
        *others,
        *others.values(),
        f"{problem.answer} {result}",
        f"{problem.answer}, {problem.answer}",
        "0, 1, 2",
    ]
    return [*answers, *number_wrong(problem, random)]


def result_of(question: str, own: str, other: str) -> str:
    """The result of a round for the player of the first card."""
    ahead = ord(other) - ord(own)
    if "stick" in question:
        return {1: "win", 3: "loss"}.get(ahead % 4, "draw")
    if "overcomes" in question:
        return {1: "loss", 2: "win"}.get(ahead % 5, "draw")
    if {own, other} == {"A", "H"}:
        return "win" if own == "H" else "loss"
    return "draw" if ahead == 0 else "win" if ahead > 0 else "loss"


@cache
def game_of(question: str) -> tuple[str, list[list[str]]]:
    """The cards of the game, and for each round the cards of the opponent that explain its result."""
    named = re.findall(r"\b([A-H]) \(", question.replace("the mouse (H)", ""))
    cards = "".join(sorted(set(named)))
    rounds = re.findall(r"^[0-9]\. ([A-H]): (\w+)$", question, re.MULTILINE)
    return cards, [[card for card in cards if result_of(question, own, card) == result] for own, result in rounds]


def opponent_right(problem: Problem, random: Random) -> list[str]:
    _, explain = game_of(problem.question)
    right = [answer for answer in product(*explain) if len(set(answer)) == len(answer)]
    some = random.sample(right, min(len(right), 20))
    return [*map(", ".join, some), *layouts(some[0]), "".join(some[0]), ", ".join(some[0]).lower()]


def opponent_wrong(problem: Problem, random: Random) -> list[str]:
    cards, explain = game_of(problem.question)
    answer = problem.answer.split(", ")
    changed = [[*answer[:i], card, *answer[i + 1 :]] for i in range(len(answer)) for card in cards]
    others = [*changed, *map(list, permutations(answer)), list(problem.data["own"])]
    misfits = [other for other in others if any(card not in fit for card, fit in zip(other, explain, strict=True))]
    # By itself each round is explained, but a card is played twice.
    twice = [other for other in product(*explain) if len(set(other)) < len(other)]
    stranger = random.choice([letter for letter in "ABCDEFGHI" if letter not in cards])
    return [
        *map(", ".join, misfits),
        *(", ".join([*answer, card]) for card in cards),
        *map(", ".join, random.sample(twice, min(len(twice), 50))),
        *wrong_lists(answer, stranger, random),
    ]


CASES = {
    "mahjong_pattern": Case(mahjong_right, mahjong_wrong),
    "constrained_linear_arrangement": Case(opponent_right, opponent_wrong),
}
