"""Programs of the scripted teacher for further tasks, second part: words, grids and logic. See wide_numbers.py."""

import re
from collections.abc import Callable

from wide_numbers import assemble, at_line_start, lines, own_line, spaced, value

from scripted import Programs, _parts

# ---------------------------------------------------------------------------------------------------------------------
# Words and letters


def _word_sequence_reversal(question: str) -> Programs:
    (span,) = _parts(r"list of words: (.*\w)", question)
    return assemble(
        spaced(span),
        'print(", ".join(s.strip().split(", ")[::-1]))',
        wrong=('print(", ".join(sorted(s.strip().split(", "))[1:]))', "print(s.strip()[::-1])"),
        buggy=('print(", ".join(reverse(s.split(", "))))', 'print(", ".join(s.reverse()))'),
    )


def _word_sorting(question: str) -> Programs:
    order, span = _parts(r"in (ascending|descending) order .* list: (.*\S)", question)
    down = order == "descending"
    split = 'x = s.strip().split(", ")\n'
    return assemble(
        spaced(span),
        split + f'print(", ".join(sorted(x, reverse={down})))',
        wrong=(split + f'print(", ".join(sorted(x, reverse={not down})))', split + "print(sorted(x)[0])"),
        buggy=(f'print(", ".join(sorted(x, reverse={down})))', split + 'print(", ".join(x.sort()))'),
    )


def _palindrome_generation(question: str) -> Programs:
    (span,) = _parts(r"following letters: (.*\w)", question)
    split = 'x = s.replace(",", "").split()\n'
    halves = (
        'h = "".join(c * (x.count(c) // 2) for c in set(x))\n'
        'm = "".join(c for c in set(x) if x.count(c) % 2)\n'
        "print(h + m + h[::-1])"
    )
    return assemble(
        spaced(span),
        split + halves,
        wrong=(split + 'print("".join(x + x))', split + 'print("".join(sorted(x))[1:])'),
        buggy=(halves, split + "print(x + x.reverse())"),
    )


def _two_words(pattern: str, question: str, code: str, imports: str, buggy: str) -> Programs:
    """A question about two words whose answer is yes or no."""
    first, second = _parts(pattern, question)
    negated = code.replace("print(", "print(not (") + ")"
    return assemble(
        spaced(first, "a") + spaced(second, "b"),
        code,
        wrong=(imports + negated, "print(len(a) + len(b))"),
        imports=imports,
        buggy=(buggy,),
    )


def _ransom_note(question: str) -> Programs:
    code = "print(not Counter(a.strip()) - Counter(b))"
    pattern = r"note: (\w+)\nMagazine: (\w+)"
    return _two_words(pattern, question, code, "from collections import Counter\n", "print(a - b)")


def _isomorphic_strings(question: str) -> Programs:
    (span,) = _parts(r"otherwise:\n(\w+ \w+)", question)
    return assemble(
        at_line_start(span),
        "a, b = s.split()\nprint(len(set(zip(a, b))) == len(set(a)) == len(set(b)))",
        wrong=("a, b = s.split()\nprint(len(set(a)) != len(set(b)) or len(a))", "print(len(set(s)))"),
        buggy=("print(len(set(zip(a, b))) == len(set(a)) == len(set(b)))", "print(isomorphic(*s.split()))"),
    )


def _caesar_cipher(question: str) -> Programs:
    (span,) = _parts(r"text: (.*)\. Provide", question)
    turn = 'for k in range(26):\n t = "".join(chr((ord(c) - 65 + k) % 26 + 65) if c > "@" else c for c in s)\n'
    score = ' n = sum(map(t.count, "EEETTAAOOINNSHR")) - 3 * sum(map(t.count, "ZQJXKV"))\n'
    best = " r.append((n, t.strip()))\nprint(max(r)[1])"
    return assemble(
        spaced(span),
        "r = []\n" + turn + score + best,
        wrong=("print(s.strip())", "print(s.strip()[::-1])"),
        buggy=(turn + score + best, "print(s.decode())"),
    )


def _letters(question: str) -> Programs:
    letter, span = _parts(r"letter '(.)' .*\n\n(\w+)\n", question)
    return assemble(
        at_line_start(span),
        f"p = [i + 1 for i, c in enumerate(s) if c == '{letter}']\nprint(f\"{{len(p)}}: {{str(p)[1:-1]}}\")",
        wrong=(f"print(s.count('{letter}') + 1)", f"print(s.find('{letter}'))"),
        buggy=(f"print(s.positions('{letter}'))", f"print(count(s, '{letter}'))"),
    )


def _statistical_counting(question: str) -> Programs:
    (span,) = _parts(r"string\?\n\n(\w+)\n", question)
    return assemble(
        at_line_start(span),
        'print(sum(ord(c) - 64 for c in re.findall(r"(.)\\1+", s)))',
        wrong=("print(len(s))", "print(len(set(s)) - 1)"),
        imports="import re\n",
        buggy=("print(score(s))",),
    )


def _binary_alternation(question: str) -> Programs:
    (span,) = _parts(r"string alternating: (\d+)", question)
    swaps = (
        'p = [("01" * n)[:n], ("10" * n)[:n]]\n'
        "m = [sum(map(str.__ne__, s, t)) // 2 for t in p if sorted(t) == sorted(s)]\n"
        "print(min(m, default=-1))"
    )
    return assemble(
        spaced(span) + "s = s.strip()\n",
        "n = len(s)\n" + swaps,
        wrong=("print(len(s) + 1)", 'print(s.count("11") + 9)'),
        buggy=(swaps, 'print(s.swap("01"))'),
    )


def _mahjong_pattern(question: str) -> Programs:
    hand, rounds = _parts(r"cards:\n\n([A-Z]{13})\n\n(Round.*?)\n\n", question)
    find = 're.findall("(.) comes(?:, (.) goes)?", "".join(s))'
    play = f'for c, g in {find}:\n n = h.count(c)\n h = (h + c).replace(g, "", 1)\nprint(int(n > 1))'
    return assemble(
        at_line_start(hand, "h") + lines(rounds),
        play,
        wrong=("print(len(set(h)))", "print(len(s) + 1)"),
        imports="import re\n",
        buggy=("print(h.count(s))",),
    )


def _bf(question: str) -> Programs:
    (span,) = _parts(r"\n\n([^\n]+)\n\n", question)
    cell = ' c = s[i]\n p += (c == ">") - (c == "<")\n t[p] = (t[p] + (c == "+") - (c == "-")) % 256\n'
    rest = (
        ' if c == ".": print(chr(t[p]), end="")\n'
        ' if c == "[": r.append(i)\n'
        ' if c == "]":\n  if t[p]: i = r[-1]\n  else: r.pop()\n'
        " i += 1"
    )
    return assemble(
        at_line_start(span),
        "t = [0] * 99\nr = []\np = i = 0\nwhile i < len(s):\n" + cell + rest,
        wrong=("print(len(s))", 'print(s.count("."))'),
        buggy=("t = [0] * 99\ni = 0\nwhile i < len(s):\n" + cell + rest, "print(run(s))"),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Grids. They are printed in one line: the answer is the last line of what a program prints.


def _matrix_transformation(question: str) -> Programs:
    (span,) = _parts(r"top:\n\n(.*?)\n\nWhat", question)
    split = "g = [r.split() for r in s]\n"
    return assemble(
        lines(span),
        split + "print(*[c for r in zip(*g[::-1]) for c in r])",
        wrong=(split + "print(*[c for r in g[::-1] for c in r])", split + "print(*g[0])"),
        buggy=("print(*[c for r in zip(*g[::-1]) for c in r])", split + "print(rotate(g))"),
    )


def _maze(question: str) -> Programs:
    ends = r"from '(.)' \(start\) to '(.)' \(goal\):\n\n```\n(.*)\n```\nLegend: '(.)' = Wall"
    start, goal, grid, wall = _parts(ends, question)
    marks = {*start, *goal, *grid, *wall}
    # Three backticks at the start of a line would close the block; and a text with both kinds of quotes may not end.
    for mark in filter(marks.__contains__, "`'" if '"' in marks else "`"):
        free = next(c for c in "~^_|" if c not in marks)
        start, goal, grid, wall = (part.replace(mark, free) for part in (start, goal, grid, wall))
        marks.add(free)
    quotes = "'''" if '"' in grid else '"""'
    flood = "while g not in d:\n d |= {p + q for p in d for q in (1, -1, w, -w) if s[p + q] != x}\n n += 1\nprint(n)"
    return assemble(
        f"s = r{quotes}\n{grid}\n{quotes}\nd = {{s.index({start!r})}}\ng = s.index({goal!r})\nx = {wall!r}\n",
        'w = s.index("\\n", 1)\nn = 0\n' + flood,
        wrong=("print(len(s))", "print(s.count(x))"),
        buggy=("n = 0\n" + flood, "print(path(s, d, g))"),
    )


def _survo(question: str) -> Programs:
    span, numbers = _parts(r"\n(\d[\d \n]*\d)\n.*?(\[[^]]*\])", question)
    fill = " q = iter(p)\n g = [[int(c) or next(q) for c in r.split()] for r in s]\n"
    check = " if all(sum(r[:-1]) == r[-1] for r in g + [*zip(*g)]): a = g\nprint(str(a).replace(',', ''))"
    return assemble(
        lines(span) + value(numbers),
        "for p in permutations(x):\n" + fill + check,
        wrong=("print(x)", "print(*s)"),
        imports="from itertools import *\n",
        buggy=("print(fill(s, x))",),
    )


def _mini_sudoku(question: str) -> Programs:
    (span,) = _parts(r"puzzle:\n(.*)\nFormat", question)
    # That the rows, the columns and one square are complete makes the other squares so.
    rows = (
        'p = [*permutations("1234")]\n'
        'f = [[q for q in p if all(a in "_" + b for a, b in zip(r.split(), q))] for r in s]\n'
    )
    check = (
        "for g in product(*f):\n"
        " k = [*zip(*g), g[0][:2] + g[1][:2]]\n"
        ' if all(len(set(x)) == 4 for x in k): print("[" + "] [".join(map(" ".join, g)) + "]")'
    )
    return assemble(
        lines(span),
        rows + check,
        wrong=("print(*s)", 'print("[1 2 3 4] [3 4 1 2] [2 1 4 3] [4 3 2 1]")'),
        imports="from itertools import *\n",
        buggy=("print(solve(s))",),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Graphs and logic


def _course_schedule(question: str) -> Programs:
    (span,) = _parts(r":\n(\[\(.*\)\]|\[\])\n", question)
    loop = "for _ in x: x = [(a, b) for a, b in x if any(b == c for c, _ in x)]\n"
    return assemble(
        own_line(span),
        loop + "print(not x)",
        wrong=(loop + "print(len(x) > 0)", "print(len(x))"),
        buggy=("print(cycle(x))", "print(not x.cycle())"),
    )


def _graph_color(question: str) -> Programs:
    (span,) = _parts(r"Edges: (\[.*?\])\n", question)
    search = (
        "for c in product([1, 2, 3], repeat=10):\n if all(c[a] != c[b] for a, b in x): break\nprint(dict(enumerate(c)))"
    )
    return assemble(
        value(span),
        search,
        wrong=("print({v: 1 for e in x for v in e})", "print(len(x))"),
        imports="from itertools import *\n",
        buggy=("print(color(x))",),
    )


def _self_reference(question: str) -> Programs:
    bounds = _parts(r"least (\d) .* most (\d) .*Exactly (\d) .*Exactly (\d) ", question)
    count = (
        "n = 0\n"
        "for t in product([0, 1], repeat=7):\n"
        " k = sum(t)\n"
        " n += t == (k >= a, 7 - k <= b, k == c, 7 - k == d, t[2] != t[3], k in (2, 3, 5, 7), 7 - k in (4, 6))\n"
        "print(n)"
    )
    return assemble(
        "".join(map(value, bounds, "abcd")),
        count,
        wrong=("print(a + b + c + d + 9)", "print(7 + a)"),
        imports="from itertools import *\n",
        buggy=("print(solutions(a, b, c, d))",),
    )


def _syllogism(question: str) -> Programs:
    first, second, conclusion = _parts(r"\n1\. (.*?)\n2\. (.*?)\n.*that:\n(.*?)\?", question)
    imports = "from itertools import *\n"
    code = (
        "def f(u):\n"
        " q, x, *_, y = u.split()\n"
        ' v = [k for k in m if x in k and (y in k) == (q != "All" and "not" not in u)]\n'
        ' return (q == "Some") == (v != [])\n'
        "p = lambda z: [k for n in range(9) for k in combinations(z, n)]\n"
        "w = {u.split()[i] for u in (a, b, c) for i in (1, -1)}\n"
        'r = "Yes"\n'
        "for m in p(p(w)):\n"
        ' if f(a) and f(b) and not f(c): r = "No"\n'
        "print(r)"
    )
    return assemble(
        spaced(first, "a") + spaced(second, "b") + at_line_start(conclusion, "c"),
        code,
        wrong=(imports + code.replace("No", "?").replace("Yes", "No").replace("?", "Yes"), "print(c)"),
        imports=imports,
        buggy=("print(follows(a, b, c))",),
    )


def _color_cube_rotation(question: str) -> Programs:
    span, story, target = _parts(r"has:\n(.*?)\n\n(.*)\n\nWhat is now the color of the (\w+) side", question)
    turns = [
        re.search(r"(?:at the|the|its) (front|right|back|left|bottom)\b", sentence)[1]
        for sentence in story.split("\n\n")
    ]
    colors = "c = {r.split()[3]: r.split()[2] for r in s}\n"
    roll = (
        'f = "front right back left".split()\n'
        'for m in t.replace("bottom", "front front").split():\n'
        ' k = "top", m, "bottom", f[f.index(m) - 2]\n'
        " c.update(zip(k, [c[i] for i in k[1:] + k[:1]]))\n"
    )
    return assemble(
        lines(span) + spaced(" ".join(turns), "t"),
        colors + roll + f'print(c["{target}"])',
        wrong=(f'print("{target}")', "print(t)"),
        buggy=(roll + f'print(c["{target}"])', f'print(s["{target}"])'),
    )


# ---------------------------------------------------------------------------------------------------------------------

PUZZLES: dict[str, Callable[[str], Programs]] = {
    "bf": _bf,
    "binary_alternation": _binary_alternation,
    "caesar_cipher": _caesar_cipher,
    "color_cube_rotation": _color_cube_rotation,
    "course_schedule": _course_schedule,
    "graph_color": _graph_color,
    "isomorphic_strings": _isomorphic_strings,
    "letters@0": _letters,
    "mahjong_pattern@0": _mahjong_pattern,
    "matrix_transformation": _matrix_transformation,
    "maze": _maze,
    "mini_sudoku": _mini_sudoku,
    "palindrome_generation": _palindrome_generation,
    "ransom_note": _ransom_note,
    "self_reference": _self_reference,
    "statistical_counting": _statistical_counting,
    "survo": _survo,
    "syllogism": _syllogism,
    "word_sequence_reversal": _word_sequence_reversal,
    "word_sorting": _word_sorting,
}
