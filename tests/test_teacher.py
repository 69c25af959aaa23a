"""The teacher behind an endpoint: real HTTP, the real client, a server that fails on purpose."""

import asyncio
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
from chat_server import FAULTS, SLOW, ChatServer
from hypothesis import given, settings
from hypothesis import strategies as st

import endpoint
import tasks
import teacher
from cli import ROOT, UserError, read_records
from conversation import STYLES, Conversation, replays
from endpoint import ATTEMPTS, Endpoint, Reply, Usage
from executor import Executor, Result, SandboxError
from rollout import Protocol
from scripted import PROGRAMS
from selection import repaired, select, switched, usable
from suites.stored import MissingDataError
from tasks import problems
from teacher import TeacherArguments, attempts
from trajectories import load_trajectories

TASKS = ("gcd", "lcm")
QUESTIONS = {problem.question: problem for task in TASKS for problem in problems(task, "sft", 40)}


def scripted_model(messages: list[dict]) -> str | tuple[str, str]:
    """A teacher who computes, after a slip for some questions, makes up results, and talks on behind its answer."""
    asked = messages[0]["content"]
    if "You watch somebody" in asked:
        return "CODE since it must be exact\nand more" if "(nothing yet)" not in asked else "TEXT think first"
    problem = next(problem for question, problem in QUESTIONS.items() if question in asked)
    programs, replies = PROGRAMS[problem.task](problem.question), [m for m in messages if m["role"] == "assistant"]
    last = messages[-1]["content"]
    if "do not write code" in asked:
        return f"It is <<<{problem.answer if problem.index % 3 else 'wrong'}>>>. Or <<<0>>>"
    if "Hint for your next turn: TEXT" in last and not replies:
        return "Let me think."
    if last.startswith("Code Execution Results:") and "Traceback" not in last:
        return f"So it is <<<{last.splitlines()[1]}>>> as you see"
    slip = problem.index % 2 and not replies
    code = programs.buggy[0] if slip else programs.right
    return f"  I compute it.\n```python\n{code}\n```\nCode Execution Results:\n99999\nSo <<<99999>>>"


def arguments(server: ChatServer, out: Path, **more) -> TeacherArguments:
    settings = {"model": "teacher", "base_url": server.url, "out": str(out), "tasks": ",".join(TASKS), "per_task": 8,
                "attempts": 24, "request_timeout": SLOW / 2}  # fmt: skip
    return TeacherArguments(**(settings | more))


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A folder, and the server that has answered, after many failures."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    with pytest.MonkeyPatch.context() as patch, ChatServer(scripted_model, faults=0.3) as server:
        patch.setattr(endpoint, "FIRST_WAIT", 0.01)
        patch.delenv("OPENAI_API_KEY", raising=False)
        teacher.teach(arguments(server, folder))
    return folder, server


def test_everything_arrives_once(taught):
    """A call that failed and is made again, twice in the files or in the bill; or one that is lost."""
    folder, server = taught
    assert set(server.failed) == set(FAULTS)
    calls, episodes = records(folder / "calls.jsonl"), records(folder / "episodes.jsonl")
    assert len(calls) == len(server.answered)
    assert len({record["key"] for record in episodes}) == len(episodes)
    used = [(call["prompt_tokens"], call["completion_tokens"]) for call in calls]
    assert sorted(used) == sorted(server.used.values())
    # On a busy machine a client may hang up on a server that did not mean to be slow.
    retries, meant = sum(call["retries"] for call in calls), sum(server.failed.values())
    assert meant <= retries <= sum(server.asked.values()) - len(calls) + 3  # one may hang up before it is heard
    said = (folder / "summary.txt").read_text()
    assert f"{len(calls):,} calls, {retries:,} made again" in said
    assert (folder / "tasks.svg").read_text().startswith("<?xml")


def test_what_is_kept_is_right_varied_and_replays(taught):
    """Results that the teacher made up, hints, or instructions in what the student is to learn."""
    folder, _ = taught
    kept = records(folder / "trajectories.jsonl")
    assert {record["style"] for record in kept} == set(STYLES) and all(record["correct"] for record in kept)
    assert {task: sum(r["task"] == task for r in kept) for task in TASKS} == dict.fromkeys(TASKS, 8)
    assert load_trajectories(str(folder / "trajectories.jsonl")) == ([record["segments"] for record in kept], [])
    for record in kept:
        text = json.dumps(record["segments"])
        assert "99999" not in text and "Hint" not in text and "Go on" not in text and "as you see" not in text
        assert record["segments"][0]["text"] in QUESTIONS and "Answer the question below" not in text
        protocol, sources = Protocol(), [segment["source"] for segment in record["segments"]]
        assert sources == ["prompt", *["model", "observation"] * (len(sources) // 2 - 1), "model"]
        for segment in record["segments"]:
            if segment["source"] == "model":
                assert protocol.read(segment["text"]).kind == ("run" if segment["text"].endswith("```") else "finish")
    shown = [record for record in kept if repaired(record)]
    assert shown and all("Traceback" in json.dumps(r["segments"]) and r["statuses"] == ["error", "ok"] for r in shown)
    assert any(switched(record) and record["style"] == "guided" for record in kept)
    wrong = [r for r in records(folder / "episodes.jsonl") if not r["correct"]]
    assert wrong and all(record["style"] == "text" for record in wrong)


def test_started_again_nothing_is_asked(taught, tmp_path):
    """A teacher that is paid twice. And the selection changes without a call."""
    folder, _ = taught
    before = (folder / "trajectories.jsonl").read_bytes()
    with ChatServer(scripted_model) as server:
        teacher.teach(arguments(server, folder))
        assert not server.asked and (folder / "trajectories.jsonl").read_bytes() == before
        teacher.teach(arguments(server, folder, per_task=3))
        assert not server.asked and len(records(folder / "trajectories.jsonl")) == 6
        with pytest.raises(UserError, match="was begun with --model teacher: take that, or another --out"):
            teacher.teach(arguments(server, folder, model="other"))
        teacher.teach(arguments(server, folder))
    assert (folder / "trajectories.jsonl").read_bytes() == before


def test_a_killed_run_goes_on(taught, tmp_path):
    """Lost episodes, ones asked twice, or another selection than without the interruption."""
    folder, out = taught[0], tmp_path / "run"
    with ChatServer(scripted_model, delay=0.05) as server:
        flags = {k: v for k, v in dataclasses.asdict(arguments(server, out)).items() if k in (
            "model", "base_url", "out", "tasks", "per_task", "attempts")}  # fmt: skip
        command = [sys.executable, "teacher.py", "--concurrency", "2"]
        command += [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        episodes = out / "episodes.jsonl"
        while process.poll() is None and not (episodes.exists() and len(episodes.read_bytes().splitlines()) > 5):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert server.most_busy <= 2
        kept = records_so_far(episodes)
        with episodes.open("a") as file:
            file.write('{"key": "half a li')
        time.sleep(0.2)  # what was on its way when it died
        asked = sum(server.asked.values())
        teacher.teach(arguments(server, out))
    assert 0 < len(kept) < len(records(episodes)) and records(episodes)[: len(kept)] == kept
    assert (out / "trajectories.jsonl").read_bytes() == (folder / "trajectories.jsonl").read_bytes()
    again = sum(server.asked.values()) - asked
    needed = len(records(folder / "calls.jsonl"))
    done = {record["key"] for record in kept}
    assert again == needed - sum(call["key"] in done for call in records(folder / "calls.jsonl"))


def records_so_far(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_a_dry_run_asks_nothing_and_its_bounds_hold(taught, tmp_path, capsys):
    """A plan that says less than what will be paid."""
    with ChatServer(scripted_model) as server:
        teacher.teach(arguments(server, tmp_path / "no", dry_run=True, price_out=10.0))
    assert not server.asked and not (tmp_path / "no").exists()
    said = capsys.readouterr().out
    numbers = [int(word.replace(",", "")) for word in said.split() if word.replace(",", "").isdigit()]
    _, least, most, calls_least, calls_most, tokens = numbers
    assert (least, most) == (24, 48) and "dollars" in said
    episodes, calls = records(taught[0] / "episodes.jsonl"), records(taught[0] / "calls.jsonl")
    assert least <= len(episodes) <= most and calls_least <= len(calls) <= calls_most
    assert sum(call["completion_tokens"] for call in calls) <= tokens


def test_no_teacher_calls_more_often_than_planned():
    """The bound of a dry run, and a guided teacher who thinks aloud as often as it may, then writes programs."""
    calls, problem = [], problems("gcd", "sft", 1)[0]

    async def ask(who: str, messages: list[dict]) -> Reply:
        calls.append(who)
        aloud = sum(who == "answer" for who in calls) <= 8
        return Reply("Let me think." if aloud else "```python\nprint(1)\n```", "stop", Usage())

    with Executor() as executor:
        asyncio.run(Conversation(problem, "guided", ask, executor, 8).record())
    made = TeacherArguments(model="m", tasks="gcd", styles=["guided"], attempts=1, per_task=1)
    assert f"2 to {len(calls)} calls" in teacher.plan(["gcd"], made)


def test_a_sandbox_that_fails_ends_the_run(tmp_path, monkeypatch, capsys):
    """Hundreds of calls paid for, and nothing kept, nothing said."""
    lost = Future()
    lost.set_result(Result("sandbox_error", "", "out of processes"))
    monkeypatch.setattr(Executor, "submit", lambda self, code: lost)
    monkeypatch.setattr(teacher, "check_sandbox", lambda best_effort: None)
    with ChatServer(scripted_model) as server, pytest.raises(SandboxError, match="episodes were lost to the sandbox"):
        teacher.teach(arguments(server, tmp_path / "run", styles=["code"]))
    assert sum(server.answered.values()) < 60 and "episodes are kept in" in capsys.readouterr().out


def test_tasks_without_data_are_left_out(tmp_path, monkeypatch, capsys):
    """One data set that the hub does not give, and no task of --tasks train is taught; in a traceback."""

    def missing(name: str, split: str, count: int):
        if name.startswith("bbh"):
            raise MissingDataError("the hub does not give it to us")
        return problems(name, split, count)

    monkeypatch.setattr(tasks, "problems", missing)
    teacher.main(["--model", "m", "--tasks", "gcd,bbh", "--dry_run", "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert said.out.startswith("1 tasks: ") and "27 tasks have no data here" in said.err


def test_wrong_ones_are_kept_for_the_ablation(taught, tmp_path):
    """The flag that keeps them keeps episodes without an answer too, or nothing more."""
    with ChatServer(lambda messages: "No idea." if "exactly" in messages[0]["content"] else "<<<-1>>>") as server:
        teacher.teach(arguments(server, tmp_path / "run", keep_wrong=True, styles=["free"]))
    kept = records(tmp_path / "run/trajectories.jsonl")
    assert len(kept) == 16 and not any(record["correct"] for record in kept)


@pytest.mark.parametrize(
    ("model", "finish"),
    [
        (lambda m: ("So far so", "length"), "length"),
        (lambda m: "", "no_answer"),
        (lambda m: "```python\nwhile True: pass\n```", "turns"),
        (lambda m: "Let me see.\n```python\nprint(1", "no_answer"),
    ],
)
def test_replies_without_an_answer_are_not_kept(model, finish, tmp_path):
    """A reply cut short, or an endless loop, that is learnt from; or a question asked for ever."""
    with ChatServer(model) as server:
        settings = {"tasks": "gcd", "per_task": 1, "attempts": 1, "styles": ["free"], "code_timeout": 0.3}
        teacher.teach(arguments(server, tmp_path / "run", **settings))
    (record,) = records(tmp_path / "run/episodes.jsonl")
    assert record["finish"] == finish and not records(tmp_path / "run/trajectories.jsonl")


def test_long_output_is_cut(tmp_path):
    """A program that prints for ever is paid for in every call that follows."""
    seen = []

    def model(messages: list[dict]) -> str:
        seen.append(messages[-1]["content"])
        return "<<<1>>>" if len(messages) > 1 else "```python\nprint('head', 'x' * 9000, 'tail')\n```"

    with ChatServer(model) as server:
        settings = {"tasks": "gcd", "per_task": 1, "attempts": 1, "styles": ["free"], "max_observation_chars": 400}
        teacher.teach(arguments(server, tmp_path / "run", **settings))
    assert len(seen[1]) < 440 and "head" in seen[1] and "tail" in seen[1] and "output cut" in seen[1]
    (stored,) = records(tmp_path / "run/episodes.jsonl")
    assert stored["segments"][2]["text"].strip("\n") == seen[1]


def test_hints_are_not_spoken_of():
    """A student that refers to a hint which nobody gave it."""
    spoken = record(0, "a", True, "As the hint says, 3.", failed=False)
    assert usable([spoken], False) == [spoken]
    assert usable([spoken | {"style": "guided"}], False) == []


def test_a_message_that_leaves_a_block_open_is_not_stitched(tmp_path):
    """Two messages that were two blocks become one that no interpreter would have stopped at."""
    turns = iter(["```python\nprint(1)", "x\n```\nSo <<<1>>>", "<<<1>>>"])

    def model(messages: list[dict]) -> str:
        return "TEXT" if "You watch somebody" in messages[0]["content"] else next(turns)

    with ChatServer(model) as server:
        settings = {"tasks": "gcd", "per_task": 1, "attempts": 1, "styles": ["guided"]}
        teacher.teach(arguments(server, tmp_path / "run", **settings))
    (record,) = records(tmp_path / "run/episodes.jsonl")
    assert record["finish"] == "unfit" and not replays(record["segments"])


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refuses: AuthenticationError"), (404, "refuses: NotFoundError"), (400, "refuses: Bad")],
)
def test_what_will_not_pass_ends_the_run_at_once(status, message, tmp_path, monkeypatch):
    """Eight tries with a wrong key, in every one of 107 tasks."""
    monkeypatch.setattr("chat_server.FAULTS", (str(status),))
    with ChatServer(scripted_model, faults=1.0) as server, pytest.raises(UserError, match=message):
        teacher.teach(arguments(server, tmp_path / "run", concurrency=1))
    assert sum(server.asked.values()) == 1


def test_an_endpoint_that_stays_away_ends_the_run(tmp_path, monkeypatch, capsys):
    """For ever trying, or a traceback; what was done is kept."""
    monkeypatch.setattr(endpoint, "LONGEST_WAIT", 0.01)
    with ChatServer(scripted_model) as server:
        settings = arguments(server, tmp_path / "run", concurrency=1)
    with pytest.raises(UserError, match=f"has failed {ATTEMPTS} times in a row: APIConnectionError") as error:
        teacher.teach(settings)
    assert "\n" not in str(error.value) and "0 episodes are kept in" in capsys.readouterr().out
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        Endpoint()


def test_no_more_calls_at_a_time_than_allowed():
    """A limit that counts episodes, or nothing: the endpoint shuts the door."""

    async def ask(server: ChatServer) -> list:
        client = Endpoint(server.url, concurrency=3)
        try:
            return await asyncio.gather(
                *(client.chat("m", [{"role": "user", "content": str(i)}], 1, 9) for i in range(12))
            )
        finally:
            await client.close()

    with ChatServer(lambda messages: messages[0]["content"], delay=0.02) as server:
        replies = asyncio.run(ask(server))
    assert [reply.text for reply in replies] == [str(i) for i in range(12)] and server.most_busy == 3


# --------------------------------------------------------------------------------------------------------------------
# what is kept


def record(number: int, task: str, correct: bool, text: str, failed: bool) -> dict:
    segments = [{"source": "prompt", "text": "q"}, {"source": "model", "text": text}]
    more = {"statuses": ["error", "ok"] if failed else [], "turns": ["text"], "finish": "answer", "style": "free"}
    return {
        "key": f"{task}/{number}",
        "task": task,
        "index": number // 3,
        "correct": correct,
        "segments": segments,
        **more,
    }


some_records = st.lists(
    st.tuples(st.sampled_from(("a", "b")), st.booleans(), st.text("xyz ", max_size=12), st.booleans()), max_size=30
).map(lambda rows: [record(i, *row) for i, row in enumerate(rows)])


@settings(max_examples=100, deadline=None)
@given(some_records, st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_selection(rows, per_task, rng):
    """More than asked for, wrong ones, doubles; or another selection after a resume, when the order is another."""
    kept = select(rows, per_task, 2.0, False, 0)
    shuffled = rows.copy()
    rng.shuffle(shuffled)
    assert select(shuffled, per_task, 2.0, False, 0) == kept
    assert all(row["correct"] for row in kept)
    for task in ("a", "b"):
        mine = [row for row in kept if row["task"] == task]
        enough = len(usable(sorted((r for r in rows if r["task"] == task), key=lambda r: r["key"]), False))
        assert len(mine) == min(per_task, enough)
        assert len({(row["index"], row["segments"][1]["text"]) for row in mine}) == len(mine)


def test_repairs_are_preferred():
    """A weight that is never used, or the wrong way round."""
    rows = [record(3 * i, "a", True, f"reply {i}", failed=i % 2 == 0) for i in range(400)]
    shares = []
    for weight in (0.0, 1.0, 2.0, 8.0):
        kept = select(rows, 100, weight, False, 0)
        shares.append(sum(map(repaired, kept)) / len(kept))
    assert shares[0] == 0 and abs(shares[1] - 0.5) < 0.12 and shares[1] + 0.05 < shares[2] < shares[3]


def test_questions_come_in_every_style_and_wording():
    """A question asked in one style alone, or a wording that is always the same."""
    found = attempts("gcd", TeacherArguments(model="m", attempts=40, temperatures=[0.5, 1.0]))
    assert len({attempt.key for attempt in found}) == 40 and {attempt.style for attempt in found} == set(STYLES)
    for i in range(0, 40, 4):
        assert len({attempt.problem.index for attempt in found[i : i + 4]}) == 1
    assert {attempt.format for attempt in found} == {0, 1, 2, 3}
    assert {attempt.temperature for attempt in found} == {0.5, 1.0}
    other = attempts("gcd", TeacherArguments(model="m", attempts=40, temperatures=[0.5, 1.0], seed=1))
    assert [a.format for a in other] != [a.format for a in found]


def test_bad_settings_are_refused(tmp_path):
    """An hour later, or a model called ""."""
    with pytest.raises(UserError, match="--model is needed"):
        TeacherArguments()
    with pytest.raises(UserError, match="unknown style free form"):
        TeacherArguments(model="m", styles=["free form"])
    rng = random.Random(0)
    lines = [json.dumps({"key": str(rng.random())}) for _ in range(3)]
    (tmp_path / "episodes.jsonl").write_text(lines[0] + "\nnot json\n" + lines[1])
    with pytest.raises(UserError, match=r"episodes\.jsonl is damaged"):
        read_records(tmp_path / "episodes.jsonl")
