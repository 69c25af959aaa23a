"""What a training will need, before anything is loaded: memory on each GPU, the slots that fit, and the least time a
step can take.

    python grpo.py runs/grpo-qwen2.5-3b.yaml --model runs/shapes/qwen2.5-3b --plan 8     # GPUs; --plan_card: which

Bytes are counted, not estimated, where the code decides them: weights, gradients, optimizer, the copy that generates,
keys and values; activations by running one layer without data. What kernels and libraries take besides is not known:
a tenth of the memory is left to them. Times are bounds: nothing but reading memory and multiplying, at the card's
ceilings.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cli import UserError
from model import Decoder, ModelConfig, load_config, resolve_model
from slots import slot_bytes
from training import LOGITS_PER_CHUNK

GIB = 2**30
RESERVE = 0.1  # of the card's memory
PROMPT_TOKENS = 300


class Card(NamedTuple):
    """Ceilings by the data sheet: memory in GiB, bytes per second, bf16 operations per second (dense)."""

    gib: float
    bandwidth: float
    flops: float


CARDS = {
    "a100": Card(80, 2.04e12, 312e12),
    "h100": Card(80, 3.35e12, 989e12),
    "h200": Card(141, 4.8e12, 989e12),
    "l40s": Card(48, 0.86e12, 362e12),
    "rtx4090": Card(24, 1.01e12, 165e12),
}


class SavedAttention(torch.autograd.Function):
    """Keeps for the backward pass what a flash kernel keeps: queries, keys, values, output, and a number per head."""

    @staticmethod
    def forward(context, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        context.save_for_backward(q, k, v, out := torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32))
        return out

    @staticmethod
    def backward(context, gradient: Tensor) -> None:
        raise NotImplementedError("this only counts")


def saved_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """What one layer keeps for the backward pass, per token."""
    rows = 256
    with torch.device("meta"):
        model = Decoder(dataclasses.replace(config, num_layers=1, vocab_size=8, tied=True)).to(dtype)
        x = torch.empty(rows, config.hidden_size, dtype=dtype, requires_grad=True)
        angles = torch.empty(rows, 1, config.head_dim)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    held = []  # so that no storage is freed, and its place taken by another

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            held.append(storage)
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.layers[0](0, x, angles, angles, lambda layer, q, k, v: SavedAttention.apply(q, k, v))
    return sum(kept.values()) // rows


def parameters(config: ModelConfig) -> tuple[int, int, int]:
    """How many there are in all, in one layer, and outside the layers."""
    with torch.device("meta"):
        model = Decoder(config)
    total, layers = (sum(p.numel() for p in module.parameters()) for module in (model, model.layers))
    return total, layers // config.num_layers, total - layers


class Memory(NamedTuple):
    """Bytes on one GPU, by what they are for, and how many slots would fit."""

    always: dict[str, float]
    rollout: dict[str, float]
    update: dict[str, float]
    slots: int

    @property
    def peak(self) -> float:
        return sum(self.always.values()) + max(sum(self.rollout.values()), sum(self.update.values()))


class Work(NamedTuple):
    """What is to be done by all GPUs together, in one step."""

    episodes: int
    group_size: int
    reply_tokens: float  # mean
    updates: int  # optimizer updates
    reference: bool


def memory(
    config: ModelConfig,
    card: Card,
    gpus: int,
    slots: int,
    slot_tokens: int,
    batch_tokens: int,
    reference: bool,
    recompute: bool,
    dtype: torch.dtype = torch.bfloat16,
    cache_gib: float = 0.0,
) -> Memory:
    """Where `slots` of `slot_tokens` each are wanted on every GPU, and micro-batches have `batch_tokens`. `gpus`: among
    which the weights are sharded. `cache_gib`: what is set apart for keys and values, and kept while updating."""
    total, layer, _ = parameters(config)
    size, output = dtype.itemsize, config.vocab_size * config.hidden_size
    always = {
        "trained weights, fp32, sharded": 4 * total / gpus,
        "their gradients, fp32, sharded": 4 * total / gpus,
        "two moments of the optimizer, fp32, sharded": 8 * total / gpus,
        "the copy that generates": size * total,
    }
    if reference:
        always["the reference of the KL term, sharded"] = size * total / gpus
    kept, between = saved_bytes(config, dtype), config.hidden_size * size
    update = {
        # This layer and the next, the output, and the gradients of one of them before they are summed.
        "weights gathered for a pass": size * (2 * layer + output) + (size + 4) * max(layer, output),
        "activations of a micro-batch": batch_tokens
        * (config.num_layers * between + kept if recompute else config.num_layers * kept),
        "logits of a chunk, and what becomes of them": (size + 8) * LOGITS_PER_CHUNK,
    }
    each = slot_bytes(config, slot_tokens, dtype, torch.device("cuda"))
    room = cache_gib * GIB if cache_gib else (1 - RESERVE) * card.gib * GIB - sum(always.values())
    fit = max(0, int(room // each))
    cache = {f"keys and values of {min(slots, fit)} slots": min(slots, fit) * each}
    return Memory(always | cache, {}, update, fit) if cache_gib else Memory(always, cache, update, fit)


def least_seconds(
    config: ModelConfig, card: Card, gpus: int, slots: int, work: Work, recompute: bool, size: int = 2
) -> tuple[float, float]:
    """Of the rollout and of the updates of one step, if nothing were done but to read weights, keys and values, and to
    multiply, at the card's ceilings; prompts of PROMPT_TOKENS."""
    total = parameters(config)[0]
    length = PROMPT_TOKENS + work.reply_tokens
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * size  # bytes of keys and values, a token
    attention = 4 * config.num_layers * config.num_heads * config.head_dim * length / 2  # operations of a query
    episodes = work.episodes / gpus
    rows = min(slots, episodes)
    reading = (size * total + rows * length / 2 * cache) / card.bandwidth
    decoding = episodes * work.reply_tokens / rows * max(reading, rows * (2 * total + attention) / card.flops)
    prefilling = episodes / work.group_size * PROMPT_TOKENS * 2 * total / card.flops
    passes = 3 + recompute + work.reference + (work.updates > 1)  # forward passes; a backward pass counts as two
    return decoding + prefilling, episodes * length * (2 * total + attention) * passes / card.flops


def report(
    title: str, need: Memory, card: Card, slots: int, seconds: tuple[float, float], gpus: int, work: Work
) -> str:
    """All of it as text."""

    def part(name: str, rows: dict[str, float]) -> list[str]:
        return [f"{name}:", *(f"  {what:46} {size / GIB:8.1f} GiB" for what, size in rows.items())]

    lines = [title, *part("always", need.always), *part("while sampling", need.rollout)]
    lines += [*part("while updating", need.update), f"{'peak':48} {need.peak / GIB:8.1f} of {card.gib:g} GiB"]
    if need.peak > (1 - RESERVE) * card.gib * GIB:
        lines.append(
            f"  DOES NOT FIT with {RESERVE:.0%} left for kernels: more GPUs, --recompute, or fewer --micro_batch_tokens"
        )
    if need.slots < slots:
        lines.append(f"  only {need.slots} of {slots} slots fit")
    whole = sum(seconds)
    lines += [
        f"a step of {work.episodes} replies of {work.reply_tokens:.0f} tokens to prompts of {PROMPT_TOKENS} takes at "
        f"least {seconds[0]:.1f} s to sample and {seconds[1]:.1f} s to update",
        f"= {work.episodes * work.reply_tokens / whole:,.0f} tokens/s, {whole * gpus / 3600:.3f} GPU-hours a step",
    ]
    return "\n".join(lines)


def planned(arguments: Any) -> str:
    """What the configuration of a training by grpo.py needs on `arguments.plan` GPUs."""
    config, gpus = ModelConfig.from_hf(load_config(resolve_model(arguments.model, weights=False))), arguments.plan
    if gpus % arguments.replicas:
        raise UserError(f"--replicas {arguments.replicas} does not divide the number of GPUs, {gpus}")
    card, episodes = CARDS[arguments.plan_card], arguments.prompts_per_step * arguments.group_size
    # How long replies will be is not known: a quarter of what they may be, on average.
    work = Work(
        episodes, arguments.group_size, arguments.max_reply_tokens / 4, arguments.updates_per_step, arguments.kl > 0
    )
    slots = min(arguments.slots, math.ceil(episodes / gpus))
    slot_tokens, batch = PROMPT_TOKENS + arguments.max_reply_tokens, arguments.micro_batch_tokens
    shards, cache = gpus // arguments.replicas, arguments.cache_gib
    need = memory(config, card, shards, slots, slot_tokens, batch, work.reference, arguments.recompute, cache_gib=cache)
    seconds = least_seconds(config, card, gpus, min(slots, max(1, need.slots)), work, arguments.recompute)
    return report(f"{arguments.model} on {gpus} x {arguments.plan_card}, each", need, card, slots, seconds, gpus, work)
