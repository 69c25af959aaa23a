"""Arithmetic: expressions to find, and to work out."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache
from random import Random

from suites.base import Problem
from suites.parsers import exact_value
from tests.symbench_cases import Case, number_right, number_wrong

# ---------------------------------------------------------------------------------------------------------------------
# Expressions to find


def results(numbers: Sequence[int], random: Random) -> dict[Fraction, str]:
    """Values of expressions of these numbers in this order, each with one of its expressions, in many brackets. Of more
    than three numbers it is a part that chance decides."""

    @cache
    def between(start: int, end: int) -> dict[Fraction, str]:
        if end - start == 1:
            return {Fraction(numbers[start]): str(numbers[start])}
        found = {}
        for middle in random.sample(range(start + 1, end), min(2, end - start - 1)):
            for x, left in between(start, middle).items():
                for y, right in between(middle, end).items():
                    found[x + y] = f"({left} + {right})"
                    found[x - y] = f"({left} - {right})"
                    found[x * y] = f"({left} * {right})"
                    if y:
                        found[x / y] = f"({left} / {right})"
        return found

    return between(0, len(numbers))


def in_other_orders(numbers: Sequence[int], target: int, random: Random) -> Iterator[str]:
    """Some expressions of these numbers in any order that make the target: of all but four numbers a sum that stays
    small, and the rest from what the four can make."""
    for _ in range(3):
        four, others = (shuffled := random.sample(numbers, len(numbers)))[:4], shuffled[4:]
        total, text = 0, ""
        for i, number in enumerate(others):
            plus = i == 0 or total < 0
            total += number if plus else -number
            text += f" {'+' if plus else '-'} {number}"
        found = results(four, random)
        if target - total in found:
            yield found[target - total] + text


def summands(answer: str) -> list[tuple[str, str]]:
    """The summands of an expression, each with its sign."""
    found, sign, depth = [], "+", 0
    for token in answer.split():
        if depth == 0 and token in ("+", "-"):
            sign = token
            continue
        depth += token.count("(") - token.count(")")
        if sign:
            found.append((sign, token))
            sign = ""
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]} {token}")
    return found


def layouts(answer: str) -> list[str]:
    tokens = re.findall(r"[0-9]+|\S", answer)
    return [
        answer,
        "".join(tokens),
        f"({answer})",
        f"[{', '.join(tokens)}]",
        f"({','.join(tokens)})",
        json.dumps(tokens),
        json.dumps(tokens, indent=1),
        str(tokens),
        re.sub(r"([0-9]+)", r"(\1)", answer),
        answer.replace("(", "[").replace(")", "]"),
        answer.replace("*", "×").replace("/", "÷").replace("-", "−"),
        answer.replace(" ", "\n"),
        f"**{answer}**",
        f"`{answer}`.",
        f'"{answer}"',
    ]


def expression_wrong(problem: Problem, random: Random) -> list[str]:
    """What is no expression of exactly the given numbers with the target as its value, whatever their order."""
    answer, target = problem.answer, problem.data["target"]
    wrong = [
        f"-({answer})",
        f"+({answer})",
        f"-(-({answer}))",
        f"({answer}",
        f"{answer})",
        f"({answer}]",
        f"{answer} +",
    ]
    wrong += [f"* {answer}", f"({answer})()", f"{answer} 0", f"{answer}, {answer}", f"{answer}..", f"({answer}) ** 1"]
    wrong += [
        f"{answer} + 0",
        f"{answer} * 1",
        f"0 + {answer}",
        f"({answer}) / 1",
        f"({answer}) + ({answer}) - {target}",
    ]
    wrong += [f"{answer} = {target}", f"{target} = {answer}", f"{answer} == {target}", str(target), f"{target}.0"]

    place = random.choice(list(re.finditer("[0-9]+", answer)))
    number = place[0]
    for other in (
        f"({int(number) + 1} - 1)",
        f"({number} + {number} - {number})",
        f"-{number}",
        f"(-{number})",
        "x",
        "",
    ):
        wrong.append(answer[: place.start()] + other + answer[place.end() :])

    places = list(re.finditer("[-+*/]", answer))
    for place in random.sample(places, min(5, len(places))):
        for sign in "+-*/".replace(place[0], ""):
            changed = answer[: place.start()] + sign + answer[place.end() :]
            try:
                if exact_value(changed) == target:
                    continue
            except ZeroDivisionError:
                pass
            wrong.append(changed)
    wrong += [re.sub("[-+*/]", sign, answer, count=1) for sign in ("**", "//", "^", "%", "", ",")]
    if (joined := re.sub("([0-9]) . ([0-9])", r"\1\2", answer, count=1)) != answer:
        wrong.append(joined)
    return wrong


def in_order_right(problem: Problem, random: Random) -> list[str]:
    other = results(problem.data["numbers"], random).get(problem.data["target"], problem.answer)
    return [*layouts(problem.answer), *layouts(other)]


def in_order_wrong(problem: Problem, random: Random) -> list[str]:
    numbers, target = problem.data["numbers"], problem.data["target"]
    others = [random.sample(numbers, len(numbers)) for _ in range(3)]
    others += [numbers[1:], numbers[:-1], [*numbers[:-1], numbers[-1] % 9 + 1], [2, *numbers[:4]]]
    other = random.choice(others)
    return [*expression_wrong(problem, random), results(other, random).get(target, "") if other != numbers else ""]


def any_order_right(problem: Problem, random: Random) -> list[str]:
    terms = summands(problem.answer)
    random.shuffle(terms)
    terms.insert(0, terms.pop(next(i for i, (sign, _) in enumerate(terms) if sign == "+")))
    reordered = " ".join(f"{sign} {term}" for sign, term in terms).removeprefix("+ ")
    others = in_other_orders(problem.data["numbers"], problem.data["target"], random)
    return [*layouts(problem.answer), reordered, *others]


def any_order_wrong(problem: Problem, random: Random) -> list[str]:
    numbers, target = problem.data["numbers"], problem.data["target"]
    others = [numbers[1:], numbers[:-1], [*numbers, 1], [*numbers, numbers[-1]], [*numbers[:-1], numbers[-1] + 1]]
    found = [text for other in random.sample(others, 2) for text in in_other_orders(other, target, random)]
    return [*expression_wrong(problem, random), *found]


# ---------------------------------------------------------------------------------------------------------------------
# Expressions to work out


def product_right(problem: Problem, random: Random) -> list[str]:
    number = int(problem.answer)
    return [
        *number_right(problem, random),
        f"{number:,}",
        f"[{number}]",
        f"({number})".replace("-", "−"),
        f"$ {number} $.",
    ]


def product_wrong(problem: Problem, random: Random) -> list[str]:
    number, numbers = int(problem.answer), problem.data["numbers"]
    digits = [*str(abs(number))]
    i = random.randrange(len(digits) - 1)
    digits[i], digits[i + 1] = digits[i + 1], digits[i]
    others = [int("".join(digits)) * (1 if number > 0 else -1), round(number, -4), math.prod(numbers[1:]), sum(numbers)]
    texts = [str(other) for other in others if other != number]
    return [*number_wrong(problem, random), *texts, "*".join(map(str, numbers)), f"{number} = {number}", f"{number}%"]


def worked_out(problem: Problem, from_right: bool = False, exchanged: bool = False) -> Fraction:
    """The value of the expression; or what it would be from right to left, or with a and b exchanged."""

    def operation(sign: str, a: Fraction, b: Fraction) -> Fraction:
        a, b = (b, a) if exchanged else (a, b)
        return exact_value(problem.data["operators"][sign].replace("a", f"({a})").replace("b", f"({b})"))

    def work_out(text: str) -> Fraction:
        while inner := re.search(r"\(([^()]*)\)", text):
            text = text[: inner.start()] + f"{work_out(inner[1])}" + text[inner.end() :]
        tokens = text.split()
        while len(tokens) > 1:
            i = len(tokens) - 3 if from_right else 0
            a, sign, b = tokens[i : i + 3]
            tokens[i : i + 3] = [f"{operation(sign, Fraction(a), Fraction(b))}"]
        return Fraction(tokens[0])

    return work_out(problem.data["expression"])


def new_operator_right(problem: Problem, random: Random) -> list[str]:
    value = worked_out(problem)
    above, below, factor = value.numerator, value.denominator, random.randint(2, 9)
    thousandths = above * 1000 // below  # cut off, not rounded
    return [
        problem.answer,
        f"**{value}**",
        f"[{value}]",
        f"({value})",
        f"{value}.",
        f"{above} / {below}",
        f"{above * factor}/{below * factor}",
        rf"$\frac{{{above}}}{{{below}}}$",
        str(float(value)),
        f"{float(value):.3f}",
        f"{float(value):.10f}",
        f"{thousandths // 1000}.{thousandths % 1000:03}",
    ]


def new_operator_wrong(problem: Problem, random: Random) -> list[str]:
    value = worked_out(problem)
    above, below = value.numerator, value.denominator
    others = [value + 1, value - 1, -value, 1 / value, Fraction(above + 1, below), Fraction(above, below + 1)]
    others += [Fraction(round(value * 1000), 1000), Fraction(round(value))]
    others += [worked_out(problem, from_right=True), worked_out(problem, exchanged=True)]
    fractions = [str(other) for other in others if other != value]
    decimals = [value + Fraction(11, 10_000), value - Fraction(11, 10_000), value * Fraction(99, 100)]
    texts = [f"{float(other):.6f}" for other in decimals]
    texts += [text for text in (f"{float(value):.1f}", f"{float(value):.2f}") if Fraction(text) != value]
    texts += [f"{above}/0", f"{value} {value}", f"{value}, {value}", f"{value} or 1", problem.data["expression"]]
    return [*fractions, *texts, f"{problem.data['expression']} = {value}", f"{value}%", f"≈ {float(value):.3f}"]


CASES = {
    "combinatorial_calculation": Case(in_order_right, in_order_wrong),
    "game24": Case(any_order_right, any_order_wrong),
    "number_multiply": Case(product_right, product_wrong),
    "new_operator": Case(new_operator_right, new_operator_wrong),
}
