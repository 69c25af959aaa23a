"""What sft.py and grpo.py share: arguments, run folders, processes and FSDP, packed batches, log-probs, the optimizer.

Differs from the paper's stack (LLaMA-Factory for SFT, verl for GRPO): torchrun, FSDP2 and this file. Ranks see the same
loss as one process would: the weight of every token is fixed over the global batch before the first backward pass, so
micro-batches and ranks only add up.
"""

import argparse
import contextlib
import dataclasses
import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from accelerate import PartialState
from accelerate.utils import is_tensorboard_available, is_wandb_available
from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint
from transformers import HfArgumentParser

from checkpoint import Bundle, load_bundle, save_bundle, write_whole, writing
from executor import SandboxError
from model import Decoder, PackedAttention, packed_positions

ROOT = Path(__file__).resolve().parent
THREADS_CHOSEN = "OMP_NUM_THREADS" in os.environ  # by the user; below, libraries set it too
SCHEDULES = ("constant", "cosine", "wsd")
TRACKERS = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}
LOGITS_PER_CHUNK = 2**24  # 64 MB in fp32: how much of [tokens, vocab] exists at any time

Arguments = TypeVar("Arguments")


# --------------------------------------------------------------------------------------------------------------------
# arguments and run folders


# The least that a number may be, by the name of its flag in whichever script.
AT_LEAST = {
    0: ("clip_high", "clip_low", "kl", "learning_rate", "max_code_runs", "seed", "show", "warmup", "weight_decay"),
    1: (
        "batch_size", "epochs", "group_size", "max_length", "max_observation_tokens", "max_reply_tokens",
        "micro_batch_tokens", "problems_per_task", "prompts_per_step", "samples", "slots", "steps", "trajectories",
        "updates_per_step",
    ),
}  # fmt: skip
ABOVE_ZERO = ("code_timeout", "max_grad_norm", "temperature")
# Errors of the system that are the machine's, never a bug.
MACHINE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENOMEM, errno.EAGAIN,
}  # fmt: skip


class UserError(Exception):
    """Something the user can mend; `run_main` prints it as one line."""


class Stopped(BaseException):
    """The signal (SIGINT or SIGTERM) that ends a run; clean-up happens on the way to `run_main`."""


@contextlib.contextmanager
def user_input() -> Iterator[None]:
    """Around what is done with names and paths that the user gave: there a ValueError is theirs to mend. Elsewhere it
    is a bug, and keeps its traceback."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Leaves the lines of a docstring as they are, and prints defaults."""


def check_arguments(arguments: Any, **choices: Iterable[str]) -> None:
    """UserError for a number that makes no sense, and for a word that is none of the `choices` for its flag."""
    for least, names in AT_LEAST.items():
        for name in names:
            # Written so that nan fails too.
            if not least <= (value := getattr(arguments, name, least)) < math.inf:
                raise UserError(f"--{name} must be a number of at least {least}, not {value}")
    for name in ABOVE_ZERO:
        if not 0 < (value := getattr(arguments, name, 1)) < math.inf:
            raise UserError(f"--{name} must be a number above 0, not {value}")
    if getattr(arguments, "seed", 0) >= 2**32:
        raise UserError(f"--seed must be below 2**32, not {arguments.seed}")
    for name, known in choices.items():
        if (value := getattr(arguments, name)) not in known:
            raise UserError(f"unknown {name} {value!r}: one of {', '.join(known)}")


def check_out(folder: Path, room: int = 0) -> None:
    """UserError unless files, `room` bytes of them, can be written in `folder` or, if that is not there yet, where it
    would be made. To be asked before what is to be written there is computed; leaves nothing behind."""
    folder = folder.absolute()
    try:
        for place in (folder, *folder.parents):
            with contextlib.suppress(FileNotFoundError):
                place.stat()
                break
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(2**16))  # a full disk lets one make empty files
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise UserError(f"--out: nothing can be written to {place}: {error.strerror}") from error
    if free < room:
        raise UserError(f"--out: {place} has {free / 1e6:.0f} MB free, and a checkpoint takes {room / 1e6:.0f} MB")


class Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line in place of the usage, which is as long as the list of flags."""
        raise UserError(f"{message} (--help lists all flags)")


def parse_arguments(cls: type[Arguments], argv: list[str] | None = None, words: Sequence[str] = ()) -> Arguments:
    """`[config.yaml] [--flag value ...]` -> an instance of the dataclass `cls`; flags override the file. `words`: text
    fields that are given as bare words, in this order; with init=False, or they would be flags as well."""
    argv = list(sys.argv[1:] if argv is None else argv)
    usage = " ".join(["%(prog)s", *(f"[{word}]" for word in words), "[--flag value ...]"]) if words else None
    about = sys.modules[cls.__module__].__doc__
    parser = Parser(cls, usage=usage, description=about, formatter_class=HelpFormatter, allow_abbrev=False)
    if argv and argv[0].endswith((".yaml", ".yml")):
        path = Path(argv.pop(0))
        if not path.is_file():
            raise UserError(f"there is no configuration file {path}")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path} must hold `name: value` lines")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(map(str, values.keys() - known)):
            raise UserError(f"{path} sets {', '.join(unknown)}, which {Path(sys.argv[0]).name} does not know")
        values = {k: v for k, v in values.items() if v not in (None, [])}  # argparse knows no flag without a value
        # As flags rather than as defaults, so that values of a wrong type are refused in the same way.
        flags = [[f"--{k}", *map(str, v if isinstance(v, list) else [v])] for k, v in values.items()]
        argv = [word for flag in flags for word in flag] + argv
    arguments, unknown = parser.parse_args_into_dataclasses(argv, return_remaining_strings=True)
    for name in words:
        if unknown and not unknown[0].startswith("--"):  # "-7 * 6?" is a question
            setattr(arguments, name, unknown.pop(0))
    if unknown:
        late = "; a configuration file comes first" if unknown[0].endswith((".yaml", ".yml")) else ""
        parser.error(f"unknown arguments: {' '.join(unknown)}{late}")
    return arguments


def run_main(main: Callable[[], None]) -> None:
    """Calls `main`. What the user can mend, what the machine has failed at, and signals that end the process become one
    line that says what is kept, and an exit code: 1, or 128 and the signal's number. A bug keeps its traceback."""

    def stop(number: int, _) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        raise Stopped(number)

    Run.current = None
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in handled}
    try:
        main()
        if dist.is_initialized():  # only here: after an error it would wait for the other ranks
            dist.destroy_process_group()
        return
    except Stopped as error:
        number = signal.Signals(error.args[0])
        line, code = f"stopped by {number.name}", 128 + number
    except Exception as error:
        line, code = in_one_line(error), 1
        if not line:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # Out here the stack is unwound, and with it the progress bars are off the screen.
    kept = f"; {Run.current.kept()}" if Run.current else ""
    rank, name = int(os.environ.get("RANK", "0")), Path(sys.argv[0]).name
    who = f"\n{name}, rank {rank}" if rank else name  # on a line of its own, below the main process's progress bar
    line = f"{who}: " + f"{line}{kept}".replace("\n", " ")
    if code == 1:
        raise SystemExit(line)
    if not rank:  # a signal comes to all ranks
        print(line, file=sys.stderr, flush=True)
    raise SystemExit(code)


def in_one_line(error: Exception) -> str:
    """What is wrong and what to do about it; empty for what must be a bug."""
    if isinstance(error, UserError | SandboxError):
        return str(error)
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        advice = ": free some space, or take another --out" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part) + advice
    if dist.is_initialized() and re.search("[Cc]onnection (closed|reset) by peer", str(error)):
        return "another process of this run has ended; it says why"
    if re.search("out of memory|allocate memory", str(error)) or isinstance(error, MemoryError):
        frames = [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
        if any(file == "generator.py" for file, _ in frames):
            return "out of memory while sampling: lower --slots or --max_reply_tokens"
        if {("training.py", "backward"), ("training.py", "log_probs_of")} & {*frames}:
            return "out of memory while training: lower --micro_batch_tokens"
        return "out of memory: the model and its optimizer need a larger machine, or more GPUs"
    return ""


class Run:
    """A run folder: config.yaml, revision.txt, metrics.jsonl, episodes.jsonl and whatever the script saves there.

    An older run of the same name is moved aside, never overwritten. `result`: the file or folder without which the run
    is not complete; `room`: the bytes that it will take.
    """

    current: ClassVar["Run | None"] = None  # what `run_main` speaks of when a run ends before its time

    def __init__(self, folder: str, arguments: Any, report_to: str = "", result: str = "checkpoint", room: int = 0):
        self.check(folder, report_to, room)
        self.folder, self.result = Path(folder), result
        self.main = PartialState().is_main_process
        self.tracker = None
        if not self.main:
            return
        if (self.folder / "config.yaml").exists():
            stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime((self.folder / "config.yaml").stat().st_mtime))
            aside = self.folder.with_name(f"{self.folder.name}-{stamp}")
            while aside.exists():  # several runs began within the same second
                aside = aside.with_name(aside.name + "+")
            self.folder.rename(aside)
            print(f"an older run was moved to {aside}")
        values = dataclasses.asdict(arguments)
        write_whole(self.folder / "config.yaml", [yaml.safe_dump(values, sort_keys=False)])
        write_whole(self.folder / "revision.txt", [git_revision() + "\n"])
        Run.current = self
        if report_to:
            self.tracker = make_tracker(report_to, self.folder, values)

    @staticmethod
    def check(folder: str, report_to: str = "", room: int = 0) -> None:
        """UserError where a run folder could not be written, or its figures not be reported: to be asked before
        anything is computed. Leaves nothing behind."""
        if not PartialState().is_main_process:
            return
        if Path(folder).name in ("", ".."):
            raise UserError(f"--out {folder!r} is not the name of a folder")
        check_out(Path(folder), room)
        check_out(Path(folder).parent)  # an older run is renamed there
        if report_to and report_to not in TRACKERS:
            raise UserError(f"unknown tracker {report_to!r}: one of {', '.join(TRACKERS)}")
        if report_to and not TRACKERS[report_to]():
            raise UserError(f"{report_to} is not installed: pip install -e '.[{report_to}]'")

    def kept(self) -> str:
        """What the folder holds, in words."""
        names = sorted(path.name for path in self.folder.glob("[!.]*"))
        missing = "" if self.result in names else f", but no {self.result}"
        return f"{self.folder} keeps {', '.join(names)}{missing}"

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl (and to the tracker). What the names mean: docs/metrics.md."""
        if self.main:
            self.append("metrics.jsonl", [{"step": step, **values}])
            if self.tracker is not None:
                self.tracker.log({k: v for k, v in values.items() if isinstance(v, int | float)}, step=step)

    def append(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Appends records to a .jsonl file of the run folder; main process only. Whole lines or nothing: they go in one
        write, which no signal can cut, and what a full disk has cut is taken back."""
        data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        with writing(self.folder / name), (self.folder / name).open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                while data := data[file.write(data) :]:  # the kernel takes up to 2 GB at a time
                    pass
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)
                raise

    def save(self, bundle: Bundle) -> Path:
        """Saves what generates as `checkpoint` in the run folder; returns its path."""
        folder = self.folder / "checkpoint"
        if self.main:
            save_bundle(bundle, folder)
        PartialState().wait_for_everyone()
        return folder


def git_revision() -> str:
    """The commit of this code, with `-dirty` if files differ from it; "unknown" outside a git checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return "unknown"


def make_tracker(name: str, folder: Path, config: dict[str, Any]):
    """TensorBoard or Weights & Biases, through accelerate."""
    from accelerate import tracking

    if name == "tensorboard":
        tracker = tracking.TensorBoardTracker(folder.name, logging_dir=folder)
    else:
        tracker = tracking.WandBTracker(folder.name)
    tracker.start()
    tracker.store_init_configuration({k: v for k, v in config.items() if not isinstance(v, list)})
    return tracker


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


def sum_over_ranks(values: Sequence[float]) -> list[float]:
    """Element-wise sums over all ranks."""
    total = torch.tensor(values, dtype=torch.float64, device=PartialState().device)
    if world_size() > 1:
        dist.all_reduce(total)
    return total.tolist()


def shard(model: Decoder) -> Decoder:
    """Wraps the model from outside with FSDP2: layer by layer, fp32 master weights, bf16 compute on GPUs.

    One process on a CPU stays as it is. Gradients are summed over ranks, not averaged: the loss carries its global
    denominator already.
    """
    state = PartialState()
    if state.num_processes == 1 and state.device.type == "cpu":
        return model
    dtype = torch.bfloat16 if state.device.type == "cuda" else None
    if not dist.is_initialized():  # one GPU without torchrun: FSDP wants a group, also of one
        dist.init_process_group(store=dist.HashStore(), rank=0, world_size=1)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    for module in (*model.layers, model):
        fully_shard(module, mp_policy=policy)
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


class Policy:
    """The weights that are trained (`model`) and the model that generates and is saved (`bundle`).

    Alone on a CPU both are one. Elsewhere the trained weights are fp32 and sharded, and the copy that generates is
    whole, in bf16 on GPUs; `sync` brings it up to date.
    """

    def __init__(self, name: str, learning_rate: float, weight_decay: float = 0.0):
        device = PartialState().device
        self.bundle = load_bundle(name, torch.float32, device)
        fit_threads(self.bundle.model)
        self.model = shard(self.bundle.model).requires_grad_(True)
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
        return sum(p.numel() * p.element_size() for p in self.bundle.model.parameters())

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
        if differing := [name for name, ok in zip(copies, trained == copied, strict=True) if not ok]:
            raise RuntimeError(f"the copy that generates is not what was trained: {', '.join(differing)}")


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


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of documents in bins of at most `budget` tokens (a longer document has a bin to itself); the longest go
    first, each into the first bin that has room. Every rank gets the same number of bins, if need be empty ones."""
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
    return bins + [[] for _ in range(int(count) - len(bins))]


def score(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` and entropies (both float32 [n]) under softmax(hidden @ weight.T / temperature).

    Never holds the logits of more than a chunk of rows: with 150,000 tokens in the vocabulary, those of a single
    micro-batch would outweigh the model. The backward pass computes each chunk's again.
    """

    def chunk(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = F.log_softmax(F.linear(hidden, weight).float() / temperature, -1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
        # The same as a gather, whose column would be a view, which FSDP2 does not like a module to return.
        return -F.nll_loss(log_probs, targets, reduction="none"), entropy

    size = max(1, LOGITS_PER_CHUNK // weight.shape[0])
    if len(targets) <= size:
        return chunk(hidden, weight, targets)
    pieces = [
        checkpoint(chunk, hidden[i : i + size], weight, targets[i : i + size], use_reentrant=False)
        for i in range(0, len(targets), size)
    ]
    log_probs, entropy = zip(*pieces, strict=True)
    return torch.cat(log_probs), torch.cat(entropy)


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
    return result
