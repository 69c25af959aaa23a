"""BIG-Bench-Hard, GSM-Hard and MATH: on small fixtures in the layout of the public data, and on the published samples
where the environment variable R1CI_DATA names them."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suites import bbh, mathematics, stored
from suites.bbh import same_brackets, same_option, same_word, same_words
from suites.latex import LONGEST, equivalent
from suites.mathematics import boxed, close_number
from suites.parsers import unwrap
from suites.stored import MissingDataError, StoredTask
from tasks import extract_answer

FIXTURES = Path(__file__).parent / "data/r1ci"
PUBLISHED = os.environ.get("R1CI_DATA", "")
TASKS = [*bbh.TASKS, *mathematics.TASKS]


def fresh(task: StoredTask) -> StoredTask:
    """The same task, which has read nothing yet."""
    return StoredTask(task.name, task.suite, task._rule, task._local, task._hub, task._row)


@pytest.fixture(params=["fixtures", "published"])
def tasks(request, monkeypatch) -> list[StoredTask]:
    folder = str(FIXTURES) if request.param == "fixtures" else PUBLISHED
    if not folder:
        pytest.skip("R1CI_DATA names no folder")
    monkeypatch.setenv("R1CI_DATA", folder)
    found = []
    for task in map(fresh, TASKS):
        try:
            assert task.size
        except MissingDataError:
            assert request.param == "fixtures"
            continue
        found.append(task)
    assert len(found) == (9 if request.param == "fixtures" else 30)
    return found


def test_the_reference_is_right_and_the_others_are_wrong(tasks):
    """Of all questions: the target in several layouts, every other target of the same task, an answer among words."""
    for task in tasks:
        drawn = [task.problem(index) for index in range(task.size)]
        others = sorted({problem.answer for problem in drawn})
        for problem in drawn:
            for layout in ("{}", " {}\n", "`{}`", "**{}**", '"{}"'):
                assert task.score(problem, layout.format(problem.answer)) == 1, problem
            for other in others:
                if task.suite == "bbh":
                    assert task.score(problem, other) == (other == problem.answer), (problem, other)
            for wrong in (
                "",
                f"The answer is {problem.answer}.",
                f"{problem.answer} or not",
                f"{problem.answer} x (Z)",
            ):
                assert task.score(problem, wrong) == 0, (problem, wrong)


def test_any_text_is_judged(tasks):
    """One exception, or one answer that takes minutes, ends a run of hours."""
    r = random.Random(0)
    alphabet = "0123456789 .,-+*/=()[]{}<>^!_\\$%|\"'`\nabcxyzfrcsqt\0éπ²"
    for task in tasks:
        problem = task.problem(0)
        for _ in range(1000):
            text = "".join(r.choices(alphabet, k=r.choice((1, 3, 10, 60))))
            assert task.score(problem, text) in (0, 1)
        for piece in ("(", "9", "\\sqrt", "-", "!", "9^", "\\frac", "{", "\\sin", ") ", "a,"):
            for length in (LONGEST, 100_000):
                assert task.score(problem, piece * (length // len(piece))) == 0


def test_options_words_and_brackets():
    """What a model writes for the same thing; and a letter that merely begins a word."""
    for text in ("(B)", "B", "b", "(b)", "B)"):
        assert same_option(text, "(B)")
    for text in ("(A)", "Banana", "(B) (A)", "B A", "()", ""):
        assert not same_option(text, "(B)")
    assert same_option("Monsters, Inc", "Monsters, Inc") and not same_option("M", "Monsters, Inc")
    assert same_word("YES", "Yes") and not same_word("Yes, No", "Yes") and not same_word("invalid", "valid")
    assert same_brackets(")]>", ") ] >") and same_brackets(" ) ]\n>", ") ] >")
    assert not same_brackets(")]", ") ] >") and not same_brackets("x)]>", ") ] >") and not same_brackets("", "")
    for text in ("apple it&t pear", "apple, it&t, pear", "['apple', 'it&t', 'pear']", "apple\nit&t\npear"):
        assert same_words(text, "apple it&t pear")
    assert not same_words("apple pear it&t", "apple it&t pear") and not same_words("apple it&t", "apple it&t pear")


def test_brackets_that_end_like_the_answers_mark(monkeypatch):
    """`<<<] >>>>` ends at its first >>>, and a third of the questions could not be answered as they ask."""
    (task,) = [task for task in bbh.TASKS if task.name == "bbh_dyck_languages"]

    def reading(*rows: dict) -> StoredTask:
        return StoredTask(task.name, task.suite, task._rule, lambda folder: list(rows), task._hub, task._row)

    monkeypatch.setenv("R1CI_DATA", "here")
    problem = reading({"input": "Complete: < [", "target": " ] >"}).problem(0)
    assert problem.question == "Complete: < [ (Write a space between the last bracket and >>>.)"
    assert task.score(problem, extract_answer("So <<<] > >>>"))
    with pytest.raises(MissingDataError, match="a row of R1CI_DATA=here is none of its kind"):
        reading({"input": "no target"}).problem(0)


@pytest.mark.parametrize("text", [r"\(12\)", "$$12$$", r"\[ 12 \]", "$12$", r"**\(12\)**"])
def test_latex_around_an_answer(text):
    """The usual delimiters, all but one of which were taken for a part of it."""
    assert unwrap(text) == "12"


def test_numbers_within_a_thousandth():
    """Rounded as a person would; no further."""
    for text in ("3.3333", "3.333333333", "3.331", "$3.332", "3.332\\%"):
        assert close_number(text, "3.3333333333333335")
    for text in ("3.3", "3", "33.3", "10/3", "-3.333", "3.333 or 4", "inf", "nan"):
        assert not close_number(text, "3.3333333333333335")
    assert close_number("0", "0.0") and not close_number("0.0001", "0.0") and close_number("14,801,484", "14801484.0")


@pytest.mark.parametrize(
    "answer, reference",
    [
        ("1/2", r"\frac{1}{2}"), ("0.5", r"\frac12"), (r"\dfrac{5\sqrt5}{3}", r"\frac{5\sqrt{5}}{3}"),
        ("5\\sqrt{5}/3", r"\frac{5\sqrt{5}}{3}"), ("(-5,6)", "(-5, 6)"), ("x = 5", "5"), (r"\theta=5", "5"),
        (r"3\sec(\theta/2)", r"3 \sec \frac{1}{2} \theta"), ("362880", r"362,\!880"), ("362,880", r"362,\!880"),
        ("75", r"75^\circ"), ("75°", r"75^\circ"), ("1012.5", r"\$1012.50"), ("125%", r"125\%"), ("48", "48.0"),
        (r"\frac{bx(h-x)}{h}", r"\frac{bx}{h}(h-x)"), (r"10 \text{ cm}", "10"), (r"\sqrt[3]{8}", "2"),
        ("2^{10}", "1024"),
        (r"\{1,2\}", r"\{1, 2\}"), ("5!", "120"), (r"\binom{5}{2}", "10"), ("-0.5", r"-\frac{1}{2}"),
        (r"\pi \cdot 2", r"2\pi"), ("2π", r"2\pi"), ("1,2", "1, 2"), (r"\text{A}", "A"), (r"\left(1,2\right]", "(1,2]"),
        (r"\boxed{\frac12}", r"\frac{1}{2}"), ("10{,}000", "10000"), (r"1\frac{1}{2}", r"\frac{3}{2}"),
        (r"-1\frac12", "-1.5"), ("Evelyn", r"\text{Evelyn}"), ("3(4)", "12"),
    ],
)  # fmt: skip
def test_finals_that_mean_the_same(answer, reference):
    """A right answer in another notation."""
    assert equivalent(answer, reference)


@pytest.mark.parametrize(
    "answer, reference",
    [
        ("0.333", r"\frac13"), ("0.3333333", r"\frac13"), ("(1,2]", "(1,2)"), ("[1,2)", "(1,2]"), ("6", "5"), ("", "5"),
        ("5 or 6", "5"), ("(6,5)", "(5,6)"), ("1/0", "5"), ("y", "x"), ("x^2", "x"), ("9^{9^{9^9}}", "5"), ("", ""),
        ("the answer is 0", "0"), ("(((((", "1"), ("[1,2", "1"), ("5,6", "5"), ("2", r"2\pi"), ("1,234", "(1,234)"),
        (r"\text{B}", r"\text{A}"), ("50", r"\frac{1}{2}"), ("-5", "5"), ("x = 5", "y = 5"), ("5i", "5"), ("(5]", "5"),
        ("10^308*10", "5"), ("10^{308}+10^{308}", "7"), ("1234567891", "1234567890"), (r"3\frac{1}{2}", "1.5"),
        ("5/2", r"5\frac{1}{2}"), ("1 2", "12"), ("3 4", "12"), (r"5\text{ or }6", "56"), ("nylevE", r"\text{Evelyn}"),
        ("(5,3)!", "120"), (r"\binom{1,2}{3}", "1"), (r"\binom{(5,3)}{2}", "1"), (r"\boxed{1}+\boxed{2}", "3"),
    ],
)  # fmt: skip
def test_finals_that_do_not_mean_the_same(answer, reference):
    """Rounded, partial, more than one, or nothing that can be read; infinity, which was as close to any number as
    another, and what ended the run in a traceback."""
    assert not equivalent(answer, reference)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.recursive(st.integers(-9, 99).map(str), lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
    lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"), max_leaves=6))  # fmt: skip
def test_arithmetic_is_that_of_python(expression):
    """A wrong sign or precedence shows only in expressions that nobody thought of."""
    value = eval(expression)  # noqa: S307 - digits and signs of our own
    assert equivalent(expression, str(value)) and equivalent(str(value), expression)
    assert not equivalent(expression, str(value + 1))


def test_the_last_box_is_the_answer():
    """Braces within braces, a box before, no box."""
    assert boxed(r"so \boxed{1}, and \boxed{\frac{1}{\sqrt{2}}}.") == r"\frac{1}{\sqrt{2}}"
    assert boxed("none") is None and boxed(r"\boxed{1") is None and boxed(r"\boxed") is None


def test_missing_data_say_what_to_do(monkeypatch, tmp_path):
    """A traceback from deep inside a download; or half a minute of it for each of 30 tasks."""
    task = next(task for task in TASKS if task.name == "bbh_navigate")
    monkeypatch.setenv("R1CI_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match=r"bbh_navigate: cannot be read from R1CI_DATA=.*navigate.json"):
        fresh(task).problem(0)
    (tmp_path / "BIG-Bench-Hard/bbh").mkdir(parents=True)
    (tmp_path / "BIG-Bench-Hard/bbh/navigate.json").write_text("[")
    with pytest.raises(MissingDataError, match="cannot be read"):
        fresh(task).problem(0)
    (tmp_path / "BIG-Bench-Hard/bbh/navigate.json").write_text('{"examples": []}')
    with pytest.raises(MissingDataError, match="has no questions of it"):
        fresh(task).problem(0)
    monkeypatch.delenv("R1CI_DATA")
    monkeypatch.setattr(stored, "_unreachable", ["ConnectError: no network"])
    stored._why_no_hub.cache_clear()
    with pytest.raises(MissingDataError, match=r"on the hub as SaylorTwift/bbh, .*no network.*or let R1CI_DATA name"):
        fresh(task).problem(0)
    stored._why_no_hub.cache_clear()
