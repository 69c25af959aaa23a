"""Run folders made by hand, and a page as a tree: for the tests of report.py."""

import json
from html.parser import HTMLParser
from pathlib import Path

import yaml

from scores import wilson

VOID = {"meta", "br", "path", "use", "rect"}


class Node(HTMLParser):
    """A page as a tree. Complains of tags that do not match, which browsers put up with silently."""

    def __init__(self, text: str):
        super().__init__()
        self.root = self.open = {"tag": "", "attributes": {}, "children": [], "parent": None}
        self.all: list[dict] = []
        self.feed(text)
        self.close()
        assert self.open is self.root

    def handle_starttag(self, tag, attrs):
        node = {"tag": tag, "attributes": dict(attrs), "children": [], "parent": self.open}
        assert len(node["attributes"]) == len(attrs)
        self.open["children"].append(node)
        self.all.append(node)
        if tag not in VOID:
            self.open = node

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open["tag"] == tag
            self.open = self.open["parent"]

    def handle_data(self, data):
        self.open["children"].append(data)

    def find(self, tag: str, kind: str = "", under: dict | None = None) -> list[dict]:
        """Elements by tag and class."""
        found = [
            n for n in self.all if n["tag"] == tag and (not kind or kind in n["attributes"].get("class", "").split())
        ]
        return [n for n in found if under is None or any(n is other for other in below(under))]


def below(node: dict) -> list[dict]:
    return [other for child in node["children"] if isinstance(child, dict) for other in (child, *below(child))]


def text_of(node: dict) -> str:
    return "".join(child if isinstance(child, str) else text_of(child) for child in node["children"])


def words(node: dict) -> str:
    """All that is written in an element, a space between any two of its parts."""
    return " ".join(" ".join(child if isinstance(child, str) else words(child) for child in node["children"]).split())


# --------------------------------------------------------------------------------------------------------------------
# run folders


def record(step=0, group=0, id=0, correct=True, **more) -> dict:
    question = f"What is {group} + {step}?"
    segments = [
        {"text": f"user: {question}", "source": "prompt"},
        {"text": "Let me see.\n```python\nprint(1)\n```", "source": "model"},
        {"text": "\nCode Execution Results:\n1\n", "source": "observation"},
        {"text": f"So <<<{id}>>>", "source": "model"},
    ]
    made = {"step": step, "group": group, "id": id, "task": "gcd", "index": 20000000 + group, "question": question}
    made |= {"segments": segments, "reference": "1", "answer": str(id), "correct": correct, "finish": "answer"}
    made |= {"reward": float(correct), "advantage": 0.0, "code_runs": 1, "sampled_tokens": 9, "statuses": ["ok"]}
    return made | more


def write_lines(path: Path, records: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")


def write_run(folder: Path, steps: int = 3, planned: int = 0, **config) -> Path:
    """Two problems per step with four replies each. The first has two right ones, the second as many as the step's
    number, so that accuracy is (2 + step) / 8, and 6 / 8 from step 4 on."""
    records, metrics = [], []
    for step in range(steps):
        for id in range(8):
            correct = id in (0, 3) if id < 4 else id - 4 < step
            live = id < 4 or 0 < step < 4
            advantage = (1.0 if correct else -1.0) if live else 0.0
            records.append(record(step, id // 4, id, correct, advantage=advantage))
        share, seconds = (
            (2 + min(step, 4)) / 8,
            {"seconds/rollout": 3.0, "seconds/update": 1.5, "tool_wait_seconds": 0.5},
        )
        line = {"step": step, "accuracy": share, "reward": share, "code_use": 1.0, "live": 0.5, "entropy": 0.2}
        line |= {"reply_tokens": 9.0, "finish/answer": 1.0, "logprob_gap": 1e-7, "seconds/total": 5.0 * (step + 1)}
        metrics.append(line | seconds)
    write_lines(folder / "episodes.jsonl", records)
    write_lines(folder / "metrics.jsonl", metrics)
    values = {
        "model": "nowhere/checkpoint",
        "tasks": "gcd",
        "steps": planned or steps,
        "prompts_per_step": 2,
        "group_size": 4,
    }
    values |= {"learning_rate": 1e-4, "seed": 7, **config}
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "revision.txt").write_text("0123456789abcdef-dirty\n")
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint/config.json").write_text("{}")
    return folder


def write_evaluation(folder: Path, models: dict[str, str], right: dict[str, int], tasks=("gcd", "lcm")) -> Path:
    """Four problems of each task, sampled and greedy; `right`: how many of each task a model has right."""
    results, records = {}, []
    for label in models:
        summary = {"accuracy": right[label] / 4, "interval": wilson(right[label], 4), "problems": 4}
        summary |= {"code_use": 0.75, "code_runs": 1.25}
        overall = summary | {"problems": 4 * len(tasks), "interval": wilson(right[label] * len(tasks), 4 * len(tasks))}
        results[label] = {
            d: {"overall": overall, "tasks": dict.fromkeys(tasks, summary)} for d in ("sampled", "greedy")
        }
        for decoding in ("sampled", "greedy"):
            for task in tasks:
                for index in range(4):
                    more = {"task": task, "index": index, "question": f"held out: {task} {index}"}
                    more |= {"model": label, "decoding": decoding}
                    records.append(record(0, index, index, index < right[label], **more))
    write_lines(folder / "episodes.jsonl", records)
    (folder / "evaluation.json").write_text(json.dumps({"models": models, "results": results}))
    (folder / "config.yaml").write_text("split: test\ntemperature: 1.0\n")
    return folder


def whole(here: Path) -> tuple[Path, Path]:
    """A finished run with its warm start and evaluation under the default names."""
    write_lines(Path("out/sft/metrics.jsonl"), [{"step": i, "loss": 2 / (i + 1)} for i in range(5)])
    write_lines(Path("out/sft/trajectories.jsonl"), [{"segments": [{"text": "taught", "source": "prompt"}]}])
    run = write_run(Path("out/grpo"), model="out/sft/checkpoint")
    models = {"base": "assets/tiny", "warm start": "out/sft/checkpoint", "GRPO": "out/grpo/checkpoint"}
    return run, write_evaluation(Path("out/evaluation"), models, {"base": 0, "warm start": 1, "GRPO": 3})
