"""The KV cache in slots, and attention over slots of different length.

The cache is dense: every sequence owns a slot, one row of [slots, kv_heads, length, head_dim] in the keys and in the
values of each layer. The rows of a forward pass write their own key and value, then attend to the prefix of their slot:
rows that decode, one per slot, and chunks of consecutive positions of one slot, which are prompts and observations.

    SlotAttention     scaled_dot_product_attention, on any device. Slots that lie side by side are attended to together,
                      up to the longest of them; the generator keeps slots of like length together (`buckets`, `moves`).
    VarlenAttention   CUDA, bf16 and fp16: one call of torch's or flash-attn's variable-length kernel for all rows

Differs from serving engines: no pages. A slot has room for the longest sequence allowed.
"""

import inspect
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from torch import Tensor

from model import ModelConfig, flash_attn_varlen_func

try:
    from torch.nn.attention.varlen import varlen_attn

    if "block_table" not in inspect.signature(varlen_attn).parameters:
        varlen_attn = None
except ImportError:
    varlen_attn = None

PAGE = 256  # what flash-attention's kernels want the length of a page, here a slot, to be a multiple of
FREE_SHARE = 0.8  # of the memory that is free, for the cache; the rest is for activations


class CacheError(Exception):
    """The memory for keys and values does not hold a single sequence."""


Chunk = tuple[int, int, int]
"""slot, first position, position after the last"""


# --------------------------------------------------------------------------------------------------------------------
# memory


def free_memory(device: torch.device) -> int:
    """Bytes that this process can allocate on a device, as far as it can be told."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    free = psutil.virtual_memory().available
    try:  # what a container may still take
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        free = min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError):  # no such limit
        pass
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun: they share it


def slot_length(length: int, device: torch.device) -> int:
    """How many tokens a slot is given room for, where `length` are needed."""
    return -(-length // PAGE) * PAGE if device.type == "cuda" else length


def slot_bytes(config: ModelConfig, length: int, dtype: torch.dtype, device: torch.device) -> int:
    """What the keys and values of one slot take."""
    numbers = 2 * config.num_layers * config.num_kv_heads * config.head_dim * slot_length(length, device)
    return numbers * dtype.itemsize


def affordable_slots(wanted: int, each: int, budget: float) -> int:
    """How many slots of `each` bytes there shall be; CacheError where the budget is too small for a single one."""
    if budget < each:
        raise CacheError(
            f"the keys and values of one sequence take {each / 2**30:.3g} GiB, and {budget / 2**30:.3g} GiB are there "
            "for them: lower --max_reply_tokens, or raise --cache_gib"
        )
    return min(wanted, int(budget // each))


class SlotCache:
    """Keys and values of all layers."""

    def __init__(self, config: ModelConfig, slots: int, length: int, dtype: torch.dtype, device: torch.device):
        self.length = slot_length(length, device)
        shape = (slots, config.num_kv_heads, self.length, config.head_dim)
        # Zeros, since what nobody has written yet is read: with weight 0, and 0 times nan is nan.
        self.layers = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.num_layers)
        ]
        # Where the heads of position 0 of slot 0 begin, in the cache seen as rows of head_dim numbers.
        self.heads = torch.arange(config.num_kv_heads, device=device) * self.length

    def rows(self, slots: Tensor, positions: Tensor) -> Tensor:
        """int64 [n * kv_heads]: where the keys (and values) of these positions are, as `write` wants it."""
        return (slots[:, None] * len(self.heads) * self.length + self.heads + positions[:, None]).flatten()

    def write(self, layer: int, rows: Tensor, k: Tensor, v: Tensor) -> None:
        for store, new in zip(self.layers[layer], (k, v), strict=True):
            store.view(-1, store.shape[-1]).index_copy_(0, rows, new.reshape(-1, store.shape[-1]))

    def copy(self, targets: Sequence[int], sources: Sequence[int], length: int) -> None:
        """Slots `sources` to `targets`, as if all at once, up to `length`."""
        device = self.heads.device
        to, of = torch.as_tensor(targets, device=device), torch.as_tensor(sources, device=device)
        for layer in self.layers:
            for store in layer:
                store[to, :, :length] = store[of, :, :length]


# --------------------------------------------------------------------------------------------------------------------
# slots of like length side by side


def buckets(lengths: np.ndarray, overhead: float) -> tuple[list[int], float]:
    """The best cut of neighbouring slots into buckets, and its cost. Attention over a bucket costs its size times its
    longest, and `overhead`. The cut: where the buckets begin, and the end."""
    best, cut = np.zeros(len(lengths) + 1), np.zeros(len(lengths) + 1, dtype=np.int64)
    for end in range(1, len(lengths) + 1):
        longest = np.maximum.accumulate(lengths[end - 1 :: -1] if end else lengths[:0])[::-1]
        costs = best[:end] + overhead + longest * np.arange(end, 0, -1)
        cut[end] = costs.argmin()
        best[end] = costs[cut[end]]
    bounds = [len(lengths)]
    while bounds[-1]:
        bounds.append(int(cut[bounds[-1]]))
    return bounds[::-1], float(best[-1])


def moves(order: np.ndarray, bounds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Targets and sources of the fewest copies after which the slots `order[a:b]` lie in [a, b), for all buckets."""
    targets, sources = [], []
    for first, last in pairwise(bounds):
        members = order[first:last]
        there = (members >= first) & (members < last)
        targets.append(np.setdiff1d(np.arange(first, last), members[there]))
        sources.append(members[~there])
    return np.concatenate(targets), np.concatenate(sources)


# --------------------------------------------------------------------------------------------------------------------
# attention


class SlotAttention:
    """The attention seam of one step: rows that decode, one per slot, and after them chunks.

    `slots`, `positions` (int64 [rows]): of all rows, on the device.
    """

    def __init__(
        self,
        cache: SlotCache,
        slots: Tensor,
        lengths: Tensor,
        ranges: list[tuple[int, int, int]],
        chunks: list[Chunk],
    ):
        """`slots`, `lengths` (int64 [decode rows], on the device): of those that decode, the row itself included.
        `ranges`: (first slot, last slot + 1, longest), side by side from slot 0, that cover them. `chunks`: on the
        host. With no chunks, nothing is copied to the device, as a CUDA graph demands."""
        self.cache, self.chunks, self.decode_rows = cache, chunks, len(slots)
        self.slots, self.positions = slots, (lengths - 1).clamp_(min=0)  # of a slot without owner: 0
        if chunks:
            more = np.concatenate([np.full(end - start, slot) for slot, start, end in chunks])
            where = np.concatenate([np.arange(start, end) for _, start, end in chunks])
            self.slots = torch.cat((slots, torch.from_numpy(more).to(slots.device)))
            self.positions = torch.cat((self.positions, torch.from_numpy(where).to(slots.device)))
        self.into = cache.rows(self.slots, self.positions)
        self.prepare(slots, lengths, ranges)

    def prepare(self, slots: Tensor, lengths: Tensor, ranges: list[tuple[int, int, int]]) -> None:
        dtype, device = self.cache.layers[0][0].dtype, slots.device
        self.ranges = ranges
        if len(slots):
            # Attend over the slots as they lie: gathering those that decode would copy their cache for every layer.
            top = ranges[-1][1]
            self.spread = None if top == len(slots) else slots
            prefix = lengths.clamp(min=1)  # an empty softmax would be nan
            if self.spread is not None:
                prefix = torch.ones(top, dtype=torch.int64, device=device).index_copy_(0, slots, prefix)
            beyond = torch.arange(max(n for *_, n in ranges), device=device) >= prefix[:, None]
            mask = torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, -torch.inf)
            self.masks = [mask[a:b, None, None, :n] for a, b, n in ranges]
        self.chunk_masks = [  # a prompt from its beginning needs none
            torch.full((end - start, end), -torch.inf, dtype=dtype, device=device).triu_(start + 1) if start else None
            for _, start, end in self.chunks
        ]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.cache.write(layer, self.into, k, v)
        keys, values = self.cache.layers[layer]
        d, (heads, size) = self.decode_rows, q.shape[1:]
        pieces = []
        if d:
            # Query heads that share a kv head stand where a query's positions usually do: no key is repeated.
            query = q[:d].view(d, keys.shape[1], -1, size)
            if self.spread is not None:
                query = query.new_zeros(self.ranges[-1][1], *query.shape[1:]).index_copy_(0, self.spread, query)
            parts = [
                F.scaled_dot_product_attention(query[a:b], keys[a:b, :, :n], values[a:b, :, :n], mask)
                for (a, b, n), mask in zip(self.ranges, self.masks, strict=True)
            ]
            attended = parts[0] if len(parts) == 1 else torch.cat(parts)
            pieces.append((attended if self.spread is None else attended[self.spread]).reshape(d, heads, size))
        for (slot, start, end), mask in zip(self.chunks, self.chunk_masks, strict=True):
            query = q[d : d + end - start].transpose(0, 1)[None]
            d += end - start
            key, value = keys[slot, None, :, :end], values[slot, None, :, :end]
            attended = F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, enable_gqa=True)
            pieces.append(attended[0].transpose(0, 1))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class VarlenAttention(SlotAttention):
    """The same by one call of a kernel for variable lengths, to which a slot is a page of its own."""

    def prepare(self, slots: Tensor, lengths: Tensor, ranges: list[tuple[int, int, int]]) -> None:
        device = slots.device
        counts = torch.ones(len(slots), dtype=torch.int64, device=device)
        if self.chunks:
            owners, starts, ends = torch.tensor(self.chunks, device=device).T
            counts = torch.cat((counts, ends - starts))
            slots, lengths = torch.cat((slots, owners)), torch.cat((lengths, ends))
        self.first_rows = F.pad(counts.cumsum(0), (1, 0)).int()
        self.prefix = lengths.clamp(min=1).int()
        self.first_keys = F.pad(self.prefix.cumsum(0), (1, 0)).int()
        self.table = slots[:, None].int()
        self.longest_chunk = max([end - start for _, start, end in self.chunks], default=1)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.cache.write(layer, self.into, k, v)
        keys, values = (store.transpose(1, 2) for store in self.cache.layers[layer])
        longest = self.cache.length
        if varlen_attn is not None:
            return varlen_attn(
                q, keys, values, self.first_rows, self.first_keys, self.longest_chunk, longest,
                window_size=(-1, 0), enable_gqa=True, seqused_k=self.prefix, block_table=self.table,
                num_splits=1,  # with more, the order of the sums depends on the batch
            )  # fmt: skip
        return flash_attn_varlen_func(
            q, keys, values, self.first_rows, self.first_keys, self.longest_chunk, longest,
            causal=True, block_table=self.table,
        )  # fmt: skip


def attention_for(cache: SlotCache) -> type[SlotAttention]:
    """The fastest seam for this cache."""
    store = cache.layers[0][0]
    kernels = varlen_attn is not None or flash_attn_varlen_func is not None
    return VarlenAttention if kernels and store.is_cuda and store.dtype.itemsize == 2 else SlotAttention
