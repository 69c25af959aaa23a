"""What every task is made of: `Problem`, `Task`, and the small parsers with which tasks read an answer.

The parsers are total: any text goes in, and a value or None comes out, quickly. Nothing here evaluates an answer.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

# Python refuses to read integers of more than 4,300 digits, and an exponent of nine digits would fill the memory.
# No task asks for a number anywhere near these limits.
MAX_NUMBER = 400
_NUMBER = re.compile(
    r"[+-]?"
    r"(?:[0-9]+(?:\.[0-9]*)?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]{1,3})?"
)
_WRAPPERS = [("**", "**"), ('"', '"'), ("'", "'"), ("`", "`"), ("$", "$"), ("“", "”")]


@dataclass(frozen=True)
class Problem:
    """One question of a task.

    `answer` is the reference answer, for display; `data` holds what else scoring needs, as plain JSON values.
    """

    task: str
    index: int
    question: str
    answer: str
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)


class Task(ABC):
    """A source of problems and the exact rule that scores answers to them."""

    name: str
    suite: str
    kind: str = "own"  # of check, in a few words, for tables
    source: str = "own"  # where the questions come from
    size: int | None = None  # how many problems there are; None: one for every seed
    few: bool = False  # one for every seed, but only some hundred different ones

    @abstractmethod
    def problem(self, index: int) -> Problem:
        """The problem of this index, a seed >= 0: the same index gives the same problem on every machine."""

    @abstractmethod
    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer is right, else 0.

        Exact: never credit for being close. Total: any text is judged quickly and without an exception, and no
        part of it is ever evaluated.
        """

    def judging_program(self, problem: Problem, answer: str) -> str | None:
        """A program that judges in place of `score`, to be run in the executor: it prints True as its last line if and
        only if the answer is right. None, as for nearly all tasks: `score` does."""
        return None


def unquote(text: str) -> str:
    """Strip white space and pairs of quotes, backticks, ** or $ around the whole text."""
    before = None
    while text != before:  # a wrapper may not occur inside, so each of them comes off once at most
        before, text = text, text.strip()
        for left, right in _WRAPPERS:
            inner = text[len(left) : -len(right)]
            # A quote inside means that the outer two are no pair: 'a', 'b'
            if text == left + inner + right and left not in inner and right not in inner:
                text = inner
    return text


def unwrap(text: str) -> str:
    """`unquote`, and one trailing full stop removed."""
    text = unquote(text)
    if text.endswith(".") and not text.endswith(".."):
        text = unquote(text[:-1])
    return text


def parse_number(text: str) -> Fraction | None:
    """The exact value of "12", "+12", "-1,234.50", ".5" or "1.2e3"; None for anything else."""
    text = text.strip().replace("−", "-")
    if len(text) > MAX_NUMBER or not _NUMBER.fullmatch(text):
        return None
    return Fraction(text.replace(",", ""))


def parse_complex(text: str) -> tuple[Fraction, Fraction] | None:
    """Real and imaginary part of "3.0 - 2i", "(3-2j)", "-i" or "5"; None for anything else."""
    text = text.strip().replace("−", "-")
    if len(text) > MAX_NUMBER:
        return None
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    text = re.sub(r"\s*([+-])\s*", r"\1", text)
    terms = re.findall(r"[+-]?[^+-]+", text)
    if "".join(terms) != text:
        return None
    parts: dict[str, Fraction] = {}
    for term in terms:
        kind = "imaginary" if term[-1] in "ij" else "real"
        if kind == "imaginary":
            term = term[:-1].rstrip()
            if term in ("", "+", "-"):
                term += "1"
        value = parse_number(term)
        if value is None or kind in parts:
            return None
        parts[kind] = value
    return (parts.get("real", Fraction(0)), parts.get("imaginary", Fraction(0))) if parts else None


def split_items(text: str) -> list[str]:
    """The items of a comma-separated list, each without its own quotes; an empty text has no items."""
    return [unquote(item) for item in text.split(",")] if text.strip() else []
