"""The page of a run, from run folders made by hand: no model is trained or asked."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml
from run_folders import Node, record, text_of, whole, words, write_evaluation, write_lines, write_run

import charts
import report
from charts import panels, time_split
from cli import UserError, run_main
from report import main, page, page_of_several

EVIL = """</script></p></pre></svg><img src=x onerror="alert('&amp;')" title=' {{ 7 * 7 }} $\\frac{"""


# --------------------------------------------------------------------------------------------------------------------
# what the page shows


def test_the_page_from_top_to_bottom(here, capsys):
    """Sections in the order in which a reader asks, and the defaults find what belongs to the run."""
    whole(here)
    main([])
    assert capsys.readouterr().out == "report: out/report.html\n"
    tree = Node(Path("out/report.html").read_text(encoding="utf-8"))
    assert [words(h) for h in tree.find("h1")] == ["From 25 % to 75 % of 8 held‑out problems right"]
    sections = [s["attributes"]["id"] for s in tree.find("section") if "id" in s["attributes"]]
    assert sections == ["curves", "held-out", "configuration", "episodes"]
    facts = {
        words(d["children"][0]): words(d["children"][1]) for dl in tree.find("dl") for d in tree.find("div", under=dl)
    }
    assert facts["began from"] == "out/sft/checkpoint"
    assert facts["steps"] == "3 of 3, each 2 problems × 4 replies"
    assert facts["git revision"] == "0123456789, with uncommitted changes"
    assert facts["learning rate and seed"] == "0.0001, 7"
    curves = [words(f) for p in tree.find("div", "panels") for f in tree.find("h3", under=p)]
    assert curves[0] == "Right answers 0.25 → 0.5" and curves[-1] == "Warm start: loss, nats 2 → 0.4"
    assert len(curves) == 11 and "Tokens per reply, spread 9 → 9" in curves
    assert not tree.find("li", "failed") and not tree.find("ul", "notes")
    stages = [words(s) for s in tree.find("section", "stage")]
    assert stages[2] == "GRPO 0.750 sampled 0.750 0.41–0.93 75 % used code greedy 0.750 0.41–0.93 75 % used code"
    assert words(tree.find("section", "after")[0]).startswith("GRPO")  # it has the accent


def test_siblings_stand_in_one_row(here):
    """The replies of a group are there to be compared: one row for each group, of all its siblings and no others."""
    run = write_run(here / "run")
    tree = Node(page(run, steps=[2]))
    first, second = tree.find("details", "group")
    rows = [tree.find("div", "siblings", under=g) for g in (first, second)]
    heads = [[words(h["children"][0]) for h in tree.find("header", under=row)] for (row,) in rows]
    assert heads == [[f"reply {i}" for i in range(4)], [f"reply {i}" for i in range(4, 8)]]
    assert words(tree.find("summary", under=first)[0]) == "gcd #20000000 2/4 right live"
    assert [words(p) for p in tree.find("p", "question", under=second)] == ["What is 1 + 2?"]
    reply = tree.find("article", under=first)[3]
    assert [(n["tag"], words(n)) for n in reply["children"] if isinstance(n, dict)] == [
        ("header", "reply 3 ✓ right"),
        ("p", "Let me see."),
        ("pre", "```python print(1) ```"),
        ("div", "interpreter: ok Code Execution Results: 1"),
        ("p", "So <<<3>>>"),
        ("footer", "answer 3 reward 1 · advantage +1.00 finish answer · 1 program 9 tokens written"),
    ]
    assert "right" in reply["attributes"]["class"]
    assert words(tree.find("footer", under=first)[1]).startswith("answer 1 reward 0 · advantage −1.00")


def test_groups_without_a_signal_are_not_live(here):
    """In step 0 the second problem has no right reply, so nothing is learned from it."""
    tree = Node(page(write_run(here / "run"), steps=[0]))
    assert [words(s) for s in tree.find("summary", under=tree.find("section")[-1])] == [
        "gcd #20000000 2/4 right live",
        "gcd #20000001 0/4 right",
    ]
    assert "1 of 2 groups live" in words(tree.find("section")[-1])


@pytest.mark.parametrize("steps, expected", [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (20, [0, 9, 19])])
def test_steps_that_are_shown_by_default(here, steps, expected):
    """The first, one in the middle and the last; none twice."""
    tree = Node(page(write_run(here / "run", steps)))
    heads = [words(h) for h in tree.find("h3") if words(h).startswith("Step ")]
    assert [int(h.split()[1]) for h in heads] == expected


def test_every_model_answers_the_same_held_out_problem(here):
    """Before and after side by side, on problems that were chosen by rule; first the sampled replies."""
    _, evaluation = whole(here)
    tree = Node(page(Path("out/grpo")))
    groups = tree.find("details", "group")[6:]  # behind two for each of three steps
    for g, problem in zip(groups, ("gcd #0 4/6", "lcm #0 4/6", "gcd #3 0/6"), strict=True):
        heads = [words(h["children"][0]) for h in tree.find("header", under=g)]
        labels = ["base", "warm start", "GRPO"]
        assert heads == [f"{label}, {d}" for d in ("sampled", "greedy") for label in labels]
        assert words(tree.find("summary", under=g)[0]).startswith(problem)
    assert "advantage" not in words(groups[0])
    assert "Of the same 8 problems, greedy, 4 that warm start had wrong are right in GRPO, and 0" in words(tree.root)
    rows = [words(r) for t in tree.find("div", "scroll") for r in tree.find("tr", under=t)]
    assert rows[1].startswith("gcd 0.000 0.00–0.49 0.250 0.05–0.70 0.750 0.30–0.95 0.000") and rows[1].endswith(" 4")
    assert rows[3].startswith("all tasks 0.000 0.00–0.32 0.250 0.07–0.59 0.750 0.41–0.93") and rows[3].endswith(" 8")
    assert len(tree.find("div", "plots")) == 1 and len(tree.find("svg", under=tree.find("div", "plots")[0])) == 2
    assert evaluation.exists()


def test_of_several_samples_the_first_is_shown_and_all_count(here):
    """With --samples 4 a column per sample would drown the comparison of models, and the best of four would flatter;
    but accuracy is that of all four."""
    run, evaluation = whole(here)
    path = evaluation / "episodes.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    write_lines(path, [*records, *(r | {"answer": "another sample"} for r in records)])
    tree = Node(page(run))
    assert "another sample" not in words(tree.root) and not tree.find("li", "failed")
    assert [len(tree.find("article", under=g)) for g in tree.find("details", "group")[6:]] == [6, 6, 6]
    write_lines(path, [*records, *(r | {"correct": not r["correct"]} for r in records)])
    (failed,) = (words(li) for li in Node(page(run)).find("li", "failed"))
    assert failed == "Counted again from the stored replies: 0 of 12 accuracies agree."


# --------------------------------------------------------------------------------------------------------------------
# figures


def test_the_band_counts_problems_not_replies(here, monkeypatch):
    """Siblings share their problem. An interval over replies would be far too narrow: 2 of 8 gives 0.07 to 0.59, half
    of a problem out of 2 gives 0.03 to 0.80."""
    bands = {}
    draw = charts.curve

    def spy(name, steps, values, top=0, band=(), what="step"):
        bands[name] = list(band)
        return draw(name, steps, values, top, band, what)

    monkeypatch.setattr(charts, "curve", spy)
    text = page(write_run(here / "run"))
    assert bands["Right answers"][0] == pytest.approx((0.0267, 0.8021), abs=1e-4)
    assert bands["Right answers"][2] == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert not bands["Reward"]
    assert "0.500 right (0.09–0.91), 2 of 2 groups live" in " ".join(re.sub("<[^>]*>", "", text).split())


def test_time_is_split_without_remainder():
    """Parts that overlap, or that leave some seconds to nobody, would hide where the time goes."""
    lines = [
        {"seconds/rollout": 3.0, "seconds/update": 1.5, "seconds/total": 5.0, "tool_wait_seconds": 0.5},
        {"seconds/rollout": 2.0, "seconds/update": 1.0, "seconds/total": 8.25, "tool_wait_seconds": 0.0},
    ]
    split = time_split(lines)
    assert split == {
        "generating": [2.5, 2.0],
        "waiting for programs": [0.5, 0.0],
        "update": [1.5, 1.0],
        "rest": [0.5, 0.25],
    }
    assert list(map(sum, zip(*split.values(), strict=True))) == [5.0, 3.25]


def test_curves_without_figures_are_left_out():
    """A metric that an older run did not log is no curve of zeros, and NaN (a step without live episodes) is a gap."""
    lines = [{"step": 0, "accuracy": 0.5, "entropy": float("nan")}, {"step": 1, "accuracy": 0.5, "entropy": 0.1}]
    assert [panel["title"] for panel in panels(lines, 0, [])] == ["Right answers", "Entropy, nats"]


def test_figures_that_the_replies_do_not_bear_out_are_marked(here):
    """The page must not repeat an accuracy that the stored replies contradict."""
    run, evaluation = whole(here)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[1]["accuracy"] += 0.125
    write_lines(run / "metrics.jsonl", lines)
    stored = json.loads((evaluation / "evaluation.json").read_text())
    stored["results"]["GRPO"]["greedy"]["tasks"]["lcm"]["accuracy"] = 1.0
    (evaluation / "evaluation.json").write_text(json.dumps(stored))
    tree = Node(page(run))
    assert [words(li) for li in tree.find("li", "failed")] == [
        "Counted again from the stored replies: accuracy agrees in 2 of 3 steps.",
        "Counted again from the stored replies: 11 of 12 accuracies agree.",
    ]
    assert "None of the 8 held-out questions is among the 6 different questions of training." in words(tree.root)


@pytest.mark.parametrize("where", ["training", "the warm start"])
def test_held_out_questions_that_were_trained_on_are_marked(here, where):
    """Held-out accuracy means nothing if the questions were in the training data."""
    run, _ = whole(here)
    if where == "training":
        with (run / "episodes.jsonl").open("a") as file:
            file.write(json.dumps(record(9, question="held out: gcd 2")) + "\n")
    else:
        segments = [{"text": "held out: gcd 2", "source": "prompt"}]
        write_lines(Path("out/sft/trajectories.jsonl"), [{"segments": segments}])
    (failed,) = (words(li) for li in Node(page(run)).find("li", "failed"))
    assert failed.startswith("1 of the 8 held-out questions is among the") and failed.endswith(f"of {where}.")


# --------------------------------------------------------------------------------------------------------------------
# which evaluation


def notes(text: str) -> list[str]:
    tree = Node(text)
    return [words(li) for ul in tree.find("ul", "notes") for li in tree.find("li", under=ul)]


def test_an_evaluation_of_other_models_is_not_taken_for_this_runs(here):
    """out/evaluation is of the demo; under another run its figures would be somebody else's feathers."""
    other = write_run(Path("out/other"))
    whole(here)
    text = page(other)
    assert notes(text) == ["out/evaluation is not shown: none of its models is out/other/checkpoint."]
    assert "not evaluated on held-out problems yet" in text
    text = page(other, Path("out/evaluation"))  # asked for
    assert notes(text) == ["None of the models of out/evaluation goes by the name of out/other/checkpoint."]
    assert "not evaluated" not in text


def test_an_evaluation_older_than_the_checkpoint_is_noted(here):
    """A second run moves the first one aside, but not its evaluation."""
    run, evaluation = whole(here)
    os.utime(evaluation / "evaluation.json", (1e9, 1e9))
    assert notes(page(run)) == [
        "out/evaluation/evaluation.json is older than this run's checkpoint: it may be of an earlier run."
    ]


def test_before_is_the_model_that_the_run_began_from(here):
    """The gain over some other model in the table would not be the run's."""
    whole(here)
    run = write_run(Path("out/cold"), model="assets/tiny")
    models = {"GRPO": "out/cold/checkpoint", "base": "assets/tiny", "warm start": "out/sft/checkpoint"}
    evaluation = write_evaluation(Path("e"), models, {"base": 0, "warm start": 1, "GRPO": 3})
    assert words(Node(page(run, evaluation)).find("h1")[0]).startswith("From 0 % to 75 %")
    del models["base"]
    write_evaluation(Path("e"), models, {"warm start": 1, "GRPO": 3})
    assert words(Node(page(run, evaluation)).find("h1")[0]).startswith("75 % of 8")


def test_a_run_that_went_on_from_another_has_no_warm_start(here):
    """Both kinds of run log a `loss`; GRPO's, which averages to 0, would have been drawn as the warm start's."""
    write_run(Path("out/first"))
    path = Path("out/first/metrics.jsonl")
    write_lines(path, [json.loads(line) | {"loss": 0.0} for line in path.read_text().splitlines()])
    text = page(write_run(Path("out/second"), model="out/first/checkpoint"))
    assert notes(text) == ["out/first is no warm start: its loss is not shown."] and "Warm start" not in text


def test_controls_are_called_controls(here):
    """The page of a baseline must not read as one of GRPO."""
    run = write_run(here / "run", method="rejection", shuffle_rewards=True, mask_observations=False)
    text = page(run)
    assert [note.split(":")[0] for note in notes(text)] == ["A baseline", "A control"]
    spoken, others = (words(Node(html).root) for html in (text, page(write_run(here / "other"))))
    for phrase in ("carries no loss", "did better than their siblings", "because it has right and wrong replies"):
        assert phrase not in spoken and phrase in others


# --------------------------------------------------------------------------------------------------------------------
# hostile text, and what a page may hold


def test_model_text_is_text(here):
    """Whatever a model, a task or a folder's name says, it is shown: it never becomes markup, a template or a
    formula. Control characters are shown by their pictures."""
    names = {"base": "out/sft/checkpoint", f"GRPO {EVIL}": "evil <b>/checkpoint"}
    run = write_run(here / "evil <b>", model=EVIL, tasks=EVIL, learning_rate=EVIL, seed=EVIL)
    fields = ("task", "index", "question", "reference", "answer", "finish")
    evil = {field: f"{field} {EVIL}" for field in fields} | {"statuses": [f"status {EVIL}"]}
    evil["segments"] = [{"text": f"{s} {EVIL}\0\x1b\r", "source": s} for s in ("prompt", "model", "observation")]
    evil["segments"].append({"text": f"```{EVIL}\ncode {EVIL}\n```\n", "source": "model"})
    write_lines(run / "episodes.jsonl", [record(s, id=f"id {EVIL}", **evil) for s in range(3)])
    right = dict.fromkeys(names, 2)
    evaluation = write_evaluation(here / "evaluation", names, right, tasks=(f"task {EVIL}", "$x^2$"))
    lines = (evaluation / "episodes.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    stored = [json.loads(line) | {"segments": evil["segments"]} for line in lines]
    write_lines(evaluation / "episodes.jsonl", stored)
    (evaluation / "config.yaml").write_text(yaml.safe_dump({"split": EVIL, "temperature": 1}))
    (run / "revision.txt").write_text("<i>x")
    text = page(run, evaluation)
    tree = Node(text)
    assert {node["tag"] for node in tree.all} == {node["tag"] for node in Node(page(*whole(here))).all}
    names = {name for node in tree.all for name in node["attributes"]}
    assert not any(name.startswith("on") or name in ("href", "src") for name in names - {"href"})
    assert all(n["attributes"]["href"].startswith("#") for n in tree.all if "href" in n["attributes"])
    spoken = text_of(tree.root)
    for field in (*fields, "status", "id", "code", "prompt", "model", "observation"):
        assert f"{field} {EVIL}" in spoken, field
    assert "evil <b>" in spoken and "␀␛␍" in spoken and "\0" not in text
    assert "$x^2$" in spoken  # in the picture too: letter by letter, no formula
    assert len([n for n in tree.find("text") if text_of(n) == "$x^2$"]) == 2


def test_half_a_surrogate_pair_can_be_written(here):
    """JSON can hold one, UTF-8 cannot: the page used to end in a traceback."""
    run = write_run(here / "run")
    (run / "episodes.jsonl").write_text(json.dumps(record(0, answer="\ud800", segments=[])) + "\n")
    main([str(run), "--out", "page.html"])
    assert "?" in Path("page.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing(here):
    """It is mailed and archived: whatever it loaded would be missing or tell on its reader. And it runs nothing."""
    whole(here)
    text = page(Path("out/grpo"))
    tree = Node(text)
    assert not {n["tag"] for n in tree.all} & {"script", "img", "link", "iframe", "object", "image", "base", "form"}
    policy = next(n for n in tree.find("meta") if "http-equiv" in n["attributes"])["attributes"]
    assert policy["http-equiv"] == "Content-Security-Policy" and "default-src 'none'" in policy["content"]
    styles = " ".join(
        [*(text_of(n) for n in tree.find("style")), *(n["attributes"].get("style", "") for n in tree.all)]
    )
    assert "http" not in text.replace("http-equiv", "") and "@import" not in styles
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    for node in tree.all:
        for name in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            assert node["attributes"].get(name, "#").startswith("#")


def test_pictures_follow_the_page(here):
    """Colours of their own would be invisible in dark mode, a size of their own too wide for a phone; and an
    identifier that two pictures share makes one of them use the other's marks."""
    whole(here)
    text = page(Path("out/grpo"))
    tree = Node(text)
    pictures = tree.find("svg")
    assert len(pictures) == 13
    for picture in pictures:
        assert picture["attributes"]["role"] == "img" and picture["attributes"]["aria-label"]
        assert "viewbox" in picture["attributes"] and not {"width", "height"} & picture["attributes"].keys()
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--accent)" in drawn and not re.search(r"(fill|stroke|color): *(#|rgb|black|white)", drawn)
    assert "font-family" not in drawn
    ids = [n["attributes"]["id"] for n in tree.all if "id" in n["attributes"]]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"""(?:url\(|xlink:href=")#([^)"]*)""", drawn))
    assert used and used <= set(ids)


def test_the_same_run_gives_the_same_bytes(here):
    """A page that differs each time cannot be kept under version control, nor compared."""
    whole(here)
    for name in ("a.html", "b.html"):
        main(["--out", name])
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_the_page_of_the_demo_can_be_mailed(here):
    """16 groups of 8 replies in 3 steps, each reply as long as they get."""
    run = write_run(here / "run", 3)
    long = [{"text": "x" * 1000, "source": "model"}] * 2
    records = [record(s, g, 8 * g + i, segments=long) for s in range(3) for g in range(16) for i in range(8)]
    write_lines(run / "episodes.jsonl", records)
    assert len(page(run)) < 1_500_000


# --------------------------------------------------------------------------------------------------------------------
# runs that were interrupted, and mistakes


def test_a_run_that_was_interrupted_gets_its_page(here):
    """The page is wanted most when something went wrong: no checkpoint, no evaluation, and lines cut in half, here
    within a character."""
    run = write_run(here / "run", 3, planned=20)
    shutil.rmtree(run / "checkpoint")
    for name, cut in (
        ("metrics.jsonl", b'{"step": 3, "acc'),
        ("episodes.jsonl", '{"step": 2, "task": "×'.encode()[:-1]),
    ):
        with (run / name).open("ab") as file:
            file.write(cut)
    tree = Node(text := page(run))
    assert notes(text) == [
        f"The last line of {run}/metrics.jsonl is cut off and was left out.",
        "The run is not finished: 3 of 20 steps are there.",
        f"The last line of {run}/episodes.jsonl is cut off and was left out.",
    ]
    assert words(tree.find("h1")[0]) == "3 steps of GRPO, not evaluated on held-out problems yet"
    assert len(tree.find("article")) == 24 and not tree.find("li", "failed")


def test_a_single_step_without_anything_else(here):
    """metrics.jsonl alone is enough."""
    write_run(here / "whole", 1)
    (here / "run").mkdir()
    shutil.copy(here / "whole/metrics.jsonl", here / "run")
    tree = Node(page(here / "run"))
    assert words(tree.find("h1")[0]).startswith("1 step of GRPO")
    assert len(tree.find("svg")) == 8 and not tree.find("article")
    assert "No replies of this step are stored." in words(tree.root)


def test_a_step_that_was_done_twice_counts_once(here):
    """A run that is taken up again may do a step again; the curve must not run backwards."""
    run = write_run(here / "run", 2)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    again = json.dumps(json.loads(lines[0]) | {"entropy": 0.9})
    (run / "metrics.jsonl").write_text("\n".join([*lines, "", again, ""]))  # an empty line does no harm
    assert [line["entropy"] for line in report.read_metrics(run, "accuracy", [])] == [0.9, 0.2]


def break_file(path: str, line: int, text: str) -> None:
    lines = Path(path).read_text().splitlines()
    lines[line - 1] = text
    Path(path).write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["out/nowhere"], "there is no run folder out/nowhere"),
        (["out/evaluation"], "out/evaluation has no metrics.jsonl: it is no run folder"),
        (["out/sft"], "out/sft/metrics.jsonl, line 1 is not as the scripts write it: KeyError('accuracy')"),
        (["--steps", "0,7"], "step 7 is not in out/grpo/metrics.jsonl, which holds 0 to 2"),
        (["--steps", "first"], "--steps takes numbers such as 0,9,19, not 'first'"),
        (["--steps", ""], "--steps takes numbers"),
        (["--evaluation", "out/sft"], "out/sft has no evaluation.json: python evaluate.py writes one"),
        (["--sft", "out/nowhere"], "there is no run folder out/nowhere"),
        (["--out", "out/grpo"], "the report cannot be written to out/grpo: Is a directory"),
        (
            ["--out", "out/grpo/config.yaml/page.html"],
            "the report cannot be written to out/grpo/config.yaml/page.html: ",
        ),
        (["--out", "/proc/page.html"], "the report cannot be written to /proc/page.html: "),
    ],
)
def test_mistakes_end_in_one_line(here, arguments, message):
    """What is wrong, and where, instead of a traceback."""
    whole(here)
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: main(arguments))
    assert message in stop.value.code and "\n" not in stop.value.code


@pytest.mark.parametrize(
    "path, line, text, message",
    [
        ("out/grpo/metrics.jsonl", 2, '{"step": 1, "acc', "out/grpo/metrics.jsonl, line 2 is not JSON"),
        ("out/grpo/metrics.jsonl", 1, "[]", "out/grpo/metrics.jsonl, line 1 is not as the scripts write it"),
        ("out/grpo/episodes.jsonl", 3, "{]", "out/grpo/episodes.jsonl, line 3 is not JSON"),
        ("out/grpo/episodes.jsonl", 3, '{"step": 0}', "out/grpo/episodes.jsonl, line 3 is not as the scripts write it"),
        ("out/sft/trajectories.jsonl", 1, '{"segments": []}', "out/sft/trajectories.jsonl, line 1 is not as"),
        ("out/evaluation/evaluation.json", 1, "{\n\n]", "out/evaluation/evaluation.json, line 3 is not JSON"),
        ("out/evaluation/evaluation.json", 1, "[]", "out/evaluation/evaluation.json is not as evaluate.py writes it"),
        ("out/evaluation/evaluation.json", 1, '{"results": {}, "models": {}}', "is not as evaluate.py writes it"),
        ("out/evaluation/episodes.jsonl", 1, "nothing", "out/evaluation/episodes.jsonl, line 1 is not JSON"),
        ("out/grpo/config.yaml", 1, "a: [", "out/grpo/config.yaml is not valid YAML"),
        ("out/grpo/config.yaml", 3, "steps: many", "many"),
    ],
)
def test_broken_files_are_named(here, path, line, text, message):
    """The file and the line, so that nobody has to search a hundred megabytes."""
    whole(here)
    break_file(path, line, text)
    with pytest.raises(UserError) as error:
        page(Path("out/grpo"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_nothing_is_left_of_a_page_that_could_not_be_written(here, monkeypatch):
    """A disk that is full half-way must not cost the older page, nor leave a half one around."""
    run = write_run(here / "run")
    Path("page.html").write_text("older")

    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written to page.html: No space left on device"):
        main([str(run), "--out", "page.html"])
    assert Path("page.html").read_text() == "older"
    assert sorted(path.name for path in here.iterdir()) == ["page.html", "run"]


# --------------------------------------------------------------------------------------------------------------------
# several runs


def test_several_runs_on_one_page(here):
    """Curves under another run's colour; a difference of settings that is not shown, or one that is none."""
    write_run(here / "a", steps=3)
    write_run(here / "b", steps=5, learning_rate=3e-4, kl=0.1)
    lines = [json.loads(line) for line in (here / "b/metrics.jsonl").read_text().splitlines()]
    write_lines(
        here / "b/metrics.jsonl", [line | {"kl": 0.01 * i, "held_out": 0.1 * i} for i, line in enumerate(lines)]
    )
    html = page_of_several([Path("a"), Path("b")])
    tree = Node(html)
    rows = [words(row) for row in tree.find("tr")]
    assert {"learning_rate 0.0001 0.0003", "kl 0.1", "steps 3 5"} <= set(rows)
    assert not any(row.startswith(("seed", "out", "tasks")) for row in rows)
    # accuracy is (2 + step) / 8, up to step 4
    assert "a 3 0.375 – 1.00 –" in rows and "b 5 0.500 0.400 1.00 –" in rows
    figures = {words(tree.find("h3", under=f)[0]): f for f in tree.find("figure")}
    assert next(iter(figures)) == "Right answers" and "Curriculum stage" not in figures

    def strokes(figure: dict) -> list[str]:
        styles = [path["attributes"].get("style", "") for path in tree.find("path", under=figure)]
        return [m[1] for style in styles if (m := re.search(r"stroke: (var\(--(?:accent|ink)\))", style))]

    assert strokes(figures["Right answers"]) == ["var(--accent)", "var(--ink)"]
    assert strokes(figures["KL to the start, nats"]) == ["var(--ink)"]
    assert page_of_several([Path("a"), Path("b")]) == html


def test_a_page_of_several_runs_takes_no_settings_of_one(here):
    """A flag that is silently ignored."""
    for name in "ab":
        write_run(here / name)
    with pytest.raises(UserError, match="are for the page of a single run"):
        report.main(["a", "b", "--steps", "0"])
    report.main(["a", "b"])
    assert (here / "out/report.html").read_text().count("<figure>") > 5
