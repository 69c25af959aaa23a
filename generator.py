"""Batched generation with a KV cache in slots and continuous batching; knows nothing of code, tools or tasks.

A sequence owns a slot of the cache (slots.py). A step runs, in one packed forward pass, every token that is known but
not yet in the cache: one row for a sequence that is decoding, a chunk of rows for a prompt or for an observation that
has just come back. All rows are treated alike: each writes its key and value, then attends to the prefix of its slot.
Where a sequence's last known token has been run, the next one is sampled.

    queued -> prefilling -> decoding <-> parked -> done

`step` returns the sequences that want a decision: a token flagged in `watch` was sampled, or they have ended. The
caller lets them go on, parks them WITH their cache while a tool works (`park`, later `resume` with the tool's output,
which is prefilled as a chunk while the others decode), or ends them (`finish`). A free slot is refilled at once. The
prompt of a group of samples is prefilled once and copied.

On a GPU decoding is bound by the launches of kernels, so passes that only decode are recorded as CUDA graphs, one for
each of a few numbers of slots, sampling and stopping included, and replayed several times between two looks at what has
stopped; prompts and observations then have a pass of their own.

Differs from serving engines: no paging, no scheduler processes; what it adds is that sampling is replayable
(sampling.py).
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Hashable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import Decoder
from sampling import sample, uniforms
from slots import Chunk, SlotCache, attention_for, buckets, moves
from throughput import GeneratorStats, Roofline

ARRANGE_EVERY = 16  # steps: how often it is asked whether slots of like length should be brought together
COPY_COST = 4  # of a token's key and value, in units of attending to it once
CALL_COST = 2**15  # of one more bucket, in the same units, times the numbers in a token's key
PREFILL_TOKENS = 512  # per step
PASSES = 4  # decode passes between two looks, on a GPU
NOBODY = object()  # whose prompt lies in a slot that was never used

Capture = Callable[[Callable[[], None]], Callable[[], None]]


# --------------------------------------------------------------------------------------------------------------------
# CUDA graphs


def capture_graph() -> Capture:
    """What records a function as a CUDA graph and returns its replay. All graphs share one pool of memory."""
    pool = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], None]) -> Callable[[], None]:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries allocate and choose kernels on first use, which no graph may hold
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            function()
        return graph.replay

    return capture


def graph_sizes(slots: int) -> list[int]:
    """For which numbers of slots a decode pass is recorded: powers of two to 16, then every multiple of 16 up to 128,
    then of 64; and all of them."""
    sizes = [1, 2, 4, 8, *range(16, 128, 16), *range(128, slots, 64)]
    return [*(size for size in sizes if size < slots), slots]


# --------------------------------------------------------------------------------------------------------------------
# the generator


@dataclasses.dataclass(eq=False)
class Sequence:
    """One sample in the making. `tokens`, `sampled` and `logprobs` are filled when it is done."""

    prompt: list[int]
    key: int  # see sampling_key
    max_length: int  # prompt, observations and sampled tokens together
    group: Hashable  # sequences of one group have the same prompt
    slot: int = -1
    turn_start: int = 0  # where the tokens sampled since the prompt or the last observation begin
    ended: str = ""  # "" | "end" (an end token) | "length" | "finished" (by the caller)
    tokens: Tensor | None = None  # int64 [length]
    sampled: Tensor | None = None  # bool [length]: True where the model chose the token
    logprobs: Tensor | None = None  # float32 [length], 0 where not sampled


class Generator:
    """Drives one model over any number of sequences, `slots` at a time.

    `watch`: bool [vocab], tokens after which the caller wants to look at the sequence. `end_ids` end a sequence.
    `prefill_tokens`: how many prompt or observation tokens may ride along in one step, so that a long prompt does not
    stall those that decode. `top_p` is for evaluation only, see `sample`. `capture` records decode passes for replay,
    `passes` of them per step: CUDA graphs on a GPU, nothing on a CPU. Memory: `slots.slot_bytes` for each slot.
    """

    def __init__(
        self,
        model: Decoder,
        slots: int,
        max_length: int,
        watch: Tensor,
        end_ids: list[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        prefill_tokens: int = PREFILL_TOKENS,
        capture: Capture | None = None,
        passes: int = PASSES,
    ):
        config, device = model.config, model.embed_tokens.weight.device
        self.model, self.device = model, device
        self.slots, self.max_length, self.prefill_tokens = slots, max_length, prefill_tokens
        self.ends = torch.zeros(config.vocab_size, dtype=torch.bool, device=device)
        self.ends[end_ids] = True
        self.watch = F.pad(watch.to(device), (0, config.vocab_size - len(watch))) | self.ends
        self.cache = SlotCache(config, slots, max_length, model.embed_tokens.weight.dtype, device)
        self.attention = attention_for(self.cache)
        self.roofline = Roofline(model)
        if capture is None and device.type == "cuda":
            capture = capture_graph()
        self.capture, self.passes = capture, passes
        self.graphs: dict[tuple, Callable[[], None]] = {}
        self.storage: list[int] = []  # of the weights that graphs were recorded with
        self.graph_sizes = graph_sizes(slots)
        self.all_slots = torch.arange(
            slots, device=device
        )  # a graph reads what it was recorded with, and keeps nothing

        # One column more than a sequence may have: passes that are replayed write for every slot, also where nothing
        # is to be sampled, and there what they write lies behind the last known token.
        self.tokens = torch.zeros(slots, max_length + 1, dtype=torch.int64, device=device)
        self.sampled = torch.zeros(slots, max_length + 1, dtype=torch.bool, device=device)
        self.logprobs = torch.zeros(slots, max_length + 1, dtype=torch.float32, device=device)
        # Per slot: tokens known, the length at which it ends, whether a token is to be sampled, the sampling key. The
        # device's copy is what passes read and change; on a CPU the two are one.
        self.host = torch.zeros(4, slots, dtype=torch.int64, pin_memory=device.type == "cuda")
        self.state = self.host.to(device)
        self.length, self.limit, self.active, self.key = self.host.numpy()
        # On the host alone: tokens in the cache, whether it may run, whose it is, whose prompt lies at its beginning.
        self.cached = np.zeros(slots, dtype=np.int64)
        self.running = np.zeros(slots, dtype=bool)
        self.owner: list[Sequence | None] = [None] * slots
        self.queue: deque[Sequence] = deque()
        self.leaders: dict[Hashable, Sequence] = {}  # of groups whose prompt is being prefilled
        self.restart(temperature, top_p, GeneratorStats())

    def restart(self, temperature: float, top_p: float, stats: GeneratorStats) -> None:
        """Once all is done, for another round with other weights: what lies in the cache is forgotten, and `stats`
        count from here on. Recorded graphs stay, unless the weights have moved rather than changed in place."""
        assert not self.queue and not any(self.owner), "a sequence is not done"
        self.temperature, self.top_p, self.stats = temperature, top_p, stats
        self.prompt_of, self.bounds = [NOBODY] * self.slots, [0, self.slots]
        self.steps = self.arrange_at = 0
        storage = [parameter.data_ptr() for parameter in self.model.parameters()]
        if storage != self.storage:
            self.model.fuse()
            self.graphs.clear()
            self.storage = [parameter.data_ptr() for parameter in self.model.parameters()]

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do; parked sequences do not count, nor those that wait for one of them."""
        return bool(self.running.any()) or (bool(self.queue) and None in self.owner and not self.leaders)

    def add(self, prompt: list[int], key: int, max_new_tokens: int, group: Hashable) -> Sequence:
        """Queues a sequence. Raises ValueError for a prompt that leaves no room for a single token."""
        max_length = min(self.max_length, len(prompt) + max_new_tokens)
        if len(prompt) >= max_length:
            raise ValueError(f"a prompt of {len(prompt)} tokens does not fit a context of {self.max_length}")
        sequence = Sequence(list(prompt), key, max_length, group, turn_start=len(prompt))
        self.queue.append(sequence)
        return sequence

    def turn_tokens(self, sequence: Sequence) -> list[int]:
        """The tokens sampled since the prompt or the last observation."""
        return self.known(sequence, sequence.turn_start)[0].tolist()

    def known(self, sequence: Sequence, start: int) -> tuple[Tensor, Tensor]:
        """Tokens (int64 [n]) and `sampled` (bool [n]) from `start` on; the sequence must have left the queue."""
        if sequence.tokens is not None:
            return sequence.tokens[start:], sequence.sampled[start:]
        stretch = sequence.slot, slice(start, self.length[sequence.slot])
        return self.tokens[stretch], self.sampled[stretch]

    def park(self, sequence: Sequence) -> None:
        """Takes a sequence out of the batch; it keeps its slot and cache until `resume`."""
        self.running[sequence.slot] = False

    def resume(self, sequence: Sequence, observation: list[int]) -> bool:
        """Appends tokens that were not sampled and lets the sequence go on. Where they leave no room for another token,
        nothing is appended, the sequence ends by length, and the answer is False."""
        slot, start = sequence.slot, self.length[sequence.slot]
        if start + len(observation) >= self.limit[slot]:
            self._release(sequence, "length")
            return False
        self._append(slot, slice(start, start + len(observation)), torch.tensor(observation), False, 0.0)
        self.length[slot] += len(observation)
        sequence.turn_start = int(self.length[slot])
        self.running[slot] = True
        return True

    def finish(self, sequence: Sequence) -> None:
        """Ends a sequence by the caller's decision; its slot is free. One that still waits in the queue leaves it."""
        if sequence.slot < 0:
            self.queue.remove(sequence)
            sequence.tokens, sequence.ended = torch.tensor(sequence.prompt), "finished"
            sequence.sampled, sequence.logprobs = torch.zeros_like(sequence.tokens).bool(), sequence.tokens * 0.0
        else:
            self._release(sequence, "finished")

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """Runs what is known and not in the cache, and samples a token for every sequence that is all there; on a GPU
        several, one after the other. Returns the sequences whose last token is watched and those that ended, in the
        order of their slots."""
        self._admit()
        self._arrange()
        missing = np.where(self.running, self.length - self.cached, 0)
        decode, chunks = np.flatnonzero(missing == 1), self._chunks(missing)
        if not len(decode) and not chunks:
            return []
        ready = [slot for slot, _, end in chunks if end == self.length[slot]]
        sampling = np.sort(np.concatenate([decode, np.array(ready, dtype=np.int64)]))
        before = self.length[sampling]
        self.active[:] = 0
        self.active[sampling] = 1
        started = time.perf_counter()
        self._push()
        if self.capture is None:
            passes = 1
            self._pass(torch.from_numpy(decode).to(self.device), self._ranges(decode), chunks)
        else:
            passes = 0
            if chunks:
                passes = 1
                self._pass(torch.from_numpy(decode[:0]).to(self.device), [], chunks)
            if len(sampling):
                passes += self.passes
                self._replay(int(sampling[-1]) + 1)
        self._pull()
        self._count(time.perf_counter() - started, chunks, before, self.length[sampling] - before, passes)
        self.steps += passes
        for slot, _, end in chunks:
            self.cached[slot] = end
        self.cached[sampling] = self.length[sampling] - 1
        # Whatever brought it in: the last token of a prompt may come alone, which is a row like those that decode.
        for group, leader in list(self.leaders.items()):
            if self.cached[leader.slot] >= len(leader.prompt):
                del self.leaders[group]
                self.prompt_of[leader.slot] = group
        return self._stopped(sampling[self.active[sampling] == 0])

    def _stopped(self, slots: np.ndarray) -> list[Sequence]:
        """The owners of these slots, released if they ended."""
        if not len(slots):
            return []
        stopped = [self.owner[slot] for slot in slots]
        last = self.tokens[torch.from_numpy(slots), torch.from_numpy(self.length[slots] - 1)]
        at_end, at_limit = self.ends[last].tolist(), (self.length[slots] >= self.limit[slots]).tolist()
        for sequence, end, limit in zip(stopped, at_end, at_limit, strict=True):
            if end or limit:
                self._release(sequence, "end" if end else "length")
        return stopped

    # ----------------------------------------------------------------------------------------------------------------
    # passes

    def _pass(self, slots: Tensor, ranges: list[tuple[int, int, int]], chunks: list[Chunk]) -> None:
        """One forward pass over the slots that decode (int64, on the device) and the chunks, and a token for each of
        these slots and each chunk that completes its sequence. Without chunks it runs on the device alone."""
        attend = self.attention(self.cache, slots, self.state[0][slots], ranges, chunks)
        hidden = self.model(self.tokens[attend.slots, attend.positions], attend.positions, attend)
        if chunks:
            last = len(slots) - 1 + np.cumsum([end - start for _, start, end in chunks])
            ready = [end == self.length[slot] for slot, _, end in chunks]
            rows = np.concatenate([np.arange(len(slots)), last[ready]])
            if not len(rows):
                return
            hidden = hidden[torch.from_numpy(rows).to(self.device)]
            ended = torch.tensor([chunk[0] for chunk, yes in zip(chunks, ready, strict=True) if yes], dtype=torch.int64)
            slots = torch.cat((slots, ended.to(self.device)))
        length, limit, active, key = self.state[:, slots]
        uniform = uniforms(key, length)
        tokens, logprobs = sample(self.model.logits(hidden), self.temperature, uniform, self.top_p)
        # A tensor, since a Python value would be copied from the host, which no recording may do.
        self._append(slots, length, tokens, torch.ones_like(tokens, dtype=torch.bool), logprobs)
        length = length + active
        self.state[0][slots] = length
        self.state[2][slots] = active & ~(self.watch[tokens] | (length >= limit))

    def _replay(self, top: int) -> None:
        """`passes` decode passes over the first slots, recorded once for each size and way of sampling."""
        size = next(size for size in self.graph_sizes if size >= top)
        key = size, self.temperature, self.top_p
        if key not in self.graphs:
            slots, active = self.all_slots[:size], self.state[2].clone()
            self.state[2] = 0  # what is run to be recorded must not count
            self.graphs[key] = self.capture(lambda: self._pass(slots, [(0, size, self.cache.length)], []))
            self.state[2] = active
        for _ in range(self.passes):
            self.graphs[key]()

    def _count(self, seconds: float, chunks: list[Chunk], before: np.ndarray, new: np.ndarray, passes: int) -> None:
        """Adds up what a step has cost: `before` and `new` tokens of the sequences that sampled."""
        stats, prefilled = self.stats, sum(end - start for _, start, end in chunks)
        sampled = int(new.sum())
        prefix = int((new * before + new * (new - 1) // 2).sum()) + sum(end for *_, end in chunks)
        pairs = prefix + sum((start + end) * (end - start) // 2 for _, start, end in chunks)
        stats.roofline_seconds += self.roofline.seconds(prefilled + sampled, sampled, prefix, pairs, passes)
        stats.passes += passes
        stats.busy_passes += passes * float(self.running.mean())
        stats.sampled_tokens += sampled
        stats.prefilled_tokens += prefilled
        stats.prefill_seconds += seconds * prefilled / max(1, prefilled + sampled)
        stats.decode_seconds += seconds * sampled / max(1, prefilled + sampled)

    def _push(self) -> None:
        if self.state is not self.host:
            self.state.copy_(self.host, non_blocking=True)

    def _pull(self) -> None:
        if self.state is not self.host:
            self.host.copy_(self.state)

    def _append(self, slots, positions, tokens: Tensor, sampled: Tensor | bool, logprobs: Tensor | float) -> None:
        """The only place that writes tokens: ids, mask and log-probs cannot come apart."""
        for record, value in ((self.tokens, tokens), (self.sampled, sampled), (self.logprobs, logprobs)):
            record[slots, positions] = value.to(self.device) if isinstance(value, Tensor) else value

    # ----------------------------------------------------------------------------------------------------------------
    # slots

    def _chunks(self, missing: np.ndarray) -> list[Chunk]:
        """What of prompts and observations is to be run in this step."""
        chunks, budget = [], self.prefill_tokens
        for slot in np.flatnonzero(missing > 1).tolist():
            if budget > 0:
                start = int(self.cached[slot])
                end = min(start + budget, int(self.length[slot]))
                chunks.append((slot, start, end))
                budget -= end - start
        return chunks

    def _admit(self) -> None:
        """Gives free slots to queued sequences. The first of a group prefills the prompt; the rest wait for a copy."""
        free = [slot for slot, owner in enumerate(self.owner) if owner is None] if self.queue else []
        held = []
        while self.queue and free:
            sequence = self.queue.popleft()
            n, group = len(sequence.prompt), sequence.group
            source = self.prompt_of.index(group) if group in self.prompt_of else None
            if source is None and group in self.leaders:
                held.append(sequence)
                continue
            slot = next((slot for slot in free if self.prompt_of[slot] == group), free[0])
            free.remove(slot)
            self._append(slot, slice(n), torch.tensor(sequence.prompt), False, 0.0)
            self.owner[slot], self.running[slot], sequence.slot = sequence, True, slot
            self.length[slot], self.limit[slot], self.key[slot] = n, sequence.max_length, sequence.key
            if source is None:
                self.leaders[group] = sequence
                self.prompt_of[slot], self.cached[slot] = NOBODY, 0
            else:
                if self.prompt_of[slot] != group:
                    self.cache.copy([slot], [source], n)
                self.prompt_of[slot] = group
                self.cached[slot] = n - 1  # the last token is run again: it yields the logits of the first sample
        self.queue.extendleft(reversed(held))

    def _arrange(self) -> None:
        """Brings slots of like length together, and those without owner to the end, where that is worth the copies."""
        if self.steps < self.arrange_at:
            return
        self.arrange_at = self.steps + ARRANGE_EVERY
        owned = np.array([slot for slot, owner in enumerate(self.owner) if owner is not None], dtype=np.int64)
        if not len(owned):
            return
        lengths = np.zeros(self.slots, dtype=np.int64)
        lengths[owned] = self.length[owned]
        if self.capture is None:
            overhead = CALL_COST / (self.model.config.num_kv_heads * self.model.config.head_dim)
            self.bounds, cost = buckets(lengths[: owned[-1] + 1], overhead)
            order = owned[np.argsort(-self.length[owned], kind="stable")]
            bounds, better = buckets(self.length[order], overhead)
        else:  # the kernel does not pay for the longest, only for the number of slots
            order, bounds = owned, [0, len(owned)]
            size, smaller = (next(s for s in self.graph_sizes if s >= n) for n in (owned[-1] + 1, len(owned)))
            cost, better = size * self.length.max(), smaller * self.length.max()
        targets, sources = moves(order, bounds)
        if (cost - better) * ARRANGE_EVERY > COPY_COST * self.cached[sources].sum():
            self._move(targets, sources)
            self.bounds = bounds

    def _move(self, targets: np.ndarray, sources: np.ndarray) -> None:
        """Moves sequences between slots; targets that are not sources must be free, and sources become so."""
        self.cache.copy(targets, sources, int(self.cached[sources].max()))
        for record in (self.tokens, self.sampled, self.logprobs):
            record[torch.from_numpy(targets)] = record[torch.from_numpy(sources)]
        for state in (self.length, self.limit, self.key, self.cached, self.running):
            state[targets] = state[sources]
        owners, prompts = [self.owner[slot] for slot in sources], [self.prompt_of[slot] for slot in sources]
        for slot in set(sources.tolist()) - set(targets.tolist()):
            self.owner[slot], self.prompt_of[slot], self.running[slot] = None, NOBODY, False
        for slot, owner, prompt in zip(targets.tolist(), owners, prompts, strict=True):
            self.owner[slot], self.prompt_of[slot], owner.slot = owner, prompt, slot

    def _ranges(self, decode: np.ndarray) -> list[tuple[int, int, int]]:
        """The buckets that hold slots which decode: first slot, last slot + 1, longest prefix."""
        if not len(decode):
            return []
        top = int(decode[-1]) + 1
        prefix = np.ones(top, dtype=np.int64)
        prefix[decode] = self.length[decode]
        bounds = [bound for bound in self.bounds if bound < top] + [top]
        longest = np.maximum.reduceat(prefix, bounds[:-1])
        return [(a, b, n) for (a, b), n in zip(pairwise(bounds), longest.tolist(), strict=True)]

    def _release(self, sequence: Sequence, ended: str) -> None:
        slot, n = sequence.slot, self.length[sequence.slot]
        sequence.tokens = self.tokens[slot, :n].cpu().clone()
        sequence.sampled = self.sampled[slot, :n].cpu().clone()
        sequence.logprobs = self.logprobs[slot, :n].cpu().clone()
        sequence.ended, sequence.slot = ended, -1
        self.owner[slot], self.running[slot] = None, False
        if self.leaders.get(sequence.group) is sequence:
            del self.leaders[sequence.group]
