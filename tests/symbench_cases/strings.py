"""Letters and strings."""

from random import Random

from suites.base import Problem
from tests.symbench_cases import Case, number_right, number_wrong


def letters_right(problem: Problem, random: Random) -> list[str]:
    count, _, places = problem.answer.partition(":")
    return [
        problem.answer,
        f"{count}; {places}",
        f"Count: {count}, Positions: [{places.strip()}]",
        f"({count}: {places.replace(', ', ',')})",
        f"**{problem.answer}**",
    ]


def letters_wrong(problem: Problem, random: Random) -> list[str]:
    numbers = [int(number) for number in problem.answer.replace(":", ",").split(",")]
    count, places = numbers[0], numbers[1:]
    changed = [[count + 1, *places], [count + 1, *places, 801], [count - 1, *places[1:], 801], [*places, count, 801]]
    if places:
        moved = [*places]
        moved[random.randrange(count)] += random.choice((-1, 1)) * 1000
        zero_based = [place - 1 for place in places]
        changed += [[count, *moved], [count, *zero_based], [count, *places[:-1]], [count, *places, places[-1]], places]
    return [f"{first}: {', '.join(map(str, rest))}" for first, *rest in changed if [first, *rest] != numbers]


CASES = {
    "letters": Case(letters_right, letters_wrong),
    "statistical_counting": Case(number_right, number_wrong),
}
