"""Studies: what is run again, what is not, and the arithmetic of their tables."""

import json
import sys
import time

import pytest

from cli import ROOT

sys.path.insert(0, str(ROOT / "runs"))
import sft_study
import study
import wide
from study import BASE, WARM, Runs, Study, cpu_seconds, done_once, figure, mean_and_half_width, run_study, table

import scripted
from tasks import problems
from trajectories import load_trajectories


def result(sampled: float, seed: int) -> dict:
    curve = {"accuracy": [0.1, sampled], "code_use": [0.5, 1.0], "seconds/cpu": [4.0, 8.0]}
    return {
        "sampled": sampled, "cooler": sampled + 0.05, "greedy": sampled + 0.1, "code_use": 0.5, "problems": 20,
        "cpu_seconds": 10.0 + seed, "curve": curve,
    }  # fmt: skip


def test_intervals_by_hand():
    """A normal quantile in place of Student's t makes three seeds look like thirty."""
    # mean 2, standard deviation 1, t = 4.303 with 2 degrees of freedom, 4.303 / sqrt 3 = 2.484
    assert mean_and_half_width([1.0, 2.0, 3.0]) == (2.0, pytest.approx(2.484, abs=1e-3))
    assert mean_and_half_width([1.0])[1] == float("inf")


def test_table_compares_seed_by_seed(tmp_path):
    """Seeds differ more than arms do: unpaired, a difference drowns in the spread of the warm starts."""
    some = Study({"a": "", "b": "--kl 1"}, reference="a")
    results = {
        BASE: {s: {k: v for k, v in result(0.0, s).items() if k not in ("cpu_seconds", "curve")} for s in range(3)},
        "a": {s: result(0.5 + 0.1 * s, s) for s in range(3)},
        "b": {s: result(0.45 + 0.1 * s, s) for s in range(3)},
    }
    rows = table(some, results).splitlines()
    columns = "sampled | at temperature 0.6 | greedy | code use | while training | CPU s of training | sampled, minus a"
    assert rows[0] == f"|  | {columns} |"
    assert rows[
        3
    ] == "| a | 0.600 (0.500, 0.600, 0.700) | 0.650 (0.550, 0.650, 0.750) | 0.700 (0.600, 0.700, 0.800) | " + (
        "0.500 (0.500, 0.500, 0.500) | 0.350 | 11 (10-12) |  |"
    )
    assert rows[4].endswith("| 0.325 | 11 (10-12) | -0.050 ± 0.000 |") and rows[2].split(" | ")[5] == ""
    for name in ("one", "two"):
        figure(some, results, tmp_path / f"{name}.svg")
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_run_is_not_repeated_unless_it_would_differ(tmp_path):
    """An hour lost to an interruption; or, worse, figures of other flags than the table says."""
    calls = []

    def work() -> dict:
        calls.append(1)
        return {"figure": len(calls)}

    record = tmp_path / "run.json"
    assert [done_once(record, key, work)["figure"] for key in ("a", "a", "b", "b", "a")] == [1, 1, 2, 2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_warm_starts_are_shared_and_arms_start_from_their_own(tmp_path, monkeypatch):
    """Arms that start from different warm starts, or all from that of one seed, differ by more than their flags."""
    commands = []

    def fake(command: list[str], log) -> float:
        commands.append(" ".join(command[1:]))
        out = tmp_path / command[command.index("--out") + 1]
        out.mkdir()
        (out / "metrics.jsonl").write_text('{"accuracy": 0.5, "seconds/cpu": 1.0}\n')
        figures = {"overall": {"accuracy": 0.5, "code_use": 1.0, "problems": 9}}
        (out / "evaluation.json").write_text(json.dumps({"results": {"x": {"sampled": figures, "greedy": figures}}}))
        return 1.0

    monkeypatch.setattr(study, "cpu_seconds", fake)
    some = Study({"a": "", "b 1.2": "--kl 1"}, seeds=(3, 4), split="dev", samples=2)
    results = run_study(some, tmp_path, jobs=4)
    assert list(results) == [BASE, WARM, "a", "b 1.2"] and all(list(seeds) == [3, 4] for seeds in results.values())
    assert sum(command.startswith("sft.py") for command in commands) == 2
    for seed in (3, 4):
        (b,) = [command for command in commands if command.startswith("grpo.py") and f"b-1.2-{seed} " in command]
        assert (
            f"--seed {seed}" in b and f"--model {tmp_path}/warm-start-{seed}/checkpoint" in b and b.endswith("--kl 1")
        )
    assert sum("--split dev --samples 2" in command for command in commands) == 16
    assert len({*tmp_path.glob("*.json")}) == 8  # a name with a dot in it keeps what follows
    before = len(commands)
    Runs(some, tmp_path).arm("a", 3)
    assert len(commands) == before


def test_a_warm_start_that_fails_ends_the_study(tmp_path, monkeypatch):
    """Every arm of every seed tried it again, for hours, before a line said why."""
    calls = []

    def fake(command, log):
        calls.append(command)
        time.sleep(0.1)  # as long as it takes for somebody to be told
        raise SystemExit("no room")

    monkeypatch.setattr(study, "cpu_seconds", fake)
    some = Study({f"arm {i}": "" for i in range(50)}, seeds=(3, 4))
    with pytest.raises(SystemExit, match="no room"):
        run_study(some, tmp_path, jobs=2)
    assert len(calls) < 10


def test_a_stage_of_the_wide_run_stands_on_those_before_it(tmp_path, monkeypatch, capsys):
    """Tables of 80 steps printed as those of 160: the evaluation's own command had not changed."""
    ran = []

    def fake(command, log):
        ran.append(command[command.index("--out") + 1].rsplit("/")[-1])
        log.write_text("sampled  \n")
        return 1.0

    monkeypatch.setattr(scripted, "PROGRAMS", dict(scripted.PROGRAMS))
    monkeypatch.setattr(wide, "cpu_seconds", fake)
    monkeypatch.setattr(wide, "teach", lambda *_: ran.append("teacher") or {})
    stages = ["teacher", "sft", "grpo", "evaluation-train", "evaluation-test"]
    changes = {"--steps 3": 2, "--epochs 1 --steps 3": 1, "--trajectories 9": 0, "--trajectories 9 --model x": 0}
    for flags, first in {"": 0, **changes}.items():
        for expected in (stages[first:], []):
            ran.clear()
            monkeypatch.setattr(sys, "argv", ["wide.py", "--out", str(tmp_path / "out"), *flags.split()])
            wide.main()
            assert ran == expected


def test_cpu_time_counts_children_and_failures_name_their_log(tmp_path):
    """A program's own time alone leaves out every program that the model wrote."""
    burn = "import subprocess, sys, time\nwhile time.process_time() < 0.3: pass\n"
    nested = burn + f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
    assert cpu_seconds([sys.executable, "-c", nested], tmp_path / "log") > 0.6
    with pytest.raises(SystemExit, match=r"failed \(.*log\): ValueError: oh"):
        cpu_seconds([sys.executable, "-c", "raise ValueError('oh')"], tmp_path / "log")


def test_arms_that_need_a_measurement_get_one(tmp_path, monkeypatch):
    """A curriculum by the potential of another seed's warm start, or one measured anew for every arm."""
    commands = []

    def evaluated(self, checkpoint, folder, seed):
        return {"sampled": 0.5, "greedy": 0.5, "code_use": 0.5, "problems": 3, "evaluation_cpu_seconds": 1.0}

    def trained(self, script, folder, flags, seed):
        commands.append([script, *flags.split()])
        return {"checkpoint": f"warm-{seed}", **evaluated(self, None, folder, seed)}

    monkeypatch.setattr(study, "cpu_seconds", lambda command, log: commands.append([*map(str, command[1:])]) or 1.0)
    monkeypatch.setattr(Runs, "_run", trained)
    some = Study({"a": "", "b": "--curriculum potential --measured {measured}"}, seeds=(3, 4), common="--kl 0.5")
    run_study(some, tmp_path, 2)
    measured = [command for command in commands if command[0] == "measure.py"]
    assert sorted(command[2] for command in measured) == ["warm-3", "warm-4"]
    assert all(command[-2:] == ["--kl", "0.5"] for command in measured)
    trained_by = {command[2]: command for command in commands if "potential" in command}
    for seed in ("3", "4"):
        assert str(tmp_path / f"measured-{seed}/measured.jsonl") in trained_by[seed] and "0.5" in trained_by[seed]


def test_every_arm_of_the_sft_study_is_taught_what_it_says(tmp_path, monkeypatch):
    """An arm that gets another's trajectories, fewer of them, or a task that is meant to be unseen."""
    monkeypatch.setattr(sft_study, "COUNT", 64)
    found = {}
    for arm in sft_study.MIXES:
        sft_study.teach(arm, 0, tmp_path / "data.jsonl")
        found[arm], _ = load_trajectories(str(tmp_path / "data.jsonl"))
        assert len(found[arm]) == 64
    programs = {arm: [sum(s["source"] == "observation" for s in t) for t in ts] for arm, ts in found.items()}
    assert set(programs["text only"]) == {0} and set(programs["no multi-turn"]) == {0, 1}
    assert min(programs["code only"]) == 1 and max(programs["code only"]) == max(programs[sft_study.ALL]) == 2
    taught = {task: {p.question for p in problems(task, "sft", 64)} for task in (*sft_study.SEEN, *sft_study.UNSEEN)}
    for trajectories in found.values():
        asked = {trajectory[0]["text"] for trajectory in trajectories}
        assert all(asked & taught[name] for name in sft_study.SEEN)
        assert not any(asked & taught[name] for name in sft_study.UNSEEN)
    kinds = {
        name: {n for t, n in zip(found["no varied prompts"], programs["no varied prompts"], strict=True)
               if t[0]["text"] in taught[name]}
        for name in sft_study.SEEN
    }  # fmt: skip
    assert all(len(kind) == 1 for kind in kinds.values()) and len({*map(min, kinds.values())}) == 3


def test_the_table_of_the_sft_study():
    """Seen and unseen exchanged, or a difference that is not paired by seed."""
    seen, unseen = sft_study.SEEN, sft_study.UNSEEN

    def figures(a: float, b: float) -> dict:
        tasks = dict.fromkeys(seen, a) | dict.fromkeys(unseen, b)
        return {"tasks": tasks, "greedy": tasks, "code_use": 0.5}

    results = {
        sft_study.ALL: {s: figures(0.5 + s / 10, 0.1) for s in range(3)},
        "text only": {s: figures(0.4 + s / 10, 0.2) for s in range(3)},
    }
    row = sft_study.table(results).splitlines()[-1]
    assert row.startswith("| text only | 0.500 (0.400, 0.500, 0.600) | 0.200 (0.200, 0.200, 0.200) |")
    assert row.endswith("| 0.50 | -0.100 ± 0.000 | +0.100 ± 0.000 |")
