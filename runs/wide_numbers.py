"""Programs of the scripted teacher for further tasks, first part: numbers. wide_programs.py has all of them.

How a program is made is the same everywhere: lines that bind spans of the question, copied verbatim, and lines that
are the same for every question of the task but for a word or an operator where the question has one of a few.
"""

from collections.abc import Callable
from datetime import datetime

from scripted import Programs, _parts

# ---------------------------------------------------------------------------------------------------------------------
# The lines that bind. A span is cut into the same tokens as in the question only if what precedes it is the same.


def spaced(span: str, name: str = "s") -> str:
    """Binds a text that a space precedes in the question."""
    return f'{name} = " {span}"\n'


def at_line_start(span: str, name: str = "s") -> str:
    """Binds a text with which a line of the question begins."""
    return f'{name} = "{span}"\n'


def lines(span: str) -> str:
    """Binds whole lines of the question to s, as a list."""
    return f's = """\n{span.strip()}\n""".splitlines()[1:]\n'


def value(span: str, name: str = "x") -> str:
    """Binds what is Python as it stands in the question."""
    return f"{name} = {span}\n"


def own_line(span: str) -> str:
    """Binds to x a line of the question that is Python as it stands."""
    return f"x = (\n{span}\n)\n"


def assemble(bound: str, code: str, wrong: tuple[str, ...], buggy: tuple[str, ...] = (), imports: str = "") -> Programs:
    """The programs of a question: all bind the same spans. The first slip is the import forgotten, if there is one."""
    forgotten = (bound + code,) if imports else ()
    return Programs(
        right=imports + bound + code,
        wrong=tuple(bound + line for line in wrong),
        buggy=forgotten + tuple(bound + line for line in buggy),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Sums and other expressions that are Python, or nearly


def _complex_arithmetic(question: str) -> Programs:
    (span,) = _parts(r"numbers: (.*\))", question)
    swaps = 's = s.replace("i", "j").replace("×", "*").replace("÷", "/")\n'
    return assemble(
        spaced(span),
        swaps + "z = eval(s)\nprint(complex(round(z.real, 2), round(z.imag, 2)))",
        wrong=(swaps + "print(-eval(s))", swaps + "print(abs(eval(s)))"),
        buggy=("print(eval(s))",),
    )


def _decimal_chain_sum(question: str) -> Programs:
    (span,) = _parts(r"problem: (.*) =", question)
    return assemble(
        value(span),
        "print(round(x, 9))",
        wrong=("print(round(x))", "print(-round(x, 9))"),
        buggy=("print(x.round(9))", "print(sum(x))"),
    )


def _decimal_arithmetic(question: str) -> Programs:
    (span,) = _parts(r"value\.\n(.*) = \?", question)
    exact = 'x = eval(re.sub(r"[\\d.]+", r\'Decimal("\\g<0>")\', s))\n'
    return assemble(
        at_line_start(span),
        exact + "print(Context(12, ROUND_HALF_UP).create_decimal(x))",
        wrong=("print(round(eval(s), 2))", "print(len(s))"),
        imports="import re\nfrom decimal import *\n",
    )


def _bitwise_arithmetic(question: str) -> Programs:
    (span,) = _parts(r"value\.\n([^\n]*\w\)*)", question)
    return assemble(
        own_line(span),
        "print(hex(x))",
        wrong=("print(hex(-x - 1))", "print(bin(x))"),
        buggy=("print(x.hex())", "print(hexadecimal(x))"),
    )


def _number_multiply(question: str) -> Programs:
    (span,) = _parts(r"product\?\n\n(.*)\n\nReturn", question)
    return assemble(
        own_line(span),
        "print(x)",
        wrong=("print(x + 1)", "print(-x)"),
        buggy=("print(prod(x))", "print(*x)"),
    )


def _power_function(question: str) -> Programs:
    base, exponent = _parts(r"Compute (-?[\d.]+)\^(-?\d+)\. ", question)
    return assemble(
        value(base) + value(exponent, "n"),
        'print(f"{x ** n:.2e}")',
        wrong=('print(f"{x * n + 1:.2e}")', "print(x + n)"),
        buggy=("print(power(x, n))", 'print(f"{x ^ n:.2e}")'),
    )


def _new_operator(question: str) -> Programs:
    meaning, span = _parts(r"\n- a . b = ([^\n]*)\n\n[^\n]*\n\n([^\n]*)\n", question)
    numbers = 'x, y, z = map(Fraction, re.findall(r"\\d+", s))\n'
    return assemble(
        at_line_start(span) + f"f = lambda a, b: {meaning}\n",
        numbers + 'print(f(x, f(y, z)) if s[-1] == ")" else f(f(x, y), z))',
        wrong=("print(f(len(s), 1))", 'print(s.count("("))'),
        imports="import re\nfrom fractions import Fraction\n",
    )


# ---------------------------------------------------------------------------------------------------------------------
# Numbers in other forms


def _fraction_simplification(question: str) -> Programs:
    above, below = _parts(r"(\d+)(?:\}\{|/)(\d+)", question)
    return assemble(
        value(above, "a") + value(below, "b"),
        'g = math.gcd(a, b)\nprint(f"{a // g}/{b // g}")',
        wrong=('print(f"{a // 2}/{b // 2}")', "print(a / b)"),
        buggy=("print(simplify(a, b))",),
        imports="import math\n",
    )


def _base_conversion(question: str) -> Programs:
    names = {"binary": "2", "hexadecimal": "16"}
    source, span, target = _parts(r"convert the (\S+) number (\S+) to (\S+)", question)
    source, target = (names.get(base, base.removeprefix("base-")) for base in (source, target))
    digits = 'r = ""\nwhile n:\n r = (string.digits + string.ascii_lowercase)[n % b] + r\n n //= b\nprint(r)'
    return assemble(
        f'n = int(" {span}", {source})\n' + value(target, "b"),
        digits,
        wrong=("print(n * b)", "print(n // b + 1)"),
        buggy=("print(n.base(b))",),
        imports="import string\n",
    )


def _number_format(question: str) -> Programs:
    which, span = _parts(r"pick the (largest|smallest) number of the following candidates: (.*\d)", question)
    right, wrong = ("max", "min") if which == "largest" else ("min", "max")
    split = 'x = s.replace(",", "").split()\n'
    return assemble(
        spaced(span),
        split + f"print({right}(x, key=float))",
        wrong=(split + f"print({wrong}(x, key=float))", "print(len(s))"),
        buggy=(f"print({right}(x, key=float))", f"print({right}(s.split(), key=number))"),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Lists of numbers


def _number_sorting(question: str) -> Programs:
    order, span = _parts(r"in (ascending|descending) order: ([^\n]*\d)", question)
    down = order == "descending"
    split = 'x = s.split(",")\nx = [t.strip() for t in x]\n'
    return assemble(
        spaced(span),
        split + f"print(sorted(x, key=float, reverse={down}))",
        wrong=(split + f"print(sorted(x, key=float, reverse={not down}))", split + "print(x[1:])"),
        buggy=(f"print(sorted(x, key=float, reverse={down}))", "print(s.sort())"),
    )


def _number_filtering(question: str) -> Programs:
    verb, size, limit, span = _parts(r"(Keep|Remove) all numbers (\w+) than (\S+) in this list: (\[.*\])", question)
    sign = {"Keep larger": ">", "Keep smaller": "<", "Remove larger": "<=", "Remove smaller": ">="}[f"{verb} {size}"]
    other = "<" if ">" in sign else ">"
    return assemble(
        value(limit, "k") + value(span),
        f"print([v for v in x if float(v) {sign} k])",
        wrong=(f"print([v for v in x if float(v) {other} k])", "print(x[:0])"),
        buggy=(f"print([v for v in x if v {sign} k])", f"print([v for v in x if number(v) {sign} k])"),
    )


def _number_sequence(question: str) -> Programs:
    (span,) = _parts(r"(.*\d), \?", question)
    operations = 'o = [f"v{c}({k})" for c in "+*" for k in range(-10, 11)] + ["v*v", "v//2", "v+u"]\n'
    search = (
        "for a in o:\n for b in o:\n"
        '  e = b.replace("v", f"({a})")\n'
        "  y = [eval(e) for v, u in zip(x, [0] + x)]\n"
        "  if y[:-1] == x[1:]: r = y[-1]\n"
        "print(r)"
    )
    return assemble(
        value(f"[{span}]"),
        operations + search,
        wrong=("print(x[-1] + 1)", "print(sum(x))"),
        buggy=(search, "print(x.next())"),
    )


def _simple_geometry(question: str) -> Programs:
    (span,) = _parts(r"angles are: (.*°)\.", question)
    split = 'x = s.replace("°", "").split(",")\n'
    return assemble(
        spaced(span),
        split + "print(180 * (len(x) - 1) - sum(map(float, x)))",
        wrong=(split + "print(sum(map(float, x)))", split + "print(360 - float(x[0]))"),
        buggy=(split + "print(180 * (len(x) - 1) - sum(x))",),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Chances, legs, hours


def _coin_flip(question: str) -> Programs:
    which, heads, flips = _parts(r"getting (exactly|at least) (\d+) heads in (\d+) fair", question)
    last = "k" if which == "exactly" else "n"
    count = f"t = sum(math.comb(n, i) for i in range(k, {last} + 1))\n"
    return assemble(
        value(heads, "k") + value(flips, "n"),
        count + 'print(f"{t}/{2 ** n}")',
        wrong=('print(f"{k}/{2 ** n + 1}")', "print(k / n / n)"),
        imports="import math\n",
    )


def _dice(question: str) -> Programs:
    span, target = _parts(r"these dice: (.*)\. What are the odds of rolling (\d+) or higher", question)
    split = 'd = [range(1, int(x.split("d")[1]) + 1) for x in s.split(",")]\n'
    return assemble(
        spaced(span) + value(target, "t"),
        split + "r = [sum(p) >= t for p in product(*d)]\nprint(Fraction(sum(r), len(r)))",
        wrong=(split + 'print(f"{t}/{sum(map(len, d))}")', split + 'print(f"1/{t}")'),
        imports="from itertools import *\nfrom fractions import Fraction\n",
    )


# By the first three letters; the other animals have four, and starfish are not asked for.
LEGS = (
    't = {0: "snaseajelflalee", 2: "chibirhumduc", 6: "insantbutbeewasgracricocprafir", 8: "spisco", '
    '10: "cralobshr", 14: "woo"}\n'
)


def _leg_counting(question: str) -> Programs:
    (span,) = _parts(r"if you have (.*)\?", question)
    each = 'for a in s.split(","):\n k, b = a.split()[:2]\n'
    add = " n += int(k) * next((l for l in t if b[:3] in t[l]), 4)\n"
    return assemble(
        spaced(span),
        LEGS + "n = 0\n" + each + add + "print(n)",
        wrong=("n = 0\n" + each + " n += int(k) * 4 + 1\nprint(n)", 'print(len(s.split(",")))'),
        buggy=(LEGS + each + add + "print(n)", 'print(legs(s.split(",")))'),
    )


FORMATS = (
    *("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%Y-%m-%d", "%B %d, %Y", "%m/%d/%Y", "%A, %B %d, %Y", "%a %b %d %Y"),
    *("%d %B %Y", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M %z", "%Y-%m-%d %H:%M:%S %z"),
    *("%A, %B %d, %Y at %H:%M", "%a %b %d %Y %H:%M:%S", "%d %B %Y, %H:%M", "%d %B %Y, %H:%M %z", "%Y-%m-%d (%A)"),
)
# How the difference d is written in the form that is asked for.
DURATIONS = {
    "HH:MM": "str(d)[:-3]",
    "HH:MM:SS": "d",
    "HH:MM:SS.mmm": "d",
    "D days": "d.days",
    "D days, HH:MM": 'd.days, "days,", str(d).split()[-1][:-3]',
    "D days, HH:MM:SS": 'd.days, "days,", str(d).split()[-1]',
}


def _reads(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


def _time_intervals(question: str) -> Programs:
    start, end, wanted = _parts(
        r"(?:between|from|(?:start|depart)ed at|began at) (.*) (?:and (?:ended|completed|arrived) at|and|to) "
        r"(.*?)(?:\?|\. [A-Z]).*? in ([DH][^.]*(?:\.mmm)?)\.",
        question,
    )
    form = next((form for form in FORMATS if _reads(start, form) and _reads(end, form)), None)
    if form is None or wanted not in DURATIONS:
        raise ValueError(f"the teacher cannot read the question {question!r}")
    read = f'a, b = [datetime.strptime(t.strip(), "{form}") for t in (a, b)]\nd = b - a\n'
    return assemble(
        spaced(start, "a") + spaced(end, "b"),
        read + f"print({DURATIONS[wanted]})",
        wrong=("print(len(a), len(b))", "print(a.strip())"),
        imports="from datetime import datetime\n",
        buggy=("print(b - a)",),
    )


GEOMETRY = {
    "orthocenter": (
        "w = (B - A).conjugate() * (C - A)\n"
        "h = A - 1j * (C - B) * w.real / w.imag\n"
        'print(f"({h.real:.3f}, {h.imag:.3f})")'
    ),
    "radius": (
        'w = (B - A).conjugate() * (C - A)\nprint(f"{abs(w.imag) / (abs(A - B) + abs(B - C) + abs(C - A)):.3f}")'
    ),
    "angle": (
        "w = cmath.phase((A - B) / (C - B))\n"  # in all questions it is the angle at B
        'print(f"{abs(w) * 180 / cmath.pi:.3f}°")'
    ),
}


def _advanced_geometry(question: str) -> Programs:
    """One program for each of three quantities."""
    *points, _ = _parts(r"A=(\(.*?\)).*B=(\(.*?\)).*C=(\(.*?\))(.*)", question)
    asked = next((name for name in ("orthocenter", "radius", "angle") if name in question.split("For all")[0]), None)
    if asked is None:
        raise ValueError(f"the teacher cannot read the question {question!r}")
    code = GEOMETRY[asked]
    return assemble(
        "".join(f"{name} = complex{point}\n" for name, point in zip("ABC", points, strict=True)),
        code,
        wrong=('print(f"({A.real:.3f}, {B.real:.3f})")', 'print(f"{abs(A - B) + 1:.3f}")'),
        imports="import cmath\n" if asked == "angle" else "",
        buggy=(code.replace("w =", "v ="), f"print({asked}(A, B, C))"),
    )


def _countdown(question: str) -> Programs:
    (target,) = _parts(r"(?:make|equals|Calculate) (\d+)", question)
    (span,) = _parts(r"numbers:? (\d+(?:, \d+)+)", question)
    start = "s = {(n, (*x[:i], *x[i+1:])): str(n) for i, n in enumerate(x)}\nfor _ in x[1:]:\n"
    step = (
        ' s = {(w, (*r[:i], *r[i+1:])): f"({e}){o}{n}" for (v, r), e in s.items() for i, n in enumerate(r)\n'
        '  for o, w in [("+", v + n), ("-", v - n), ("*", v * n), ("/", v // n)][:4 - (v % n > 0)]}\n'
    )
    return assemble(
        value(target, "t") + value(f"[{span}]"),
        start + step + "print(s[t, ()])",
        wrong=('print("+".join(map(str, x)))', 'print("*".join(map(str, x[1:])))'),
        buggy=(start + step + "print(s[t])", "print(make(t, x))"),
    )


# ---------------------------------------------------------------------------------------------------------------------

NUMBERS: dict[str, Callable[[str], Programs]] = {
    "advanced_geometry": _advanced_geometry,
    "base_conversion": _base_conversion,
    "bitwise_arithmetic": _bitwise_arithmetic,
    "coin_flip": _coin_flip,
    "complex_arithmetic": _complex_arithmetic,
    "countdown": _countdown,
    "decimal_arithmetic": _decimal_arithmetic,
    "decimal_chain_sum": _decimal_chain_sum,
    "dice": _dice,
    "fraction_simplification": _fraction_simplification,
    "leg_counting": _leg_counting,
    "new_operator@0": _new_operator,
    "number_filtering": _number_filtering,
    "number_format": _number_format,
    "number_multiply": _number_multiply,
    "number_sequence": _number_sequence,
    "number_sorting": _number_sorting,
    "power_function": _power_function,
    "simple_geometry": _simple_geometry,
    "time_intervals": _time_intervals,
}
