"""What the benchmarks against other frameworks share: models with random weights, and processes that take turns.

Each side has a process, the other framework's in an environment of its own. It does one step, and prints a line of
figures about it, for every line that comes in: so they take turns, step by step, and a busy machine hurts all alike.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

SIZES = {
    "tiny": {},
    "30m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8},
}


def make_model(name: str, folder: Path) -> str:
    """Writes random weights in the shape of assets/tiny, but for what SIZES says of `name`; returns a title that says
    how many weights there are."""
    from gpu import random_weights

    from checkpoint import load_bundle

    shape = json.loads((ROOT / "assets/tiny/config.json").read_text()) | SIZES[name]
    shape["layer_types"] = ["full_attention"] * shape["num_hidden_layers"]
    (folder / "shape").mkdir()
    (folder / "shape/config.json").write_text(json.dumps(shape))
    random_weights(folder / "shape", folder)
    weights = sum(parameter.numel() for parameter in load_bundle(str(folder)).model.parameters())
    return f"{name} ({weights / 1e6:.1f}M)"


def parse_flags(about: str) -> argparse.Namespace:
    """The flags of these benchmarks; `worker` and `folder` are for the processes that they start."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl_python", help="the interpreter of an environment that has TRL")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (arguments.worker or arguments.trl_python):
        parser.error("--trl_python is needed")
    if arguments.trl_python and not shutil.which(arguments.trl_python):
        parser.error(f"--trl_python: there is no interpreter {arguments.trl_python}")
    return arguments


# ---------------------------------------------------------------------------------------------------------------------
# in the process of one side


def asked_again() -> bool:
    """Waits until the next step is asked for; false if there will be none."""
    return bool(sys.stdin.readline())


def peak() -> int:
    """Bytes of resident memory that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tell(**figures: float) -> None:
    """Answers what was asked for."""
    print("\n@" + json.dumps(figures | {"bytes": peak()}), flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# in the process that compares


class Worker:
    """The process of one side: the same script, called as `--worker system [variant]`."""

    def __init__(self, interpreter: str, worker: list[str], folder: str, threads: int):
        command = [interpreter, sys.argv[0], "--worker", *worker, "--folder", folder]
        more = {"OMP_NUM_THREADS": str(threads), "TRL_EXPERIMENTAL_SILENCE": "1"}
        self.errors = Path(folder) / f"{' '.join(worker)}.txt"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with self.errors.open("w") as errors:  # not a pipe: one that is full would stop the process
            self.process = subprocess.Popen(command, env=os.environ | more, text=True, stderr=errors, **pipes)

    def step(self) -> dict[str, float]:
        """Asks for one, and waits for its figures; SystemExit, with what the process had to say, if it has ended."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"a process has ended:\n{self.errors.read_text()}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def take_turns(workers: dict[str, Worker], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Figures of so many steps of each, after one that warms up; then the processes end."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for number in range(rounds + 1):
        for name, worker in workers.items():
            figures = worker.step()
            found[name] += [figures] * (number > 0)
    for worker in workers.values():
        worker.end()
    return found
