"""What a rollout costs: deterministic mode against rejoining at once, one thread against two.

    python benchmarks/rollout.py [--model out/grpo/checkpoint] [--rounds 5]

Sixteen problems of the embedded tasks, eight samples each, as in a step of grpo.py. The variants take turns within each
round, so that a busy machine hurts all alike; medians over rounds, and ratios to the default.
"""

import argparse
import statistics
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import load_bundle
from executor import Executor
from rollout import Rollout, RolloutArguments
from tasks import EMBEDDED, problems

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
    bundle = load_bundle(arguments.model)
    drawn = [problem for task in EMBEDDED for problem in problems(task, "dev", 2)][:16]
    seconds = {name: [] for name in VARIANTS}
    logprobs = {name: set() for name in VARIANTS}
    with Executor() as executor:
        for number in tqdm(range(arguments.rounds + 1), unit="round"):
            for name, (deterministic, threads) in VARIANTS.items():
                torch.set_num_threads(threads)
                rollout = Rollout(bundle, executor, RolloutArguments(deterministic=deterministic))
                episodes, stats = rollout(drawn, samples=8)
                if number:  # the first round warms up
                    seconds[name].append(stats.seconds)
                    logprobs[name].add(sum(float(episode.logprobs.sum()) for episode in episodes))
    default = statistics.median(seconds["deterministic, 1 thread (default)"])
    print(f"\n{'variant':36} {'median s':>9} {'min':>6} {'max':>6} {'ratio':>6}  different sums of log-probs")
    for name, values in seconds.items():
        median = statistics.median(values)
        row = f"{name:36} {median:9.2f} {min(values):6.2f} {max(values):6.2f} {median / default:6.2f}"
        print(f"{row}  {len(logprobs[name])} in {len(values)}")


if __name__ == "__main__":
    main()
