"""Sums, numbers and words: the data sets that one short program answers."""

import re
from fractions import Fraction

from suites.base import Problem
from suites.gym.common import Entry, GymTask, same_number, same_number_list, same_text, same_word_or_number, same_words
from suites.parsers import exact_value, fraction_parts, parse_complex, parse_number, unwrap

# ---------------------------------------------------------------------------------------------------------------------
# Rules


def same_solution(problem: Problem, answer: str) -> bool:
    """A number, or "m = 62" with the equation's own variable."""
    return same_number(problem, re.sub(rf"^{problem.data['variable']}\s*=\s*", "", answer))


def same_complex(problem: Problem, answer: str) -> bool:
    """Equal real and imaginary parts; i or j."""
    value = parse_complex(answer)
    return value is not None and value == parse_complex(problem.answer)


def same_factors(problem: Problem, answer: str) -> bool:
    """The same multiset of factors between × (or x, X, *, ·), with repetition; the question states no order."""

    def factors(text: str) -> list[Fraction | None]:
        return [parse_number(part) for part in re.split(r"[×xX*·]", text)]

    given = factors(answer)
    return None not in given and sorted(given) == sorted(factors(problem.answer))


def same_fraction(problem: Problem, answer: str) -> bool:
    """The same numerator and the same denominator, as a/b or in LaTeX; a bare integer has denominator 1."""

    given = fraction_parts(answer)
    return given is not None and given == fraction_parts(unwrap(problem.answer))


# ---------------------------------------------------------------------------------------------------------------------
# Items whose reference answer is not the answer to their question


def divides_exactly(entry: Entry) -> bool:
    """The library rounds quotients down in silence; about one expression in a hundred has one that is not whole."""
    try:
        return exact_value(entry["metadata"]["expression"]) == int(entry["answer"])
    except ZeroDivisionError:
        return False


def has_variable(entry: Entry) -> bool:
    """Terms can cancel to "0 = 0", which every number solves."""
    return entry["metadata"]["variable"] in entry["metadata"]["equation"]


def ends_in_its_year(entry: Entry) -> bool:
    """Business days are counted up to a day of the next year that the question dates in this year."""
    metadata = entry["metadata"]
    return metadata["task"] != "count_business_days" or metadata["start_date"][:4] == metadata["end_date"][:4]


# ---------------------------------------------------------------------------------------------------------------------


TASKS = [
    GymTask("basic_arithmetic", same_number, sound=divides_exactly),
    GymTask("calendar_arithmetic", same_word_or_number, sound=ends_in_its_year),
    GymTask("chain_sum", same_number),
    GymTask("complex_arithmetic", same_complex),
    GymTask("count_bits", same_number),
    GymTask("count_primes", same_number),
    GymTask("decimal_chain_sum", same_number),
    GymTask("fraction_simplification", same_fraction),
    GymTask("gcd", same_number),
    GymTask("lcm", same_number),
    # The library counts capitals too, which its question does not say: in one of nine they change the answer.
    GymTask("letter_counting", same_number),
    GymTask("number_filtering", same_number_list),
    GymTask("prime_factorization", same_factors),
    GymTask("products", same_number),
    GymTask("simple_equations", same_solution, sound=has_variable, keep=("variable",)),
    GymTask("spell_backward", same_text),
    GymTask("word_sequence_reversal", same_words),
]
