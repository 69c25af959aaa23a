"""Who answers the questions of an evaluation: a checkpoint, shared by all ranks, or a model behind an endpoint.

Both give the same records, a dict per reply as `Episode.record` makes it, with `model`, `decoding` (how it was asked)
and `sample` (its number among the replies to its problem). They come in batches, each to be stored before the next is
begun; what is stored already is not asked again. And a judge, for replies in which the rules find no answer.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from accelerate.utils import gather_object
from tqdm import tqdm

from conversation import Conversation
from endpoint import Endpoint, Reply, Usage
from executor import Executor
from rollout import Rollout
from scores import Record
from suites.base import Problem
from tasks import extract_answer, is_right
from throughput import RolloutStats
from training import over_ranks, shared_groups

BATCH = 512  # problems a checkpoint is asked between two writes
JUDGE = (
    "Somebody was asked the question below and gave the reply below it. Which final answer does the reply give? Do not "
    "solve the question, and do not mend the answer. Write it as <<<answer>>>, in the form that the question asks for; "
    "if the reply gives none, write <<<none>>>.\n\nQuestion:\n{question}\n\nReply:\n{reply}"
)
JUDGE_TOKENS = 512


class Mode(NamedTuple):
    """One way of asking."""

    name: str
    style: str
    samples: int
    temperature: float
    top_p: float = 1.0


Done = set[tuple[str, str, str, int, int]]  # model, mode, task, index, sample


def key(record: Record) -> tuple[str, str, str, int, int]:
    return record["model"], record["decoding"], record["task"], record["index"], record["sample"]


def from_checkpoint(
    rollout: Rollout, label: str, mode: Mode, problems: Sequence[Problem], done: Done, progress: bool
) -> Iterator[tuple[list[Record], RolloutStats]]:
    """The replies of a checkpoint, by batches, on the main process; on others, empty lists. A reply's number does not
    depend on batches or ranks, and so what is sampled does not either."""
    for first in range(0, len(problems), BATCH):
        batch = problems[first : first + BATCH]
        if all((label, mode.name, p.task, p.index, i) in done for p in batch for i in range(mode.samples)):
            continue
        shown = f"{label}, {mode.name}" if progress else ""
        groups = shared_groups(len(batch), rollout.arguments, first)
        episodes, stats = rollout(problems, mode.samples, mode.temperature, 0, shown, groups, mode.top_p)
        records = [
            {"model": label, "decoding": mode.name, "sample": episode.id % mode.samples}
            | episode.record(rollout.tokenizer)
            for episode in episodes
        ]
        yield sorted(gather_object(records), key=lambda record: record["id"]), over_ranks(stats)[0]


class Remote:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, label: str, endpoint: Endpoint, executor: Executor, max_code_runs: int, max_tokens: int):
        self.label, self.endpoint, self.executor = label, endpoint, executor
        self.max_code_runs, self.max_tokens, self.usage = max_code_runs, max_tokens, Usage()

    async def replies(
        self, mode: Mode, problems: Sequence[Problem], done: Done, concurrency: int, progress: bool
    ) -> AsyncIterator[Record]:
        """Each reply as soon as it is there. No more are begun than calls are allowed."""
        work = [
            (number * mode.samples + i, problem, i)
            for number, problem in enumerate(problems)
            for i in range(mode.samples)
            if (self.label, mode.name, problem.task, problem.index, i) not in done
        ]
        coming, running = iter(work), set()
        try:
            with tqdm(total=len(work), desc=f"{self.label}, {mode.name}", disable=not progress, leave=False) as bar:
                while True:
                    while len(running) < concurrency and (item := next(coming, None)) is not None:
                        running.add(asyncio.create_task(self._reply(mode, *item)))
                    if not running:
                        return
                    finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in finished:
                        yield task.result()
                        bar.update()
        finally:
            for task in running:
                task.cancel()

    async def _reply(self, mode: Mode, id: int, problem: Problem, sample: int) -> Record:
        used = Usage()

        async def ask(_: str, messages: list[dict[str, str]]) -> Reply:
            reply = await self.endpoint.chat(self.label, messages, mode.temperature, self.max_tokens, mode.top_p)
            used.add(reply.usage)
            self.usage.add(reply.usage)
            return reply

        conversation = Conversation(problem, mode.style, ask, self.executor, self.max_code_runs)
        found = await conversation.record()
        return {
            "model": self.label, "decoding": mode.name, "sample": sample, "step": 0, "group": id // mode.samples,
            "id": id, "question": problem.question, "reference": problem.answer, "reward": float(found["correct"]),
            "advantage": 0.0, "code_runs": len(found["statuses"]), "sampled_tokens": used.completion_tokens,
            **{name: value for name, value in found.items() if name != "turns"},
        }  # fmt: skip


async def judged(
    records: Sequence[Record], problems: dict[tuple[str, int], Problem], judge: str, endpoint: Endpoint,
    executor: Executor, progress: bool,
) -> AsyncIterator[Record]:  # fmt: skip
    """For each reply without an answer, what a judge reads out of it, and whether that is right by the task's rule."""

    async def one(record: Record) -> Record:
        said = "".join(segment["text"] for segment in record["segments"] if segment["source"] != "prompt")
        message = {"role": "user", "content": JUDGE.format(question=record["question"], reply=said)}
        reply = await endpoint.chat(judge, [message], 0.0, JUDGE_TOKENS)
        answer = extract_answer(reply.text, last=True)
        answer = None if answer is None or answer.casefold() == "none" else answer
        problem = problems[record["task"], record["index"]]
        right = answer is not None and await asyncio.to_thread(is_right, problem, answer, executor)
        where = ("model", "decoding", "task", "index", "sample")
        return {name: record[name] for name in where} | {"judge": judge, "judge_answer": answer, "judged": bool(right)}

    tasks = [asyncio.create_task(one(record)) for record in records]
    try:
        for task in tqdm(asyncio.as_completed(tasks), "judge", len(tasks), disable=not progress, leave=False):
            yield await task
    finally:
        for task in tasks:
            task.cancel()
