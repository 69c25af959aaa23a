"""Warm-start trajectories from a teacher behind any OpenAI-compatible endpoint.

    python teacher.py --tasks train --model gpt-4o --dry_run                 what it would ask, before it costs anything
    python teacher.py --tasks train --model gpt-4o --price_in 2.5 --price_out 10
    python teacher.py --tasks gcd,lcm --model out/grpo/checkpoint --base_url http://127.0.0.1:8000/v1

The teacher answers problems of the split "sft" in four styles: in text only, in code only, with the interpreter as it
likes, and guided: a second prompt reads what there is so far and steers each turn towards text or code (as CodeSteer
does; the student never sees it). The instructions come in several wordings, the temperatures in turn. Programs are
really run. A chat endpoint does not go on within its own message, so what a program printed goes back as a message of
the user's; what the teacher wrote behind the program, results that it made up included, is cut off first. The record is
stitched together again as one reply with observations inside, as the student will write it.

Right ones are kept, at most `--per_task` of each task, near-duplicates dropped; those in which a program failed and was
mended, or text turned to code, are preferred by `--multi_turn_weight`.

In `--out`: episodes.jsonl (all of them, each as soon as it is done), calls.jsonl (what every call has cost),
trajectories.jsonl (the selection, for `sft.py --data`), summary.txt and tasks.svg. Started again with the same --out,
after whatever interruption, it asks only for what is missing; the calls of an episode that was cut short are counted,
and made again.

Differs from the paper: any teacher in place of GPT-4o; a problem is asked in one style after the other until a task has
enough, where the paper's numbers of tries are not known.
"""

import asyncio
import dataclasses
import functools
import math
import random
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from checkpoint import write_whole
from cli import (
    Stopped,
    UserError,
    append_records,
    check_arguments,
    check_out,
    parse_arguments,
    read_records,
    remember,
    run_main,
    user_input,
)
from conversation import BARE, FORMATS, STYLES, Conversation
from endpoint import Endpoint, Reply, Usage
from executor import Executor, SandboxError, check_sandbox
from rollout import MANY_ERRORS
from selection import picture, select, summary, usable
from suites.base import Problem
from tasks import draw_problems, problems
from trajectories import write_trajectories


@dataclasses.dataclass
class TeacherArguments:
    model: str = dataclasses.field(default="", metadata={"help": "the teacher, as the endpoint calls it"})
    base_url: str = dataclasses.field(default="", metadata={"help": "of the endpoint; empty: OpenAI's"})
    out: str = dataclasses.field(default="out/teacher", metadata={"help": "folder; one that is there is gone on with"})
    tasks: str = dataclasses.field(default="train", metadata={"help": "names, suites, embedded, all, train, test"})
    per_task: int = dataclasses.field(default=70, metadata={"help": "trajectories kept of a task, at most"})
    spare: float = dataclasses.field(
        default=1.5,
        metadata={"help": "how many right ones to look for, times --per_task: what there is to choose from"},
    )
    attempts: int = dataclasses.field(default=280, metadata={"help": "episodes of a task, at most"})
    styles: list[str] = dataclasses.field(
        default_factory=lambda: list(STYLES),
        metadata={"help": "free, text, code, guided, bare: of a question, in turn"},
    )
    temperatures: list[float] = dataclasses.field(
        default_factory=lambda: [0.7, 1.0], metadata={"help": "of questions, in turn"}
    )
    guide_model: str = dataclasses.field(default="", metadata={"help": "who gives the hints; empty: the teacher"})
    keep_wrong: bool = dataclasses.field(default=False, metadata={"help": "keep wrong ones too: an ablation"})
    multi_turn_weight: float = dataclasses.field(
        default=2.0, metadata={"help": "how much likelier a reply with a repair, or that turns to code, is to be kept"}
    )
    max_code_runs: int = dataclasses.field(default=8, metadata={"help": "programs run per episode"})
    max_turn_tokens: int = dataclasses.field(default=2048, metadata={"help": "tokens of one message"})
    concurrency: int = dataclasses.field(default=16, metadata={"help": "calls at the same time"})
    request_timeout: float = dataclasses.field(default=120.0, metadata={"help": "seconds a call may take"})
    max_observation_chars: int = dataclasses.field(
        default=3000, metadata={"help": "longer output is cut in the middle, with a note"}
    )
    code_timeout: float = dataclasses.field(default=5.0, metadata={"help": "seconds a program may run"})
    best_effort: bool = dataclasses.field(
        default=False, metadata={"help": "run programs even where the sandbox does not hold, with your rights"}
    )
    price_in: float = dataclasses.field(default=0.0, metadata={"help": "dollars per million tokens of prompts"})
    price_out: float = dataclasses.field(default=0.0, metadata={"help": "dollars per million tokens of replies"})
    dry_run: bool = dataclasses.field(default=False, metadata={"help": "say what would be asked, and ask nothing"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of wordings and of the selection"})

    def __post_init__(self):
        check_arguments(self)
        if unknown := {*self.styles} - {*STYLES, BARE}:
            raise UserError(f"unknown style {', '.join(sorted(unknown))}: {', '.join(STYLES)}")
        if not self.model:
            raise UserError("--model is needed: the teacher's name, as the endpoint calls it")


# --------------------------------------------------------------------------------------------------------------------
# one episode


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One problem, asked in one way."""

    problem: Problem
    style: str
    format: int
    temperature: float

    @property
    def key(self) -> str:
        return f"{self.problem.task}/{self.problem.index}/{self.style}/{self.format}/{self.temperature}"


def attempts(task: str, arguments: TeacherArguments) -> list[Attempt]:
    """All that may be asked of a task, in the order in which it is: a question in every style, then the next."""
    count, styles = arguments.attempts, arguments.styles
    pool = problems(task, "sft", -(-count // len(styles)))
    found = []
    for number, problem in enumerate(pool):
        draw = random.Random(f"{arguments.seed} {task} {problem.index}")
        temperature = arguments.temperatures[number % len(arguments.temperatures)]
        formats = [0 if style == BARE else draw.randrange(len(FORMATS)) for style in styles]
        found += [Attempt(problem, style, form, temperature) for style, form in zip(styles, formats, strict=True)]
    return found[:count]


# --------------------------------------------------------------------------------------------------------------------
# all of them


class Teacher:
    """Asks for what a folder does not hold yet."""

    def __init__(self, arguments: TeacherArguments, endpoint: Endpoint, executor: Executor, folder: Path):
        self.arguments, self.endpoint, self.executor, self.folder = arguments, endpoint, executor, folder
        self.episodes = {record["key"]: record for record in read_records(folder / "episodes.jsonl")}
        self.slots = asyncio.Semaphore(arguments.concurrency)  # of episodes too: begun ones are brought to their end
        self.answered = self.lost = 0  # episodes of this run, and those that the sandbox failed
        self.usage = Usage()
        for call in read_records(folder / "calls.jsonl"):
            self.usage.add(Usage(1, call["retries"], call["prompt_tokens"], call["completion_tokens"]))

    async def ask(self, attempt: Attempt, who: str, messages: list[dict[str, str]]) -> Reply:
        model = self.arguments.model if who == "answer" else self.arguments.guide_model or self.arguments.model
        reply = await self.endpoint.chat(model, messages, attempt.temperature, self.arguments.max_turn_tokens)
        self.usage.add(reply.usage)
        used = dataclasses.asdict(reply.usage)
        append_records(self.folder / "calls.jsonl", [{"key": attempt.key, "model": model, **used}])
        return reply

    async def task(self, name: str, bar: tqdm) -> None:
        """Asks until enough is there. What is asked next depends on what was answered alone, never on the time."""
        coming = attempts(name, self.arguments)
        asked: list[dict[str, Any]] = []
        while (missing := wanted(self.arguments) - len(usable(asked, self.arguments.keep_wrong))) > 0 and coming:
            wave, coming = coming[:missing], coming[missing:]
            asked += await all_of([self._episode(attempt, bar) for attempt in wave])

    async def _episode(self, attempt: Attempt, bar: tqdm) -> dict[str, Any]:
        if (record := self.episodes.get(attempt.key)) is None:
            async with self.slots:
                conversation = Conversation(
                    attempt.problem,
                    attempt.style,
                    functools.partial(self.ask, attempt),
                    self.executor,
                    self.arguments.max_code_runs,
                    self.arguments.max_observation_chars,
                    attempt.format,
                )
                how = {"style": attempt.style, "format": attempt.format, "temperature": attempt.temperature}
                record = {"key": attempt.key, **how, **await conversation.record()}
            self.answered += 1
            self.lost += record["finish"] == "sandbox_error"
            if self.lost > max(MANY_ERRORS, self.answered / 2):
                raise SandboxError(
                    f"{self.lost} of {self.answered} episodes were lost to the sandbox, and all were paid for: look at "
                    "the machine (processes, memory, open files), then start again"
                )
            if record["finish"] != "sandbox_error":  # else it is asked again, when this is started again
                append_records(self.folder / "episodes.jsonl", [record])
                self.episodes[attempt.key] = record
        right = sum(record["correct"] for record in self.episodes.values())
        dollars = self.usage.dollars(self.arguments.price_in, self.arguments.price_out)
        figures = {
            "right": right,
            "calls": self.usage.calls,
            "retries": self.usage.retries,
            "dollars": f"{dollars:.2f}",
        }
        bar.set_postfix(figures, refresh=False)
        bar.update()
        return record


def wanted(arguments: TeacherArguments) -> int:
    """Of one task, how many are looked for."""
    return math.ceil(arguments.spare * arguments.per_task)


async def all_of(work: Sequence[Awaitable]) -> list[Any]:
    """What each gives; the first error ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


# --------------------------------------------------------------------------------------------------------------------
# Command line


def plan(names: Sequence[str], arguments: TeacherArguments) -> str:
    """What a run would ask at least, if all were right at once, and at most."""
    least = most = calls_least = calls_most = 0
    for name in names:
        coming = attempts(name, arguments)
        # A guided teacher may think aloud as often as it may run programs, and is hinted at every time.
        longest = {"guided": 4 * (arguments.max_code_runs + 1)}
        fewest = {"guided": 2}
        wave = coming[: wanted(arguments)]
        least, most = least + len(wave), most + len(coming)
        calls_least += sum(fewest.get(attempt.style, 1) for attempt in wave)
        calls_most += sum(longest.get(attempt.style, arguments.max_code_runs + 2) for attempt in coming)
    tokens = calls_most * arguments.max_turn_tokens
    return (
        f"{len(names)} tasks: {least:,} to {most:,} episodes, {calls_least:,} to {calls_most:,} calls, and replies of "
        f"at most {tokens:,} tokens together (dollars {tokens * arguments.price_out / 1e6:,.2f}); prompts come on top"
    )


MAY_CHANGE = {
    "per_task",
    "spare",
    "attempts",
    "multi_turn_weight",
    "keep_wrong",
    "concurrency",
    "request_timeout",
    "tasks",
}
MAY_CHANGE |= {"price_in", "price_out", "dry_run", "best_effort", "base_url"}


def teach(arguments: TeacherArguments) -> Path:
    """Asks for what is missing, selects, and returns the file of trajectories."""
    folder = Path(arguments.out)
    with user_input():
        # One problem of each: tasks whose data are missing are left out.
        names = list(dict.fromkeys(problem.task for problem in draw_problems(arguments.tasks, "sft", 1)))
    if arguments.dry_run:
        print(plan(names, arguments))
        return folder
    check_out(folder)
    check_sandbox(arguments.best_effort)
    remember(folder, arguments, MAY_CHANGE)

    async def ask(executor: Executor) -> Teacher:
        endpoint = Endpoint(arguments.base_url, arguments.concurrency, arguments.request_timeout)
        try:
            teacher = Teacher(arguments, endpoint, executor, folder)
            with tqdm(desc="episodes", unit="episode", mininterval=1) as bar:
                await all_of([teacher.task(name, bar) for name in names])
            return teacher
        finally:
            await endpoint.close()

    try:
        with Executor(timeout=arguments.code_timeout, best_effort=arguments.best_effort) as executor:
            teacher = asyncio.run(ask(executor))
    except (UserError, SandboxError, Stopped):
        count = len(read_records(folder / "episodes.jsonl"))
        print(f"\n{count} episodes are kept in {folder}; the same command goes on with them", flush=True)
        raise
    records = [record for record in teacher.episodes.values() if record["task"] in names]
    choice = (arguments.per_task, arguments.multi_turn_weight, arguments.keep_wrong, arguments.seed)
    kept = select(records, *choice)
    text = summary(records, kept, teacher.usage, teacher.usage.dollars(arguments.price_in, arguments.price_out))
    write_trajectories(kept, folder / "trajectories.jsonl")
    write_whole(folder / "summary.txt", [text, "\n"])
    picture(records, kept, folder / "tasks.svg")
    print(f"{text}\n\n{folder / 'trajectories.jsonl'}")
    return folder / "trajectories.jsonl"


def main(argv: list[str] | None = None) -> None:
    teach(parse_arguments(TeacherArguments, argv))


if __name__ == "__main__":
    run_main(main)
