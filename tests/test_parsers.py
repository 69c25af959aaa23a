"""What the parsers of reasoning-gym's rules promise for every value and every text."""

import json
import string
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from suites.base import Problem
from suites.gym.games import reaches_the_target
from suites.gym.numbers import duration, polynomial
from suites.gym.plans import turned, words
from suites.gym.words import pieces, word_lists
from suites.parsers import exact_value, fraction_parts, number_grid, number_row, without_brackets

ALWAYS = settings(max_examples=300, deadline=None, derandomize=True)
NUMBERS = st.integers(-(10**9), 10**9)
GRIDS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(NUMBERS, min_size=width, max_size=width), min_size=2, max_size=5)
)
WORDS = st.lists(st.lists(st.text(string.ascii_lowercase, min_size=1), min_size=1, max_size=4), min_size=1, max_size=4)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("0123456789 .,-+*/^=()[]{}<>x'\"\\\nday:frac", max_size=60),
)


@ALWAYS
@given(GRIDS)
def test_a_grid_is_read_back_from_every_layout(grid):
    """A right grid was wrong because of a comma behind each row; a grid of one column was taken for a row."""
    layouts = [
        "\n".join(" ".join(map(str, row)) for row in grid),
        "\n".join(", ".join(map(str, row)) for row in grid),
        json.dumps(grid),
        json.dumps(grid, indent=2),
        ",\n".join(json.dumps(row) for row in grid),
        str(tuple(tuple(row) for row in grid)),
    ]
    for layout in layouts:
        assert number_grid(layout) == grid, layout


@ALWAYS
@given(st.lists(NUMBERS, max_size=8))
def test_a_row_is_read_back_from_every_layout(row):
    """A list on a line, in brackets or not, and one number a line are the same row."""
    for layout in (str(row), str([row]), " ".join(map(str, row)), ", ".join(map(str, row)), "\n".join(map(str, row))):
        assert number_row(layout) == row, layout


@ALWAYS
@given(WORDS)
def test_lists_of_words_are_read_back_from_every_layout(lists):
    """JSON, Python's quotes, or a list a line."""
    for layout in (json.dumps(lists), str(lists), "\n".join(json.dumps(one) for one in lists)):
        assert word_lists(layout) == lists, layout


@ALWAYS
@given(st.dictionaries(st.integers(0, 9), st.integers(-999, 999).filter(bool), min_size=1))
def test_a_polynomial_is_read_back(coefficients):
    """Signs and missing factors are where parsers of polynomials go wrong: -x, +3, x^2 - x."""

    def term(power: int, factor: int) -> str:
        variable = {0: "", 1: "x"}.get(power, f"x**{power}")
        return f"{factor}*{variable}".rstrip("*") if power else str(factor)

    text = " + ".join(term(power, factor) for power, factor in coefficients.items()).replace("+ -", "- ")
    short = text.replace("**", "^").replace("*", "")
    assert polynomial(text, "x") == polynomial(short, "x") == coefficients


@ALWAYS
@given(st.integers(-99, 99), st.integers(1, 99))
def test_a_fraction_is_read_back(above, below):
    """As a/b and in LaTeX, never reduced: the question may ask for the reduced one."""
    for layout in (
        f"{above}/{below}",
        f"{above} / {below}",
        rf"\frac{{{above}}}{{{below}}}",
        rf"\dfrac {{{above}}}{{{below}}}",
    ):
        assert fraction_parts(layout) == (above, below)
    assert exact_value(f"({above}) / {below}") == Fraction(above, below)


@ALWAYS
@given(TEXTS)
def test_no_text_raises(text):
    """One strange answer in a million ends a run of hours."""
    for parser in (number_grid, number_row, word_lists, fraction_parts, without_brackets, duration, pieces, words):
        parser(text)
    polynomial(text, "x")
    assert turned("W" * 54, text) in (None, "W" * 54)
    assert not reaches_the_target(Problem("", 0, "", "", {"numbers": [10**12], "target": 1}), text)
