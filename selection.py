"""Of what a teacher has answered: what is worth learning from, and what there is, as a table and a picture."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from endpoint import Usage

SIMILAR = 0.9  # share of common word sequences from which on two replies to one question are the same
SHINGLE = 4  # words in a sequence


def repaired(record: dict[str, Any]) -> bool:
    """A program failed, and a later one ran."""
    statuses = record["statuses"]
    return any(status != "ok" and "ok" in statuses[place:] for place, status in enumerate(statuses))


def switched(record: dict[str, Any]) -> bool:
    """A turn in text, then one with a program."""
    turns = record["turns"]
    return "text" in turns and "code" in turns[turns.index("text") :]


def shingles(record: dict[str, Any]) -> set[tuple[str, ...]]:
    """The sequences of words in what the model wrote."""
    text = " ".join(segment["text"] for segment in record["segments"] if segment["source"] == "model")
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))}


def usable(records: Sequence[dict[str, Any]], keep_wrong: bool) -> list[dict[str, Any]]:
    """Those that may be kept: right (or `keep_wrong`), ended by an answer, not much the same as an earlier one for the
    same question, and, where the teacher was guided, silent about hints that the student will not have."""
    found, seen = [], {}
    for record in records:
        if record["finish"] != "answer" or not (record["correct"] or keep_wrong):
            continue
        if record["style"] == "guided" and "hint" in json.dumps(record["segments"][1:]).lower():
            continue
        mine, others = shingles(record), seen.setdefault((record["task"], record["index"]), [])
        if all(len(mine & other) < SIMILAR * len(mine | other) for other in others):
            others.append(mine)
            found.append(record)
    return found


def select(
    records: Sequence[dict[str, Any]], per_task: int, multi_turn_weight: float, keep_wrong: bool, seed: int
) -> list[dict[str, Any]]:
    """At most `per_task` of each task: weighted sampling without replacement (Efraimidis and Spirakis, 2006). Neither
    the order of the records nor other tasks matter."""
    keyed = []
    for record in usable(sorted(records, key=lambda record: record["key"]), keep_wrong):
        weight = multi_turn_weight if repaired(record) or switched(record) else 1.0
        draw = random.Random(f"{seed} {record['key']}").random()
        keyed.append((draw ** (1 / weight) if weight > 0 else -1.0, record))
    kept, counts = [], Counter()
    for _, record in sorted(keyed, key=lambda pair: (-pair[0], pair[1]["key"])):
        if counts[record["task"]] < per_task:
            counts[record["task"]] += 1
            kept.append(record)
    return sorted(kept, key=lambda record: record["key"])


def summary(records: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]], usage: Usage, dollars: float) -> str:
    """A table, a row per task: how many were asked, right and kept; of those kept, the shares by what they show."""
    lines = [f"{'task':36} {'asked':>6} {'right':>6} {'kept':>5} {'code':>5} {'repair':>7} {'switch':>7} {'turns':>6}"]
    names = sorted({record["task"] for record in records})
    for name in [*names, "all"]:
        mine = [record for record in records if name in ("all", record["task"])]
        stay = [record for record in kept if name in ("all", record["task"])]
        count = max(1, len(stay))
        code = sum(bool(record["statuses"]) for record in stay) / count
        shares = f"{code:5.2f} {sum(map(repaired, stay)) / count:7.2f} {sum(map(switched, stay)) / count:7.2f}"
        turns = sum(len(record["turns"]) for record in stay) / count
        right = sum(record["correct"] for record in mine)
        lines.append(f"{name:36} {len(mine):6} {right:6} {len(stay):5} {shares} {turns:6.1f}")
    lines.append(
        f"\n{usage.calls:,} calls, {usage.retries:,} made again, {usage.prompt_tokens:,} tokens of prompts and "
        f"{usage.completion_tokens:,} of replies" + (f", {dollars:,.2f} dollars" if dollars else "")
    )
    return "\n".join(lines)


def picture(records: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]], path: Path) -> None:
    """A bar per task: kept in one turn, kept in several, right but not kept."""
    from matplotlib.figure import Figure

    names = sorted({record["task"] for record in records}, reverse=True)
    figure = Figure(figsize=(7, 1 + 0.16 * len(names)), layout="constrained")
    axes, left = figure.subplots(), Counter()
    right = Counter(record["task"] for record in records if record["correct"])
    one = Counter(record["task"] for record in kept if len(record["turns"]) == 1)
    several = Counter(record["task"] for record in kept if len(record["turns"]) > 1)
    rest = right - one - several
    for label, counts in (("kept, one turn", one), ("kept, several turns", several), ("right, not kept", rest)):
        axes.barh(names, [counts[name] for name in names], left=[left[name] for name in names], label=label, height=0.8)
        left += counts
    axes.set(xlabel="trajectories", ylim=(-1, len(names)))
    axes.tick_params(axis="y", labelsize=6)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})
