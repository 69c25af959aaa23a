"""Held-out accuracy of one or several checkpoints, sampled and greedy, with code use and intervals.

    python evaluate.py                                       base, warm start and GRPO of the embedded default
    python evaluate.py --model out/grpo/checkpoint --tasks gcd,lcm --problems_per_task 100
    python evaluate.py --model Qwen/Qwen2.5-3B-Instruct --max_reply_tokens 2048 --no_deterministic

Every checkpoint answers the same problems, which no training split contains. Accuracy is correctness alone, the mean
of each task and then over tasks; intervals are Wilson's (1927), 95 %, over problems. Everything is stored in the run
folder: evaluation.json (all figures) and episodes.jsonl (all replies).

Differs from the paper: sampling is at temperature 1, as in training (the paper evaluates at 0.6), beside greedy
decoding.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from checkpoint import load_bundle, write_whole
from cli import Run, UserError, check_arguments, parse_arguments, run_main, user_input
from executor import check_sandbox
from rollout import Episode, Rollout, RolloutArguments, check_prompts, readable
from scores import wilson
from suites.base import Problem
from tasks import INDEX_RANGES, draw_problems, published_problems
from training import fit_threads, start_processes

DTYPES = ("auto", "float32", "bfloat16")
EMBEDDED_STAGES = {"base": "assets/tiny", "warm start": "out/sft/checkpoint", "GRPO": "out/grpo/checkpoint"}


@dataclasses.dataclass
class EvaluateArguments(RolloutArguments):
    model: list[str] = dataclasses.field(
        default_factory=list, metadata={"help": "folders or hub names; none: the stages of the embedded default"}
    )
    out: str = dataclasses.field(default="out/evaluation", metadata={"help": "run folder"})
    tasks: str = dataclasses.field(
        default="embedded", metadata={"help": "names, suites, embedded, all, train, test, or a .jsonl file"}
    )
    split: str = dataclasses.field(default="test", metadata={"help": "dev while tuning, test for final figures"})
    problems_per_task: int = dataclasses.field(default=28, metadata={"help": "the first so many of the split"})
    published: str = dataclasses.field(
        default="", metadata={"help": "folder of the paper's data: ask its problems of symbench, none that we draw"}
    )
    samples: int = dataclasses.field(default=1, metadata={"help": "sampled replies per problem"})
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "of the sampled replies"})
    top_p: float = dataclasses.field(
        default=1.0, metadata={"help": "sampled replies draw from the most likely tokens with this share of the mass"}
    )
    dtype: str = dataclasses.field(
        default="auto", metadata={"help": "auto | float32 | bfloat16; auto: bfloat16 on a GPU, float32 on a CPU"}
    )
    show: int = dataclasses.field(default=3, metadata={"help": "episodes of the last model to print"})
    seed: int = dataclasses.field(default=0, metadata={"help": "of the sampled replies"})

    def __post_init__(self):
        check_arguments(self, split=INDEX_RANGES, dtype=DTYPES)
        if self.top_p > 1:
            raise UserError(f"--top_p is a share, at most 1, not {self.top_p}")


Decodings = dict[str, list[Episode]]


def summarise(episodes: list[Episode]) -> dict[str, float | int | list[float]]:
    """Accuracy with its interval, share of episodes that ran code, and code runs per episode."""
    count = len(episodes)
    right = sum(episode.correct for episode in episodes)
    return {
        "accuracy": right / count,
        # Several samples of one problem are not independent: the interval counts problems.
        "interval": [*wilson(right / count * (n := len({(e.problem.task, e.problem.index) for e in episodes})), n)],
        "problems": n,
        "code_use": sum(episode.code_runs > 0 for episode in episodes) / count,
        "code_runs": sum(episode.code_runs for episode in episodes) / count,
    }


def evaluate(
    rollout: Rollout, drawn: list[Problem], arguments: EvaluateArguments, label: str
) -> tuple[Decodings, dict[str, dict[str, float]]]:
    """Episodes of one model by decoding, "sampled" and "greedy", and how fast they were made (RolloutStats.rates)."""
    episodes, speed = {}, {}
    for decoding, samples, temperature, top_p in (
        ("sampled", arguments.samples, arguments.temperature, arguments.top_p),
        ("greedy", 1, 0.0, 1.0),
    ):
        episodes[decoding], stats = rollout(drawn, samples, temperature, progress=f"{label}, {decoding}", top_p=top_p)
        speed[decoding] = stats.rates(sum(int(e.sampled.sum()) for e in episodes[decoding] if e.finish == "answer"))
    return episodes, speed


def speed_line(label: str, decoding: str, rates: dict[str, float]) -> str:
    """How fast one model's replies were made, as one line."""
    return (
        f"{label}, {decoding}: {rates['tokens_per_second']:,.0f} tokens/s, "
        f"{rates['useful_tokens_per_second']:,.0f} of them in replies with an answer; "
        f"slots {rates['slots_busy']:.0%} busy, waiting for programs {rates['tool_wait_share']:.0%}; of the rest "
        f"prefill {rates['prefill_share']:.0%}, decode {1 - rates['prefill_share']:.0%}; "
        f"{rates['roofline_share']:.0%} of the roofline"
    )


def by_task(episodes: list[Episode]) -> dict[str, list[Episode]]:
    tasks: dict[str, list[Episode]] = {}
    for episode in episodes:
        tasks.setdefault(episode.problem.task, []).append(episode)
    return tasks


def figures(episodes: list[Episode]) -> dict:
    """Per task and overall; overall accuracy is the mean over tasks."""
    tasks = {name: summarise(group) for name, group in by_task(episodes).items()}
    overall = summarise(episodes)
    overall["accuracy"] = sum(task["accuracy"] for task in tasks.values()) / len(tasks)
    overall["interval"] = [*wilson(overall["accuracy"] * overall["problems"], overall["problems"])]
    return {"overall": overall, "tasks": tasks}


def table(results: dict[str, dict[str, dict]], decoding: str) -> str:
    """One decoding's accuracy with its 95 % interval per task and overall, and the use of code: a column per model.
    `results`: model -> decoding -> figures."""
    chosen = {model: decodings[decoding] for model, decodings in results.items()}
    names = next(iter(chosen.values()))["tasks"]
    width = max(18, *(len(model) + 2 for model in chosen))
    margin = max(24, *(len(name) + 2 for name in names))

    def accuracy(summary: dict) -> str:
        low, high = summary["interval"]
        return f"{summary['accuracy']:.3f} ({low:.2f}-{high:.2f})"

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:{margin}}" + "".join(f"{cell:>{width}}" for cell in cells)

    rule = "-" * (margin + width * len(chosen))
    return "\n".join(
        [
            row(decoding, chosen),
            rule,
            *(row(name, (accuracy(f["tasks"][name]) for f in chosen.values())) for name in names),
            rule,
            row("all tasks", (accuracy(f["overall"]) for f in chosen.values())),
            row("answers that used code", (f"{f['overall']['code_use']:.2f}" for f in chosen.values())),
            row("code runs per answer", (f"{f['overall']['code_runs']:.2f}" for f in chosen.values())),
        ]
    )


def telling(records: list[dict], count: int) -> list[dict]:
    """A few episode records worth reading, of different tasks where there are any: one that repaired a program, one
    that was right at once, one that went wrong in spite of its code."""
    wanted = [
        lambda r: r["correct"] and r["code_runs"] > 1,
        lambda r: r["correct"] and r["code_runs"] == 1,
        lambda r: not r["correct"] and r["code_runs"],
    ]
    left, chosen = list(records), []
    while left and len(chosen) < count:
        fits = wanted[len(chosen)] if len(chosen) < len(wanted) else lambda r: True
        shown = {r["task"] for r in chosen}
        # The first of the best: False sorts before True.
        best = min(left, key=lambda r: (not fits(r), r["task"] in shown))
        left = [r for r in left if r is not best]
        chosen.append(best)
    return chosen


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(EvaluateArguments, argv)
    state = start_processes()
    if state.num_processes > 1:
        raise UserError("evaluation runs in one process: start it with python")
    Run.check(arguments.out)
    check_sandbox(arguments.best_effort)
    models = {name.removeprefix("out/").removesuffix("/checkpoint"): name for name in arguments.model}
    if len(models) < len(arguments.model):
        models = {name: name for name in arguments.model}
    if not models:
        models = {label: name for label, name in EMBEDDED_STAGES.items() if Path(name).exists()}
    if not models:
        raise UserError("no --model given, and none of the embedded default's stages is here: python sft.py makes one")
    automatic = "bfloat16" if state.device.type == "cuda" else "float32"
    dtype = getattr(torch, automatic if arguments.dtype == "auto" else arguments.dtype)
    with user_input():
        if arguments.published:
            drawn = published_problems(arguments.tasks, Path(arguments.published), arguments.problems_per_task)
        else:
            drawn = draw_problems(arguments.tasks, arguments.split, arguments.problems_per_task)
        bundles = {label: load_bundle(name, dtype, state.device) for label, name in models.items()}
        for label, bundle in bundles.items():
            check_prompts(drawn, bundle, arguments.prompt_style, label)
    run = Run(arguments.out, arguments, result="evaluation.json")
    results: dict[str, dict[str, dict]] = {}
    speed: dict[str, dict[str, dict[str, float]]] = {}  # model -> decoding -> RolloutStats.rates
    records: dict[str, list[dict]] = {}  # of the last model, by decoding
    try:
        with arguments.executor() as executor:
            for label, bundle in bundles.items():
                fit_threads(bundle.model)
                rollout = Rollout(bundle, executor, arguments, arguments.seed)
                episodes, speed[label] = evaluate(rollout, drawn, arguments, label)
                results[label] = {decoding: figures(group) for decoding, group in episodes.items()}
                for decoding, group in episodes.items():
                    rows = records[decoding] = [episode.record(bundle.tokenizer) for episode in group]
                    run.append("episodes.jsonl", [{"model": label, "decoding": decoding, **row} for row in rows])
        whole = {"models": models, "results": results, "speed": speed}
        write_whole(run.folder / "evaluation.json", [json.dumps(whole, indent=1), "\n"])
    finally:  # what has been measured is shown, even if it could not be stored or the rest was cut short
        for decoding in results and episodes:
            print(table(results, decoding), end="\n\n", flush=True)
        for label, rates in speed.items():
            print("\n".join(speed_line(label, decoding, rates[decoding]) for decoding in rates), flush=True)
    count = results[label]["greedy"]["overall"]["problems"]
    kind = "published problems" if arguments.published else f"held-out problems ({arguments.split})"
    print(f"\n{count} {kind}; everything is in {run.folder}\n")
    for record in telling(records["sampled"], arguments.show):
        print(readable(record), end="\n\n")


if __name__ == "__main__":
    run_main(main)
