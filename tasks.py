"""The tasks: registry, splits, reading the answer out of a reply, reward.

    python tasks.py                                          all tasks, one line each
    python tasks.py gcd --index 7                            a problem and its reference answer
    python tasks.py gcd --index 7 --answer "12"              ... and the verdict on an answer

Differs from the paper: correctness is by exact rule only, no language model is asked to extract or judge an answer.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple

from tqdm import tqdm

from executor import Executor
from suites import bbh, gym, mathematics, symbench
from suites.base import Problem, Task
from suites.custom import FileTask
from suites.gym.common import GymTask
from suites.stored import FOLDER_VARIABLE, MissingDataError, StoredTask
from suites.symbench.common import Puzzle

TASKS: dict[str, Task] = {task.name: task for task in (*symbench.TASKS, *mathematics.TASKS, *bbh.TASKS, *gym.TASKS)}

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
    """The task of this name, or a puzzle at one of its levels ("reversi@0" is the easiest); a ValueError of one line
    that names similar ones if there is none."""
    if name in TASKS:
        return TASKS[name]
    puzzle, _, level = name.partition("@")
    if isinstance(TASKS.get(puzzle), Puzzle) and re.fullmatch("[0-9]{1,3}", level):
        return TASKS[puzzle].at(int(level))
    near = difflib.get_close_matches(name, TASKS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"`python tasks.py` lists the {len(TASKS)} there are"
    raise ValueError(f"unknown task {name!r}: {hint}")


def register(task: Task) -> None:
    """Makes a task known by its name; ValueError where another one has it."""
    if TASKS.setdefault(task.name, task) is not task:
        raise ValueError(f"there is a task {task.name} already")


def resolve(spec: str) -> list[str]:
    """Task names of a comma-separated list of tasks, puzzles at one level ("reversi@0"), suites ("gym", "bbh",
    "symbench"), files of your own tasks ("my.jsonl"), the parts of the split ("train", "test", or of another file:
    "split.json:train"), "embedded" and "all", in order, each once."""
    return list(_parse(spec))


def _parse(spec: str) -> dict[str, bool]:
    """By name, whether the task was named itself rather than as one of a group."""
    suites = {task.suite for task in TASKS.values()}
    names: dict[str, bool] = {}
    for part in filter(None, (part.strip() for part in spec.split(","))):
        if part.endswith(".jsonl"):
            task, before = FileTask(part), TASKS.get(Path(part).stem)
            if isinstance(before, FileTask) and task.name in names and Path(before.source) != Path(part):
                raise ValueError(f"{before.source} and {part} have the same name: rename one of them")
            if not isinstance(TASKS.get(task.name), FileTask):  # the same file, or a newer state of it
                register(task)
            TASKS[task.name] = task
            names[task.name] = True
        elif part in ("all", "embedded", *suites, "train", "test") or ".json:" in part:
            for name in _group(part):
                names.setdefault(name, False)
        else:
            names[get_task(part).name] = True
    if not names:
        raise ValueError(f"no task named in {spec!r}")
    return names


def _group(name: str) -> list[str]:
    if name == "embedded":
        return list(EMBEDDED)
    path, _, part = name.rpartition(":")
    if path or name in ("train", "test"):
        split = read_split(Path(path) if path else SPLIT_FILE)
        if part not in split:
            raise ValueError(f"{path} has no {part!r}: {', '.join(split)}")
        return [name for task in split[part] for name in ([task] if task in TASKS else resolve(task))]
    return [task.name for task in TASKS.values() if name in ("all", task.suite) and task.suite != "custom"]


FEW = 20  # tasks whose problems are made sooner than processes for them start


def draw_problems(spec: str, split: str, count: int) -> list[Problem]:
    """The first `count` problems of a split of each task in `spec`, see `resolve` and `problems`. Tasks whose data are
    missing are left out, with a line that says so, unless they were named themselves."""
    found: list[Problem] = []
    missing: dict[str, str] = {}
    names = _parse(spec)
    generated = [name for name in names if isinstance(get_task(name), GymTask | Puzzle)]
    processes = min(16, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's
    with contextlib.ExitStack() as stack:
        drawn = {}
        if len(generated) > FEW and processes > 1:
            pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            drawn = {name: pool.submit(problems, name, split, count) for name in generated}
        silent = True if os.environ.get("RANK", "0") != "0" else None  # None: unless there is no terminal
        for name, named in tqdm(names.items(), "problems", unit="task", delay=2, disable=silent, leave=False):
            try:
                found += drawn[name].result() if name in drawn else problems(name, split, count)
            except MissingDataError as error:
                if named:
                    raise
                missing[name] = str(error)
    report_missing(missing, bool(found))
    return found


def published_problems(spec: str, folder: Path, count: int) -> list[Problem]:
    """The first `count` published problems of each of SymBench's puzzles in `spec`, from a folder in the layout of the
    paper's data. Other tasks are left out, with a line that says so."""
    found: list[Problem] = []
    missing: dict[str, str] = {}
    for name in resolve(spec):
        task = get_task(name)
        try:
            if not isinstance(task, Puzzle):
                raise MissingDataError(f"{name}: only problems of symbench were published in this way")
            found += [problem for problem, _ in task.load_published(folder)[:count]]
        except MissingDataError as error:
            missing[name] = str(error)
    report_missing(missing, bool(found))
    return found


def report_missing(missing: dict[str, str], others: bool) -> None:
    """Says which tasks are left out, and why the first one is; a ValueError where there are no others."""
    if missing:
        line = f"{len(missing)} tasks have no data here: {', '.join(missing)}; {next(iter(missing.values()))}"
        if not others:
            raise ValueError(line)
        print(line, file=sys.stderr, flush=True)


def is_right(problem: Problem, answer: str, executor: Executor) -> bool | None:
    """Whether an answer is right, by the task's own rule or by its program; None if that could not be run."""
    task = get_task(problem.task)
    program = task.judging_program(problem, answer)
    if program is None:
        return bool(task.score(problem, answer))
    result = executor.submit(program).result()
    if result.status == "sandbox_error":
        return None
    return result.status == "ok" and result.stdout.removesuffix("\n").rpartition("\n")[2] == "True"


# ---------------------------------------------------------------------------------------------------------------------
# Splits: of tasks

ROOT = Path(__file__).resolve().parent
SPLIT_FILE = ROOT / "suites/split.json"


def read_split(path: Path) -> dict[str, list[str]]:
    """Lists of task names by the name of their part, from a JSON file."""
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"the split {path} cannot be read: {error}") from error
    lists = isinstance(split, dict) and all(isinstance(names, list) for names in split.values())
    if not lists or not all(isinstance(name, str) and ":" not in name for names in split.values() for name in names):
        raise ValueError(f"the split {path} must be an object of lists of task names")
    return split


# ---------------------------------------------------------------------------------------------------------------------
# Splits: of the problems of a task

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
    Beyond the first HELD_OUT, dev and test may repeat training texts, unless the task has a certain number of questions
    or few (`Task.size`, `Task.few`): then each belongs to one split, see `part_of`.

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
    for index in INDEX_RANGES[split] if task.size is None else range(task.size):
        problem = task.problem(index)
        if task.few or task.size is not None:
            elsewhere = split != part_of(problem)
        else:
            elsewhere = {"sft": 1, "rl": 0}.get(split) == _byte(problem.question) & 1
        if elsewhere or problem.question in taken:
            idle += 1
            if idle == PATIENCE and task.size is None:
                return
            continue
        idle = 0
        taken.add(problem.question)
        yield problem


@cache
def _held_out(task: str, split: str) -> frozenset[str]:
    return frozenset(problem.question for problem in islice(_distinct(get_task(task), split), HELD_OUT))


def part_of(problem: Problem) -> str:
    """To which split a problem belongs whose task has a certain number of them, or few: the one it names, or by its
    text, 30 % sft, 40 % rl, 10 % dev and 20 % test."""
    shares = {"sft": 77, "rl": 179, "dev": 205, "test": 256}  # of 256, cumulated
    drawn = next(split for split, end in shares.items() if _byte(problem.question) < end)
    return problem.data.get("split", drawn)


def _byte(text: str) -> int:
    # Not hash(): that one differs from process to process.
    return hashlib.sha256(text.encode()).digest()[0]


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


MANY_TURNS = 6  # beyond which a reply is called inefficient, as in the paper


def reward(
    correct: bool, answered: bool = True, turns: int = 1, format_weight: float = 0.0, efficiency_weight: float = 0.0
) -> float:
    """1 for a right answer, 0 for a wrong one; plus or minus `format_weight` for an answer in the marks asked for or
    none; minus `efficiency_weight` for more than MANY_TURNS turns. The paper has 0.1 for both; the default is
    correctness alone, which is what accuracy means everywhere."""
    shape = format_weight if answered else -format_weight
    return float(correct) + shape - (efficiency_weight if turns > MANY_TURNS else 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Command line


class Row(NamedTuple):
    """A task in a table."""

    task: str
    suite: str
    split: str
    problems: str
    check: str
    source: str


def overview() -> list[Row]:
    """All tasks: the 144 of the split, and what else is registered."""
    split = read_split(SPLIT_FILE)
    part_of = {name: part for part, names in split.items() for name in names}
    return [
        Row(task.name, task.suite, part_of.get(task.name, ""), _count(task), task.kind, task.source)
        for task in TASKS.values()
    ]


def _count(task: Task) -> str:
    if isinstance(task, StoredTask) and not os.environ.get(FOLDER_VARIABLE):
        return "stored"  # to count them they would have to be downloaded
    try:
        return str(task.size or "generated")
    except MissingDataError:
        return "missing"


def table(rows: list[Row]) -> str:
    """The rows below their names, in columns."""
    lines = [Row._fields, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table of tasks, or one problem with its reference answer and the verdict on a given one."""
    parser = argparse.ArgumentParser(description="Look at tasks.")
    parser.add_argument("task", nargs="?", help="name of a task, or a .jsonl file; without one, all tasks are listed")
    parser.add_argument("--index", type=int, default=0, help="which problem (a seed >= 0)")
    parser.add_argument("--answer", help="an answer to score")
    options = parser.parse_args(arguments)
    if options.task is None:
        print(table(overview()))
        return 0
    try:
        task = get_task(resolve(options.task)[0])
        problem = task.problem(options.index)
    except ValueError as error:
        print(f"tasks.py: {error}", file=sys.stderr)
        return 2
    print(f"{problem.question}\n\nreference answer: {problem.answer}")
    if options.answer is not None:
        print(f"answer: {options.answer}")
        with contextlib.ExitStack() as stack:
            by_program = task.judging_program(problem, options.answer) is not None
            executor = stack.enter_context(Executor()) if by_program else None
            verdict = is_right(problem, options.answer, executor)
        print(f"verdict: {'could not be judged' if verdict is None else 'right' if verdict else 'wrong'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
