"""Polynomials, digits, measures and chances: the data sets whose answer is one number or a few."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from fractions import Fraction
from functools import cache
from itertools import combinations, pairwise
from typing import Any

from suites.base import Problem
from suites.gym.basic import same_fraction
from suites.gym.common import Entry, GymTask, dataset, same_number, same_number_list, same_text
from suites.parsers import exact_value, fraction_parts, parse_number, split_items, without_brackets

# ---------------------------------------------------------------------------------------------------------------------
# Parsers


def polynomial(text: str, variable: str) -> dict[int, int] | None:
    """Coefficients by power of "3*x**2 - x + 5", also with ^ and without *; None if there is anything but a sum of
    terms, or a power in two of them."""
    if re.search(r"[0-9]\s+[0-9]", text):
        return None
    text = re.sub(r"\s", "", text).replace("−", "-").replace("^", "**")
    if text[:1] not in ("+", "-"):
        text = f"+{text}"
    coefficients: dict[int, int] = {}
    for term in re.findall(r"[+-][^+-]*", text):
        match = re.fullmatch(rf"([+-])([0-9]{{1,40}})?(?:(?:(?<=[0-9])\*)?({variable})(?:\*\*([0-9]{{1,2}}))?)?", term)
        if not match or not (match[2] or match[3]):
            return None
        power = int(match[4] or 1) if match[3] else 0
        if power in coefficients:
            return None
        coefficients[power] = int(match[1] + (match[2] or "1"))
    return coefficients


def duration(text: str) -> list[Fraction | None] | None:
    """Days, hours, minutes and seconds of "3 days, 04:05", "4:05:06.789", "3 days" or "3"; None for what is not there,
    or for the whole if it is anything else."""
    if re.fullmatch(r"[0-9]+", text):
        text = f"{text} days"
    match = re.fullmatch(
        r"(?:([0-9]{1,9})\s*days?,?\s*)?(?:([0-9]{1,9}):([0-5][0-9])(?::([0-5][0-9](?:\.[0-9]{1,6})?))?)?", text.lower()
    )
    return [part and Fraction(part) for part in match.groups()] if match else None


# ---------------------------------------------------------------------------------------------------------------------
# Rules


def same_roots(problem: Problem, answer: str) -> bool:
    """Every real root once, in any order, at 4 decimal places: to the nearest or towards zero, since the question asks
    to round and then to round down."""
    values = [parse_number(item) for item in split_items(without_brackets(answer))]
    roots = [[Fraction(value) for value in accepted] for accepted in problem.data["roots"]]
    if None in values or len(values) != len(roots):
        return False
    return all(value in accepted for value, accepted in zip(sorted(values), roots, strict=True))


def same_polynomial(problem: Problem, answer: str) -> bool:
    """The product multiplied out: the same coefficients, each power once, in any order."""
    variable = problem.data["variables"][0]
    if answer.startswith("**") and answer.endswith("**"):  # in bold face; `unwrap` leaves it if there are powers inside
        answer = answer[2:-2]
    return polynomial(answer, variable) == polynomial(problem.answer, variable)


def same_hexadecimal(problem: Problem, answer: str) -> bool:
    """The same number in base 16, with or without 0x, in any case."""
    match = re.fullmatch(r"([+-]?)(?:0x)?([0-9a-f]{1,60})", answer.lower().replace("−", "-"))
    return match is not None and int(match[1] + match[2], 16) == int(problem.answer, 16)


def same_digits(problem: Problem, answer: str) -> bool:
    """The same digits in any case, with or without the prefix that Python gives to numbers of this base."""
    prefix = {2: "0b", 8: "0o", 16: "0x"}.get(problem.data["target_base"], "")
    return answer.lower().removeprefix(prefix) == problem.answer


def same_candidate(problem: Problem, answer: str) -> bool:
    """The number as the question shows it, in any notation, or as the library computes with it: the two can differ in
    the seventh decimal place."""
    value = parse_number(answer)
    return value is not None and value in [parse_number(text) for text in (problem.answer, *problem.data["shown"])]


def same_duration(problem: Problem, answer: str) -> bool:
    """The same days, hours, minutes and seconds, as far as they are asked for; leading zeros do not matter, nor does
    the word after a bare number of days."""
    given = duration(answer)
    return given is not None and given == duration(problem.answer)


def same_to_three_places(problem: Problem, answer: str) -> bool:
    """Each number rounded to 3 decimal places; a tie may go either way."""
    if problem.answer.endswith("°"):
        answer = answer.removesuffix("°").strip()
    values = [parse_number(item) for item in split_items(without_brackets(answer))]
    exact = [Fraction(value) for value in problem.data["exact"]]
    half = Fraction(1, 2000) + Fraction(1, 10**9)  # irrational numbers come as floats
    return len(values) == len(exact) and all(
        value is not None and (value * 1000).denominator == 1 and abs(value - correct) <= half
        for value, correct in zip(values, exact, strict=True)
    )


def same_probability(problem: Problem, answer: str) -> bool:
    """The exact probability, as a decimal or any fraction, or its first 10 digits, which is what the library gives."""
    parts, rational = fraction_parts(answer), problem.data["rational"]
    exact = Fraction(rational["numerator"], rational["denominator"])
    return parts is not None and parts[1] != 0 and parts[0] / parts[1] in (exact, parse_number(problem.answer))


def same_marks(problem: Problem, answer: str) -> bool:
    """The same rows of marks; white space, commas, quotes and brackets within a row do not matter."""
    rows = [re.sub(r"[\s,\"'\[\]\ufe0f]", "", line) for line in answer.splitlines()]
    return [row for row in rows if row] == problem.answer.split()


# ---------------------------------------------------------------------------------------------------------------------
# Items whose reference answer is not the answer to their question, or not the only one


def _accepted_roots(entry: Entry) -> list[list[str]] | None:
    """For each root its value to the nearest and, where that is another one, its value rounded towards zero; None if
    these two cannot be told from the polynomial's signs: at a double root, or where two roots are the same number."""
    metadata = entry["metadata"]
    coefficients = polynomial(metadata["polynomial_expr"], metadata["variable"])
    roots = [Fraction(str(root)) for root in metadata["real_solutions"]]
    if not coefficients or any(after - before < Fraction(2, 10**4) for before, after in pairwise(roots)):
        return None

    def value(x: Fraction) -> Fraction:
        return sum((factor * x**power for power, factor in coefficients.items()), Fraction(0))

    accepted = []
    for root in roots:
        half = Fraction(1 if root > 0 else -1, 2 * 10**4)
        texts = [f"{float(root):.4f}"]
        if value(root) != 0:
            if value(root) * value(root - half) < 0:
                texts.append(f"{float(root - 2 * half):.4f}")
            elif value(root) * value(root + half) > 0:
                return None
        accepted.append(texts)
    return accepted


def has_clear_roots(entry: Entry) -> bool:
    """Nearly every equation; a root counts as found where the polynomial is 0 or changes its sign."""
    return bool(_accepted_roots(entry))


def is_still_to_do(entry: Entry) -> bool:
    """The library multiplies single terms out as it writes them: four questions in a hundred are their own answers."""
    return entry["metadata"]["polynomial_expr"] != entry["answer"]


def rounds_once(entry: Entry) -> bool:
    """The library rounds after every operation; in one item of ten that changes the last of the 12 digits."""
    expression = entry["question"].splitlines()[1].removesuffix(" = ?")
    whole = re.sub(r"([0-9]+)\.([0-9]{3})", lambda number: f"({int(number[1] + number[2])}/1000)", expression)
    exact = exact_value(whole)
    with localcontext(Context(prec=12, rounding=ROUND_HALF_UP)):
        return Decimal(entry["answer"]) == Decimal(exact.numerator) / Decimal(exact.denominator)


def has_undisputed_legs(entry: Entry) -> bool:
    """Whether the five arms of a starfish are legs, as the library says, is a matter of words: one item in five."""
    return "starfish" not in entry["metadata"]["animals"]


def has_one_sign(entry: Entry) -> bool:
    """Whether -2.5^2 is the square of -2.5, as for the library, or minus the square of 2.5, as for most programs, is
    open: three items in ten. Nor may the fourth digit be a tie."""
    metadata = entry["metadata"]
    value = metadata["solution"]
    no_tie = f"{value * (1 - 1e-12):.2e}" == f"{value * (1 + 1e-12):.2e}"
    return (metadata["base"] > 0 or metadata["exponent"] % 2 == 1) and no_tie


def states_its_duration(entry: Entry) -> bool:
    """One item in six does not. The library forgets the time of day in one of its formats, and loses a millisecond to
    binary fractions in every second item that has them. A few durations are negative, some are wanted in minutes
    although their seconds would round up, and nothing tells the month from the day in 03/04/2024."""
    metadata = entry["metadata"]
    start, end = (datetime.fromisoformat(metadata[key]) for key in ("start_time", "end_time"))
    passed: timedelta = end - start
    if metadata["format"] == "%Y-%m-%d (%A) %H:%M:%S %z" or passed < timedelta(0):
        return False
    if metadata["format"] == "%m/%d/%Y":
        return max(start.day, end.day) > 12
    if metadata["expected_format"] == "D days, HH:MM":
        return passed.seconds % 60 < 30
    if metadata["expected_format"] == "HH:MM:SS.mmm":
        return int(entry["answer"][-3:]) == passed.microseconds // 1000
    return True


def is_convex(entry: Entry) -> bool:
    """In two of five polygons that are said to be convex the missing angle has 180 degrees or more."""
    return entry["metadata"]["missing_angle_raw"] < 180


def is_not_zero(entry: Entry) -> bool:
    """The library writes 0 as no digit at all in most bases."""
    return entry["metadata"]["decimal_value"] != 0


_OPERATIONS: list[Callable[[int, int], int]] = [
    *(lambda value, before, number=number: value + number for number in range(-10, 11)),
    *(lambda value, before, number=number: value * number for number in range(-10, 11) if number),
    lambda value, before: value * value,
    lambda value, before: value // 2,
    lambda value, before: value + before,
]


def has_one_simple_rule(entry: Entry) -> bool:
    """Any number can follow in a sequence. In these, some rule of at most two of the library's operations makes every
    term from the one before, and all such rules agree on the next; seven items in a hundred do not have that."""
    *shown, following = entry["metadata"]["sequence"]
    before = [0, *shown]
    found = set()
    for first in _OPERATIONS:
        once = [first(value, previous) for value, previous in zip(shown, before, strict=False)]
        for second in _OPERATIONS:
            if second(once[0], before[0]) == shown[1]:
                twice = [second(value, previous) for value, previous in zip(once, before, strict=False)]
                if twice[:-1] == shown[1:]:
                    found.add(twice[-1])
    return found == {following}


@cache
def _patterns() -> frozenset[str]:
    """All grids of 20 x 20 that the library can draw, without line breaks."""
    operations: list[Callable[[int, int], int]] = [
        lambda x, y: x + y,
        lambda x, y: abs(x - y),
        lambda x, y: x * y,
        lambda x, y: x**y,
    ]
    patterns = set()
    for operation in operations:
        values = [operation(x, y) for y in range(20) for x in range(20)]
        for divisor in range(2, 21):
            rests = [value % divisor for value in values]
            patterns |= {"".join("❌✅"[rest == target] for rest in rests) for target in range(1, divisor)}
    return frozenset(patterns)


def has_one_pattern(entry: Entry) -> bool:
    """One grid in a thousand belongs to a pattern whichever mark takes the place of the question mark."""
    shown = entry["question"].split("\n\n")[1].replace("\n", "")
    return not all(shown.replace("❔", mark) in _patterns() for mark in "✅❌")


def has_no_cross(entry: Entry) -> bool:
    """Two rectangles that cross like a plus sign are also four, one in each arm: there the count is open. Passed over
    is each picture with an inner rectangle whose corners are all drawn twice, four of ten; nearly half of these are
    made by different numbers of rectangles, none of the others is."""
    lines = entry["metadata"]["puzzle"].splitlines()
    twice = [{x for x, cell in enumerate(line) if cell == "█"} for line in lines]
    for top, bottom in combinations(range(len(lines)), 2):
        for left, right in combinations(sorted(twice[top] & twice[bottom]), 2):
            sides = [*(lines[y][left : right + 1] for y in (top, bottom))]
            sides += ["".join(line[x] for line in lines[top : bottom + 1]) for x in (left, right)]
            if bottom - top > 1 and right - left > 1 and " " not in "".join(sides):
                return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# What a rule needs of an entry


def _roots(entry: Entry) -> dict[str, Any]:
    return {"roots": _accepted_roots(entry)}


def _shown(entry: Entry) -> dict[str, Any]:
    metadata = entry["metadata"]
    pairs = zip(metadata["candidates"], metadata["formatted_candidates"], strict=True)
    return {"shown": [text for candidate, text in pairs if candidate == metadata["solution"]]}


def _three_digits(entry: Entry) -> dict[str, Any]:
    return {"answer": f"{entry['metadata']['solution']:.2e}"}


def _geometry(entry: Entry) -> dict[str, Any]:
    metadata = entry["metadata"]
    if metadata["task_type"] == "orthocenter":
        return {"answer": entry["answer"], "exact": list(metadata["ortho"])}
    if metadata["task_type"] == "incircle_radius":
        return {"answer": entry["answer"], "exact": [str(metadata["incircle_radius_approx"])]}
    angle = metadata["angle_ABC_degrees"]
    return {"answer": f"{angle:.3f}°", "exact": [str(angle)]}


# ---------------------------------------------------------------------------------------------------------------------
# Data sets that need more than a rule


class PolynomialMultiplication(GymTask):
    """The library draws from a set of monomials, whose order is another one in every process: here it is sorted."""

    def make(self, seed: int) -> Entry:
        library = dataset(self.name)
        monomials = type(library)._get_monomials
        library._get_monomials = lambda random: sorted(monomials(library, random), key=str)
        return library[seed]


class DecimalArithmetic(GymTask):
    """The library changes the precision of all decimals in the process."""

    def make(self, seed: int) -> Entry | None:
        with localcontext(Context()):
            return super().make(seed)


class QuietCompiler(GymTask):
    """The library's compiler prints dots to standard output: here it does not."""

    def make(self, seed: int) -> Entry | None:
        from reasoning_gym.code.contrib.bfit.Compiler import Optimizer

        Optimizer.print = lambda *values, **options: None
        return super().make(seed)


# Templates of the library whose answer is wrong for some numbers, mostly a quotient cut down to a whole number (2, 3,
# 4, 49, 60, 75, 99), or negative (24), or open: halves to be rounded (92), months of 30 days (95), a difference of
# percentages (53). Three show numbers such as 0.6666666666666666 (46, 52, 66).
_FAULTY_TEMPLATES = {2, 3, 4, 24, 46, 49, 52, 53, 60, 66, 75, 92, 95, 99}


class _TemplateByIndex:
    """The sound templates in turn; the library makes a list of one for each index, for which the memory is too small
    at our number of indices."""

    def __init__(self, templates: list[int]):
        self._templates = [template for template in templates if template not in _FAULTY_TEMPLATES]

    def __getitem__(self, index: int) -> int:
        return self._templates[index % len(self._templates)]


class GsmSymbolic(GymTask):
    """Each index has the library's own numbers and names, but of our choice of templates."""

    def make(self, seed: int) -> Entry:
        return self._templates()[seed]

    @staticmethod
    @cache
    def _templates() -> Any:
        from reasoning_gym.arithmetic.gsm_symbolic import gsm_symbolic as library

        dataset = library.GSMSymbolicDataset(library.GSMSymbolicDatasetConfig(seed=0, size=1))
        dataset.task_indices = _TemplateByIndex(library.tasks_ok)
        return dataset


TASKS = [
    GymTask("advanced_geometry", same_to_three_places, keep=_geometry),
    GymTask("base_conversion", same_digits, sound=is_not_zero, keep=("target_base",)),
    QuietCompiler("bf", same_text),
    GymTask("bitwise_arithmetic", same_hexadecimal),
    GymTask("coin_flip", same_probability, keep=("rational",), few=True),
    DecimalArithmetic("decimal_arithmetic", same_number, sound=rounds_once),
    GymTask("dice", same_fraction),
    GsmSymbolic("gsm_symbolic", same_number),
    GymTask("leg_counting", same_number, sound=has_undisputed_legs),
    GymTask("modulo_grid", same_marks, sound=has_one_pattern, max_answer=4000),
    GymTask("number_format", same_candidate, keep=_shown),
    GymTask("number_sequence", same_number, sound=has_one_simple_rule),
    GymTask("number_sorting", same_number_list),
    GymTask("polynomial_equations", same_roots, sound=has_clear_roots, keep=_roots),
    PolynomialMultiplication("polynomial_multiplication", same_polynomial, sound=is_still_to_do, keep=("variables",)),
    GymTask("power_function", same_number, sound=has_one_sign, keep=_three_digits),
    GymTask("rectangle_count", same_number, sound=has_no_cross),
    GymTask("simple_geometry", same_number, sound=is_convex),
    GymTask("time_intervals", same_duration, sound=states_its_duration),
]
