"""The protocol between a model and the interpreter, and the loop that drives a generator and an executor through it.

A reply is one assistant turn. The model writes text; where it closes a ```python block, the program is run and what it
printed is appended behind the words "Code Execution Results:", and the model goes on in the same turn, token in, token
out: nothing that was sampled is ever decoded and encoded again. The reply is over at the first closed <<<answer>>>
outside code, at an end token, or when a budget is spent.

`Protocol` is that state machine, pure: it reads text and says what to do next, and is tested without any model.
`rollout` asks it about every sequence that the generator stops for. `Episode` is what goes on to the update.

Differs from the paper: a program has 5 s rather than 60; a reply that ends without an answer is simply wrong, where the
paper's parent system tells the model so and lets it go on; a program written when no runs are left is not run but
answered once with a note.
"""

import dataclasses
import operator
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from checkpoint import Bundle
from executor import Executor, Result, SandboxError
from generator import Generator, Sequence
from sampling import sampling_key
from slots import FREE_SHARE, affordable_slots, free_memory, slot_bytes
from suites.base import Problem
from tasks import PYTHON_FENCES, answers, is_right, reward, spans
from throughput import RolloutStats

ANSWER_FORMAT = "Give the final answer as <<<answer>>>, outside of any code."
CODE_FORMAT = (
    "a block that opens with ```python and closes with ```. It will be run, what it prints will be shown to you after "
    "the words Code Execution Results:, and you go on from there. Every program starts afresh."
)
PROMPT_STYLES = {
    "free": f"Answer the question below. Think step by step. Where computing, searching or checking is surer in code, "
    f"write a Python program in {CODE_FORMAT} {ANSWER_FORMAT}\n\n",
    "text": f"Answer the question below. Think step by step, in text only: do not write code. {ANSWER_FORMAT}\n\n",
    "code": f"Answer the question below by a Python program in {CODE_FORMAT} {ANSWER_FORMAT}\n\n",
    "bare": "",  # the question alone: for models that were trained on nothing else
}
OBSERVATION = "\nCode Execution Results:\n{}\n"
NO_RUNS_LEFT = OBSERVATION.format("Not run: no code runs are left. " + ANSWER_FORMAT)
CUT_NOTE = "\n[... output cut ...]\n"
MANY_ERRORS = 8  # so many sandbox errors, if they are most of a rollout's programs, end the run
GROUPS_IN_DETAIL = 16  # of a step: their episodes are stored with log-probs, which take more room than the text
REJOIN_STEPS = 4  # deterministic mode: generator steps from the end of a block to its observation

Finish = Literal["answer", "turns", "length", "no_answer", "prompt_too_long", "sandbox_error"]


@dataclasses.dataclass
class RolloutArguments:
    """How episodes are sampled; a part of the arguments of every script that samples."""

    prompt_style: str = dataclasses.field(
        default="", metadata={"help": "free | text | code | bare; empty: the checkpoint's own, or free"}
    )
    slots: int = dataclasses.field(
        default=128, metadata={"help": "sequences generated at the same time, as far as their cache fits in memory"}
    )
    cache_gib: float = dataclasses.field(
        default=0, metadata={"help": "memory for keys and values, GiB per process; 0: at most 0.8 of what is free"}
    )
    max_reply_tokens: int = dataclasses.field(
        default=256, metadata={"help": "longest reply, observations included; longer ones end as finish=length"}
    )
    max_code_runs: int = dataclasses.field(default=8, metadata={"help": "programs run per episode"})
    max_observation_tokens: int = dataclasses.field(
        default=96, metadata={"help": "longer output is cut in the middle, with a note"}
    )
    code_timeout: float = dataclasses.field(default=5.0, metadata={"help": "seconds a program may run"})
    best_effort: bool = dataclasses.field(
        default=False, metadata={"help": "run programs even where the sandbox does not hold, with your rights"}
    )
    deterministic: bool = dataclasses.field(
        default=True, metadata={"help": "the same seed gives the same bits: observations rejoin at fixed steps"}
    )

    def executor(self) -> Executor:
        """What runs the programs of these episodes; to be closed."""
        return Executor(timeout=self.code_timeout, best_effort=self.best_effort)


@dataclasses.dataclass
class Turn:
    """The tokens [start, end) that the model wrote, and the program among them; its observation starts at `end`."""

    start: int
    end: int
    code: str | None = None
    result: Result | None = None


@dataclasses.dataclass
class Episode:
    """One reply to one problem: the only thing that passes from rollout to update."""

    id: int
    group: int
    step: int
    problem: Problem
    tokens: Tensor  # int64 [n], the prompt first
    sampled: Tensor  # bool [n]: True where the model chose the token
    logprobs: Tensor  # float32 [n]: log-prob under the sampling distribution, 0 where not sampled
    turns: list[Turn]
    finish: Finish
    answer: str | None
    correct: bool
    reward: float
    advantage: float = 0.0

    @property
    def code_runs(self) -> int:
        return sum(turn.result is not None for turn in self.turns)

    def segments(self, tokenizer) -> list[dict[str, str]]:
        """The episode as text, in pieces of one source each: prompt, model or observation."""
        pieces, start = [], 0
        for turn in self.turns:
            for end, source in ((turn.start, "observation" if start else "prompt"), (turn.end, "model")):
                if end > start:
                    pieces.append({"text": tokenizer.decode(self.tokens[start:end]), "source": source})
                start = end
        return pieces

    def token_logprobs(self, tokenizer) -> list[list[float]]:
        """For each piece that the model wrote, of every token in turn: how many bytes of text it is, and its log-prob.
        Empty for a piece in which a character is cut into several tokens."""
        found = []
        for turn in (turn for turn in self.turns if turn.end > turn.start):
            tokens = self.tokens[turn.start : turn.end].tolist()
            sizes = [len(tokenizer.decode([token]).encode()) for token in tokens]
            whole = len(tokenizer.decode(tokens).encode()) == sum(sizes)
            pairs = zip(sizes, self.logprobs[turn.start : turn.end].tolist(), strict=True)
            found.append([value for size, logprob in pairs for value in (size, round(logprob, 3))] if whole else [])
        return found

    def record(self, tokenizer) -> dict[str, Any]:
        """What is written to episodes.jsonl: everything a person wants to read, nothing that training needs."""
        tokens = {"token_logprobs": self.token_logprobs(tokenizer)} if self.group < GROUPS_IN_DETAIL else {}
        return {
            "step": self.step,
            "group": self.group,
            "id": self.id,
            "task": self.problem.task,
            "index": self.problem.index,
            "question": self.problem.question,
            "segments": self.segments(tokenizer),
            "reference": self.problem.answer,
            "answer": self.answer,
            "correct": self.correct,
            "finish": self.finish,
            "reward": self.reward,
            "advantage": round(self.advantage, 4),
            "code_runs": self.code_runs,
            "sampled_tokens": int(self.sampled.sum()),
            "statuses": [turn.result.status for turn in self.turns if turn.result is not None],
            **tokens,
        }


# --------------------------------------------------------------------------------------------------------------------
# text and tokens


def choose_style(style: str, bundle: Bundle) -> str:
    """The prompt style asked for, or the checkpoint's own if none was; ValueError for one that there is not."""
    style = style or bundle.prompt_style
    if style not in PROMPT_STYLES:
        raise ValueError(f"unknown prompt style {style!r}: one of {', '.join(PROMPT_STYLES)}")
    return style


def encode(tokenizer, text: str) -> list[int]:
    """Tokens of a text of any length: those who ask know what to do with too many, and need no warning."""
    return tokenizer.encode(text, add_special_tokens=False, verbose=False)


def prompt_tokens(tokenizer, question: str, style: str) -> list[int]:
    """The prompt in the model's own chat template, up to where the assistant's reply begins."""
    message = {"role": "user", "content": PROMPT_STYLES[style] + question}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    return encode(tokenizer, text)


def check_prompts(problems: list[Problem], bundle: Bundle, style: str, name: str) -> None:
    """ValueError for an unknown prompt style, or where not one prompt fits the context of the model, called `name`: all
    of its episodes would end as prompt_too_long. To be asked before anything is computed."""
    style, context = choose_style(style, bundle), bundle.model.config.max_positions
    if not any(len(prompt_tokens(bundle.tokenizer, problem.question, style)) < context for problem in problems):
        raise ValueError(f"no prompt fits the context of {name}, which is {context} tokens: {len(problems)} problems")


def observation(result: Result) -> str:
    """What the model is shown of a program's run: what it printed, then why it did not end well, if it did not."""
    notice = {
        "timeout": "The program was stopped: time limit reached.",
        "memory": "The program was stopped: memory limit reached.",
        "output": "The program was stopped: too much output.",
        "signal": "The program was killed by the system.",
    }.get(result.status, "")
    parts = [part.rstrip() for part in (result.stdout, result.stderr, notice)]
    body = "\n".join(part for part in parts if part) or "(no output)"
    return OBSERVATION.format(body)


def observation_tokens(tokenizer, text: str, max_tokens: int) -> list[int]:
    """Tokens of an observation, at most `max_tokens` of them: head and tail of a long one, with a note between, cut at
    characters rather than inside one."""
    if len(text) > 64 * max_tokens:  # tokenizing megabytes to keep a hundred tokens would stall the loop
        text = text[: 32 * max_tokens] + text[-32 * max_tokens :]
    tokens = encode(tokenizer, text)
    if len(tokens) <= max_tokens:
        return tokens
    note = encode(tokenizer, CUT_NOTE)
    tail = max(0, max_tokens - len(note)) // 2
    head = max(0, max_tokens - len(note) - tail)
    while head and tokenizer.decode(tokens[:head]).endswith("\ufffd"):
        head -= 1
    while tail and tokenizer.decode(tokens[-tail:]).startswith("\ufffd"):
        tail -= 1
    return tokens[:head] + note + (tokens[-tail:] if tail else [])


def encode_trajectory(
    tokenizer, segments: list[dict[str, str]], style: str, end_id: int, max_observation_tokens: int
) -> tuple[Tensor, Tensor]:
    """Tokens (int64 [n]) and `sampled` (bool [n]) of a stored trajectory. Every segment is tokenized by itself, as it
    would have come about in a rollout, so the mask is right by construction; the reply closes with an end token."""
    tokens: list[int] = []
    sampled: list[bool] = []
    for segment in segments:
        text, source = segment["text"], segment["source"]
        if source == "prompt":
            piece = prompt_tokens(tokenizer, text, style)
        elif source == "observation":
            piece = observation_tokens(tokenizer, text, max_observation_tokens)
        else:
            piece = encode(tokenizer, text)
        tokens += piece
        sampled += [source == "model"] * len(piece)
    return torch.tensor([*tokens, end_id]), torch.tensor([*sampled, True])


def watched_tokens(tokenizer) -> Tensor:
    """bool [vocab]: the tokens that can complete a code fence or an answer. In the byte-level vocabularies of the
    supported families, ASCII characters stand for themselves."""
    watch = torch.zeros(len(tokenizer), dtype=torch.bool)
    watch[[i for token, i in tokenizer.get_vocab().items() if "`" in token or ">" in token]] = True
    return watch


# --------------------------------------------------------------------------------------------------------------------
# the state machine


@dataclasses.dataclass(frozen=True)
class Action:
    """What to do next: "go_on" generating, "run" the program in `text`, "say" the observation in `text`, or "finish"
    with the reason in `text`."""

    kind: Literal["go_on", "run", "say", "finish"]
    text: str = ""


@dataclasses.dataclass
class Protocol:
    """The course of one episode, in text."""

    max_code_runs: int = 8
    max_timeouts: int = 2  # in a row: a model that writes endless loops would stall everybody
    code_runs: int = 0
    timeouts: int = 0
    warned: bool = False
    answer: str | None = None

    def read(self, turn: str, ended: str = "") -> Action:
        """Decides from what the model has written since the prompt or the last observation. To be asked whenever a
        back-tick or `>` has been written, and when generation has `ended` ("end" | "length")."""
        event = first_event(turn)
        if event and event[0] == "answer":
            self.answer = event[1]
            return Action("finish", "answer")
        if ended == "length":
            return Action("finish", "length")
        if ended:
            return Action("finish", "no_answer")
        if not event:
            return Action("go_on")
        if self.code_runs < self.max_code_runs:
            self.code_runs += 1
            return Action("run", event[1])
        if self.warned:
            return Action("finish", "turns")
        self.warned = True
        return Action("say", NO_RUNS_LEFT)

    def observe(self, result: Result) -> Action:
        """Decides from how a program ended."""
        if result.status == "sandbox_error":
            return Action("finish", "sandbox_error")
        self.timeouts = self.timeouts + 1 if result.status == "timeout" else 0
        if self.timeouts >= self.max_timeouts:
            return Action("finish", "turns")
        return Action("say", observation(result))


def first_event(text: str) -> tuple[Literal["answer", "code"], str] | None:
    """The first answer or closed Python block in a text, whichever closes first."""
    found = _first(text)
    return found[1:] if found else None


def up_to_event(text: str) -> str:
    """A turn up to the end of its first answer or program, where generation would have stopped; all of it if there is
    none."""
    found = _first(text)
    return text[: found[0]] if found else text


def _first(text: str) -> tuple[int, Literal["answer", "code"], str] | None:
    events = [(match.end(), "answer", match[1].strip()) for match in answers(text)]
    for span in spans(text):
        if span.kind == "fence" and span.closed and span.language in PYTHON_FENCES:
            events.append((span.end, "code", span.code(text)))
    return min(events) if events else None


# --------------------------------------------------------------------------------------------------------------------
# the loop


@dataclasses.dataclass(eq=False)
class InFlight:
    """An episode in the making."""

    id: int
    group: int
    problem: Problem
    protocol: Protocol
    sequence: Sequence | None  # None: its prompt was too long to begin with
    turns: list[Turn] = dataclasses.field(default_factory=list)
    program: Future[Result] | None = None  # running, while the sequence is parked
    due: int = 0  # deterministic mode: the generator step at which its output goes back

    def episode(self, step: int, finish: Finish, executor: Executor, prompt: Tensor | None = None) -> Episode:
        if self.sequence is None:
            nothing = torch.zeros(len(prompt))
            tokens, sampled, logprobs = prompt, nothing.bool(), nothing
        else:
            tokens, sampled, logprobs = self.sequence.tokens, self.sequence.sampled, self.sequence.logprobs
        answer = self.protocol.answer
        # A question that somebody typed belongs to no task ("") and has no reference answer.
        graded = answer is not None and self.problem.task != ""
        correct = is_right(self.problem, answer, executor) if graded else False
        if correct is None:
            correct, finish = False, "sandbox_error"
        return Episode(
            self.id, self.group, step, self.problem, tokens, sampled, logprobs,
            self.turns, finish, answer, correct, reward(correct),
        )  # fmt: skip


class Rollout:
    """Samples episodes of one model with the interpreter in the loop."""

    def __init__(self, bundle: Bundle, executor: Executor, arguments: RolloutArguments, seed: int = 0):
        self.bundle, self.executor, self.arguments, self.seed = bundle, executor, arguments, seed
        self.tokenizer = bundle.tokenizer
        self.style = choose_style(arguments.prompt_style, bundle)
        self.watch = watched_tokens(bundle.tokenizer)
        self.kept: Generator | None = None

    def __call__(
        self,
        problems: list[Problem],
        samples: int = 1,
        temperature: float = 1.0,
        step: int = 0,
        progress: str = "",
        groups: Iterable[int] | None = None,
        top_p: float = 1.0,
    ) -> tuple[list[Episode], RolloutStats]:
        """`samples` episodes per problem, in the order of the problems. What is sampled depends on seed, step and the
        episode's number alone. `groups`: the numbers of the problems that are sampled here, all if None; they may come
        one by one, and if not deterministic, are asked for when there is room. `progress`: the label of a progress bar,
        none if empty. `top_p`: for evaluation, see sampling.sample."""
        stats, started = RolloutStats(), time.perf_counter()
        coming = range(len(problems)) if groups is None else groups
        mine = coming if isinstance(coming, range) else range(len(problems))
        prompts = {group: prompt_tokens(self.tokenizer, problems[group].question, self.style) for group in mine}
        context, total = self.bundle.model.config.max_positions, samples * operator.length_hint(coming, len(problems))
        longest = max((len(prompt) for prompt in prompts.values() if len(prompt) < context), default=0)
        generator = self._generator(min(context, longest + self.arguments.max_reply_tokens), total)
        generator.restart(temperature, top_p, stats)
        live: dict[Sequence, InFlight] = {}
        waiting: list[InFlight] = []  # for their programs
        done: list[Episode] = []
        coming = iter(coming)

        def admit() -> bool:
            """Takes the next group; False if there is none."""
            if (group := next(coming, None)) is None:
                return False
            problem, prompt = problems[group], prompts[group]
            for id in range(group * samples, (group + 1) * samples):
                flight = InFlight(id, group, problem, Protocol(self.arguments.max_code_runs), None)
                if len(prompt) >= context:
                    flight.turns.append(Turn(len(prompt), len(prompt)))
                    done.append(flight.episode(step, "prompt_too_long", self.executor, torch.tensor(prompt)))
                    bar.update()
                    continue
                key = sampling_key(self.seed, step, id)
                flight.sequence = generator.add(prompt, key, self.arguments.max_reply_tokens, group)
                live[flight.sequence] = flight
            return True

        def act(flight: InFlight, action: Action) -> None:
            if action.kind == "run":
                generator.park(flight.sequence)
                flight.turns[-1].code, flight.due = action.text, generator.steps + REJOIN_STEPS
                flight.program = self.executor.submit(action.text)
                waiting.append(flight)
            elif action.kind == "say":
                tokens = observation_tokens(self.tokenizer, action.text, self.arguments.max_observation_tokens)
                if not generator.resume(flight.sequence, tokens):
                    act(flight, Action("finish", "length"))
            elif action.kind == "finish":
                if not flight.sequence.ended:
                    generator.finish(flight.sequence)
                done.append(flight.episode(step, action.text, self.executor))
                del live[flight.sequence]
                bar.update()

        more = True
        with tqdm(total=total, desc=progress, disable=not progress, leave=False) as bar:
            while True:
                while more and (self.arguments.deterministic or len(live) < generator.slots):
                    more = admit()
                if not generator.busy and not waiting:
                    break
                for sequence in generator.step():
                    flight, tokens = live[sequence], generator.turn_tokens(sequence)
                    text = self.tokenizer.decode(tokens, skip_special_tokens=True)
                    action = flight.protocol.read(text, sequence.ended)
                    if action.kind != "go_on":
                        flight.turns.append(Turn(sequence.turn_start, sequence.turn_start + len(tokens)))
                        act(flight, action)
                self.on_step(generator, live)
                for flight in self._back(waiting, generator, stats):
                    waiting.remove(flight)
                    result = flight.turns[-1].result = flight.program.result()
                    stats.programs += 1
                    stats.program_seconds += result.wall_s
                    stats.program_cpu_seconds += result.cpu_s
                    stats.program_queue_seconds += result.queue_s
                    stats.sandbox_errors += result.status == "sandbox_error"
                    act(flight, flight.protocol.observe(result))
        if stats.sandbox_errors > max(MANY_ERRORS, stats.programs / 2):
            raise SandboxError(
                f"{stats.sandbox_errors} of {stats.programs} programs could not be run, by no fault of theirs: look at "
                "the machine (processes, memory, open files), then start again"
            )
        stats.seconds = time.perf_counter() - started
        return sorted(done, key=lambda episode: episode.id), stats

    def on_step(self, generator: Generator, live: dict[Sequence, InFlight]) -> None:
        """Called after every generator step, before any waiting for programs, with the episodes that have not ended.
        Does nothing: for subclasses that watch episodes grow (`generator.known` reads them), as chat.py does."""

    def _generator(self, max_length: int, sequences: int) -> Generator:
        """One with room for `max_length` tokens in as many slots as are wanted, needed and affordable."""
        model, kept, gib = self.bundle.model, self.kept, self.arguments.cache_gib
        weight, wanted = model.embed_tokens.weight, min(self.arguments.slots, sequences)
        length = max(max_length, kept.max_length if kept else 0)
        budget = gib * 2**30 if gib else FREE_SHARE * free_memory(weight.device)
        slots = affordable_slots(wanted, slot_bytes(model.config, length, weight.dtype, weight.device), budget)
        if kept and kept.slots >= slots and kept.max_length >= length:
            return kept
        self.kept = kept = None  # its memory goes before there is another
        generator = Generator(model, slots, length, self.watch, self.bundle.end_ids)
        # Memory that was set apart stays so, and with it the CUDA graphs; else the update has it in between.
        self.kept = generator if gib and weight.is_cuda else None
        return generator

    def _back(self, waiting: list[InFlight], generator: Generator, stats: RolloutStats) -> list[InFlight]:
        """Those of `waiting` whose results may go back now; blocks if there is nothing else to do."""
        if not waiting:
            return []
        started = time.perf_counter()
        if self.arguments.deterministic:
            # Which step an observation joins decides the shape of every batch, and with it the rounding of all.
            due = generator.steps if generator.busy else min(flight.due for flight in waiting)
            back = [flight for flight in waiting if flight.due <= due]
            wait([flight.program for flight in back])
        else:
            if not generator.busy:
                wait([flight.program for flight in waiting], return_when=FIRST_COMPLETED)
            back = [flight for flight in waiting if flight.program.done()]
        stats.tool_wait_seconds += time.perf_counter() - started
        return back
