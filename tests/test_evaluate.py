"""Evaluation: intervals, figures and tables of episodes made by hand, and the script from end to end."""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
from accelerate import PartialState
from conftest import ByteTokenizer
from test_training import random_bundle

import evaluate
from checkpoint import save_bundle
from cli import ROOT, UserError, run_main
from evaluate import EvaluateArguments, figures, speed_line, table, telling, wilson
from executor import Result
from rollout import Episode, Turn
from suites.base import Problem

TINY = str(ROOT / "assets/tiny")


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


def episodes(*rows: tuple[str, int, bool, int]) -> list[Episode]:
    """An episode for each (task, index, correct, code runs)."""
    made = []
    for number, (task, index, correct, runs) in enumerate(rows):
        result = Result("ok", "1\n", "", 0, None, False, 0.01, 0.01, 10.0, 0.0, ())
        turns = [Turn(1, 2, "print(1)", result) for _ in range(runs)] + [Turn(1, 2)]
        tokens, sampled = torch.tensor([5, 6]), torch.tensor([False, True])
        problem = Problem(task, index, "?", "1")
        made.append(
            Episode(number, number, 0, problem, tokens, sampled, torch.zeros(2), turns, "answer", "1", correct, 0.0)
        )
    return made


# --------------------------------------------------------------------------------------------------------------------
# figures


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


UNEQUAL = episodes(
    ("gcd", 1, True, 1), ("lcm", 1, False, 0), ("gcd", 1, True, 2), ("gcd", 2, True, 0), ("gcd", 2, False, 0)
)  # fmt: skip


def test_overall_accuracy_is_the_mean_over_tasks():
    """The mean over episodes would let the tasks with many problems decide; and several samples of a problem are no
    independent trials, so the interval counts problems."""
    found = figures(UNEQUAL)
    gcd, lcm = found["tasks"]["gcd"], found["tasks"]["lcm"]
    assert (gcd["accuracy"], gcd["problems"], gcd["code_use"], gcd["code_runs"]) == (0.75, 2, 0.5, 0.75)
    assert (lcm["accuracy"], lcm["problems"], lcm["code_use"], lcm["code_runs"]) == (0, 1, 0, 0)
    assert gcd["interval"] == pytest.approx(wilson(1.5, 2)) and lcm["interval"] == pytest.approx(wilson(0, 1))
    overall = found["overall"]
    assert overall["accuracy"] == pytest.approx(0.375)
    assert (overall["problems"], overall["code_use"], overall["code_runs"]) == (3, 0.4, 0.6)
    assert overall["interval"] == pytest.approx(wilson(0.375 * 3, 3))


def test_the_table_puts_each_figure_under_its_model():
    """Columns in another order than their heads, or the figures of the other decoding, would praise the wrong model."""
    flipped = episodes(("gcd", 1, False, 1), ("lcm", 1, True, 1))
    name = "a model with quite a long name"
    results = {
        "m": {"sampled": figures(UNEQUAL), "greedy": figures(flipped)},
        name: {"sampled": figures(flipped), "greedy": figures(UNEQUAL)},
    }

    def cell(accuracy: float, right: float, count: int) -> str:
        low, high = wilson(right, count)
        return f"{accuracy:.3f} ({low:.2f}-{high:.2f})"

    ours = {
        "gcd": cell(0.75, 1.5, 2),
        "lcm": cell(0, 0, 1),
        "all tasks": cell(0.375, 1.125, 3),
        "answers that used code": "0.40",
        "code runs per answer": "0.60",
    }
    others = {
        "gcd": cell(0, 0, 1),
        "lcm": cell(1, 1, 1),
        "all tasks": cell(0.5, 1, 2),
        "answers that used code": "1.00",
        "code runs per answer": "1.00",
    }
    for decoding, left, right in (("sampled", ours, others), ("greedy", others, ours)):
        lines = table(results, decoding).splitlines()
        rows = {line[:24].strip(): re.split(r"\s{2,}", line[24:].strip()) for line in lines if line[0] != "-"}
        assert rows == {decoding: ["m", name], **{key: [left[key], right[key]] for key in left}}
        assert len({len(line) for line in lines}) == 1  # aligned
    long = {"bbh_tracking_shuffled_objects_seven_objects": results["m"]["greedy"]["tasks"]["gcd"]}
    results = {"m": {"greedy": {**results["m"]["greedy"], "tasks": long}}}
    assert (
        "_objects  " in table(results, "greedy")
        and len({len(line) for line in table(results, "greedy").splitlines()}) == 1
    )


# --------------------------------------------------------------------------------------------------------------------
# episodes to read


def test_telling_episodes_are_different_ones():
    """The same reply three times is no impression of a model, and a short list must not end in an endless loop."""
    rows = episodes(
        ("gcd", 1, False, 0), ("gcd", 2, True, 1), ("lcm", 1, True, 1), ("gcd", 3, True, 2), ("products", 1, False, 1)
    )  # fmt: skip
    everything = [episode.record(ByteTokenizer()) for episode in rows]
    chosen = [(r["task"], r["index"]) for r in telling(everything, 3)]
    assert chosen == [("gcd", 3), ("lcm", 1), ("products", 1)]  # repaired, right with code, wrong with code
    assert {r["task"] for r in telling(everything[:3], 2)} == {"gcd", "lcm"}
    for count in range(8):
        for some in (everything, everything[:2], everything[:1], []):
            found = telling(some, count)
            assert len({r["id"] for r in found}) == len(found) == min(count, len(some))


# --------------------------------------------------------------------------------------------------------------------
# the script


def test_from_a_checkpoint_to_a_table(tmp_path, capsys):
    """Two models, two tasks: what is printed, and that every figure can be counted again from what is stored."""
    save_bundle(random_bundle(), tmp_path / "random")
    models = [TINY, str(tmp_path / "random")]
    flags = "--tasks gcd,products --problems_per_task 2 --samples 2 --max_reply_tokens 24 --show 2 --slots 8"
    evaluate.main(["--model", *models, "--out", str(tmp_path / "run"), *flags.split()])
    stored = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert stored["models"] == {name: name for name in models}
    lines = (tmp_path / "run/episodes.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert len(records) == 2 * (8 + 4)
    asked = set()
    for label in models:
        for decoding, samples in (("sampled", 2), ("greedy", 1)):
            mine = [r for r in records if (r["model"], r["decoding"]) == (label, decoding)]
            assert [r["task"] for r in mine] == ["gcd"] * 2 * samples + ["products"] * 2 * samples
            asked.add(tuple(dict.fromkeys((r["task"], r["index"]) for r in mine)))
            found = stored["results"][label][decoding]
            assert found["overall"]["problems"] == 4
            assert found["overall"]["accuracy"] == sum(r["correct"] for r in mine) / len(mine)
            for task in ("gcd", "products"):
                runs = [r["code_runs"] for r in mine if r["task"] == task]
                assert found["tasks"][task]["code_runs"] == sum(runs) / len(runs)
    assert len(asked) == 1  # everybody got the same problems
    out = capsys.readouterr().out
    assert all(table(stored["results"], decoding) in out for decoding in ("sampled", "greedy"))
    assert "4 held-out problems (test)" in out
    for label in models:
        for decoding, rates in stored["speed"][label].items():
            assert speed_line(label, decoding, rates) in out
            mine = [r for r in records if (r["model"], r["decoding"]) == (label, decoding)]
            answered = sum(r["sampled_tokens"] for r in mine if r["finish"] == "answer")
            share = answered / sum(r["sampled_tokens"] for r in mine)
            assert rates["useful_tokens_per_second"] / rates["tokens_per_second"] == pytest.approx(share)
    assert out.count("finish: ") == 2
    assert (tmp_path / "run/config.yaml").exists() and (tmp_path / "run/revision.txt").exists()


def test_a_narrow_nucleus_is_greedy_decoding(tmp_path):
    """A flag that is read and not used, or one that changes greedy decoding and the log-probs of training as well. In
    bfloat16, which only a GPU has by default: greedy replies, sampled ones and the wiring of both."""
    flags = "--tasks gcd --problems_per_task 3 --samples 1 --max_reply_tokens 24 --top_p 1e-9 --dtype bfloat16"
    evaluate.main(["--model", TINY, "--out", str(tmp_path / "run"), *flags.split()])
    lines = (tmp_path / "run/episodes.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    replies = [[r["segments"] for r in records if r["decoding"] == decoding] for decoding in ("sampled", "greedy")]
    assert replies[0] == replies[1] and len(replies[0]) == 3


def test_models_of_the_same_name_are_kept_apart(tmp_path, monkeypatch):
    """Two checkpoints are both called "checkpoint": as keys, one would hide the other."""
    monkeypatch.chdir(tmp_path)
    models = ["out/a/checkpoint", "out/b/checkpoint"]
    for model in models:
        save_bundle(random_bundle(), tmp_path / model)
    flags = "--tasks gcd --problems_per_task 1 --max_reply_tokens 2"
    evaluate.main(["--model", *models, "--out", str(tmp_path / "run"), *flags.split()])
    assert list(json.loads((tmp_path / "run/evaluation.json").read_text())["results"]) == ["a", "b"]


def test_prompts_that_do_not_fit_are_an_error(tmp_path):
    """0 of 28 right, because no question was ever asked, looks like a bad model."""
    save_bundle(random_bundle(max_position_embeddings=6), tmp_path / "short")
    arguments = f"--model {tmp_path}/short --tasks gcd --problems_per_task 2 --out {tmp_path}/run".split()
    with pytest.raises(UserError, match=r"no prompt fits the context of .*short"):
        evaluate.main(arguments)
    assert not (tmp_path / "run/evaluation.json").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--tasks gdc", "unknown task 'gdc': did you mean gcd?"),
        ("--split training --tasks gcd", "unknown split 'training': one of sft, rl, dev, test"),
        ("--prompt_style fre", "unknown prompt style 'fre': one of free, text, code, bare"),
        ("--problems_per_task 0", "--problems_per_task must be a number of at least 1, not 0"),
        ("--model /nowhere/at/all", "there is no model folder /nowhere/at/all"),
    ],
)
def test_mistakes_end_in_one_line(flags, message, tmp_path):
    """A misspelt task must not be answered with a traceback, nor with a table of other tasks."""
    arguments = ["--model", TINY, "--out", str(tmp_path / "run"), *flags.split()]
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: evaluate.main(arguments))
    assert message in stop.value.code and "\n" not in stop.value.code
    assert not (tmp_path / "run").exists()  # an older evaluation would have been moved aside for nothing


def test_the_command_line_refuses_an_unknown_task(tmp_path):
    """The same through a real process: one line on stderr, no traceback, and an exit code that a script can see."""
    command = [
        sys.executable,
        str(ROOT / "evaluate.py"),
        "--model",
        TINY,
        "--tasks",
        "gdc",
        "--out",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("evaluate.py: unknown task 'gdc'")
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_without_models_the_stages_that_exist_are_evaluated(tmp_path, monkeypatch):
    """A newcomer who has only run the warm start evaluates that, rather than being told what is missing."""
    save_bundle(random_bundle(), tmp_path / "out/sft/checkpoint")
    monkeypatch.chdir(tmp_path)
    evaluate.main(["--tasks", "gcd", "--problems_per_task", "1", "--max_reply_tokens", "2", "--show", "0"])
    stored = json.loads((tmp_path / "out/evaluation/evaluation.json").read_text())
    assert stored["models"] == {"warm start": "out/sft/checkpoint"}


def test_without_models_and_stages_there_is_nothing_to_do(tmp_path, monkeypatch):
    """In another folder than the project's, the default used to end in a traceback."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no --model given"):
        evaluate.main([])


def test_defaults_name_the_embedded_stages():
    """The default command compares the stages in the order in which they came about."""
    assert EvaluateArguments().model == [] and list(evaluate.EMBEDDED_STAGES) == ["base", "warm start", "GRPO"]
