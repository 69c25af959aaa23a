"""The page of a run as a browser sees it, and the script that looks; skipped where there is no Chromium."""

import json
import shutil
from pathlib import Path

import pytest
from run_folders import record, whole, write_lines, write_run

import browse
from report import page, page_of_several
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


def test_several_runs_fit_a_phone(here):
    """A table of ten runs pushes the page sideways."""
    runs = [write_run(here / f"run-with-quite-a-long-name-{i}", learning_rate=i * 1e-5) for i in range(10)]
    Path("page.html").write_text(page_of_several(runs), encoding="utf-8")
    assert browser.look(Path("page.html"), here) == []


def test_the_browser_sees_what_is_wrong(here):
    """A check that finds nothing in a bad page finds nothing at all."""
    Path("bad.html").write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><img src=missing.png>"
        "<details><div style='width: 2000px'>wide</div></details><script>console.warn('hm'); nowhere()</script>"
    )
    found = " ".join(browser.look(Path("bad.html")))
    assert "/missing.png" in found and "console: hm" in found and "exception: Uncaught" in found
    assert "console: Failed to load resource" in found and "narrow: the page is 20" in found
    Path("grid.html").write_text(
        "<!doctype html><meta name=viewport content='width=device-width'>"
        "<div style='display: grid; grid-template-columns: repeat(auto-fill, 200px)'>"
        "<p style='white-space: nowrap'>mmmmmmmmmmmmmmmmmmmmmmmm</p><p>next</p></div>"
    )
    assert any("too narrow for its 'mmmm" in complaint for complaint in browser.look(Path("grid.html")))
    Path("desktop.html").write_text("<!doctype html><p>a phone shows this in small print, as if it were 980 px wide")
    assert browser.look(Path("desktop.html")) == ["narrow: the page is 980 px wide on a screen of 360"]


def test_episodes_can_be_filtered_and_coloured(here):
    """Filters that show what they should hide, colours that say nothing, or a page of two thousand episodes that hangs.
    Nothing on the console, nothing requested, and no text of a model becomes an element."""
    run = write_run(here / "run", steps=5)
    evil = "<img src=x onerror=alert(1)>"
    segments = [
        {"text": "?", "source": "prompt"},
        {"text": f"é {evil}\n```python\nimport os # x\n```", "source": "model"},
    ]
    told = record(4, 2, 8, correct=False, finish="length", segments=segments, statuses=[], code_runs=0, advantage=-1.0)
    size = len(segments[1]["text"].encode())
    told |= {"answer": None, "token_logprobs": [[3, -0.1, size - 3, -2.0]], "task": "lcm"}
    with (run / "episodes.jsonl").open("a") as file:
        file.write(json.dumps(told) + "\n")
    Path("page.html").write_text(browse.page([run]), encoding="utf-8")
    assert browser.look(Path("page.html"), here) == []
    assert (here / "light.png").read_bytes() != (here / "dark.png").read_bytes()
    with browser.chromium() as opened:
        opened.call("Page.enable")
        opened.call("Runtime.enable")
        opened.call("Page.navigate", url=Path("page.html").resolve().as_uri())
        opened.wait_for("Page.loadEventFired")

        def choose(**filters: str) -> str:
            for name, value in filters.items():
                opened.evaluate(f"form.elements.{name}.value = {json.dumps(value)}")
            opened.evaluate("form.dispatchEvent(new Event('input', {bubbles: true}))")
            return opened.evaluate("document.getElementById('count').textContent")

        assert choose() == "41 episodes in 11 groups, 20 right"
        assert choose(step="1") == "8 episodes in 2 groups, 3 right"
        assert choose(verdict="wrong") == "5 episodes in 2 groups, 0 right"
        assert choose(step="", verdict="mixed") == "32 episodes in 8 groups, 16 right"
        assert choose(verdict="", finish="length") == "1 episodes in 1 groups, 0 right"
        assert choose(finish="", task="lcm", words="IMPORT OS") == "1 episodes in 1 groups, 0 right"
        assert opened.evaluate("shown.querySelector('h2').textContent").startswith("lcm #")
        assert opened.evaluate("[...shown.querySelectorAll('.k, .c')].map(e => e.textContent)") == ["import", "# x"]
        assert opened.evaluate("shown.querySelectorAll('img').length") == 0
        assert evil in opened.evaluate("shown.querySelector('.text').textContent")
        choose(colour="logprob")
        backgrounds = (
            "[...shown.querySelectorAll('.token')].map(e => [e.textContent, getComputedStyle(e).backgroundColor])"
        )
        coloured = opened.evaluate(backgrounds)
        assert "".join(text for text, _ in coloured) == segments[1]["text"]
        assert coloured[0][0] == "é " and len({colour for _, colour in coloured}) == 2
        choose(colour="advantage")
        assert len({colour for _, colour in opened.evaluate(backgrounds)}) == 1
        assert choose(words="nowhere") == "0 episodes in 0 groups, 0 right"
        assert "No episode fits" in opened.evaluate("shown.textContent")
        choose(words="", task="", colour="")
        opened.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}))")
        assert browser.complaints(opened.events, Path("page.html").resolve().as_uri()) == []
