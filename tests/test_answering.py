"""Evaluations that are interrupted, of API models over real HTTP with faults, with a judge, and compared."""

import asyncio
import json
import random
from pathlib import Path

import pytest
from accelerate import PartialState
from chat_server import FAULTS, SLOW, ChatServer
from conftest import Coin

import answering
import endpoint
import evaluate
import tasks
from checkpoint import load_bundle, save_bundle
from cli import UserError
from evaluate import comparison

QUESTIONS = {problem.question: problem for problem in tasks.problems("gcd", "test", 12)}
OTHERS = {problem.question: problem for problem in tasks.problems("lcm", "test", 12)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    PartialState(cpu=True)  # the first call decides, also where there is a GPU
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setitem(tasks.TASKS, "coin", Coin())


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def results(out: Path) -> dict:
    return json.loads((out / "evaluation.json").read_text())["results"]


# --------------------------------------------------------------------------------------------------------------------
# checkpoints


def flags(warm: str, out: Path, *more: str) -> list[str]:
    settings = "--tasks coin --problems_per_task 7 --samples 3 --max_reply_tokens 60 --show 0"
    return ["--model", warm, "--out", str(out), *settings.split(), *more]


@pytest.fixture(scope="module")
def whole(warm, tmp_path_factory) -> Path:
    """An evaluation that nothing disturbed, in batches of three problems."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "coin", Coin())
        patch.setattr(answering, "BATCH", 3)
        evaluate.main(flags(warm, out))
    return out


def test_batches_do_not_change_what_is_sampled(whole, warm, tmp_path):
    """Replies numbered by batch: the second batch would be sampled like the first."""
    evaluate.main(flags(warm, tmp_path / "run"))
    assert (tmp_path / "run/episodes.jsonl").read_text() == (whole / "episodes.jsonl").read_text()
    found = records(whole / "episodes.jsonl")
    assert [r["sample"] for r in found if r["decoding"] == "sampled"] == [0, 1, 2] * 7
    assert len({json.dumps(r["segments"]) for r in found}) > 7
    (figures,) = results(whole).values()
    assert figures["sampled"]["overall"]["samples"] == 3 and "pass@3" in figures["sampled"]["tasks"]["coin"]


def test_an_evaluation_goes_on(whole, warm, tmp_path, monkeypatch, capsys):
    """Hours of replies asked again; or kept from another checkpoint, or other settings, under the same name."""
    monkeypatch.setattr(answering, "BATCH", 3)
    out = tmp_path / "run"
    save_bundle(load_bundle(warm), tmp_path / "model")
    model = str(tmp_path / "model")
    evaluate.main(flags(model, out))
    (label,) = results(whole)
    text = (out / "episodes.jsonl").read_text().replace(f'"{model}"', f'"{label}"')
    assert text == (whole / "episodes.jsonl").read_text()
    lines = (out / "episodes.jsonl").read_text().splitlines(keepends=True)
    (out / "episodes.jsonl").write_text("".join(lines[:10]) + lines[10][:40])  # within a batch
    (out / "evaluation.json").unlink()
    asked = []
    rollout = evaluate.Rollout.__call__
    monkeypatch.setattr(evaluate.Rollout, "__call__", lambda *a, **k: asked.append(a[6]) or rollout(*a, **k))
    evaluate.main(flags(model, out, "--resume"))
    assert (out / "episodes.jsonl").read_text() == "".join(lines)
    assert [list(groups) for groups in asked] == [[3, 4, 5], [6], [0, 1, 2], [3, 4, 5], [6]]
    kept, whole_results = (next(iter(results(folder).values())) for folder in (out, whole))
    assert kept == whole_results
    evaluate.main([*flags(warm, out, "--resume")])  # another model, which must not make it forget the first
    with pytest.raises(UserError, match="was begun with --samples 3"):
        evaluate.main([*flags(model, out, "--resume"), "--samples", "2"])
    weights = tmp_path / "model/model.safetensors"
    weights.touch()
    with pytest.raises(UserError, match=r"is no longer what .* was begun with"):
        evaluate.main(flags(model, out, "--resume"))
    evaluate.main(flags(model, out))  # without --resume, a new one, and the older is kept
    assert "an older run was moved" in capsys.readouterr().out


def test_styles_are_asked_apart(warm, tmp_path):
    """Three columns of the same replies."""
    evaluate.main([*flags(warm, tmp_path / "run"), "--styles", "bare,text", "--no_greedy", "--samples", "1"])
    (found,) = results(tmp_path / "run").values()
    assert list(found) == ["bare, sampled", "text, sampled"]
    by = {d: [r for r in records(tmp_path / "run/episodes.jsonl") if r["decoding"] == d] for d in found}
    assert "in text only" in by["text, sampled"][0]["segments"][0]["text"]
    assert "in text only" not in by["bare, sampled"][0]["segments"][0]["text"]
    with pytest.raises(UserError, match="unknown prompt style 'guided'"):
        evaluate.main([*flags(warm, tmp_path / "run"), "--styles", "guided"])


# --------------------------------------------------------------------------------------------------------------------
# API models


def model(messages: list[dict]) -> str:
    """Computes where it may, guesses where it must not, and forgets the marks around every third answer."""
    asked = messages[0]["content"]
    if asked.startswith("Somebody was asked"):
        assert "It must be" in asked
        return f"<<<{asked.rsplit('It must be ', 1)[1].split('.')[0]}>>>"
    problem = next(problem for question, problem in (QUESTIONS | OTHERS).items() if question in asked)
    if problem.index % 3 == 0:
        return f"It must be {problem.answer if problem.index % 2 else 'none'}."
    if "do not write code" in asked:
        return "<<<1>>>"
    if len(messages) == 1:
        return f"```python\nprint({problem.answer})\n```\nand so on"
    return f"So <<<{messages[-1]['content'].splitlines()[-1]}>>>"


def api(server: ChatServer, out: Path, *more: str) -> list[str]:
    settings = f"--tasks gcd --problems_per_task 12 --samples 2 --no_greedy --show 0 --request_timeout {SLOW / 2}"
    return ["--api_model", "other", "--base_url", server.url, "--out", str(out), *settings.split(), *more]


def test_an_api_model_over_http_with_faults(tmp_path, capsys):
    """Everything arrives once, in both styles, and is judged by the same rules; resumed, it loses nothing and pays for
    nothing twice."""
    out = tmp_path / "run"
    with ChatServer(model, faults=0.3) as server:
        evaluate.main(api(server, out, "--styles", "free,text"))
        assert set(server.failed) <= set(FAULTS) and sum(server.failed.values()) > 5
        found = records(out / "episodes.jsonl")
        assert len(found) == len({answering.key(r) for r in found}) == 2 * 2 * 12
        free, text = ([r for r in found if r["decoding"] == f"{style}, sampled"] for style in ("free", "text"))
        silent = sum(problem.index % 3 == 0 for problem in QUESTIONS.values())
        assert sum(r["correct"] for r in free) == 2 * (12 - silent)
        assert sum(r["answer"] is None for r in free) == sum(r["answer"] is None for r in text) == 2 * silent
        assert all(r["code_runs"] == (r["answer"] is not None) for r in free) and not any(r["code_runs"] for r in text)
        figures = results(out)["other"]
        assert figures["free, sampled"]["overall"]["accuracy"] == pytest.approx(1 - silent / 12)
        assert "judged" not in figures["free, sampled"]["overall"]
        printed = capsys.readouterr().out
        assert "other: " in printed and "calls" in printed and "free, sampled" in printed
        lines = (out / "episodes.jsonl").read_text().splitlines(keepends=True)
        (out / "episodes.jsonl").write_text("".join(lines[:20]) + lines[20][:30])
        before = sum(server.answered.values())
        evaluate.main(api(server, out, "--styles", "free,text", "--resume"))
        again = records(out / "episodes.jsonl")
        assert sorted(map(answering.key, again)) == sorted(map(answering.key, found))
        new = sum(len(r["statuses"]) + 1 for r in again[20:])
        assert new <= sum(server.answered.values()) - before <= new + 8  # a call that the client hung up on


def test_a_judge_reads_what_the_rules_cannot(tmp_path, capsys):
    """A judge who is asked about answers that are there, who corrects them, or whose verdicts replace the rules' own;
    both figures are shown."""
    with ChatServer(model) as server:
        evaluate.main(api(server, tmp_path / "run", "--judge", "judge"))
        verdicts = records(tmp_path / "run/judged.jsonl")
        silent = [p for p in QUESTIONS.values() if p.index % 3 == 0]
        assert len(verdicts) == 2 * len(silent)
        assert sum(v["judged"] for v in verdicts) == 2 * sum(p.index % 2 for p in silent)
        assert all((v["judge_answer"] is None) == (v["index"] % 2 == 0) for v in verdicts)
        overall = results(tmp_path / "run")["other"]["sampled"]["overall"]
        assert overall["accuracy"] == pytest.approx(1 - len(silent) / 12)
        assert overall["judged"] == pytest.approx(1 - sum(p.index % 2 == 0 for p in silent) / 12)
        assert "right, judge included" in capsys.readouterr().out
        before = sum(server.answered.values())
        evaluate.main(api(server, tmp_path / "run", "--judge", "judge", "--resume"))
        assert sum(server.answered.values()) == before
        assert results(tmp_path / "run")["other"]["sampled"]["overall"]["judged"] == overall["judged"]
        # Another judge is asked, and its verdicts are its own.
        evaluate.main(api(server, tmp_path / "run", "--judge", "stricter", "--resume"))
        assert sum(server.answered.values()) == before + len(verdicts)
        assert [v["judge"] for v in records(tmp_path / "run/judged.jsonl")[len(verdicts) :]] == ["stricter"] * len(
            verdicts
        )
        # What is stored of a problem that is not asked any more is nobody's to judge.
        flags = [*api(server, tmp_path / "run", "--judge", "third", "--resume"), "--problems_per_task", "12"]
        asked = sum(server.answered.values())
        stored = records(tmp_path / "run/episodes.jsonl")
        (tmp_path / "run/episodes.jsonl").write_text(
            "".join(json.dumps(r | ({"index": 1} if r["answer"] is None else {})) + "\n" for r in stored)
        )
        evaluate.main(flags)
        new = records(tmp_path / "run/episodes.jsonl")[len(stored) :]
        assert sum(server.answered.values()) > asked and len(new) == len(verdicts)
        assert {v["index"] for v in records(tmp_path / "run/judged.jsonl") if v["judge"] == "third"} == {
            p.index for p in silent
        }


def test_an_api_that_runs_out_shows_what_there_is(tmp_path, capsys):
    """A KeyError from the table in place of the line that says why: the second model has answered fewer tasks."""
    with ChatServer(model) as server:
        real = answering.Remote._reply

        async def reply(self, mode, id, problem, sample):
            if self.label == "b" and problem.task == "lcm":
                raise UserError("no credit is left")
            return await real(self, mode, id, problem, sample)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="no credit is left"):
            patch.setattr(answering.Remote, "_reply", reply)
            evaluate.main([*api(server, tmp_path / "run", "--api_model", "a", "b", "--tasks", "gcd,lcm")])
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("lcm "))
    assert row.count("(") == 1


def test_the_order_of_answers_does_not_matter(tmp_path, monkeypatch):
    """Tasks in the order in which an API happened to be done: other tables each time, which report.py refuses."""
    shapes = []
    for seed in (0, 1):
        draw, real = random.Random(seed), answering.Remote._reply

        async def reply(self, *arguments, draw=draw, real=real):
            await asyncio.sleep(draw.random() / 5)
            return await real(self, *arguments)

        with ChatServer(model) as server, pytest.MonkeyPatch.context() as patch:
            patch.setattr(answering.Remote, "_reply", reply)
            out = tmp_path / str(seed)
            evaluate.main([*api(server, out), "--tasks", "lcm,gcd", "--problems_per_task", "3", "--seed", str(seed)])
        shapes.append(list(results(out)["other"]["sampled"]["tasks"]))
    assert shapes == [["lcm", "gcd"]] * 2


def test_what_an_api_is_asked_for(tmp_path):
    """A --top_p that only the configuration knows of, and sampled replies without it as before."""
    with ChatServer(model) as server:
        for name, more in (("narrow", ["--top_p", "0.5"]), ("plain", [])):
            evaluate.main([*api(server, tmp_path / name, *more), "--problems_per_task", "2"])
            assert {request.get("top_p") for request in server.requests} == ({0.5} if more else {None})
            server.requests.clear()


def test_an_api_that_refuses_ends_in_one_line(tmp_path):
    """A traceback for a key that is missing or a style that there is not."""
    with pytest.raises(UserError, match=r"OPENAI_API_KEY is not set; for another endpoint"):
        evaluate.main(["--api_model", "m", "--tasks", "gcd", "--out", str(tmp_path / "run")])
    # Before any checkpoint has answered for hours.
    with pytest.raises(UserError, match=r"OPENAI_API_KEY is not set"):
        evaluate.main(["--model", "no such folder", "--judge", "m", "--out", str(tmp_path / "run")])
    with pytest.raises(UserError, match="grpo is a --model and an --api_model: their replies would be one column"):
        evaluate.main(
            ["--model", "grpo", "--api_model", "grpo", "--base_url", "http://x", "--out", str(tmp_path / "r")]
        )
    with pytest.raises(UserError, match="unknown prompt style 'fancy'"):
        evaluate.main(["--api_model", "m", "--tasks", "gcd", "--styles", "fancy", "--out", str(tmp_path / "run")])


# --------------------------------------------------------------------------------------------------------------------
# two evaluations


def test_two_evaluations_are_compared(whole, warm, tmp_path, capsys):
    """Differences of the wrong sign; problems that flipped without a name."""
    out = tmp_path / "worse"
    out.mkdir()
    changed = records(whole / "episodes.jsonl")
    lost = {r["index"] for r in changed if r["decoding"] == "greedy" and r["correct"]}
    for record in changed:
        record["correct"] = False
    (out / "episodes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in changed))
    evaluate.main(["--compare", str(whole), str(out)])
    said = capsys.readouterr().out
    greedy = said.split("\n\n")[1]
    assert greedy.startswith("greedy: ") and "7 problems in common, 0 in one alone" in greedy
    assert f"0 became right, {len(lost)} wrong" in greedy and all(f"coin #{index}" in greedy for index in lost)
    sampled = results(whole)[next(iter(results(whole)))]["sampled"]["overall"]["accuracy"]
    assert f"{-sampled:+.3f}" in said
    assert comparison(str(whole), str(whole)).count("+0.000   -") == 4  # not sure to the last digit
    for bad, message in ((tmp_path, "is no run folder"), (whole.parent, "is no run folder")):
        with pytest.raises(UserError, match=message):
            evaluate.main(["--compare", str(whole), str(bad)])
    with pytest.raises(UserError, match="--compare takes two folders"):
        evaluate.main(["--compare", str(whole)])
