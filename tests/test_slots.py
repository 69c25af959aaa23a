"""The cache in slots: how many there are, which lie side by side, and what is copied where."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import slots
from generator import graph_sizes
from model import ModelConfig
from slots import CacheError, SlotCache, affordable_slots, buckets, free_memory, moves, slot_bytes
from tests.conftest import hf_config

lengths_of_slots = st.lists(st.integers(0, 300), min_size=1, max_size=10).map(np.array)


def cost_of(lengths: np.ndarray, bounds: list[int], overhead: float) -> float:
    return sum(overhead + (b - a) * lengths[a:b].max() for a, b in itertools.pairwise(bounds))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(lengths_of_slots, st.sampled_from([0.5, 40.0, 1000.0]))
def test_buckets_are_the_cheapest_cut(lengths, overhead):
    """A dynamic programme that is off by one still cuts, only worse: nothing but speed would show it."""
    bounds, cost = buckets(lengths, overhead)
    assert bounds[0] == 0 and bounds[-1] == len(lengths) and bounds == sorted(set(bounds))
    assert cost == pytest.approx(cost_of(lengths, bounds, overhead))
    inner = range(1, len(lengths))
    cuts = (cut for n in range(len(lengths)) for cut in itertools.combinations(inner, n))
    assert cost == pytest.approx(min(cost_of(lengths, [0, *cut, len(lengths)], overhead) for cut in cuts))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_moves_bring_every_slot_into_its_bucket_and_lose_none(data):
    """Two slots moved to one place, or one moved onto a slot that stays, would mix two episodes."""
    total = data.draw(st.integers(1, 12))
    order = np.array(data.draw(st.permutations(range(total)))[: data.draw(st.integers(1, total))])
    inner = sorted(data.draw(st.sets(st.integers(1, len(order)))) - {len(order)})
    bounds = [0, *inner, len(order)]
    targets, sources = moves(order, bounds)
    assert len(set(targets.tolist())) == len(targets) == len(sources)
    at = {slot: slot for slot in order.tolist()}
    at.update(zip(sources.tolist(), targets.tolist(), strict=True))
    assert sorted(at.values()) == list(range(len(order)))  # everybody is somewhere, nobody twice
    for first, last in itertools.pairwise(bounds):
        assert {at[slot] for slot in order[first:last].tolist()} == set(range(first, last))
    stay = sum(first <= slot < last for first, last in itertools.pairwise(bounds) for slot in order[first:last])
    assert len(sources) == len(order) - stay


def test_copies_of_slots_happen_all_at_once():
    """A cycle of moves, copied one after the other, ends with two copies of one slot."""
    config = ModelConfig.from_hf(hf_config("qwen2"))
    cache = SlotCache(config, 4, 8, torch.float32, torch.device("cpu"))
    for keys, values in cache.layers:
        keys[:] = torch.arange(4.0)[:, None, None, None]
        values[:] = -keys
    cache.copy([0, 1, 2], [1, 2, 0], 5)
    for keys, values in cache.layers:
        assert keys[:, 0, :5, 0].tolist() == [[1.0] * 5, [2.0] * 5, [0.0] * 5, [3.0] * 5]
        assert keys[:, 0, 5:, 0].tolist() == [[0.0] * 3, [1.0] * 3, [2.0] * 3, [3.0] * 3]
        assert torch.equal(values, -keys)


def test_slots_are_what_the_memory_holds():
    """The estimate must be what the cache really takes, or it does not protect from running out of memory."""
    config, device = ModelConfig.from_hf(hf_config("qwen3")), torch.device("cpu")
    for dtype in (torch.float32, torch.bfloat16):
        each = slot_bytes(config, 100, dtype, device)
        cache = SlotCache(config, 3, 100, dtype, device)
        assert 3 * each == sum(store.nbytes for layer in cache.layers for store in layer)
    assert affordable_slots(64, 10, 1000) == 64
    assert affordable_slots(64, 10, 639.9) == 63
    assert affordable_slots(64, 10, 10) == 1
    with pytest.raises(
        CacheError, match=r"one sequence take 2 GiB, and 1\.5 GiB are there for them: lower --max_reply"
    ):
        affordable_slots(64, 2 * 2**30, 1.5 * 2**30)


def test_free_memory_is_shared_by_the_processes_of_a_machine(monkeypatch):
    """Each of eight ranks that takes 80 % of what is free takes 640 %."""
    monkeypatch.setattr(slots.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10**6}))
    alone = free_memory(torch.device("cpu"))
    assert 0 < alone <= 10**6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(torch.device("cpu")) == alone // 4


def test_slots_on_a_gpu_are_whole_pages():
    """The kernels want pages of a multiple of 256 tokens; a budget that forgot the rest would be overdrawn."""
    config, gpu = ModelConfig.from_hf(hf_config("qwen2")), torch.device("cuda")
    assert slot_bytes(config, 257, torch.bfloat16, gpu) == slot_bytes(config, 512, torch.bfloat16, gpu)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 16, 17, 80, 128, 130, 200, 256, 1000])
def test_graphs_are_there_for_every_number_of_slots(count):
    """A size that is missing would be looked for in vain in the middle of a run; one beyond the slots would write
    behind the cache."""
    sizes = graph_sizes(count)
    assert sizes == sorted(set(sizes)) and sizes[-1] == count
    for used in range(1, count + 1):
        size = next(size for size in sizes if size >= used)
        assert size <= max(16, 2 * used) and size - used < 64


# --------------------------------------------------------------------------------------------------------------------
# attention


def reference_kernel(q, keys, values, cu_seq_q, cu_seq_k, max_q, max_k, *, table, used):
    """What kernels for variable lengths over a cache in pages of one sequence each promise, row by row; causal from the
    last position backwards."""
    assert len(cu_seq_q) == len(used) + 1 and cu_seq_q.dtype == table.dtype == used.dtype == torch.int32
    assert table.shape == (len(used), 1) and int(cu_seq_q[-1]) == len(q)
    out = torch.empty_like(q)
    repeat = q.shape[1] // keys.shape[2]
    for i, (first, last) in enumerate(itertools.pairwise(cu_seq_q.tolist())):
        assert last - first <= max_q and used[i] <= max_k
        for row in range(first, last):
            end = int(used[i]) - (last - 1 - row)
            page = int(table[i, 0])
            key, value = (store[page, :end].repeat_interleave(repeat, 1) for store in (keys, values))
            weights = (torch.einsum("hd,lhd->hl", q[row], key) / q.shape[-1] ** 0.5).softmax(-1)
            out[row] = torch.einsum("hl,lhd->hd", weights, value)
    return out


def torch_kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, window_size, enable_gqa, seqused_k, block_table, num_splits):
    # Not optional, whatever the signature says: the CUDA kernel checks that both or none of the two are there.
    assert cu_k.dtype == torch.int32 and torch.equal(cu_k.diff(), seqused_k)
    assert window_size == (-1, 0) and enable_gqa and num_splits == 1
    return reference_kernel(q, k, v, cu_q, cu_k, max_q, max_k, table=block_table, used=seqused_k)


def flash_kernel(q, k, v, cu_q, cu_k, max_q, max_k, causal, block_table):
    assert causal and cu_k.dtype == torch.int32
    return reference_kernel(q, k, v, cu_q, cu_k, max_q, max_k, table=block_table, used=cu_k.diff())


@pytest.mark.parametrize("kernel", ["sdpa", "torch", "flash"])
@pytest.mark.parametrize(
    "decode, ranges, chunks",
    [
        ([(0, 9), (1, 4), (2, 1), (3, 12)], [(0, 2, 9), (2, 4, 12)], []),  # as a recorded pass has them
        ([(1, 7), (4, 3)], [(0, 3, 7), (3, 5, 3)], [(0, 0, 5), (2, 6, 9), (3, 0, 1)]),  # slots without a row between
        ([], [], [(3, 2, 12), (0, 0, 2)]),
    ],
)
def test_every_seam_attends_to_the_prefix_of_its_slot(kernel, decode, ranges, chunks, monkeypatch):
    """A row that sees its neighbour's slot, the future of its chunk, or what the slot's last owner left behind; and, on
    a GPU, a kernel that is told other lengths than it promises to keep."""
    monkeypatch.setattr(slots, "varlen_attn", torch_kernel if kernel == "torch" else None)
    monkeypatch.setattr(slots, "flash_attn_varlen_func", flash_kernel)
    config = ModelConfig.from_hf(hf_config("qwen2"))
    torch.manual_seed(0)
    cache = SlotCache(config, 5, 12, torch.float32, torch.device("cpu"))
    for store in cache.layers[0]:
        store.normal_()
    seam = slots.SlotAttention if kernel == "sdpa" else slots.VarlenAttention
    owners, lengths = torch.tensor(decode, dtype=torch.int64).view(-1, 2).T
    attend = seam(cache, owners, lengths, ranges, chunks)
    rows = [(slot, length - 1) for slot, length in decode]
    rows += [(slot, position) for slot, start, end in chunks for position in range(start, end)]
    assert list(zip(attend.slots.tolist(), attend.positions.tolist(), strict=True)) == rows
    q = torch.randn(len(rows), config.num_heads, config.head_dim)
    k, v = torch.randn(2, len(rows), config.num_kv_heads, config.head_dim)
    before = [store.clone() for store in cache.layers[0]]
    out = attend(0, q, k, v)
    for store, old, new in zip(cache.layers[0], before, (k, v), strict=True):
        for (slot, position), numbers in zip(rows, new, strict=True):
            old[slot, :, position] = numbers
        assert torch.equal(store, old)  # what was to be written, and nothing else
    keys, values = cache.layers[0]
    for row, (slot, position) in enumerate(rows):
        prefix = slice(None), slice(position + 1)
        key, value = (store[slot][prefix].repeat_interleave(2, 0) for store in (keys, values))
        weights = (torch.einsum("hd,hld->hl", q[row], key) / config.head_dim**0.5).softmax(-1)
        torch.testing.assert_close(out[row], torch.einsum("hl,hld->hd", weights, value), atol=1e-5, rtol=1e-5)
