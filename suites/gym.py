"""Data sets of reasoning-gym at their default configurations: its question texts verbatim, our own exact scoring.

The library's `score_answer` is never used: it gives consolation credit, and some scorers evaluate the answer in the
calling process. Each data set has a rule here instead, which says what an answer must be.

Item i of a data set with seed s is drawn from `Random(s + i)`, so with seed 0 the index of a problem IS its seed.
A few items contradict themselves (an equation "0 = 0", a "2022" that means 2023): such an index stands for another
item, see `GymTask.problem`.
"""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from suites.base import Problem, Task, parse_complex, parse_number, split_items, unwrap

MAX_ANSWER = 2000  # characters; the longest right answer of these data sets has about a hundred
SUBSTITUTE_STEP = 10**8  # beyond every index in use, so no substitute is another index's problem

Entry = dict[str, Any]
Rule = Callable[[Problem, str], bool]


@cache
def _dataset(name: str) -> Any:
    import reasoning_gym  # two seconds of imports, paid by the first problem and not by `import tasks`

    return reasoning_gym.create_dataset(name, seed=0, size=10**18)  # the size is a bound, nothing is allocated


# ---------------------------------------------------------------------------------------------------------------------
# Rules. Each gets the answer already stripped of white space, surrounding quotes and a final full stop.


def same_number(problem: Problem, answer: str) -> bool:
    """Equal as numbers: "12", "+12", "12.0" and "1,200" for 1200."""
    value = parse_number(answer)
    return value is not None and value == parse_number(problem.answer)


def same_solution(problem: Problem, answer: str) -> bool:
    """A number, or "m = 62" with the equation's own variable."""
    return same_number(problem, re.sub(rf"^{problem.data['variable']}\s*=\s*", "", answer))


def same_complex(problem: Problem, answer: str) -> bool:
    """Equal real and imaginary parts; i or j."""
    value = parse_complex(answer)
    return value is not None and value == parse_complex(problem.answer)


def same_text(problem: Problem, answer: str) -> bool:
    """The same characters."""
    return answer == problem.answer


def same_word_or_number(problem: Problem, answer: str) -> bool:
    """Equal numbers, or the same word in any case (Yes, Friday)."""
    return same_number(problem, answer) or answer.casefold() == problem.answer.casefold()


def same_factors(problem: Problem, answer: str) -> bool:
    """The same multiset of factors between × (or x, X, *, ·), with repetition; the question states no order."""

    def factors(text: str) -> list[Fraction | None]:
        return [parse_number(part) for part in re.split(r"[×xX*·]", text)]

    given = factors(answer)
    return None not in given and sorted(given) == sorted(factors(problem.answer))


def same_fraction(problem: Problem, answer: str) -> bool:
    """The same numerator and the same denominator, as a/b or in LaTeX; a bare integer has denominator 1."""

    def parts(text: str) -> list[Fraction | None]:
        latex = re.fullmatch(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", text)
        numerator, _, denominator = text.partition("/")
        pair = latex.groups() if latex else (numerator, denominator if "/" in text else "1")
        return [parse_number(part) for part in pair]

    given = parts(answer)
    return None not in given and given == parts(unwrap(problem.answer))


def same_number_list(problem: Problem, answer: str) -> bool:
    """A list in brackets of equal numbers in the same order, each quoted or not."""

    def numbers(text: str) -> list[Fraction | None]:
        return [parse_number(item) for item in split_items(text[1:-1])]

    return answer[:1] == "[" and answer[-1:] == "]" and len(answer) > 1 and numbers(answer) == numbers(problem.answer)


def same_words(problem: Problem, answer: str) -> bool:
    """The same words in the same order between commas; white space and quotes around a word do not matter."""
    return split_items(answer) == split_items(problem.answer)


# ---------------------------------------------------------------------------------------------------------------------
# Items whose reference answer is not the answer to their question.


def _exact_value(expression: str) -> Fraction:
    operators = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return operators[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        return Fraction(node.value)

    return value(ast.parse(expression, mode="eval").body)


def divides_exactly(entry: Entry) -> bool:
    """The library rounds quotients down in silence; about one expression in a hundred has one that is not whole."""
    try:
        return _exact_value(entry["metadata"]["expression"]) == int(entry["answer"])
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


class GymTask(Task):
    """One data set: its name, the rule for answers, a test for items to pass over, and metadata the rule needs."""

    suite = "gym"

    def __init__(
        self, name: str, rule: Rule, sound: Callable[[Entry], bool] = lambda entry: True, keep: tuple[str, ...] = ()
    ):
        self.name, self._rule, self._sound, self._keep = name, rule, sound, keep

    def problem(self, index: int) -> Problem:
        """The item of this index or, if that contradicts itself, the first sound one at steps of SUBSTITUTE_STEP."""
        if index < 0:
            raise ValueError(f"{self.name}: a problem's index is a seed >= 0, not {index}")
        dataset, source = _dataset(self.name), index
        while not self._sound(entry := dataset[source]):
            source += SUBSTITUTE_STEP
        data = {key: entry["metadata"][key] for key in self._keep}
        return Problem(self.name, index, entry["question"], entry["answer"], data)

    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer obeys the data set's rule, else 0."""
        if len(answer) > MAX_ANSWER:
            return 0
        return int(self._rule(problem, unwrap(answer)))


TASKS: list[Task] = [
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
    GymTask("letter_counting", same_number),
    GymTask("number_filtering", same_number_list),
    GymTask("prime_factorization", same_factors),
    GymTask("products", same_number),
    GymTask("simple_equations", same_solution, sound=has_variable, keep=("variable",)),
    GymTask("spell_backward", same_text),
    GymTask("word_sequence_reversal", same_words),
]
