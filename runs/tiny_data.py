"""The generic text that the embedded tiny base model is trained on; `runs/tiny_base.py` is what uses it.

Nothing here comes from the tasks that the model is later trained and measured on. There are three sources:

    prose         the doc strings and comments of the Python standard library
    copy          random tokens, or prose, that come back after a gap: they teach the model to copy
    transcripts   a question in prose with a literal in it -> a short program that binds the literal verbatim -> what
                  the program really printed, or its traceback -> a sentence that repeats the output

The operations are everyday ones (lengths, sums, upper case, digits, loops with a counter). What the embedded tasks ask
for (gcd, lcm, primes, factors, counting bits or letters, reversing strings, solving equations) is left out, and so are
the answer marks <<< and >>>: the model has to learn those later.

Everything is drawn from a `random.Random`, so a seed gives the same data on one Python version; another version has
another standard library.
"""

import ast
import collections
import contextlib
import functools
import io
import itertools
import linecache
import re
import string
import sysconfig
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random

# --------------------------------------------------------------------------------------------------------------------
# prose


@functools.cache
def library_sources() -> list[str]:
    """The standard library's top-level modules, in the order of their names."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return [file.read_text(encoding="utf-8", errors="ignore") for file in files]


@functools.cache
def library_prose() -> list[str]:
    """Every doc string of the library, and every comment that is a line of its own."""
    passages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own invalid escapes
        for source in library_sources():
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                    passages.append(ast.get_docstring(node) or "")
            passages += re.findall(r"^\s*# (.*)$", source, re.MULTILINE)
    return [passage for passage in passages if passage]


@functools.cache
def sentences() -> list[str]:
    """Sentences of 3 to 40 words that can stand inside double quotes in a program."""
    found: dict[str, None] = {}  # a dict keeps the order, a set would not
    for passage in library_prose():
        for paragraph in re.split(r"\n\s*\n|>>>.*", passage):
            for sentence in re.split(r"(?<=[.!?:])\s+", " ".join(paragraph.split())):
                if re.fullmatch(r"[A-Za-z][A-Za-z0-9 ,.;:'()!?/=+-]*", sentence) and 3 <= len(sentence.split()) <= 40:
                    found[sentence] = None
    return list(found)


@functools.cache
def words() -> list[str]:
    counts = collections.Counter(itertools.chain(*(re.findall(r"[A-Za-z]{2,12}", s.lower()) for s in library_prose())))
    return [word for word, _ in counts.most_common(5000)]


def random_word(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.55:
        word = rng.choice(words())
    elif kind < 0.8:  # can be pronounced, but is in no dictionary
        word = "".join(rng.choices(SYLLABLES, k=rng.randint(1, 5)))
    else:
        word = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 11)))
    case = rng.random()
    return word if case < 0.7 else word.capitalize() if case < 0.87 else word.upper() if case < 0.94 else word.title()


def random_prose(rng: Random) -> str:
    if rng.random() < 0.6:
        return " ".join(rng.choice(sentences()).split()[: rng.randint(3, 14)])
    return " ".join(rng.choices(words(), k=rng.randint(1, 10))).capitalize() + rng.choice([".", ":", "", "?"])


# --------------------------------------------------------------------------------------------------------------------
# literals


def digits(rng: Random, most: int) -> str:
    return str(rng.randint(0, 10 ** rng.randint(1, most) - 1))


def pick_pool(rng: Random, make, size: int) -> list[str]:
    """`size` pieces; now and then from very few different ones, so that a copier must know where it is."""
    if rng.random() < 0.25:
        few = [make() for _ in range(rng.randint(1, 3))]
        return [rng.choice(few) for _ in range(size)]
    return [make() for _ in range(size)]


def make_int(rng: Random) -> str:
    if rng.random() < 0.15:
        return "".join(pick_pool(rng, lambda: rng.choice("123456789"), rng.randint(2, 9)))
    return digits(rng, 10)


def make_ints(rng: Random) -> str:
    text = ", ".join(pick_pool(rng, lambda: rng.choice(["", "", "", "-"]) + digits(rng, 5), rng.randint(2, 7)))
    return f"[{text}]" if rng.random() < 0.2 else text


def make_expression(rng: Random) -> str:
    """Sums, products and quotients with signs and brackets."""
    signs = rng.choice(["+-", "*", "+-*", "+-*/", "+"])
    sign = ["", "", "", "-"] if rng.random() < 0.5 else [""]
    wide = rng.randint(1, 5)
    parts = pick_pool(rng, lambda: rng.choice(sign) + digits(rng, wide), rng.randint(2, 7))
    if len(parts) > 2 and rng.random() < 0.3:
        at = rng.randrange(len(parts) - 1)
        parts[at : at + 2] = [f"({parts[at]} {rng.choice(signs)} {parts[at + 1]})"]
    text = parts[0] + "".join(f" {rng.choice(signs)} {part}" for part in parts[1:])
    return f"-( {text} )" if rng.random() < 0.05 else f"( {text} )" if rng.random() < 0.1 else text


def make_equation(rng: Random) -> str:
    letter = rng.choice(string.ascii_lowercase)
    terms = [digits(rng, 3) + rng.choice(["*", "*", " * "]) + letter, digits(rng, 3)]
    if rng.random() < 0.3:
        terms.append(digits(rng, 2) + "*" + letter)
    rng.shuffle(terms)
    right = digits(rng, 4) if rng.random() < 0.8 else f"{digits(rng, 2)}*{letter}"
    return terms[0] + "".join(f" {rng.choice('+-')} {term}" for term in terms[1:]) + f" = {right}"


def make_decimals(rng: Random) -> str:
    def one() -> str:
        return f"{digits(rng, 4)}.{digits(rng, 4)}"

    return one() + "".join(f" {rng.choice('+-')} {one()}" for _ in range(rng.randint(0, 4)))


def make_phrase(rng: Random) -> str:
    return " ".join(pick_pool(rng, lambda: random_word(rng), rng.randint(2, 12)))


def make_words(rng: Random) -> str:
    return ", ".join(pick_pool(rng, lambda: random_word(rng), rng.randint(2, 9)))


def make_pieces(rng: Random) -> str:
    """Short pieces around one separator: "2 x 2 x 89", "12/7/2024", "ab-ab-cd"."""
    make = rng.choice([lambda: digits(rng, 3), lambda: rng.choice(string.ascii_letters), lambda: random_word(rng)])
    separator = rng.choice([" x ", " × ", "-", "/", ":", ";", " ", "|", " | ", ".", "_", " -> ", " + ", " and "])
    few = [make() for _ in range(rng.randint(1, 4))]
    return separator.join(rng.choice(few) for _ in range(rng.randint(2, 10)))


def make_sentence(rng: Random) -> str:
    text = rng.choice(sentences())
    if rng.random() < 0.35:  # a longer text of several sentences
        text = " ".join([text, *rng.choices(sentences(), k=rng.randint(1, 2))])
    return " ".join(text.split()[: rng.randint(3, 42)])


MAKERS = {
    "int": make_int,
    "ints": make_ints,
    "expression": make_expression,
    "equation": make_equation,
    "decimals": make_decimals,
    "word": random_word,
    "phrase": make_phrase,
    "words": make_words,
    "pieces": make_pieces,
    "sentence": make_sentence,
}
STRINGS = ("equation", "word", "phrase", "words", "pieces", "sentence")  # bound as a Python string

# --------------------------------------------------------------------------------------------------------------------
# operations and phrases


def read_sections() -> dict[str, list[tuple[str, str]]]:
    """The sections of tiny_operations.txt: (line, the indented lines below it) pairs."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for line in Path(__file__).with_name("tiny_operations.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif line.startswith("    "):
            question, program = section[-1]
            section[-1] = question, (program + "\n" if program else "") + line[4:]
        elif line and not line.startswith("#"):
            section.append((line, ""))
    return sections


SECTIONS = read_sections()
OPERATIONS = {
    **SECTIONS,
    "int": SECTIONS["number"] + SECTIONS["int"],
    "expression": SECTIONS["number"],
    "decimals": SECTIONS["number"],
    "word": SECTIONS["text"],
    "pieces": SECTIONS["text"],
    "phrase": SECTIONS["text"] + SECTIONS["phrase"],
    "sentence": SECTIONS["text"] + SECTIONS["phrase"],
    "words": SECTIONS["text"] + SECTIONS["words"],
}
SYLLABLES = [syllable for line, _ in SECTIONS["syllable"] for syllable in line.split()]
OPENINGS = [line for line, _ in SECTIONS["opening"]] + [""] * 4
REPAIRS = [line for line, _ in SECTIONS["repair"]]
CLOSINGS = [line for line, _ in SECTIONS["closing"]]
REQUESTS = [line for line, _ in SECTIONS["request"]]

# --------------------------------------------------------------------------------------------------------------------
# programs

NAMES = (*"xnsatkvyzmpq", "num", "text", "data", "value", "total", "items", "line", "word", "numbers", "string")


def slip(program: str, rng: Random) -> str:
    """The program with one of the mistakes that beginners make."""
    unknown = ["compute", "answer", "get", "count", "solve"]
    spoil = rng.choice(
        [
            lambda: program.replace("print(", f"print({rng.choice(unknown)}(", 1) + ")",
            lambda: program.replace("print(", f"print({rng.choice('bcdfgh')}, ", 1),
            lambda: re.sub(r"import \w+\n", "", program),
            lambda: re.sub(r"\.(\w+)\(", r".to_\1(", program, count=1),
            lambda: program.replace("len(", "length(").replace("sum(", "total(").replace("max(", "largest("),
            lambda: program.replace("print(", "print(1 / 0, ", 1) if rng.random() < 0.3 else program + "[0]",
            lambda: program.replace(")", "", 1),
            lambda: re.sub(r"\bstr\((\w+)\)", r"\1", program, count=1),
        ]
    )
    return spoil()


def vary(body: str, rng: Random) -> str:
    """The same program in another dress: a name for the result, a function, an f-string, other indentation."""
    lines = body.split("\n")
    last = re.fullmatch(r"print\((.*)\)", lines[-1])
    if last and not last[1].startswith("*"):
        value, dress = last[1], rng.random()
        if dress < 0.12:
            result = rng.choice(["r", "result", "y", "out", "answer"])
            lines[-1:] = [f"{result} = {value}", f"print({result})"]
        elif dress < 0.17 and len(lines) == 1 and "@" not in value:
            name = rng.choice(["f", "work", "solve", "main"])
            lines = [f"def {name}(v0):", "    return " + value.replace("$", "v0"), f"print({name}($))"]
        elif dress < 0.22:
            label = rng.choice(["result", "out", "answer", "value"])
            lines[-1] = f'print("{label}:", {value})'
        elif dress < 0.26:
            lines[-1:] = ["while True:", f"    print({value})", "    break"]
    body = "\n".join(lines)
    if rng.random() < 0.35:
        body = re.sub(r"^( {4})+", lambda m: " " * (len(m[0]) // 4), body, flags=re.MULTILINE)
    return body


def run_program(code: str) -> str:
    """What the program prints, and the traceback where it fails. Only for programs that were written here."""
    output = io.StringIO()
    linecache.cache["<program>"] = (len(code), None, code.splitlines(keepends=True), "<program>")
    try:
        with contextlib.redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})  # noqa: S102
    except Exception as error:  # noqa: BLE001
        frames = error.__traceback__.tb_next  # our own frame is not the program's
        output.write("".join(traceback.format_exception(type(error), error, frames)))
    return output.getvalue().strip()


# --------------------------------------------------------------------------------------------------------------------
# transcripts


@dataclass
class Segment:
    text: str
    source: str  # prompt, model or observation
    copied: tuple[tuple[int, int], ...] = ()  # what a good copier gets right: literals, or the repeated output


@dataclass
class Transcript:
    kind: str
    segments: list[Segment]


def bind(name: str, literal: str, kind: str, quote: str) -> str:
    """The line that binds the literal, behind the same piece that stands before it in the prompt: a quote, or a space.

    The tokenizer glues a space to the word after it, so ` canroyer` is copied as it stands and stripped later."""
    if kind not in STRINGS:
        return f"{name} = {literal}"
    return f"{name} = {quote}{literal}{quote}" if quote else f'{name} = " {literal}"'


def make_transcript(rng: Random, kind: str | None = None) -> Transcript:
    kind = kind or rng.choices([*MAKERS, "pair"], [5, 6, 6, 5, 3, 5, 5, 4, 5, 7, 5])[0]
    literals = make_pair(rng) if kind == "pair" else [MAKERS[kind](rng)]
    question, body = rng.choice(OPERATIONS[kind])
    quote = ""
    if kind in STRINGS and rng.random() < 0.5:
        quote = "'" if rng.random() < 0.2 and "'" not in literals[0] else '"'
    question, body = make_question(rng, question, body, kind, literals, quote)

    names = rng.sample(NAMES, 2) if rng.random() < 0.6 else ["a", "b"] if kind == "pair" else ["x", "s"]
    body = vary(body, rng)
    if kind in STRINGS and kind != "equation" and not quote:
        body = body.replace("$", "$.strip()") if rng.random() < 0.8 else "$ = $.strip()\n" + body
    body = body.replace("$", names[0]).replace("@", names[1])
    bindings = [bind(name, literal, kind, quote) for name, literal in zip(names, literals, strict=False)]
    imports = re.findall(r"^import \w+$", body, re.MULTILINE)
    body = re.sub(r"^import \w+\n", "", body, flags=re.MULTILINE)
    if not imports and rng.random() < 0.05:
        imports = [f"import {rng.choice(['re', 'math', 'string', 'random', 'itertools'])}"]
    head = "\n".join([*imports, *bindings] if rng.random() < 0.6 else [*bindings, *imports])

    segments = [Segment(question, "prompt")]

    def turn(opening: str, body: str) -> str:
        """Writes and runs a program; returns its output."""
        code = f"{head}\n{body}"
        text = (opening + "\n" if opening else "") + f"```python\n{code}\n```"
        output = run_program(code)
        segments.append(Segment(text, "model", tuple(find_literal(text, binding) for binding in bindings)))
        segments.append(Segment(f"\nCode Execution Results:\n{output}\n", "observation"))
        return output

    opening = OPENINGS
    if rng.random() < 0.1:
        broken = slip(body, rng)
        if broken != body:
            turn(rng.choice(OPENINGS), broken)
            opening = REPAIRS
    last = turn(rng.choice(opening), body).split("\n")[-1]
    closing = rng.choice(CLOSINGS)
    start = closing.index("{}")
    segments.append(Segment(closing.format(last), "model", ((start, start + len(last)),)))
    return Transcript(kind, segments)


def make_pair(rng: Random) -> list[str]:
    pair = [digits(rng, 3), digits(rng, 4)]
    return sorted(pair, key=int) if rng.random() < 0.7 else pair


def make_question(rng: Random, ask: str, body: str, kind: str, literals: list[str], quote: str) -> tuple[str, str]:
    """Puts the literals, and what else the operation asks for, into the question and the program."""
    # Where an unquoted text ends must be plain from the question: it stands behind a colon and ends its line.
    open_text = kind in ("phrase", "sentence") and not quote
    if rng.random() < 0.3:  # a question that names no operation: the literal must be found in any prose
        colon = ":" if open_text else rng.choice([":", ""])
        ask = random_prose(rng).rstrip(".:?!").replace("{", "").replace("}", "") + colon + " {}"
        ask += "" if len(literals) == 1 else rng.choice([" and {}", ", {}", " to {}"])
    elif len(literals) == 1 and (open_text or rng.random() < 0.4):
        ask = ask.replace(" {}", rng.choice([" this", " it", " the following"])) + rng.choice([": {}", ":\n {}"])
    small, word = str(rng.choice([*range(1, 10), 12, 20, 50])), rng.choice(words())
    if kind == "sentence" and "W" in body and rng.random() < 0.5:
        word = re.sub("[^A-Za-z]", "", rng.choice(literals[0].split())) or word
    ask, body = (re.sub(r"\bK\b", small, re.sub(r"\bW\b", word, part)) for part in (ask, body))
    question = ask.format(*(quote + literal + quote for literal in literals))
    if not open_text:
        question += rng.choice(["?", ".", "", ". "] if kind in STRINGS else ["?", ".", "", " ="])
    if rng.random() < 0.25:
        question = random_prose(rng) + " " + question
    if rng.random() < 0.35:
        more = rng.choice(REQUESTS) if rng.random() < 0.5 else random_prose(rng)
        question = question.rstrip() + ("\n" if open_text else rng.choice([" ", "\n"])) + more
    return question, body


def find_literal(text: str, binding: str) -> tuple[int, int]:
    """Where the literal of a binding stands in the text, with the end of its line."""
    start = text.index(binding)
    return start + binding.index(" = ") + 3, start + len(binding) + 1


# --------------------------------------------------------------------------------------------------------------------
# copy documents


class CopyMaker:
    """Draws documents in which spans of tokens come back: drills at first, later longer spans, whose tokens come from a
    mixture of a Zipf law over a random order, the prose's own frequencies (flattened) and the uniform law."""

    def __init__(self, prose: list[list[int]], usable: list[int], rng: Random):
        self.prose = [tokens for tokens in prose if len(tokens) >= 8]
        counts = collections.Counter(itertools.chain(*prose))
        zipf = [1 / (rank + 6) for rank in range(len(usable))]
        rng.shuffle(zipf)
        unigram = [counts[token] ** 0.5 for token in usable]
        weights = [
            0.25 * z / sum(zipf) + 0.45 * u / sum(unigram) + 0.3 / len(usable)
            for z, u in zip(zipf, unigram, strict=True)
        ]
        self.tokens = usable
        self.order = rng.sample(usable, len(usable))
        self.cumulative = list(itertools.accumulate(weights))

    def mixture(self, rng: Random, size: int) -> list[int]:
        return rng.choices(self.tokens, cum_weights=self.cumulative, k=size)

    def span(self, rng: Random, size: int) -> list[int]:
        kind = rng.random()
        if kind < 0.6:
            return self.mixture(rng, size)
        if kind < 0.85:  # prose repeats its own pieces, as literals do
            tokens = rng.choice(self.prose)
            start = rng.randrange(max(1, len(tokens) - size))
            return tokens[start : start + size]
        few = self.mixture(rng, rng.randint(2, 8))  # the place matters, not only the token before
        return rng.choices(few, k=min(size, 24))

    def drill(self, rng: Random, size: int = 48) -> tuple[list[int], list[bool]]:
        """A short phrase that comes back again and again, of tokens among the first so many of a fixed order; how many
        is drawn log-uniformly. Copying is found on the few tokens that are in nearly every drill, within 500 batches
        from ordinary random weights, and then spreads to the rest; with all tokens alike from the start it takes many
        times as long."""
        length = rng.randint(3, 9)
        reach = max(length, int(10 * (len(self.order) / 10) ** rng.random()))
        phrase = [self.order[i] for i in rng.sample(range(reach), length)]
        tokens: list[int] = []
        loss: list[bool] = []
        while len(tokens) < size:
            loss += [False] + [bool(tokens)] * (length - 1)
            tokens += phrase
            gap = rng.choices(self.order, k=rng.randint(0, 2))
            tokens += gap
            loss += [False] * len(gap)
        return tokens[:size], loss[:size]

    def document(self, rng: Random, longest: int) -> tuple[list[int], list[bool]]:
        """Tokens, and for each whether it has a loss: only what comes back has one, less the first token of a span,
        which cannot be known. `longest`: of a span; 0 for a drill."""
        if not longest:
            return self.drill(rng)
        tokens = self.mixture(rng, rng.randint(0, longest // 4))
        loss = [False] * len(tokens)
        span = self.span(rng, rng.randint(6, longest))
        tokens += span
        loss += [False] * len(span)
        for _ in range(rng.randint(1, 3) if len(span) <= 20 else 1):
            gap = self.mixture(rng, rng.randint(0, longest // 3))
            again = span[rng.randrange(len(span) // 2) :] if rng.random() < 0.7 else span
            tokens += gap + again
            loss += [False] * (len(gap) + 1) + [True] * (len(again) - 1)
        return tokens, loss
