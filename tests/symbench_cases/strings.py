"""Letters and strings."""

from random import Random

from suites.base import Problem
from suites.symbench.strings import TRIGGERS, apply_rule
from tests.symbench_cases import Case, number_right, number_wrong


def letters_right(problem: Problem, random: Random) -> list[str]:
    count, _, places = problem.answer.partition(":")
    return [
        problem.answer,
        f"{count}; {places}",
        f"Count: {count}, Positions: [{places.strip()}]",
        f"({count}: {places.replace(', ', ',')})",
        f"**{problem.answer}**",
        f'{{"count": {count}, "positions": [{places.strip()}]}}',
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


def string_right(problem: Problem, random: Random) -> list[str]:
    """Layouts of a string of letters."""
    text = problem.answer
    cut = random.randrange(len(text))
    return [
        text,
        f'"{text}"',
        f"'{text}'.",
        f"`{text}`",
        f"**{text}**",
        f" {text}.\n",
        f'["{text}"]',
        " ".join(text),
        ", ".join(text),
        str(list(text)),
        f"{text[:cut]}\n{text[cut:]}",
    ]


def string_wrong(problem: Problem, random: Random) -> list[str]:
    """Strings with a letter more, fewer or another one, and more than a string."""
    text = problem.answer
    cut = random.randrange(len(text))
    other = random.choice([letter for letter in "abcABCDEz" if letter != text[cut]])
    return [
        text[:cut] + text[cut + 1 :],
        text[:cut] + other + text[cut + 1 :],
        text[:cut] + other + text[cut:],
        text + text[-1],
        text + text,
        text.swapcase(),
        f"{text} or {text}",
        f"{text}-{text}",
        *(string for string in (text[::-1], text[1:] + text[0]) if string != text),
    ]


def insertion_wrong(problem: Problem, random: Random) -> list[str]:
    text, answer = problem.data["text"], problem.answer
    ends = [end for end in range(4, len(text) + 1) if text[end - 4 : end] in TRIGGERS]

    def inserted(places: list[int], after: int = 0) -> str:
        """The string with the letters of the groups that end at these places, so many letters too far to the right."""
        result = text
        for end in sorted(places, reverse=True):
            result = result[: end + after] + TRIGGERS[text[end - 4 : end]] + result[end + after :]
        return result

    apart: list[int] = []  # groups without those that overlap
    for end in ends:
        if not apart or end - apart[-1] >= 4:
            apart.append(end)
    one_by_one = from_left = text
    for group, letter in TRIGGERS.items():  # a rule after the other, each in what the last has left
        one_by_one = one_by_one.replace(group, group + letter)
    i = 4
    while i <= len(from_left):  # inserted letters count for the groups that follow
        letter = TRIGGERS.get(from_left[i - 4 : i], "")
        from_left = from_left[:i] + letter + from_left[i:]
        i += 1 + len(letter)
    missed = [inserted([end for end in ends if end != one]) for one in ends]
    again = answer
    for group, letter in TRIGGERS.items():
        again = again.replace(group, group + letter)
    assert inserted(ends) == answer, "the solver and these insertions must agree"
    strings = [text, *missed, inserted(apart), one_by_one, from_left, again, inserted(ends, -1), inserted(ends, -4)]
    return string_wrong(problem, random) + [string for string in strings if string != answer]


def deletion_wrong(problem: Problem, random: Random) -> list[str]:
    rules, answer = problem.data["rules"], problem.answer

    def states(text: str, go_on: bool) -> list[str]:
        """The strings on the way, where one begins again with rule 1 after each step or goes on with the next."""
        found, turn, tried = [text], 0, 0
        while tried < len(rules) and len(found) < 30:
            changed = apply_rule(found[-1], **rules[turn])
            turn, tried = (turn + 1) % len(rules), tried + 1
            if changed is not None:
                found.append(changed)
                turn, tried = turn if go_on else 0, 0
        return found

    right, other = states(problem.data["text"], go_on=False), states(problem.data["text"], go_on=True)
    assert right[-1] == answer, "the solver and this way must agree"
    return string_wrong(problem, random) + [string for string in [*right, *other] if string != answer]


CASES = {
    "letters": Case(letters_right, letters_wrong),
    "statistical_counting": Case(number_right, number_wrong),
    "string_insertion": Case(string_right, insertion_wrong),
    "string_deletion_and_modification": Case(string_right, deletion_wrong),
}
