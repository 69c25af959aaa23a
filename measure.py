"""Measures the improvement potential of problems: how many of N sampled answers to each are right.

    python measure.py --model out/sft/checkpoint                                   the pool of the embedded default
    torchrun --nproc-per-node 8 measure.py runs/rollout-qwen2.5.yaml --model out/sft-qwen2.5-3b/checkpoint \
        --tasks train --problems_per_task 500 --styles free,text,code --samples 21
    python grpo.py --curriculum potential --measured out/measured/measured.jsonl

Writes measured.jsonl (a line per problem: right answers, answers, and both by prompt style) and measured.svg, the
distribution. Interrupted, the same command goes on where it was.

Differs from the paper: it asks four agents five times each; one of them, which a second model steers, is left to
teacher.py, so the styles are those of rollout.py. The tiny model was trained on one.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from checkpoint import load_bundle, write_whole
from cli import (
    UserError,
    append_records,
    check_arguments,
    check_out,
    parse_arguments,
    read_records,
    remember,
    run_main,
    user_input,
)
from curriculum import EDGES, STAGES, group_of, potential
from executor import check_sandbox
from rollout import PROMPT_STYLES, Rollout, RolloutArguments, check_prompts, choose_style
from suites.base import Problem
from tasks import draw_problems
from training import fit_threads, shared_groups, start_processes

CHUNK = 64  # problems asked between two writes


@dataclasses.dataclass
class MeasureArguments(RolloutArguments):
    """The defaults measure the problems that grpo.py draws by default."""

    model: str = dataclasses.field(default="out/sft/checkpoint", metadata={"help": "folder or hub name"})
    out: str = dataclasses.field(default="out/measured", metadata={"help": "folder"})
    tasks: str = dataclasses.field(
        default="embedded", metadata={"help": "names, suites, embedded, all, train, test, or a .jsonl file"}
    )
    problems_per_task: int = dataclasses.field(default=200, metadata={"help": "size of the pool, per task"})
    samples: int = dataclasses.field(default=20, metadata={"help": "answers per problem, over all styles"})
    styles: str = dataclasses.field(
        default="", metadata={"help": f"some of {', '.join(PROMPT_STYLES)}; empty: the checkpoint's own"}
    )
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "of sampling"})
    code_timeout: float = dataclasses.field(default=2.0, metadata={"help": "seconds a program may run"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of everything sampled"})

    def __post_init__(self):
        check_arguments(self)


def asked(
    rollouts: dict[str, Rollout], problems: list[Problem], arguments: MeasureArguments, chunk: int, progress: str
) -> list[dict[str, Any]]:
    """A record per problem, from the answers of all ranks. Answers that the sandbox failed are none: they do not count,
    and a problem without others has no record, so that it is asked again by the next call."""
    right, count = ({(p.task, p.index): Counter() for p in problems} for _ in range(2))
    each = arguments.samples // len(rollouts)
    for number, (style, rollout) in enumerate(rollouts.items()):
        step = chunk * len(rollouts) + number
        groups = shared_groups(len(problems), arguments)
        episodes, _ = rollout(problems, each, arguments.temperature, step, progress, groups)
        outcomes = [(e.problem.task, e.problem.index, e.correct) for e in episodes if e.finish != "sandbox_error"]
        for task, index, correct in gather_object(outcomes):
            right[task, index][style] += correct
            count[task, index][style] += 1
    return [
        {
            "task": task,
            "index": index,
            "right": right[task, index].total(),
            "samples": counts.total(),
            "potential": potential(right[task, index].total(), counts.total()),
            "styles": {style: [right[task, index][style], counts[style]] for style in rollouts},
        }
        for (task, index), counts in count.items()
        if counts.total()
    ]


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Accuracy, potential and groups of each task, and over all of them."""
    width = max(len(record["task"]) for record in records) + 2
    edges = [f">= 0.{edge}" for edge in EDGES] + ["less"]
    head = "".join(f"{name:>10}" for name in ("problems", "right", "potential", *edges))
    lines = [f"{'':{width}}{head}"]

    def line(name: str, some: Sequence[dict[str, Any]]) -> str:
        groups = Counter(group_of(record["right"], record["samples"]) for record in some)
        right = sum(record["right"] for record in some) / sum(record["samples"] for record in some)
        mean = sum(record["potential"] for record in some) / len(some)
        cells = (f"{len(some):,}", f"{right:.3f}", f"{mean:.3f}", *(f"{groups[i]:,}" for i in range(STAGES)))
        return f"{name:{width}}" + "".join(f"{cell:>10}" for cell in cells)

    for name in sorted({record["task"] for record in records}):
        lines.append(line(name, [record for record in records if record["task"] == name]))
    return "\n".join([*lines, line("all", records)])


def picture(records: Sequence[dict[str, Any]], path: Path) -> None:
    """How many problems have how many right answers, coloured by group; the potential as a line. Problems with fewer
    answers than others are shown at the same share of right ones."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    samples = max(record["samples"] for record in records)
    counts = Counter(round(record["right"] * samples / record["samples"]) for record in records)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for group in range(STAGES):
        xs = [right for right in range(samples + 1) if group_of(right, samples) == group]
        edge = f"potential >= 0.{EDGES[group]}" if group < len(EDGES) else "less"
        label = f"group {group + 1}: {edge}, {sum(counts[x] for x in xs):,} problems"
        axes.bar(xs, [counts[x] for x in xs], width=0.85, label=label, color=f"C{group}")
    axes.set(xlabel=f"right answers of {samples}", ylabel="problems")
    line = axes.twinx()
    line.plot(range(samples + 1), [potential(right, samples) for right in range(samples + 1)], color="grey", lw=1)
    line.set(ylabel="potential 4 p (1 - p)", ylim=(0, 1.05))
    axes.legend(frameon=False, fontsize=8)
    for part in (axes, line):
        part.spines[["top"]].set_visible(False)
    with rc_context({"svg.hashsalt": "measured"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def measure(arguments: MeasureArguments) -> Path:
    """Asks for what is missing; returns the file of measurements."""
    state, folder = start_processes(), Path(arguments.out)
    if state.is_main_process:
        check_out(folder)
    check_sandbox(arguments.best_effort)
    with user_input():
        pool = draw_problems(arguments.tasks, "rl", arguments.problems_per_task)
        dtype = torch.bfloat16 if state.device.type == "cuda" else torch.float32
        bundle = load_bundle(arguments.model, dtype, state.device)
        named = [name.strip() for name in arguments.styles.split(",") if name.strip()] or [arguments.prompt_style]
        styles = list(dict.fromkeys(choose_style(name, bundle) for name in named))
        check_prompts(pool, bundle, styles[0], arguments.model)
    if arguments.samples % len(styles):
        raise UserError(f"--samples {arguments.samples} is no multiple of the {len(styles)} styles")
    fit_threads(bundle.model)
    file = folder / "measured.jsonl"
    if state.is_main_process:
        remember(folder, arguments, {"slots", "cache_gib", "best_effort"})
        read_records(file)  # cuts off what a killed process has left of a line
    state.wait_for_everyone()
    done = {(record["task"], record["index"]) for record in read_records(file)}
    chunks = [pool[start : start + CHUNK] for start in range(0, len(pool), CHUNK)]
    with arguments.executor() as executor:
        rollouts = {
            style: Rollout(bundle, executor, dataclasses.replace(arguments, prompt_style=style), arguments.seed)
            for style in styles
        }
        bar = tqdm(chunks, "problems", unit=f" x {CHUNK}", disable=not state.is_main_process)
        for number, chunk in enumerate(bar):
            if all((problem.task, problem.index) in done for problem in chunk):
                continue
            records = asked(rollouts, chunk, arguments, number, "")
            if state.is_main_process:
                append_records(file, [record for record in records if (record["task"], record["index"]) not in done])
    if state.is_main_process:
        known = {(problem.task, problem.index) for problem in pool}
        records = [record for record in read_records(file) if (record["task"], record["index"]) in known]
        if not records:
            raise UserError("the sandbox failed every answer: look at the machine, then start again")
        text = summary(records)
        write_whole(folder / "summary.txt", [text, "\n"])
        picture(records, folder / "measured.svg")
        print(f"{text}\n\n{file}")
    return file


def main(argv: list[str] | None = None) -> None:
    measure(parse_arguments(MeasureArguments, argv))


if __name__ == "__main__":
    run_main(main)
