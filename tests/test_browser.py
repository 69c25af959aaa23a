"""The page of a run as a browser sees it, and the script that looks; skipped where there is no Chromium."""

import shutil
from pathlib import Path

import pytest
from run_folders import record, whole, write_lines

from report import page
from runs import browser

pytestmark = pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")


def test_browsers_have_nothing_to_complain_of(here):
    """Nothing on the console, nothing requested, nothing that sticks out on a phone, not even words without a space;
    and siblings really stand in one row."""
    run, evaluation = whole(here)
    long = "x" * 500
    segments = [{"text": f"```python\n{long}\n```", "source": "model"}, {"text": long, "source": "observation"}]
    write_lines(
        run / "episodes.jsonl", [record(s, 0, i, segments=segments, task=long) for s in (0, 1, 2) for i in range(8)]
    )
    (run / "config.yaml").write_text(f"model: {long}\nsteps: 3\n")
    Path("page.html").write_text(page(run, evaluation), encoding="utf-8")
    assert browser.look(Path("page.html"), here) == []
    for name in browser.VIEWS:
        assert (here / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (here / "light.png").read_bytes() != (here / "dark.png").read_bytes()
    tops = "[...document.querySelectorAll('.siblings')[0].children].map(reply => reply.offsetTop)"
    with browser.chromium() as opened:
        opened.call("Page.enable")
        opened.call("Page.navigate", url=Path("page.html").resolve().as_uri())
        opened.wait_for("Page.loadEventFired")
        assert len(row := opened.evaluate(tops)) == 8 and len(set(row)) == 1


def test_the_browser_sees_what_is_wrong(here):
    """A check that finds nothing in a bad page finds nothing at all."""
    Path("bad.html").write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><img src=missing.png>"
        "<details><div style='width: 2000px'>wide</div></details><script>console.warn('hm'); nowhere()</script>"
    )
    found = " ".join(browser.look(Path("bad.html")))
    assert "/missing.png" in found and "console: hm" in found and "exception: Uncaught" in found
    assert "console: Failed to load resource" in found and "narrow: the page is 20" in found
    Path("desktop.html").write_text("<!doctype html><p>a phone shows this in small print, as if it were 980 px wide")
    assert browser.look(Path("desktop.html")) == ["narrow: the page is 980 px wide on a screen of 360"]
