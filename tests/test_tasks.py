"""Tasks: exact scoring, reproducible problems, disjoint splits, and reading a reply."""

import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks
from suites import gym, symbench
from suites.base import Problem
from suites.gym import basic
from suites.gym.common import GymTask, dataset, same_number
from suites.parsers import parse_complex, parse_number, split_items, unwrap
from tasks import (
    EMBEDDED,
    HELD_OUT,
    INDEX_RANGES,
    SPLIT_FILE,
    TASKS,
    draw_problems,
    extract_answer,
    get_task,
    overview,
    problems,
    read_split,
    resolve,
    spans,
)

ROOT = Path(tasks.__file__).parent
NUMERIC = {
    *("basic_arithmetic", "chain_sum", "count_bits", "count_primes", "decimal_chain_sum", "gcd", "lcm"),
    *("letter_counting", "products", "simple_equations"),
}
BASIC = {task.name: task for task in basic.TASKS}
each_task = pytest.mark.parametrize("name", BASIC)


def hundred(name: str) -> list[Problem]:
    return [get_task(name).problem(index) for index in range(100)]


def accepted(problem: Problem, answer: str) -> bool:
    verdict = get_task(problem.task).score(problem, answer)
    assert verdict in (0, 1) and isinstance(verdict, int)
    return verdict == 1


# ---------------------------------------------------------------------------------------------------------------------
# Scoring


@each_task
def test_reference_in_any_layout_is_right(name):
    """A right answer lost its point because it came in quotes, in backticks or with a full stop."""
    for problem in hundred(name):
        reference = problem.answer
        for layout in ("{}", "  {}\n", '"{}"', "`{}`", " **{}** ", "{}.", "`{}`."):
            assert accepted(problem, layout.format(reference)), (problem, layout)


@pytest.mark.parametrize("name", sorted(NUMERIC))
def test_numbers_are_equal_as_numbers(name):
    """A program that prints a float reports 12.0 where the reference says 12; the answer is the same number."""
    for problem in hundred(name):
        value = Fraction(problem.answer)
        written = [problem.answer + ("0" if "." in problem.answer else ".0"), problem.answer.replace("-", "−")]
        if value >= 0:
            written.append("+" + problem.answer)
        if value.denominator == 1:
            written.append(f"{int(value):,}")
        for text in written:
            assert accepted(problem, text), (problem, text)


@each_task
def test_near_misses_are_wrong(name):
    """A scorer that searches its answer, gives credit for part of it, or is shown a sentence pays for guessing."""
    for problem in hundred(name):
        reference = problem.answer
        misses = [
            *("", " ", "None", "...", reference + " apples", "x " + reference, f"{reference} or {reference}1"),
            *(f"The answer is {reference}", f"{reference}\n{reference}", f"<<<{reference}>>>", f"{reference}%"),
            *(reference + "1", "7" + reference),
        ]
        if any(character.isalnum() for character in reference[1:]):
            misses.append(reference[: max(len(reference) // 2, 1)])  # half of "No" is "N", half of "12" is "1"
        for miss in misses:
            if parse_number(miss) is None or parse_number(miss) != parse_number(reference):
                assert not accepted(problem, miss), (problem, miss)


@each_task
def test_reference_of_another_problem_is_wrong(name):
    """A rule that accepts whatever has the right form would pass every test made from right answers."""
    pool = hundred(name)
    for problem, other in zip(pool, pool[1:] + pool[:1], strict=True):
        same = parse_number(problem.answer) == parse_number(other.answer) and parse_number(other.answer) is not None
        if other.answer != problem.answer and not same:
            assert not accepted(problem, other.answer), (problem, other.answer)


@pytest.mark.parametrize("name", sorted(NUMERIC))
def test_off_by_one_is_wrong(name):
    """Scoring with a tolerance lets the neighbour of a large number pass."""
    for problem in hundred(name):
        for delta in ("1", "-1", "0.000001"):
            text = str(Decimal(problem.answer) + Decimal(delta))
            assert not accepted(problem, text), (problem, text)


CASES = [
    ("prime_factorization", "2 × 2 × 5", "2×2×5 | 2 x 2 x 5 | 2*2*5 | 5 × 2 × 2 | 2 X 2 · 5 | 2.0 × 2 × 5"),
    (
        "fraction_simplification",
        "$\\dfrac{3}{7}$",
        "3/7 | $3/7$ | 3 / 7 | \\frac{3}{7} | $\\frac{3}{7}$ | \\tfrac{3}{7}",
    ),
    ("fraction_simplification", "1/1", "1 | 1/1 | $\\frac{1}{1}$"),
    ("complex_arithmetic", "-9.0 - 8.0i", "-9-8i | (-9 - 8i) | -9.00 - 8.00j | -8i - 9 | −9 − 8i"),
    ("complex_arithmetic", "1.00i", "i | 1i | 0 + 1i | 0.0 + i | 1.0 i"),
    ("complex_arithmetic", "0.00", "0 | 0i | 0 + 0i | -0.0"),
    ("number_filtering", "['67.10', '-2']", "[67.1, -2] | ['67.10', '-2.0'] | [\"67.10\",\"-2\"] | [ 67.10 , -2 ]"),
    ("number_filtering", "[]", "[] | [ ]"),
    ("word_sequence_reversal", "one, Two", "one,Two | one ,  Two | 'one', 'Two' | one, Two."),
    ("calendar_arithmetic", "Friday", "friday | FRIDAY. | **Friday**"),
    ("calendar_arithmetic", "12", "12.0 | +12"),
]
MISSES = [
    (
        "prime_factorization",
        "2 × 2 × 5",
        "2 × 5 | 4 × 5 | 20 | 1 × 2 × 2 × 5 | 2^2 × 5 | 2 2 5 | 2 × 2 × 5 × | 2 ×× 2 × 5",
    ),
    ("fraction_simplification", "3/7", "6/14 | 3 | 7/3 | -3/7 | 0.428571 | 3/7/1 | \\frac{3}{7}x | 3\\7"),
    (
        "complex_arithmetic",
        "-9.0 - 8.0i",
        "-9 + 8i | 9 + 8i | -9 | -8i | -9 - 8 | -9i - 8 | -9 - 8i - 0 | 1 2 - 8i | i9",
    ),
    (
        "number_filtering",
        "['67.10', '-2']",
        "['-2', '67.10'] | 67.10, -2 | [67.10] | [67.10, -2, -2] | ['67.10', '-2' | []",
    ),
    ("number_filtering", "[]", "[0] | [''] | [ | ]"),
    ("word_sequence_reversal", "one, Two", "Two, one | one, two | one Two | one, Two, | [one, Two] | one., Two | one"),
    ("spell_backward", "Nus", "nus | Nu s | suN | Nus! | Nuss | Nu"),
    ("calendar_arithmetic", "Friday", "Fri | Fridays | on Friday | Yes | 5"),
    ("simple_equations", "62", "q = 62 | m = 61 | 62 = m | m = m = 62 | m"),
]


@pytest.mark.parametrize("name, reference, texts, verdict", [(*c, True) for c in CASES] + [(*c, False) for c in MISSES])
def test_rule_by_example(name, reference, texts, verdict):
    """The layouts and slips that a person would think of, one rule after the other."""
    problem = replace(get_task(name).problem(0), answer=reference)
    for text in texts.split(" | "):
        assert accepted(problem, text) is verdict, text


def test_solution_may_name_its_variable():
    """Asked to solve for m, "m = 62" is the natural answer."""
    problem = get_task("simple_equations").problem(0)
    assert problem.data == {"variable": "m"} and problem.answer == "62"
    assert accepted(problem, "m = 62") and accepted(problem, "m=62.0")


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(st.one_of(st.text(), st.text("0123456789+-−.,eEijxX×*·/\\${}[]()'\"`= \n\t\x00frac²٣<>")))
def test_any_text_is_scored(text):
    """One exception in a scorer ends a training run of days."""
    for task in BASIC.values():
        assert task.score(task.problem(3), text) in (0, 1)


def test_long_answers_are_scored_at_once():
    """int("9" * 100_000) raises, and Fraction("1e999999999") fills the memory of the trainer."""
    units = ["9", "(", "[", "'", "`", "-", "+", "i", ",", "×", "{", "\\frac{", "1,", " ", "**", ".", "$", "\n", "1 × "]
    texts = [(unit * 100_000)[:100_000] for unit in units]
    texts += ["1e999999999", "1e-999999999", "9" * 390 + "e999", "0." + "0" * 4999 + "1", "9" * 5000, "1i" + "9" * 398]
    texts += [f"[{'9,' * 900}9]", "'\"" * 900, "$`" * 900, "2 × " * 499 + "2"]
    for task in BASIC.values():
        problem = task.problem(3)
        for text in texts:
            start = time.process_time()
            assert task.score(problem, text) == 0
            assert time.process_time() - start < 0.25, (task.name, text[:20])


def test_parsers():
    """The parsers that all rules build on: value or None."""
    assert parse_number(" -1,234.50 ") == Fraction(-2469, 2) and parse_number("1.2e3") == 1200
    assert parse_number("12.") == 12 and parse_number("1.e2") == 100 and parse_number("-.50") == Fraction(-1, 2)
    assert parse_number("9" * 5000) is None and parse_complex("9" * 5000 + "i") is None
    for text in ("", ".", "1,23", "12,34", "1,2345", "--1", "0x10", "1_000", "inf", "nan", "1/2", "٣", "1e9999", "1 2"):
        assert parse_number(text) is None, text
    assert parse_complex("3 - i") == (3, -1) and parse_complex("i i") is None and parse_complex("") is None
    assert (
        unwrap("'a', 'b'") == "'a', 'b'" and unwrap(' "`a`." ') == "a" and unwrap("a..") == "a.." and unwrap('"') == '"'
    )
    assert split_items(" ") == [] and split_items("a,") == ["a", ""]


# ---------------------------------------------------------------------------------------------------------------------
# Problems


def test_unsound_items_are_replaced():
    """The generators publish "0 = 0", rounded quotients and dates in the wrong year: no answer to them is right."""
    seen = [("simple_equations", 13, "0 = 0"), ("basic_arithmetic", 153, "-1 / -( -( -( -2 - 9 ) ) + -3 + -13 )")]
    for name, index, text in [*seen, ("calendar_arithmetic", 20, "Tuesday, March 28, 2022")]:
        problem = get_task(name).problem(index)
        assert text not in problem.question and problem.index == index
        assert problem == get_task(name).problem(index)
    with pytest.raises(ValueError, match="a seed from 0 to 99999999, not -1"):
        get_task("gcd").problem(-1)


def test_reference_answers_are_right():
    """A reference taken on trust: computed here from the question alone, for the tasks where that is one line."""
    for index in range(300):
        for name, compute in {
            "gcd": lambda numbers: math.gcd(*numbers),
            "lcm": lambda numbers: math.lcm(*numbers),
            "products": math.prod,
            "count_bits": lambda numbers: bin(numbers[-1]).count("1"),
        }.items():
            problem = get_task(name).problem(index)
            numbers = [int(number) for number in re.findall(r"\d+", problem.question)]
            assert accepted(problem, str(compute(numbers))), problem


def same_everywhere(reverse: bool = False) -> dict[str, list]:
    """Two problems of each generated task, and five of each split of one."""
    generated = [*gym.TASKS, *symbench.TASKS]
    drawn = {task.name: [task.problem(1000), task.problem(1037)] for task in generated[:: -1 if reverse else 1]}
    drawn |= {split: problems("gcd", split, 5) for split in INDEX_RANGES}
    return {name: [[p.index, p.question, p.answer, p.data] for p in found] for name, found in sorted(drawn.items())}


def test_problems_are_the_same_in_every_process():
    """A generator that iterates over a set gives other problems under another hash seed, one that draws from the global
    source of random numbers other ones after other tasks."""
    script = (
        "import json; from tests.test_tasks import same_everywhere; print(json.dumps(same_everywhere(reverse=True)))"
    )
    here = same_everywhere()
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # here it is another one, drawn at random
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True).stdout
    there = json.loads(output)
    assert [name for name in here if json.dumps(here[name]) != json.dumps(there[name])] == []


def test_index_ranges_are_apart():
    """Item i of seed s is drawn from Random(s + i): close seeds give the same problems twice."""
    ranges = sorted(INDEX_RANGES.values(), key=lambda indices: indices.start)
    assert set(INDEX_RANGES) == {"sft", "rl", "dev", "test"}
    for first, second in pairwise(ranges):
        assert first.stop <= second.start and second.start - first.start >= 10**7


@each_task
def test_splits_share_no_question(name):
    """prime_factorization has 999 questions: by index alone, four of five held-out ones were in the training pool."""
    pools = {split: problems(name, split, HELD_OUT if split in ("dev", "test") else 150) for split in INDEX_RANGES}
    texts = {split: {problem.question for problem in pool} for split, pool in pools.items()}
    for split, pool in pools.items():
        assert len(texts[split]) == len(pool) and all(problem.index in INDEX_RANGES[split] for problem in pool)
        assert all(texts[split].isdisjoint(texts[other]) for other in texts if other != split)
        assert pool[0] == get_task(name).problem(pool[0].index)
        assert problems(name, split, 7) == pool[:7]


def test_small_task_runs_out(monkeypatch):
    """Asking a task of 999 questions for 2,000 must neither hang nor repeat itself; to find none at all is an error."""
    pools = {split: problems("prime_factorization", split, 2000) for split in ("sft", "rl")}
    assert all(300 < len(pool) < 500 for pool in pools.values())
    texts = [problem.question for pool in pools.values() for problem in pool]
    held = [problem.question for split in ("dev", "test") for problem in problems("prime_factorization", split, 100)]
    assert len(set(texts + held)) == len(texts) + len(held) <= 999

    task = get_task("gcd")
    monkeypatch.setattr(task, "problem", lambda index: Problem("gcd", index, "always the same", "1"))
    monkeypatch.setattr(tasks, "_held_out", lambda *_: frozenset({"always the same"}))
    with pytest.raises(ValueError, match="no problem is left"):
        problems("gcd", "sft", 3)
    assert len(problems("gcd", "dev", 3)) == 1
    with pytest.raises(ValueError, match="unknown split"):
        problems("gcd", "train", 3)


@pytest.mark.parametrize("name", ["tower_of_hanoi", "coin_flip"])
def test_few_questions_are_shared_out(name):
    """tower_of_hanoi has 90 questions: dev and test held out 100 each, so a run over all tasks ended at its start."""
    pools = {split: {problem.question for problem in problems(name, split, 1000)} for split in INDEX_RANGES}
    assert get_task(name).few and all(len(pool) >= 7 for pool in pools.values())
    assert len(set.union(*pools.values())) == sum(map(len, pools.values())) < 300


def test_a_seed_the_library_gives_up_at():
    """One maze in a thousand raises RuntimeError in the library: a run ended with it after minutes of drawing."""
    task = get_task("maze")
    with pytest.raises(RuntimeError):
        dataset("maze")[5843]
    assert task.entry(5843) is None and task.problem(5843).index == 5843
    with pytest.raises(RuntimeError, match="none of 1000 items from 3 on"):
        GymTask("gcd", same_number, sound=lambda entry: False).problem(3)


def test_several_processes_draw_the_same(monkeypatch):
    """All tasks are drawn by several processes, a few by one: both must give the same problems in the same order."""
    alone = draw_problems("lcm,gcd,spell_backward", "rl", 5)
    monkeypatch.setattr(tasks, "FEW", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert draw_problems("lcm,gcd,spell_backward", "rl", 5) == alone and len(alone) == 15


def test_names():
    """A misspelt task used to surface as a KeyError from deep inside."""
    assert len(EMBEDDED) == 11 and set(EMBEDDED) < set(TASKS)
    assert resolve("lcm, gcd,lcm") == ["lcm", "gcd"] and resolve("gcd,embedded")[0] == "gcd"
    assert resolve("all") == list(TASKS) and set(resolve("embedded")) == set(EMBEDDED) and len(resolve("gym")) >= 14
    with pytest.raises(ValueError, match="'gdc': did you mean gcd") as error:
        resolve("lcm,gdc")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="lists the"):
        get_task("qqqqqq")
    with pytest.raises(ValueError, match="no task"):
        resolve(" ,")


def test_importing_tasks_is_cheap():
    """Every script imports tasks; two seconds of reasoning-gym for `--help` is a poor welcome."""
    script = "import sys, tasks; sys.exit('reasoning_gym' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_command_line(capsys):
    """The three uses in the docstring, and a misspelt name."""
    assert tasks.main([]) == 0
    table = capsys.readouterr().out
    assert max(map(len, table.splitlines())) <= 120
    split = read_split(SPLIT_FILE)
    assert [line.split()[0] for line in table.splitlines()[1:]] == [row.task for row in overview()]
    assert {row.task for row in overview()} >= {*split["train"], *split["test"], *TASKS}
    written = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (\w+) \| ([^|]+) \|", (ROOT / "docs/tasks.md").read_text("utf-8"), re.M
    )
    known = [row for row in overview() if row.split]
    assert written == [(row.task, row.suite, row.split, row.check) for row in known]
    assert tasks.main(["simple_equations", "--index", "0", "--answer", "m = 62"]) == 0
    shown = capsys.readouterr().out
    assert "20592*m = 1276704" in shown and "reference answer: 62" in shown and "verdict: right" in shown
    assert tasks.main(["simple_equations", "--answer", "61"]) == 0
    assert "verdict: wrong" in capsys.readouterr().out
    assert tasks.main(["gdc"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ---------------------------------------------------------------------------------------------------------------------
# Reading a reply


def codes(text: str) -> list[tuple[str, bool, str]]:
    return [(span.language, span.closed, span.code(text)) for span in spans(text) if span.kind == "fence"]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["```", "```python\n", "\n", " ", "\t", "`", "<<<", ">>>", "a = 1", "\r\n"])).map("".join)
)
def test_spans_join_to_the_text(text):
    """A piece lost or doubled between two spans shifts every mask that is built from them."""
    pieces = spans(text)
    assert "".join(text[span.start : span.end] for span in pieces) == text
    assert [span.start for span in pieces] == [0, *(span.end for span in pieces)][: len(pieces)]
    for span in pieces:
        assert span.end > span.start
        if span.kind == "fence":
            assert span.start <= span.body_start <= span.body_end <= span.end
            assert span.closed or span.end == len(text)
    extract_answer(text)


def test_two_fences_and_text_between():
    """Text behind a closing fence goes on in the same line; a second block is a block of its own."""
    text = "One:\n```python\nprint(1)\n```Results: 1\nagain\n```py\nprint(2)\nprint(3)\n```"
    assert codes(text) == [("python", True, "print(1)\n"), ("py", True, "print(2)\nprint(3)\n")]
    assert [text[s.start : s.end] for s in spans(text) if s.kind == "text"] == ["One:\n", "Results: 1\nagain\n"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("```python\nprint(1)\n", [("python", False, "print(1)\n")]),
        ("```python", [("python", False, "")]),
        ("```python\n```", [("python", True, "")]),
        ("```Python3  title=x\nx\n```", [("python3", True, "x\n")]),
        ("``` py\nx\n```", [("py", True, "x\n")]),
        ("```\nx\n```", [("", True, "x\n")]),
        ("```json\n{}\n```", [("json", True, "{}\n")]),
        ("````python\nx\n````", [("python", True, "x\n")]),
        ("```python\r\nx\r\n```", [("python", True, "x\r\n")]),
        ("see ```python\nx\n", []),
        ("```x = 1``` inline\n", []),
        ('```python\nprint("```")\ns = "a ``` b"\n```', [("python", True, 'print("```")\ns = "a ``` b"\n')]),
        ("```python\n  x\n\n y\n```", [("python", True, "  x\n\n y\n")]),
        ("1. so\n   ```python\n   if x:\n       y\n   ```", [("python", True, "if x:\n    y\n")]),
        ("\t```python\n\tx\n\t```", [("python", True, "x\n")]),
        ("  ```python\nfor x in y:\n print(x)\n  ```", [("python", True, "for x in y:\n print(x)\n")]),
    ],
)
def test_fences(text, expected):
    """What opens a block, what closes it, and that its content is exact."""
    assert codes(text) == expected


@pytest.mark.parametrize(
    "text, first, last",
    [
        ("It is <<< 5 >>>.", "5", "5"),
        ("<<<5>>> or <<<6>>>", "5", "6"),
        ("no answer", None, None),
        ("<<<open", None, None),
        ("<<<>>>", "", ""),
        ("<<<a <<<b>>>", "b", "b"),
        ("<<<<b>>>>", "b", "b"),
        ("<<<-3 > 2>>>", "-3 > 2", "-3 > 2"),
        ("<<<1 2\n3 4>>>", "1 2\n3 4", "1 2\n3 4"),
        ("```python\nprint('<<<5>>>')\n```", None, None),
        ("```python\nprint('<<<5>>>')", None, None),
        ("```\n<<<5>>>\n```", None, None),
        ("```python\nprint('<<<5>>>')\n``` <<<6>>>", "6", "6"),
        ("<<<4>>>\n```python\nprint('<<<5>>>')\n```", "4", "4"),
        ("<<<1>>>\n```python\nx\n```\n<<<2>>>\n```python\ny\n```\n<<<3>>>", "1", "3"),
        ("<<<1\n```python\nx>>>\n```\n2>>>", None, None),
        ('```python\nprint("```")\nprint("<<<7>>>")\n```\n', None, None),
        ("```<<<5>>>``` is inline", "5", "5"),
    ],
)
def test_extract_answer(text, first, last):
    """A program that prints <<<5>>>, or quotes it, is no answer; the first and the last of several are."""
    assert extract_answer(text) == first
    assert extract_answer(text, last=True) == last


def test_long_replies_are_read_at_once():
    """Marks and backticks without end must not make reading quadratic."""
    for unit in ("<", "<<<", "<<<a", ">>>", "`", "```\n", "\n", " ", "\n ```", "<<<a>>>", "```a\n```", "\n\t"):
        text = (unit * 100_000)[:100_000]
        start = time.process_time()
        extract_answer(text)
        assert time.process_time() - start < 10.0, unit
