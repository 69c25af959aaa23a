"""An OpenAI-compatible server over a scripted model, which fails on purpose, for tests over real HTTP."""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("429", "500", "503", "slow", "cut", "malformed", "empty")
SLOW = 4.0  # seconds: more than the clients of the tests wait


class ChatServer(ThreadingHTTPServer):
    """`model(messages)` gives a reply, or (reply, finish_reason). Of the first two tries of a request, a share of
    `faults` fails, by a seed; `answered` counts what has been delivered whole, by the text of the request."""

    daemon_threads = True

    def __init__(self, model: Callable[[list[dict]], str | tuple[str, str]], faults: float = 0.0, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.faults, self.delay = model, faults, delay
        self.lock = threading.Lock()
        self.asked, self.answered, self.failed = Counter(), Counter(), Counter()
        self.requests: list[dict] = []
        self.used: dict[str, tuple[int, int]] = {}  # tokens of prompt and reply, by the text of the request
        self.busy = self.most_busy = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Clients that have gone away are part of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Nothing."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request, server = json.loads(body), self.server
        text = json.dumps([request["model"], request["messages"], request["temperature"]])
        with server.lock:
            server.requests.append(request)
            server.asked[text] += 1
            tried = server.asked[text]
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            time.sleep(server.delay)
            draw = random.Random(f"{text} {tried}")
            if tried <= 2 and draw.random() < server.faults:
                self.fail(draw.choice(FAULTS))
            else:
                self.reply(request, text)
        finally:
            with server.lock:
                server.busy -= 1

    def fail(self, fault: str) -> None:
        with self.server.lock:
            self.server.failed[fault] += 1
        close = {"Connection": "close"}  # or the client would use it again, and count one more failure
        if fault.isdigit():
            self.send(int(fault), json.dumps({"error": {"message": "on purpose"}}), {"Retry-After": "0", **close})
        elif fault == "slow":
            time.sleep(SLOW)
        elif fault == "cut":
            self.send(200, '{"id": "x", "choices": [{"mess', close, longer=100)
        elif fault == "malformed":
            self.send(200, '{"id": "x", "choices": [{"mess', close)
        else:
            self.send(200, '{"id": "x", "object": "chat.completion", "choices": []}', close)
        self.close_connection = True

    def reply(self, request: dict, text: str) -> None:
        said = self.server.model(request["messages"])
        said, finish = said if isinstance(said, tuple) else (said, "stop")
        used = {"prompt_tokens": len(text) // 4, "completion_tokens": len(said.split())}
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": finish}
        with self.server.lock:
            self.server.answered[text] += 1
            self.server.used[text] = (used["prompt_tokens"], used["completion_tokens"])
        whole = {"id": "x", "object": "chat.completion", "created": 0, "model": request["model"]}
        used["total_tokens"] = sum(used.values())
        self.send(200, json.dumps({**whole, "choices": [choice], "usage": used}), {})

    def send(self, status: int, body: str, headers: dict[str, str], longer: int = 0) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data) + longer))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
