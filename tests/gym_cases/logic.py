"""Who lies, what follows, which rule."""

from suites.base import Problem
from tests.gym_cases import Case
from tests.gym_cases.basic import NUMBER


def word_case(*choices: str) -> Case:
    def wrong(problem: Problem) -> list[str]:
        others = [choice for choice in choices if choice != problem.answer.lower()]
        return [*others, f"{problem.answer} or {others[0]}", f"{problem.answer}, {others[0]}", problem.answer[:-1]]

    return Case(lambda problem: [problem.answer.upper(), f'"{problem.answer.capitalize()}."'], wrong)


def roles_right(problem: Problem) -> list[str]:
    parts = [f"{name.capitalize()} is a {role}" for name, role in problem.data["roles"].items()]
    return [
        ", and ".join(parts),
        " and ".join(parts[::-1]),
        ", ".join(parts),
        "\n".join(parts).upper(),
        ". ".join(parts),
    ]


def roles_wrong(problem: Problem) -> list[str]:
    names, roles = zip(*problem.data["roles"].items(), strict=True)
    knight, knave = problem.question.split("inhabited only by ")[1].split("s. ")[0].split("s and ")
    other = {knight: knave, knave: knight}
    first = f"{names[0]} is a {roles[0]}"
    ends = [f"{names[1]} is a {other[roles[1]]}", f"{names[1]} is not a {roles[1]}", f"{names[1]} is", names[1]]
    answers = [f"{first} and {end}" for end in ends]
    both = f"{first} and {names[0]} is a {other[roles[0]]} and {names[1]} is a {roles[1]}"
    slash = " and ".join(f"{name} is a {'/'.join(other)}" for name in names)
    return [*answers, first, both, slash, f"{first} and Nobody is a {roles[1]}", " and ".join(roles)]


def list_right(problem: Problem) -> list[str]:
    bare = problem.answer.strip("[]")
    return [problem.answer.replace(" ", ""), f"[ {bare} ]", *([bare, bare.replace(",", "")] if bare else [])]


def list_wrong(problem: Problem) -> list[str]:
    items = problem.answer.strip("[]").split(", ")
    answers = [[*items, "7"], items[1:], [*items[:-1], str(int(items[-1] or 0) + 1)], [*items, items[0]], ["x", *items]]
    answers += [items[::-1]] if items != items[::-1] else []
    return [f"[{', '.join(answer)}]" for answer in answers if answer != items and any(answer)]


CASES = {
    **dict.fromkeys(("circuit_logic", "self_reference"), NUMBER),
    "acre": word_case("on", "off", "undetermined"),
    "knights_knaves": Case(roles_right, roles_wrong),
    "list_functions": Case(list_right, list_wrong),
    "syllogism": word_case("yes", "no"),
    "zebra_puzzles": word_case("nobody", "alice and bob", "1"),
}
