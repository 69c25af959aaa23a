"""Looks at a page of report.py in headless Chromium: what it complains of, loads or lets stick out, and pictures of it.

    python runs/browser.py out/report.html                   screenshots beside it: light.png, dark.png, narrow.png
    python runs/browser.py out/report.html --out docs/images

Ends with an error if the console shows anything, if anything is requested but the page itself, if the page scrolls
sideways at 360 px, or if at any width the content of one cell of a grid or row runs into the next. Speaks the
DevTools protocol over a pipe, so nothing but Chromium is needed.
"""

import argparse
import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --remote-debugging-pipe"
)
PATIENCE = 120  # seconds for one command, on a busy machine
# name: width, colour scheme, and whether it is a phone's screen
VIEWS = {"light": (1100, "light", False), "dark": (1100, "dark", False), "narrow": (360, "light", True)}
WIDTHS = (700, 900, 1200, 1500, 1900)  # others at which the columns of a grid are counted anew
# The first words of cells that are wider than their column and do not scroll by themselves.
SPILLING = """[...document.querySelectorAll('*')]
    .filter(cell => cell.parentElement && getComputedStyle(cell.parentElement).display.match(/grid|flex/)
        && getComputedStyle(cell).overflowX === 'visible' && cell.scrollWidth > cell.clientWidth + 1)
    .map(cell => cell.textContent.trim().split(/\\s+/)[0].slice(0, 40))"""


class Browser:
    """Headless Chromium with one page, in a profile of its own that goes with it."""

    def __init__(self, profile: str):
        if not (chromium := shutil.which("chromium") or shutil.which("google-chrome")):
            raise SystemExit("browser.py: there is no chromium; on Debian: apt install chromium")
        pairs = [os.pipe(), os.pipe()]
        # Chromium reads descriptor 3 and writes 4; out of the way first, lest one be overwritten while it is needed.
        child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (pairs[0][0], pairs[1][1])]

        def descriptors() -> None:
            os.dup2(child[0], 3)
            os.dup2(child[1], 4)

        self.process = subprocess.Popen(
            [chromium, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=descriptors,
            start_new_session=True,
        )
        for fd in (*child, pairs[0][0], pairs[1][1]):
            os.close(fd)
        self.pipe, self.replies = pairs[0][1], pairs[1][0]
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]

    def read(self) -> dict[str, Any]:
        """The next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.replies], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise SystemExit(f"browser.py: Chromium said nothing for {PATIENCE} s")
            if not (piece := os.read(self.replies, 1 << 20)):
                raise SystemExit("browser.py: Chromium ended")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a DevTools command; what happens in the meantime is added to `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.pipe, data) :]
        while (answer := self.read()).get("id") != self.number:
            self.events.append(answer)
        if "error" in answer:
            raise SystemExit(f"browser.py: {method}: {answer['error']['message']}")
        return answer["result"]

    def wait_for(self, event: str) -> None:
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self.read())

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.pipe)
        os.close(self.replies)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that is gone afterwards, whatever happens."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            yield browser
        finally:
            browser.close()


def complaints(events: list[dict[str, Any]], url: str) -> list[str]:
    """What there is to say against a page after these events."""
    found = []
    for event in events:
        what = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent" if what["request"]["url"] != url:
                found.append(f"request: {what['request']['url']}")
            case "Log.entryAdded":
                found.append(f"console: {what['entry']['text']}")
            case "Runtime.consoleAPICalled":
                found.append(f"console: {' '.join(str(a.get('value', a)) for a in what['args'])}")
            case "Runtime.exceptionThrown":
                found.append(f"exception: {what['exceptionDetails']['text']}")
    return found


def look(page: Path, folder: Path | None = None, tallest: int = 12_000) -> list[str]:
    """Opens a page in every view and returns what is wrong with it; screenshots, of `tallest` pixels at most, go to
    `folder`."""
    url, found = page.resolve().as_uri(), []
    with chromium() as browser:
        for domain in ("Page", "Network", "Log", "Runtime"):
            browser.call(f"{domain}.enable")

        def resize(width: int, phone: bool) -> None:
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=phone
            )

        def spilling(width: int) -> list[str]:
            return [f"at {width} px a cell is too narrow for its {text!r}" for text in browser.evaluate(SPILLING)]

        for name, (width, scheme, phone) in VIEWS.items():
            resize(width, phone)
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            browser.events.clear()
            browser.call("Page.navigate", url=url)
            browser.wait_for("Page.loadEventFired")
            if folder:
                height = min(tallest, browser.evaluate("document.documentElement.scrollHeight"))
                clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
                shot = browser.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
                (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
            # Whatever is folded must fit too.
            browser.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
            wide = browser.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(f"{name}: the page is {wide} px wide on a screen of {width}")
            found += [f"{name}: {complaint}" for complaint in [*complaints(browser.events, url), *spilling(width)]]
        for width in WIDTHS:
            resize(width, False)
            found += spilling(width)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the screenshots; the page's own")
    parser.add_argument("--height", type=int, default=12_000, help="of the screenshots at most, in pixels")
    arguments = parser.parse_args()
    if not arguments.page.is_file():
        raise SystemExit(f"browser.py: there is no page {arguments.page}")
    folder = arguments.out or arguments.page.parent
    folder.mkdir(parents=True, exist_ok=True)
    if found := look(arguments.page, folder, arguments.height):
        raise SystemExit("\n".join(found))
    print(f"nothing to complain of; screenshots: {', '.join(str(folder / f'{name}.png') for name in VIEWS)}")


if __name__ == "__main__":
    main()
