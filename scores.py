"""What stored replies amount to: accuracy with intervals, pass@k, majority votes, and how the interpreter was used.

Everything is computed from records as evaluate.py stores them, a dict per reply; nothing here samples or judges.
Accuracy of several tasks is the mean over a task's replies, then over tasks, as in the paper.
"""

import ast
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tasks import PYTHON_FENCES, spans

Record = dict[str, Any]
RESAMPLES = 2000
Interval = tuple[float, float]


# --------------------------------------------------------------------------------------------------------------------
# statistics


def wilson(right: float, count: int) -> Interval:
    """The 95 % interval of a share of `right` in `count` independent trials (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    z, share = 1.959964, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of `k` replies is right, unbiased, from `samples` >= k of which `right` were (Chen
    et al., 2021, equation 1)."""
    if samples - right < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / n for n in range(samples - right + 1, samples + 1))


def bootstrap(tasks: Sequence[Sequence[float]], seed: int = 0, resample_tasks: bool = False) -> Interval:
    """The 95 % percentile interval of the mean over tasks of the mean over problems; a value for each problem of each
    task. Problems are drawn anew within their task (Efron, 1979); with `resample_tasks`, the tasks before them: what
    other tasks of the kind would give (the two-stage bootstrap of clustered data, Davison and Hinkley, 1997, 3.8)."""
    draw, values = np.random.default_rng(seed), [np.asarray(task, dtype=float) for task in tasks]
    means = np.zeros(RESAMPLES)
    for place in range(len(values)):
        chosen = draw.integers(len(values), size=RESAMPLES) if resample_tasks else np.full(RESAMPLES, place)
        for task in np.unique(chosen):
            rows = np.flatnonzero(chosen == task)
            problems = draw.integers(len(values[task]), size=(len(rows), len(values[task])))
            means[rows] += values[task][problems].mean(1) / len(values)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def hull(one: Interval, other: Interval) -> Interval:
    """The least interval with both inside."""
    return min(one[0], other[0]), max(one[1], other[1])


def mean_interval(tasks: Sequence[Sequence[float]], seed: int = 0, resample_tasks: bool = False) -> Interval:
    """The 95 % interval of a mean over tasks of shares: the bootstrap's, and Wilson's over all problems besides, since
    the bootstrap of problems that are nearly all right, or all wrong, has no width."""
    shares = [statistics.fmean(task) for task in tasks]
    count = sum(map(len, tasks))
    low, high = hull(bootstrap(tasks, seed, resample_tasks), wilson(statistics.fmean(shares) * count, count))
    return max(0.0, low), min(1.0, high)


def difference_interval(tasks: Sequence[Sequence[float]], seed: int = 0) -> Interval:
    """The same for a mean of paired differences, with the interval of Agresti and Min (2005) over all pairs, which adds
    half a pair to each outcome, in Wilson's place."""
    pairs = [difference for task in tasks for difference in task]
    count = len(pairs) + 2
    mean = sum(pairs) / count
    half = 1.959964 * math.sqrt(((sum(d * d for d in pairs) + 1) / count - mean * mean) / count)
    low, high = hull(bootstrap(tasks, seed), (mean - half, mean + half))
    return max(-1.0, low), min(1.0, high)


def sign_test(won: int, lost: int) -> float:
    """The two-sided p-value of so many problems won and lost if either were as likely: the exact form of McNemar's test
    (1947)."""
    count, least = won + lost, min(won, lost)
    return min(1.0, 2 * sum(math.comb(count, i) for i in range(least + 1)) / 2**count)


# --------------------------------------------------------------------------------------------------------------------
# replies


def programs(record: Record) -> list[tuple[str, str]]:
    """The programs of a reply that were run, each with what its observation says."""
    found, code = [], ""
    for segment in record["segments"]:
        if segment["source"] == "model":
            fences = [s for s in spans(segment["text"]) if s.kind == "fence" and s.language in PYTHON_FENCES]
            code = fences[-1].code(segment["text"]) if fences else ""
        elif segment["source"] == "observation" and code:
            found.append((code, segment["text"].strip()))
            code = ""
    return found[: len(record["statuses"])]


def checks_itself(record: Record) -> bool:
    """Whether a later program verifies what an earlier one has printed. The rule: it ran without an error, and either
    asserts something, or compares with a literal that an earlier program printed as a whole line, or is another program
    than an earlier one that ran and prints the same last line."""
    earlier: list[tuple[str, list[str]]] = []
    for (code, observed), status in zip(programs(record), record["statuses"], strict=False):
        lines = [line.strip() for line in observed.splitlines()[1:]]  # behind "Code Execution Results:"
        if status != "ok":
            continue
        if earlier and _verifies(code, {line for _, printed in earlier for line in printed}):
            return True
        again = any(code.split() != other.split() and lines[-1:] == printed[-1:] for other, printed in earlier)
        if again and lines and lines[-1] != "(no output)":
            return True
        earlier.append((code, lines))
    return False


def _verifies(code: str, printed: set[str]) -> bool:
    try:
        nodes = list(ast.walk(ast.parse(code)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if any(isinstance(node, ast.Assert) for node in nodes):
        return True
    compared = [side for node in nodes if isinstance(node, ast.Compare) for side in (node.left, *node.comparators)]
    return any(isinstance(side, ast.Constant) and str(side.value) in printed for side in compared)


def by_problem(records: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
    """Replies by task and index, in the order of their problems."""
    found: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        found[record["task"], record["index"]].append(record)
    return dict(found)


def majority_is_right(replies: Sequence[Record]) -> bool:
    """Whether the answer that most replies to one problem give is right (self-consistency, Wang et al., 2023). Answers
    are alike if they are so without regard to case and white space; of equally frequent ones, the first counts."""
    answered = [(" ".join(str(r["answer"]).split()).casefold(), r) for r in replies if r["answer"] is not None]
    if not answered:
        return False
    counts = Counter(text for text, _ in answered)
    most = max(counts, key=lambda text: counts[text])  # dicts keep their order: the first of equals
    return next(bool(record["correct"]) for text, record in answered if text == most)


def readable(record: dict[str, Any]) -> str:
    """An episode record as a person would read it."""
    verdict = "right" if record["correct"] else f"wrong (the answer is {record['reference']})"
    lines = [f"--- {record['task']} #{record['index']}, step {record['step']}", record["question"].strip(), ""]
    lines += [segment["text"].strip("\n") for segment in record["segments"] if segment["source"] != "prompt"]
    return "\n".join([*lines, "", f"answer: {record['answer']}   {verdict}   finish: {record['finish']}"])


# --------------------------------------------------------------------------------------------------------------------
# figures


def share(records: Sequence[Record], holds: Callable[[Record], bool]) -> float:
    return sum(map(holds, records)) / len(records)


def of_task(records: Sequence[Record]) -> dict[str, Any]:
    """The figures of one task's replies. `interval` is Wilson's over problems: several replies to one are not
    independent, and the bootstrap of a task whose replies are all right has no width."""
    problems = by_problem(records).values()
    means = [share(replies, lambda r: r["correct"]) for replies in problems]
    least = min(map(len, problems))
    ran = [status for record in records for status in record["statuses"]]
    figures = {
        "accuracy": statistics.fmean(means),
        "interval": [*wilson(sum(means), len(means))],
        "problems": len(means),
        "samples": least,
        "code_use": share(records, lambda r: r["code_runs"] > 0),
        "code_runs": statistics.fmean(r["code_runs"] for r in records),
        "self_check": share(records, checks_itself),
        "answered": share(records, lambda r: r["answer"] is not None),
        "tokens": statistics.fmean(r["sampled_tokens"] for r in records),
        "timeouts": ran.count("timeout") / len(ran) if ran else 0.0,
        "sandbox_errors": share(records, lambda r: r["finish"] == "sandbox_error"),
    }
    if least > 1:
        figures["majority"] = statistics.fmean(map(majority_is_right, problems))
        powers = [2**i for i in range(1, least.bit_length()) if 2**i <= least]
        for k in sorted({*powers, least}):
            counts = [(len(replies), sum(bool(r["correct"]) for r in replies)) for replies in problems]
            figures[f"pass@{k}"] = statistics.fmean(pass_at_k(n, right, k) for n, right in counts)
    if all("judged" in record for record in records):
        figures["judged"] = statistics.fmean(share(replies, lambda r: r["judged"]) for replies in problems)
    return figures


def of_tasks(records: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """The figures of several tasks: each the mean over tasks. `interval` holds the tasks fixed; `interval_tasks` asks
    what other tasks of the kind would have given."""
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        tasks[record["task"]].append(record)
    single = [of_task(replies) for replies in tasks.values()]
    figures = {
        name: statistics.fmean(task[name] for task in single)
        for name in single[0]
        if name not in ("interval", "problems", "samples") and all(name in task for task in single)
    }
    values = [[share(replies, lambda r: r["correct"]) for replies in by_problem(of).values()] for of in tasks.values()]
    figures["interval"] = [*mean_interval(values, seed)]
    figures["interval_tasks"] = [*mean_interval(values, seed, resample_tasks=True)]
    figures["tasks"], figures["problems"] = len(single), sum(task["problems"] for task in single)
    figures["samples"] = min(task["samples"] for task in single)
    return figures


def figures(records: Sequence[Record], groups: dict[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Per task, overall, and for named groups of tasks, such as suites."""
    tasks: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        tasks[record["task"]].append(record)
    found = {
        name: of_tasks(chosen)
        for name, members in (groups or {}).items()
        if (chosen := [record for record in records if record["task"] in members])
    }
    return {
        "overall": of_tasks(records), "groups": found, "tasks": {name: of_task(of) for name, of in tasks.items()}
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------------------
# two against each other


def compare(one: Sequence[Record], other: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """`other` minus `one`, on the problems that both have answered: differences per task and of their mean, with paired
    bootstrap intervals (problems drawn anew within tasks), which problems flipped (more than half of the replies right
    in one and not in the other), and the sign test over these."""
    first, second = by_problem(one), by_problem(other)
    pairs: dict[str, list[tuple[int, float, float]]] = defaultdict(list)
    for problem, replies in first.items():
        if problem in second:
            both = (share(of, lambda r: r["correct"]) for of in (replies, second[problem]))
            pairs[problem[0]].append((problem[1], *both))
    differences = {task: [after - before for _, before, after in rows] for task, rows in pairs.items()}
    flips = {
        kind: [(task, index) for task, rows in pairs.items() for index, before, after in rows if test(before, after)]
        for kind, test in {
            "won": lambda before, after: before <= 0.5 < after,
            "lost": lambda before, after: after <= 0.5 < before,
        }.items()
    }
    return {
        "problems": sum(map(len, pairs.values())),
        "left_out": len(first.keys() ^ second.keys()),
        "difference": statistics.fmean(map(statistics.fmean, differences.values())) if differences else 0.0,
        "interval": [*difference_interval([*differences.values()], seed)] if differences else [-1.0, 1.0],
        "tasks": {
            task: {
                "before": statistics.fmean(before for _, before, _ in rows),
                "after": statistics.fmean(after for _, _, after in rows),
                "difference": statistics.fmean(differences[task]),
                "interval": [*difference_interval([differences[task]], seed)],
                "problems": len(rows),
            }
            for task, rows in pairs.items()
        },
        **flips,
        "p": sign_test(len(flips["won"]), len(flips["lost"])),
    }
