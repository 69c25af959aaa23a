"""The small parsers with which tasks read an answer.

They are total unless they say otherwise: any text goes in, and a value or None comes out, quickly. Nothing here
evaluates an answer.
"""

import ast
import operator
import re
from fractions import Fraction

# Python refuses to read integers of more than 4,300 digits, and an exponent of nine digits would fill the memory.
# No task asks for a number anywhere near these limits.
MAX_NUMBER = 400
_NUMBER = re.compile(
    r"[+-]?"
    r"(?:[0-9]+(?:\.[0-9]*)?|[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]{1,3})?"
)
_WRAPPERS = [
    ("**", "**"), ('"', '"'), ("'", "'"), ("`", "`"), ("$$", "$$"), ("$", "$"), ("“", "”"),
    ("\\(", "\\)"), ("\\[", "\\]"),
]  # fmt: skip


def unquote(text: str) -> str:
    """Strip white space and pairs of quotes, backticks, ** or LaTeX's delimiters around the whole text."""
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


def outer_items(text: str) -> list[str]:
    """The same, where items may hold commas in brackets of their own; one pair of brackets around all of it goes."""
    text, depth, ends = text.strip(), 0, []
    for place, mark in enumerate(text):
        depth += (mark in "([{") - (mark in ")]}")
        if depth == 0 and mark in ")]}":
            ends.append(place)
    if ends and text[0] in "([{" and ends[0] == len(text) - 1:
        text = text[1:-1]
    items, depth = [""], 0
    for mark in text:
        depth += (mark in "([{") - (mark in ")]}")
        if mark == "," and depth == 0:
            items.append("")
        else:
            items[-1] += mark
    return [unquote(item) for item in items] if text.strip() else []


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def exact_value(expression: str) -> Fraction:
    """The value of numbers, + - * / and round brackets; parsed, never evaluated. ValueError, SyntaxError or
    ZeroDivisionError for anything else: texts that models wrote are to be checked for length and characters before."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        raise ValueError("neither a number nor one of + - * /")

    return value(ast.parse(expression, mode="eval").body)


def fraction_parts(text: str) -> tuple[Fraction, Fraction] | None:
    """Numerator and denominator of a/b, in LaTeX too; of a bare number 1 is the denominator. None for anything else."""
    latex = re.fullmatch(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", text)
    numerator, slash, denominator = text.partition("/")
    above, below = map(parse_number, latex.groups() if latex else (numerator, denominator if slash else "1"))
    return None if above is None or below is None else (above, below)


def without_brackets(text: str) -> str:
    """The text without one pair of round or square brackets around the whole."""
    return text[1:-1] if len(text) > 1 and text[0] + text[-1] in ("()", "[]") else text


_LAYOUT = str.maketrans("()\"'", "[]  ")


def _cells(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


def number_row(text: str) -> list[Fraction | None]:
    """The numbers of "1 2 3", "[1, 2, 3]" or "[[1, 2, 3]]" over any number of lines."""
    text = text.translate(_LAYOUT).strip()
    for _ in range(2):
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1].strip()
    return [parse_number(cell) for cell in _cells(text)]


def text_grid(text: str) -> list[list[str]]:
    """The rows of "a b\nc d", of "[a, b]\n[c, d]", or of "[[a, b], [c, d]]" over any number of lines; quotes do not
    matter, brackets may be round. "[a, b, c]" is one row, or a row for each of its lines."""
    text = text.translate(_LAYOUT)
    rows = re.findall(r"\[([^\[\]]*)\]", text)
    outline = re.sub(r"[\s,]", "", re.sub(r"\[[^\[\]]*\]", "[]", text))
    in_brackets = "[]" * len(rows)
    if outline == f"[{in_brackets}]" or (outline == in_brackets and len(rows) > 1):
        return [_cells(row) for row in rows]
    if outline == "[]":
        text = rows[0]
    # Any other bracket stays where it is and is a cell, or a part of one.
    return [_cells(line) for line in text.splitlines() if line.strip()]


def number_grid(text: str) -> list[list[Fraction | None]]:
    """`text_grid` of numbers; None for what is no number."""
    return [[parse_number(cell) for cell in row] for row in text_grid(text)]


def symbols(answer: str) -> str:
    """The single letters and digits of "A, B", "[A, B]", "AB" or the like, one after the other and in capitals."""
    text = "".join(cell for row in text_grid(unwrap(answer)) for cell in row)
    # Some letters outside ASCII, such as ı, have one of A to Z as their capital.
    return text.upper() if text.isascii() else ""
