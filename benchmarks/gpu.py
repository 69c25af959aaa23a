"""A few steps of GRPO with a random model of a real shape: how long, how much memory, how near the ceilings.

    python benchmarks/gpu.py [--shape runs/shapes/qwen2.5-1.5b] [--steps 4] [--groups 16] [--group_size 8] [--recompute]
    python benchmarks/gpu.py --shape assets/tiny --prompt 40 --reply 30 --slots 32          # on a CPU, to see it work

No weights are downloaded and no task is solved: prompts are random tokens, replies end where they are told to, at
lengths spread evenly up to twice `--reply`, and the advantages are drawn. Everything else is what grpo.py does: the
generator, the update, the copy of the weights. The first step warms up. Ceilings are measured in the same run.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint import save_model
from generator import Generator
from grpo import GRPOArguments, update
from model import Decoder, ModelConfig, load_config
from rollout import Episode, Turn
from sampling import sampling_key
from suites.base import Problem
from throughput import GeneratorStats
from training import Policy, document_cost, start_processes

ROOT = Path(__file__).resolve().parent.parent


def random_weights(shape: Path, folder: Path) -> None:
    """A model folder of this shape, with weights of the usual size; the tokenizer of the tiny one is never asked."""
    config = load_config(shape)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = Decoder(ModelConfig.from_hf(config)).to(torch.bfloat16)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.02)
    save_model(model, config, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        if (ROOT / "assets/tiny" / name).is_file():
            shutil.copy(ROOT / "assets/tiny" / name, folder)


def sample(generator: Generator, work: list[tuple[list[int], int]], group_size: int, step: int) -> list[Episode]:
    """One reply to each prompt, of the length that is asked for."""
    sequences = [
        generator.add(prompt, sampling_key(0, step, i), reply, group=i // group_size)
        for i, (prompt, reply) in enumerate(work)
    ]
    while generator.busy:
        generator.step()
    draw = random.Random(step)
    return [
        Episode(
            i, i // group_size, step, Problem("", i, "", ""), s.tokens, s.sampled, s.logprobs,
            [Turn(len(prompt), len(s.tokens))], "answer", "", False, 0.0, draw.choice((-1.0, 1.0)),
        )
        for i, (s, (prompt, _)) in enumerate(zip(sequences, work, strict=True))
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="runs/shapes/qwen2.5-1.5b", help="folder with a config.json")
    parser.add_argument("--steps", type=int, default=4, help="measured, behind one that warms up")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--group_size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=300, help="tokens")
    parser.add_argument("--reply", type=int, default=500, help="tokens, on average")
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--micro_batch_tokens", type=int, default=8192)
    parser.add_argument("--recompute", action="store_true")
    arguments = parser.parse_args()
    device = start_processes().device
    with tempfile.TemporaryDirectory() as folder:
        random_weights(Path(arguments.shape), Path(folder))
        policy = Policy(folder, 1e-6, recompute=arguments.recompute)
    model, episodes = policy.bundle.model, arguments.groups * arguments.group_size
    vocabulary, length = model.config.vocab_size, arguments.prompt + 2 * arguments.reply
    nothing = torch.zeros(vocabulary, dtype=torch.bool)
    generator = Generator(model, min(arguments.slots, episodes), length, nothing, [])
    settings = GRPOArguments(updates_per_step=1, micro_batch_tokens=arguments.micro_batch_tokens)

    def done() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    names = ("rollout", "update", "sync")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {"tokens/s": [], "rollout, share of roofline": [], "update, share of peak": []}
    for step in tqdm(range(arguments.steps + 1), unit="step"):
        r, stats = random.Random(step), GeneratorStats()
        prompts = [[r.randrange(8, vocabulary) for _ in range(arguments.prompt)] for _ in range(arguments.groups)]
        work = [(prompts[i // arguments.group_size], r.randint(1, 2 * arguments.reply)) for i in range(episodes)]
        generator.restart(1.0, 1.0, stats)
        times = [done()]
        sampled = sample(generator, work, arguments.group_size, step)
        times.append(done())
        update(policy, sampled, settings, step, None)
        times.append(done())
        policy.sync()
        times.append(done())
        if not step:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            continue
        for name, start, end in zip(names, times, times[1:], strict=False):
            seconds[name].append(end - start)
        # Three passes (a backward one counts as two), four if activations are recomputed; two operations a weight.
        weights = sum(p.numel() for p in model.parameters())
        operations = sum(document_cost(len(e.tokens), model.config) for e in sampled) * 2 * weights
        rates["tokens/s"].append(stats.sampled_tokens / seconds["rollout"][-1])
        rates["rollout, share of roofline"].append(stats.roofline_seconds / seconds["rollout"][-1])
        passes = 3 + arguments.recompute
        rates["update, share of peak"].append(operations * passes / seconds["update"][-1] / generator.roofline.peak)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    ceilings = f"{generator.roofline.bandwidth / 1e9:.0f} GB/s, {generator.roofline.peak / 1e12:.2f} TFLOP/s"
    print(f"\n{arguments.shape}, {weights / 1e9:.2f}B weights, on {where}; measured ceilings: {ceilings}")
    print(f"{episodes} episodes of {arguments.prompt} + {arguments.reply} tokens, medians of {arguments.steps} steps:")
    for name, values in {**{f"seconds, {name}": v for name, v in seconds.items()}, **rates}.items():
        print(f"  {name:28} {statistics.median(values):10.3f}  ({min(values):.3f}-{max(values):.3f})")
    if device.type == "cuda":
        print(f"  peak memory, GiB             {torch.cuda.max_memory_allocated(device) / 2**30:10.1f}")


if __name__ == "__main__":
    main()
