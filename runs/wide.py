"""The whole way on 51 tasks: base -> warm start -> GRPO on 34 of the training split, judged on these and on 17 unseen.

    python runs/wide.py [--out out/wide] [--trajectories 12000] [--steps 80]

The scripted teacher of the demo with the programs of wide_programs.py, the embedded base model, replies of up to 400
tokens. The unseen tasks are those of the test split for which the teacher has programs too: they could be done. Goes on
where it was interrupted. Ends with tables of held-out problems and a file of everything it ran, wide.json.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from study import ROOT, beside, cpu_seconds, done_once
from wide_programs import WIDE

import scripted
from cli import run_main
from executor import Executor
from tasks import SPLIT_FILE, read_split
from trajectories import write_trajectories

# Fewer guesses and more right programs than in the demo: forty tasks take longer to tell apart than eleven.
MIX = {"ok": 0.4, "text": 0.25, "bad": 0.15, "bug": 0.2}
FALLIBLE = {"caesar_cipher"}  # its program guesses the key from the frequencies of letters: wrong in 1 of 100 texts
REPLY = ("--max_reply_tokens", "400", "--max_observation_tokens", "128")


def parts() -> dict[str, list[str]]:
    """The tasks that the teacher can do, by the part of the split that they are in."""
    scripted.PROGRAMS.update(WIDE)
    split = read_split(SPLIT_FILE)
    return {part: [n for n in sorted(scripted.PROGRAMS) if n.split("@")[0] in split[part]] for part in split}


def teach(names: list[str], count: int, seed: int, path: Path) -> dict:
    """Writes the trajectories."""
    with Executor() as executor:
        written = scripted.compose(names, count, seed, executor, MIX, FALLIBLE)
    write_trajectories(written, path)
    return {"trajectories": len(written), "right": sum(t["correct"] for t in written) / len(written)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out/wide")
    parser.add_argument("--model", default="assets/tiny", help="the base model")
    parser.add_argument("--trajectories", type=int, default=12000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--problems", type=int, default=28, help="held-out problems per task")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    out, seed = options.out.absolute(), str(options.seed)
    out.mkdir(parents=True, exist_ok=True)
    tasks, done, so_far = parts(), {}, [options.model]
    print({part: len(names) for part, names in tasks.items()}, flush=True)

    def stage(name: str, key: str, work) -> None:
        so_far.append(key)  # a stage stands on all that came before it
        done[name] = done_once(out / f"{name}.json", "\n".join(so_far), work)
        print(f"{name}: {json.dumps({k: v for k, v in done[name].items() if k not in ('key', 'results')})}", flush=True)

    def run(name: str, script: str, *flags: str) -> None:
        command = [sys.executable, script, "--out", str(out / name), "--seed", seed, *flags]
        key = " ".join(command[1:])
        stage(name, key, lambda: {"cpu_seconds": cpu_seconds(command, beside(out / name, ".log"))})

    data = out / "trajectories.jsonl"
    key = f"{tasks['train']} {options.trajectories} {seed} {MIX}"
    stage("teacher", key, lambda: teach(tasks["train"], options.trajectories, options.seed, data))
    train = ",".join(tasks["train"])
    run(
        "sft", "sft.py", "--model", options.model, "--data", str(data), "--epochs", str(options.epochs),
        "--max_length", "640", "--validation", "300",
    )  # fmt: skip
    run(
        "grpo", "grpo.py", "--model", str(out / "sft/checkpoint"), "--tasks", train, "--steps", str(options.steps),
        "--prompts_per_step", "32", "--problems_per_task", "100", "--save_every", "20", *REPLY,
    )  # fmt: skip
    models = [options.model, str(out / "sft/checkpoint"), str(out / "grpo/checkpoint")]
    for part, names in tasks.items():
        run(
            f"evaluation-{part}", "evaluate.py", "--model", *models, "--tasks", ",".join(names),
            "--problems_per_task", str(options.problems), "--show", "3", *REPLY,
        )  # fmt: skip
        log = beside(out / f"evaluation-{part}", ".log").read_text()
        print(f"\n{part} tasks\n\n{log[log.index('sampled  ') :]}", flush=True)
    (out / "wide.json").write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    run_main(main)
