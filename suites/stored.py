"""Tasks whose questions are stored rather than generated: BIG-Bench-Hard, GSM-Hard, MATH.

They come from a folder in the layout of the paper's data, which the environment variable R1CI_DATA names, or else from
the Hugging Face hub, on first use. What is not to be had raises MissingDataError, one line that says what to do.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path

from suites.base import Problem, Task
from suites.parsers import unwrap

FOLDER_VARIABLE = "R1CI_DATA"
MAX_ANSWER = 2000  # characters
HUB_SECONDS = 10

Row = tuple[str, str]
"""A question and its reference answer"""


class MissingDataError(ValueError):
    """The questions of a task are not to be had on this machine."""


class StoredTask(Task):
    """One set of questions and the rule for answers to them.

    `local`: reads the rows from the folder; `hub`: name, configuration and split on the hub; `row`: makes a question
    and its answer of what is stored there, None of what is to be left out. `rule(answer, reference)`: whether an
    answer, stripped of white space, quotes and a final full stop, is right.
    """

    def __init__(
        self,
        name: str,
        suite: str,
        rule: Callable[[str, str], bool],
        local: Callable[[Path], list[dict]],
        hub: tuple[str, str, str],
        row: Callable[[dict], Row | None],
    ):
        self.name, self.suite, self._rule = name, suite, rule
        self._local, self._hub, self._row = local, hub, row
        self.kind, self.source = rule.__name__.replace("_", " "), f"hub: {hub[0].split('/')[1]}"

    @cached_property
    def _rows(self) -> list[Row]:
        return list(self._read())

    def _read(self) -> Iterator[Row]:
        seen = set()
        folder = os.environ.get(FOLDER_VARIABLE)
        for stored in self._from_folder(Path(folder)) if folder else self._from_hub():
            try:
                row = self._row(stored)
            except (KeyError, TypeError, AttributeError) as error:
                where = f"{FOLDER_VARIABLE}={folder}" if folder else self._hub[0]
                raise MissingDataError(f"{self.name}: a row of {where} is none of its kind: {error!r}") from error
            if row is not None and row[0] not in seen:
                seen.add(row[0])
                yield row

    def _from_folder(self, folder: Path) -> list[dict]:
        try:
            found = self._local(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MissingDataError(f"{self.name}: cannot be read from {FOLDER_VARIABLE}={folder}: {error}") from error
        if not found:
            raise MissingDataError(f"{self.name}: {FOLDER_VARIABLE}={folder} has no questions of it")
        return found

    def _from_hub(self) -> list[dict]:
        name, configuration, split = self._hub
        reason = _why_no_hub(name)
        if not reason:
            from datasets import load_dataset

            try:
                return list(load_dataset(name, configuration or None, split=split))
            except (OSError, ValueError, RuntimeError) as error:
                reason = str(error)
        raise MissingDataError(
            f"{self.name}: its questions are on the hub as {name}, which does not give them to us "
            f"({' '.join(reason.split())[:200]}); or let {FOLDER_VARIABLE} name a folder with them"
        )

    @property
    def size(self) -> int:
        """How many questions there are."""
        return len(self._rows)

    def problem(self, index: int) -> Problem:
        """The question of this number."""
        if not 0 <= index < self.size:
            raise ValueError(f"{self.name} has {self.size} problems, no number {index}")
        question, answer = self._rows[index]
        return Problem(self.name, index, question, answer)

    def score(self, problem: Problem, answer: str) -> int:
        """1 if the answer obeys the rule, else 0."""
        return int(len(answer) <= MAX_ANSWER and self._rule(unwrap(answer), problem.answer))


@cache
def _why_no_hub(name: str) -> str:
    """Empty if the hub answers, or if HF_HUB_OFFLINE=1 says that copies from earlier will do. Asked first and once, as
    `datasets` asks again and again, for half a minute a task."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HTTPError

    if constants.HF_HUB_OFFLINE or _unreachable:
        return next(iter(_unreachable), "")
    try:
        HfApi().dataset_info(name, timeout=HUB_SECONDS)
    except (OSError, HTTPError) as error:
        _unreachable.append(f"{type(error).__name__}: {error}")
        return _unreachable[0]
    return ""


_unreachable: list[str] = []  # why the hub did not answer


# ---------------------------------------------------------------------------------------------------------------------
# reading


def json_file(path: str, *keys: str) -> Callable[[Path], list[dict]]:
    """Reads a list under `keys` of one .json file, or the lines of a .jsonl file."""

    def read(folder: Path) -> list[dict]:
        text = (folder / path).read_text(encoding="utf-8")
        if path.endswith(".jsonl"):
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        found = json.loads(text)
        for key in keys:
            found = found[key]
        return found

    return read


def json_folder(path: str) -> Callable[[Path], list[dict]]:
    """Reads all .json files of a folder, in the order of their numbers."""

    def read(folder: Path) -> list[dict]:
        files = sorted((folder / path).glob("*.json"), key=lambda file: (len(file.stem), file.stem))
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]

    return read
