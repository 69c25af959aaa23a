"""SymBench's puzzles: what their solvers find is right, what breaks a rule is wrong."""

import json
import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks
from suites import symbench
from suites.base import Problem
from suites.stored import MissingDataError
from tests import symbench_cases
from tests.cases import cases, judge_any_text

# How many problems of each puzzle: all the acceptance asks for, where the time of a usual run does not matter.
PROBLEMS = int(os.environ.get("SYMBENCH_PROBLEMS", "12"))
TASKS = {task.name: task for task in symbench.TASKS}
CASES = cases(symbench_cases)
FIXTURES = Path(__file__).parent / "data/r1ci"
each_task = pytest.mark.parametrize("name", TASKS)


@cache
def problems(name: str) -> list[Problem]:
    """Some of every level, and some as they come."""
    task = TASKS[name]
    levels = [task.at(level) for level in range(len(task.levels))]
    return [(levels[i % len(levels)] if i % 2 else task).problem(1000 + i // 2) for i in range(PROBLEMS)]


@each_task
def test_what_the_solver_finds_is_right(name):
    """A puzzle whose reference is wrong teaches to be wrong, and one that cannot be solved teaches nothing."""
    for problem in problems(name):
        assert TASKS[name].score(problem, problem.answer) == 1, (problem.index, problem.question, problem.answer)
        assert "<<<" in problem.question and len(problem.answer) <= TASKS[name].max_answer
        stored = json.loads(json.dumps(problem.data))
        assert stored == problem.data, "data must survive being stored as JSON"
        assert TASKS[name].solve(stored) == problem.answer


@each_task
@settings(max_examples=PROBLEMS, deadline=None, derandomize=True)
@given(data=st.data())
def test_right_answers_are_right_in_any_form(name, data):
    """Other solutions, spaces, brackets: a model that is right, and told that it is wrong, learns not to be right."""
    problem = data.draw(st.sampled_from(problems(name)))
    for right in CASES[name].right(problem, data.draw(st.randoms(use_true_random=False))):
        assert TASKS[name].score(problem, right) == 1, (problem.index, problem.question, right, problem.answer)


@each_task
@settings(max_examples=PROBLEMS, deadline=None, derandomize=True)
@given(data=st.data())
def test_answers_that_break_a_rule_are_wrong(name, data):
    """What checkers let through, models find: a skipped step, a given cell that is changed, one too many."""
    problem = data.draw(st.sampled_from(problems(name)))
    answer = problem.answer
    contained = [f"The answer is {answer}", f"{answer}\nor not", f"not {answer}", f"{answer} {answer} x", ""]
    for wrong in [*contained, *CASES[name].wrong(problem, data.draw(st.randoms(use_true_random=False)))]:
        assert TASKS[name].score(problem, wrong) == 0, (problem.index, problem.question, wrong, answer)


@each_task
def test_any_text_is_judged(name):
    """An exception on one strange answer ends a run of hours; so does a rule that takes minutes for a long one."""
    judge_any_text(TASKS[name].score, problems(name))


@each_task
def test_levels(name, monkeypatch):
    """Difficulty can be set, and by itself takes every level: one that never comes up is one that nobody learns."""
    task, drawn, make = TASKS[name], [], TASKS[name].make
    monkeypatch.setattr(task, "make", lambda random, level: drawn.append(level) or make(random, level))
    for index in range(12 * len(task.levels)):
        task.problem(index)
    assert set(drawn) == set(task.levels)
    for number, level in enumerate(task.levels):
        drawn.clear()
        assert task.at(number).problem(7).task == f"{name}@{number}" and drawn == [level]
    with pytest.raises(ValueError, match="has the levels 0 to"):
        task.at(len(task.levels))
    assert task.name == name


def test_a_level_has_questions_for_every_split():
    """light_puzzles@0 has 192 different questions: dev and test held out all, so that nobody could train on it."""
    pools = {split: {p.question for p in tasks.problems("light_puzzles@0", split, 500)} for split in tasks.INDEX_RANGES}
    assert all(len(pool) > 10 for pool in pools.values())
    assert len(set.union(*pools.values())) == sum(map(len, pools.values())) <= 192


@each_task
def test_published_samples(name):
    """A loader that misreads a sample asks another question than was published. The samples here are our own, in the
    published layout; those that were published are tested where R1CI_DATA names their folder."""
    if name != "path_plan_continuous":
        check_samples(name, FIXTURES)
        if folder := os.environ.get("R1CI_DATA"):
            check_samples(name, Path(folder))


def check_samples(name: str, folder: Path) -> None:
    """Every sample loads, our solver's answer is right, and so is the stored one unless it breaks a rule as listed."""
    for problem, sample in TASKS[name].load_published(folder):
        assert TASKS[name].score(problem, problem.answer) == 1, sample
        if sample.stored is not None:
            expected = 0 if sample.path in symbench.FAULTY else 1
            assert TASKS[name].score(problem, sample.stored) == expected, (sample, problem.question, problem.answer)


def test_a_puzzle_at_a_level_by_its_name():
    """`--tasks reversi@0`: difficulty is what one wants to vary first."""
    easy = tasks.draw_problems("reversi@0,reversi@4", "dev", 3)
    assert [problem.task for problem in easy] == ["reversi@0"] * 3 + ["reversi@4"] * 3
    assert [len(problem.data["board"]) for problem in easy] == [4] * 3 + [6] * 3
    for problem in easy:
        assert tasks.get_task(problem.task).score(problem, problem.answer) == 1
    for name, message in (
        ("reversi@5", "levels 0 to 4, no 5"),
        ("gcd@0", "unknown task"),
        ("reversi@x", "did you mean"),
    ):
        with pytest.raises(ValueError, match=message):
            tasks.resolve(name)


def test_published_problems_for_evaluation(tmp_path, capsys):
    """`evaluate.py --published FOLDER`: one puzzle without samples must not end an evaluation of thirty; no puzzle at
    all, or a folder that is not there, must not look like an evaluation."""
    drawn = tasks.published_problems("reversi,letters,path_plan_continuous,gcd", FIXTURES, 1)
    assert [problem.task for problem in drawn] == ["reversi", "letters"]
    said = capsys.readouterr().err
    assert said.startswith("2 tasks have no data here: path_plan_continuous, gcd; path_plan_continuous: no published")
    with pytest.raises(ValueError, match="gcd: only problems of symbench"):
        tasks.published_problems("gcd", FIXTURES, 1)
    with pytest.raises(ValueError, match="no published problems in"):
        tasks.published_problems("symbench", tmp_path / "nowhere", 1)


def test_damaged_samples(tmp_path):
    """A sample that is cut off, or has another form, is one line with its puzzle's name, not a traceback."""
    for task in TASKS.values():
        if task.name == "path_plan_continuous":
            continue
        sample = next(task.published(FIXTURES))
        source = FIXTURES / sample.path.partition("#")[0]
        for path in [source] if source.is_file() else sorted(source.rglob("*")):
            if path.is_file():
                target = tmp_path / task.name / path.relative_to(FIXTURES)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(path.read_text(encoding="utf-8")[:5] + "...", encoding="utf-8")
        with pytest.raises(MissingDataError, match=task.name):
            task.load_published(tmp_path / task.name)


def test_missing_samples(tmp_path):
    """One line that says which folder lacks them, not an empty table."""
    for task in TASKS.values():
        with pytest.raises(MissingDataError, match=task.name):
            task.load_published(tmp_path)


def test_every_puzzle_has_its_cases():
    """A puzzle without cases is tested by nothing but its own solver."""
    assert CASES.keys() == TASKS.keys()
