"""Trajectories on disk: our own, and what others' conversations become."""

import json

import pytest

from cli import UserError
from rollout import Protocol
from trajectories import load_trajectories, write_trajectories

PROGRAM = "I will compute it.\n```python\nprint(3 * 5)\n```"
LONG = [
    {"source": "prompt", "text": "What is 3 × 5?"},
    {"source": "model", "text": PROGRAM},
    {"source": "observation", "text": "\nCode Execution Results:\n15\n"},
    {"source": "model", "text": "So <<<15>>>"},
]
SHORT = [LONG[0], LONG[3]]


def chat(*messages: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


def sharegpt(*messages: tuple[str, str], **more) -> dict:
    return {"conversations": [{"from": role, "value": value} for role, value in messages], **more}


def test_stored_trajectories_come_back_as_they_were(tmp_path):
    """U+2028 and its like are ends of lines to str.splitlines, but stand in JSON as they are: a text that holds one
    would be torn in two."""
    strange = [{"source": "prompt", "text": "a\u2028b\x85c\nd"}, {"source": "model", "text": "e\r\n\x0cf"}]
    path = tmp_path / "t.jsonl"
    write_trajectories([{"segments": s, "task": "x"} for s in (SHORT, strange, LONG)], path)
    assert load_trajectories(str(path)) == ([SHORT, strange, LONG], [])


Q = ("user", "What is 3 × 5?")
END = ("assistant", "So <<<15>>>")
SAME = {
    "chat": chat(Q, ("assistant", PROGRAM), ("user", "Code Execution Results:\n15\n"), END),
    "a tool": chat(Q, ("assistant", PROGRAM + "\n"), ("tool", "15"), END),
    "other words": chat(Q, ("assistant", PROGRAM), ("user", "\nExecution result: 15"), END),
    "prose behind the program": chat(Q, ("assistant", PROGRAM + "\nLet us see."), ("tool", "15\n"), END),
    "parts": {"messages": [*chat(Q, ("assistant", PROGRAM), ("tool", "15"))["messages"],
                           {"role": "assistant", "content": [{"type": "text", "text": END[1]}]}]},
    "within the reply": chat(Q, ("assistant", PROGRAM + "\n```output\n15\n```\nSo <<<15>>>")),
    "tags": chat(Q, ("assistant", PROGRAM + "\n<interpreter>15</interpreter>\nSo <<<15>>>")),
    "sharegpt": sharegpt(("human", Q[1]), ("gpt", PROGRAM), ("observation", "15"), ("gpt", END[1])),
    "sharegpt, the results as a human's": sharegpt(
        ("human", Q[1]), ("gpt", PROGRAM), ("human", "Code Execution Results:\n15"), ("gpt", END[1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_conversations_become_what_a_rollout_would_have_been(name, tmp_path):
    """Results that are trained on as if the model had written them, or a program that goes on where a rollout would
    have stopped: a student of these writes its own results."""
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(SAME[name]) + "\n")
    assert load_trajectories(str(path)) == ([LONG], [])


def test_segments_of_a_conversation_replay(tmp_path):
    """Segments that the protocol would not have stopped at where they end."""
    path = tmp_path / "c.json"
    path.write_text(json.dumps(list(SAME.values())))
    found, _ = load_trajectories(str(path))
    assert len(found) == len(SAME)
    for segments in found:
        protocol = Protocol()
        first, last = (s["text"] for s in segments if s["source"] == "model")
        assert protocol.read(first).kind == "run" and protocol.read(first[:-1]).kind == "go_on"
        assert protocol.read(last).text == "answer"


def test_a_system_message_goes_before_the_question(tmp_path):
    """A system message that is lost, or trained on."""
    path = tmp_path / "c.jsonl"
    lines = [chat(("system", "Be brief."), Q, END), sharegpt(("human", Q[1]), ("gpt", END[1]), system="Be brief.")]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert load_trajectories(str(path))[0] == [[{"source": "prompt", "text": "Be brief.\n\n" + Q[1]}, LONG[3]]] * 2
    empty, two = chat(("system", " "), Q, END), chat(("system", "Be brief."), ("system", "Be kind."), Q, END)
    path.write_text("\n".join(map(json.dumps, (empty, two))))
    found = [trajectory[0]["text"] for trajectory in load_trajectories(str(path))[0]]
    assert found == [Q[1], f"Be brief.\n\nBe kind.\n\n{Q[1]}"]


@pytest.mark.parametrize("fence", ["```Output", "```output\r", "```RESULT "])
def test_output_blocks_are_found_however_they_are_spelt(fence, tmp_path):
    """What the interpreter printed, trained on as the model's own words for the sake of a capital letter."""
    path = tmp_path / "c.jsonl"
    path.write_text(json.dumps(chat(Q, ("assistant", f"{PROGRAM}\n{fence}\n15\n```\n{END[1]}"))))
    (found,), left_out = load_trajectories(str(path))
    assert [segment["source"] for segment in found] == ["prompt", "model", "observation", "model"] and not left_out


@pytest.mark.parametrize("behind", [f"\n{PROGRAM}", "\n```\n15\n```\nSo <<<15>>>", "\nSo <<<15>>>"])
def test_what_stands_behind_a_program_is_not_the_models(behind, tmp_path):
    """Output in a form that is not known, or a second program: both were one piece of text, with loss on all of it."""
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (SAME["chat"], chat(Q, ("assistant", PROGRAM + behind)))))
    found, (line,) = load_trajectories(str(path))
    assert found == [LONG] and "line 2: a program at the end" in line


UNUSABLE = {
    "more than one question": chat(Q, END, ("user", "And 4 × 5?"), ("assistant", "<<<20>>>")),
    "a message of 'function_call'": sharegpt(("human", "q"), ("function_call", "{}"), ("gpt", "a")),
    "where the model has written no program": chat(Q, ("assistant", "Hm."), ("tool", "15"), END),
    "several programs in one turn": chat(Q, ("assistant", PROGRAM + "\n" + PROGRAM), ("tool", "15"), END),
    "the last word is not the model's": chat(Q, ("assistant", PROGRAM), ("tool", "15")),
    "a message that is not text": chat(Q, ("assistant", None)),
    "a message of 'assistant' behind model": chat(Q, END, END),
    "a program at the end whose output": chat(Q, ("assistant", f"{PROGRAM}\nCode Execution Results:\n15\nSo <<<15>>>")),
}


@pytest.mark.parametrize("reason", UNUSABLE)
def test_what_no_rollout_could_be_is_left_out_and_named(reason, tmp_path):
    """Conversations dropped in silence, or one of them ends the training; or a second question that is trained on as an
    observation."""
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (SAME["chat"], UNUSABLE[reason], SAME["tags"])))
    found, left_out = load_trajectories(str(path))
    assert found == [LONG, LONG] and len(left_out) == 1
    assert "c.jsonl, line 2: " in left_out[0] and reason in left_out[0]
    path.write_text(json.dumps(UNUSABLE[reason]))
    with pytest.raises(UserError, match=r"c\.jsonl, line 1: "):
        load_trajectories(str(path))


def segments(*pairs: tuple[str, str]) -> str:
    return json.dumps({"segments": [{"source": source, "text": text} for source, text in pairs]})


@pytest.mark.parametrize(
    "line",
    [
        '{"segments": [',
        "",
        "[]",
        '"text"',
        "3",
        '{"text": "no segments"}',
        '{"segments": []}',
        '{"segments": [1, 2]}',
        '{"segments": [{"text": "no source"}]}',
        '{"segments": [{"source": "prompt", "text": "q"}, {"source": "model"}]}',
        '{"segments": [{"source": "prompt", "text": "\\ud800"}, {"source": "model", "text": "a"}]}',
        '{"conversations": [{"role": "user", "content": "q"}]}',
        '{"messages": 3}',
        segments(("prompt", "q")),
        segments(("model", "a"), ("prompt", "q")),
        segments(("model", "a"), ("model", "a")),
        segments(("prompt", "q"), ("model", "a"), ("observation", "o")),
        segments(("prompt", "q"), ("prompt", "q"), ("model", "a")),
        segments(("prompt", "q"), ("user", "q"), ("model", "a")),
        json.dumps({"segments": [{"source": "prompt", "text": 5}, {"source": "model", "text": "a"}]}),
    ],
)
def test_a_bad_line_is_named(line, tmp_path):
    """One bad line among thousands, and a traceback from the middle of the tokenizer that names none."""
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"segments": SHORT}) + "\n" + line + "\n")
    with pytest.raises(UserError, match=r"mine\.jsonl, line 2\b") as error:
        load_trajectories(str(path))
    assert "\n" not in str(error.value)


def test_missing_empty_and_broken_files_are_named(tmp_path):
    """Training on nothing must not begin."""
    with pytest.raises(UserError, match=r"there is no trajectory file .*none\.jsonl"):
        load_trajectories(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(UserError, match=r"empty\.jsonl holds no trajectories"):
        load_trajectories(str(tmp_path / "empty.jsonl"))
    (tmp_path / "cut.json").write_text('[{"messages": [')
    with pytest.raises(UserError, match=r"cut\.json is not valid JSON"):
        load_trajectories(str(tmp_path / "cut.json"))
    (tmp_path / "list.json").write_text("[3]")
    with pytest.raises(UserError, match=r"list\.json, record 1 is not a trajectory"):
        load_trajectories(str(tmp_path / "list.json"))
