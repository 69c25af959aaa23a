"""One self-contained HTML page of a run: held-out accuracy, curves, configuration and replies to read.

    python report.py                        out/grpo, the warm start it began from and out/evaluation -> out/report.html
    python report.py out/grpo --evaluation out/evaluation --steps 0,9,19 --out somewhere.html
    python report.py out/a out/b out/c      several runs in the same pictures, and what is different in their settings

The page loads nothing, runs no script, and is the same to the byte for the same files. What models wrote is escaped,
and what the figures claim is counted again from the stored replies. A run that was interrupted gets a page too.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from charts import ABSENT_IF_ZERO, CSS, PANELS, STROKES, curves, dots, marks, panels
from cli import ROOT, UserError, run_main, user_input
from evaluate import telling
from scores import wilson
from tasks import spans

EVALUATION = Path("out/evaluation")
RECENT = 5  # steps at the end of a run, of which a page of several runs shows the mean
HELD_OUT_SHOWN = 12  # problems of the evaluation, at most, that are shown with every model's reply
# Control characters would vanish from the page or disturb it; their pictures do not. Tabs and line feeds may stay.
VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {127: 0x2421}
AS_WRITTEN = (LookupError, TypeError, AttributeError, ValueError)  # what stored values that are not so lead to


# --------------------------------------------------------------------------------------------------------------------
# reading run folders


def read_lines(path: Path, parse: Callable[[dict], Any], notes: list[str]) -> list[Any]:
    """`parse` of every line of a .jsonl file; what gives None is not kept. A last line that was cut off is left out,
    with a note; any other one that is not as it must be is a UserError that names it."""
    kept = []
    with path.open("rb") as file:  # bytes, since a cut may go through a character
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError as error:
                if not file.read(1):
                    notes.append(f"The last line of {path} is cut off and was left out.")
                    break
                raise UserError(f"{path}, line {number} is not JSON: {error}") from error
            try:
                parsed = parse(record)
            except AS_WRITTEN as error:
                raise UserError(f"{path}, line {number} is not as the scripts write it: {error!r}") from error
            if parsed is not None:
                kept.append(parsed)
    return kept


def read_metrics(folder: Path, key: str, notes: list[str]) -> list[dict[str, float]]:
    """The lines of metrics.jsonl, one per step (the later one, if a step was done twice), each with a `key`."""

    def parse(line: dict) -> dict[str, float]:
        numbers = {name: float(value) for name, value in line.items() if isinstance(value, int | float)}
        return numbers | {"step": int(line["step"]), key: float(line[key])}

    path = folder / "metrics.jsonl"
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}")
    if not path.is_file():
        raise UserError(f"{folder} has no metrics.jsonl: it is no run folder, or its run never finished a step")
    by_step = {line["step"]: line for line in read_lines(path, parse, notes)}
    if not by_step:
        raise UserError(f"{path} holds no finished step")
    return [by_step[step] for step in sorted(by_step)]


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config.yaml; empty if there is none."""
    path = folder / "config.yaml"
    try:
        values = yaml.safe_load(path.read_bytes()) if path.exists() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold `name: value` lines")
    return values


def about(folder: Path) -> dict[str, str]:
    """A run's configuration and git revision, as text."""
    texts = [folder / name for name in ("config.yaml", "revision.txt")]
    config, revision = (p.read_text("utf-8", "replace").strip() if p.exists() else "unknown" for p in texts)
    commit = revision.removesuffix("-dirty")
    return {"config": config, "revision": commit[:10] + ", with uncommitted changes" * (commit != revision)}


def shown(raw: dict[str, Any], head: str) -> dict[str, Any]:
    """A record of episodes.jsonl as a column under `head`. Its `pieces` are (kind, text, note), the kind being "text",
    "code" or "observation", whose note says how the program ended."""
    statuses, pieces = iter(raw["statuses"]), []
    for segment in raw["segments"]:
        source, text = segment["source"], str(segment["text"])
        if source == "model":
            for span in spans(text):
                kind = "code" if span.kind == "fence" else "text"
                pieces.append((kind, text[span.start : span.end].strip("\n"), ""))
        elif source == "observation":
            pieces.append((source, text.strip("\n"), next(statuses, "not run")))
    return {
        **{key: raw[key] for key in ("task", "index", "question", "reference", "answer", "correct", "finish")},
        **{key: float(raw[key]) for key in ("reward", "advantage")},
        **{key: int(raw[key]) for key in ("code_runs", "sampled_tokens")},
        "head": head,
        "prompt": "".join(str(part["text"]) for part in raw["segments"] if part["source"] == "prompt"),
        "pieces": [piece for piece in pieces if piece[1].strip()],
    }


def group(columns: list[dict[str, Any]]) -> dict[str, Any]:
    """Replies to one question, side by side."""
    shared = {key: columns[0][key] for key in ("task", "index", "question", "reference", "prompt")}
    live = any(column["advantage"] for column in columns)
    return {**shared, "columns": columns, "right": sum(bool(column["correct"]) for column in columns), "live": live}


def agrees(verdicts: list[bool], accuracy: float) -> bool:
    """Whether stored verdicts give the accuracy that was logged."""
    return bool(verdicts) and abs(sum(verdicts) / len(verdicts) - accuracy) < 1e-9


# --------------------------------------------------------------------------------------------------------------------
# held-out accuracy


def read_evaluation(folder: Path, notes: list[str]) -> dict[str, Any]:
    """evaluation.json, checked, with the replies of episodes.jsonl: the first of each problem by (model, decoding)."""

    def summary(raw: dict) -> dict[str, Any]:
        low, high = map(float, raw["interval"])
        numbers = {key: float(raw[key]) for key in ("accuracy", "code_use", "code_runs")}
        return {**numbers, "interval": (low, high), "problems": int(raw["problems"])}

    def figures(raw: dict) -> dict[str, Any]:
        return {"overall": summary(raw["overall"]), "tasks": {str(k): summary(v) for k, v in raw["tasks"].items()}}

    path = folder / "evaluation.json"
    if not path.is_file():
        raise UserError(f"{folder} has no evaluation.json: python evaluate.py writes one")
    try:
        stored = json.loads(path.read_bytes())
        results = {label: {d: figures(f) for d, f in of.items()} for label, of in stored["results"].items()}
        models = {label: str(stored["models"][label]) for label in results}
        ((decodings, tasks),) = {(tuple(of), tuple(f["tasks"])) for of in results.values() for f in of.values()}
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno} is not JSON: {error.msg}") from error
    except AS_WRITTEN as error:
        raise UserError(f"{path} is not as evaluate.py writes it: {error!r}") from error
    replies: dict[tuple, dict] = defaultdict(dict)
    verdicts: dict[tuple, list[bool]] = defaultdict(list)

    def parse(raw: dict) -> None:
        of, problem = (raw["model"], raw["decoding"]), (raw["task"], raw["index"])
        verdicts[*of, raw["task"]].append(bool(raw["correct"]))
        if problem not in replies[of]:
            replies[of][problem] = shown(raw, ", ".join(map(str, of)))

    if (folder / "episodes.jsonl").is_file():
        read_lines(folder / "episodes.jsonl", parse, notes)
    claims = {(m, d, t): results[m][d]["tasks"][t]["accuracy"] for m in models for d in decodings for t in tasks}
    return {
        "folder": folder,
        "config": read_config(folder),
        "models": models,
        "decodings": decodings,
        "tasks": tasks,
        "results": results,
        "replies": replies,
        "claims": len(claims),
        "agree": sum(agrees(verdicts[key], accuracy) for key, accuracy in claims.items()),
    }


def same(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def compare(found: dict[str, Any], run: Path, start: str, asked: dict[str, set], notes: list[str]) -> dict[str, Any]:
    """What the page says of an evaluation. `start`: the model that the run began from; `asked`: the questions of the
    training data, by where they come from."""
    labels, results, replies, decodings = list(found["models"]), found["results"], found["replies"], found["decodings"]
    after = next((label for label in labels if same(found["models"][label], run / "checkpoint")), "")
    if not after:
        notes.append(f"None of the models of {found['folder']} goes by the name of {run / 'checkpoint'}.")
        after = labels[-1]
    weights, written = run / "checkpoint/config.json", found["folder"] / "evaluation.json"
    if weights.exists() and weights.stat().st_mtime > written.stat().st_mtime:
        notes.append(f"{written} is older than this run's checkpoint: it may be of an earlier run.")
    others = [label for label in labels if label != after]
    earlier = labels[: labels.index(after)]
    before = next((label for label in others if same(found["models"][label], start)), earlier[-1] if earlier else "")
    plots = {}
    for d in decodings:
        series = {
            label: [(s["accuracy"], *s["interval"]) for s in (*of[d]["tasks"].values(), of[d]["overall"])]
            for label, of in results.items()
        }
        plots[d] = dots(f"Held-out accuracy per task, {d}", [*found["tasks"], "all tasks"], series, after)
    groups, count = [], min(HELD_OUT_SHOWN, max(3, len(found["tasks"])))
    for reply in telling(list(replies[after, decodings[0]].values()), count):
        problem = reply["task"], reply["index"]
        groups.append(group([of[problem] for d in decodings for m in labels if problem in (of := replies[m, d])]))
    old, new = (replies[label, decodings[-1]] for label in (before, after))
    pairs = [(bool(old[problem]["correct"]), bool(new[problem]["correct"])) for problem in new if problem in old]
    questions = {reply["question"] for of in replies.values() for reply in of.values()}
    return {
        **found,
        "labels": labels,
        "before": before,
        "after": after,
        "signs": {label: (CSS[colour], sign) for label, (_, colour, sign) in marks(labels, after).items()},
        "plots": plots,
        "groups": groups,
        "pairs": {"all": len(pairs), "won": pairs.count((False, True)), "lost": pairs.count((True, False))},
        "questions": len(questions),
        "common": {source: (len(texts), len(questions & texts)) for source, texts in asked.items() if texts},
    }


# --------------------------------------------------------------------------------------------------------------------
# the page


def page(run: Path, evaluation: Path | None = None, sft: Path | None = None, steps: list[int] | None = None) -> str:
    """The HTML of a run; without `evaluation` and `sft`, with those that belong to it, if they are there."""
    notes: list[str] = []
    metrics, config = read_metrics(run, "accuracy", notes), read_config(run)
    known = [line["step"] for line in metrics]
    if steps is None:
        steps = [known[0], known[(len(known) - 1) // 2], known[-1]]
    if unknown := [step for step in steps if step not in known]:
        raise UserError(f"step {unknown[0]} is not in {run / 'metrics.jsonl'}, which holds {known[0]} to {known[-1]}")
    with user_input():
        planned, problems = (int(config.get(key, 0)) for key in ("steps", "prompts_per_step"))
    if len(known) < planned:
        notes.append(f"The run is not finished: {len(known)} of {planned} steps are there.")
    elif not (run / "checkpoint").exists():
        notes.append(f"There is no checkpoint in {run}.")
    if (method := config.get("method", "grpo")) != "grpo":
        notes.append(f"A baseline: trained with --method {method}, not by GRPO.")
    if config.get("shuffle_rewards"):
        notes.append("A control: rewards were dealt out anew among the replies, so there was nothing to learn from.")

    asked: dict[str, set[str]] = {"training": set(), "the warm start": set()}
    verdicts: dict[int, list[bool]] = defaultdict(list)
    chosen: dict[int, dict[int, list[dict]]] = {step: defaultdict(list) for step in sorted(set(steps))}

    ends = {f"step {step}": step for step in (known[0], known[-1])}
    spread: dict[str, dict[str, list[int]]] = {name: {"programs": [], "tokens": []} for name in ends}

    def parse(raw: dict) -> None:
        verdicts[raw["step"]].append(bool(raw["correct"]))
        asked["training"].add(raw["question"])
        for name, step in ends.items():
            if raw["step"] == step:
                spread[name]["programs"].append(int(raw["code_runs"]))
                spread[name]["tokens"].append(int(raw["sampled_tokens"]))
        if raw["step"] in chosen:
            chosen[raw["step"]][raw["group"]].append(shown(raw, f"reply {raw['id']}"))

    if (run / "episodes.jsonl").is_file():
        read_lines(run / "episodes.jsonl", parse, notes)
    problems = problems or len(chosen[steps[0]])
    agree = sum(agrees(verdicts[line["step"]], line["accuracy"]) for line in metrics)

    start = str(config.get("model", ""))
    if sft is None and start and (Path(start).parent / "metrics.jsonl").is_file():
        sft = Path(start).parent
    warm = read_metrics(sft, "loss", notes) if sft else []
    if warm and "accuracy" in warm[0]:  # a run of grpo.py, whose loss averages to 0 whatever it learns
        notes.append(f"{sft} is no warm start: its loss is not shown.")
        sft, warm = None, []
    if sft and (sft / "trajectories.jsonl").is_file():
        asked["the warm start"].update(
            read_lines(sft / "trajectories.jsonl", lambda raw: str(raw["segments"][0]["text"]), notes)
        )

    found = None
    if evaluation or (EVALUATION / "evaluation.json").is_file():
        found = read_evaluation(evaluation or EVALUATION, notes)
        if not evaluation and not any(same(model, run / "checkpoint") for model in found["models"].values()):
            notes.append(f"{EVALUATION} is not shown: none of its models is {run / 'checkpoint'}.")
            found = None
    began = run / ("config.yaml" if config else "metrics.jsonl")
    return template("report.html.j2").render(
        run=run,
        date=time.strftime("%-d %B %Y, %H:%M UTC", time.gmtime(began.stat().st_mtime)),
        config=config,
        notes=notes,
        metrics=metrics,
        problems=problems,
        panels=panels(metrics, problems, warm, spread if all(s["tokens"] for s in spread.values()) else None),
        agree=agree,
        evaluation=compare(found, run, start, asked, notes) if found else None,
        folders={folder: about(folder) for folder in (run, sft, found and found["folder"]) if folder},
        steps=[
            {**line, "groups": [group(g) for g in chosen[line["step"]].values()]}
            | {"interval": wilson(line["accuracy"] * problems, problems)}
            for line in metrics
            if line["step"] in chosen
        ],
    )


def template(name: str) -> Template:
    """A page of assets/, in which every value is escaped and what cannot be seen is shown."""
    return Environment(
        loader=FileSystemLoader(ROOT / "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup | int | float) else str(value).translate(VISIBLE),
    ).get_template(name)


def page_of_several(runs: list[Path]) -> str:
    """The HTML of several runs: a curve for each in every picture, figures of their ends, and how their settings
    differ."""
    notes: list[str] = []
    short = len({run.name for run in runs}) == len(runs)
    names = {run.name if short else str(run): run for run in runs}
    metrics = {name: read_metrics(run, "accuracy", notes) for name, run in names.items()}
    configs = {name: read_config(run) for name, run in names.items()}
    strokes = dict(zip(metrics, itertools.cycle(STROKES)))
    pictures = []
    for key, (title, healthy, top) in PANELS.items():
        series = {}
        for run, lines in metrics.items():
            values = [line.get(key, math.nan) for line in lines]
            if any(map(math.isfinite, values)) and (key not in ABSENT_IF_ZERO or any(values)):
                series[run] = ([line["step"] for line in lines], values)
        if series:
            healthy = healthy.split(" Band: ")[0]
            pictures.append({"title": title, "healthy": healthy, "svg": curves(title, series, strokes, top, "step")})
    timed = {run: lines for run, lines in metrics.items() if all("seconds/cpu" in line for line in lines)}
    if timed:
        title, healthy = "Right answers against time", "What a gain has cost: CPU seconds since the start."
        series = {
            run: ([line["seconds/cpu"] for line in lines], [line["accuracy"] for line in lines])
            for run, lines in timed.items()
        }
        pictures.append({"title": title, "healthy": healthy, "svg": curves(title, series, strokes, 1, "CPU seconds")})
    rows = []
    for run, lines in metrics.items():
        last = lines[-RECENT:]
        held_out = [line["held_out"] for line in lines if "held_out" in line]
        rows.append(
            {
                "run": run,
                "steps": len(lines),
                "accuracy": statistics.fmean(line["accuracy"] for line in last),
                "held_out": max(held_out) if held_out else None,
                "code_use": statistics.fmean(line["code_use"] for line in last) if "code_use" in last[0] else None,
                "cpu": lines[-1].get("seconds/cpu"),
            }
        )
    settings = dict.fromkeys(name for config in configs.values() for name in config if name != "out")
    different = {
        name: [config.get(name, "") for config in configs.values()]
        for name in settings
        if len({json.dumps(config.get(name)) for config in configs.values()}) > 1
    }
    lines = {"-": "solid", "--": "dashed", ":": "dotted"}
    legend = [(run, CSS[colour], lines[style]) for run, (colour, style) in strokes.items()]
    return template("runs.html.j2").render(
        runs=list(metrics),
        strokes=legend,
        pictures=pictures,
        rows=rows,
        different=different,
        notes=notes,
        recent=RECENT,
    )


def write_atomically(path: Path, text: str) -> None:
    """Under a temporary name first, so that nobody opens half a page."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(text.encode("utf-8", "replace"))  # JSON can hold half a surrogate pair, UTF-8 cannot
        temporary.rename(path)
    except OSError as error:
        raise UserError(f"the report cannot be written to {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def parse_steps(text: str | None) -> list[int] | None:
    """The numbers of --steps; UserError for anything else."""
    try:
        return [int(step) for step in text.split(",")] if text is not None else None
    except ValueError:
        raise UserError(f"--steps takes numbers such as 0,9,19, not {text!r}") from None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders of grpo.py (out/grpo)")
    parser.add_argument("--evaluation", type=Path, help="folder of evaluate.py (out/evaluation, if it is of this run)")
    parser.add_argument("--sft", type=Path, help="folder of the warm start (where the run's first model lies)")
    parser.add_argument("--steps", help="whose episodes to show, such as 0,9,19 (the first, a middle and the last one)")
    parser.add_argument("--out", default="out/report.html", type=Path, help="the page (out/report.html)")
    arguments = parser.parse_args(argv)
    steps = parse_steps(arguments.steps)
    runs = list(dict.fromkeys(arguments.runs)) or [Path("out/grpo")]
    if len(runs) > 1 and (steps or arguments.evaluation or arguments.sft):
        raise UserError("--steps, --evaluation and --sft are for the page of a single run")
    single = len(runs) == 1
    write_atomically(
        arguments.out, page(runs[0], arguments.evaluation, arguments.sft, steps) if single else page_of_several(runs)
    )
    print(f"report: {arguments.out}")


if __name__ == "__main__":
    run_main(main)
