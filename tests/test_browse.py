"""The page to read episodes in: what it is given, and what it must never become."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_folders import record, write_evaluation, write_lines, write_run

import browse
from browse import page, spread, within
from cli import UserError


def data(html: str) -> list[dict]:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S)[1])


def test_all_groups_with_all_siblings(here):
    """A reply that is missing from its group, or shown in another's."""
    run = write_run(here / "run", steps=3)
    groups = data(page([run]))
    assert [(g["step"], g["group"]) for g in groups] == [(s, g) for s in range(3) for g in range(2)]
    assert [[e["id"] for e in g["episodes"]] for g in groups[:2]] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    first = groups[0]["episodes"][0]
    assert [kind for kind, *_ in first["pieces"]] == ["text", "code", "observation", "text"]
    assert first["pieces"][2] == ["observation", "Code Execution Results:\n1", "ok"]
    assert (groups[1]["task"], groups[1]["question"]) == ("gcd", "What is 1 + 0?")


def test_several_runs_and_steps(here):
    """Runs mixed up, or a step that nobody asked for."""
    one, other = write_run(here / "one"), write_run(here / "other")
    found = data(page([one, other], steps=[1]))
    assert [(g["run"], g["step"]) for g in found] == [(str(one), 1)] * 2 + [(str(other), 1)] * 2
    evaluation = write_evaluation(here / "evaluation", {"base": "a", "GRPO": "b"}, {"base": 1, "GRPO": 3})
    assert {g["how"] for g in data(page([evaluation]))} == {
        f"{m}, {d}" for m in ("base", "GRPO") for d in ("sampled", "greedy")
    }


def test_a_page_stays_small_enough_to_open(here):
    """A run of a thousand steps in one page freezes a browser; steps are left out evenly, and the page says so."""
    run = write_run(here / "run", steps=20)
    html = page([run], most=40)
    assert sorted({g["step"] for g in data(html)}) == [0, 5, 10, 14, 19] and "5 of 20 steps are shown" in html
    html = page([run], steps=[3], most=5)
    assert len(data(html)) == 1 and "1 of 2 groups are shown" in html
    assert "are shown" not in page([run], most=160)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(1, 50), st.integers(1, 50))
def test_spread_steps(total, count):
    """A step twice, or none of the last."""
    count = min(total, count)
    found = spread(list(range(total)), count)
    assert len(set(found)) == count and found == sorted(found) and found[-1] == total - 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.text("ab\u00e9\u6f22`\n", min_size=1, max_size=4), max_size=8), st.integers(0, 30), st.integers(0, 30)
)
def test_tokens_are_cut_where_the_text_is(words, one, other):
    """Colours that slip by a token behind the first code fence, or by a byte behind the first accent."""
    text = "".join(words)
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    flat = [value for i, word in enumerate(words) for value in (len(word.encode()), -float(i))]
    found = within(flat, text, start, end)
    owners = [i for i, word in enumerate(words) for _ in word.encode()]
    first, last = len(text[:start].encode()), len(text[:end].encode())
    spelled = [-logprob for size, logprob in zip(found[::2], found[1::2], strict=True) for _ in range(size)]
    assert spelled == owners[first:last]
    assert within([], text, start, end) == []


def test_tokens_reach_their_pieces(here):
    """Log-probs of the second turn under the text of the first."""
    segments = [
        {"text": "?", "source": "prompt"},
        {"text": "Let me.\n```python\nprint(1)\n```", "source": "model"},
        {"text": "\nCode Execution Results:\n1\n", "source": "observation"},
        {"text": "So <<<1>>>", "source": "model"},
    ]
    first, second = len(segments[1]["text"]), len(segments[3]["text"])
    run = write_run(here / "run", steps=1)
    told = record(0, 0, 0, segments=segments, token_logprobs=[[8, -1.0, first - 8, -2.0], [second, -3.0]])
    write_lines(run / "episodes.jsonl", [told, record(0, 0, 1)])
    (group,) = data(page([run]))
    details = [detail for kind, _, detail in group["episodes"][0]["pieces"] if kind != "observation"]
    assert details == [[8, -1.0], [first - 8, -2.0], [second, -3.0]]
    assert all(detail == [] for kind, _, detail in group["episodes"][1]["pieces"] if kind != "observation")


def test_what_models_write_is_data(here):
    """A reply that ends the element it lies in would run as a script in whoever reads it."""
    evil = "</script><script>alert(1)</script><!-- <b>"
    segments = [{"text": evil, "source": "model"}, {"text": evil, "source": "observation"}]
    run = write_run(here / f"run {'<i>'}", steps=1)
    write_lines(run / "episodes.jsonl", [record(0, 0, 0, segments=segments, answer=evil, question=evil, task=evil)])
    html = page([run])
    assert html.count("<script") == html.count("</script>") == 2 and "alert(1)</script" not in html
    (group,) = data(html)
    assert group["question"] == evil and "run <i>" not in html and "run &lt;i&gt;" in html
    assert "http" not in re.sub(r"http-equiv", "", html)


def test_the_same_files_give_the_same_page(here):
    """A page that differs each time cannot be compared."""
    run = write_run(here / "run")
    assert page([run]) == page([run])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], r"there is no nowhere/episodes\.jsonl"),
        (["run", "--steps", "7"], r"holds no episodes of the steps \[7\]"),
        (["run", "--steps", "a"], "--steps takes numbers such as 0,9,19, not 'a'"),
        (["run", "--most", "0"], "--most must be at least 1"),
        (["broken"], r"broken/episodes\.jsonl, line 1 is not as the scripts write it"),
    ],
)
def test_mistakes_end_in_one_line(here, arguments, message):
    """What is wrong, and where, instead of a traceback."""
    write_run(here / "run")
    write_lines(here / "broken/episodes.jsonl", [{"step": 0}])
    with pytest.raises(UserError, match=message):
        browse.main(arguments)


def test_the_command_line(here, capsys):
    """The defaults find the run of the demo."""
    write_run(here / "out/grpo")
    browse.main([])
    assert capsys.readouterr().out == "episodes: out/episodes.html\n"
    assert len(data((here / "out/episodes.html").read_text())) == 6
