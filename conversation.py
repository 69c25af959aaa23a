"""A question put to a chat endpoint, with the interpreter in between.

The protocol is rollout.py's. A chat endpoint does not go on within its own message, so what a program printed goes back
as a message of the user's; what the model wrote behind the program, results that it made up included, is cut off first.
The record is stitched together again as one reply with observations inside, as our own models write it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from endpoint import Reply
from executor import Executor
from rollout import CUT_NOTE, PROMPT_STYLES, Protocol, first_event, up_to_event
from suites.base import Problem
from tasks import is_right

STYLES = ("free", "text", "code", "guided")
BARE = "bare"  # the question alone, for teachers that were trained on nothing else
# Of question and instruction; what is said to the teacher alone, and no student ever sees.
FORMATS = (
    "{instruction}{question}",
    "{question}\n\n{instruction}",
    "# Task\n{question}\n\n# How to answer\n{instruction}",
    "{instruction}Check the result before you answer.\n\nQuestion: {question}",
)
GUIDED = (
    "You may leave a turn without an answer where you are not sure; you will be asked to go on, with a hint how.\n\n"
)
GUIDE = (
    "You watch somebody answer a question, by thinking in text and by Python programs that are run for them. Say in "
    "one line what they should do next: start it with TEXT if they should think in text, CODE if they should write a "
    "program, ANSWER if they should give the answer; then the reason, without the answer itself.\n\n"
    "Question:\n{question}\n\nSo far:\n{so_far}"
)


Ask = Callable[[str, list[dict[str, str]]], Awaitable[Reply]]  # who, "answer" or "guide"; and all that was said so far


class Conversation:
    """One problem, asked in one way: what is said to the endpoint, and what becomes of it as a trajectory."""

    def __init__(
        self,
        problem: Problem,
        style: str,
        ask: Ask,
        executor: Executor,
        max_code_runs: int,
        max_observation_chars: int = 3000,
        form: int = 0,
    ):
        self.problem, self.guided, self.text_only = problem, style == "guided", style == "text"
        self.ask, self.executor, self.max_observation_chars = ask, executor, max_observation_chars
        instruction = PROMPT_STYLES["free" if self.guided else style] + GUIDED * self.guided
        content = FORMATS[form].format(instruction=instruction, question=problem.question)
        self.messages = [{"role": "user", "content": content}]
        self.segments = [{"text": problem.question, "source": "prompt"}]
        self.protocol = Protocol(max_code_runs)
        self.statuses: list[str] = []  # of programs
        self.turns: list[str] = []  # "text" or "code"

    async def record(self) -> dict[str, Any]:
        """Runs it to its end."""
        finish = ""
        while not finish:
            if self.guided:
                await self._hint()
            finish = await self._turn()
        problem, answer = self.problem, self.protocol.answer
        verdict = answer is not None and await asyncio.to_thread(is_right, problem, answer, self.executor)
        if finish == "answer" and not replays(self.segments):
            finish = "unfit"
        return {
            "task": problem.task, "index": problem.index, "correct": bool(verdict),
            "finish": "sandbox_error" if verdict is None else finish,
            "answer": answer, "statuses": self.statuses, "turns": self.turns, "segments": self.segments,
        }  # fmt: skip

    async def _hint(self) -> None:
        """Puts the guide's line behind what the teacher reads next."""
        so_far = "".join(segment["text"] for segment in self.segments[1:]) or "(nothing yet)"
        prompt = GUIDE.format(question=self.problem.question, so_far=so_far)
        reply = await self.ask("guide", [{"role": "user", "content": prompt}])
        line = next(iter(reply.text.strip().splitlines()), "")
        if line:
            self.messages[-1]["content"] += f"\n\nHint for your next turn: {line}"

    async def _turn(self) -> str:
        """One message of the teacher's and what follows from it; how the episode has ended, or an empty string."""
        reply = await self.ask("answer", self.messages)
        text = up_to_event(reply.text.lstrip())
        happened = first_event(text)
        action = self.protocol.read(text, "" if happened else "length" if reply.finish == "length" else "end")
        self._said(text if happened else text.rstrip())
        if action.kind == "run" and self.text_only:
            return "turns"
        if action.kind == "run":
            result = await asyncio.wrap_future(self.executor.submit(action.text))
            self.statuses.append(result.status)
            action = self.protocol.observe(result)
        if action.kind == "say":
            self._observed(action.text)
            return ""
        # A guided teacher may think aloud, and be told to go on.
        aloud = action.text == "no_answer" and self.guided and text.strip() != ""
        if aloud and len(self.turns) <= self.protocol.max_code_runs:
            self.messages.append({"role": "user", "content": "Go on."})
            return ""
        return action.text

    def _said(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})
        event = first_event(text)
        self.turns.append("code" if event and event[0] == "code" else "text")
        if self.segments[-1]["source"] == "model":  # two messages in a row are one piece of the student's reply
            self.segments[-1]["text"] += f"\n\n{text}"
        else:
            self.segments.append({"text": text, "source": "model"})

    def _observed(self, text: str) -> None:
        if (most := self.max_observation_chars) < len(text):
            text = text[: most // 2] + CUT_NOTE + text[-(most // 2) :]
        self.segments.append({"text": text, "source": "observation"})
        self.messages.append({"role": "user", "content": text.strip("\n")})


def replays(segments: Sequence[dict[str, str]]) -> bool:
    """Whether a reply would have been stopped where these segments end: not where a message left a code block open that
    the next one went on in."""
    texts = [segment["text"] for segment in segments if segment["source"] == "model"]
    events = [first_event(text) for text in texts]
    if not all(events) or any(up_to_event(text) != text for text in texts):
        return False
    return [event[0] for event in events] == ["code"] * (len(events) - 1) + ["answer"]
