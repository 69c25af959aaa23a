"""Ask a checkpoint in the terminal and watch it write code, see the output and answer, token by token.

    python chat.py                                           out/grpo/checkpoint, one question after the other
    python chat.py out/grpo/checkpoint "Find the Least Common Multiple (LCM) of these numbers: 12, 18"
    python chat.py Qwen/Qwen2.5-3B-Instruct --temperature 0 --max_reply_tokens 2048
    echo "What is 3 * 4?" | python chat.py MODEL             a question a line: no prompt, no colours

Ctrl-C stops a reply; at the prompt, Ctrl-C or Ctrl-D ends the program. What you see is a rollout as in training and
evaluation: the same prompt, sampling, programs and budgets. Every question is asked afresh, since the models here are
trained on single questions: there is no dialogue. The exit code of a command or pipe is 0 if all was answered.
"""

import contextlib
import dataclasses
import os
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from typing import TextIO

import torch
from torch import Tensor

from checkpoint import Bundle, load_bundle
from cli import UserError, parse_arguments, run_main, user_input
from executor import Executor
from generator import Generator, Sequence
from rollout import Episode, InFlight, Rollout, RolloutArguments, prompt_tokens
from suites.base import Problem
from training import fit_threads, start_processes

BOLD, DIM, PLAIN = "\033[1m", "\033[2m", "\033[0m"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


@dataclasses.dataclass
class ChatArguments(RolloutArguments):
    model: str = dataclasses.field(default="out/grpo/checkpoint", init=False)  # folder or hub name
    question: str = dataclasses.field(default="", init=False)  # empty: questions come from the terminal or a pipe
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "0: always the most likely token"})
    seed: int = dataclasses.field(default=0, metadata={"help": "the same seed and questions give the same replies"})
    # No flags: a question is alone in its batch, and what its programs print rejoins at once in either mode.
    slots: int = dataclasses.field(default=1, init=False)
    deterministic: bool = dataclasses.field(default=False, init=False)


class Chat(Rollout):
    """Rollouts of one question each, whose replies are written to `out` as they grow: on a `terminal` with observations
    set apart, unless NO_COLOR is set, and a word when a program starts; otherwise bare."""

    def __init__(self, bundle: Bundle, executor: Executor, arguments: ChatArguments, out: TextIO, terminal: bool):
        super().__init__(bundle, executor, arguments, arguments.seed)
        self.out, self.terminal = out, terminal
        self.colours = terminal and not os.environ.get("NO_COLOR")
        self.at_line_start, self.asked = True, 0

    def ask(self, question: str) -> Episode:
        """Shows the reply, then the answer or why there is none. A KeyboardInterrupt passes, and ends the program that
        the model may have started."""
        problem = Problem("", self.asked, question.encode(errors="replace").decode(), "")
        self.asked += 1
        self.position = len(prompt_tokens(self.tokenizer, problem.question, self.style))
        self.pending, self.by_model = [], True
        try:
            # Each question is a step of its own: asked again, it meets other random numbers.
            [episode], _ = self([problem], temperature=self.arguments.temperature, step=problem.index)
        except KeyboardInterrupt:
            self.write_line("stopped")
            executor, self.executor = self.executor, self.arguments.executor()
            executor.close()
            raise
        self.grow(episode.tokens[self.position :], episode.sampled[self.position :])  # what the last step brought
        self.show()
        if episode.finish == "answer":
            self.write_line("answer: ", episode.answer)
        else:
            self.write_line(f"no answer: {self.reason(episode)}")
        return episode

    def on_step(self, generator: Generator, live: dict[Sequence, InFlight]) -> None:
        for sequence, flight in live.items():
            self.grow(*generator.known(sequence, self.position))
            if flight.turns and flight.turns[-1].code is not None and flight.turns[-1].result is None:
                if self.terminal:
                    self.write(" [running]", DIM)
                while wait([flight.program], timeout=0.1).not_done:  # a Ctrl-C can go unnoticed in a wait without end
                    pass

    def grow(self, tokens: Tensor, sampled: Tensor) -> None:
        """Shows further tokens (int64 [n]) of the model (sampled: bool [n]) or of an observation."""
        self.position += len(tokens)
        for token, by_model in zip(tokens.tolist(), sampled.tolist(), strict=True):
            if by_model != self.by_model:
                self.show()
                self.by_model = by_model
            self.pending.append(token)
        self.show(whole_characters=True)

    def show(self, whole_characters: bool = False) -> None:
        """Shows the tokens not shown yet; with `whole_characters`, those that end inside one wait for the next."""
        tokens = [token for token in self.pending if token not in self.bundle.end_ids]
        text = self.tokenizer.decode(tokens, skip_special_tokens=True)
        if text and not (whole_characters and text.endswith("\ufffd")):
            self.write(text, "" if self.by_model else DIM)
            self.pending = []

    def write(self, text: str, style: str = "") -> None:
        self.at_line_start = text.endswith("\n")
        if self.terminal:  # an escape sequence from a model, or from what its program prints, could do anything to it
            text = CONTROL.sub(lambda character: f"\\x{ord(character[0]):02x}", text)
        print(f"{style}{text}{PLAIN}" if text and style and self.colours else text, end="", file=self.out, flush=True)

    def write_line(self, text: str, bold: str = "") -> None:
        self.write(text if self.at_line_start else f"\n{text}")
        self.write(bold, BOLD)
        self.write("\n")

    def reason(self, episode: Episode) -> str:
        """Why there is no answer."""
        context, result = self.bundle.model.config.max_positions, episode.turns[-1].result
        reasons = {
            "no_answer": "the reply ended without one",
            "length": f"no room is left (--max_reply_tokens {self.arguments.max_reply_tokens}, context {context})",
            "turns": f"no code runs are left (--max_code_runs {self.arguments.max_code_runs})",
            "prompt_too_long": f"the prompt has {len(episode.tokens)} tokens, too many for a context of {context}",
        }
        if result is not None:  # of the program with which it ended
            reasons |= {"turns": "two programs in a row timed out", "sandbox_error": f"not run: {result.stderr}"}
        return reasons[episode.finish].strip()


def questions(interactive: bool) -> Iterator[str]:
    """Lines of standard input; with `interactive` after a prompt, until Ctrl-D or Ctrl-C."""
    sys.stdin.reconfigure(errors="replace")
    if not interactive:
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - once imported, it lets `input` edit lines and remember them
    print("One question a line. Ctrl-C stops a reply; here, Ctrl-C or Ctrl-D ends.\n")
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            yield input("> ")
    print()


def converse(arguments: ChatArguments) -> bool:
    """Asks whatever there is to ask; returns whether a script that waits for answers got them all."""
    if not arguments.temperature >= 0 or arguments.max_reply_tokens < 1:
        raise UserError("--temperature must be at least 0, and --max_reply_tokens at least 1")
    terminal = sys.stdout.isatty() and (arguments.question != "" or sys.stdin.isatty())
    interactive = terminal and not arguments.question
    device, answered = start_processes().device, True
    with user_input():
        bundle = load_bundle(arguments.model, torch.bfloat16 if device.type == "cuda" else torch.float32, device)
        fit_threads(bundle.model)
        chat = Chat(bundle, arguments.executor(), arguments, sys.stdout, terminal)
    bundle.tokenizer.model_max_length = sys.maxsize  # it would warn of what prompt_too_long says
    try:
        for question in [arguments.question] if arguments.question else questions(interactive):
            if question.strip():
                with contextlib.suppress(KeyboardInterrupt) if interactive else contextlib.nullcontext():
                    answered &= chat.ask(question.strip()).answer is not None
                if not arguments.question:
                    print(flush=True)
    finally:
        chat.executor.close()
    return answered or interactive


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ChatArguments, argv, words=("model", "question"))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # that of `run_main` would end more than a reply
    try:
        if not converse(arguments):
            raise SystemExit(1)
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # the shell's number for it


if __name__ == "__main__":
    run_main(main)
