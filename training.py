"""What sft.py and grpo.py share: processes and FSDP, packed batches, log-probs, the optimizer.

Differs from the paper's stack (LLaMA-Factory for SFT, verl for GRPO): torchrun, FSDP2 and this file. Ranks see the same
loss as one process would: the weight of every token is fixed over the global batch before the first backward pass, so
micro-batches and ranks only add up.
"""

import contextlib
import dataclasses
import errno
import itertools
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed import init_device_mesh
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from checkpoint import load_bundle
from cli import SIGNALS, UserError
from model import Decoder, ModelConfig, PackedAttention, packed_positions
from rollout import Rollout, RolloutArguments
from suites.base import Problem
from throughput import RolloutStats

THREADS_CHOSEN = "OMP_NUM_THREADS" in os.environ  # by the user; below, libraries set it too
TRAINED = ("model", "optimizer")
warnings.filterwarnings("ignore", "torch.distributed is disabled")  # dcp, in a single process
HELD_OUT_STEPS = 10**6  # of the keys of what is sampled: never those of training
SHARED = itertools.count()  # calls of `shared_groups`: a counter that is used twice has nothing left to give
SCHEDULES = ("constant", "cosine", "wsd")
LOGITS_PER_CHUNK = 2**26  # 256 MB in fp32: how much of [tokens, vocab] exists at any time, twice


# --------------------------------------------------------------------------------------------------------------------
# processes


def start_processes() -> PartialState:
    """Joins the process group that torchrun describes (gloo on CPU, nccl on GPUs); alone without torchrun."""
    share = (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))  # accelerate sets the same, with a warning
    return PartialState(cpu=not torch.cuda.is_available())


def fit_threads(model: Decoder) -> None:
    """Keeps torch to one thread for a tiny model, unless the user has set OMP_NUM_THREADS: a second one makes updates
    faster on an idle machine, but threads that wait for a busy core cost far more than they bring."""
    small = sum(parameter.numel() for parameter in model.parameters()) < 5_000_000
    if small and not THREADS_CHOSEN:
        torch.set_num_threads(1)


def world_size() -> int:
    return PartialState().num_processes


def reduce_over_ranks(values: Sequence[float], op: dist.ReduceOp = dist.ReduceOp.SUM) -> list[float]:
    """Element-wise over all ranks, sums if nothing else is said."""
    total = torch.tensor(values, dtype=torch.float64, device=PartialState().device)
    if world_size() > 1:
        dist.all_reduce(total, op)
    return total.tolist()


def stop_requested() -> int:
    """The number of the signal that has come to any rank; 0 if none has (a collective call)."""
    return int(reduce_over_ranks([SIGNALS.number], dist.ReduceOp.MAX)[0])


def claimed(name: str, count: int) -> Iterator[int]:
    """Numbers below `count`, each of which goes to the rank that asks first, by a counter called `name` that all ranks
    share."""
    store = dist.PrefixStore("claimed", dist.distributed_c10d._get_default_store())
    while (number := store.add(name, 1) - 1) < count:
        yield number


def shared_groups(count: int, arguments: RolloutArguments, first: int = 0) -> Iterable[int]:
    """The numbers, of `count` from `first` on, of the groups that this rank samples. Whole groups go to each, numbered
    as if there were one rank: an advantage never waits for another. In deterministic mode a fixed share; else whoever
    has room takes the next. (Every rank must call this equally often.)"""
    state = PartialState()
    if arguments.deterministic or state.num_processes == 1:
        ends = (first + count * rank // state.num_processes for rank in (state.process_index, state.process_index + 1))
        return range(*ends)
    return (first + number for number in claimed(f"call {next(SHARED)}", count))


def over_ranks(stats: RolloutStats) -> tuple[RolloutStats, float]:
    """The cost of a rollout on all ranks: the slowest one's times, and sums of what was done; and for which share of
    the time a rank waited for the slowest, on average."""
    if world_size() == 1:
        return stats, 0.0
    ranks = [dataclasses.asdict(other) for other in gather_object([stats])]
    slowest = ("seconds", "tool_wait_seconds")
    whole = RolloutStats(**{k: (max if k in slowest else sum)(rank[k] for rank in ranks) for k in ranks[0]})
    return whole, 1 - sum(rank["seconds"] for rank in ranks) / len(ranks) / whole.seconds


def held_out_accuracy(rollout: Rollout, problems: list[Problem], temperature: float, step: int, progress: str) -> float:
    """The share of held-out problems that one sampled reply gets right, on all ranks."""
    at = HELD_OUT_STEPS + step
    episodes, _ = rollout(problems, 1, temperature, at, progress, shared_groups(len(problems), rollout.arguments))
    return reduce_over_ranks([sum(episode.correct for episode in episodes)])[0] / len(problems)


def shard(model: Decoder, replicas: int = 1) -> Decoder:
    """Wraps the model from outside with FSDP2: layer by layer, fp32 master weights, bf16 compute on GPUs.

    One process on a CPU stays as it is. Gradients are summed over ranks, not averaged: the loss carries its global
    denominator already. With `replicas` (HSDP), each group of neighbouring ranks, such as a node's, holds all shards.
    """
    state = PartialState()
    if state.num_processes % replicas:
        raise UserError(f"--replicas {replicas} does not divide the number of processes, {state.num_processes}")
    if state.num_processes == 1 and state.device.type == "cpu":
        return model
    dtype = torch.bfloat16 if state.device.type == "cuda" else None
    if not dist.is_initialized():  # one GPU without torchrun: FSDP wants a group, also of one
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    shape = (replicas, state.num_processes // replicas)
    mesh = init_device_mesh(state.device.type, shape, mesh_dim_names=("replicate", "shard")) if replicas > 1 else None
    # Inputs are not cast: the angles of RoPE stay in fp32, as they are where the copy generates.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    # The embedding goes by itself where it is not the output too: both at once would be the largest part to gather.
    for module in (*model.layers, *([] if model.config.tied else [model.embed_tokens]), model):
        fully_shard(module, mesh=mesh, mp_policy=policy)
        module.set_gradient_divide_factor(1.0)
        if state.device.type == "cpu":  # gloo has no reduction with a factor
            module.set_force_sum_reduction_for_comms(True)
    return model


def whole(parameter: Tensor) -> Tensor:
    """A parameter or its gradient in full: gathered from all ranks if it is sharded (a collective call)."""
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter


def bit_sums(parameters: Iterable[Tensor], dtype: torch.dtype) -> Tensor:
    """int64 [n]: for each parameter, the sum of the bits of its elements in `dtype`, read as integers. Of a sharded
    one, the part that this rank holds: over all ranks these add up to the sum of the whole, exactly, in any order."""
    integer = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in parameters]
    return torch.stack([p.detach().to(dtype).view(integer).sum(dtype=torch.int64) for p in local])


@contextlib.contextmanager
def machine_errors(folder: Path) -> Iterator[None]:
    """Around what torch.distributed.checkpoint does in `folder`: its exception is no Exception, and says of a full disk
    what its own file format had expected. Raised as the OSError that it stands for, where it is one."""
    try:
        yield
    except CheckpointException as error:
        for failure, _ in error.failures.values():
            while failure is not None and not (isinstance(failure, OSError) and failure.errno):
                failure = failure.__cause__ or failure.__context__
            if failure is not None:
                raise OSError(failure.errno, os.strerror(failure.errno), str(folder)) from error
        if shutil.disk_usage(folder.parent).free < 2**20:  # what failed on another rank comes without its cause
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise RuntimeError(str(error)) from error


class Policy:
    """The weights that are trained (`model`) and the model that generates and is saved (`bundle`).

    Alone on a CPU both are one. Elsewhere the trained weights are fp32 and sharded, and the copy that generates is
    whole, in bf16 on GPUs; `sync` brings it up to date.
    """

    def __init__(
        self,
        name: str,
        learning_rate: float,
        weight_decay: float = 0.0,
        recompute: bool = False,
        replicas: int = 1,
    ):
        device, self.replicas = PartialState().device, replicas
        self.bundle = load_bundle(name, torch.float32, device)
        fit_threads(self.bundle.model)
        self.model = shard(self.bundle.model, replicas).requires_grad_(True)
        self.model.recompute = recompute
        self.sharded = isinstance(self.model.norm.weight, DTensor)
        if self.sharded:
            self.bundle = load_bundle(name, torch.bfloat16 if device.type == "cuda" else torch.float32, device)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        fused = device.type == "cuda" or not self.sharded
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=fused)

    @property
    def checkpoint_bytes(self) -> int:
        """What a checkpoint takes: the model that generates; weights and two moments of the optimizer in fp32."""
        return sum(p.numel() * (p.element_size() + 12) for p in self.bundle.model.parameters())

    def save(self, folder: Path) -> None:
        """Writes trained weights and optimizer, every rank its part (a collective call)."""
        fresh = not self.optimizer.state
        state = get_state_dict(self.model, self.optimizer)
        if fresh:  # for it to have a state, it was made to take a step without gradients, which must not count
            for moments in self.optimizer.state.values():
                moments["step"].zero_()
        with machine_errors(folder):
            dcp.save(dict(zip(TRAINED, state, strict=True)), checkpoint_id=folder, no_dist=not dist.is_initialized())

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote, with any number of ranks, and syncs (a collective call). What the optimizer was told
        of, such as its weight decay, stays."""
        own = [{name: value for name, value in g.items() if name != "params"} for g in self.optimizer.param_groups]
        state = dict(zip(TRAINED, get_state_dict(self.model, self.optimizer), strict=True))
        with machine_errors(folder):
            dcp.load(state, checkpoint_id=folder, no_dist=not dist.is_initialized())
        model, optimizer = state.values()
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)
        self.sync()

    def step(self, learning_rate: float, max_grad_norm: float) -> float:
        """Clips the gradients, updates the weights, and returns the norm that the gradients had."""
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), max_grad_norm)
        norm = float(whole(norm))
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient norm is {norm}: stopped before the update that would have spoilt the weights"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    @torch.no_grad()
    def sync(self) -> None:
        """Copies the trained weights into the storage of the model that generates, one parameter at a time, and proves
        the copy right: RuntimeError if the bits of any do not add up to those of its shards."""
        if not self.sharded:
            return
        copies = dict(self.bundle.model.named_parameters())
        for target, source in zip(copies.values(), self.model.parameters(), strict=True):
            target.copy_(whole(source))
        dtype = next(iter(copies.values())).dtype
        trained, copied = bit_sums(self.model.parameters(), dtype), bit_sums(copies.values(), dtype)
        if world_size() > 1:
            dist.all_reduce(trained)
            trained //= self.replicas
        if differing := [name for name, ok in zip(copies, trained == copied, strict=True) if not ok]:
            raise RuntimeError(f"the copy that generates is not what was trained: {', '.join(differing)}")


def load_reference(name: str, replicas: int = 1) -> Decoder:
    """A model that only scores, in the dtype in which the other one computes; sharded too."""
    device = PartialState().device
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return shard(load_bundle(name, dtype, device).model, replicas)


def learning_rate_at(step: int, total: int, peak: float, warmup: int, schedule: str) -> float:
    """Linear warm-up, then "constant"; "cosine" to 0; or "wsd": constant, and linear to 0 over the second half
    (warm-up, stable, decay: Hu et al., 2024). `step` counts from 0."""
    if schedule not in SCHEDULES:
        raise UserError(f"unknown learning rate schedule {schedule!r}: {', '.join(SCHEDULES)}")
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return peak * min(1.0, (total - step) / max(1, total - total // 2))


# --------------------------------------------------------------------------------------------------------------------
# packed batches and log-probs


class Packed:
    """Documents packed one after the other, and the rows whose next token is to be scored.

    `rows`, `targets`, `owner` (int64 [scored]): the row, the token that follows it, and the number of its document.
    """

    def __init__(self, documents: list[tuple[Tensor, Tensor]], device: torch.device | str = "cpu"):
        """`documents`: tokens (int64 [n]) and sampled (bool [n]); a first token cannot be scored."""
        lengths = [len(tokens) for tokens, _ in documents]
        tokens = torch.cat([tokens for tokens, _ in documents])
        scored = torch.cat([sampled for _, sampled in documents])
        owner = torch.repeat_interleave(torch.arange(len(documents)), torch.tensor(lengths))
        self.positions = packed_positions(lengths)
        rows = (scored & (self.positions > 0)).nonzero()[:, 0] - 1
        self.targets, self.owner = tokens[rows + 1].to(device), owner[rows].to(device)
        self.tokens, self.rows, self.positions = tokens.to(device), rows.to(device), self.positions.to(device)
        self.attend = PackedAttention(lengths, device)


def document_cost(length: int, config: ModelConfig) -> float:
    """What a document of this many tokens costs in passes of a model, in tokens; attention makes long ones dearer."""
    layer = config.hidden_size * (config.num_heads + config.num_kv_heads) * config.head_dim * 2
    weights = config.num_layers * (layer + 3 * config.hidden_size * config.intermediate_size)
    weights += config.vocab_size * config.hidden_size
    # Two operations a weight, and four for each of the numbers in a query's heads and each of the positions before it.
    return length * (1 + config.num_layers * config.num_heads * config.head_dim * length / weights)


def even_shares(costs: Sequence[float], shares: int) -> list[list[int]]:
    """Indices in so many shares of about equal cost: the dearest first, each to the share that has least so far (LPT,
    Graham, 1969)."""
    found: list[list[int]] = [[] for _ in range(shares)]
    sums = [0.0] * shares
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = sums.index(min(sums))
        found[least].append(i)
        sums[least] += costs[i]
    return found


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of documents in bins of at most `budget` tokens (a longer document has a bin to itself); the longest go
    first, each into the first bin that has room. Every rank gets the same number of bins, if need be empty ones. Where
    the documents fit into so many bins of even size too, they are spread evenly: ranks wait for each other in each."""
    bins: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for b, left in enumerate(room):
            if lengths[i] <= left:
                bins[b].append(i)
                room[b] -= lengths[i]
                break
        else:
            bins.append([i])
            room.append(budget - lengths[i])
    count = torch.tensor(len(bins), device=PartialState().device)
    if world_size() > 1:
        dist.all_reduce(count, dist.ReduceOp.MAX)
    even = even_shares(lengths, int(count))
    if all(sum(lengths[i] for i in part) <= budget for part in even):
        return even
    return bins + [[] for _ in range(int(count) - len(bins))]


class TokenLogProbs(torch.autograd.Function):
    """See `score`. The backward pass is written out. Autograd would hold several arrays as large as the logits and make
    them anew for every chunk: twice as long.

    With p the softmax of a row of logits: the gradient of a log-prob is 1 at the target minus p, that of the entropy H
    is -p (log p + H)."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        chunks = range(0, len(targets), size := max(1, LOGITS_PER_CHUNK // len(weight)))
        log_probs, entropy, normaliser = hidden.new_empty(3, len(targets), dtype=torch.float32)
        products = hidden.new_empty(min(size, len(targets)), len(weight))
        spare = products.new_empty(products.shape, dtype=torch.float32)
        for rows in (slice(start, start + size) for start in chunks):
            inputs = hidden[rows]
            logits = torch.mm(inputs, weight.T, out=products[: len(inputs)]).float()
            logits /= temperature
            largest = logits.amax(-1, keepdim=True)
            logits -= largest  # or exp would overflow
            exps = torch.exp(logits, out=spare[: len(inputs)])
            sums = exps.sum(-1)
            log_probs[rows] = logits.gather(-1, targets[rows, None])[:, 0] - sums.log()
            entropy[rows] = sums.log() - exps.mul_(logits).sum(-1) / sums
            normaliser[rows] = largest[:, 0] + sums.log()
        ctx.save_for_backward(hidden, weight, targets, normaliser)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)  # the entropy's is None, unless the loss has a bonus for it
        return log_probs, entropy

    @staticmethod
    def backward(ctx, gradient: Tensor, of_entropy: Tensor | None) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, normaliser = ctx.saved_tensors
        chunks = range(0, len(targets), size := max(1, LOGITS_PER_CHUNK // len(weight)))
        to_hidden, to_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        products = hidden.new_empty(min(size, len(targets)), len(weight))
        for rows in (slice(start, start + size) for start in chunks):
            inputs, of_logits = hidden[rows], gradient[rows, None] / ctx.temperature
            logits = torch.mm(inputs, weight.T, out=products[: len(inputs)]).float()
            logits /= ctx.temperature
            logits -= normaliser[rows, None]
            if of_entropy is not None:
                spread = logits.exp()
                spread *= logits - (spread * logits).sum(-1, keepdim=True)
            errors = logits.exp_()
            errors[torch.arange(len(inputs), device=errors.device), targets[rows]] -= 1
            if of_entropy is not None:  # for both in one product
                errors = errors * of_logits + spread * of_entropy[rows, None] / ctx.temperature
                of_logits = torch.ones_like(of_logits)
            errors = errors.to(weight.dtype)
            to_hidden[rows] = -of_logits * (errors @ weight)
            to_weight -= errors.T @ (of_logits * inputs).to(weight.dtype)  # summed in fp32 whatever the dtype
        return to_hidden, to_weight.to(weight.dtype), None, None


def score(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` and entropies (float32 [n]) under softmax(hidden @ weight.T / temperature).

    Never holds the logits of more than a chunk of rows: with 150,000 tokens in the vocabulary, those of a single
    micro-batch would outweigh the model. The backward pass computes each chunk's again.
    """
    return TokenLogProbs.apply(hidden, weight, targets, temperature)


def score_packed(model: Decoder, packed: Packed, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies (float32 [scored]) of the scored tokens of a packed batch."""

    def head(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return score(hidden[packed.rows], weight, packed.targets, temperature)

    return model(packed.tokens, packed.positions, packed.attend, head)


Documents = list[tuple[Tensor, Tensor]]
Loss = Callable[[list[int], Tensor, Tensor, Tensor], Tensor]


def backward(model: Decoder, documents: Documents, loss: Loss, budget: int, temperature: float = 1.0) -> None:
    """Adds the gradients of all documents, in micro-batches of at most `budget` tokens.

    `loss(indices, owner, log_probs, entropy)` -> a scalar: `indices` names the documents of the micro-batch, `owner`
    (int64 [scored]) says for every scored token which of these it belongs to. The losses of micro-batches and ranks are
    summed, so the loss must carry the denominator of the global batch.
    """
    device = PartialState().device
    for indices in micro_batches([len(tokens) for tokens, _ in documents], budget):
        # A rank that has run out of documents takes part in the collective calls of the others, without effect.
        batch = [documents[i] for i in indices] or [(torch.zeros(2, dtype=torch.int64), torch.tensor([False, True]))]
        packed = Packed(batch, device)
        log_probs, entropy = score_packed(model, packed, temperature)
        (loss(indices, packed.owner, log_probs, entropy) if indices else log_probs.sum() * 0).backward()


@torch.no_grad()
def log_probs_of(model: Decoder, documents: Documents, budget: int, temperature: float = 1.0) -> list[Tensor]:
    """Log-probs of the scored tokens of each document, without gradients."""
    device = PartialState().device
    result: list[Tensor] = [torch.empty(0)] * len(documents)
    for indices in micro_batches([len(tokens) for tokens, _ in documents], budget):
        batch = [documents[i] for i in indices] or [(torch.zeros(2, dtype=torch.int64), torch.tensor([False, True]))]
        packed = Packed(batch, device)
        log_probs, _ = score_packed(model, packed, temperature)
        counts = torch.bincount(packed.owner, minlength=len(batch)).tolist()
        for i, piece in zip(indices, log_probs.split(counts), strict=False):
            result[i] = piece
    if isinstance(model, FSDPModule):  # which leaves what the outermost call has gathered to a backward pass to free
        model.reshard()
    return result
