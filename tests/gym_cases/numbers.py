"""Polynomials, digits, measures and chances."""

import re
from fractions import Fraction

from suites.base import Problem
from tests.gym_cases import Case
from tests.gym_cases.basic import NUMBER, items_wrong, letters_wrong, number_wrong


def numbers_wrong(step: Fraction):
    """One of the numbers changed by a step, one left out, one too many, one minus sign too many."""

    def wrong(problem: Problem) -> list[str]:
        items = problem.answer.strip("()°").split(", ")
        changed = [
            ", ".join([*items[:i], str(float(Fraction(item) + step)), *items[i + 1 :]]) for i, item in enumerate(items)
        ]
        negative = [", ".join(["-" + item for item in items])] if set(items) != {"0.0"} and "-" not in items[0] else []
        return [*changed, *negative, ", ".join([*items, "77.5"]), ", ".join(items[1:]), " ".join(items) + " x"]

    return wrong


def roots_right(problem: Problem) -> list[str]:
    items = problem.answer.split(", ")
    padded = ", ".join(f"{float(item):.4f}" for item in items)
    towards_zero = ", ".join(accepted[-1] for accepted in problem.data["roots"])
    return [f"[{problem.answer}]", ",".join(items[::-1]), padded, towards_zero]


def roots_wrong(problem: Problem) -> list[str]:
    more_digits = ", ".join(str(Fraction(item) + Fraction(1, 10**5)) for item in problem.answer.split(", "))
    return [*numbers_wrong(Fraction(2, 10**4))(problem), more_digits, f"{problem.answer}, {problem.answer}"]


def polynomial_right(problem: Problem) -> list[str]:
    terms = re.findall(r"[+-]?[^+-]+", problem.answer.replace(" ", ""))
    backward = "".join(term if term[0] in "+-" else f"+{term}" for term in terms[::-1])
    variable = problem.data["variables"][0]
    return [
        problem.answer.replace(" ", ""),
        problem.answer.replace("**", "^"),
        problem.answer.replace(f"*{variable}", variable),
        backward.removeprefix("+"),
    ]


def polynomial_wrong(problem: Problem) -> list[str]:
    answer, variable = problem.answer, problem.data["variables"][0]
    expression = problem.question.splitlines()[0].split(": ")[1]
    first = re.search(r"[0-9]+", answer)
    wrong = [expression, f"{answer} + {variable}**19", f"{answer} + {variable}**19 - {variable}**19", f"-({answer})"]
    wrong += [answer.replace(variable, "w"), f"({answer})*1", f"{answer}*2", f"{answer} +", f"*{answer}"]
    wrong.append(answer.replace(first[0], str(int(first[0]) + 1), 1) if first else "")
    wrong.append(answer.rpartition(" ")[0])
    return wrong


def hexadecimal_right(problem: Problem) -> list[str]:
    return [problem.answer.upper(), problem.answer.replace("0x", ""), problem.answer.replace("0x", "0x00")]


def hexadecimal_wrong(problem: Problem) -> list[str]:
    value = int(problem.answer, 16)
    wrong = [hex(value + 1), f"0b{value:b}", f"{problem.answer}h", "0x", "-"]
    if value:
        wrong += [f"{problem.answer}0", hex(-value), str(value) if value > 9 else hex(value % 2**64 + 1)]
    return wrong


def digits_right(problem: Problem) -> list[str]:
    prefix = {2: "0b", 8: "0o", 16: "0x"}.get(problem.data["target_base"], "")
    return [problem.answer.upper(), prefix + problem.answer]


def digits_wrong(problem: Problem) -> list[str]:
    base = problem.data["target_base"]
    last = int(problem.answer[-1], 36)
    other = "0123456789abcdefghij"[last + 1 if last + 1 < base else last - 1]
    wrong = "0b" if base == 16 else "0x"
    return [problem.answer[:-1] + other, f"{problem.answer}0", problem.answer[:-1], wrong + problem.answer]


def candidate_right(problem: Problem) -> list[str]:
    return [*problem.data["shown"], f"{float(problem.answer):,}"]


def candidate_wrong(problem: Problem) -> list[str]:
    listed = problem.question.split("candidates: ")[1].split()
    value = Fraction(problem.answer)
    others = [text for text in listed if abs(Fraction(text.replace(",", "")) - value) > Fraction(1, 10**4)]
    return [*others, " ".join(listed), f"{problem.answer}1", f"-{problem.answer}", str(float(value) + 0.01)]


def power_right(problem: Problem) -> list[str]:
    digits, exponent = problem.answer.split("e")
    return [f"{digits}E{int(exponent)}", f"{digits}0e{exponent}", f"{digits}e{int(exponent):+}"]


def power_wrong(problem: Problem) -> list[str]:
    digits, exponent = problem.answer.split("e")
    return [
        f"{digits}1e{exponent}",  # four significant figures
        f"{digits}e{int(exponent) + 1}",
        f"{-float(digits):.2f}e{exponent}",
        f"{float(digits) + 0.01:.2f}e{exponent}",
        digits if int(exponent) else "",
    ]


def duration_right(problem: Problem) -> list[str]:
    answer = problem.answer
    right = [answer.replace(", ", " "), answer.replace(", ", ","), answer.replace("days", "Days")]
    right.append(re.sub(r"(^|, )0([0-9]:)", r"\1\2", answer))
    right.append(re.sub(r"^1 days", "1 day", answer))
    if ":" not in answer:
        right.append(answer.removesuffix(" days"))
    return right


def duration_wrong(problem: Problem) -> list[str]:
    answer = problem.answer
    number = re.search(r"[0-9]+", answer)
    parts = re.split(r"[:.]", answer)
    wrong = [f"-{answer}", f"{answer}:00", answer.replace(":", "-") + " ", f"{answer} ago", f"1 days, {answer}"]
    wrong.append(re.sub(r"[0-9]+", lambda first: str(int(first[0]) + 1), answer, count=1))
    wrong.append(re.sub(r"([0-9])(?=[^0-9]*$)", lambda last: str((int(last[1]) + 1) % 10), answer))
    if ":" in answer:
        wrong += [":".join(parts[:-1]), re.sub(r"[0-9]+(:[0-9]{2}(?:\.|$))", r"75\1", answer), answer.split(":")[0]]
    else:
        wrong.append(f"{number[0]} hours" if number else "")
    return [text for text in wrong if text.strip() != answer]


def geometry_right(problem: Problem) -> list[str]:
    bare = problem.answer.strip("()°")
    if problem.answer.endswith("°"):
        return [bare, f"{bare} °"]
    short = ", ".join(str(float(item)) for item in bare.split(", "))
    return [bare.replace(", ", ","), f"({bare})", short]


def geometry_wrong(problem: Problem) -> list[str]:
    items = problem.answer.strip("()°").split(", ")
    more_digits = ", ".join(f"{item}4" for item in items)
    swapped = [", ".join(items[::-1])] if len(set(items)) > 1 else []
    return [*numbers_wrong(Fraction(1, 500))(problem), more_digits, *swapped, f"{problem.answer}°C"]


def probability_right(problem: Problem) -> list[str]:
    above, below = problem.data["rational"]["numerator"], problem.data["rational"]["denominator"]
    latex = rf"\frac{{{above}}}{{{below}}}"
    return [f"{above}/{below}", f"{above} / {below}", str(Fraction(above, below)), f"{above / below:.20f}", latex]


def probability_wrong(problem: Problem) -> list[str]:
    above, below = problem.data["rational"]["numerator"], problem.data["rational"]["denominator"]
    rough = f"{above / below:.3g}"
    wrong = [f"{above + 1}/{below}", f"{above}/{below}/1", f"{above}/0", f"{below}/{above + 1}", f"-{above}/{below}"]
    return wrong + ([rough] if Fraction(rough) != Fraction(above, below) else [])


def marks_right(problem: Problem) -> list[str]:
    lines = problem.answer.split()
    return [
        "\n".join(" ".join(line) for line in lines),
        "\n\n".join(lines),
        "[" + ",\n".join(f"[{', '.join(repr(mark) for mark in line)}]" for line in lines) + "]",
    ]


def marks_wrong(problem: Problem) -> list[str]:
    lines = problem.answer.split()
    shown = problem.question.split("\n\n")[1]
    other = "❌" if problem.answer[shown.index("❔")] == "✅" else "✅"
    return [
        shown,
        shown.replace("❔", other),
        "\n".join(lines[:-1]),
        "\n".join([*lines, lines[0]]),
        "".join(lines),
        problem.answer[shown.index("❔")],
        "\n".join(line[:-1] for line in lines),
    ]


def fraction_wrong(problem: Problem) -> list[str]:
    above, below = map(int, problem.answer.split("/"))
    return [f"{2 * above}/{2 * below}", f"{above + 1}/{below}", f"{below}/{above}", str(above / below), f"{above}"]


CASES = {
    **dict.fromkeys(
        ("decimal_arithmetic", "gsm_symbolic", "leg_counting", "number_sequence", "rectangle_count", "simple_geometry"),
        NUMBER,
    ),
    "advanced_geometry": Case(geometry_right, geometry_wrong),
    "base_conversion": Case(digits_right, digits_wrong),
    "bf": Case(lambda p: [f'"{p.answer}"', f"'{p.answer}'"], lambda p: [*letters_wrong(p), p.answer.upper()]),
    "bitwise_arithmetic": Case(hexadecimal_right, hexadecimal_wrong),
    "coin_flip": Case(probability_right, probability_wrong),
    "dice": Case(
        lambda p: [p.answer.replace("/", " / "), rf"$\frac{{{p.answer.replace('/', '}{')}}}$"], fraction_wrong
    ),
    "modulo_grid": Case(marks_right, marks_wrong),
    "number_format": Case(candidate_right, candidate_wrong),
    "number_sorting": Case(lambda p: [p.answer.replace(" ", ""), p.answer.replace("'", "")], items_wrong(", ")),
    "polynomial_equations": Case(roots_right, roots_wrong),
    "polynomial_multiplication": Case(polynomial_right, polynomial_wrong),
    "power_function": Case(power_right, lambda p: [*power_wrong(p), *number_wrong(p)]),
    "time_intervals": Case(duration_right, duration_wrong),
}
