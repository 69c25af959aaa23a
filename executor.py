"""Run model-written Python: one short-lived process per program, thousands of programs per training step.

How it works. Starting a Python interpreter for every program costs 15-50 ms (0.5 s more with sympy), and forking the
trainer is no choice: it holds gigabytes, threads, a GPU and the answers. So there is a process in between, a fork
server, called a *zygote*:

    trainer --- Executor (one thread) ===socket=== zygote --fork--> child: seal(), then the program
                                          socket=== zygote --fork--> child: ...

- The **zygote** is a fresh interpreter, started by exec with a clean environment, so that nothing of the trainer is in
  its memory. It imports common modules once and then only forks, kills and reaps. There are two flavours of zygote:
  plain, and numpy + sympy, which is started when the first program that imports one of them comes along.
- The **child** is a fork of the zygote: it has those modules already (copy-on-write) and starts in a few
  milliseconds. It seals itself (`seal`), reports that on a descriptor that it then closes, runs one program and exits.
  Programs therefore share no state. Hashes, `random` and `numpy.random` start alike in each.
- The **channels** are three memory files per program (memfd): source, stdout and stderr. The Executor creates them and
  passes their descriptors through the socket. The kernel bounds their size, what was printed survives a time-out or a
  crash, and there is no result pipe that a program could corrupt: how it ended comes from wait4 alone.
- The **Executor** admits at most `workers` programs at a time and queues the rest. A program's time limit starts with
  its child, so that neither a long queue nor a slow neighbour can use it up.
- Whatever a program leaves running is killed when it ends: the zygote adopts orphans (it is a "subreaper"). A zygote
  that dies is replaced and its programs run once more. When the trainer dies, each zygote reads end-of-file, kills
  its children and exits.

A failure of this machinery is not the model's fault: its status is `sandbox_error`, to be masked out of training. The
program cannot forge it by exit code or text, since it depends on whether the child reported itself sealed before the
program's first line.

Differs from the paper: there, the interpreter had five nodes of 64 cores to itself; here programs share the trainer's
machine, hence the admission control.

What this file does NOT promise yet. `seal` limits resources and keeps processes apart; it does not confine a hostile
program. With the rights of the trainer's user, a program can still read and write files (what it writes to one file is
cut at the output limit), import any installed package, open network connections, start processes, and signal any
process of that user, zygotes included: that would turn its own end into a `sandbox_error`, and what it has started
would live on. The memory limit holds per process, not for all that a program starts. It sees frames of this file
through `sys._getframe`. `memory` is inferred from stderr and so can be forged: show a status to the model, never reward
it. Sets of objects that are hashed by address, `os.urandom` and unseeded `numpy.random.default_rng` differ between
runs. Linux only.

    python executor.py program.py
"""

import atexit
import builtins
import collections
import contextlib
import ctypes
import gc
import heapq
import importlib
import io
import itertools
import json
import linecache
import math
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

if sys.platform == "linux":
    import resource

PROGRAM = "<program>"  # the file name of a program in its tracebacks
MAX_SOURCE_BYTES = 1_000_000
MAX_MESSAGE_BYTES = 4096
MAX_ZYGOTES = 8  # per flavour; each forks some hundred programs per second
STALL_S = 60.0  # a zygote that takes longer to fork a child, or to end one, is replaced; a cold sympy takes seconds
PRELOAD = {
    "plain": "bisect collections copy dataclasses datetime decimal enum fractions functools heapq itertools json math "
    "operator random re statistics string textwrap typing",
    "science": "numpy numpy.linalg numpy.random sympy",
}
# A wrong guess only costs time. Anchored to lines, so that the search is linear in whatever the model writes.
SCIENCE = re.compile(r"^[ \t]*(?:import|from)[ \t][^\n]*\b(?:numpy|sympy|mpmath|scipy|pandas)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Result:
    """How one program ended. Times are in seconds; the texts are always valid, whatever bytes the program wrote."""

    status: str  # ok | error | timeout | memory | output | signal | sandbox_error
    stdout: str
    stderr: str  # with the traceback, which shows the program's frames only
    exit_code: int | None = None  # None if a signal ended the program, or if it never ran
    signal: int | None = None
    truncated: bool = False  # stdout or stderr reached its limit; the rest is lost
    wall_s: float = 0.0  # from the child's start to its end
    cpu_s: float = 0.0
    max_rss_mb: float = 0.0  # resident peak, with the pages shared with the zygote
    queue_s: float = 0.0  # from submission to the child's start
    layers: tuple[str, ...] = ()  # the layers of `seal` that held


# ---------------------------------------------------------------------------------------------------------------------
# In the child: seal, then run one program.

LAYERS = ("process_group", "parent_death", "descriptors", "not_dumpable", "no_new_privs", "rlimits")


def seal(limits: dict[str, int], zygote_pid: int, keep_fd: int) -> int:
    """Confine the calling process by the LAYERS, in that order, and return the new number of descriptor `keep_fd`.

    Raises OSError or ValueError where a layer does not hold; the child then does not report itself sealed and runs
    nothing. The strongest layers belong at the end, since they forbid what the ones before them need.
    """
    # process_group: one kill reaches all that the program starts, unless that leaves the group.
    os.setpgid(0, 0)
    # parent_death: the kernel kills the child with its zygote. One that died before the call would go unnoticed.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote_pid:
        raise OSError("the zygote is gone")
    # descriptors: stdin, stdout, stderr and `keep_fd`, but not the zygote's socket nor a sibling's output.
    os.dup2(keep_fd, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX"))
    # not_dumpable: siblings may not read the child's memory, nor open its descriptors through /proc.
    prctl(PR_SET_DUMPABLE, 0)
    # no_new_privs: setuid programs give no rights.
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # rlimits: soft, hard. The files of stdout and stderr may hold one byte more, which tells a cut one from a full one;
    # the address space has a reserve, in which `run_program` reports a MemoryError.
    for limit, soft, hard in (
        (resource.RLIMIT_CPU, limits["cpu_s"], limits["cpu_s"] + 1),
        (resource.RLIMIT_AS, limits["address_space"], limits["address_space"] + (16 << 20)),
        (resource.RLIMIT_FSIZE, limits["output_bytes"] + 1, limits["output_bytes"] + 1),
        (resource.RLIMIT_STACK, 8 << 20, 8 << 20),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        resource.setrlimit(limit, (soft, hard))
    return 3


PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38  # <linux/prctl.h>


def prctl(option: int, value: int) -> None:
    """Call prctl(2); raises OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def run_program(text: str) -> int:
    """Run `text` as `__main__` in this process, report its exception as CPython would, and return the exit code."""
    main_module = types.ModuleType("__main__")
    main_module.__builtins__ = builtins
    sys.modules["__main__"] = main_module
    sys.argv = [PROGRAM]
    # Tracebacks find their source lines here. Without a modification time (None), linecache looks for no file of that
    # name. StringIO splits lines where the compiler does; str.splitlines would also split at form feeds.
    linecache.cache[PROGRAM] = (len(text), None, io.StringIO(text, newline=None).readlines(), PROGRAM)
    with_reserve = (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2  # made now: there may be no memory to do it later
    exit_code = 0
    try:
        exec(compile(text, PROGRAM, "exec", dont_inherit=True), main_module.__dict__)  # noqa: S102 - the purpose
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            exit_code = (error.code or 0) & 0xFF
        else:
            exit_code = 1
            write_stderr(f"{error.code}\n")
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its result
        exit_code = 1
        resource.setrlimit(resource.RLIMIT_AS, with_reserve)
        report_exception(error)
    # What an interpreter does at its end, but without tearing down the modules, which would copy their pages. The
    # standard library's multiprocessing makes the same two private calls.
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - raised by the program's handler or stream
        exit_code = exit_code or 1
    return exit_code


def report_exception(error: BaseException) -> None:
    """Write the traceback of `error` to stderr, less its first frame, which is that of `run_program`."""
    try:
        frames = error.__traceback__ and error.__traceback__.tb_next  # a MemoryError may lack one
        write_stderr("".join(traceback.format_exception(type(error), error, frames)))
    except BaseException:  # noqa: BLE001 - out of memory, or the program broke what is called here
        write_stderr(f"{type(error).__name__}\n")


def write_stderr(text: str) -> None:
    """Write to the descriptor, since the program may have replaced sys.stderr."""
    with contextlib.suppress(OSError):  # the output limit, or closed by the program
        os.write(2, text.encode(errors="backslashreplace"))


# ---------------------------------------------------------------------------------------------------------------------
# In the zygote: fork, kill and reap. It never reads a program's output.


@dataclass
class Child:
    """A running child of the zygote."""

    job: int
    pid: int
    sealed_fd: int  # eventfd, which the child writes once it is sealed
    pidfd: int  # polls as readable once the child has ended


def zygote_main(channel: socket.socket, flavour: str, limits: dict[str, int]) -> NoReturn:
    """Prepare this fresh interpreter, then serve requests until the Executor closes its end of `channel`."""
    # Second line, for when a fork of the trainer holds the socket open. Not SIGKILL: the zygote must first end what its
    # children have started. The handler does not raise, since it may interrupt the same work after end-of-file.
    signal.signal(signal.SIGTERM, lambda *_: end_zygote())
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # exec keeps the trainer's signal mask,
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # and an ignored SIGCHLD, with which wait4 would fail
    for name in PRELOAD[flavour].split():
        with contextlib.suppress(ImportError):  # not installed: a program that imports it gets the error
            importlib.import_module(name)
    if "sympy" in sys.modules:
        sys.modules["sympy"].solve("x**2 - 2")  # loads what each program would otherwise load for itself, in 0.2 s
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits["address_space"] = pages * resource.getpagesize() + limits["memory_bytes"]
    kill_children(keep=())  # if /proc cannot list children, fail now
    gc.collect()
    gc.freeze()  # a collection in a child would write to, and so copy, every page of objects
    with contextlib.suppress(ConnectionError):  # closed while a message was on its way
        serve(channel, limits)
    end_zygote()


def end_zygote() -> NoReturn:
    """Leave nothing behind."""
    kill_children(keep=())
    os._exit(0)


def serve(channel: socket.socket, limits: dict[str, int]) -> None:
    """Handle requests until end-of-file.

    Messages are JSON. In: {"run": job}, with the descriptors of source, stdout and stderr; {"kill": job}. Out:
    {"ready": layers}, {"started": job, ...}, {"ended": job, ...}, or {"failed": job, ...} if there is no child. Times
    ("at") are from time.monotonic(), which is one clock for all processes.
    """
    send(channel, ready=LAYERS)
    children: dict[int, Child] = {}  # by pidfd
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while True:
        for ready_fd, _ in poller.poll():
            if ready_fd in children:
                poller.unregister(ready_fd)
                child = children.pop(ready_fd)
                send(channel, ended=child.job, **reap(child, siblings=[other.pid for other in children.values()]))
                continue
            message, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, 3)
            if not message:
                return
            request = json.loads(message)
            if "kill" in request:
                for child in children.values():
                    if child.job == request["kill"]:
                        kill(child)
                continue
            try:
                child = fork(request["run"], fds, limits)
            except OSError as error:  # no process or descriptor left
                send(channel, failed=request["run"], reason=str(error))
            else:
                send(channel, started=child.job, at=time.monotonic())
                children[child.pidfd] = child
                poller.register(child.pidfd, select.POLLIN)
            for fd in fds:
                os.close(fd)


def send(channel: socket.socket, fds: Collection[int] = (), **message: object) -> None:
    """Send one message, with open descriptors."""
    socket.send_fds(channel, [json.dumps(message).encode()], fds)


def fork(job: int, fds: list[int], limits: dict[str, int]) -> Child:
    """Fork a child that runs a program; raises OSError if the system is out of processes or descriptors."""
    zygote_pid, sealed_fd = os.getpid(), os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        pid = os.fork()
    except OSError:
        os.close(sealed_fd)
        raise
    if pid == 0:
        exit_code = 1
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            source, stdout, stderr = fds
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            text = os.pread(source, MAX_SOURCE_BYTES, 0).decode("utf-8", "surrogatepass")
            random.seed(0)  # the module seeds itself anew after each fork
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(0)
            sealed_fd = seal(limits, zygote_pid, sealed_fd)
            os.eventfd_write(sealed_fd, 1)
            os.close(sealed_fd)
            exit_code = run_program(text)
        except BaseException as error:  # noqa: BLE001 - were it to go on, it would run a second zygote
            report_exception(error)
        finally:
            os._exit(exit_code)
    return Child(job, pid, sealed_fd, os.pidfd_open(pid))


def reap(child: Child, siblings: list[int]) -> dict[str, object]:
    """Collect an ended child, kill all it left behind, and return how it ended."""
    at = time.monotonic()
    kill(child)  # its group, and before wait4, after which the number may belong to another group
    _, status, usage = os.wait4(child.pid, 0)
    kill_children(keep=siblings)
    try:
        sealed = os.eventfd_read(child.sealed_fd) == 1
    except BlockingIOError:
        sealed = False
    os.close(child.sealed_fd)
    os.close(child.pidfd)
    cpu_s, max_rss_mb = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return {"at": at, "status": status, "sealed": sealed, "cpu_s": cpu_s, "max_rss_mb": max_rss_mb}


def kill(child: Child) -> None:
    """Kill a child that is not reaped yet, with its process group."""
    with contextlib.suppress(ProcessLookupError):  # it has not made its group yet
        os.killpg(child.pid, signal.SIGKILL)
    os.kill(child.pid, signal.SIGKILL)  # it may have moved to another group


def kill_children(keep: Collection[int]) -> None:
    """Kill and reap every child of this process except `keep`, then what those leave, until there is none.

    What a program started and left becomes a child of the zygote, its subreaper, when its own parent ends. Processes
    that a program which still runs has detached from itself are killed too: nothing here may run in the background.
    """
    listing = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    while orphans := set(map(int, listing.read_text().split())) - set(keep):
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---------------------------------------------------------------------------------------------------------------------
# In the trainer.


@dataclass
class Job:
    """A program on its way from submission to Result."""

    id: int
    source: bytes
    flavour: str
    submitted: float
    future: Future = field(default_factory=Future)
    attempts: int = 0
    outputs: list[int] = field(default_factory=list)  # descriptors of stdout and stderr
    started: float | None = None  # None while it waits for its child
    killed: bool = False  # its time is over and its zygote has been told
    deadline: float = math.inf  # for what it waits for: its child, then its end, then its death


@dataclass(eq=False)
class Zygote:
    """The trainer's side of a zygote."""

    process: subprocess.Popen
    channel: socket.socket
    flavour: str
    jobs: dict[int, Job] = field(default_factory=dict)
    layers: tuple[str, ...] = ()  # empty until it is ready


class Executor:
    """Runs programs, `workers` at a time (default: two per core), each for at most `timeout` seconds.

    `memory_mb` is the address space that a program may add to its interpreter's; `output_kb` is the limit of stdout and
    of stderr. All methods may be called from any thread. Use it as a context manager, or `close` it.
    """

    def __init__(
        self, workers: int | None = None, timeout: float = 5.0, memory_mb: int = 512, output_kb: int = 64
    ) -> None:
        """Start the thread; zygotes start when they are needed. Raises RuntimeError on any system but Linux."""
        if sys.platform != "linux":
            raise RuntimeError(f"the executor needs Linux (memfd, prctl, pidfd), and this is {sys.platform}")
        self.workers = workers or 2 * len(os.sched_getaffinity(0))
        self.timeout = timeout
        # The CPU limit stands behind the time-out; only a program that computes in several threads meets it first.
        self._limits = {
            "cpu_s": math.ceil(timeout) + 1,
            "memory_bytes": memory_mb << 20,
            "output_bytes": output_kb << 10,
        }
        self._owner = os.getpid()
        self._ids = itertools.count()
        self._lock = threading.Lock()  # guards the queue and the two that follow
        self._queue: collections.deque[Job] = collections.deque()
        self._closed = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        # Only the thread touches the rest.
        self._zygotes: dict[int, Zygote] = {}  # by descriptor of the channel
        self._deadlines: list[tuple[float, int]] = []  # heap of (deadline, job)
        self._poller = select.poll()
        self._poller.register(self._wake, select.POLLIN)
        # A daemon: a trainer that fails before close() must be able to exit, upon which its zygotes read end-of-file.
        self._thread = threading.Thread(target=self._main, name="executor", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Executor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, code: str) -> "Future[Result]":
        """Queue a program. The future cannot be cancelled and raises nothing: every failure is a Result.

        Raises RuntimeError if the executor is closed, or was inherited through a fork.
        """
        if os.getpid() != self._owner:
            raise RuntimeError("the executor belongs to another process; make one after the fork")
        flavour = "science" if SCIENCE.search(code) else "plain"
        job = Job(next(self._ids), code.encode("utf-8", "surrogatepass"), flavour, time.monotonic())
        job.future.set_running_or_notify_cancel()
        if len(job.source) > MAX_SOURCE_BYTES:
            message = f"the program has {len(job.source)} bytes, and the limit is {MAX_SOURCE_BYTES}\n"
            job.future.set_result(Result("error", "", message))
            return job.future
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed")
            self._queue.append(job)
            os.eventfd_write(self._wake, 1)
        return job.future

    def run(self, code: str) -> Result:
        """Run one program and wait for its end."""
        return self.submit(code).result()

    def map(self, codes: Iterable[str]) -> list[Result]:
        """Run programs side by side and wait for all; results are in the order of `codes`."""
        return [future.result() for future in [self.submit(code) for code in codes]]

    def close(self) -> None:
        """End the thread and all processes; what has not ended by then is a `sandbox_error`. May be called twice."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                os.eventfd_write(self._wake, 1)
        self._thread.join()

    # The thread. A zygote dies with the thread that started it (PDEATHSIG), so that all of them are started here.

    def _main(self) -> None:
        try:
            while not self._closed:
                self._admit()
                wait_s = max(0.0, self._deadlines[0][0] - time.monotonic()) if self._deadlines else None
                for fd, _ in self._poller.poll(None if wait_s is None else math.ceil(wait_s * 1000)):
                    if fd == self._wake:
                        os.eventfd_read(fd)
                    else:
                        self._receive(self._zygotes[fd])
                self._expire()
        finally:  # after an error as well: nobody may wait for ever on a future
            with self._lock:
                self._closed = True
                os.close(self._wake)
            for zygote in list(self._zygotes.values()):
                self._discard(zygote)
                self._queue.extend(zygote.jobs.values())
            for job in self._queue:
                self._fail(job, "the executor was closed")

    def _admit(self) -> None:
        """Hand queued programs to zygotes while workers are free."""
        while sum(len(zygote.jobs) for zygote in self._zygotes.values()) < self.workers:
            with self._lock:
                if not self._queue:
                    return
                job = self._queue.popleft()
            try:
                zygote = self._choose(job.flavour)
                for name in ("stdout", "stderr"):
                    job.outputs.append(os.memfd_create(name))
                with open(os.memfd_create("source"), "wb", buffering=0) as source:
                    source.write(job.source)
                    with contextlib.suppress(ConnectionError, TimeoutError):  # dead or hanging: the job will run again
                        send(zygote.channel, [source.fileno(), *job.outputs], run=job.id)
            except OSError as error:  # the trainer is out of descriptors, memory or processes
                self._fail(job, str(error))
                continue
            job.attempts, job.started, job.killed = job.attempts + 1, None, False
            zygote.jobs[job.id] = job
            self._set_deadline(job, time.monotonic() + STALL_S)

    def _choose(self, flavour: str) -> Zygote:
        """The least busy zygote of a flavour, rather one that is ready; where all are busy, one more is started."""
        pool = [zygote for zygote in self._zygotes.values() if zygote.flavour == flavour]
        if all(zygote.jobs for zygote in pool) and len(pool) < max(1, min(MAX_ZYGOTES, self.workers // 2)):
            pool.append(self._start_zygote(flavour))
        return min(pool, key=lambda zygote: (not zygote.layers, len(zygote.jobs)))

    def _start_zygote(self, flavour: str) -> Zygote:
        """Run this file in a fresh interpreter: the exec leaves memory, environment and descriptors behind."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "PYTHONHASHSEED": "0",
            "PYTHONIOENCODING": "utf-8:backslashreplace",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",  # threads do not survive a fork, and programs would fight for the cores
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        if "LD_LIBRARY_PATH" in os.environ:  # some installations find libpython by it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -u: what is printed is in the memory file at once. -s, -P: neither the user's site-packages nor this folder is
        # on the path. (-I would imply them, but ignores PYTHONHASHSEED.)
        command = [sys.executable, "-u", "-s", "-P", os.path.abspath(__file__), "--zygote", flavour]
        with theirs:
            process = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(self._limits)],
                env=environment,
                cwd="/",
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt typed at the trainer's terminal is not for zygotes
            )
        ours.settimeout(STALL_S)  # a zygote that hangs with its socket full must not hang this thread
        self._poller.register(ours, select.POLLIN)
        zygote = self._zygotes[ours.fileno()] = Zygote(process, ours, flavour)
        return zygote

    def _receive(self, zygote: Zygote) -> None:
        """Handle one message of a zygote, or its death."""
        try:
            message = zygote.channel.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return  # it died with requests unread; its last reports and end-of-file are still to come
        if not message:
            self._discard(zygote)
            for job in reversed(zygote.jobs.values()):
                if job.attempts > 1:
                    self._fail(job, f"its fork server died twice, last with status {zygote.process.returncode}")
                    continue
                self._close_outputs(job)
                with self._lock:
                    self._queue.appendleft(job)
            return
        report = json.loads(message)
        if "ready" in report:
            zygote.layers = tuple(report["ready"])
        elif "started" in report:
            job = zygote.jobs[report["started"]]
            job.started = report["at"]
            self._set_deadline(job, job.started + self.timeout)
        elif "failed" in report:
            self._fail(zygote.jobs.pop(report["failed"]), report["reason"])
        else:
            self._finish(zygote.jobs.pop(report["ended"]), report, zygote.layers)

    def _set_deadline(self, job: Job, deadline: float) -> None:
        job.deadline = deadline
        heapq.heappush(self._deadlines, (deadline, job.id))

    def _expire(self) -> None:
        """Act on the deadlines that have passed. A job's entries before its last one are void."""
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            deadline, job_id = heapq.heappop(self._deadlines)
            for zygote in self._zygotes.values():
                job = zygote.jobs.get(job_id)
                if job is None or job.deadline != deadline:
                    continue
                if job.started is None or job.killed:
                    zygote.process.kill()  # it hangs; the rest is as for any zygote that dies
                    continue
                job.killed = True
                self._set_deadline(job, now + STALL_S)
                with contextlib.suppress(OSError):
                    send(zygote.channel, kill=job.id)

    def _discard(self, zygote: Zygote) -> None:
        """End a zygote. At its end-of-file it kills its children, whom only it knows; a kill is for one that hangs."""
        del self._zygotes[zygote.channel.fileno()]
        self._poller.unregister(zygote.channel)
        zygote.channel.close()
        try:
            zygote.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            zygote.process.kill()
            zygote.process.wait()

    def _close_outputs(self, job: Job) -> None:
        while job.outputs:
            os.close(job.outputs.pop())

    def _fail(self, job: Job, reason: str) -> None:
        """Resolve a job that has no result, by no fault of the program."""
        self._close_outputs(job)
        job.future.set_result(Result("sandbox_error", "", f"sandbox error: {reason}\n"))

    def _finish(self, job: Job, report: dict, layers: tuple[str, ...]) -> None:
        """Resolve a job whose child has ended."""
        limit = self._limits["output_bytes"]
        outputs = [os.pread(fd, limit + 1, 0) for fd in job.outputs]
        self._close_outputs(job)
        stdout, stderr = (data[:limit].decode("utf-8", "replace") for data in outputs)
        truncated = any(len(data) > limit for data in outputs)
        exit_code = os.waitstatus_to_exitcode(report["status"])
        died_of = -exit_code if exit_code < 0 else None
        out_of_cpu = died_of == signal.SIGXCPU or (died_of == signal.SIGKILL and report["cpu_s"] >= self.timeout)
        last_line = stderr.rstrip().rpartition("\n")[2]
        if not report["sealed"]:
            status = "sandbox_error"
        elif died_of:
            status = "timeout" if job.killed or out_of_cpu else "signal"
        elif truncated:
            status = "output"
        elif exit_code == 1 and "MemoryError" in last_line.partition(":")[0]:
            status = "memory"
        else:
            status = "error" if exit_code else "ok"
        result = Result(
            status=status,
            stdout=stdout,
            stderr=stderr,
            exit_code=None if died_of else exit_code,
            signal=died_of,
            truncated=truncated,
            wall_s=report["at"] - job.started,
            cpu_s=report["cpu_s"],
            max_rss_mb=report["max_rss_mb"],
            queue_s=job.started - job.submitted,
            layers=layers if report["sealed"] else (),
        )
        job.future.set_result(result)


def main() -> NoReturn:
    """Run the program in a file and print its Result. The exit code is 0 if its status is ok, otherwise 1."""
    if sys.argv[1:2] == ["--zygote"]:
        _, _, flavour, fd, limits = sys.argv
        zygote_main(socket.socket(fileno=int(fd)), flavour, json.loads(limits))
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python executor.py FILE")
    with Executor(workers=1) as executor:
        result = executor.run(Path(sys.argv[1]).read_text(encoding="utf-8", errors="surrogateescape"))
    for name in Result.__slots__:
        if name not in ("stdout", "stderr"):
            print(f"{name:12}{getattr(result, name)}")
    print(f"--- stdout\n{result.stdout}\n--- stderr\n{result.stderr}")
    sys.exit(result.status != "ok")


if __name__ == "__main__":
    main()
