"""What the warm start is taught, and what becomes of it: the paper's ablations of SFT data, on the embedded default.

    python runs/sft_study.py [--jobs 2] [--seeds 0 1 2]

The teacher of "all of it" is right, in text or by programs, some of which it has to repair, two ways for one question
in four; every other arm leaves one thing out, with as many trajectories. Eight of the embedded tasks are taught; three
are not, each a near relative of a taught one. Judged on held-out problems, sampled at the temperature of training, two
replies each. Runs lie in out/sft-study, where a study that was interrupted goes on. The table goes to
docs/studies/sft-data.md, every run's figures to sft-data.json.

Differs from the paper: the teacher is scripted, so "no varied prompts" is a teacher that has one manner per task (all
in text, all by programs at once, or all with a repair), where the paper prompts GPT-4o in one way alone.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from study import ROOT, beside, cpu_seconds, done_once, mean_and_half_width

import scripted
from executor import Executor
from tasks import EMBEDDED
from trajectories import write_trajectories

UNSEEN = ("chain_sum", "lcm", "letter_counting")
SEEN = tuple(name for name in EMBEDDED if name not in UNSEEN)
COUNT = 2560
ALL = "all of it"
MIXES = {
    ALL: {"ok": 0.4, "text": 0.3, "bug": 0.3},
    "wrong ones kept": {"ok": 0.28, "text": 0.21, "bug": 0.21, "bad": 0.3},
    "no varied prompts": None,  # a manner per task
    "no multi-turn": {"ok": 0.57, "text": 0.43},
    "text only": {"text": 1.0},
    "code only": {"ok": 0.57, "bug": 0.43},
}


def teach(arm: str, seed: int, path: Path) -> None:
    """Writes the trajectories of an arm."""
    with Executor() as executor:
        if MIXES[arm] is not None:
            written = scripted.compose(list(SEEN), COUNT, seed, executor, MIXES[arm])
        else:
            kinds = ("ok", "ok", "ok", "text", "text", "bug", "bug", "bug")  # the shares of ALL, by tasks
            turned = kinds[seed % len(kinds) :] + kinds[: seed % len(kinds)]
            written = []
            for name, kind in zip(SEEN, turned, strict=True):
                written += scripted.compose([name], COUNT // len(SEEN), seed, executor, {kind: 1.0})
    write_trajectories(written, path)


def run(arm: str, seed: int, folder: Path) -> dict:
    """Teaches, trains and evaluates one arm; accuracies by task."""
    out = folder / f"{arm.replace(' ', '-')}-{seed}"

    def work() -> dict:
        data = beside(out, ".jsonl")
        data.parent.mkdir(parents=True, exist_ok=True)
        teach(arm, seed, data)
        flags = ["--seed", str(seed), "--data", str(data), "--out", str(out)]
        seconds = cpu_seconds([sys.executable, "sft.py", *flags], beside(out, ".log"))
        judged = beside(out, "-test")
        flags = ["--seed", str(seed), "--model", str(out / "checkpoint"), "--out", str(judged)]
        cpu_seconds([sys.executable, "evaluate.py", *flags, "--samples", "2", "--show", "0"], beside(judged, ".log"))
        (results,) = json.loads((judged / "evaluation.json").read_text())["results"].values()
        tasks = {name: figures["accuracy"] for name, figures in results["sampled"]["tasks"].items()}
        greedy = {name: figures["accuracy"] for name, figures in results["greedy"]["tasks"].items()}
        code = results["sampled"]["overall"]["code_use"]
        return {"cpu_seconds": seconds, "tasks": tasks, "greedy": greedy, "code_use": code}

    return done_once(beside(out, ".json"), f"{MIXES[arm]} {COUNT} {UNSEEN}", work)


def mean(figures: dict, names: Sequence[str], decoding: str = "tasks") -> float:
    return statistics.mean(figures[decoding][name] for name in names)


def table(results: dict[str, dict[int, dict]]) -> str:
    """Markdown, a row per arm: means over seeds, the seeds' own figures in brackets, differences paired by seed."""
    columns = {
        "seen, sampled": (SEEN, "tasks"), "unseen, sampled": (UNSEEN, "tasks"),
        "seen, greedy": (SEEN, "greedy"), "unseen, greedy": (UNSEEN, "greedy"),
    }  # fmt: skip
    rows = [["", *columns, "code use", f"seen, sampled, minus {ALL}", f"unseen, sampled, minus {ALL}"]]
    rows.append(["---"] * len(rows[0]))
    for arm, by_seed in results.items():
        row = [arm]
        for names, decoding in columns.values():
            values = [mean(figures, names, decoding) for figures in by_seed.values()]
            row.append(f"{statistics.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})")
        row.append(f"{statistics.mean(figures['code_use'] for figures in by_seed.values()):.2f}")
        for names in (SEEN, UNSEEN):
            pairs = [(mean(figures, names), mean(results[ALL][seed], names)) for seed, figures in by_seed.items()]
            middle, half = mean_and_half_width([ours - theirs for ours, theirs in pairs])
            row.append("" if arm == ALL else f"{middle:+.3f} ± {half:.3f}")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    results: dict[str, dict[int, dict]] = {arm: {} for arm in MIXES}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        work = {
            (arm, seed): pool.submit(run, arm, seed, ROOT / "out/sft-study")
            for seed in arguments.seeds
            for arm in MIXES
        }
        for (arm, seed), future in work.items():
            figures = results[arm][seed] = future.result()
            print(
                f"{arm:20} seed {seed}  seen {mean(figures, SEEN):.3f}  unseen {mean(figures, UNSEEN):.3f}", flush=True
            )
    text = table(results)
    print(f"\n{text}")
    about = (
        f"`python runs/sft_study.py`: {COUNT} trajectories of {len(SEEN)} tasks ({', '.join(SEEN)}); not taught: "
        f"{', '.join(UNSEEN)}. Accuracy on held-out problems, mean over tasks; seeds "
        f"{', '.join(map(str, arguments.seeds))}, in brackets each one's. Behind ±, half of the 95 % interval of "
        "Student's t over seeds, paired."
    )
    target = ROOT / "docs/studies/sft-data.md"
    mixes = "\n".join(f"- {arm}: {mix or 'one kind per task'}" for arm, mix in MIXES.items())
    target.write_text(f"{about}\n\n{text}\n\nKinds of trajectories (see scripted.py), by arm:\n\n{mixes}\n")
    target.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
