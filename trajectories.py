"""Trajectories on disk: what a warm start learns from.

JSON lines for `datasets.load_dataset("json", ...)`, one trajectory each: task, index, correct, and segments of {text,
source}, source one of prompt, model, observation. The prompt segment is the bare question: a chat template is put
around it when it is tokenised.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpoint import write_whole
from cli import UserError


def load_trajectories(path: str) -> list[list[dict[str, str]]]:
    """Segments of every trajectory in a .jsonl file; UserError, naming the line, for one that is not as it must be."""
    if not Path(path).is_file():
        raise UserError(f"there is no trajectory file {path}")
    trajectories = []
    with Path(path).open("rb") as file:
        lines = list(file)  # not splitlines(): it also cuts at U+2028 and the like, which JSON holds as they are
    for number, line in enumerate(lines, 1):
        try:
            segments = json.loads(line.decode())["segments"]
            sources = [segment["source"] for segment in segments]
            texts = [segment["text"].encode() for segment in segments]  # JSON can hold what UTF-8 cannot
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not a trajectory: {type(error).__name__}: {error}") from error
        if not texts or sources[0] != "prompt" or sources[-1] != "model" or {*sources[1:]} - {"model", "observation"}:
            raise UserError(f"{path}, line {number}: segments must run prompt, model (, observation, model) ...")
        trajectories.append(segments)
    if not trajectories:
        raise UserError(f"{path} holds no trajectories")
    return trajectories


def write_trajectories(trajectories: Iterable[dict[str, Any]], path: Path) -> None:
    """Write JSON lines under a temporary name, then rename: a file of this name is a whole one."""
    write_whole(path, (json.dumps(trajectory, ensure_ascii=False) + "\n" for trajectory in trajectories))
