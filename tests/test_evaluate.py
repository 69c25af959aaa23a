"""Evaluation: intervals, figures and tables of episodes made by hand, and the script from end to end."""

import json
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
from evaluate import EvaluateArguments, groups_of, paper_table, speed_line, table, telling
from executor import Result
from rollout import Episode, Turn
from scores import figures, wilson
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


def records(*rows: tuple[str, int, bool, int]) -> list[dict]:
    return [episode.record(ByteTokenizer()) for episode in episodes(*rows)]


UNEQUAL = records(
    ("gcd", 1, True, 1), ("lcm", 1, False, 0), ("gcd", 1, True, 2), ("gcd", 2, True, 0), ("gcd", 2, False, 0)
)  # fmt: skip


def test_the_table_puts_each_figure_under_its_model():
    """Columns in another order than their heads, or the figures of the other decoding, would praise the wrong model."""
    flipped = records(("gcd", 1, False, 1), ("lcm", 1, True, 1))
    name = "a model with quite a long name"
    one, other = (figures(some, {"suite gym": ["gcd"]}) for some in (UNEQUAL, flipped))
    results = {"m": {"sampled": one, "greedy": other}, name: {"sampled": other, "greedy": one}}

    def cell(accuracy: float, interval) -> str:
        return f"{accuracy:.3f} ({interval[0]:.2f}-{interval[1]:.2f})"

    def column(found: dict, gcd: str, lcm: str, accuracy: float, code: str, runs: str) -> dict[str, str]:
        overall = found["overall"]
        overall, group = found["overall"], found["groups"]["suite gym"]
        return {
            "gcd": gcd, "lcm": lcm, "suite gym": cell(group["accuracy"], group["interval"]),
            "all tasks": cell(accuracy, overall["interval"]),
            "as if of other tasks": cell(accuracy, overall["interval_tasks"]),
            "gave an answer": "1.00", "used code": code, "programs per reply": runs, "checked a result by code": "0.00",
            "tokens per reply": "1", "programs timed out": "0.00", "lost to the sandbox": "0.00",
        }  # fmt: skip

    ours = column(one, cell(0.75, wilson(1.5, 2)), cell(0, wilson(0, 1)), 0.375, "0.25", "0.38")
    others = column(other, cell(0, wilson(0, 1)), cell(1, wilson(1, 1)), 0.5, "1.00", "1.00")
    for decoding, left, right in (("sampled", ours, others), ("greedy", others, ours)):
        lines = table(results, decoding).splitlines()
        rows = {line[:28].strip(): re.split(r"\s{2,}", line[28:].strip()) for line in lines if line[0] != "-"}
        assert rows == {decoding: ["m", name], **{key: [left[key], right[key]] for key in left}}
        assert len({len(line) for line in lines}) == 1  # aligned
    long = {"bbh_tracking_shuffled_objects_seven_objects": results["m"]["greedy"]["tasks"]["gcd"]}
    results = {"m": {"greedy": {**results["m"]["greedy"], "tasks": long}}}
    assert (
        "_objects  " in table(results, "greedy")
        and len({len(line) for line in table(results, "greedy").splitlines()}) == 1
    )


def test_a_table_of_several_replies_has_votes_and_passes():
    """pass@10 sorted before pass@2, or a row for what only the other decoding has."""
    several = figures(records(*[("gcd", 1, i == 0, 0) for i in range(10)]))
    lines = table({"m": {"sampled": several}}, "sampled").splitlines()
    passes = [line.split() for line in lines if line.startswith("pass@")]
    assert passes == [["pass@2", "0.20"], ["pass@4", "0.40"], ["pass@8", "0.80"], ["pass@10", "1.00"]]
    assert any(line.startswith("right by majority vote") for line in lines)
    assert "majority" not in table({"m": {"greedy": figures(UNEQUAL[:2])}}, "greedy")


def test_tasks_are_grouped_as_the_paper_reports_them():
    """Train and test exchanged, or a group that is only another name for all."""
    found = groups_of(["gcd", "reversi@0", "new_operator", "bbh_boolean_expressions"])
    assert found["suite gym"] == ["gcd"] and "new_operator" in found["suite symbench"]
    assert sum(len(members) for name, members in found.items() if name.startswith("suite")) == 4
    assert groups_of(["gcd"]) == {} and groups_of(["gcd", "lcm"]).keys() <= {"train tasks", "test tasks"}


def test_the_papers_table():
    """Figures of others that are mistyped, or that stand there as if they were ours."""
    text = paper_table()
    assert "72.4" in text and "44.1" in text and text.count("\n") == 7 and "Not the same measurement" in text


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
