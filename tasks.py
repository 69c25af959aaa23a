"""The tasks: registry, splits, reading the answer out of a reply, reward.

    python tasks.py                                          all tasks, one line each
    python tasks.py gcd --index 7                            a problem and its reference answer
    python tasks.py gcd --index 7 --answer "12"              ... and the verdict on an answer

Differs from the paper: correctness is by exact rule only, no language model is asked to extract or judge an answer.
"""

import argparse
import difflib
import hashlib
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal

from suites import gym
from suites.base import Problem, Task

TASKS: dict[str, Task] = {task.name: task for task in gym.TASKS}

# The tasks of the embedded default: short questions that one short program answers.
EMBEDDED = (
    "basic_arithmetic",
    "chain_sum",
    "count_bits",
    "count_primes",
    "gcd",
    "lcm",
    "letter_counting",
    "prime_factorization",
    "products",
    "simple_equations",
    "spell_backward",
)

# ---------------------------------------------------------------------------------------------------------------------
# Registry


def get_task(name: str) -> Task:
    """The task of this name; a ValueError of one line that names similar ones if there is none."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"`python tasks.py` lists the {len(TASKS)} there are"
    raise ValueError(f"unknown task {name!r}: {hint}")


def resolve(spec: str) -> list[str]:
    """Task names of a comma-separated list of tasks, suites ("gym"), "embedded" and "all", in order, each once."""
    groups = {"all": list(TASKS), "embedded": list(EMBEDDED)}
    for task in TASKS.values():
        groups.setdefault(task.suite, []).append(task.name)
    names: list[str] = []
    for part in filter(None, (part.strip() for part in spec.split(","))):
        names += groups[part] if part in groups else [get_task(part).name]
    if not names:
        raise ValueError(f"no task named in {spec!r}")
    return list(dict.fromkeys(names))


# ---------------------------------------------------------------------------------------------------------------------
# Splits

# Which indices a split may use. Seeds that lie close together overlap in some generators, hence the distance. Indices
# below the first range belong to nobody and serve for looking around. dev is watched while tuning; test is only for
# final figures.
INDEX_RANGES = {
    "sft": range(1 * 10**7, 2 * 10**7),
    "rl": range(2 * 10**7, 3 * 10**7),
    "dev": range(3 * 10**7, 4 * 10**7),
    "test": range(4 * 10**7, 5 * 10**7),
}
HELD_OUT = 100  # problems at the head of dev and of test whose texts no training split contains
PATIENCE = 2000  # a split is exhausted when this many indices in a row brought no new text


def problems(task: str, split: str, count: int) -> list[Problem]:
    """The first `count` problems of a split; always the same ones, and a smaller count gives the head of a larger one.

    Different indices can ask the same question, so disjoint ranges are not enough. What is guaranteed:
    - within a split all texts differ;
    - sft and rl contain no text of the first HELD_OUT of dev or test, and test none of the first HELD_OUT of dev;
    - sft and rl share no text at all: each text belongs to one of them, by its hash.
    Beyond the first HELD_OUT, dev and test may repeat training texts of a task with few questions.

    Such a task can run out (prime_factorization has 999 questions): then fewer than `count` come back. That none is
    left is an error.
    """
    if split not in INDEX_RANGES:
        raise ValueError(f"unknown split {split!r}: one of {', '.join(INDEX_RANGES)}")
    found = list(islice(_distinct(get_task(task), split), count))
    if not found and count > 0:
        raise ValueError(f"{task}: no problem is left for split {split!r}, all its questions are held out")
    return found


def _distinct(task: Task, split: str) -> Iterator[Problem]:
    before = {"sft": ("dev", "test"), "rl": ("dev", "test"), "dev": (), "test": ("dev",)}[split]
    taken = set().union(*(_held_out(task.name, other) for other in before))
    idle = 0
    for index in INDEX_RANGES[split]:
        problem = task.problem(index)
        other_half = {"sft": 1, "rl": 0}.get(split) == _half(problem.question)
        if other_half or problem.question in taken:
            idle += 1
            if idle == PATIENCE:
                return
            continue
        idle = 0
        taken.add(problem.question)
        yield problem


@cache
def _held_out(task: str, split: str) -> frozenset[str]:
    return frozenset(problem.question for problem in islice(_distinct(get_task(task), split), HELD_OUT))


def _half(text: str) -> int:
    # Not hash(): that one differs from process to process.
    return hashlib.sha256(text.encode()).digest()[0] & 1


# ---------------------------------------------------------------------------------------------------------------------
# Reading a reply

PYTHON_FENCES = {"python", "py", "python3"}

# The rest of an opening line must be free of backticks, as in CommonMark: a line such as ```x = 1``` is inline code.
_OPEN = re.compile(r"^(?P<indent>[ \t]*)```+(?P<info>[^`\n]*)(?:\n|\Z)", re.MULTILINE)
_CLOSE = re.compile(r"^[ \t]*```", re.MULTILINE)
# "<<<a <<<b>>>" and "<<<<b>>>" both read "b": marks of which one opens inside another are taken for a slip.
_ANSWER = re.compile(r"<<<(?!<)((?:(?!<<<|>>>).)*)>>>", re.DOTALL)


@dataclass(frozen=True)
class Span:
    """A piece of a reply. A fence runs from its line's start to right behind the closing backticks."""

    kind: Literal["text", "fence"]
    start: int
    end: int
    language: str = ""  # first word behind the opening backticks, in lower case
    closed: bool = True
    body_start: int = 0
    body_end: int = 0
    indented: bool = False

    def code(self, text: str) -> str:
        """The content of a fence in `text`, exactly; if the fence itself is indented, without common indentation."""
        body = text[self.body_start : self.body_end]
        return textwrap.dedent(body) if self.indented else body


def spans(text: str) -> list[Span]:
    """Split model-written text into plain text and fenced blocks; joined together they are the text again.

    A block closes at the next three backticks at a line's start, and plain text goes on right behind them, in the
    same line: generation stops there to run the code. So a program whose string has backticks at a line's start is
    cut short.
    """
    found: list[Span] = []
    position = 0
    while opening := _OPEN.search(text, position):
        if opening.start() > position:
            found.append(Span("text", position, opening.start()))
        closing = _CLOSE.search(text, opening.end())
        body_end, position = closing.span() if closing else (len(text), len(text))
        language = (opening["info"].split() or [""])[0].lower()
        closed, indented = closing is not None, bool(opening["indent"])
        found.append(Span("fence", opening.start(), position, language, closed, opening.end(), body_end, indented))
    if position < len(text):
        found.append(Span("text", position, len(text)))
    return found


def answers(text: str) -> list[re.Match]:
    """All closed <<<...>>> outside fences, in order; group 1 is the content."""
    plain = [span for span in spans(text) if span.kind == "text"]
    return [match for span in plain for match in _ANSWER.finditer(text, span.start, span.end)]


def extract_answer(text: str, last: bool = False) -> str | None:
    """The stripped content of the first closed <<<...>>> outside fences, None if there is none.

    `last` takes the last one: for replies whose generation was not stopped at the first.
    """
    found = answers(text)
    return found[-1 if last else 0][1].strip() if found else None


def reward(correct: bool) -> float:
    """The reward of an episode: 1 for a right answer, 0 for anything else."""
    return float(correct)


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def _table() -> str:
    rows = []
    for task in TASKS.values():
        example = textwrap.shorten(task.problem(0).question, 76, placeholder=" ...")
        rows.append(f"{task.name:24} {task.suite:6} {'yes' if task.name in EMBEDDED else '':9} {example}")
    return "\n".join([f"{'task':24} {'suite':6} {'embedded':9} example", *rows])


def main(arguments: list[str] | None = None) -> int:
    """Print the table of tasks, or one problem with its reference answer and the verdict on a given one."""
    parser = argparse.ArgumentParser(description="Look at tasks.")
    parser.add_argument("task", nargs="?", help="name of a task; without one, all tasks are listed")
    parser.add_argument("--index", type=int, default=0, help="which problem (a seed >= 0)")
    parser.add_argument("--answer", help="an answer to score")
    options = parser.parse_args(arguments)
    if options.task is None:
        print(_table())
        return 0
    try:
        task = get_task(options.task)
        problem = task.problem(options.index)
    except ValueError as error:
        print(f"tasks.py: {error}", file=sys.stderr)
        return 2
    print(f"{problem.question}\n\nreference answer: {problem.answer}")
    if options.answer is not None:
        print(f"answer: {options.answer}\nverdict: {'right' if task.score(problem, options.answer) else 'wrong'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
