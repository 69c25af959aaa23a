"""Statistics by hand and by simulation; what counts as a self-check; figures of stored replies."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scores
from scores import (
    bootstrap,
    checks_itself,
    compare,
    difference_interval,
    figures,
    majority_is_right,
    mean_interval,
    of_task,
    pass_at_k,
    sign_test,
    wilson,
)


def record(task: str = "a", index: int = 0, correct: bool = True, answer: str | None = "1", **more) -> dict:
    values = {"code_runs": 0, "statuses": [], "segments": [], "sampled_tokens": 10, "finish": "answer"}
    return {"task": task, "index": index, "correct": correct, "answer": answer, **values, **more}


# --------------------------------------------------------------------------------------------------------------------
# statistics


@pytest.mark.parametrize(("n", "right"), [(1, 0), (1, 1), (4, 1), (5, 3), (6, 0), (6, 6), (7, 2)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, right):
    """1 - (1 - p)^k of the same few replies is biased; off by one, pass@1 is not the accuracy."""
    outcomes = [True] * right + [False] * (n - right)
    for k in range(1, n + 1):
        draws = list(itertools.combinations(outcomes, k))
        assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_at_k(n, right, 1) == pytest.approx(right / n)


def test_pass_at_k_of_many():
    """Binomial coefficients of a thousand replies overflow a float."""
    assert pass_at_k(2000, 1, 1000) == pytest.approx(0.5) and 0 < pass_at_k(10_000, 3, 100) < 0.1


def test_the_sign_test_by_hand():
    """One-sided, or with flips counted that are none."""
    assert sign_test(0, 0) == sign_test(3, 3) == sign_test(1, 0) == 1.0
    assert sign_test(5, 0) == sign_test(0, 5) == 2 / 32
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)


@pytest.mark.parametrize(
    "right, count, low, high",
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_intervals_of_the_literature(right, count, low, high):
    """The textbook interval, share +- 2 deviations, has no width at 0 and at 1, and reaches beyond them nearby."""
    assert wilson(right, count) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("count", [28, 100])
def test_wilson_intervals_cover_the_truth_95_times_in_100(share, count):
    """An interval of one deviation, or a one-sided one, looks just as good in a table. The chances are exact."""
    covered = 0.0
    for right in range(count + 1):
        low, high = wilson(right, count)
        assert 0 <= low <= right / count + 1e-12 and right / count - 1e-12 <= high <= 1
        if low <= share <= high:
            covered += math.comb(count, right) * share**right * (1 - share) ** (count - right)
    assert 0.92 < covered < 0.985


@pytest.mark.parametrize("new_tasks", [False, True])
def test_the_bootstrap_covers_what_it_says(new_tasks, monkeypatch):
    """An interval that holds the truth in 70 % of experiments, or always, says nothing. Without `new_tasks` the truth
    is the mean of these tasks' rates; with it, that of the population which the tasks were drawn from, and there the
    interval of fixed tasks would be far too narrow."""
    monkeypatch.setattr(scores, "RESAMPLES", 300)
    draw, covered, fixed, trials = np.random.default_rng(0), 0, 0, 300
    for trial in range(trials):
        rates = draw.beta(2, 2, size=20)
        tasks = [(draw.random(15) < rate).astype(float) for rate in rates]
        truth = 0.5 if new_tasks else rates.mean()
        low, high = bootstrap(tasks, trial, resample_tasks=new_tasks)
        covered += low <= truth <= high
        low, high = bootstrap(tasks, trial)
        fixed += low <= truth <= high
    # At 95 %, 300 trials have a standard error of 0.013; percentile intervals of small samples fall a little short.
    assert 0.90 <= covered / trials <= 0.985
    assert not new_tasks or fixed / trials < 0.85


@pytest.mark.parametrize("rate", [0.5, 0.97, 0.995])
def test_intervals_of_means_cover_the_truth_near_its_ends_too(rate, monkeypatch):
    """Where nearly all is right, the bootstrap's own interval held the truth in 78 of 100 experiments, and had no width
    at all for a model that answers nothing. The demo's sizes: 11 tasks of 28 problems."""
    monkeypatch.setattr(scores, "RESAMPLES", 300)
    draw, covered, plain, trials = np.random.default_rng(0), 0, 0, 300
    for trial in range(trials):
        tasks = [(draw.random(28) < rate).astype(float) for _ in range(11)]
        low, high = mean_interval(tasks, trial)
        covered += low <= rate <= high
        assert 0 <= low < high <= 1
        low, high = bootstrap(tasks, trial)
        plain += low <= rate <= high
    assert covered / trials >= 0.91
    assert rate < 0.99 or plain / trials < 0.85


@pytest.mark.parametrize("gain", [0.0, 0.03, 0.3])
def test_intervals_of_differences_cover_the_truth(gain, monkeypatch):
    """Of two evaluations that hardly differ; and of single pairs, from which nothing can be concluded."""
    monkeypatch.setattr(scores, "RESAMPLES", 300)
    draw, covered, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        tasks = [draw.choice([1.0, -1.0, 0.0], size=28, p=[0.02 + gain, 0.02, 0.96 - gain]) for _ in range(11)]
        low, high = difference_interval(tasks, trial)
        covered += low <= gain <= high
        assert -1 <= low < high <= 1
    assert covered / trials >= 0.91
    low, high = difference_interval([[1.0], [1.0]])
    assert low < 0 and high == 1
    assert difference_interval([[1.0] * 28])[0] > 0.5


def test_the_bootstrap_is_paired_and_seeded():
    """Resampled apart, two runs that differ by a constant would seem to differ by chance."""
    before = [[0.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]
    one = [record(t, i, bool(x)) for t, xs in zip("ab", before, strict=True) for i, x in enumerate(xs)]
    found = compare(one, [r | {"correct": True} for r in one])
    assert found["difference"] == 0.5 and found["interval"][0] < 0.5 < found["interval"][1]
    low, high = compare(one, one)["interval"]
    assert low == -high < 0 and compare(one, one)["p"] == 1.0
    assert bootstrap(before, 3) == bootstrap(before, 3)


# --------------------------------------------------------------------------------------------------------------------
# replies


def test_majority_votes():
    """A vote of those who did not answer; answers that differ in a blank; a tie that goes to whoever is right."""
    right, wrong = record(answer="7 A"), record(correct=False, answer="8")
    assert majority_is_right([right, wrong, record(answer=" 7  a ")])
    assert not majority_is_right([wrong, right]) and majority_is_right([right, wrong])
    none = record(correct=False, answer=None)
    assert majority_is_right([none, none, right]) and not majority_is_right([none, none])


def reply(*turns: tuple[str, str, str]) -> dict:
    """A reply whose programs were run: code, output, status."""
    segments = [{"text": "?", "source": "prompt"}]
    for code, output, _ in turns:
        segments.append({"text": f"Let me see.\n```python\n{code}\n```", "source": "model"})
        segments.append({"text": f"\nCode Execution Results:\n{output}\n", "source": "observation"})
    segments.append({"text": "So <<<6>>>", "source": "model"})
    return record(segments=segments, statuses=[status for *_, status in turns], code_runs=len(turns))


def test_what_is_a_self_check():
    """The share that the paper sees rise in training; a repair is none, nor is a program that is merely run again."""
    first = ("print(2 * 3)", "6", "ok")
    checks = [
        ("x = 6\nassert x == 2 * 3", "(no output)", "ok"),
        ("print(sum([3, 3]) == 6)", "True", "ok"),
        ("print(3 + 3)", "6", "ok"),
    ]
    assert all(checks_itself(reply(first, check)) for check in checks)
    others = [
        ("print(2 *  3)", "6", "ok"),  # the same program, but for blanks
        ("print(4)", "4", "ok"),
        ("x = 1", "(no output)", "ok"),
        ("assert 2 * 3 == 7", "AssertionError", "error"),
        ("print(7 == 8)", "False", "ok"),
    ]
    assert not any(checks_itself(reply(first, other)) for other in others)
    assert not checks_itself(reply(("print(2 * 3", "SyntaxError", "error"), first))  # a repair
    assert not checks_itself(reply(first)) and not checks_itself(reply()) and not checks_itself(reply(checks[0]))
    assert not checks_itself(reply(("x = 1", "(no output)", "ok"), ("y = 2", "(no output)", "ok")))
    assert not checks_itself(reply(first, ("print((" * 500, "5", "ok")))  # code that no parser takes


def test_a_program_that_was_not_run_is_no_program():
    """The last program of a reply out of turns has an observation that says so, and no status."""
    noted = reply(("print(2 * 3)", "6", "ok"), ("print(3 + 3)", "Not run: no code runs are left.", "ok"))
    assert not checks_itself(noted | {"statuses": ["ok"]})


# --------------------------------------------------------------------------------------------------------------------
# figures


def test_the_mean_is_over_tasks():
    """The mean over replies lets the task with the most problems decide."""
    records = [record("a", i, i < 3) for i in range(4)] + [record("b", 0, False)]
    found = figures(records, {"one": ["a"], "none": ["c"]})
    assert found["overall"]["accuracy"] == 0.375 and found["tasks"]["a"]["accuracy"] == 0.75
    assert list(found["groups"]) == ["one"] and found["groups"]["one"]["accuracy"] == 0.75
    assert (found["overall"]["problems"], found["overall"]["tasks"]) == (5, 2)
    # By hand: the bootstrap's ends are 0.125 and 0.5, Wilson's for 0.375 of 5 problems 0.1056 and 0.7530.
    assert found["overall"]["interval"] == pytest.approx([0.1056, 0.7530], abs=1e-4)


def test_figures_of_several_replies():
    """Problems with more replies must not count more; pass@k of a mean is not the mean of pass@k."""
    records = [record("a", 0, x) for x in (True, False, False, False)] + [record("a", 1, True)] * 4
    found = of_task(records)
    assert found["accuracy"] == 0.625 and found["samples"] == 4 and found["problems"] == 2
    assert found["pass@2"] == pytest.approx((0.5 + 1) / 2) and found["pass@4"] == 1.0 and "pass@3" not in found
    assert found["interval"] == [*wilson(1.25, 2)]
    assert "majority" not in of_task(records[:1]) and not any(k.startswith("pass") for k in of_task(records[:1]))


def test_how_the_interpreter_was_used():
    """Shares of replies, and of programs where programs are meant."""
    records = [
        reply(("print(1)", "1", "ok"), ("while 1: 0", "", "timeout")),
        reply(("print(2 * 3)", "6", "ok"), ("print(3 + 3)", "6", "ok")),
        record(answer=None, correct=False, finish="sandbox_error"),
    ]
    found = of_task([r | {"index": i} for i, r in enumerate(records)])
    assert found["code_use"] == pytest.approx(2 / 3) and found["code_runs"] == pytest.approx(4 / 3)
    assert found["timeouts"] == 0.25 and found["self_check"] == found["sandbox_errors"] == pytest.approx(1 / 3)
    assert found["answered"] == pytest.approx(2 / 3) and found["tokens"] == 10


def test_comparison_by_hand():
    """Flips counted the wrong way round; problems that one of them never saw counted as lost."""
    before = [record("a", 0), record("a", 1, False), record("b", 0, False), record("b", 1), record("c", 0)]
    after = [record("a", 0), record("a", 1), record("b", 0), record("b", 1, False), record("d", 0)]
    found = compare(before, after)
    assert found["problems"] == 4 and found["left_out"] == 2
    assert found["won"] == [("a", 1), ("b", 0)] and found["lost"] == [("b", 1)]
    assert found["difference"] == 0.25 and found["tasks"]["a"]["difference"] == 0.5
    assert (found["tasks"]["b"]["before"], found["tasks"]["b"]["after"]) == (0.5, 0.5)
    assert found["p"] == 1.0
    nothing = compare(before[4:], after[4:])
    assert nothing["problems"] == 0 and nothing["difference"] == 0.0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), min_size=1, max_size=30))
def test_figures_keep_their_bounds(drawn):
    """Whatever the replies: shares between 0 and 1, and the mean within its interval."""
    found = figures([record(task, index, correct) for task, index, correct in drawn])
    for part in (found["overall"], *found["tasks"].values()):
        low, high = part["interval"]
        assert 0 <= low <= part["accuracy"] + 1e-9 and part["accuracy"] - 1e-9 <= high <= 1
        assert all(0 <= value <= 1 for name, value in part.items() if name.startswith(("pass", "major", "code_use")))
        assert all(math.isfinite(value) for value in part.values() if isinstance(value, float))
