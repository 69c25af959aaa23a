"""How every script begins and ends: arguments, errors in one line, and the run folder that keeps what was computed.

Flags come from a dataclass, a YAML file first. What the user can mend, or the machine has failed at, ends a script with
one line and an exit code; a bug keeps its traceback.
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

import torch.distributed as dist
import yaml
from accelerate import PartialState
from accelerate.utils import is_tensorboard_available, is_wandb_available
from transformers import HfArgumentParser

from checkpoint import Bundle, Checkpoints, write_whole, writing
from executor import SandboxError
from slots import CacheError

ROOT = Path(__file__).resolve().parent
TRACKERS = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}

Arguments = TypeVar("Arguments")
Result = TypeVar("Result")


# --------------------------------------------------------------------------------------------------------------------
# arguments and run folders


# The least that a number may be, by the name of its flag in whichever script.
AT_LEAST = {
    0: (
        "cache_gib", "clip_high", "clip_low", "efficiency_penalty", "entropy_bonus", "format_reward",
        "held_out_problems", "importance_cap", "kl", "learning_rate", "max_code_runs", "multi_turn_weight", "patience",
        "plan", "price_in", "price_out", "refills", "save_every", "seed", "show", "stage_steps", "validation", "warmup",
        "weight_decay",
    ),
    1: (
        "attempts", "batch_size", "concurrency", "epochs", "group_size", "keep_checkpoints", "max_length",
        "max_observation_chars", "max_observation_tokens", "max_reply_tokens", "max_turn_tokens",
        "micro_batch_tokens", "per_task", "problems_per_task", "prompts_per_step", "replicas", "samples", "slots",
        "steps", "trajectories", "updates_per_step",
    ),
}  # fmt: skip
ABOVE_ZERO = ("code_timeout", "request_timeout", "max_grad_norm", "spare", "temperature", "top_p")
# Errors of the system that are the machine's, never a bug.
MACHINE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE,
    errno.ENAMETOOLONG, errno.ENOMEM, errno.EAGAIN,
}  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class TrainingArguments:
    """What trainings of both kinds can be told: how they use the machine, and what they keep of themselves."""

    micro_batch_tokens: int = dataclasses.field(default=16384, metadata={"help": "tokens per forward pass and rank"})
    recompute: bool = dataclasses.field(
        default=False, metadata={"help": "activation checkpointing: less memory, a third more work in updates"}
    )
    replicas: int = dataclasses.field(
        default=1,
        metadata={"help": "HSDP: weights are sharded within each of so many groups of ranks, such as nodes"},
    )
    save_every: int = dataclasses.field(default=10, metadata={"help": "steps between checkpoints; 0: only at the end"})
    keep_checkpoints: int = dataclasses.field(default=2, metadata={"help": "the last so many, and the best"})
    resume: bool = dataclasses.field(
        default=False, metadata={"help": "go on from the last checkpoint in --out, if there is one"}
    )

    def resume_from(self) -> Path | None:
        """The checkpoint to go on from."""
        return Checkpoints(Path(self.out), self.keep_checkpoints).last() if self.resume else None


class UserError(Exception):
    """Something the user can mend; `run_main` prints it as one line."""


class Stopped(SystemExit):
    """The signal (SIGINT or SIGTERM) that ends a run; clean-up happens on the way to `run_main`. A SystemExit, since
    asyncio logs any other that comes while it calls back, and goes on."""


class Signals:
    """When SIGINT and SIGTERM take effect: at once, by `Stopped`; while training, where what is saved is whole."""

    def __init__(self):
        self.number, self.patient = 0, False

    def arrive(self, number: int, _: Any = None) -> None:
        """The handler of both."""
        # A second one ends the process at once; but torchrun passes on what its processes were told too, and ends those
        # that take too long by itself.
        signal.signal(number, signal.SIG_IGN if "TORCHELASTIC_RUN_ID" in os.environ else signal.SIG_DFL)
        self.number = number
        if not self.patient:
            raise Stopped(number)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, a signal is only noted, in `number`."""
        self.patient = True
        try:
            yield
        finally:
            self.patient = False

    def interruptible(self, function: Callable[[], Result]) -> Result | None:
        """Inside `waiting`: what `function()` returns, which must leave no trace when it is cut short; None as soon as
        a signal has come."""
        try:
            self.patient = False
            return None if self.number else function()
        except Stopped:
            return None
        finally:
            self.patient = True


SIGNALS = Signals()


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
        raise UserError(f"--out: {place} has {free / 1e6:.0f} MB free, and two checkpoints take {room / 1e6:.0f} MB")


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
        replaced = cls.replaced_by(argv) if hasattr(cls, "replaced_by") else set()
        # argparse knows no flag without a value
        values = {k: v for k, v in values.items() if v not in (None, []) and k not in replaced}
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

    Run.current = None
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, SIGNALS.arrive) for number in handled}
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
        SIGNALS.number = 0
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
    if isinstance(error, UserError | SandboxError | CacheError):
        return str(error)
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        advice = ": free some space, or take another --out" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part) + advice
    if dist.is_initialized() and re.search("[Cc]onnection (closed|reset) by peer", str(error)):
        return "another process of this run has ended; it says why"
    if re.search("out of memory|allocate memory", str(error)) or isinstance(error, MemoryError):
        frames = [(Path(frame.filename).name, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
        if any(file == "generator.py" for file, _ in frames):
            return "out of memory while sampling: lower --slots, --max_reply_tokens or --cache_gib"
        if {("training.py", "backward"), ("training.py", "log_probs_of")} & {*frames}:
            return "out of memory while training: lower --micro_batch_tokens"
        return "out of memory: the model and its optimizer need a larger machine, or more GPUs"
    return ""


def append_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Appends to a .jsonl file. Whole lines or nothing: they go in one write, which no signal but SIGKILL can cut, and
    what a full disk has cut is taken back."""
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    with writing(path), path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        try:
            while data := data[file.write(data) :]:  # the kernel takes up to 2 GB at a time
                pass
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise


def read_records(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may not be there; what a killed process has left of one more is cut off."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)
    try:
        return [json.loads(line) for line in data[:whole].splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): move it away, or take another --out") from error


def remember(folder: Path, arguments: Any, may_change: Iterable[str] = ()) -> None:
    """Makes the folder and writes the settings down; UserError if it was begun with others, those that `may_change`
    aside. For scripts that go on with what the same command has left."""
    file, values = folder / "config.yaml", dataclasses.asdict(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    if file.exists():
        check_same(folder, arguments, [name for name in values if name not in may_change])
    write_whole(file, [yaml.safe_dump(values, sort_keys=False)])


def check_same(folder: Path, arguments: Any, names: Iterable[str]) -> None:
    """UserError if the run in `folder` was begun with other values of these settings."""
    before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    if other := [name for name in names if getattr(arguments, name) != before.get(name)]:
        was = ", ".join(f"--{name} {before.get(name)}" for name in other)
        raise UserError(f"{folder} was begun with {was}: take that, or another --out")


class Run:
    """A run folder: config.yaml, revision.txt, metrics.jsonl, episodes.jsonl and whatever the script saves there.

    An older run of the same name is moved aside, never overwritten, unless it is resumed: then what it logged from the
    step of its last checkpoint on is taken back. `result`: the file or folder without which the run is not complete;
    `room`: the bytes that it will take; `goes_on`: for runs without checkpoints that go on with what is there, the
    settings that may be others.
    """

    current: ClassVar["Run | None"] = None  # what `run_main` speaks of when a run ends before its time

    def __init__(
        self,
        folder: str,
        arguments: Any,
        report_to: str = "",
        result: str = "checkpoint",
        room: int = 0,
        goes_on: Iterable[str] = (),
    ):
        self.check(folder, report_to, room)
        self.folder, self.result = Path(folder), result
        self.main = PartialState().is_main_process
        self.tracker = None
        self.checkpoints = Checkpoints(self.folder, getattr(arguments, "keep_checkpoints", 1))
        last = arguments.resume_from() if hasattr(arguments, "resume_from") else None
        self.restored = self.checkpoints.state(last) if last else {"step": 0}
        PartialState().wait_for_everyone()  # nobody looks for the last checkpoint any more
        if not self.main:
            return
        values = dataclasses.asdict(arguments)
        if last:
            self._rewind(values)
        elif goes_on:
            remember(self.folder, arguments, goes_on)
        elif (self.folder / "config.yaml").exists():
            self._move_aside()
        write_whole(self.folder / "config.yaml", [yaml.safe_dump(values, sort_keys=False)])
        write_whole(self.folder / "revision.txt", [git_revision() + "\n"])
        Run.current = self
        if report_to:
            self.tracker = make_tracker(report_to, self.folder, values)

    def _move_aside(self) -> None:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime((self.folder / "config.yaml").stat().st_mtime))
        aside = self.folder.with_name(f"{self.folder.name}-{stamp}")
        while aside.exists():  # several runs began within the same second
            aside = aside.with_name(aside.name + "+")
        self.folder.rename(aside)
        print(f"an older run was moved to {aside}")

    def _rewind(self, values: dict[str, Any]) -> None:
        step = self.restored["step"]
        for path in (self.folder / "metrics.jsonl", self.folder / "episodes.jsonl"):
            if path.exists():
                with path.open(encoding="utf-8") as file:
                    write_whole(
                        path, (line for line in file if line.endswith("\n") and json.loads(line)["step"] < step)
                    )
        before = yaml.safe_load((self.folder / "config.yaml").read_text(encoding="utf-8"))
        other = [f"{k} {v} (was {before.get(k)})" for k, v in values.items() if v != before.get(k) and k != "resume"]
        print(f"{self.folder} goes on after step {step}" + (f", with {', '.join(other)}" if other else ""), flush=True)

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
        more = "; --resume goes on from there" if self.checkpoints.last() else ""
        return f"{self.folder} keeps {', '.join(names)}{missing}{more}"

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Appends a line to metrics.jsonl (and to the tracker). What the names mean: docs/metrics.md."""
        if self.main:
            self.append("metrics.jsonl", [{"step": step, **values}])
            if self.tracker is not None:
                self.tracker.log({k: v for k, v in values.items() if isinstance(v, int | float)}, step=step)

    def append(self, name: str, records: Iterable[dict[str, Any]]) -> None:
        """Appends records to a .jsonl file of the run folder; main process only."""
        append_records(self.folder / name, records)

    def save(
        self, step: int, bundle: Bundle, save_trainer: Callable[[Path], None], better: bool = False, **state: Any
    ) -> Path:
        """Saves a checkpoint of this step, `better` than all before or not, see `Checkpoints.save`; returns the path
        under which it is found. `state`: what there is to remember beside weights and optimizer, as plain JSON."""
        self.checkpoints.save(step, bundle, save_trainer, {"step": step, **state}, better)
        return self.folder / "checkpoint"


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
