"""Stocks of things that are turned into each other, by methods in cycles."""

from random import Random

from suites.base import Problem
from tests.symbench_cases import Case


def counts_right(problem: Problem, random: Random) -> list[str]:
    """Layouts of counts."""
    names, counts = problem.data["names"], problem.answer.split(", ")
    pairs = list(zip(names, counts, strict=True))
    return [
        problem.answer,
        " ".join(counts),
        "\n".join(counts),
        ",".join(counts) + ".",
        f"[{problem.answer}]",
        f"({'; '.join(counts)})",
        f"**{problem.answer}**",
        str(counts),
        str(counts).replace("'", '"'),
        f"[{', '.join(f'{count}.0' for count in counts)}]",
        ", ".join(f"{name}: {count}" for name, count in pairs),
        "\n".join(f"{name} = {count}" for name, count in pairs),
        "{" + ", ".join(f'"{name}": {count}' for name, count in pairs) + "}",
        ", ".join(f"{count} {name}" for name, count in pairs),
    ]


def work(data: dict, order: str) -> list[list[int]]:
    """The counts after each use of a method. In which order: "once" each in its turn, "often" each in its turn, or
    always the "first" that can be used. A count is looked up and changed one by one, unlike in the puzzles."""
    stock = dict(zip(data["names"], data["start"], strict=True))
    states = [list(stock.values())]

    def usable(method: list) -> bool:
        return all(stock[name] >= number for number, name in method[0])

    turn = 0
    while any(map(usable, data["methods"])):
        if order == "first":
            turn = 0
        while not usable(data["methods"][turn]):
            turn = (turn + 1) % len(data["methods"])
        for sign, amounts in zip((-1, 1), data["methods"][turn], strict=True):
            for number, name in amounts:
                stock[name] += sign * number
        states.append(list(stock.values()))
        if order == "once":
            turn = (turn + 1) % len(data["methods"])
    return states


def counts_wrong(problem: Problem, random: Random) -> list[str]:
    counts = [int(count) for count in problem.answer.split(", ")]
    runs = {order: work(problem.data, order) for order in ("once", "often", "first")}
    order = "often" if problem.task.startswith("string_synthesis") else "once"
    assert runs[order][-1] == counts, "the solver and this simulation must agree"
    one = random.randrange(len(counts))
    more, less, moved = [*counts], [*counts], [*counts]
    more[one] += 1
    less[one] -= 1
    moved[one] += 1
    moved[one - 1] -= 1
    swapped = [*counts]
    swapped[one], swapped[one - 1] = swapped[one - 1], swapped[one]
    changed = [*(run[-1] for run in runs.values()), *runs[order][:-1], more, less, moved, swapped, counts[::-1]]
    changed += [counts[:-1], counts[1:], [*counts, 0], [0, *counts], [*counts, *counts], [-count for count in counts]]
    names = problem.data["names"]
    shifted = zip([*names[1:], names[0]], counts, strict=True)
    return [
        *(", ".join(map(str, numbers)) for numbers in changed if numbers != counts),
        "".join(map(str, counts)),
        ", ".join(f"{name}: {count}" for name, count in shifted),
        f"{', '.join(map(str, counts))}, {names[0]}",
        f"{names[0]}: {problem.answer}",
        f"[{problem.answer}], [{problem.answer}]",
        f"{problem.answer} or {', '.join(map(str, more))}",
        "/".join(map(str, counts)),
    ]


CASES = {
    name: Case(counts_right, counts_wrong)
    for name in ("string_splitting", "string_synthesis", "synthesis_decomposition")
}
