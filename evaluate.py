"""Held-out accuracy of checkpoints and of models behind an API, with intervals, votes, pass@k, and the use of code.

    python evaluate.py                                       base, warm start and GRPO of the embedded default
    python evaluate.py --model out/grpo/checkpoint --tasks gcd,lcm --problems_per_task 100 --samples 8
    torchrun --nproc-per-node 8 evaluate.py runs/rollout-qwen2.5.yaml --model yongchao98/R1-Code-Interpreter-14B \\
        --tasks test --temperature 0.6 --no_greedy --max_reply_tokens 8192
    python evaluate.py --api_model gpt-4o --tasks test --styles text,code,free --temperature 0.6 --no_greedy
    python evaluate.py --compare out/before out/after        what differs, and which problems flipped

Every model answers the same problems, which no training split contains. Accuracy is correctness alone, the mean of each
task and then over tasks. Intervals are 95 %: Wilson's (1927) over the problems of one task; of means over tasks, the
bootstrap over problems within tasks, and a wider one that draws the tasks anew too, each with Wilson's inside
(scores.py). The run folder holds every reply, stored as soon as its batch is done (episodes.jsonl), and all figures
(evaluation.json); `--resume` goes on after an interruption. Under torchrun the ranks share the problems, and the result
is that of one process.

Differs from the paper: sampling is at temperature 1, as in training (the paper evaluates at 0.6), beside greedy
decoding; answers are read by rule, and only `--judge MODEL` has a model look where the rules found none.
"""

import asyncio
import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from answering import Done, Mode, Remote, from_checkpoint, judged, key
from checkpoint import load_bundle, write_whole
from cli import Run, UserError, check_arguments, parse_arguments, read_records, run_main, user_input
from conversation import STYLES
from endpoint import Endpoint, check_key
from executor import Executor, check_sandbox
from model import resolve_model
from rollout import PROMPT_STYLES, Rollout, RolloutArguments, check_prompts
from scores import Record, compare, figures, readable
from suites.base import Problem
from tasks import INDEX_RANGES, SPLIT_FILE, TASKS, draw_problems, published_problems, read_split
from throughput import RolloutStats
from training import fit_threads, start_processes

DTYPES = ("auto", "float32", "bfloat16")
EMBEDDED_STAGES = {"base": "assets/tiny", "warm start": "out/sft/checkpoint", "GRPO": "out/grpo/checkpoint"}
# What --resume may set anew: the rest decides what is sampled.
MAY_CHANGE = (
    "resume", "show", "model", "api_model", "judge", "base_url", "concurrency", "request_timeout", "compare", "slots",
    "cache_gib", "best_effort",
)  # fmt: skip
PAPER = Path(__file__).resolve().parent / "suites/paper.json"


@dataclasses.dataclass
class EvaluateArguments(RolloutArguments):
    model: list[str] = dataclasses.field(
        default_factory=list, metadata={"help": "folders or hub names; none: the stages of the embedded default"}
    )
    api_model: list[str] = dataclasses.field(
        default_factory=list, metadata={"help": "models as an OpenAI-compatible endpoint calls them"}
    )
    base_url: str = dataclasses.field(default="", metadata={"help": "of the endpoint; empty: OpenAI's"})
    concurrency: int = dataclasses.field(default=16, metadata={"help": "calls at the same time"})
    request_timeout: float = dataclasses.field(default=120.0, metadata={"help": "seconds a call may take"})
    max_turn_tokens: int = dataclasses.field(default=2048, metadata={"help": "tokens of one message of an API model"})
    judge: str = dataclasses.field(
        default="", metadata={"help": "API model that looks for an answer where the rules find none; empty: nobody"}
    )
    compare: list[str] = dataclasses.field(
        default_factory=list, metadata={"help": "two folders of this script: compare them, and evaluate nothing"}
    )
    out: str = dataclasses.field(default="out/evaluation", metadata={"help": "run folder"})
    resume: bool = dataclasses.field(
        default=False, metadata={"help": "ask only what --out does not hold yet, of the same models and settings"}
    )
    tasks: str = dataclasses.field(
        default="embedded", metadata={"help": "names, suites, embedded, all, train, test, or a .jsonl file"}
    )
    split: str = dataclasses.field(default="test", metadata={"help": "dev while tuning, test for final figures"})
    problems_per_task: int = dataclasses.field(default=28, metadata={"help": "the first so many of the split"})
    published: str = dataclasses.field(
        default="", metadata={"help": "folder of the paper's data: ask its problems of symbench, none that we draw"}
    )
    styles: str = dataclasses.field(
        default="", metadata={"help": "ways of asking, such as text,code,free; empty: --prompt_style alone"}
    )
    samples: int = dataclasses.field(default=1, metadata={"help": "sampled replies per problem"})
    temperature: float = dataclasses.field(default=1.0, metadata={"help": "of the sampled replies"})
    greedy: bool = dataclasses.field(default=True, metadata={"help": "also one reply per problem at temperature 0"})
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
        if self.compare and len(self.compare) != 2:
            raise UserError("--compare takes two folders")
        known = dict.fromkeys((*PROMPT_STYLES, *(STYLES if self.api_model and not self.model else ())))
        for style in self.asked_in():
            if style and style not in known:
                raise UserError(f"unknown prompt style {style!r}: one of {', '.join(known)}")

    def asked_in(self) -> list[str]:
        """The prompt styles, "" for the model's own."""
        named = dict.fromkeys(name for part in self.styles.split(",") if (name := part.strip()))
        return [*named] or [self.prompt_style]

    def modes(self) -> list[Mode]:
        """All ways of asking. With a single style they are called "sampled" and "greedy"."""
        styles, found = self.asked_in(), []
        for style in styles:
            prefix = f"{style}, " if len(styles) > 1 else ""
            found.append(Mode(f"{prefix}sampled", style, self.samples, self.temperature, self.top_p))
            if self.greedy:
                found.append(Mode(f"{prefix}greedy", style, 1, 0.0))
        return found


# --------------------------------------------------------------------------------------------------------------------
# what is printed


def speed_line(label: str, decoding: str, rates: dict[str, float]) -> str:
    """How fast one model's replies were made, as one line."""
    return (
        f"{label}, {decoding}: {rates['tokens_per_second']:,.0f} tokens/s, "
        f"{rates['useful_tokens_per_second']:,.0f} of them in replies with an answer; "
        f"slots {rates['slots_busy']:.0%} busy, waiting for programs {rates['tool_wait_share']:.0%}; of the rest "
        f"prefill {rates['prefill_share']:.0%}, decode {1 - rates['prefill_share']:.0%}; "
        f"{rates['roofline_share']:.0%} of the roofline"
    )


SHARES = {
    "judged": "right, judge included",
    "majority": "right by majority vote",
    "answered": "gave an answer",
    "code_use": "used code",
    "code_runs": "programs per reply",
    "self_check": "checked a result by code",
    "tokens": "tokens per reply",
    "timeouts": "programs timed out",
    "sandbox_errors": "lost to the sandbox",
}


def table(results: dict[str, dict[str, dict]], decoding: str) -> str:
    """One decoding's accuracy with its 95 % interval per task, per group of tasks and overall, and how it came about: a
    column per model. `results`: model -> decoding -> figures."""
    chosen = {model: decodings[decoding] for model, decodings in results.items() if decoding in decodings}
    # Of all models: one that was interrupted has answered fewer tasks.
    names, groups = ([*dict.fromkeys(n for f in chosen.values() for n in f[part])] for part in ("tasks", "groups"))
    width = max(18, *(len(model) + 2 for model in chosen))
    margin = max(28, *(len(name) + 2 for name in names))
    overall = [f["overall"] for f in chosen.values()]
    passes = sorted({n for f in overall for n in f if n.startswith("pass@")}, key=lambda n: int(n.split("@")[1]))

    def accuracy(summary: dict | None, interval: str = "interval") -> str:
        if summary is None:
            return ""
        low, high = summary[interval]
        return f"{summary['accuracy']:.3f} ({low:.2f}-{high:.2f})"

    def row(name: str, cells: Iterable[str]) -> str:
        return f"{name:{margin}}" + "".join(f"{cell:>{width}}" for cell in cells)

    def figure(name: str, f: dict) -> str:
        return "" if name not in f else f"{f[name]:.0f}" if name == "tokens" else f"{f[name]:.2f}"

    rule = "-" * (margin + width * len(chosen))
    return "\n".join(
        [
            row(decoding, chosen),
            rule,
            *(row(name, (accuracy(f["tasks"].get(name)) for f in chosen.values())) for name in names),
            rule,
            *(row(name, (accuracy(f["groups"].get(name)) for f in chosen.values())) for name in groups),
            row("all tasks", map(accuracy, overall)),
            *([row("  as if of other tasks", (accuracy(f, "interval_tasks") for f in overall))] if names[1:] else []),
            *(row(name, (figure(name, f) for f in overall)) for name in passes),
            *(
                row(text, (figure(name, f) for f in overall))
                for name, text in SHARES.items()
                if any(name in f for f in overall)
            ),
        ]
    )


def paper_table() -> str:
    """The paper's results, and what of them may be compared with ours."""
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    lines = [f"{row['setting']:46}{row['accuracy']:>8.1f}" for row in paper["rows"]]
    return "\n".join([paper["what"], *lines, paper["comparable"]])


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


# --------------------------------------------------------------------------------------------------------------------
# two evaluations


def read_evaluation(folder: str) -> dict[tuple[str, str], list[Record]]:
    """The replies of a run folder by model and decoding. UserError if it is none."""
    path = Path(folder) / "episodes.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} has no episodes.jsonl: it is no run folder of evaluate.py")
    found: dict[tuple[str, str], list[Record]] = {}
    for record in read_records(path):
        if "decoding" not in record:
            raise UserError(f"{path} was not written by evaluate.py: it does not say how its replies were decoded")
        found.setdefault((record["model"], record["decoding"]), []).append(record)
    return found


def comparison(before: str, after: str) -> str:
    """The last model of one folder against the last of the other, decoding by decoding, as text."""
    one, other = read_evaluation(before), read_evaluation(after)
    ends = [list(found)[-1][0] for found in (one, other)]
    shared = [d for model, d in one if model == ends[0] and (ends[1], d) in other]
    if not shared:
        raise UserError(f"{before} and {after} have no decoding in common: {[*one]} and {[*other]}")
    parts = []
    for decoding in shared:
        found = compare(one[ends[0], decoding], other[ends[1], decoding])
        if not found["problems"]:
            raise UserError(f"{before} and {after} have no problem in common")
        width = max(28, *(len(name) + 2 for name in found["tasks"]))
        lines = [f"{decoding}: {ends[0]} ({before}) -> {ends[1]} ({after})"]
        lines.append(f"{'':{width}}{'before':>8}{'after':>8}{'difference':>12}   95 % interval")

        def line(name: str, f: dict, before: float, after: float, width: int = width) -> str:
            low, high = f["interval"]
            sure = "  *" if low > 0 or high < 0 else ""
            return f"{name:{width}}{before:8.3f}{after:8.3f}{f['difference']:+12.3f}   {low:+.3f} to {high:+.3f}{sure}"

        tasks = found["tasks"].values()
        lines += [line(name, f, f["before"], f["after"]) for name, f in found["tasks"].items()]
        means = (sum(f[end] for f in tasks) / len(tasks) for end in ("before", "after"))
        lines.append(line("all tasks", found, *means))
        won, lost = found["won"], found["lost"]
        lines.append(
            f"{found['problems']} problems in common, {found['left_out']} in one alone; {len(won)} became right, "
            f"{len(lost)} wrong (sign test: p = {found['p']:.3g})"
        )
        for what, problems in (("became right", won), ("became wrong", lost)):
            if problems:
                lines.append(f"{what}: " + ", ".join(f"{task} #{index}" for task, index in problems))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


# --------------------------------------------------------------------------------------------------------------------
# the script


def groups_of(names: Sequence[str]) -> dict[str, list[str]]:
    """The groups of these tasks that are more than one and fewer than all: suites, and the two parts of the split."""
    suites: dict[str, list[str]] = {}
    for name in names:
        if (task := TASKS.get(name.split("@")[0])) is not None:
            suites.setdefault(f"suite {task.suite}", []).append(name)
    parts = {
        f"{part} tasks": [name for name in names if name in set(of)] for part, of in read_split(SPLIT_FILE).items()
    }
    return {group: members for group, members in (suites | parts).items() if 0 < len(members) < len(names)}


def weights_of(name: str) -> str:
    """What tells a folder's weights from those that lay there before."""
    files = sorted(resolve_model(name).glob("*.safetensors"))
    return ", ".join(f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files)


def named(arguments: EvaluateArguments) -> dict[str, str]:
    """The checkpoints by the names that they go by in tables."""
    models = {name.removeprefix("out/").removesuffix("/checkpoint"): name for name in arguments.model}
    if len(models) < len(arguments.model) or models.keys() & {*arguments.api_model}:
        models = {name: name for name in arguments.model}
    if both := models.keys() & {*arguments.api_model}:
        raise UserError(f"{min(both)} is a --model and an --api_model: their replies would be one column")
    if not models and not arguments.api_model:
        models = {label: name for label, name in EMBEDDED_STAGES.items() if Path(name).exists()}
        if not models:
            raise UserError(
                "no --model given, and none of the embedded default's stages is here: python sft.py makes one"
            )
    return models


def check_models(
    models: dict[str, str], drawn: list[Problem], arguments: EvaluateArguments, dtype: torch.dtype
) -> None:
    """ValueError or the like if one of the checkpoints cannot be loaded or asked: to be known before the first one has
    answered for hours. One after the other, for they may be large."""
    for label, name in models.items():
        bundle = load_bundle(name, dtype)
        for style in arguments.asked_in():
            check_prompts(drawn, bundle, style, label)


class Evaluation:
    """A run folder that fills with replies."""

    def __init__(self, arguments: EvaluateArguments, models: dict[str, str], drawn: list[Problem]):
        self.arguments, self.models, self.drawn = arguments, models, drawn
        self.problems = {(problem.task, problem.index): problem for problem in drawn}
        self.modes = arguments.modes()
        self.run = Run(
            arguments.out, arguments, result="evaluation.json", goes_on=MAY_CHANGE if arguments.resume else ()
        )
        self.records: list[Record] = []
        self.speed: dict[str, dict[str, dict[str, float]]] = {}  # model -> decoding -> RolloutStats.rates
        known, before = {label: weights_of(name) for label, name in models.items()}, {}
        path = self.run.folder / "models.json"
        if arguments.resume and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            if other := [label for label, weights in known.items() if before.get(label, weights) != weights]:
                raise UserError(
                    f"{', '.join(other)} is no longer what {self.run.folder} was begun with: leave --resume"
                )
        PartialState().wait_for_everyone()  # all have looked before anybody writes
        if self.run.main:
            write_whole(path, [json.dumps(before | known, indent=1), "\n"])
        labels = {*models, *arguments.api_model}
        self.records = [r for r in self.stored("episodes.jsonl") if r["model"] in labels]
        self.done: Done = {key(record) for record in self.records}

    def stored(self, name: str) -> list[Record]:
        """What an earlier part of a resumed evaluation has left; read by the main process before others may."""
        if not self.arguments.resume:
            return []
        if self.run.main:
            read_records(self.run.folder / name)  # cuts off what a killed process has left of a line
        PartialState().wait_for_everyone()
        return read_records(self.run.folder / name)

    def keep(self, records: list[Record]) -> None:
        """Remembers replies and stores them, on the main process, but for those of a batch that were there already."""
        if self.run.main:
            records = [record for record in records if key(record) not in self.done]
            self.done.update(map(key, records))
            self.records += records  # first: what cannot be stored is shown all the same
            self.run.append("episodes.jsonl", records)

    def ask_checkpoint(self, label: str, name: str, executor: Executor, dtype: torch.dtype) -> None:
        """Has a checkpoint answer what is missing."""
        device = PartialState().device
        bundle = load_bundle(name, dtype, device)
        fit_threads(bundle.model)
        for mode in self.modes:
            settings = dataclasses.replace(self.arguments, prompt_style=mode.style)
            rollout = Rollout(bundle, executor, settings, self.arguments.seed)
            total, answered = RolloutStats(), 0
            for records, stats in from_checkpoint(rollout, label, mode, self.drawn, self.done, self.run.main):
                self.keep(records)
                total += stats
                answered += sum(record["sampled_tokens"] for record in records if record["finish"] == "answer")
            if total.seconds:
                self.speed.setdefault(label, {})[mode.name] = total.rates(answered)

    async def ask_api(self, executor: Executor) -> None:
        """Has the models behind the endpoint answer what is missing."""
        arguments = self.arguments
        endpoint = Endpoint(arguments.base_url, arguments.concurrency, arguments.request_timeout)
        try:
            for label in dict.fromkeys(arguments.api_model):
                remote = Remote(label, endpoint, executor, arguments.max_code_runs, arguments.max_turn_tokens)
                for mode in self.modes:
                    mode = mode._replace(style=mode.style or "free")
                    async for record in remote.replies(mode, self.drawn, self.done, arguments.concurrency, True):
                        self.keep([record])
                used = remote.usage
                print(
                    f"{label}: {used.calls:,} calls, {used.retries:,} of them again, {used.prompt_tokens:,} tokens "
                    f"asked, {used.completion_tokens:,} answered"
                )
        finally:
            await endpoint.close()

    async def ask_judge(self, executor: Executor) -> None:
        """Has the judge look at the replies in which the rules found no answer, and marks every reply as `judged`."""
        arguments = self.arguments
        stored = read_records(self.run.folder / "judged.jsonl") if arguments.resume else []
        verdicts = {key(r): r for r in stored if r["judge"] == arguments.judge}
        endpoint = Endpoint(arguments.base_url, arguments.concurrency, arguments.request_timeout)
        silent = (r for r in self.records if r["answer"] is None and (r["task"], r["index"]) in self.problems)
        left = [r for r in silent if key(r) not in verdicts]
        try:
            async for found in judged(left, self.problems, arguments.judge, endpoint, executor, True):
                self.run.append("judged.jsonl", [found])
                verdicts[key(found)] = found
        finally:
            await endpoint.close()
        for record in self.records:
            record["judged"] = record["correct"] or verdicts.get(key(record), {}).get("judged", False)

    def results(self) -> dict[str, dict[str, dict]]:
        """Figures by model and decoding, of what is there."""
        by: dict[tuple[str, str], list[Record]] = {}
        place = {problem: number for number, problem in enumerate(self.problems)}
        asked = [r for r in self.records if (r["task"], r["index"]) in place]
        # Those of an API come in the order in which they were done.
        for record in sorted(asked, key=lambda r: (place[r["task"], r["index"]], r["sample"])):
            by.setdefault((record["model"], record["decoding"]), []).append(record)
        groups = groups_of(list(dict.fromkeys(problem.task for problem in self.drawn)))
        found: dict[str, dict[str, dict]] = {}
        for label in (*self.models, *self.arguments.api_model):
            for mode in self.modes:
                if records := by.get((label, mode.name)):
                    found.setdefault(label, {})[mode.name] = figures(records, groups)
        return found

    def report(self, complete: bool) -> None:
        """Prints the tables of what is there and, if that is all, stores the figures; on the main process."""
        results = self.results()
        try:
            if complete:
                whole = {
                    "models": self.models | {name: name for name in self.arguments.api_model},
                    "results": results,
                    "speed": self.speed,
                }
                write_whole(self.run.folder / "evaluation.json", [json.dumps(whole, indent=1), "\n"])
        finally:  # what has been measured is shown, even if it could not be stored
            for mode in self.modes:
                if any(mode.name in decodings for decodings in results.values()):
                    print(table(results, mode.name), end="\n\n", flush=True)
            for label, rates in self.speed.items():
                print("\n".join(speed_line(label, decoding, rates[decoding]) for decoding in rates), flush=True)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(EvaluateArguments, argv)
    if arguments.compare:
        print(comparison(*arguments.compare))
        return
    state = start_processes()
    if arguments.api_model and state.num_processes > 1:
        raise UserError("an API model is asked by one process: start it with python")
    if arguments.api_model or arguments.judge:
        check_key(arguments.base_url)
    Run.check(arguments.out)
    check_sandbox(arguments.best_effort)
    models = named(arguments)
    automatic = "bfloat16" if state.device.type == "cuda" else "float32"
    dtype = getattr(torch, automatic if arguments.dtype == "auto" else arguments.dtype)
    with user_input():
        if arguments.published:
            drawn = published_problems(arguments.tasks, Path(arguments.published), arguments.problems_per_task)
        else:
            drawn = draw_problems(arguments.tasks, arguments.split, arguments.problems_per_task)
        check_models(models, drawn, arguments, dtype)
    evaluation, complete = Evaluation(arguments, models, drawn), False
    try:
        with arguments.executor() as executor:
            for label, name in models.items():
                evaluation.ask_checkpoint(label, name, executor, dtype)
            if arguments.api_model:
                asyncio.run(evaluation.ask_api(executor))
            if arguments.judge and evaluation.run.main:
                asyncio.run(evaluation.ask_judge(executor))
        complete = True
    finally:
        if evaluation.run.main and evaluation.records:
            evaluation.report(complete)
    if not evaluation.run.main:
        return
    kind = "published problems" if arguments.published else f"held-out problems ({arguments.split})"
    print(f"\n{len(drawn)} {kind}; everything is in {evaluation.run.folder}\n")
    if {problem.task for problem in drawn} >= {*read_split(SPLIT_FILE)["test"]}:
        print(paper_table(), end="\n\n")
    last, first = evaluation.records[-1]["model"], evaluation.modes[0].name
    chosen = [r for r in evaluation.records if (r["model"], r["decoding"]) == (last, first)]
    for record in telling(chosen, arguments.show):
        print(readable(record), end="\n\n")


if __name__ == "__main__":
    run_main(main)
