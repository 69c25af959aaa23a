"""What log-probs and entropies of sampled tokens cost: ours, which never holds all logits, against all logits at once.

    python benchmarks/logprobs.py [--rounds 3] [--tokens 4096] [--vocab 151936] [--width 192]

Forward and backward, in fp32. Each variant runs in a process of its own, in turns, which reports the seconds of its
second pass and by how much its memory grew over what inputs and gradients take.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training import score


def all_at_once(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The same as `training.score`, as one would write it first."""
    log_probs = F.log_softmax(F.linear(hidden, weight), -1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(-1, targets[:, None])[:, 0], entropy


VARIANTS = {"ours": score, "all logits": all_at_once}


def peak() -> int:
    """Bytes of resident memory, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(variant: str, tokens: int, vocab: int, width: int) -> dict[str, float]:
    """Seconds, bytes beyond inputs and gradients, and a sum of what came out, for comparison."""
    torch.manual_seed(0)
    hidden = (torch.randn(tokens, width) / width**0.5).requires_grad_(True)
    weight = torch.randn(vocab, width).requires_grad_(True)
    targets = torch.randint(vocab, (tokens,))
    hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)
    before = peak()
    for _ in range(2):
        started = time.perf_counter()
        log_probs, entropy = VARIANTS[variant](hidden, weight, targets)
        log_probs.sum().backward()
        seconds = time.perf_counter() - started
    total = float(log_probs.detach().sum() + entropy.sum() + weight.grad.abs().sum())
    return {"seconds": seconds, "bytes": peak() - before, "sum": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocab", type=int, default=151_936)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one alone, and print it as JSON")
    arguments = parser.parse_args()
    sizes = [arguments.tokens, arguments.vocab, arguments.width]
    if arguments.variant:
        print(json.dumps(measure(arguments.variant, *sizes)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    flags = f"--tokens {sizes[0]} --vocab {sizes[1]} --width {sizes[2]}".split()
    for _ in tqdm(range(arguments.rounds), unit="round"):
        for name in VARIANTS:
            command = [sys.executable, __file__, *flags, "--variant", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
    print(f"\n{sizes[0]} tokens, vocabulary {sizes[1]}, width {sizes[2]}, {torch.get_num_threads()} threads")
    print(f"{'':12} {'seconds (min-max)':>24} {'GB':>8}  sum")
    for name, rounds in found.items():
        seconds = [figures["seconds"] for figures in rounds]
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"{name:12} {spread:>24} {max(f['bytes'] for f in rounds) / 1e9:8.2f}  {rounds[0]['sum']:.6g}")
    ours, full = found["ours"], found["all logits"]
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(ours, full, strict=True)]
    memory = [a["bytes"] / b["bytes"] for a, b in zip(ours, full, strict=True)]
    print(f"ours / all logits: time {statistics.median(ratios):.2f}, memory {statistics.median(memory):.3f}")


if __name__ == "__main__":
    main()
