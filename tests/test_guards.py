"""Runs that have come apart are stopped, with their best checkpoint; healthy ones are left alone."""

import json
import random

import pytest
from accelerate import PartialState
from conftest import Coin
from test_resume import flags

import grpo
import tasks
from cli import UserError, run_main
from guards import Guards


def step(**more) -> dict:
    """A step of a healthy run."""
    healthy = {
        "accuracy": 0.5, "reward": 0.5, "reply_tokens": 100.0, "live": 0.6, "entropy": 0.2, "kl": 0.02,
        "grad_norm": 0.3, "clip_fraction": 0.01,
    }  # fmt: skip
    return healthy | more


def watched(*steps: dict) -> list[str]:
    guards = Guards()
    return [line for metrics in steps for line in guards.look(metrics)]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"entropy": 0.004}, r"the entropy has collapsed, from 0\.200 nats to 0\.0040.*Lower --learning_rate"),
        ({"kl": 11.0}, r"KL to the start has exploded, to 11\.0 nats"),
        ({"grad_norm": 31.0}, r"the gradient norm has exploded, from 0\.30 to 31\.0"),
    ],
)
def test_a_collapse_stops_the_run(broken, said):
    """A run that goes on for hours after it has come apart; or one that ends at a single wild step."""
    healthy = [step()] * 5
    with pytest.raises(UserError, match=f"stopped after step 8: {said}"):
        watched(*healthy, *[step(**broken)] * 3)
    # Steps without an update have nothing to say; a healthy one in between breaks the row.
    idle = step(live=0.0, entropy=0.0, grad_norm=0.0)
    assert watched(*healthy, *[step(**broken)] * 2, step(), *[step(**broken)] * 2, *[idle] * 9) == []
    with pytest.raises(UserError, match="stopped after step 9"):
        watched(*healthy, *[step(**broken)] * 2, idle, step(**broken))


def test_healthy_runs_are_left_alone():
    """A guard that ends a run which would have been fine: low entropy from the start, gradients that grow, noise."""
    draw = random.Random(0)
    low = [step(entropy=0.008 * draw.uniform(0.3, 1)) for _ in range(60)]  # a model that was sure from the beginning
    growing = [step(grad_norm=0.1 * 1.1**i) for i in range(60)]
    noisy = [step(accuracy=draw.random(), reward=draw.random(), entropy=draw.uniform(0.02, 0.3)) for _ in range(60)]
    assert watched(*low) == watched(*growing) == []
    watched(*noisy)  # may warn, must not stop
    assert Guards([step()] * 3).look(step()) == []


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ({"reward": 0.7, "accuracy": 0.3}, "rewards rise while fewer answers are right"),
        ({"reward": 0.8, "accuracy": 0.8, "reply_tokens": 20.0}, "have shrunk from 100 tokens to 20"),
        ({"clip_fraction": 0.7}, "most tokens leave their bounds"),
    ],
)
def test_signs_of_reward_hacking_are_said_once(later, said):
    """A warning at every step is read as none."""
    (line,) = watched(*[step()] * 6, *[step(**later)] * 12)
    assert line.startswith("warning: ") and said in line
    assert watched(*[step()] * 18) == []
    assert Guards([step()] * 6 + [step(**later)] * 12).look(step(**later)) == []  # said before it was resumed


def test_held_out_accuracy_that_falls_is_said():
    """The one sign that no reward can hide."""
    early, late = step(accuracy=0.5), step(accuracy=0.8)
    (line,) = watched(*[early] * 5, early | {"held_out": 0.5}, *[late] * 5, late | {"held_out": 0.4})
    assert "held-out accuracy has fallen from 0.50 to 0.40" in line
    assert watched(*[early] * 5, early | {"held_out": 0.5}, *[late] * 5, late | {"held_out": 0.48}) == []
    assert watched(*[early] * 5, early | {"held_out": 0.5}, *[early] * 5, early | {"held_out": 0.4}) == []


def test_a_run_that_collapses_keeps_its_best_checkpoint(warm, tmp_path, monkeypatch):
    """The end of a real run: what was good is still there, the line says why, and a resumed run remembers the first
    entropy, against which a collapse is measured."""
    PartialState(cpu=True)
    monkeypatch.setitem(tasks.TASKS, "coin", Coin())
    update, calls = grpo.update, []

    def collapsing(*arguments):
        calls.append(1)
        return update(*arguments) | {"entropy": 0.2 if len(calls) < 3 else 0.001}

    monkeypatch.setattr(grpo, "update", collapsing)
    more = ["--problems_per_task", "20", "--group_size", "8"]
    grpo.main([*flags(warm, tmp_path / "run", *more), "--steps", "2"])
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: grpo.main([*flags(warm, tmp_path / "run", *more), "--steps", "20", "--resume"]))
    said = str(ended.value.code)
    assert "stopped after step 5: the entropy has collapsed, from 0.200 nats" in said and "best" in said
    assert (tmp_path / "run/best/config.json").exists()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 5 == len(calls)
    assert (tmp_path / "run/checkpoint").resolve().name == "step-000004"
