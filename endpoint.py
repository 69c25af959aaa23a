"""An OpenAI-compatible endpoint, seen from the client: so many calls at once, retries, and what it all costs.

The openai package does the talking. Its own retries are off, so that every call that was answered, and every one that
had to be made again, is counted here.
"""

import asyncio
import dataclasses
import os
import random
from typing import Any, NamedTuple

import openai

from cli import UserError

ATTEMPTS = 8  # of one call, before the run ends
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds
PASSING = {408, 409, 425, 429}  # besides 5xx: these may succeed when they are tried again


@dataclasses.dataclass
class Usage:
    """What has been asked and answered. Tokens as the endpoint counts them."""

    calls: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, other: "Usage") -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def dollars(self, price_in: float, price_out: float) -> float:
        """At prices per million tokens."""
        return (self.prompt_tokens * price_in + self.completion_tokens * price_out) / 1e6


class Reply(NamedTuple):
    text: str
    finish: str  # "stop" | "length" | ...
    usage: Usage


def check_key(base_url: str) -> None:
    """UserError if OpenAI's own endpoint is meant and there is no key: to be asked before anything is computed."""
    if not (os.environ.get("OPENAI_API_KEY") or base_url):
        raise UserError("OPENAI_API_KEY is not set; for another endpoint than OpenAI's give --base_url")


class Endpoint:
    """At most `concurrency` calls at a time. To be used within one event loop, and closed."""

    def __init__(
        self, base_url: str = "", concurrency: int = 16, timeout: float = 120.0, first_wait: float = FIRST_WAIT
    ):
        check_key(base_url)
        key = os.environ.get("OPENAI_API_KEY", "")
        self.where = base_url or "the OpenAI API"
        self.client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=base_url or None, timeout=timeout, max_retries=0
        )
        self.slots = asyncio.Semaphore(concurrency)

    async def close(self) -> None:
        await self.client.close()

    async def chat(
        self, model: str, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_p: float = 1.0
    ) -> Reply:
        """The model's next message. UserError where trying again would not help, or has not."""
        retries, more = 0, {"top_p": top_p} if top_p < 1 else {}
        async with self.slots:
            while True:
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2**retries) * random.uniform(0.5, 1.5)
                try:
                    found = await self.client.chat.completions.create(
                        model=model, messages=messages, temperature=temperature, max_tokens=max_tokens, **more
                    )
                    return _reply(found, retries)
                except openai.APIStatusError as error:
                    if error.status_code < 500 and error.status_code not in PASSING:
                        raise UserError(f"{self.where} refuses: {_in_one_line(error)}") from error
                    reason, wait = _in_one_line(error), _retry_after(error.response.headers.get("retry-after"), wait)
                # A body that is not what it should be: JSON cut short, no choices, an error page.
                except (openai.APIError, ValueError, AttributeError, TypeError, LookupError) as error:
                    reason = _in_one_line(error)
                retries += 1
                if retries == ATTEMPTS:
                    raise UserError(f"{self.where} has failed {ATTEMPTS} times in a row: {reason}")
                await asyncio.sleep(wait)


def _reply(found: Any, retries: int) -> Reply:
    choice = found.choices[0]
    used = found.usage
    tokens = (int(used.prompt_tokens), int(used.completion_tokens)) if used else (0, 0)
    text = choice.message.content or ""
    if not isinstance(text, str):
        raise ValueError(f"a reply whose content is {type(text).__name__}")
    return Reply(text, choice.finish_reason or "stop", Usage(1, retries, *tokens))


def _retry_after(value: str | None, otherwise: float) -> float:
    try:
        return min(LONGEST_WAIT, max(0.0, float(value)))
    except (TypeError, ValueError):  # none, or a date
        return otherwise


def _in_one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
