"""Sums, numbers and words."""

from fractions import Fraction

from suites.base import Problem
from tests.gym_cases import Case


def number_right(problem: Problem) -> list[str]:
    return [f"+{problem.answer}" if problem.answer[0] not in "+-" else problem.answer, f"${problem.answer}$"]


def number_wrong(problem: Problem) -> list[str]:
    value = Fraction(problem.answer)
    return [str(value + 1), f"{problem.answer}1", f"{problem.answer} or {value + 1}", f"-({value})"]


def letters_wrong(problem: Problem) -> list[str]:
    return [problem.answer[:-1], problem.answer + "a", problem.answer[::-1] + "b"]


def items_wrong(separator: str):
    def wrong(problem: Problem) -> list[str]:
        items = problem.answer.strip("[]").split(separator)
        left, right = ("[", "]") if problem.answer.startswith("[") else ("", "")
        answers = [separator.join([*items, "7"]), separator.join(items[1:])]
        if len(items) > 1 and items[0] != items[-1]:
            answers.append(separator.join([items[-1], *items[1:-1], items[0]]))
        return [f"{left}{answer}{right}" for answer in answers if answer != problem.answer.strip("[]")]

    return wrong


NUMBER = Case(number_right, number_wrong)
CASES = {
    **dict.fromkeys(
        ("basic_arithmetic", "chain_sum", "count_bits", "count_primes", "decimal_chain_sum", "gcd", "lcm"), NUMBER
    ),
    **dict.fromkeys(("letter_counting", "products"), NUMBER),
    "calendar_arithmetic": Case(lambda p: [p.answer.upper()], lambda p: [p.answer + "s", "Someday", p.answer + "1"]),
    "complex_arithmetic": Case(
        lambda p: [p.answer.replace("i", "j")],
        lambda p: [p.answer + "+1", p.answer + "i" if p.answer != "0.00" else "i"],
    ),
    "fraction_simplification": Case(lambda p: [p.answer.replace(" ", "")], lambda p: [p.answer + "1", "1/0", "x/y"]),
    "number_filtering": Case(lambda p: [p.answer.replace(" ", ""), p.answer.replace("'", "")], items_wrong(", ")),
    "prime_factorization": Case(
        lambda p: [p.answer.replace("×", "*"), " × ".join(p.answer.split(" × ")[::-1])],
        lambda p: (
            [p.answer + " × 1", p.answer + " × 7", p.answer.replace("×", "+") + " "] if "×" in p.answer else ["1"]
        ),
    ),
    "simple_equations": Case(
        lambda p: [f"{p.data['variable']} = {p.answer}", f"{p.data['variable']}={p.answer}"],
        lambda p: [str(int(p.answer) + 1), f"zz = {p.answer}", f"{p.data['variable']} + {p.answer}"],
    ),
    "spell_backward": Case(lambda p: [f'"{p.answer}"', f"**{p.answer}**"], letters_wrong),
    "word_sequence_reversal": Case(lambda p: [p.answer.replace(", ", ",")], items_wrong(", ")),
}
