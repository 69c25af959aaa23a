"""Arithmetic expressions: to read them, to write them, and to find one that has a given value."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from operator import itemgetter
from typing import NamedTuple

from suites.parsers import unwrap

# ---------------------------------------------------------------------------------------------------------------------
# Reading expressions


class Operation(NamedTuple):
    """An operation on two values; the higher rank goes first."""

    rank: int
    apply: Callable[[Fraction, Fraction], Fraction]


ARITHMETIC = {
    "+": Operation(1, operator.add),
    "-": Operation(1, operator.sub),
    "*": Operation(2, operator.mul),
    "/": Operation(2, operator.truediv),
}
_CLOSES = {")": "(", "]": "["}
_SPELLINGS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", **dict.fromkeys(",'\"`", " ")})


def symbols(text: str) -> list[str]:
    """The numbers of an expression and its other characters, in order; white space only separates."""
    return re.findall(r"[0-9]+|\S", text)


def value_of(tokens: Iterable[str | Fraction], operations: Mapping[str, Operation]) -> Fraction | None:
    """The value of an expression of numbers, brackets and these operations, each of them between two values, and equal
    ranks from left to right. None if it is no such expression, or divides by zero."""
    values: list[Fraction] = []
    waiting: list[str] = []  # the operations and brackets whose right side is not complete
    value_next = True

    def settle(rank: int) -> None:
        while waiting and waiting[-1] in operations and operations[waiting[-1]].rank >= rank:
            right = values.pop()
            values[-1] = operations[waiting.pop()].apply(values[-1], right)

    try:
        for token in tokens:
            if value_next and token in _CLOSES.values():
                waiting.append(token)
            elif value_next and (isinstance(token, Fraction) or re.fullmatch("[0-9]+", token)):
                values.append(Fraction(token))
                value_next = False
            elif not value_next and token in operations:
                settle(operations[token].rank)
                waiting.append(token)
                value_next = True
            elif not value_next and token in _CLOSES:
                settle(0)
                if not waiting or waiting.pop() != _CLOSES[token]:
                    return None
            else:
                return None
        if value_next:
            return None
        settle(0)
    except ZeroDivisionError:
        return None
    return None if waiting else values[0]


def uses_and_makes(answer: str, numbers: Sequence[int], target: int, keep_order: bool) -> bool:
    """Whether the answer is an expression of exactly these numbers, if need be in their order, with this value."""
    tokens = symbols(unwrap(answer).translate(_SPELLINGS))
    given, used = list(map(str, numbers)), [token for token in tokens if "0" <= token[0] <= "9"]
    if not keep_order:
        given, used = sorted(given), sorted(used)
    return used == given and value_of(tokens, ARITHMETIC) == target


# ---------------------------------------------------------------------------------------------------------------------
# Finding expressions

Part = tuple[int, ...]
"""Some of the numbers of a problem."""
Splits = Callable[[Part], Iterable[tuple[Part, Part]]]
"""All the ways to split a part into what is left and what is right of an operation."""
Value = int | Fraction
Tree = int | tuple["Tree", str, "Tree"]
"""An expression: a number, or what is left of a sign, the sign, and what is right of it."""


def written(tree: Tree) -> str:
    """The expression with no more brackets than it needs."""
    if isinstance(tree, int):
        return str(tree)

    def operand(side: Tree, lowest: int) -> str:
        text = written(side)
        return text if isinstance(side, int) or ARITHMETIC[side[1]].rank >= lowest else f"({text})"

    left, sign, right = tree
    rank = ARITHMETIC[sign].rank
    return f"{operand(left, rank)} {sign} {operand(right, rank + 1 if sign in '-/' else rank)}"


def in_order(part: Part) -> list[tuple[Part, Part]]:
    """Left and right part of numbers that keep their order."""
    return [(part[:i], part[i:]) for i in range(1, len(part))]


def in_any_order(part: Part) -> Iterator[tuple[Part, Part]]:
    """Left and right part of numbers that may change places: first those with a small part, on either side."""
    for size in range(1, len(part) // 2 + 1):
        for chosen in combinations(range(len(part)), size):
            few = tuple(part[i] for i in chosen)
            many = tuple(number for i, number in enumerate(part) if i not in chosen)
            yield many, few
            if len(few) < len(many):  # of two halves, the other is chosen as well
                yield few, many


# Of how many numbers it pays to work out all that they make.
_FEW = {in_order: 4, in_any_order: 3}


def quotient(value: Value, divisor: Value) -> Value:
    # Whole numbers, which most values are, are many times faster than fractions.
    return value // divisor if value % divisor == 0 else Fraction(value) / divisor


@lru_cache(maxsize=5000)
def values_of(part: Part, splits: Splits) -> Counter[Value]:
    """What these few numbers can make, and in how many ways."""
    if len(part) == 1:
        return Counter(part)
    found: Counter[Value] = Counter()
    for left, right in splits(part):
        for x, x_ways in values_of(left, splits).items():
            for y, y_ways in values_of(right, splits).items():
                for value in (x + y, x - y, x * y, *((quotient(x, y),) if y else ())):
                    found[value] += x_ways * y_ways
    return found


def last_steps(left: Part, right: Part, target: Value, splits: Splits) -> Iterator[tuple[Value, str, Value]]:
    """All x sign y = target where the part with fewer numbers can make its value; whether the other can is open."""
    if len(left) <= len(right):
        for x in values_of(left, splits):
            yield x, "+", target - x
            yield x, "-", x - target
            if x:
                yield x, "*", quotient(target, x)
                if target:
                    yield x, "/", quotient(x, target)
            elif not target:
                yield x, "*", sum(right)  # any value will do
    else:
        for y in values_of(right, splits):
            yield target - y, "+", y
            yield target + y, "-", y
            if y:
                yield quotient(target, y), "*", y
                yield target * y, "/", y
            elif not target:
                yield sum(left), "*", y


@lru_cache(maxsize=20_000)
def find(part: Part, target: Value, splits: Splits) -> Tree | None:
    """An expression of these numbers with this value, if there is any: what a last step has on the side of fewer
    numbers says what the other side must make."""
    if len(part) == 1:
        return part[0] if part[0] == target else None
    if len(part) <= _FEW[splits] and target not in values_of(part, splits):
        return None
    for left, right in splits(part):
        for x, sign, y in last_steps(left, right, target, splits):
            sides = sorted(((left, x), (right, y)), key=lambda side: -len(side[0]))  # the open question first
            if all(find(*side, splits) is not None for side in sides):
                return find(left, x, splits), sign, find(right, y, splits)
    return None


@lru_cache(maxsize=2000)
def ways_to(hand: Part, target: int) -> int:
    """In how many of all the ways to combine up to four numbers, two at a time, the target comes out."""
    return sum(
        values_of(left, in_any_order)[x] * values_of(right, in_any_order)[y]
        for left, right in in_any_order(hand)
        for x, _, y in last_steps(left, right, target, in_any_order)
    )


Term = tuple[int, Tree]
"""A value and its expression."""


def signed_sum(terms: Sequence[Term], target: int) -> Tree | None:
    """A sum of these terms, some of them with a minus, that makes the target."""
    values = [value for value, _ in terms]
    # What the terms with a plus must make: twice that less the total is the target. What is larger has no place in it.
    plus, odd = divmod(sum(values) + target, 2)
    if odd or plus < target or plus < max(values):
        return None
    reachable = [1]  # after i terms: the bits of all that some of the first i terms make
    for value in values:
        reachable.append(reachable[-1] | reachable[-1] << value)
    if not reachable.pop() >> plus & 1:
        return None
    tree: Tree | None = None
    minus: list[Tree] = []
    for value, term in reversed(terms):
        if reachable.pop() >> plus & 1:
            minus.append(term)
        else:
            plus -= value
            tree = term if tree is None else (tree, "+", term)
    for term in minus:
        tree = (tree, "-", term)
    return tree


def with_products(terms: Sequence[Term], count: int, limit: int) -> Iterator[Sequence[Term]]:
    """The terms after so many replacements of two by a product a * b up to a limit, or of three by a product
    a * (c - b): each time the small products first."""
    if not count:
        yield terms
        return

    def replaced(product: Term, *used: int) -> Iterator[Sequence[Term]]:
        others = [term for i, term in enumerate(terms) if i not in used]
        return with_products([product, *others], count - 1, limit)

    terms = sorted(terms, key=itemgetter(0))
    pairs = list(combinations(range(len(terms)), 2))
    for i, j in sorted(pairs, key=lambda pair: terms[pair[0]][0] * terms[pair[1]][0]):
        (a, first), (b, second) = terms[i], terms[j]
        if a * b > limit:
            break
        yield from replaced((a * b, (first, "*", second)), i, j)
    for i, j in sorted(pairs, key=lambda pair: terms[pair[1]][0] - terms[pair[0]][0]):
        (b, smaller), (c, larger) = terms[i], terms[j]
        for k, (a, factor) in enumerate(terms):
            if k not in (i, j):
                yield from replaced((a * (c - b), (factor, "*", (larger, "-", smaller))), i, j, k)


def find_sum(numbers: Sequence[int], target: int) -> Tree | None:
    """Of many numbers there is nearly always a sum with plus and minus that makes the target, perhaps with a product or
    two in it, which change how large the total is and whether it is even."""
    terms: list[Term] = [(number, number) for number in numbers]
    for count in range(3):
        for replaced in with_products(terms, count, limit=sum(numbers) + target):
            if tree := signed_sum(replaced, target):
                return tree
    return None
