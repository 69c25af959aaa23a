"""Whether two final answers of mathematical problems mean the same: "\\frac{1}{2}", "\\frac12", "1/2" and "0.5".

Both are read by a small grammar (numbers, variables, arithmetic, roots, fractions, powers, usual functions, lists in
brackets) and compared by value; where variables occur, at several points. What the grammar does not know is compared
as text. Nothing is evaluated but that grammar, in floating point: any text is judged at once.
"""

import cmath
import math
import re
from collections.abc import Callable

from suites.parsers import parse_number

LONGEST = 300  # characters; the longest final answer in MATH has about a hundred
DEEPEST = 30  # brackets within brackets
POINTS = 3
CLOSE = 1e-9  # relative: rounding, not a rounded answer

_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "ln": cmath.log, "log": cmath.log10, "exp": cmath.exp,
    "sec": lambda x: 1 / cmath.cos(x), "csc": lambda x: 1 / cmath.sin(x), "cot": lambda x: 1 / cmath.tan(x),
}  # fmt: skip
_SPACING = re.compile(r"\\[!,;: ]|\\(?:left|right|displaystyle|quad|limits)(?![a-zA-Z])|~")
_UNITS = re.compile(r"\\(?:text|mbox|textrm|mathrm|hbox)\{[^{}]*\}(?:\^\{?[23]\}?)?|\^\{?\\circ\}?|\\circ|°|\\?%|\\?\$")
_TOKEN = re.compile(r"\\[a-zA-Z]+|(?:\d+(?:\.\d*)?|\.\d+)|[a-zA-Zπ]|\S", re.ASCII)
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", re.ASCII)
_MIXED = re.compile(r"(?<![\d.^}a-zA-Z])(\d+)\s*(\\frac\s*(?:\{\d+\}\s*\{\d+\}|\d\s*\d(?!\d)))", re.ASCII)
_OPEN, _SHUT = "([{", ")]}"


class _GrammarError(Exception):
    """The text is not of the grammar."""


def simplify(text: str) -> str:
    """The text without spacing commands, units, signs of money, percent and degrees, and other ways to write a mark."""
    text = _SPACING.sub("", text.replace("−", "-").replace("·", "\\cdot ").replace("×", "\\times "))
    if text.startswith("\\boxed{") and _closes_at_the_end(text, len("\\boxed")):
        text = text[len("\\boxed{") : -1]
    text = text.replace("{,}", ",")
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    text = text.replace("\\{", "{").replace("\\}", "}")
    bare = _UNITS.sub(" ", text).strip() or re.sub(r"\\[a-z]+\{([^{}]*)\}", r"\1", text)  # a word is no unit if alone
    return bare.strip().rstrip(".").strip()


def _closes_at_the_end(text: str, at: int) -> bool:
    """Whether the brace at `at` is closed by the last character, and not before."""
    depth = 0
    for place in range(at, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if not depth:
            return place == len(text) - 1
    return False


def _closed_up(text: str) -> str:
    """Without white space, except between digits: "1 2" is not 12."""
    return re.sub(r"\s+", "", re.sub(r"(?<=\d)\s+(?=\d)", "_", text))


def equivalent(answer: str, reference: str) -> bool:
    """Whether an answer means the same as the reference; `x = 5` does where the reference is 5."""
    if max(len(answer), len(reference)) > LONGEST:
        return False
    given, wanted = simplify(answer), simplify(reference)
    if "=" not in wanted:
        given = re.sub(r"^(?:[a-zA-Z]|\\[a-zA-Z]+)\s*=(?!=)", "", given).strip()
    if _closed_up(given) == _closed_up(wanted):
        return bool(wanted)
    if re.fullmatch(r"[A-Za-z]{2,}", wanted) and "\\text" in reference:  # a word, and no product of its letters
        return False
    numbers = parse_number(given), parse_number(wanted)
    if None not in numbers:  # exactly, where nothing was rounded
        return numbers[0] == numbers[1]
    if _variables(given) - _variables(wanted):  # else "the answer is 0" is a product, and 0
        return False
    try:
        return all(_same(_value(given, point), _value(wanted, point)) for point in range(POINTS))
    except (_GrammarError, ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):  # of the numbers
        return False


def _variables(text: str) -> set[str]:
    names = {token for token in _TOKEN.findall(text) if token.lstrip("\\").isalpha()}
    return (
        names
        - {"\\pi", "π", "\\frac", "\\binom", "\\sqrt", "\\cdot", "\\times", "\\div"}
        - {f"\\{name}" for name in _FUNCTIONS}
    )


Value = complex | tuple["Value", ...] | str


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, complex) and isinstance(b, complex):
        return cmath.isfinite(a) and cmath.isfinite(b) and abs(a - b) <= CLOSE * max(abs(a), abs(b))
    return isinstance(a, str) and a == b


def _value(text: str, point: int) -> Value:
    if not any(mark in text for mark in _OPEN):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    reader = _Reader(_TOKEN.findall(_MIXED.sub(r"(\1+\2)", text)), point)
    value = reader.items()
    if reader.here:
        raise _GrammarError
    return value


class _Reader:
    """Recursive descent over tokens. Variables have the value that the point gives them."""

    def __init__(self, tokens: list[str], point: int):
        self.tokens, self.at, self.point, self.depth = tokens, 0, point, 0

    @property
    def here(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> bool:
        found = self.here in wanted and self.here != ""
        self.at += found
        return found

    def items(self) -> Value:
        """Expressions between commas; several of them are a tuple."""
        found = [self.sum()]
        while self.take(","):
            found.append(self.sum())
        return found[0] if len(found) == 1 else tuple(found)

    def sum(self) -> Value:
        value = self.signed()
        while self.here in ("+", "-"):
            value += self.signed()
        return value

    def signed(self) -> Value:
        if self.take("-"):
            return -self.product()
        self.take("+")
        return self.product()

    def product(self) -> Value:
        value = self.power()
        while self.here and self.here not in (",", "+", "-", ")", "]", "}"):
            if self.take("/", "\\div"):
                value /= self.power()
            elif self.here[0].isdigit() and self.tokens[self.at - 1][0].isdigit():
                raise _GrammarError  # two numbers side by side are no product
            else:
                self.take("*", "\\cdot", "\\times")
                value *= self.power()
        return value

    def power(self) -> Value:
        if self.take("-"):
            return -self.power()
        value = self.atom()
        while self.here in ("!", "^"):
            if self.take("!"):
                value = complex(math.gamma(value.real + 1))
            else:
                self.take("^")
                value **= -self.atom() if self.take("-") else self.atom()
        return value

    def atom(self) -> Value:
        token = self.here
        self.at += 1
        if token and token in _OPEN:
            return self.inside(token)
        if re.fullmatch(r"[0-9.]+", token):
            return complex(float(token))
        if token in ("\\pi", "π"):
            return complex(math.pi)
        if token in ("\\frac", "\\binom"):
            above, below = self.argument(), self.argument()
            if token == "\\frac":
                return above / below
            return complex(math.comb(int(min(above.real, 10**3)), int(min(below.real, 10**3))))
        if token == "\\sqrt":
            root = complex(2)
            if self.take("["):
                root = self.sum()
                if not self.take("]"):
                    raise _GrammarError
            return self.argument() ** (1 / root)
        if token[1:] in _FUNCTIONS:
            squared = self.argument() if self.take("^") else 1
            return _FUNCTIONS[token[1:]](self.operand()) ** squared
        if token == "i":
            return 1j
        if re.fullmatch(r"[a-zA-Z]|\\[a-zA-Z]{2,}", token):
            # Of the same sign and size, so that roots and logarithms exist; different for each variable and point.
            return complex(0.5 + sum(map(ord, token)) * math.sqrt(2 + self.point) % 1)
        raise _GrammarError

    def argument(self) -> Value:
        """What a command takes: a group or, without braces, one digit or letter."""
        if len(self.here) > 1 and self.here[0].isdigit():
            first, self.tokens[self.at] = self.here[0], self.here[1:]
            return complex(float(first))
        return self.atom()

    def operand(self) -> Value:
        """What stands behind the name of a function without brackets: factors up to the next sign."""
        if self.here in _OPEN:
            return self.atom()
        value = self.power()
        while re.fullmatch(r"[0-9.]+|[a-zA-Zπ]|\\(?:pi|theta|alpha|beta|frac)", self.here):
            value *= self.power()
        return value

    def inside(self, left: str) -> Value:
        """The value of what stands in brackets; of several, the brackets are a part: (1, 2] is not [1, 2)."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise _GrammarError
        value, right = self.items(), self.here
        if not self.take(*_SHUT) or (not isinstance(value, tuple) and right != _SHUT[_OPEN.index(left)]):
            raise _GrammarError
        self.depth -= 1
        return (left + right, *value) if isinstance(value, tuple) else value
