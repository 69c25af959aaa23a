"""Curricula: groups by hand, the course of stages, resume; the measurement that they stand on; refills."""

import json
import random
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import PartialState
from conftest import Coin
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import flags, same_run

import curriculum
import grpo
import measure
import tasks
from checkpoint import load_bundle
from cli import UserError
from curriculum import STAGES, Bag, Curriculum, CurriculumArguments, group_of, potential, quantile_groups
from measure import MeasureArguments
from rollout import Rollout
from suites.base import Problem
from tasks import problems


@pytest.fixture(scope="module", autouse=True)
def coins():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        yield


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# --------------------------------------------------------------------------------------------------------------------
# groups


def test_the_papers_groups():
    """4 * 0.8 * 0.2 is 0.6399... in floating point, and the first group loses two of its thirteen counts."""
    groups = {group: [right for right in range(21) if group_of(right, 20) == group] for group in range(STAGES)}
    assert groups == {0: [*range(4, 17)], 1: [3, 17], 2: [2, 18], 3: [0, 1, 19, 20]}
    assert group_of(1, 5) == group_of(4, 5) == 0 and potential(10, 20) == 1 and group_of(0, 0) == 3


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 9))
def test_quantiles_are_equally_large_and_in_order(values, seed):
    """Ties all put into one group, or an order turned round, which is another curriculum."""
    groups = quantile_groups(values, seed)
    sizes = Counter(groups)
    assert max(sizes.values()) - min(sizes[g] for g in range(STAGES)) <= 1
    assert all(
        a >= b for a, i in zip(values, groups, strict=True) for b, j in zip(values, groups, strict=True) if i < j
    )
    assert groups == quantile_groups(values, seed)


# --------------------------------------------------------------------------------------------------------------------
# stages


POOL = [Problem("coin", i, "", "") for i in range(42)]


def measured(folder: Path, counts: list[int]) -> str:
    """A file of measurements: problem i has counts[i] right answers of 20."""
    path = folder / "measured.jsonl"
    lines = [{"task": "coin", "index": i, "right": right, "samples": 20} for i, right in enumerate(counts)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def twice(tmp_path) -> str:
    """Every count from 0 to 20 twice."""
    return measured(tmp_path, [*range(21), *range(21)])


def made(kind: str, path: str, batch: int = 4, steps: int = 40, **more) -> Curriculum:
    return Curriculum(POOL, CurriculumArguments(curriculum=kind, measured=path, **more), 1, steps, batch)


def of_stages(made: Curriculum, steps: int, batch: int = 4) -> list[set[int]]:
    """What is drawn in each quarter of the steps: counts of right answers."""
    drawn = [{problem.index % 21 for problem in made.take(batch, step)} for step in range(steps)]
    return [set().union(*drawn[i * steps // 4 : (i + 1) * steps // 4]) for i in range(4)]


def test_stages_are_cumulative(twice):
    """Stage 2 without the problems of stage 1 forgets them; the paper's stages are unions."""
    one = {*range(4, 17)}
    two, three = one | {3, 17}, one | {3, 17, 2, 18}
    stages = of_stages(made("potential", twice, steps=80), 80)
    assert stages == [one, two, three, {*range(21)}]
    assert of_stages(made("potential", twice, stage_steps=80), 80) == [one] * 4
    longer = made("potential", twice, steps=80, stage_steps=1)
    assert [longer.take(4, step) and longer.metrics()["stage"] for step in range(7)] == [1, 2, 3, 4, 4, 4, 4]
    assert longer.metrics() == {"stage": 4, "stage_problems": 42}


def test_other_orders(twice):
    """A difficulty curriculum that begins with the hard ones is no curriculum; one that ignores its measurement is
    uniform under another name."""
    easiest = of_stages(made("difficulty", twice, steps=160), 160)
    assert min(easiest[0]) >= 15 and min(easiest[1]) == 10 and easiest[3] == {*range(21)}
    equally = of_stages(made("potential", twice, steps=160, groups="quantiles"), 160)
    assert equally[0] <= {*range(7, 14)} and len(equally[1]) >= 10 and equally[3] == {*range(21)}
    assert of_stages(made("uniform", "", steps=160), 160) == [{*range(21)}] * 4
    assert made("uniform", "").metrics() == {}


def test_uniform_draws_as_ever():
    """The default is the Bag of old, seed and all: else every figure of the docs is of another run."""
    bag, now = Bag(POOL, 1), made("uniform", "")
    assert [bag.take(5) for _ in range(20)] == [now.take(5, step) for step in range(20)]


@pytest.mark.parametrize("steps", [4, 5, 6, 9, 40])
def test_every_stage_comes_and_none_twice(twice, steps):
    """Quarters rounded up leave no step for the last stage of a short run; and a finished run that is made twice as
    long is in the third of its longer stages, which it has left behind."""

    def stages(curriculum: Curriculum, since: int, steps: int) -> list[int]:
        return [curriculum.take(4, step) and curriculum.metrics()["stage"] for step in range(since, steps)]

    short, longer = made("potential", twice, steps=steps), made("potential", twice, steps=2 * steps)
    seen = stages(short, 0, steps)
    assert seen == sorted(seen) and set(seen) == {1, 2, 3, 4}
    longer.restore(json.loads(json.dumps(short.state())))
    assert stages(longer, steps, 2 * steps) == [4] * steps


def test_what_a_curriculum_does_not_go_on_with(twice, tmp_path):
    """The same numbers of problems in another pool are other problems; and a curriculum that is switched on by a
    resumed run did nothing until its next stage."""
    state = made("online", twice).state()
    with pytest.raises(UserError, match="the curriculum was online by edges: resume with the same --curriculum"):
        made("potential", twice).restore(state)
    with pytest.raises(UserError, match="the curriculum was online by edges"):
        made("online", twice, groups="quantiles").restore(state)
    arguments = CurriculumArguments(curriculum="online", measured=twice)
    with pytest.raises(UserError, match="the pool of problems is another"):
        Curriculum(POOL[::-1], arguments, 1, 40, 4).restore(state)


def test_a_stage_that_is_too_small_borrows(tmp_path):
    """A first stage of three problems would be sampled three at a time, or fail after an hour."""
    small = made("potential", measured(tmp_path, [0] * 39 + [10, 3, 2]), batch=3)
    assert small.metrics()["stage_problems"] == 3 and {p.index for p in small.take(3, 0)} == {39, 40, 41}
    assert made("potential", measured(tmp_path, [0] * 41 + [10]), batch=2).metrics()["stage_problems"] == 42


def test_online_estimates_follow_training(twice):
    """Estimates of the start that are never renewed, or renewed within a stage, so that a problem comes and goes."""
    online = made("online", twice, stage_steps=2)
    chosen = set(online.chosen)
    assert 0 not in chosen and 10 in chosen
    for _ in range(8):  # problem 0 is now half right, problem 10 always
        online.observe([(POOL[0], i % 2 == 0) for i in range(8)] + [(POOL[10], True)] * 8)
        online.take(4, 0)
        assert set(online.chosen) == chosen
    right, samples = online.counts["coin", 0]
    # by hand: 0 of 20, then eight times half of it, and 4 of 8
    assert samples == pytest.approx(20 / 256 + 8 * (2 - 2**-7)) and right == pytest.approx(4 * (2 - 2**-7))
    online.take(4, 2)
    assert 0 in online.chosen and 10 not in online.chosen
    fixed = made("potential", twice)
    fixed.observe([(POOL[0], True)])
    assert fixed.counts["coin", 0] == (0, 20)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(curriculum.CURRICULA), st.integers(0, 15), st.integers(0, 99))
def test_a_curriculum_goes_on_where_it_was(kind, at, seed):
    """Whatever the kind, at a change of stage too, and after the state has been JSON. A state must not change with what
    is drawn after it: a run that is stopped in a rollout saves the one from before."""
    path = Path(__file__).parent / "data/measured.jsonl"
    arguments = CurriculumArguments(curriculum=kind, measured=str(path) if kind != "uniform" else "", stage_steps=3)
    one, other = (Curriculum(POOL[:10], arguments, seed, 16, 3) for _ in range(2))
    draw = random.Random(seed)
    for step in range(16):
        if step == at:
            state = one.state()
            stored = json.dumps(state)
            one.take(3, step)
            assert json.dumps(state) == stored
            one.restore(json.loads(stored))
            other.restore(json.loads(stored))
        got = one.take(3, step)
        outcomes = [(problem, draw.random() < 0.5) for problem in got for _ in range(4)]
        one.observe(outcomes)
        if step >= at:
            assert other.take(3, step) == got and other.metrics() == one.metrics()
            other.observe(outcomes)


def test_measurements_that_do_not_fit_are_refused(twice, tmp_path):
    """Each would train on something else than was meant, or end in a traceback."""
    with pytest.raises(UserError, match=r"--curriculum potential needs --measured: python measure\.py"):
        made("potential", "")
    with pytest.raises(UserError, match=r"cannot be read .*python measure\.py makes such a file"):
        made("online", str(tmp_path / "nowhere"))
    for text in ("nonsense\n", '{"task": "coin"}\n', "[1]\n"):
        (tmp_path / "bad.jsonl").write_text(text)
        with pytest.raises(UserError, match=r"is not what measure\.py writes"):
            made("potential", str(tmp_path / "bad.jsonl"))
    with pytest.raises(UserError, match="impossible counts for coin #1"):
        made("potential", measured(tmp_path, [3, 21]))
    with pytest.raises(UserError, match="knows 2 of the 42 problems: measure the same --tasks"):
        made("potential", measured(tmp_path, [3, 20]))
    with pytest.raises(UserError, match="unknown curriculum 'hardest'"):
        grpo.GRPOArguments(curriculum="hardest")


# --------------------------------------------------------------------------------------------------------------------
# measuring


def settings_of(warm: str, out: Path, **more) -> MeasureArguments:
    defaults = {"tasks": "coin", "problems_per_task": 7, "samples": 6, "max_reply_tokens": 60}
    return MeasureArguments(model=warm, out=str(out), **(defaults | more))


@pytest.fixture(scope="module")
def file(warm, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "CHUNK", 3)
        return measure.measure(settings_of(warm, tmp_path_factory.mktemp("measured") / "all"))


def test_what_is_measured(file, warm):
    """A chunk counted twice or for its neighbour, or answers of other problems than training draws."""
    found = records(file)
    assert [(r["task"], r["index"]) for r in found] == [("coin", p.index) for p in problems("coin", "rl", 7)]
    assert all(r["samples"] == 6 and r["styles"] == {"bare": [r["right"], 6]} for r in found)
    assert all(r["potential"] == potential(r["right"], 6) for r in found)
    with settings_of(warm, file).executor() as executor:
        rollout = Rollout(load_bundle(warm), executor, settings_of(warm, file), 0)
        episodes, _ = rollout(problems("coin", "rl", 7)[3:6], 6, 1.0, 1)
    right = Counter(e.problem.index for e in episodes if e.correct)
    assert [r["right"] for r in found[3:6]] == [right[r["index"]] for r in found[3:6]]
    assert 0 < sum(r["right"] for r in found) < 42
    names = {path.name for path in file.parent.iterdir()}
    assert names == {"measured.jsonl", "measured.svg", "summary.txt", "config.yaml"}
    assert (file.parent / "summary.txt").read_text().splitlines()[-1].split()[:2] == ["all", "7"]


def test_a_measurement_goes_on(file, warm, tmp_path, monkeypatch):
    """Hours of sampling that begin anew, or go on with other settings under the same name."""
    monkeypatch.setattr(measure, "CHUNK", 3)
    chunks = []
    real = measure.asked
    monkeypatch.setattr(measure, "asked", lambda *a: chunks.append(a[3]) or real(*a))
    out = tmp_path / "again"
    measure.measure(settings_of(warm, out))
    whole = (out / "measured.jsonl").read_text()
    assert whole == file.read_text() and chunks == [0, 1, 2]
    (out / "measured.jsonl").write_text("".join(whole.splitlines(keepends=True)[:3]) + '{"task": "co')
    measure.measure(settings_of(warm, out))
    assert (out / "measured.jsonl").read_text() == whole and chunks[3:] == [1, 2]
    with pytest.raises(UserError, match="was begun with --samples 6: take that, or another --out"):
        measure.measure(settings_of(warm, out, samples=5))
    with pytest.raises(UserError, match="--samples 5 is no multiple of the 2 styles"):
        measure.measure(settings_of(warm, tmp_path / "odd", samples=5, styles="bare,free"))
    with pytest.raises(UserError, match="unknown prompt style 'fancy'"):
        measure.measure(settings_of(warm, tmp_path / "odd", styles="fancy"))


def test_styles_share_the_answers(warm, tmp_path):
    """Four agents of which one answered everything."""
    for record in records(measure.measure(settings_of(warm, tmp_path / "two", styles="bare,text", samples=4))):
        assert {style: asked for style, (_, asked) in record["styles"].items()} == {"bare": 2, "text": 2}
        assert record["right"] == sum(right for right, _ in record["styles"].values()) and record["samples"] == 4


def test_answers_that_the_sandbox_failed_are_none(monkeypatch):
    """A problem that is always right has the largest potential of all, where half of its answers were lost to a machine
    without processes; and is never measured again."""

    def episode(index: int, correct: bool, finish: str = "answer") -> SimpleNamespace:
        return SimpleNamespace(problem=POOL[index], correct=correct, finish=finish)

    half = [episode(0, True)] * 2 + [episode(0, False, "sandbox_error")] * 2
    lost = [episode(1, False, "sandbox_error")] * 4
    arguments = SimpleNamespace(samples=4, temperature=1.0, deterministic=True)
    (record,) = measure.asked({"bare": lambda *_: (half + lost, None)}, POOL[:2], arguments, 0, "")
    assert (record["index"], record["right"], record["samples"], record["potential"]) == (0, 2, 2, 0.0)
    assert record["styles"] == {"bare": [2, 2]}


def test_pools_may_grow(warm, tmp_path, monkeypatch):
    """Problems that come to a measured pool: a chunk that was known in part stood in the file twice."""
    monkeypatch.setattr(measure, "CHUNK", 3)
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    lines = [json.dumps({"question": f"{i}?", "answer": str(i)}) for i in range(7)]
    counts = []
    for size in (6, 7):
        (tmp_path / "my.jsonl").write_text("\n".join(lines[:size]))
        file = measure.measure(settings_of(warm, tmp_path / "own", tasks=str(tmp_path / "my.jsonl"), samples=2))
        counts.append([record["index"] for record in records(file)])
    assert len(counts[0]) % 3 and counts[1] == [*counts[0], 6]


# --------------------------------------------------------------------------------------------------------------------
# whole runs


def test_training_tells_the_curriculum_of_outcomes_only(file, warm, tmp_path, monkeypatch):
    """Episodes that the sandbox failed, taken for wrong answers, make of an easy problem one with much to learn."""
    real, told = grpo.sample, []

    def sample(*arguments):
        episodes, stats = real(*arguments)
        episodes[0].finish, episodes[0].correct = "sandbox_error", False
        return episodes, stats

    monkeypatch.setattr(grpo, "sample", sample)
    monkeypatch.setattr(Curriculum, "observe", lambda self, outcomes: told.append(len([*outcomes])))
    grpo.main(flags(warm, tmp_path / "run", "--curriculum", "online", "--measured", str(file)))
    assert told == [11, 11, 11]


def test_a_staged_run_with_refills_goes_on(file, warm, tmp_path):
    """A resumed run that begins its stage anew, or forgets what it has learnt of the problems."""
    more = ["--curriculum", "online", "--measured", str(file), "--stage_steps", "1", "--refills", "2"]
    grpo.main(flags(warm, tmp_path / "whole", *more))
    grpo.main([*flags(warm, tmp_path / "halves", *more), "--steps", "2"])
    grpo.main([*flags(warm, tmp_path / "halves", *more), "--resume"])
    same_run(tmp_path / "halves", tmp_path / "whole")
    assert [line["stage"] for line in records(tmp_path / "whole/metrics.jsonl")] == [1, 2, 3]


def test_refills_replace_groups_without_signal(warm, tmp_path):
    """Refills that never end, draw the same episodes again, or leave the batch as thin as it was."""
    grpo.main(flags(warm, tmp_path / "plain"))
    grpo.main(flags(warm, tmp_path / "refilled", "--refills", "3"))
    runs = {name: records(tmp_path / name / "episodes.jsonl") for name in ("plain", "refilled")}
    first = {name: [e for e in run if e["step"] == 0] for name, run in runs.items()}
    assert first["refilled"][:12] == first["plain"][:12]
    for step in range(3):
        episodes = [e for e in runs["refilled"] if e["step"] == step]
        assert [e["id"] for e in episodes] == [*range(len(episodes))] and len(episodes) % 4 == 0
        live = {e["group"] for e in episodes if e["advantage"]}
        groups = len(episodes) // 4
        assert len(live) == 3 or groups >= 3 + 3  # enough, or three refills of at least one
        texts = {(e["index"], json.dumps(e["segments"]), e["id"]) for e in episodes}
        assert len(texts) == len(episodes)
    counts = {name: [sum(e["step"] == step for e in run) for step in range(3)] for name, run in runs.items()}
    assert counts["plain"] == [12] * 3 and max(counts["refilled"]) > 12
    lines = records(tmp_path / "refilled/metrics.jsonl")
    assert [line["sampled_tokens"] for line in lines] == [
        sum(e["sampled_tokens"] for e in runs["refilled"] if e["step"] == step) for step in range(3)
    ]
