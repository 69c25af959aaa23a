"""Serve a checkpoint to any client of OpenAI's chat completions, with the interpreter on the client's side.

    python serve.py                                          out/grpo/checkpoint, at http://127.0.0.1:8000/v1
    python serve.py --model Qwen/Qwen2.5-3B-Instruct --port 9000 --served_name qwen --max_observation_tokens 1024

A checkpoint is an ordinary Hugging Face folder, which vLLM and `transformers serve` read: they are what to use in
production. But our models are trained on ONE assistant turn, in which the interpreter's output stands between parts
that the model wrote, and chat clients send that output as a user message. Here such a conversation is folded: a user
message that follows an assistant's and begins with "Code Execution Results:" becomes the observation that it was in
training, token for token, and the model goes on in the same turn, as it does behind an assistant's message that comes
last. (What the model itself wrote comes back as text: now and then it has other tokens than were sampled.) A reply ends
where a rollout would step in: at a closed ```python block, whose program is the client's to run, and at an answer. The
question gets the head prompt of the training, unless it brings one.

It takes the standard library and our generator. One thread owns the model and batches what is in flight; what is
sampled depends on a request's `seed` and the number of the choice alone, up to rounding. A batch has one temperature
and top_p: requests with others wait until it is done, and none that comes later is taken before them. There is no key
and no encryption: whoever reaches the port may ask.
"""

import contextlib
import copy
import itertools
import json
import queue
import secrets
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from jinja2 import TemplateError

from checkpoint import Bundle, load_bundle
from cli import UserError, check_arguments, parse_arguments, run_main, user_input
from generator import Generator, Sequence
from rollout import PROMPT_STYLES, choose_style, encode_trajectory, first_event, watched_tokens
from sampling import sampling_key
from slots import FREE_SHARE, free_memory, slot_bytes
from throughput import GeneratorStats
from training import fit_threads, start_processes

RESULTS = "Code Execution Results:"
ROUTES = {"/health": "GET", "/v1/models": "GET", "/v1/chat/completions": "POST"}
# Fields that would change a reply and are not done here, and values of theirs, beside empty ones, that change nothing.
UNSUPPORTED = (
    "tools", "tool_choice", "functions", "function_call", "response_format", "modalities", "audio", "logit_bias",
    "logprobs", "frequency_penalty", "presence_penalty", "top_k", "min_p", "reasoning_effort", "web_search_options",
)  # fmt: skip
NEUTRAL = ("none", "auto", ["text"], {"type": "text"})
LONGEST_BODY = 2**22  # bytes
MOST_STOPS, LONGEST_STOP = 16, 256  # strings, characters: all are looked for after every token
MOST_GRAPHS = 64  # a GPU records them anew for each temperature and top_p
POLL = 0.1  # seconds: how soon it is seen that a client has gone, or that a signal has come
LAST_WORDS = 2.0  # seconds that clients have to take the error that ends their requests


@dataclass
class ServeArguments:
    model: str = field(default="out/grpo/checkpoint", metadata={"help": "folder or hub name"})
    host: str = field(default="127.0.0.1", metadata={"help": "0.0.0.0: reached from other machines too"})
    port: int = field(default=8000, metadata={"help": "0: any that is free"})
    served_name: str = field(default="", metadata={"help": "the model's name to clients; empty: --model"})
    prompt_style: str = field(default="", metadata={"help": "free | text | code | bare; empty: as trained, or free"})
    slots: int = field(default=32, metadata={"help": "replies generated at the same time, as far as memory goes"})
    max_length: int = field(default=8192, metadata={"help": "tokens of messages and reply, within the model's context"})
    max_reply_tokens: int = field(default=2048, metadata={"help": "longest reply where a request has no max_tokens"})
    max_observation_tokens: int = field(default=96, metadata={"help": "longer output is cut in the middle"})


class RefusalError(Exception):
    """Ends a request with a status and an error of the form that OpenAI's clients know."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None):
        super().__init__(message)
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.status, self.answer = status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


# --------------------------------------------------------------------------------------------------------------------
# conversations


def text_of(content: Any, name: str) -> str:
    """What a message holds; RefusalError unless it is text."""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise RefusalError(f"{name} must be text, or a list of parts of type text", name)
    return "\n".join(texts).encode(errors="replace").decode()  # JSON can hold halves of characters


def fold(messages: Any, head: str = "") -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The messages for the chat template, and the segments (text, source) of the assistant's turn that is to go on;
    none for a new turn. What a program printed joins the turn before it, in the form that rollouts give it. `head` goes
    before the first question, unless that begins with a head prompt. RefusalError for what is no conversation."""
    turns: list[tuple[str, list[dict[str, str]]]] = []
    for i, message in enumerate(messages if isinstance(messages, list) else []):
        name, role = f"messages[{i}]", message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant") or message.get("tool_calls"):
            raise RefusalError(f"{name} must be of the system, the user or the assistant, without tools", name)
        text, source = text_of(message.get("content"), f"{name}.content"), "model" if role == "assistant" else "prompt"
        after = bool(turns) and turns[-1][0] == "assistant"
        if after and role == "user" and text.lstrip().startswith(RESULTS):
            output = text.lstrip()[len(RESULTS) :].lstrip(" \t").removeprefix("\n").rstrip()
            text, source = f"\n{RESULTS}\n{output or '(no output)'}\n", "observation"
        elif not after or role != "assistant":
            turns.append(("system" if role == "developer" else role, []))
        turns[-1][1].append({"text": text, "source": source})
    segments = turns.pop()[1] if turns and turns[-1][0] == "assistant" else []
    spoken = [{"role": role, "content": "".join(part["text"] for part in parts)} for role, parts in turns]
    question = next((message for message in spoken if message["role"] == "user"), None)
    if question is None:
        raise RefusalError("messages must be a list that holds a question of the user", "messages")
    if not question["content"].startswith(tuple(filter(None, PROMPT_STYLES.values()))):
        question["content"] = head + question["content"]
    return spoken, segments


def number(body: dict, name: str, default: float, low: float, high: float) -> float:
    """A field of the body, whole if its bounds are; `default` if it is absent or null."""
    if (value := body.get(name)) is None:
        return default
    kind, word = (int, "whole number") if isinstance(low, int) else (int | float, "number")
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise RefusalError(f"{name} must be a {word} from {low} to {high}, not {str(value)[:80]}", name)
    return value


# --------------------------------------------------------------------------------------------------------------------
# the thread that owns the model


@dataclass(eq=False)
class Request:
    """What is asked of the engine, and where the answer comes: (choice, more text, how it has finished or "", tokens
    so far)."""

    prompt: list[int]
    opening: str  # what the assistant's turn holds since the question or the last observation
    choices: int
    max_tokens: int
    sampling: tuple[float, float]  # temperature, top_p
    seed: int
    stop: list[str]
    pieces: queue.SimpleQueue[tuple[int, str, str, int]] = field(default_factory=queue.SimpleQueue)
    cancelled: bool = False

    def usage(self, tokens: int) -> dict[str, int]:
        prompt = len(self.prompt)
        return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


@dataclass(eq=False)
class Reply:
    """A choice in the making."""

    request: Request
    choice: int
    sequence: Sequence
    tokens: int = 0  # read of those that were sampled
    pending: list[int] = field(default_factory=list)  # tokens of a character that is not whole
    text: str = ""
    sent: int = 0  # characters of it
    finish: str = ""  # "" | "stop" | "length"


class Engine:
    """Answers requests, as many as fit at a time. `request` is for other threads, and so are `inbox` and `open`, whose
    clients have not got all yet; the rest is for the thread that calls `run`."""

    def __init__(self, bundle: Bundle, arguments: ServeArguments):
        self.arguments, self.name = arguments, arguments.served_name or arguments.model
        self.head = PROMPT_STYLES[choose_style(arguments.prompt_style, bundle)]
        self.tokenizer, self.ends = bundle.tokenizer, set(bundle.end_ids)
        self.encoder, self.encoding = (
            copy.deepcopy(bundle.tokenizer),
            threading.Lock(),
        )  # no tokenizer promises to bear two threads
        model, weight = bundle.model, bundle.model.embed_tokens.weight
        self.length = min(model.config.max_positions, arguments.max_length)
        each = slot_bytes(model.config, self.length, weight.dtype, weight.device)
        room = FREE_SHARE * free_memory(weight.device)
        if room < each:
            need = f"the keys and values of one reply take {each / 2**30:.3g} GiB, and {room / 2**30:.3g} GiB are there"
            raise UserError(f"{need} for them: lower --max_length")
        slots, watch = min(arguments.slots, int(room // each)), watched_tokens(bundle.tokenizer)
        self.watched = set(watch.nonzero()[:, 0].tolist())
        self.generator = Generator(model, slots, self.length, watch, bundle.end_ids)
        self.sampling = (1.0, 1.0)  # temperature and top_p of the batch
        self.inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.waiting: list[Request] = []
        self.live: list[Reply] = []
        self.open: set[Handler] = set()
        self.stopped = False

    def request(self, body: dict) -> Request:
        """Reads what a client asks for; RefusalError for what cannot be done."""
        if (name := body.get("model", self.name)) != self.name:
            raise RefusalError(
                f"there is no model {str(name)[:80]!r}, only {self.name!r}", "model", 404, "model_not_found"
            )
        for name in UNSUPPORTED:
            if body.get(name) and body[name] not in NEUTRAL:
                raise RefusalError(f"{name} is not supported", name, 400, "unsupported_parameter")
        stop = body.get("stop") or []
        stop = stop if isinstance(stop, list) else [stop]
        if len(stop) > MOST_STOPS or not all(isinstance(text, str) and 0 < len(text) <= LONGEST_STOP for text in stop):
            raise RefusalError(f"stop must be at most {MOST_STOPS} texts of 1 to {LONGEST_STOP} characters", "stop")
        temperature, top_p = number(body, "temperature", 1.0, 0.0, 2.0), number(body, "top_p", 1.0, 0.0, 1.0)
        most = number(body, "max_completion_tokens", number(body, "max_tokens", 0, 1, 2**31), 1, 2**31)
        choices, seed = number(body, "n", 1, 1, 128), number(body, "seed", secrets.randbits(63), -(2**63), 2**63 - 1)

        messages, segments = fold(body.get("messages"), self.head)
        with self.encoding:
            try:
                text = self.encoder.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            except TemplateError as error:
                raise RefusalError(f"the chat template of the model refuses: {error}", "messages") from error
            prompt = self.encoder.encode(text, add_special_tokens=False)
            turn, _ = encode_trajectory(self.encoder, segments, "bare", 0, self.arguments.max_observation_tokens)
        prompt += turn[:-1].tolist()  # less the end token: the turn is open
        if len(prompt) >= self.length:
            have = f"the messages have {len(prompt)} tokens, which leaves no room for a reply in {self.length}"
            raise RefusalError(have, "messages", 400, "context_length_exceeded")
        opening = segments[-1]["text"] if segments and segments[-1]["source"] == "model" else ""
        opening = "" if first_event(opening) else opening  # what is closed already is not to end the reply
        sampling = (float(temperature), max(float(top_p), 1e-9) if temperature else 1.0)  # the first token always stays
        return Request(prompt, opening, choices, most or self.arguments.max_reply_tokens, sampling, seed, stop)

    def run(self) -> None:
        """Generates until `stopped`."""
        while not self.stopped:
            with contextlib.suppress(queue.Empty):
                if not self.live and not self.waiting:
                    self.waiting.append(self.inbox.get(timeout=POLL))
                while True:
                    self.waiting.append(self.inbox.get_nowait())
            for reply in [reply for reply in self.live if reply.request.cancelled]:
                self.generator.finish(reply.sequence)
                self.live.remove(reply)
            self.waiting = [request for request in self.waiting if not request.cancelled]
            self.admit()
            self.generator.step()
            for reply in self.live:
                if reply.sequence.slot >= 0 or reply.sequence.ended:  # it has left the generator's queue
                    self.advance(reply)
            self.live = [reply for reply in self.live if not reply.finish]

    def admit(self) -> None:
        """Takes what waits into the batch, up to the first of another temperature or top_p: what comes after that one
        waits behind it. A new batch takes all of its kind that are there."""
        if not self.live and self.waiting:
            if self.sampling != self.waiting[0].sampling:
                self.sampling = self.waiting[0].sampling
                self.generator.restart(*self.sampling, GeneratorStats())
                for key in list(self.generator.graphs)[:-MOST_GRAPHS]:
                    del self.generator.graphs[key]
            chosen = [request for request in self.waiting if request.sampling == self.sampling]
        else:
            chosen = list(itertools.takewhile(lambda request: request.sampling == self.sampling, self.waiting))
        self.waiting = [request for request in self.waiting if request not in chosen]
        for request in chosen:
            for choice in range(request.choices):
                key, group = sampling_key(request.seed, choice), tuple(request.prompt)
                sequence = self.generator.add(request.prompt, key, request.max_tokens, group)
                self.live.append(Reply(request, choice, sequence))

    def advance(self, reply: Reply) -> None:
        """Reads what the last step has brought to a reply, and passes on what is sure."""
        sequence, request = reply.sequence, reply.request
        tokens = self.generator.known(sequence, len(request.prompt) + reply.tokens)[0].tolist()
        for i, token in enumerate(tokens, 1):
            self.read(reply, token, sequence.ended if i == len(tokens) else "")
            if reply.finish:  # a GPU may have gone on
                break
        if reply.finish and not sequence.ended:
            self.generator.finish(sequence)
        begun = (stop[:n] for stop in request.stop for n in range(1, len(stop)))  # what may become a stop string
        held = 0 if reply.finish else max((len(text) for text in begun if reply.text.endswith(text)), default=0)
        end = len(reply.text) - held
        if reply.finish or end > reply.sent:
            request.pieces.put((reply.choice, reply.text[reply.sent : end], reply.finish, reply.tokens))
            reply.sent = end

    def read(self, reply: Reply, token: int, ended: str) -> None:
        """Reads one more token. `ended`: how the sequence ended with it, if it did."""
        reply.tokens += 1
        reply.pending += [token] * (token not in self.ends)
        more = self.tokenizer.decode(reply.pending, skip_special_tokens=True)
        seen = reply.text + more
        if ended or not more.endswith("\ufffd"):
            reply.text, reply.pending = seen, []
        if cuts := [reply.text.index(stop) for stop in reply.request.stop if stop in reply.text]:
            reply.text, reply.finish = reply.text[: min(cuts)], "stop"
        elif token in self.watched and first_event(reply.request.opening + seen):
            reply.text, reply.finish = seen, "stop"
        elif ended:
            reply.finish = "length" if ended == "length" else "stop"


# --------------------------------------------------------------------------------------------------------------------
# HTTP


class Server(ThreadingHTTPServer):
    """A thread for each connection."""

    request_queue_size = 1024
    engine: Engine


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may take to send a request, or to take a part of the answer
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):  # the client has gone
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request."""
        self.reply(code, RefusalError(message or self.responses[code][0], None, code).answer)

    def send_head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def reply(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        close = {"Connection": "close"} if status >= 400 else {}  # what follows may not be a request
        self.send_head(status, Content_Type="application/json", Content_Length=str(len(data)), **close)
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        """Reads the body. One that is too long is read too: a connection that is closed before is reset, and the client
        does not see why."""
        length = self.headers.get("Content-Length", "0")
        length = int(length) if length.isdecimal() and len(length) < 16 else 0
        if length > LONGEST_BODY:
            for _ in range(min(length, 16 * LONGEST_BODY) // 2**16):
                self.rfile.read(2**16)
            raise RefusalError(f"the body has {length} bytes, more than {LONGEST_BODY}", None, 413)
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionError
        return data

    def answer(self) -> None:
        """Answers a request of whatever method."""
        engine, path = self.server.engine, self.path.partition("?")[0]
        try:
            data = self.body()
            if path not in ROUTES:
                raise RefusalError(f"there is no {path}, only {', '.join(ROUTES)}", None, 404)
            if self.command != ROUTES[path]:
                raise RefusalError(f"{path} takes {ROUTES[path]}, not {self.command}", None, 405)
            if path == "/health":
                self.reply(200, {"status": "ok", "running": len(engine.live), "waiting": len(engine.waiting)})
            elif path == "/v1/models":
                model = {"id": engine.name, "object": "model", "created": 0, "owned_by": "user"}
                self.reply(200, {"object": "list", "data": [model]})
            else:
                self.complete(data)
        except RefusalError as refusal:
            self.reply(refusal.status, refusal.answer)
        finally:
            engine.open.discard(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer  # noqa: N815

    def complete(self, data: bytes) -> None:
        """Answers a request for a completion, as a whole or as it grows."""
        try:
            body = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RefusalError(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise RefusalError("the body must be a JSON object")
        engine, options = self.server.engine, body.get("stream_options")
        request = engine.request(body)
        top = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion", "created": int(time.time())}
        top["model"] = engine.name
        engine.open.add(self)
        engine.inbox.put(request)
        try:
            if body.get("stream"):
                self.stream(request, top, isinstance(options, dict) and bool(options.get("include_usage")))
                return
            texts, finishes, counts = ([""] * request.choices for _ in range(3))
            for choice, text, finishes[choice], counts[choice] in self.pieces(request):
                texts[choice] += text
            choices = [
                {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": finishes[i]}
                for i, text in enumerate(texts)
            ]
            self.reply(200, {**top, "choices": choices, "usage": request.usage(sum(counts))})
        finally:
            request.cancelled = True

    def stream(self, request: Request, top: dict[str, Any], with_usage: bool) -> None:
        """Server-sent events; that the connection ends is the end."""
        self.send_head(200, Content_Type="text/event-stream", Cache_Control="no-cache", Connection="close")
        top["object"] = "chat.completion.chunk"

        def send(event: dict[str, Any] | None) -> None:
            self.wfile.write(f"data: {json.dumps(event) if event else '[DONE]'}\n\n".encode())

        def send_choice(choice: int, finish: str | None = None, **delta: str) -> None:
            send({**top, "choices": [{"index": choice, "delta": delta, "finish_reason": finish}]})

        tokens = 0
        try:
            for choice in range(request.choices):
                send_choice(choice, role="assistant", content="")
            for choice, text, finish, count in self.pieces(request):
                if text:
                    send_choice(choice, content=text)
                if finish:
                    send_choice(choice, finish)
                    tokens += count
        except RefusalError as refusal:  # the status has gone out already
            send(refusal.answer)
            return
        if with_usage:
            send({**top, "choices": [], "usage": request.usage(tokens)})
        send(None)

    def pieces(self, request: Request) -> Iterator[tuple[int, str, str, int]]:
        """Those of the request, until all its choices have finished; ConnectionError if the client has gone."""
        left, poll = request.choices, select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        while left:
            if poll.poll(0):
                raise ConnectionError
            try:
                piece = request.pieces.get(timeout=POLL)
            except queue.Empty:
                if self.server.engine.stopped:
                    raise RefusalError("the server has been stopped", None, 503) from None
                continue
            left -= bool(piece[2])
            yield piece


def serve(server: Server) -> None:
    """Runs the engine in this thread, and HTTP in others, until a signal or an error ends it: then what is in flight
    gets an error, for which its clients have some time."""
    engine = server.engine
    threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
    try:
        engine.run()
    finally:
        engine.stopped, until = True, time.monotonic() + LAST_WORDS
        while engine.open and time.monotonic() < until:
            time.sleep(POLL / 10)
        server.shutdown()


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(ServeArguments, argv)
    check_arguments(arguments)
    try:
        server = Server((arguments.host, arguments.port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at {arguments.host}, port {arguments.port}: {error}") from error
    with server:
        device = start_processes().device
        with user_input():
            bundle = load_bundle(arguments.model, torch.bfloat16 if device.type == "cuda" else torch.float32, device)
            fit_threads(bundle.model)
            bundle.tokenizer.model_max_length = 2**31  # it would warn of what is refused
            engine = server.engine = Engine(bundle, arguments)
        example = json.dumps({"messages": [{"role": "user", "content": "What is 3 * 4?"}]})
        curl = f"curl http://{arguments.host}:{server.server_port}/v1/chat/completions -d '{example}'"
        print(f"{engine.name}, up to {engine.generator.slots} replies of {engine.length} tokens: {curl}", flush=True)
        serve(server)


if __name__ == "__main__":
    run_main(main)
