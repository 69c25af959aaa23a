"""A page to read episodes in: filters, siblings side by side, tokens in the colours of what training knows of them.

    python browse.py                                    the episodes of out/grpo -> out/episodes.html
    python browse.py out/evaluation --out replies.html  those of an evaluation, by model
    python browse.py out/a out/b --steps 0,19           several runs on one page, two steps of each

One file that loads nothing. It shows at most `--most` episodes: all groups of as many steps, evenly chosen, as fit. The
same files give the same page, to the byte. What models wrote is data to the page's script, and never becomes markup.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cli import UserError, run_main
from report import AS_WRITTEN, parse_steps, read_lines, template, write_atomically
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


def key_of(raw: dict[str, Any]) -> tuple[int, int, str]:
    """Step, group, and of whom and how it was asked, in an evaluation."""
    return int(raw["step"]), int(raw["group"]), ", ".join(str(raw[key]) for key in ("model", "decoding") if key in raw)


def read_run(folder: Path, steps: list[int] | None, most: int, notes: list[str]) -> list[dict[str, Any]]:
    """The groups of a run folder that are shown. The file is read twice, since it may be larger than the memory."""
    path = folder / "episodes.jsonl"
    if not path.is_file():
        raise UserError(f"there is no {path}: it is no run folder, or its run never finished a step")
    sizes = Counter(read_lines(path, key_of, notes))
    if steps is not None:
        sizes = Counter({key: size for key, size in sizes.items() if key[0] in steps})
    if not sizes:
        raise UserError(f"{path} holds no episodes" + (f" of the steps {steps}" if steps is not None else ""))
    shown = chosen(sizes, most)
    if len(shown) < len(sizes):
        number, all_of = len({key[0] for key in shown}), len({key[0] for key in sizes})
        what = f"{number} of {all_of} steps" if number < all_of else f"{len(shown)} of {len(sizes)} groups"
        notes.append(f"{folder}: {what} are shown; --steps chooses others, --most raises the limit.")
    groups: dict[tuple, dict[str, Any]] = {}

    def parse(raw: dict) -> None:
        if (key := key_of(raw)) not in shown:
            return
        step, number, how = key
        asked = {name: raw[name] for name in ("task", "index", "question", "reference")}
        group = groups.setdefault(
            key, {"run": str(folder), "step": step, "group": number, "how": how, **asked, "episodes": []}
        )
        group["episodes"].append(
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
            }
        )

    read_lines(path, parse, [])  # what is to be noted has been
    for group in groups.values():
        group["episodes"].sort(key=lambda episode: episode["id"])
    return [groups[key] for key in sorted(shown)]


def chosen(sizes: Counter[tuple[int, int, str]], most: int) -> set[tuple[int, int, str]]:
    """The groups that are shown: all of as many steps, evenly spread, as hold at most `most` episodes; of a single step
    that holds more, the first groups."""
    by_step: Counter[int] = Counter()
    for key, size in sizes.items():
        by_step[key[0]] += size
    steps = sorted(by_step)
    count = len(steps)
    while count > 1 and sum(by_step[step] for step in spread(steps, count)) > most:
        count -= 1
    kept, total = set(), 0
    for key in sorted(key for key in sizes if key[0] in set(spread(steps, count))):
        total += sizes[key]
        if kept and total > most:
            break
        kept.add(key)
    return kept


def spread(steps: list[int], count: int) -> list[int]:
    """`count` of the steps, first and last among them."""
    if count == 1:
        return steps[-1:]
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def page(runs: list[Path], steps: list[int] | None = None, most: int = MOST) -> str:
    """The HTML."""
    notes: list[str] = []
    found = [group for run in runs for group in read_run(run, steps, most // len(runs), notes)]
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
    steps = parse_steps(arguments.steps)
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
