"""A run that is killed, stopped or out of disk, and goes on: nothing computed is lost, and nothing is different."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from conftest import Coin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_training import random_bundle

import checkpoint
import cli
import grpo
import sft
import tasks
from checkpoint import Checkpoints, load_bundle
from cli import ROOT, UserError, run_main
from curriculum import Bag
from rollout import Rollout
from suites.base import Problem

STEPS = 3
TIMES = ("seconds", "tool_wait", "program_", "prefill_s", "decode", "roofline", "tokens_per", "useful", "prefill_share")


@pytest.fixture(scope="module", autouse=True)
def coins():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        yield


def flags(warm: str, out: Path, *more: str) -> list[str]:
    return [
        "--model", warm, "--out", str(out), "--tasks", "coin", "--problems_per_task", "6", "--steps", str(STEPS),
        "--prompts_per_step", "3", "--group_size", "4", "--max_reply_tokens", "60", "--learning_rate", "2e-4",
        "--save_every", "1", "--held_out_problems", "2", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(warm, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    grpo.main(flags(warm, out))
    return out


def same_run(one: Path, other: Path) -> None:
    """Bit for bit: weights, episodes, and every figure that is not a time."""
    weights = [load_file(run / "checkpoint/model.safetensors") for run in (one, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    if (one / "episodes.jsonl").exists():
        assert (one / "episodes.jsonl").read_text() == (other / "episodes.jsonl").read_text()
    metrics = [
        [
            {k: v for k, v in json.loads(line).items() if not k.startswith(TIMES)}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (one, other)
    ]
    assert metrics[0] == metrics[1]


# --------------------------------------------------------------------------------------------------------------------
# whole runs


SCRIPT = (
    "import sys, tasks, grpo, cli; from conftest import Coin; tasks.TASKS['coin'] = Coin(); cli.run_main(grpo.main)"
)


def test_a_killed_run_goes_on_bit_for_bit(whole, warm, tmp_path):
    """kill -9 at a random moment after the first step, in a rollout, an update, or between two renames of a save."""
    out, moment = tmp_path / "run", random.SystemRandom().uniform(0, 2)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-c", SCRIPT, *flags(warm, out)], env=environment, cwd=ROOT)
    while running.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.05)
    time.sleep(moment)
    running.kill()
    running.wait()
    grpo.main(flags(warm, out, "--resume"))
    same_run(out, whole)
    assert not list((out / "checkpoints").glob(".*")), f"killed {moment:.3f} s after the first step"


@pytest.mark.parametrize("where", ["rollout", "update", "held_out"])
def test_a_run_that_is_stopped_saves_and_goes_on(where, whole, warm, tmp_path, monkeypatch, capsys):
    """SIGTERM comes half a minute before a cluster takes the machine away. Half an update must not be saved, nor half a
    rollout count."""
    out, calls = tmp_path / "run", []

    def stop_at(number: int, function):
        def wrapped(*arguments, **more):
            calls.append(0)
            if len(calls) == number:
                os.kill(os.getpid(), signal.SIGTERM)
            return function(*arguments, **more)

        return wrapped

    with monkeypatch.context() as patch:
        if where == "rollout":
            patch.setattr(Rollout, "on_step", stop_at(40, Rollout.on_step))
        else:
            name = {"update": "policy_loss", "held_out": "held_out_accuracy"}[where]
            patch.setattr(grpo, name, stop_at(2, getattr(grpo, name)))
        with pytest.raises(SystemExit) as ended:
            run_main(lambda: grpo.main(flags(warm, out)))
    assert ended.value.code == 128 + signal.SIGTERM
    assert "stopped by SIGTERM" in (said := capsys.readouterr().err) and "--resume goes on from there" in said
    assert 0 < Checkpoints(out, 2).state((out / "checkpoint").resolve())["step"] < STEPS
    grpo.main(flags(warm, out, "--resume"))
    same_run(out, whole)
    assert f"{out} goes on after step" in capsys.readouterr().out


def test_a_warm_start_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """The order of the second epoch, the learning rate of the step, both moments of the optimizer."""
    arguments = [
        "--tasks",
        "gcd,lcm",
        "--trajectories",
        "64",
        "--batch_size",
        "8",
        "--warmup",
        "3",
        "--save_every",
        "3",
    ]
    sft.main([*arguments, "--out", str(tmp_path / "whole")])
    log = cli.Run.log

    def crash(run: cli.Run, step: int, values: dict) -> None:
        log(run, step, values)
        if step == 10:
            raise RuntimeError("a crash")

    with monkeypatch.context() as patch:
        patch.setattr(cli.Run, "log", crash)
        with pytest.raises(RuntimeError, match="a crash"):
            sft.main([*arguments, "--out", str(tmp_path / "run")])
    sft.main([*arguments, "--out", str(tmp_path / "run"), "--resume"])
    same_run(tmp_path / "run", tmp_path / "whole")


def test_a_finished_run_can_be_made_longer(warm, whole, tmp_path, capsys):
    """The usual wish after looking at the curves; what differs from the run so far is said."""
    out = tmp_path / "run"
    grpo.main(flags(warm, out, "--steps", "2"))
    grpo.main(flags(warm, out, "--resume"))
    same_run(out, whole)
    assert "goes on after step 2, with steps 3 (was 2)" in capsys.readouterr().out
    grpo.main(flags(warm, out, "--resume"))  # nothing is left to do
    same_run(out, whole)


def test_what_cannot_be_resumed(warm, tmp_path):
    """Another pool would draw other problems than the state says; where there is nothing, the run starts."""
    out = tmp_path / "run"
    grpo.main(flags(warm, out, "--steps", "1", "--resume"))
    with pytest.raises(UserError, match="the pool of problems is another: resume with the same --tasks"):
        grpo.main(flags(warm, out, "--resume", "--problems_per_task", "7"))


def test_a_resumed_run_needs_no_warm_start(warm, tmp_path, monkeypatch):
    """The default warm start, trained again for minutes because its folder was cleared away: the run stands on its own
    checkpoint."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(warm, grpo.WARM_START)
    grpo.main(flags(grpo.WARM_START, "run", "--steps", "1"))
    shutil.rmtree("out")
    monkeypatch.setattr(sft, "train", lambda arguments: pytest.fail("trains a warm start"))
    grpo.main(flags(grpo.WARM_START, "run", "--resume"))
    assert len(Path("run/metrics.jsonl").read_text().splitlines()) == STEPS


def test_a_full_disk_leaves_the_last_checkpoint(warm, tmp_path, monkeypatch):
    """A disk that fills up in the second save: the first one is whole, is what the link leads to, and goes on."""
    write, calls = checkpoint.write_bundle, []

    def full(bundle, folder: Path) -> None:
        calls.append(folder)
        if len(calls) == 2:
            (folder / "model.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(bundle, folder)

    monkeypatch.setattr(checkpoint, "write_bundle", full)
    out = tmp_path / "run"
    with pytest.raises(SystemExit, match="step-000002: No space left on device: free some space"):
        run_main(lambda: grpo.main(flags(warm, out)))
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-000001"]
    load_bundle(str(out / "checkpoint"))
    grpo.main(flags(warm, out, "--resume", "--steps", "2"))
    assert (out / "checkpoint").resolve().name == "step-000002"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1]  # what was logged before the save that failed is taken back


# --------------------------------------------------------------------------------------------------------------------
# their parts


def test_which_checkpoints_are_kept(tmp_path):
    """A run of a thousand steps would fill the disk; the best one must not be among those that go."""
    bundle, kept = random_bundle(), Checkpoints(tmp_path, 2)
    assert kept.last() is None
    for step in range(1, 6):
        kept.save(step, bundle, lambda folder: None, {"step": step}, best=step == 2)
        assert kept.last().name == f"step-{step:06d}" and kept.state(kept.last()) == {"step": step}
    assert sorted(path.name for path in kept.folder.iterdir()) == ["step-000002", "step-000004", "step-000005"]
    assert (tmp_path / "best").resolve().name == "step-000002"
    load_bundle(str(tmp_path / "best"))
    shutil.move(tmp_path, tmp_path.with_name("moved"))  # the links are relative
    assert Checkpoints(tmp_path.with_name("moved"), 2).last().name == "step-000005"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=12), st.integers(0, 12), st.integers(0, 99))
def test_a_bag_goes_on_where_it_was(size, takes, at, seed):
    """Every problem once before any comes again, also over a resume, and after the state has been JSON."""
    pool = [Problem("coin", i, "", "") for i in range(size)]
    takes = [min(take, size) for take in takes]
    bag, other, taken = Bag(pool, seed), Bag(pool, seed + 1), []
    for i, take in enumerate(takes):
        if i == at:
            other.restore(json.loads(json.dumps(bag.state())))
        got = bag.take(take)
        assert len(got) == take
        taken += got
        if i >= at:
            assert other.take(take) == got
    for start in range(0, len(taken) - size + 1, size):
        assert len({problem.index for problem in taken[start : start + size]}) == size
