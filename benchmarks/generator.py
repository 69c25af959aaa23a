"""What a token costs: this project's generator against transformers, and against itself without what makes it fast.

    python benchmarks/generator.py [--rounds 5] [--out docs/generator.md]
    python benchmarks/generator.py --only ragged --models 3M --slots 16
    python benchmarks/generator.py --device cuda --models 500M --slots 64 256       in bfloat16, on a GPU
    python benchmarks/generator.py --quick       does it work? Its figures mean nothing

All ways of a row have the same weights, the same work and the same number of threads. They take turns within each
round, in a drawn order, so that a busy machine hurts all alike; every one runs once before, unmeasured.

- ragged: prompts and replies of 16 to 256 tokens, four times as many as slots. `generate` has them in batches of as
  many as there are slots, sorted by the length of the prompt, each until its longest reply is done; `generate_batch` is
  transformers' continuous batching, for which all replies are as long as the longest
- tools: episodes of four turns of 8 to 64 tokens; between them a tool takes 5 to 50 ms and returns 16 tokens
- groups: 16 replies of 16 to 128 tokens to each of 8 prompts of 512
- roofline: prompts and replies as in ragged, beyond 16 slots twice as many as slots; the share of the least time that
  the same passes could have taken (throughput.py), and where the time goes by torch's profiler
"""

import argparse
import dataclasses
import heapq
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generator import Generator
from model import Decoder, load_model
from sampling import sampling_key

ROOT = Path(__file__).resolve().parent.parent
# Random weights, by sizes: hidden, layers, heads, kv heads, feed-forward, vocabulary.
SIZES = {
    "3M": (192, 6, 6, 2, 576, 2048),
    "30M": (512, 8, 8, 2, 1408, 16384),
    "500M": (896, 24, 14, 2, 4864, 151936),
}
Work = list[tuple[list[int], int]]
"""A prompt, and the length of the reply"""


# --------------------------------------------------------------------------------------------------------------------
# models and work


@dataclasses.dataclass
class Pair:
    """One model, as ours and as transformers'."""

    ours: Decoder
    theirs: torch.nn.Module
    vocabulary: int
    device: torch.device

    def padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask of prompts padded on the left."""
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return ids.to(self.device), mask.to(self.device)


def load(name: str, device: torch.device) -> Pair:
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        if name in SIZES:
            hidden, layers, heads, kv_heads, inner, vocabulary = SIZES[name]
            torch.manual_seed(0)
            config = Qwen2Config(
                vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=True, use_cache=True,
            )  # fmt: skip
            Qwen2ForCausalLM(config).save_pretrained(folder)
            name = folder
        elif name == "tiny":
            name = str(ROOT / "assets/tiny")
        ours, theirs = load_model(name, dtype, device), AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    return Pair(ours, theirs.to(device).eval(), ours.config.vocab_size, device)


def ragged(pair: Pair, count: int, seed: int, longest: int) -> Work:
    r = random.Random(seed)
    drawn = [(r.randint(16, longest), r.randint(16, longest)) for _ in range(count)]
    return [([r.randrange(8, pair.vocabulary) for _ in range(n)], reply) for n, reply in drawn]


def useful(work: Work) -> int:
    return sum(reply for _, reply in work)


def make_generator(pair: Pair, slots: int, length: int) -> Generator:
    nothing = torch.zeros(pair.vocabulary, dtype=torch.bool)
    return Generator(pair.ours, slots, length, nothing, [])


# --------------------------------------------------------------------------------------------------------------------
# ragged lengths


def ours(pair: Pair, work: Work, slots: int, shared: bool = True, steps: int | None = None) -> Generator:
    """All replies by this project's generator. `shared`: equal prompts are one group. `steps`: no more than these."""
    generator = make_generator(pair, slots, max(len(prompt) + reply for prompt, reply in work))
    done = [
        generator.add(prompt, sampling_key(i), reply, tuple(prompt) if shared else i)
        for i, (prompt, reply) in enumerate(work)
    ]
    while generator.busy and (steps is None or generator.steps < steps):
        generator.step()
    assert steps or [len(sequence.tokens) - len(sequence.prompt) for sequence in done] == [n for _, n in work]
    return generator


def sampling_config(reply: int, cache: str | None = None) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=reply, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0, eos_token_id=None,
        cache_implementation=cache,
    )  # fmt: skip


@torch.inference_mode()
def padded_batches(pair: Pair, work: Work, slots: int, cache: str | None = None) -> None:
    """All replies by `generate`."""
    ordered = sorted(work, key=lambda item: len(item[0]))
    for start in range(0, len(ordered), slots):
        batch = ordered[start : start + slots]
        ids, mask = pair.padded([prompt for prompt, _ in batch])
        reply = max(reply for _, reply in batch)
        out = pair.theirs.generate(ids, attention_mask=mask, generation_config=sampling_config(reply, cache))
        assert out.shape[1] == ids.shape[1] + reply


def continuous_batches(pair: Pair, work: Work) -> None:
    """All replies by `generate_batch`."""
    config = sampling_config(max(reply for _, reply in work))
    config.do_sample = False
    outputs = pair.theirs.generate_batch(
        [prompt for prompt, _ in work], generation_config=config, progress_bar=False, warmup=False
    )
    assert len(outputs) == len(work)


# --------------------------------------------------------------------------------------------------------------------
# tools


@dataclasses.dataclass
class Course:
    """An episode: the prompt, and per turn its length and the seconds that the tool behind it takes."""

    prompt: list[int]
    turns: list[tuple[int, float]]


OBSERVATION = list(range(20, 36))


def courses(pair: Pair, count: int, seed: int) -> list[Course]:
    r = random.Random(seed)
    return [
        Course(
            [r.randrange(8, pair.vocabulary) for _ in range(r.randint(32, 128))],
            [(r.randint(8, 64), r.uniform(0.005, 0.05)) for _ in range(4)],
        )
        for _ in range(count)
    ]


def room(episodes: list[Course]) -> int:
    return max(len(e.prompt) + sum(n for n, _ in e.turns) + 4 * len(OBSERVATION) for e in episodes)


def parked(pair: Pair, episodes: list[Course], slots: int) -> None:
    """Ours: a sequence keeps its slot and its cache while its tool works, the others go on. Its turns are cut by length
    rather than by what it writes, which is looked at after every step."""
    generator = make_generator(pair, slots, room(episodes) + 1)
    live = {generator.add(e.prompt, sampling_key(i), 10**6, i): iter(e.turns) for i, e in enumerate(episodes)}
    turn = {sequence: next(turns) for sequence, turns in live.items()}
    working: list[tuple[float, int, object]] = []
    while live:
        if generator.busy:
            generator.step()
        else:
            time.sleep(max(0.0, working[0][0] - time.perf_counter()))
        for sequence in [owner for owner in generator.owner if owner is not None]:
            written = generator.length[sequence.slot] - sequence.turn_start
            if generator.running[sequence.slot] and written >= turn[sequence][0]:
                generator.park(sequence)
                heapq.heappush(working, (time.perf_counter() + turn[sequence][1], id(sequence), sequence))
        while working and working[0][0] <= time.perf_counter():
            sequence = heapq.heappop(working)[2]
            following = next(live[sequence], None)
            if following is None:
                del live[sequence]
                generator.finish(sequence)
            else:
                turn[sequence] = following
                assert generator.resume(sequence, OBSERVATION)


def synchronous(pair: Pair, episodes: list[Course], slots: int, turn: Callable) -> None:
    """In batches of as many as there are slots, turn by turn: all write theirs, all tools work at the same time, and
    the slowest is waited for; then the whole conversation is given to `turn(texts, lengths)` anew."""
    for start in range(0, len(episodes), slots):
        batch = episodes[start : start + slots]
        texts = [list(e.prompt) for e in batch]
        for number in range(4):
            replies = turn(texts, [e.turns[number][0] for e in batch])
            texts = [text + reply + OBSERVATION for text, reply in zip(texts, replies, strict=True)]
            time.sleep(max(e.turns[number][1] for e in batch))


def turn_by_ours(pair: Pair, length: int, texts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    generator = make_generator(pair, len(texts), length)
    work = enumerate(zip(texts, lengths, strict=True))
    done = [generator.add(text, sampling_key(i), reply, i) for i, (text, reply) in work]
    while generator.busy:
        generator.step()
    return [sequence.tokens[len(sequence.prompt) :].tolist() for sequence in done]


@torch.inference_mode()
def turn_by_generate(pair: Pair, texts: list[list[int]], lengths: list[int]) -> list[list[int]]:
    ids, mask = pair.padded(texts)
    out = pair.theirs.generate(ids, attention_mask=mask, generation_config=sampling_config(max(lengths)))
    return [row[ids.shape[1] :][:n].tolist() for row, n in zip(out, lengths, strict=True)]


# --------------------------------------------------------------------------------------------------------------------
# measuring


def measure(ways: dict[str, Callable], work: list, rounds: int, label: str, seed: int) -> dict[str, list[float]]:
    """Seconds of each way, for `work`, in each round."""
    seconds: dict[str, list[float]] = defaultdict(list)
    r = random.Random(seed)
    with tqdm(total=(rounds + 1) * len(ways), desc=label, leave=False) as bar:
        for number in range(rounds + 1):
            for name in r.sample(list(ways), len(ways)):
                started = time.perf_counter()
                ways[name](work if number else work[: len(work) // 4])  # the first round warms up
                if number:
                    seconds[name].append(time.perf_counter() - started)
                bar.update()
    return seconds


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def rows(label: str, ways: dict[str, Callable], seconds: dict[str, list[float]], tokens: int) -> list[str]:
    """Rows of a table: useful tokens per second by way, and how many times faster the first way is."""
    first = next(iter(ways))
    lines = []
    for name in ways:
        times = seconds[name]
        ratio = spread([time / ours for time, ours in zip(times, seconds[first], strict=True)])
        ratio = "" if name == first else ratio
        lines.append(f"| {label} | {name} | {tokens / statistics.median(times):,.0f} | {ratio} |")
    return lines


HEAD = ["| model, slots | way | useful tokens/s | ours is faster |", "| --- | --- | ---: | ---: |"]


def ragged_section(pair: Pair, name: str, slots: int, rounds: int, seed: int, longest: int) -> list[str]:
    work = ragged(pair, 4 * slots, seed, longest)
    ways = {
        "ours": lambda part: ours(pair, part, slots),
        "`generate`": lambda part: padded_batches(pair, part, slots),
        "`generate`, StaticCache": lambda part: padded_batches(pair, part, slots, "static"),
    }
    seconds = measure(ways, work, rounds, f"ragged, {name}, {slots} slots", seed)
    return rows(f"{name}, {slots}", ways, seconds, useful(work))


def continuous_section(pair: Pair, name: str, slots: int, rounds: int, seed: int, longest: int) -> list[str]:
    work = ragged(pair, 2 * slots, seed, longest)
    ways = {
        "ours": lambda part: ours(pair, part, slots),
        "`generate_batch`": lambda part: continuous_batches(pair, part),
    }
    seconds = measure(ways, work, rounds, f"generate_batch, {name}", seed)
    return rows(f"{name}, {slots}, {2 * slots} replies", ways, seconds, useful(work))


def tools_section(pair: Pair, name: str, slots: int, rounds: int, seed: int) -> list[str]:
    episodes = courses(pair, 4 * slots, seed)
    length = room(episodes)
    ways = {
        "ours, parked with its cache": lambda part: parked(pair, part, slots),
        "ours, synchronous, prefilled anew": lambda part: synchronous(
            pair, part, slots, lambda texts, lengths: turn_by_ours(pair, length, texts, lengths)
        ),
        "`generate`, synchronous": lambda part: synchronous(
            pair, part, slots, lambda texts, lengths: turn_by_generate(pair, texts, lengths)
        ),
    }
    seconds = measure(ways, episodes, rounds, f"tools, {name}, {slots} slots", seed)
    tokens = sum(n for episode in episodes for n, _ in episode.turns)
    return rows(f"{name}, {slots}", ways, seconds, tokens)


def groups_section(pair: Pair, name: str, slots: int, rounds: int, seed: int, quick: bool) -> list[str]:
    r = random.Random(seed)
    prompts = [[r.randrange(8, pair.vocabulary) for _ in range(64 if quick else 512)] for _ in range(8)]
    work = [(text, r.randint(16, 24 if quick else 128)) for text in prompts for _ in range(16)]
    ways = {
        "ours, the prompt of a group copied": lambda part: ours(pair, part, slots),
        "ours, each prompt prefilled": lambda part: ours(pair, part, slots, shared=False),
    }
    seconds = measure(ways, work, rounds, f"groups, {name}, {slots} slots", seed)
    return rows(f"{name}, {slots}", ways, seconds, useful(work))


# --------------------------------------------------------------------------------------------------------------------
# the roofline, and where the rest goes


KINDS = {
    "matrix products": ("mm", "addmm", "linear", "bmm", "gemm"),
    "attention": ("scaled_dot_product", "flash", "_efficient", "varlen"),
    "cache": ("index_copy",),
    "sampling": ("softmax", "cumsum", "searchsorted", "log", "gather", "sort"),
}


PROFILE_FROM = 40  # steps: how many before the profile begins, and how many it sees


def kind_of(operation: str) -> str:
    """Which part of a pass one of torch's operations belongs to."""
    name = operation.removeprefix("aten::").strip("_")
    for kind, words in KINDS.items():
        if any(name == word or (len(word) > 5 and word in name) for word in words):
            return kind
    return "other operations"


def roofline_row(pair: Pair, name: str, slots: int, seed: int, longest: int) -> str:
    work = ragged(pair, (4 if slots <= 16 else 2) * slots, seed, longest)
    ours(pair, work, slots, steps=PROFILE_FROM)  # warms up
    started = time.perf_counter()
    stats = ours(pair, work, slots).stats
    seconds, busy = time.perf_counter() - started, stats.prefill_seconds + stats.decode_seconds
    generator = ours(pair, work, slots, steps=PROFILE_FROM)
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU, *([activity.CUDA] if pair.device.type == "cuda" else [])]
    with torch.profiler.profile(activities=activities) as profile:
        began = time.perf_counter()
        while generator.busy and generator.steps < 2 * PROFILE_FROM:
            generator.step()
        profiled = time.perf_counter() - began
    parts: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        own = event.self_device_time_total if pair.device.type == "cuda" else event.self_cpu_time_total
        parts[kind_of(event.key)] += own / 1e6
    parts["Python and the rest"] = max(0.0, profiled - sum(parts.values()))
    shares = " | ".join(f"{parts[kind] / profiled:.0%}" for kind in (*KINDS, "other operations", "Python and the rest"))
    return (
        f"| {name}, {slots} | {stats.sampled_tokens / seconds:,.0f} | {stats.busy_passes / stats.passes:.0%} | "
        f"{1e3 * busy / stats.passes:.2f} | {stats.roofline_seconds / busy:.0%} | {shares} |"
    )


ROOFLINE_HEAD = [
    "| model, slots | tokens/s | slots busy | ms per pass | share of the roofline | "
    + " | ".join((*KINDS, "other operations", "Python and the rest"))
    + " |",
    "| --- |" + " ---: |" * (6 + len(KINDS)),
]


# --------------------------------------------------------------------------------------------------------------------


SECTIONS = {
    "ragged": "Ragged lengths",
    "continuous": "The same with `generate_batch`",
    "tools": "Several turns, with tools between them",
    "groups": "Groups of one prompt",
    "roofline": "The roofline, and where the time goes",
}


def report(arguments: argparse.Namespace) -> str:
    device, quick = torch.device(arguments.device), arguments.quick
    longest, rounds = (24, 1) if quick else (256, arguments.rounds)
    sections: dict[str, list[str]] = {name: [] for name in arguments.only}
    for name in arguments.models:
        pair = load(name, device)
        few = max(1, rounds // 2) if sum(p.numel() for p in pair.ours.parameters()) > 10**7 and not quick else rounds
        for slots in arguments.slots:
            seed = arguments.seed
            if "ragged" in sections:
                sections["ragged"] += ragged_section(pair, name, slots, few, seed, longest)
            if "tools" in sections and slots == arguments.slots[0]:
                sections["tools"] += tools_section(pair, name, slots, few, seed)
            if "groups" in sections and slots == arguments.slots[0]:
                sections["groups"] += groups_section(pair, name, slots, few, seed, quick)
        if "continuous" in sections and name == arguments.models[0]:
            sections["continuous"] += continuous_section(pair, name, arguments.slots[0], 1, arguments.seed, longest)
        for slots in arguments.roofline_slots if "roofline" in sections else []:
            sections["roofline"].append(roofline_row(pair, name, slots, arguments.seed, longest))
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    lines = [
        "# What a token costs",
        "",
        f"`python benchmarks/generator.py {' '.join(sys.argv[1:])}`".replace(" `", "`") + f" on {where}, "
        f"{torch.get_num_threads()} threads, {'bfloat16' if device.type == 'cuda' else 'float32'}, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}.",
        "",
        *__doc__.split("\n\n", 2)[2].strip().splitlines(),
        "",
        "Useful tokens are those of the replies asked for; a batch that runs until its longest reply is done makes",
        "others besides. Tokens per second: of the median round. Ratios: medians of the rounds (min-max).",
        "What was tried, and what is left to try: [log.md](log.md).",
    ]
    for name, body in sections.items():
        head = ROOFLINE_HEAD if name == "roofline" else HEAD
        lines += ["", f"## {SECTIONS[name]}", "", *head, *body]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "3M", "30M"], help=f"tiny, {', '.join(SIZES)}, folders")
    parser.add_argument("--slots", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--roofline_slots", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds; half as many for models above 10M")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="tiny work, one round")
    parser.add_argument("--out", default="", help="a file; none: to the screen alone")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    text = report(arguments)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
