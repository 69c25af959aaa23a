"""The server against clients that leave or ask for what it cannot do, against signals, and as a command."""

import contextlib
import dataclasses
import errno
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import openai
import pytest
import torch
from accelerate import PartialState
from test_errors import line
from test_rollout import scripted_bundle
from test_serve import CODE, SCRIPTS, TINY, ask, client_of, serving, user
from test_training import random_bundle

import serve
from cli import ROOT
from serve import Engine, Handler, ServeArguments, Server


@pytest.fixture(scope="module", autouse=True)
def on_cpu():
    PartialState(cpu=True)  # the first call decides, also where there is a GPU


@pytest.fixture(scope="module")
def scripted() -> Iterator[Server]:
    with serving(scripted_bundle(), SCRIPTS, slots=2, max_length=256) as server:
        yield server


def until(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# --------------------------------------------------------------------------------------------------------------------
# clients that go away


def post(server: Server, body: dict) -> socket.socket:
    """A raw connection on which a request has been sent."""
    data = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def health(server: Server) -> dict:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    connection.request("GET", "/health")
    with contextlib.closing(connection):
        return json.load(connection.getresponse())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_slot(stream, capfd):
    """A slot that generates for nobody is lost to all others until the reply is as long as can be."""
    scripts = {f"Q: {name}\nA: ": "on and on " * 10**5 for name in "abc"} | {"Q: d\nA: ": "Done.\0"}
    bundle = scripted_bundle()
    bundle.model.config = dataclasses.replace(bundle.model.config, max_positions=2**20)
    with serving(bundle, scripts, slots=2, max_length=2**20) as server:
        body = {"max_tokens": 2**20, "stream": stream}
        clients = [post(server, body | {"messages": user(name)}) for name in "ab"]
        clients += [post(server, body | {"messages": user("c")})]  # has no slot yet
        assert until(lambda: health(server)["running"] == 3)
        clients += [post(server, body | {"messages": user("c"), "temperature": 0})]  # waits for the batch to be done
        assert until(lambda: health(server) == {"status": "ok", "running": 3, "waiting": 1})
        if stream:
            assert b"on" in clients[0].recv(2000)
        for client in clients:
            client.close()
        assert until(lambda: not server.engine.open and health(server)["running"] == 0)
        assert until(lambda: server.engine.generator.owner == [None, None] and not server.engine.generator.queue)
        assert ask(server, "d").choices[0].message.content == "Done."
    assert capfd.readouterr().err == ""  # a client's affair is not worth a traceback


def test_a_client_that_leaves_half_a_request():
    """It must not hold its thread for ever, nor be answered."""
    with serving(scripted_bundle(), SCRIPTS) as server:
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=20)
        connection.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{"messages"')
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
        connection.close()
        assert not server.engine.asked


# --------------------------------------------------------------------------------------------------------------------
# what is refused

HI = user("end")


def of(role: str, content, **more) -> dict:
    return {"messages": [*HI, {"role": role, "content": content, **more}]}


@pytest.mark.parametrize(
    "body, message",
    [
        ({"messages": None}, "messages must be a list that holds a question of the user"),
        ({"messages": "hi"}, "messages must be a list that holds a question"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages must be a list that holds a question"),
        ({"messages": ["hi"]}, "messages[0] must be of the system, the user or"),
        (of("tool", "x"), "messages[1] must be of the system, the user or"),
        (of("assistant", None, tool_calls=[{}]), "messages[1] must be of the system, the user or"),
        (of("user", None), "messages[1].content must be text, or a list of parts of type text"),
        (of("user", {"text": "x"}), "messages[1].content must be text"),
        (of("user", ["x"]), "messages[1].content must be text"),
        (of("user", [{"type": "image_url"}]), "messages[1].content must be text"),
        (of("user", [{"type": "text"}]), "messages[1].content must be text"),
        ({"temperature": -0.1}, "temperature must be a number from 0.0 to 2.0, not -0.1"),
        ({"temperature": float("nan")}, "temperature must be a number from 0.0 to 2.0, not nan"),
        ({"temperature": "1"}, "temperature must be a number"),
        ({"temperature": True}, "temperature must be a number"),
        ({"top_p": 1.5}, "top_p must be a number from 0.0 to 1.0, not 1.5"),
        ({"n": 0}, "n must be a whole number from 1 to 128, not 0"),
        ({"n": 1.5}, "n must be a whole number"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to"),
        ({"max_completion_tokens": -1}, "max_completion_tokens must be a whole number"),
        ({"seed": 2**63}, "seed must be a whole number from -9223372036854775808 to"),
        ({"seed": "x" * 999}, "seed must be a whole number"),
        ({"stop": [""]}, "stop must be at most 16 texts of 1 to 256 characters"),
        ({"stop": 5}, "stop must be at most"),
        ({"stop": ["x" * 257]}, "stop must be at most"),
        ({"stop": ["x"] * 17}, "stop must be at most"),
        ({"tools": [{"type": "function"}]}, "tools is not supported"),
        ({"logit_bias": {"5": 1}}, "logit_bias is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"presence_penalty": 0.5}, "presence_penalty is not supported"),
    ],
)
def test_what_is_refused(body, message, scripted):
    """What would change the reply and is not done must not be passed over, nor end in a traceback."""
    connection = http.client.HTTPConnection("127.0.0.1", scripted.server_port, timeout=20)
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": HI} | body))
    with contextlib.closing(connection):
        response = connection.getresponse()
        error = json.load(response)["error"]
    assert response.status == 400 and error["message"].startswith(message) and len(error["message"]) < 200
    assert error["param"] == message.split()[0] and error["type"] == "invalid_request_error" and "code" in error


def test_what_changes_nothing_is_taken(scripted):
    """Clients send fields with neutral values, null, or of their own; and several requests over one connection."""
    more = {"logprobs": False, "presence_penalty": 0, "tool_choice": "none", "logit_bias": {}, "stop": None, "n": None}
    more |= {"response_format": {"type": "text"}, "top_logprobs": None, "user": "me", "seed": None, "x": [1]}
    connection = http.client.HTTPConnection("127.0.0.1", scripted.server_port, timeout=20)
    with contextlib.closing(connection):
        for _ in range(3):
            connection.request("POST", "/v1/chat/completions?x=1", json.dumps({"messages": HI, **more}))
            reply = json.load(connection.getresponse())
            assert reply["choices"][0]["message"] == {"role": "assistant", "content": "Done."}
            assert reply["object"] == "chat.completion" and reply["model"] == "m"


def test_the_errors_of_the_client(scripted):
    """The real client raises an exception of its own for each status."""
    client = client_of(scripted)
    with pytest.raises(openai.NotFoundError, match="there is no model 'other', only 'm'") as caught:
        client.chat.completions.create(model="other", messages=HI)
    assert caught.value.code == "model_not_found"
    for length, tokens in ((600, 607), (249, 256)):
        with pytest.raises(openai.BadRequestError, match=f"have {tokens} tokens, .* no room .* in 256") as caught:
            ask(scripted, "?" * length, stream=True)
        assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError, match="there is no /v1/embeddings, only /health"):
        client.embeddings.create(model="m", input="x")
    assert [model.id for model in client.models.list()] == ["m"]


@pytest.mark.parametrize(
    "request_line, body, status, message",
    [
        ("GET /v1/chat/completions", b"", 405, "/v1/chat/completions takes POST, not GET"),
        ("DELETE /v1/models", b"", 405, "takes GET, not DELETE"),
        ("HEAD /health", b"", 405, ""),  # whose answer has no body
        ("BREW /health", b"", 501, "Unsupported method"),
        ("GET /v1", b"", 404, "there is no /v1, only"),
        ("POST /v1/chat/completions", b"", 400, "the body is not JSON"),
        ("POST /v1/chat/completions", b"{", 400, "the body is not JSON"),
        ("POST /v1/chat/completions", b"\xff", 400, "the body is not JSON"),
        ("POST /v1/chat/completions", b"[" * 100_000, 400, "the body is not JSON"),
        ("POST /v1/chat/completions", b"[1]", 400, "the body must be a JSON object"),
        ("GET / / /", b"", 400, "Bad request"),
    ],
)
def test_requests_that_are_none(request_line, body, status, message, scripted, capfd):
    """Whatever comes over the network is answered in one form, and the server goes on."""
    connection = socket.create_connection(("127.0.0.1", scripted.server_port), timeout=20)
    connection.sendall(f"{request_line} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    with contextlib.closing(connection), connection.makefile("rb") as file:
        head, _, data = file.read().partition(b"\r\n\r\n")  # it ends: the connection is closed
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert message in json.loads(data)["error"]["message"] if message else data == b""
    assert ask(scripted, "end").choices[0].message.content == "Done." and capfd.readouterr().err == ""


def test_a_body_that_is_too_large(scripted):
    """Most clients send all of it before they read: if the server closes before, they only see a connection reset."""
    connection = http.client.HTTPConnection("127.0.0.1", scripted.server_port, timeout=20)
    connection.request("POST", "/v1/chat/completions", b"?" * 30_000_000)
    with contextlib.closing(connection):
        response = connection.getresponse()
        assert response.status == 413
        assert json.load(response)["error"]["message"] == "the body has 30000000 bytes, more than 4194304"


def test_text_that_no_tokenizer_takes():
    """JSON can hold half of a character; and templates raise exceptions, where roles do not alternate, say."""
    with serving(random_bundle()) as server:
        connection = post(server, {"messages": user("caf\udce9"), "max_tokens": 1})
        with contextlib.closing(connection):
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert "caf?" in server.engine.tokenizer.decode(server.engine.asked[-1].prompt)
        server.engine.encoder.chat_template = "{{ raise_exception('roles must alternate') }}"
        with pytest.raises(openai.BadRequestError, match="refuses: roles must alternate"):
            ask(server, "Why?")


# --------------------------------------------------------------------------------------------------------------------
# the end of the server


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_in_flight_at_the_end_gets_an_error(stream):
    """Clients that wait for a server that is gone wait until their own time limit."""
    with serving(scripted_bundle(), {"Q: on\nA: ": "on and on " * 999}, slots=1) as server:
        server.engine.advance = lambda reply: server.stopping.set()  # nothing ever comes of it
        server.stopping = threading.Event()
        body = {"messages": user("on"), "stream": stream}
        connection = post(server, body)
        assert server.stopping.wait(20)
        server.engine.stopped = True
        with contextlib.closing(connection), connection.makefile("rb") as file:
            answer = file.read()
        head, _, data = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 " if stream else b"HTTP/1.1 503 ")
        last = data.decode().strip().split("\n\n")[-1].removeprefix("data: " if stream else "")
        assert json.loads(last)["error"]["message"] == "the server has been stopped"


def test_an_error_in_the_engine_ends_the_server(monkeypatch):
    """With the thread of the engine dead, requests would pile up behind a server that looks alive; and a process that
    ends before all have their error leaves them without one."""
    reply, answered = Handler.reply, []
    monkeypatch.setattr(Handler, "reply", lambda *a: time.sleep(0.5) or reply(*a) or answered.append(a[1]))
    with Server(("127.0.0.1", 0), Handler) as server:
        server.engine = Engine(
            scripted_bundle(), ServeArguments(model="m", prompt_style="bare", slots=1, max_length=64)
        )

        def out_of_memory(*_):
            if server.engine.live:
                raise torch.OutOfMemoryError("CUDA out of memory.")

        server.engine.generator.step = out_of_memory
        connection = post(server, {"messages": user("q")})
        with pytest.raises(torch.OutOfMemoryError):
            serve.serve(server)
        assert answered == [503]
        with contextlib.closing(connection):
            assert connection.recv(100).startswith(b"HTTP/1.1 503 ")


def test_a_real_process_answers_and_ends_with_the_signals_code():
    """The command line as a whole: one line with an example that works, another on SIGTERM, an error for who waits."""
    command = [sys.executable, str(ROOT / "serve.py"), "--model", TINY, "--port", "0", "--served_name", "tiny"]
    process = subprocess.Popen(
        [*command, "--slots", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT,
    )  # fmt: skip
    try:
        said = process.stdout.readline()
        match = re.fullmatch(
            r"tiny, up to 2 replies of 2048 tokens: curl (http://127.0.0.1:\d+/v1)(/\S+) -d '(.*)'\n", said
        )
        with openai.OpenAI(base_url=match[1], api_key="none", max_retries=0, timeout=30) as client:
            reply = client.post(match[2], cast_to=object, body=json.loads(match[3]))
            assert reply["choices"][0]["message"]["content"]
            messages = [*user("Hm?"), {"role": "assistant", "content": CODE}]  # closed already: it does not end there
            stream = client.chat.completions.create(
                model="tiny", messages=messages, stream=True, n=100, max_tokens=1500, temperature=2
            )
            next(iter(stream))
            process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError, match="the server has been stopped"):
                list(stream)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (143, "", "serve.py: stopped by SIGTERM\n")


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--model /nowhere/at/all", "there is no model folder /nowhere/at/all"),
        ("--prompt_style fre", "unknown prompt style 'fre': one of free, text, code, bare"),
        ("--slots 0", "--slots must be a number of at least 1, not 0"),
        ("--max_length 0", "--max_length must be a number of at least 1, not 0"),
        ("--port 70000", "cannot listen at 127.0.0.1, port 70000: bind(): port must be 0-65535."),
        ("--host 203.0.113.1", "cannot listen at 203.0.113.1, port 0: [Errno 99]"),
        ("--host no.such.host.invalid", "cannot listen at no.such.host.invalid, port 0: "),
        ("m", "unknown arguments: m"),
    ],
)
def test_mistakes_end_in_one_line(flags, message, monkeypatch):
    """Each is found before a request comes."""
    monkeypatch.setattr(serve, "serve", lambda _: None)  # would go on for ever
    assert line(serve.main, "--model", TINY, "--port", "0", *flags.split()).startswith(message)


def test_a_port_that_is_taken():
    """Two servers behind one port would share the requests."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = f"cannot listen at 127.0.0.1, port {port}: [Errno {errno.EADDRINUSE}] Address already in use"
        assert line(serve.main, "--model", "/nowhere", "--port", str(port)) == message


def test_no_memory_for_a_single_reply(monkeypatch):
    """No slots at all would leave every request waiting."""
    monkeypatch.setattr(serve, "free_memory", lambda _: 1000)
    monkeypatch.setattr(serve, "serve", lambda _: None)
    said = line(serve.main, "--model", TINY, "--port", "0")
    assert said.endswith("GiB are there for them: lower --max_length") and said.startswith("the keys and values of one")
