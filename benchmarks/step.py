"""What a step costs: deterministic mode against rejoining at once, one thread against two.

    python benchmarks/step.py [--model out/grpo/checkpoint] [--rounds 5]

Sixteen problems of the embedded tasks, eight samples each, as in a step of grpo.py; then the gradient of all their
log-probs, which is what one update costs if every group has signal. The variants take turns within each
round, so that a busy machine hurts all alike; medians over rounds, and ratios to the default.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_bundle
from executor import Executor
from rollout import Rollout, RolloutArguments
from tasks import EMBEDDED, problems
from training import backward, start_processes

VARIANTS = {
    "deterministic, 1 thread (default)": (True, 1),
    "deterministic, 2 threads": (True, 2),
    "rejoining at once, 1 thread": (False, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="out/grpo/checkpoint", help="folder or hub name")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each variant")
    arguments = parser.parse_args()
    start_processes()
    bundle = load_bundle(arguments.model)
    bundle.model.requires_grad_(True)
    drawn = [problem for task in EMBEDDED for problem in problems(task, "dev", 2)][:16]
    rollouts = {name: [] for name in VARIANTS}
    updates = {name: [] for name in VARIANTS}
    logprobs = {name: set() for name in VARIANTS}
    with Executor(timeout=1.0) as executor:  # an endless loop must not drown what is measured
        for number in tqdm(range(arguments.rounds + 1), unit="round"):
            for name, (deterministic, threads) in VARIANTS.items():
                torch.set_num_threads(threads)
                rollout = Rollout(bundle, executor, RolloutArguments(deterministic=deterministic))
                episodes, stats = rollout(drawn, samples=8)
                started = time.perf_counter()
                documents = [(episode.tokens, episode.sampled) for episode in episodes]
                backward(bundle.model, documents, lambda _, owner, log_probs, entropy: log_probs.sum(), 16384)
                if number:  # the first round warms up
                    rollouts[name].append(stats.seconds)
                    updates[name].append(time.perf_counter() - started)
                    logprobs[name].add(sum(float(episode.logprobs.sum()) for episode in episodes))
    print(f"\n{'median seconds (min-max), ratio':36} {'rollout':>24} {'gradient':>24}  different sums of log-probs")
    first = next(iter(VARIANTS))
    for name in VARIANTS:
        row = f"{name:36}"
        for times in (rollouts, updates):
            median, ratio = (
                statistics.median(times[name]),
                statistics.median(times[name]) / statistics.median(times[first]),
            )
            row += f" {median:7.2f} ({min(times[name]):.2f}-{max(times[name]):.2f}) {ratio:5.2f}"
        print(f"{row}  {len(logprobs[name])} in {arguments.rounds}")


if __name__ == "__main__":
    main()
