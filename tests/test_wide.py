"""The programs for tasks beyond the embedded ones do what their kind says."""

import sys

import pytest

from cli import ROOT
from executor import Executor
from tasks import INDEX_RANGES, get_task

sys.path.insert(0, str(ROOT / "runs"))
from wide_programs import WIDE, last_line

COUNT = 8
FEWER = 2  # problems whose wrong and buggy programs are run, too
# Of a task, how many of the COUNT problems its right program may get wrong, and why.
EXCEPTIONS = {"caesar_cipher": 1}  # the key is guessed from the letters' frequencies: 1 % of the short texts mislead


@pytest.fixture(scope="module")
def runs():
    """For each task, tuples of a problem, the kind of a program and its result; everything is run in one batch."""
    cases = []
    for name, read in WIDE.items():
        # Not `problems`: what they hold out takes longer to make than all of this, and makes no difference here.
        for number, index in enumerate(INDEX_RANGES["sft"][:COUNT]):
            problem = get_task(name).problem(index)
            programs = read(problem.question)
            cases.append((problem, "right", programs.right))
            if number < FEWER:
                cases += [(problem, "wrong", code) for code in programs.wrong]
                cases += [(problem, "buggy", code) for code in programs.buggy]
    with Executor(timeout=30.0) as executor:
        results = executor.map([code + "\n" for _, _, code in cases])
    by_task = {name: [] for name in WIDE}
    for (problem, kind, code), result in zip(cases, results, strict=True):
        by_task[problem.task].append((problem, kind, code, result))
    return by_task


@pytest.mark.parametrize("name", WIDE)
def test_right_programs_answer_right(name, runs):
    """A right program that fails, or prints what the checker does not accept, teaches mistakes as if they were none."""
    task = get_task(name)
    cases = [(problem, code, result) for problem, kind, code, result in runs[name] if kind == "right"]
    assert [result.stderr for _, _, result in cases if result.status != "ok"] == []
    failed = [
        (problem.question, code, result.stdout)
        for problem, code, result in cases
        if task.score(problem, last_line(result.stdout)) != 1
    ]
    assert len(cases) == COUNT and len(failed) <= EXCEPTIONS.get(name, 0), failed


@pytest.mark.parametrize("name", WIDE)
def test_wrong_programs_run_and_buggy_ones_raise(name, runs):
    """`compose` refuses a program that does not end as its kind demands: a newcomer's run stops in the middle. And a
    wrong one that is mostly right leaves reinforcement learning nothing to choose from."""
    statuses = {"wrong": "ok", "buggy": "error"}
    others = [case for case in runs[name] if case[1] != "right"]
    assert {kind for _, kind, _, _ in others} == set(statuses)
    for _, kind, code, result in others:
        assert result.status == statuses[kind] and (kind == "buggy" or result.stdout.strip()), (code, result)
    verdicts = [get_task(name).score(p, last_line(r.stdout)) for p, kind, _, r in others if kind == "wrong"]
    assert sum(verdicts) <= 0.25 * len(verdicts)


@pytest.mark.parametrize("name", WIDE)
def test_what_is_no_question_is_refused(name):
    """A question that is misread in silence gives a program about nothing."""
    with pytest.raises(ValueError, match="cannot read the question"):
        WIDE[name]("What is the meaning of life?")


MAZE = "Navigate from '2' (start) to '3' (goal):\n\n```\n1111\n1231\n1111\n```\nLegend: '1' = Wall, '.' = Passage"


@pytest.mark.parametrize("marks", ["`ab", "\"'b", "\"'`", '\\a"'])
def test_mazes_of_quotes_and_backticks(marks):
    """Three backticks at the start of a line close the block that the program stands in; three quotes its text."""
    code = WIDE["maze"](MAZE.translate(str.maketrans("123", marks))).right
    compile(code, "maze", "exec")
    assert "```" not in code


def test_programs_stay_in_their_block(runs):
    """A program with three backticks at the start of a line is cut short there."""
    codes = [code for cases in runs.values() for _, _, code, _ in cases]
    assert not any(line.startswith("```") for code in codes for line in code.split("\n"))
