"""A page to read episodes in: filters, siblings side by side, tokens in the colours of what training knows of them.

    python browse.py                                    the episodes of out/grpo -> out/episodes.html
    python browse.py out/evaluation --out replies.html  those of an evaluation, by model
    python browse.py out/a out/b --steps 0,19           several runs on one page, two steps of each

One file that loads nothing. It shows at most `--most` episodes: all groups of as many steps, evenly chosen, as fit. The
same files give the same page, to the byte. What models wrote is data to the page's script, and never becomes markup.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cli import UserError, run_main
from report import AS_WRITTEN, read_lines, template, write_atomically
from tasks import spans

MOST = 2000


def pieces(record: dict[str, Any]) -> list[list[Any]]:
    """What a reply consists of: [kind, text, detail]. The detail of "text" and "code" is a flat list of bytes and
    log-prob of each token, empty where it is not stored; of "observation", how the program ended."""
    statuses, found = iter(record["statuses"]), []
    details = iter(record.get("token_logprobs", []))
    for segment in record["segments"]:
        text = str(segment["text"])
        if segment["source"] == "observation":
            found.append(["observation", text.strip("\n"), next(statuses, "not run")])
        elif segment["source"] == "model":
            tokens = next(details, [])
            for span in spans(text):
                kind = "code" if span.kind == "fence" else "text"
                found.append([kind, text[span.start : span.end], within(tokens, text, span.start, span.end)])
    return found


def within(tokens: list[float], text: str, start: int, end: int) -> list[float]:
    """The part of a flat list of sizes and log-probs that lies within text[start:end]; a token that goes beyond an edge
    is cut there."""
    if not tokens:
        return []
    first, last = (len(text[:at].encode("utf-8", "replace")) for at in (start, end))
    kept, at = [], 0
    for size, logprob in zip(tokens[::2], tokens[1::2], strict=True):
        inside = min(at + size, last) - max(at, first)
        if inside > 0:
            kept += [inside, logprob]
        at += size
    return kept


def read_run(folder: Path, steps: list[int] | None, notes: list[str]) -> dict[tuple, list[dict[str, Any]]]:
    """The episodes of a run folder in groups, by (step, group, model)."""
    path = folder / "episodes.jsonl"
    if not path.is_file():
        raise UserError(f"there is no {path}: it is no run folder, or its run never finished a step")
    groups: dict[tuple, list[dict[str, Any]]] = defaultdict(list)

    def parse(raw: dict) -> None:
        if steps is not None and raw["step"] not in steps:
            return
        how = ", ".join(str(raw[key]) for key in ("model", "decoding") if key in raw)
        groups[int(raw["step"]), int(raw["group"]), how].append(
            {
                "id": int(raw["id"]),
                "right": bool(raw["correct"]),
                "finish": str(raw["finish"]),
                "answer": raw["answer"],
                "reward": float(raw["reward"]),
                "advantage": float(raw["advantage"]),
                "runs": int(raw["code_runs"]),
                "tokens": int(raw["sampled_tokens"]),
                "pieces": pieces(raw),
                "asked": {key: raw[key] for key in ("task", "index", "question", "reference")},
            }
        )

    read_lines(path, parse, notes)
    if not groups:
        raise UserError(f"{path} holds no episodes" + (f" of the steps {steps}" if steps is not None else ""))
    return groups


def chosen(groups: dict[tuple, list], most: int) -> list[tuple]:
    """The keys of the groups that are shown: all of as many steps, evenly spread, as hold at most `most` episodes; of a
    single step that holds more, the first groups."""
    sizes: dict[int, int] = defaultdict(int)
    for step, group, how in groups:
        sizes[step] += len(groups[step, group, how])
    steps = sorted(sizes)
    count = len(steps)
    while count > 1 and sum(sizes[step] for step in spread(steps, count)) > most:
        count -= 1
    kept, total = [], 0
    for key in sorted(key for key in groups if key[0] in set(spread(steps, count))):
        total += len(groups[key])
        if kept and total > most:
            break
        kept.append(key)
    return kept


def spread(steps: list[int], count: int) -> list[int]:
    """`count` of the steps, first and last among them."""
    if count == 1:
        return steps[-1:]
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def page(runs: list[Path], steps: list[int] | None = None, most: int = MOST) -> str:
    """The HTML."""
    notes: list[str] = []
    found = []
    for run in runs:
        groups = read_run(run, steps, notes)
        keys = chosen(groups, most // len(runs))
        if len(keys) < len(groups):
            number, all_of = len({key[0] for key in keys}), len({key[0] for key in groups})
            what = f"{number} of {all_of} steps" if number < all_of else f"{len(keys)} of {len(groups)} groups"
            notes.append(f"{run}: {what} are shown; --steps chooses others, --most raises the limit.")
        for step, group, how in keys:
            members = sorted(groups[step, group, how], key=lambda episode: episode["id"])
            asked = members[0]["asked"]
            shown = [{k: v for k, v in episode.items() if k != "asked"} for episode in members]
            found.append({"run": str(run), "step": step, "group": group, "how": how, **asked, "episodes": shown})
    # "<" would be able to end the element that the data lie in.
    data = json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    count = sum(len(group["episodes"]) for group in found)
    return template("browse.html.j2").render(runs=runs, notes=notes, count=count, groups=len(found), data=Markup(data))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="folders of grpo.py or evaluate.py (out/grpo)")
    parser.add_argument("--steps", help="whose episodes to show, such as 0,9,19 (evenly chosen)")
    parser.add_argument("--most", type=int, default=MOST, help="episodes on the page, at most")
    parser.add_argument("--out", default="out/episodes.html", type=Path, help="the page (out/episodes.html)")
    arguments = parser.parse_args(argv)
    try:
        steps = [int(step) for step in arguments.steps.split(",")] if arguments.steps is not None else None
    except ValueError:
        raise UserError(f"--steps takes numbers such as 0,9,19, not {arguments.steps!r}") from None
    if arguments.most < 1:
        raise UserError("--most must be at least 1")
    try:
        text = page(arguments.runs or [Path("out/grpo")], steps, arguments.most)
    except AS_WRITTEN as error:
        raise UserError(f"the episodes are not as the scripts write them: {error!r}") from error
    write_atomically(arguments.out, text)
    print(f"episodes: {arguments.out}")


if __name__ == "__main__":
    run_main(main)
