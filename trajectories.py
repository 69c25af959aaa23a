"""Trajectories on disk: what a warm start learns from, and others' conversations read as such.

Ours are JSON lines, for `datasets.load_dataset("json", ...)` too, one trajectory each: task, index, correct, and
`segments` of {text, source}, source one of prompt, model, observation. The prompt segment is the bare question: a chat
template is put around it when it is tokenised. Also read, as a JSON list or as lines:

    {"conversations": [{"from": "human", "value": ...}, {"from": "gpt", ...}, ...]}    ShareGPT, for LLaMA-Factory
    {"messages": [{"role": "user", "content": ...}, {"role": "assistant", ...}, ...]}   chat messages

There, what a program printed is a message of its own ("observation", "tool", or one of the user's that says it is the
result of an execution) or stands in the reply behind the program, in an ```output block or <output> tags. It becomes an
observation, worded as in our rollouts, on which nothing is trained. What the model wrote behind a program in the same
turn is cut off, since our rollouts run a program as soon as it ends.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from checkpoint import write_whole
from cli import UserError
from rollout import OBSERVATION, first_event
from tasks import PYTHON_FENCES, spans

Segments = list[dict[str, str]]

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "model", "gpt": "model",
    "tool": "observation", "observation": "observation", "ipython": "observation",
}  # fmt: skip
RESULTS = re.compile(
    r"\s*(?:the )?(?:code |program )?(?:execution|interpreter)(?: results?| outputs?)?\s*:[ \t]*", re.I
)
INLINE = re.compile(
    r"\s*(?:```(?:output|result)[ \t]*\r?\n(.*?)\r?\n?```|<(output|interpreter|result)>(.*?)</\2>)", re.DOTALL | re.I
)


class UnusableError(ValueError):
    """A conversation that no rollout of ours could have had."""


def load_trajectories(path: str) -> tuple[list[Segments], list[str]]:
    """Segments of every trajectory in a file, and a line for each conversation that was left out, saying why.

    UserError, naming the place, for a record that is none of what is known.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no trajectory file {path}")
    trajectories, left_out = [], []
    for where, record in _records(Path(path)):
        try:
            trajectories.append(_read(record))
        except UnusableError as error:
            left_out.append(f"{path}, {where}: {error}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}, {where} is not a trajectory: {type(error).__name__}: {error}") from error
    if not trajectories:
        raise UserError(left_out[0] if left_out else f"{path} holds no trajectories")
    return trajectories, left_out


def write_trajectories(trajectories: Iterable[dict[str, Any]], path: Path) -> None:
    """Write JSON lines under a temporary name, then rename: a file of this name is a whole one."""
    write_whole(path, (json.dumps(trajectory, ensure_ascii=False) + "\n" for trajectory in trajectories))


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a file, and where each is."""
    data = path.read_bytes()
    if data.lstrip().startswith(b"[") and path.suffix == ".json":
        try:
            found = json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not valid JSON: {error}") from error
        yield from ((f"record {number}", record) for number, record in enumerate(found, 1))
        return
    lines = data.split(b"\n")  # not splitlines(): it also cuts at U+2028 and the like, which JSON holds as they are
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            yield f"line {number}", json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not a trajectory: {type(error).__name__}: {error}") from error


def _read(record: dict[str, Any]) -> Segments:
    if "conversations" in record:
        messages = [(message["from"], message["value"]) for message in record["conversations"]]
        system = [("system", record["system"])] if record.get("system") else []  # LLaMA-Factory has it outside
        return from_messages(system + messages)
    if "messages" in record:
        return from_messages([(message["role"], message["content"]) for message in record["messages"]])
    segments = record["segments"]
    sources = [segment["source"] for segment in segments]
    for segment in segments:
        segment["text"].encode()  # JSON can hold what UTF-8 cannot
    if not sources or sources[0] != "prompt" or sources[-1] != "model" or {*sources[1:]} - {"model", "observation"}:
        raise ValueError("segments must run prompt, model (, observation, model) ...")
    return segments


def from_messages(messages: list[tuple[str, Any]]) -> Segments:
    """Segments of a conversation, given as (role, text). A system message goes before the question.

    Raises UnusableError for one with several questions or several programs in a turn, or that ends without the model,
    or with a program whose output is missing or cannot be told from the model's words.
    """
    head, segments = "", []
    for role, content in messages:
        source, text = ROLES.get(role, ""), _text(content)
        if not source:
            raise UnusableError(f"a message of {role!r}")
        if source == "user" and segments and RESULTS.match(text):
            source = "observation"
        before = segments[-1]["source"] if segments else ""
        if source == "system" and not segments:
            head += text.rstrip() + "\n\n" if text.strip() else ""
        elif source == "user" and not segments:
            segments.append({"text": head + text, "source": "prompt"})
        elif source == "model" and before in ("prompt", "observation"):
            segments += _reply(text)
        elif source == "observation" and before == "model":
            turn = segments[-1]
            if (event := first_event(turn["text"])) is None or event[0] != "code":
                raise UnusableError("something was executed where the model has written no program")
            turn["text"] = _up_to_program(turn["text"])
            segments.append(_observation(text))
        elif source == "user" and before == "model":
            raise UnusableError("more than one question")
        else:
            raise UnusableError(f"a message of {role!r} behind {before or 'nothing'}")
    if not segments or segments[-1]["source"] != "model":
        raise UnusableError("the last word is not the model's")
    # What looks like its output would be trained on as the model's own words.
    if (event := first_event(segments[-1]["text"])) and event[0] == "code":
        raise UnusableError("a program at the end whose output is not set apart")
    return segments


def _text(content: Any) -> str:
    if isinstance(content, list) and all(part.get("type") == "text" for part in content):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise UnusableError("a message that is not text")
    content.encode()
    return content


def _reply(text: str) -> Segments:
    """A reply in which what programs printed may stand too."""
    segments: Segments = []
    while True:
        ends = [s.end for s in spans(text) if s.kind == "fence" and s.closed and s.language in PYTHON_FENCES]
        found = next((match for end in ends if (match := INLINE.match(text, end))), None)
        if found is None:
            return [*segments, *([{"text": text, "source": "model"}] if text.strip() or not segments else [])]
        segments.append({"text": _up_to_program(text[: found.start()]), "source": "model"})
        segments.append(_observation(found[1] or found[3] or ""))
        text = text[found.end() :].removeprefix("\n")


def _up_to_program(text: str) -> str:
    """A turn up to the end of its program, where a rollout would have stopped; UnusableError if there are several."""
    ends = [s.end for s in spans(text) if s.kind == "fence" and s.closed and s.language in PYTHON_FENCES]
    if len(ends) > 1:
        raise UnusableError("several programs in one turn")
    return text[: ends[0]].rstrip()


def _observation(text: str) -> dict[str, str]:
    body = text[found.end() :] if (found := RESULTS.match(text)) else text
    return {"text": OBSERVATION.format(body.strip("\n") or "(no output)"), "source": "observation"}
