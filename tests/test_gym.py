"""The exact rules of reasoning-gym's data sets, each over many problems."""

import os
from functools import cache

import pytest

from suites import gym
from suites.base import Problem
from suites.parsers import unwrap
from tests import gym_cases
from tests.cases import cases, judge_any_text

# How many problems of each data set: all the acceptance asks for, where the time of a usual run does not matter.
PROBLEMS = int(os.environ.get("GYM_PROBLEMS", "4"))
TASKS = {task.name: task for task in gym.TASKS}
CASES = cases(gym_cases)


@cache  # some data sets take half a second for each
def problems(name: str, count: int = PROBLEMS) -> list[Problem]:
    # Far apart from each other as from every split.
    return [TASKS[name].problem(1000 + 37 * i) for i in range(count)]


@pytest.mark.parametrize("name", TASKS)
def test_right_answers_are_right_in_any_layout(name):
    """A model that is right, and told that it is wrong for a space, learns not to be right."""
    for problem in problems(name):
        answer = problem.answer
        layouts = [answer, f"  {answer}\n", f"`{unwrap(answer)}`", f"**{unwrap(answer)}**", *CASES[name].right(problem)]
        for right in layouts:
            assert TASKS[name].score(problem, right) == 1, (problem.index, right, answer)


@pytest.mark.parametrize("name", TASKS)
def test_near_misses_are_wrong(name):
    """Consolation credit, a substring that is enough, or an answer among others: what models find and exploit."""
    for problem in problems(name):
        answer = problem.answer.strip()
        contained = [f"The answer is {answer}", f"{answer} {answer} x", f"{answer}\nor not", f"not {answer}", ""]
        for wrong in [*contained, *CASES[name].wrong(problem)]:
            assert TASKS[name].score(problem, wrong) == 0, (problem.index, wrong, answer)


@pytest.mark.parametrize("name", TASKS)
def test_any_text_is_judged(name):
    """An exception on one strange answer ends a run of hours; so does a rule that takes minutes for a long one."""
    judge_any_text(TASKS[name].score, problems(name))


def test_every_data_set_has_its_cases():
    """A data set without cases is tested by nothing but its own reference."""
    assert CASES.keys() == TASKS.keys()


def test_every_data_set_of_the_library_is_in_or_has_a_reason():
    """A newer library brings data sets that nobody has judged; a name misspelt here would be left out in silence."""
    from reasoning_gym.factory import DATASETS

    assert len(TASKS) == len(gym.TASKS) == 84 and len(gym.EXCLUDED) == 22
    assert TASKS.keys() | gym.EXCLUDED.keys() == DATASETS.keys() and not TASKS.keys() & gym.EXCLUDED.keys()
