"""Batched generation with a KV cache in slots and continuous batching; knows nothing of code, tools or tasks.

A sequence owns a slot: one row of a dense cache [slots, kv_heads, max_length, head_dim] per layer. A step runs, in one
packed forward pass, every token that is known but not yet in the cache: one row for a sequence that is decoding, a
chunk of rows for a prompt or for an observation that has just come back. All rows are treated alike: each writes its
key and value, then attends to the prefix of its slot. Where a sequence's last known token has been run, the next one is
sampled.

    queued -> prefilling -> decoding <-> parked -> done

`step` returns the sequences that want a decision: a token flagged in `watch` was sampled, or they have ended. The
caller lets them go on, parks them WITH their cache while a tool works (`park`, later `resume` with the tool's output,
which is prefilled as a chunk while the others decode), or ends them (`finish`). A free slot is refilled at once. The
prompt of a group of samples is prefilled once and copied.

Differs from serving engines: no paging, no scheduler processes, no truncated sampling; what it adds is that sampling is
replayable. The token at a position is the inverse of the CDF at a uniform that depends only on (seed, step, episode,
position), so what is sampled does not depend on batch size, arrival order or the latency of tools, but for rounding.
"""

import dataclasses
from collections import deque
from collections.abc import Hashable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model import Decoder

# --------------------------------------------------------------------------------------------------------------------
# replayable sampling


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al., 2014) on int64 tensors, whose products wrap around as it needs."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def sampling_key(*parts: int) -> int:
    """One int64 key from (seed, step, episode, ...), for `uniforms`."""
    key = torch.tensor(0x1E3779B97F4A7C15)
    for part in parts:
        key = _mix(key + _mix(torch.tensor(part) + 0x3C6EF372FE94F82A))
    return int(key)


def uniforms(keys: Tensor, positions: Tensor) -> Tensor:
    """Uniforms in [0, 1), float64, that depend on key and position (int64, same shape) alone."""
    bits = _mix(_mix(keys + positions * 0x1E3779B97F4A7C15) ^ keys)
    return ((bits >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53


def sample(logits: Tensor, temperature: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (int64 [n]) and their log-probs (float32 [n]) under softmax(logits / temperature).

    The token is the first whose cumulated probability (float64) exceeds the uniform, so one of probability 0 is never
    taken. Temperature 0 takes the most likely token; its log-prob is then that of temperature 1.
    """
    if temperature == 0:
        log_probs = F.log_softmax(logits.float(), -1)
        tokens = log_probs.argmax(-1)
    else:
        log_probs = F.log_softmax(logits.float() / temperature, -1)
        cdf = log_probs.double().exp_().cumsum(-1)
        tokens = torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True)[:, 0]
        tokens = tokens.clamp_(max=logits.shape[-1] - 1)  # u * total may round up to the total
    return tokens, log_probs.gather(1, tokens[:, None])[:, 0]


# --------------------------------------------------------------------------------------------------------------------
# attention over slots


class SlotAttention:
    """The attention seam of one step: writes the rows' keys and values into their slots, then attends to the prefixes.

    Rows come as `decode` rows, one per slot, then as chunks of consecutive positions of one slot.
    """

    def __init__(self, cache: list[tuple[Tensor, Tensor]], decode: np.ndarray, lengths: np.ndarray, chunks: list):
        """`decode`: slots of the decoding rows; `lengths`: their prefix lengths, the row itself included;
        `chunks`: (slot, start, end) positions. All on the host."""
        device = cache[0][0].device
        self.cache, self.chunks, self.decode_rows = cache, chunks, len(decode)
        slots = np.concatenate([decode, *(np.full(end - start, slot) for slot, start, end in chunks)])
        positions = np.concatenate([lengths - 1, *(np.arange(start, end) for _, start, end in chunks)])
        self.slots = torch.from_numpy(slots).to(device)
        self.positions = torch.from_numpy(positions).to(device)
        self.rows = None
        if len(decode):
            # Attend over the first `top` slots as they lie: gathering the live ones would copy their whole cache for
            # every layer. What the dead ones among them cost is kept small by the generator, which compacts.
            self.top, self.longest = int(decode.max()) + 1, int(lengths.max())
            if self.top > len(decode):
                self.rows = self.slots[: len(decode)]
            prefix = np.zeros(self.top, dtype=np.int64)
            prefix[decode] = lengths
            prefix = torch.from_numpy(prefix).clamp_(min=1).to(device)  # an empty softmax of a dead slot would be nan
            self.mask = (torch.arange(self.longest, device=device) < prefix[:, None])[:, None, None]
        self.chunk_masks = [
            torch.ones(end - start, end, dtype=torch.bool, device=device).tril_(start) for _, start, end in chunks
        ]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache[layer]
        keys[self.slots, :, self.positions] = k
        values[self.slots, :, self.positions] = v
        _, heads, size = q.shape
        group = heads // k.shape[1]
        out = torch.empty_like(q)
        if d := self.decode_rows:
            # Query heads that share a kv head stand where a query's positions usually do: no key is repeated.
            query = q[:d].view(d, -1, group, size)
            if self.rows is not None:
                query = query.new_zeros(self.top, *query.shape[1:]).index_copy_(0, self.rows, query)
            prefix = slice(self.top), slice(None), slice(self.longest)
            attended = F.scaled_dot_product_attention(query, keys[prefix], values[prefix], self.mask)
            out[:d] = (attended if self.rows is None else attended[self.rows]).reshape(d, heads, size)
        row = d
        for (slot, start, end), mask in zip(self.chunks, self.chunk_masks, strict=True):
            rows = slice(row, row + end - start)
            key = keys[slot, :, :end].repeat_interleave(group, 0)[None]
            value = values[slot, :, :end].repeat_interleave(group, 0)[None]
            out[rows] = F.scaled_dot_product_attention(q[rows].transpose(0, 1)[None], key, value, mask)[0].transpose(
                0, 1
            )
            row = rows.stop
        return out


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


@dataclasses.dataclass
class Prefix:
    """The prompt that the members of a group share."""

    waiting: int = 0  # members without a slot
    leader: Sequence | None = None  # prefills the prompt
    cache: list[tuple[Tensor, Tensor]] | None = None  # per layer [kv_heads, prompt length, head_dim], once it has


class Generator:
    """Drives one model over any number of sequences, `slots` at a time.

    `watch`: bool [vocab], tokens after which the caller wants to look at the sequence. `end_ids` end a sequence.
    `prefill_tokens`: how many prompt or observation tokens may ride along in one step, so that a long prompt does not
    stall those that decode. Memory: 2 x layers x slots x kv_heads x max_length x head_dim numbers of the model's dtype.
    """

    def __init__(
        self,
        model: Decoder,
        slots: int,
        max_length: int,
        watch: Tensor,
        end_ids: list[int],
        temperature: float = 1.0,
        prefill_tokens: int = 1024,
    ):
        config, device = model.config, model.embed_tokens.weight.device
        self.model, self.device = model, device
        self.slots, self.max_length = slots, max_length
        self.temperature, self.prefill_tokens = temperature, prefill_tokens
        self.ends = torch.zeros(config.vocab_size, dtype=torch.bool, device=device)
        self.ends[end_ids] = True
        self.watch = F.pad(watch.to(device), (0, config.vocab_size - len(watch))) | self.ends
        shape = (slots, config.num_kv_heads, max_length, config.head_dim)
        dtype = model.embed_tokens.weight.dtype
        self.cache = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(config.num_layers)
        ]
        self.tokens = torch.zeros(slots, max_length, dtype=torch.int64, device=device)
        self.sampled = torch.zeros(slots, max_length, dtype=torch.bool, device=device)
        self.logprobs = torch.zeros(slots, max_length, dtype=torch.float32, device=device)
        self.keys = torch.zeros(slots, dtype=torch.int64, device=device)
        # On the host, per slot: tokens known, tokens in the cache, the length at which it ends, whether it may run.
        self.length = np.zeros(slots, dtype=np.int64)
        self.cached = np.zeros(slots, dtype=np.int64)
        self.limit = np.zeros(slots, dtype=np.int64)
        self.running = np.zeros(slots, dtype=bool)
        self.owner: list[Sequence | None] = [None] * slots
        self.queue: deque[Sequence] = deque()
        self.prefixes: dict[Hashable, Prefix] = {}  # of the groups that have members in the queue
        self.steps = self.prefilled_tokens = self.sampled_tokens = 0

    @property
    def busy(self) -> bool:
        """Whether `step` has anything to do; parked sequences do not count."""
        return bool(self.running.any()) or (bool(self.queue) and None in self.owner)

    def add(self, prompt: list[int], key: int, max_new_tokens: int, group: Hashable) -> Sequence:
        """Queues a sequence. Raises ValueError for a prompt that leaves no room for a single token."""
        max_length = min(self.max_length, len(prompt) + max_new_tokens)
        if len(prompt) >= max_length:
            raise ValueError(f"a prompt of {len(prompt)} tokens does not fit a context of {self.max_length}")
        sequence = Sequence(list(prompt), key, max_length, group, turn_start=len(prompt))
        self.queue.append(sequence)
        self.prefixes.setdefault(group, Prefix()).waiting += 1
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
        """Ends a sequence by the caller's decision; its slot is free."""
        self._release(sequence, "finished")

    @torch.inference_mode()
    def step(self) -> list[Sequence]:
        """One forward pass and one sampled token per sequence that has all its tokens in the cache. Returns the
        sequences whose new token is watched and those that ended, in the order of their slots."""
        self._admit()
        missing = np.where(self.running, self.length - self.cached, 0)
        decode = np.flatnonzero(missing == 1)
        chunks, budget = [], self.prefill_tokens
        for slot in np.flatnonzero(missing > 1):
            if budget > 0:
                end = min(int(self.cached[slot]) + budget, int(self.length[slot]))
                chunks.append((int(slot), int(self.cached[slot]), end))
                budget -= end - int(self.cached[slot])
        if not len(decode) and not chunks:
            return []
        attend = SlotAttention(self.cache, decode, self.length[decode], chunks)
        hidden = self.model(self.tokens[attend.slots, attend.positions], attend.positions, attend)

        self.cached[decode] += 1
        for slot, _, end in chunks:
            self.cached[slot] = end
        self._share_prompts()
        last_rows = len(decode) + np.cumsum([end - start for _, start, end in chunks], dtype=np.int64) - 1
        ends_here = [self.cached[slot] == self.length[slot] for slot, _, _ in chunks]
        rows = np.concatenate([np.arange(len(decode)), last_rows[ends_here]])
        slots = np.concatenate([decode, [slot for (slot, _, _), here in zip(chunks, ends_here, strict=True) if here]])
        self.steps += 1
        self.prefilled_tokens += sum(end - start for _, start, end in chunks)
        return self._sample(hidden, rows, slots.astype(np.int64)) if len(rows) else []

    def _sample(self, hidden: Tensor, rows: np.ndarray, slots: np.ndarray) -> list[Sequence]:
        logits = self.model.logits(
            hidden if len(rows) == len(hidden) else hidden[torch.from_numpy(rows).to(self.device)]
        )
        on_device = torch.from_numpy(slots).to(self.device)
        positions = torch.from_numpy(self.length[slots]).to(self.device)
        tokens, logprobs = sample(logits, self.temperature, uniforms(self.keys[on_device], positions))
        self._append(on_device, positions, tokens, True, logprobs)
        self.length[slots] += 1
        self.sampled_tokens += len(slots)

        at_end = self.ends[tokens].cpu().numpy()
        at_limit = self.length[slots] >= self.limit[slots]
        stopped = []
        for i in np.flatnonzero(self.watch[tokens].cpu().numpy() | at_limit):
            sequence = self.owner[slots[i]]
            stopped.append(sequence)
            if at_end[i] or at_limit[i]:
                self._release(sequence, "end" if at_end[i] else "length")
        return stopped

    def _append(self, slots, positions, tokens: Tensor, sampled: bool, logprobs) -> None:
        """The only place that writes tokens: ids, mask and log-probs cannot come apart."""
        for record, value in ((self.tokens, tokens), (self.sampled, sampled), (self.logprobs, logprobs)):
            record[slots, positions] = value.to(self.device) if isinstance(value, Tensor) else value

    def _admit(self) -> None:
        """Gives free slots to queued sequences. The first of a group prefills the prompt; the rest wait for a copy."""
        free = deque(slot for slot, owner in enumerate(self.owner) if owner is None)
        held = []
        while self.queue and free:
            sequence = self.queue.popleft()
            prefix = self.prefixes[sequence.group]
            if prefix.leader is not None and prefix.cache is None:
                held.append(sequence)
                continue
            slot, n = free.popleft(), len(sequence.prompt)
            sequence.slot = slot
            self._append(slot, slice(n), torch.tensor(sequence.prompt), False, 0.0)
            self.keys[slot] = sequence.key
            self.owner[slot], self.running[slot] = sequence, True
            self.length[slot], self.limit[slot], self.cached[slot] = n, sequence.max_length, 0
            if prefix.cache is not None:
                for (keys, values), (key, value) in zip(self.cache, prefix.cache, strict=True):
                    keys[slot, :, :n], values[slot, :, :n] = key, value
                self.cached[slot] = n - 1  # the last token is run again: it yields the logits of the first sample
            else:
                prefix.leader = sequence
            prefix.waiting -= 1
            if not prefix.waiting:
                del self.prefixes[sequence.group]
        self.queue.extendleft(reversed(held))
        if not self.queue:
            self._compact()

    def _share_prompts(self) -> None:
        """Keeps a copy of each prompt that is just complete for the members of its group that have no slot yet."""
        for prefix in [p for p in self.prefixes.values() if p.leader is not None and p.cache is None]:
            slot, n = prefix.leader.slot, len(prefix.leader.prompt)
            if self.cached[slot] == n:
                prefix.cache = [(keys[slot, :, :n].clone(), values[slot, :, :n].clone()) for keys, values in self.cache]

    def _compact(self) -> None:
        """Moves sequences from the highest slots into free lower ones once a fifth of the rows would be dead."""
        taken = [slot for slot, owner in enumerate(self.owner) if owner is not None]
        if not taken or taken[-1] + 1 <= 1.25 * len(taken):
            return
        free = [slot for slot in range(len(taken)) if self.owner[slot] is None]
        for target, source in zip(free, reversed(taken), strict=False):
            n = self.length[source]
            for keys, values in self.cache:
                keys[target, :, :n], values[target, :, :n] = keys[source, :, :n], values[source, :, :n]
            for record in (self.tokens, self.sampled, self.logprobs, self.keys):
                record[target] = record[source]
            for state in (self.length, self.cached, self.limit, self.running):
                state[target] = state[source]
            self.owner[target], self.owner[source], self.running[source] = self.owner[source], None, False
            self.owner[target].slot = target

    def _release(self, sequence: Sequence, ended: str) -> None:
        slot, n = sequence.slot, self.length[sequence.slot]
        sequence.tokens = self.tokens[slot, :n].cpu().clone()
        sequence.sampled = self.sampled[slot, :n].cpu().clone()
        sequence.logprobs = self.logprobs[slot, :n].cpu().clone()
        sequence.ended, sequence.slot = ended, -1
        self.owner[slot], self.running[slot] = None, False
