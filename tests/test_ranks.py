"""Two and three processes against one: the same losses, gradients, weights and episodes."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import ranks
import torch
from accelerate import PartialState
from conftest import Coin, write_coin_trajectories
from safetensors.torch import load_file
from test_training import random_bundle

import grpo
import sft
import tasks
from checkpoint import save_bundle
from cli import ROOT

UPDATES = (
    "supervised", "recomputed", "replicated", "one update", "three updates", "mean per episode", "ratio per episode",
    "one busy rank",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random model, coins to learn from, and a model that has."""
    PartialState(cpu=True)
    folder = tmp_path_factory.mktemp("ranks")
    save_bundle(random_bundle(), folder / "model")
    write_coin_trajectories(folder / "coins.jsonl", 55)
    write_coin_trajectories(folder / "many.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        pool = tasks.problems("coin", "rl", 5)
    counts = [{"task": "coin", "index": p.index, "right": 2 * i, "samples": 20} for i, p in enumerate(pool)]
    (folder / "measured.jsonl").write_text("".join(json.dumps(line) + "\n" for line in counts))
    tiny, many = str(ROOT / "assets/tiny"), str(folder / "many.jsonl")
    arguments = sft.SFTArguments(model=tiny, out=str(folder / "sft"), data=many, epochs=3, warmup=3)
    sft.train(arguments).resolve().rename(folder / "warm")
    return folder


@pytest.fixture(scope="module")
def alone(folder) -> Path:
    out = folder / "1"
    out.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        ranks.work(folder, out)
    return out


@pytest.fixture(scope="module")
def begun(folder) -> Path:
    """A run of which one process has done the first of two steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        grpo.train(grpo.GRPOArguments(out=str(folder / "begun"), steps=1, **ranks.coin_settings(folder)))
    return folder / "begun"


@cache
def launch(folder: Path, begun: Path, processes: int) -> Path:
    """What that many processes made of the same work; a rank that waits for ever is stopped."""
    out = folder / str(processes)
    shutil.copytree(begun, out / "resumed", symlinks=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launch, str(Path(ranks.__file__)), str(folder), str(out)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture(scope="module", params=[2, 3])
def together(request, folder, begun) -> Path:
    return launch(folder, begun, request.param)


@pytest.fixture(scope="module")
def two(folder, begun) -> Path:
    return launch(folder, begun, 2)


def norm_of_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """|a - b| / |b| over all parameters."""
    assert a.keys() == b.keys()
    difference = sum(float((a[name] - b[name]).double().square().sum()) for name in a)
    return (difference / sum(float(b[name].double().square().sum()) for name in b)) ** 0.5


@pytest.mark.parametrize("name", UPDATES)
def test_ranks_add_up_to_one_process(name, alone, together):
    """Averages where sums belong, a denominator per rank, a micro-batch that one rank skips, updates drawn per rank:
    training then depends on the number of GPUs. The last case leaves all the work to one rank; the others must neither
    hang nor count."""
    one, many = (torch.load(out / "results.pt")[name] for out in (alone, together))
    assert many["figures"] == pytest.approx(one["figures"], rel=1e-5, abs=1e-6)
    assert len(many["gradients"]) == len(one["gradients"]) == (3 if name == "three updates" else len(one["gradients"]))
    for ours, theirs in zip(many["gradients"], one["gradients"], strict=True):
        assert norm_of_difference(ours, theirs) < 1e-5
    assert norm_of_difference(many["weights"], one["weights"]) < 1e-6


def test_no_rank_has_signal(alone, together):
    """All groups flat, everywhere: no update, and nobody waits."""
    for out in (alone, together):
        result = torch.load(out / "results.pt")["no signal"]
        assert result["gradients"] == [] and result["figures"]["grad_norm"] == 0


def test_a_tensor_left_out_of_the_copy_is_caught(together):
    """Rollouts by weights of the step before look like learning that is merely slow."""
    said = torch.load(together / "results.pt")["skipped"]
    assert said == "the copy that generates is not what was trained: layers.1.mlp.down_proj.weight"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("script", ["grpo", "resumed", "claimed", "evaluated"])
def test_the_same_episodes(script, alone, two):
    """Episodes numbered or seeded per rank: another number of GPUs is another experiment. The second step is sampled by
    weights that the first has changed; also where one process has done the first, and several go on, and where
    the ranks take groups as they have room."""
    one, many = (lines(out / script / "episodes.jsonl") for out in (alone, two))
    assert many == one
    assert script == "evaluated" or any(e["advantage"] for e in one)
    assert any(e["code_runs"] for e in one)


def test_the_same_evaluation(alone, two):
    """Figures of the first rank's share, or means of means over ranks."""
    one, many = (json.loads((out / "evaluated/evaluation.json").read_text())["results"] for out in (alone, two))
    assert one == many
    one, many = ((out / "measured/measured.jsonl").read_text() for out in (alone, two))
    assert one == many and len(one.splitlines()) == 7


@pytest.mark.parametrize("script", ["sft", "grpo", "resumed", "claimed"])
def test_the_same_run(script, alone, two):
    """Metrics of the first rank alone, on held-out data too, or weights that were gathered from the wrong one."""
    skip = (
        "seconds", "tool_wait", "program_", "passes", "busy_passes", "slots_busy", "prefill", "decode", "roofline",
        "tokens_per", "useful", "rank_idle",
    )  # fmt: skip
    for one, many in zip(*(lines(out / script / "metrics.jsonl") for out in (alone, two)), strict=True):
        assert one.keys() == many.keys()
        for name in one:
            if not name.startswith(skip):
                assert many[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name
    one, many = (load_file(out / script / "checkpoint/model.safetensors") for out in (alone, two))
    assert norm_of_difference(many, one) < 1e-4
