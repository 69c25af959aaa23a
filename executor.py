"""Run model-written Python: one short-lived process per program, thousands of programs per training step.

Starting a Python interpreter for every program costs 15-50 ms (0.5 s more with sympy), and forking the trainer is no
choice: it holds gigabytes, threads, a GPU and the answers. So there is a fork server in between, called a *zygote*:

    trainer --- Executor (one thread) ===socket=== zygote --fork--> child: seal(), then the program
                                          socket=== zygote --fork--> child: ...

- The **zygote** is a fresh interpreter with a clean environment: nothing of the trainer is in its memory. It imports
  common modules once, then only forks, kills and reaps. There are two flavours: plain, and numpy + sympy.
- The **child** is a fork of the zygote and starts in a few milliseconds. It seals itself (`seal`), reports that on a
  descriptor that it then closes, runs one program and exits: programs share no state. Hashes, `random` and
  `numpy.random` start alike in each.
- The **channels** are memory files: source, stdout and stderr. The kernel bounds their size, what was printed survives
  a time-out or a crash, and there is no result pipe to corrupt: how a program ended comes from wait4 alone.
- The **Executor** admits at most `workers` programs at a time and queues the rest. The time limit of a program starts
  with its child, so that neither a long queue nor a slow neighbour can use it up.
- Whatever a program leaves running is killed when it ends: the zygote adopts orphans (it is a "subreaper"). A zygote
  that dies is replaced and its programs run once more. When the trainer dies, its zygotes kill their children and exit.

A failure of this machinery is not the model's fault: its status is `sandbox_error`, to be masked out of training. A
program cannot forge it by exit code or text: it means that the child did not report itself sealed. Differs from the
paper, where the interpreter had five nodes of 64 cores: here programs share the trainer's machine.

What this file does NOT promise yet. `seal` limits resources and keeps processes apart; it does not confine a hostile
program. With the rights of the trainer's user, it can still read and write files (each cut at the output limit), import
any installed package, open connections, start processes, and signal any process of that user, zygotes included: that
would turn its own end into a `sandbox_error`, and what it has started would live on. The memory limit holds per
process. `sys._getframe` shows frames of this file. `memory` is inferred from stderr and so can be forged: show a status
to the model, never reward it. Sets of objects that are hashed by address, `os.urandom` and unseeded
`numpy.random.default_rng` differ between runs. Linux only.

    python executor.py program.py
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import io
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

if sys.platform == "linux":
    import resource
if sys.argv[1:2] != ["--zygote"]:
    import asyncio  # a zygote that maps less memory forks faster

PROGRAM = "<program>"  # the file name of a program in its tracebacks
MAX_SOURCE_BYTES = 1_000_000
MAX_MESSAGE_BYTES = 4096
MAX_ZYGOTES = 8  # per flavour; each forks some hundred programs per second
STALL_S = 60.0  # a zygote that is that much behind a program's time limit is replaced; a cold sympy takes seconds
PRELOAD = {
    "plain": "bisect collections copy dataclasses datetime decimal enum fractions functools heapq itertools json math "
    "operator random re statistics string textwrap typing",
    "science": "numpy numpy.linalg numpy.random sympy",
}
# A wrong guess only costs time. Anchored to lines, so that the search is linear in whatever the model writes.
SCIENCE = re.compile(r"^[ \t]*(?:import|from)[ \t][^\n]*\b(?:numpy|sympy|mpmath|scipy|pandas)\b", re.MULTILINE)


class SandboxError(RuntimeError):
    """This machine cannot run programs."""


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
SEALED_FD = 3  # in the child: the eventfd by which it reports itself sealed
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38  # <linux/prctl.h>


def seal(limits: dict, zygote_pid: int) -> None:
    """Confine the calling process by the LAYERS, in that order; raises OSError or ValueError if one does not hold.

    The strongest layers belong at the end, since they forbid what the ones before them need.
    """
    # process_group: one kill reaches all that the program starts, unless that leaves the group.
    os.setpgid(0, 0)
    # parent_death: the kernel kills the child with its zygote. One that died before the call would go unnoticed.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote_pid:
        raise OSError("the zygote is gone")
    # descriptors: stdin, stdout, stderr and SEALED_FD, but not the zygote's socket nor a sibling's output.
    os.closerange(SEALED_FD + 1, os.sysconf("SC_OPEN_MAX"))
    # not_dumpable: siblings may not read the child's memory, nor open its descriptors through /proc.
    prctl(PR_SET_DUMPABLE, 0)
    # no_new_privs: setuid programs give no rights.
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    # rlimits: soft, hard. Only a program that computes in several threads meets the CPU limit before the time-out. The
    # reserve of address space is for reporting a MemoryError. A file's extra byte tells a cut output from a full one.
    cpu_s, file_bytes = math.ceil(limits["timeout"]) + 1, limits["output_bytes"] + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (limits["address_space"], limits["address_space"] + (16 << 20)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def prctl(option: int, value: int) -> None:
    """Call prctl(2); raises OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def run_program(text: str) -> int:
    """Run `text` as `__main__` in this process, report its exception as CPython would, and return the exit code."""
    main_module = sys.modules["__main__"] = types.ModuleType("__main__")
    main_module.__builtins__ = builtins
    sys.argv = [PROGRAM]
    # Tracebacks find their source lines here; None: linecache is not to look for a file of that name. StringIO splits
    # lines where the compiler does, unlike str.splitlines.
    linecache.cache[PROGRAM] = (len(text), None, io.StringIO(text, newline=None).readlines(), PROGRAM)
    with_reserve = (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2  # made now: there may be no memory to do it later
    exit_code = 1
    try:
        exec(compile(text, PROGRAM, "exec", dont_inherit=True), main_module.__dict__)  # noqa: S102 - the purpose
        exit_code = 0
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            exit_code = (error.code or 0) & 0xFF
        else:
            write_stderr(f"{error.code}\n")
    except BaseException as error:  # noqa: BLE001 - whatever a program raises is its result
        resource.setrlimit(resource.RLIMIT_AS, with_reserve)
        report_exception(error)
    try:  # an interpreter's end, without tearing down modules; multiprocessing makes the same two private calls
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
    pidfd: int  # polls as readable once the child has ended
    sealed_fd: int  # eventfd: 1, and 2 once the child is sealed
    started: float
    deadline: float  # infinite once the child has been killed for it


def zygote_main(channel: socket.socket, flavour: str, limits: dict) -> None:
    """Prepare this fresh interpreter, then serve until the Executor closes its end of `channel`."""
    # If the trainer dies while a fork of it holds the socket open, there is no end-of-file: this makes one.
    signal.signal(signal.SIGTERM, lambda *_: channel.shutdown(socket.SHUT_RDWR))
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
    kill_children(keep=())
    os._exit(0)


def serve(channel: socket.socket, limits: dict) -> None:
    """Run programs until end-of-file.

    Messages are JSON. In: {"job": number}, with the descriptors of source, stdout and stderr. Out: {"ready": true} at
    first, then for each job {"job": number, ...} with how it ended, or with an "error" if there is no child.
    """
    send(channel, ready=True)
    children: dict[int, Child] = {}  # by pidfd
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while True:
        wake_at = min([time.monotonic() + STALL_S, *(child.deadline for child in children.values())])
        for ready_fd, _ in poller.poll(max(0.0, wake_at - time.monotonic()) * 1000):
            if ready_fd in children:
                poller.unregister(ready_fd)
                child = children.pop(ready_fd)
                send(channel, job=child.job, **reap(child, siblings=[other.pid for other in children.values()]))
                continue
            message, fds, _, _ = socket.recv_fds(channel, MAX_MESSAGE_BYTES, 3)
            if not message:
                return
            job = json.loads(message)["job"]
            try:
                child = fork(job, fds, limits)
            except OSError as error:  # no process or descriptor left
                send(channel, job=job, error=str(error))
            else:
                children[child.pidfd] = child
                poller.register(child.pidfd, select.POLLIN)
            for fd in fds:
                os.close(fd)
        for child in children.values():
            if child.deadline <= time.monotonic():
                os.kill(child.pid, signal.SIGKILL)
                child.deadline = math.inf


def send(channel: socket.socket, fds: Collection[int] = (), **message: object) -> None:
    """Send one message, with open descriptors."""
    socket.send_fds(channel, [json.dumps(message).encode()], fds)


def fork(job: int, fds: list[int], limits: dict) -> Child:
    """Fork a child that runs a program; raises OSError if the system is out of processes or descriptors."""
    zygote_pid, sealed_fd = os.getpid(), os.eventfd(1)
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
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # in place of the channel
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            text = os.pread(source, MAX_SOURCE_BYTES, 0).decode("utf-8", "surrogatepass")
            random.seed(0)  # the module seeds itself anew after each fork
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(0)
            os.dup2(sealed_fd, SEALED_FD)
            seal(limits, zygote_pid)
            os.eventfd_write(SEALED_FD, 1)
            os.close(SEALED_FD)
            exit_code = run_program(text)
        except BaseException as error:  # noqa: BLE001 - were it to go on, it would run a second zygote
            report_exception(error)
        finally:
            os._exit(exit_code)
    started = time.monotonic()
    return Child(job, pid, os.pidfd_open(pid), sealed_fd, started, started + limits["timeout"])


def reap(child: Child, siblings: list[int]) -> dict[str, object]:
    """Collect an ended child, kill all it left behind, and return how it ended."""
    wall_s = time.monotonic() - child.started
    with contextlib.suppress(ProcessLookupError):  # it ended before it made its group
        os.killpg(child.pid, signal.SIGKILL)  # before wait4, after which the number may belong to another group
    _, status, usage = os.wait4(child.pid, 0)
    kill_children(keep=siblings)
    sealed = os.eventfd_read(child.sealed_fd) == 2
    os.close(child.sealed_fd)
    os.close(child.pidfd)
    return {
        "exit_code": os.waitstatus_to_exitcode(status),
        "layers": LAYERS if sealed else (),
        "timed_out": child.deadline == math.inf,
        "started": child.started,  # time.monotonic() is one clock for all processes
        "usage": {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "max_rss_mb": usage.ru_maxrss / 1024},
    }


def kill_children(keep: Collection[int]) -> None:
    """Kill and reap every child of this process except `keep`, then what those leave, until there is none.

    They are what programs have left or detached from themselves, which comes to the zygote as its subreaper.
    """
    listing = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    while orphans := set(map(int, listing.read_text().split())) - set(keep):
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---------------------------------------------------------------------------------------------------------------------
# In the trainer.


@dataclass(eq=False)
class Zygote:
    """The trainer's side of a zygote."""

    process: subprocess.Popen
    channel: socket.socket
    flavour: str
    jobs: dict[int, "asyncio.Future[dict]"] = field(default_factory=dict)  # by the descriptor of stdout
    ready: bool = False  # its imports are done


class Executor(contextlib.AbstractContextManager):
    """Runs programs, `workers` at a time (default: two per core), each for at most `timeout` seconds.

    `memory_mb` is the address space that a program may add to its interpreter's; `output_kb` limits stdout and stderr
    each. All methods may be called from any thread. Use it as a context manager, or `close` it.
    """

    def __init__(self, workers: int | None = None, timeout: float = 5.0, memory_mb: int = 512, output_kb: int = 64):
        """Start the thread; zygotes start when they are needed. Raises SandboxError on any system but Linux."""
        if sys.platform != "linux":
            raise SandboxError(f"the executor needs Linux (memfd, prctl, pidfd), and this is {sys.platform}")
        self.workers = workers or 2 * len(os.sched_getaffinity(0))
        self.timeout = timeout
        self._limits = {"timeout": timeout, "memory_bytes": memory_mb << 20, "output_bytes": output_kb << 10}
        self._closed = False
        self._lock = threading.Lock()  # once `_closed` is set, no task is added
        # Only the thread touches the rest. It is a daemon: a trainer that fails before close() must be able to exit.
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._free = asyncio.Semaphore(self.workers)
        self._zygotes: list[Zygote] = []
        self._thread = threading.Thread(target=self._main, name="executor", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, code: str) -> "Future[Result]":
        """Queue a program. The future cannot be cancelled and raises nothing: every failure is a Result.

        Raises RuntimeError if the executor is closed, or was inherited through a fork.
        """
        source, flavour = code.encode("utf-8", "surrogatepass"), "science" if SCIENCE.search(code) else "plain"
        future: Future[Result] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._closed or not self._thread.is_alive():
                raise RuntimeError("the executor is closed, or belongs to another process: make one after the fork")
            task = self._resolve(future, source, flavour, time.monotonic())
            self._loop.call_soon_threadsafe(self._loop.create_task, task)
        return future

    def run(self, code: str) -> Result:
        """Run one program and wait for its end."""
        return self.submit(code).result()

    def map(self, codes: Iterable[str]) -> list[Result]:
        """Run programs side by side and wait for all; results are in the order of `codes`."""
        return [future.result() for future in [self.submit(code) for code in codes]]

    def close(self) -> None:
        """End the thread and all processes; what has not ended by then is a `sandbox_error`. May be called twice."""
        with self._lock:
            if not self._closed and self._thread.is_alive():  # a thread does not survive a fork
                self._closed = True
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    # The thread. A zygote gets SIGTERM when the thread that started it ends, so that all of them are started here.

    def _main(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        await self._closing.wait()
        for zygote in list(self._zygotes):
            self._discard(zygote)
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))

    async def _resolve(self, future: Future, source: bytes, flavour: str, submitted: float) -> None:
        """See one program through: wait for a free worker, then run it, and once more if its zygote dies."""
        program = (source, flavour, submitted)
        try:
            async with self._free:
                result = await self._attempt(*program) or await self._attempt(*program)
            result = result or failure("its fork server died twice")
        except Exception as error:  # noqa: BLE001 - out of descriptors or processes, closed; nobody may wait for ever
            result = failure(str(error))
        future.set_result(result)

    async def _attempt(self, source: bytes, flavour: str, submitted: float) -> Result | None:
        """Run a program in a child; None if its zygote dies meanwhile."""
        if len(source) > MAX_SOURCE_BYTES:
            return Result("error", "", f"the program has {len(source)} bytes, and the limit is {MAX_SOURCE_BYTES}\n")
        if self._closed:
            return failure("the executor was closed")
        zygote = self._choose(flavour)
        with memory_file("source") as program, memory_file("stdout") as stdout, memory_file("stderr") as stderr:
            program.write(source)
            fds = [program.fileno(), stdout.fileno(), stderr.fileno()]
            with contextlib.suppress(ConnectionError, TimeoutError):  # dead or hanging: the program will run again
                send(zygote.channel, fds, job=stdout.fileno())
            program.close()
            ended = zygote.jobs[stdout.fileno()] = self._loop.create_future()
            watchdog = self._loop.call_later(self.timeout + STALL_S, zygote.process.kill)
            report = await ended
            watchdog.cancel()
            outputs = [os.pread(file.fileno(), self._limits["output_bytes"] + 1, 0) for file in (stdout, stderr)]
        if "error" in report:
            return failure(report["error"])
        return judge(report, outputs, self._limits, submitted) if report else None

    def _choose(self, flavour: str) -> Zygote:
        """The least busy zygote of a flavour, rather one that is ready; where all are busy, one more is started."""
        pool = [zygote for zygote in self._zygotes if zygote.flavour == flavour]
        if all(zygote.jobs for zygote in pool) and len(pool) < max(1, min(MAX_ZYGOTES, self.workers // 2)):
            pool.append(self._start_zygote(flavour))
        return min(pool, key=lambda zygote: (not zygote.ready, len(zygote.jobs)))

    def _start_zygote(self, flavour: str) -> Zygote:
        """Run this file in a fresh interpreter: the exec leaves memory, environment and descriptors behind."""
        environment = dict(PATH="/usr/bin:/bin", HOME="/nonexistent", LC_ALL="C.UTF-8", TZ="UTC")
        environment |= dict(PYTHONHASHSEED="0", PYTHONIOENCODING="utf-8:backslashreplace", PYTHONDONTWRITEBYTECODE="1")
        # Threads do not survive a fork, and programs would fight for the cores.
        environment |= dict(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        if "LD_LIBRARY_PATH" in os.environ:  # some installations find libpython by it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        # -u: no output is lost. -s, -P: no user's site-packages nor this folder on the path; -I ignores PYTHONHASHSEED.
        file, limits = os.path.abspath(__file__), json.dumps(self._limits)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-u", "-s", "-P", file, "--zygote", flavour, limits],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,  # an interrupt typed at the trainer's terminal is not for zygotes
            )
        ours.settimeout(STALL_S)  # a zygote that hangs with its socket full must not hang this thread
        zygote = Zygote(process, ours, flavour)
        self._zygotes.append(zygote)
        self._loop.add_reader(ours, self._receive, zygote)
        return zygote

    def _receive(self, zygote: Zygote) -> None:
        """Handle one message of a zygote, or its death."""
        try:
            message = zygote.channel.recv(MAX_MESSAGE_BYTES)
        except ConnectionResetError:
            return  # it died with requests unread; its last reports and end-of-file are still to come
        report = json.loads(message or "{}")
        if not report:
            self._discard(zygote)
        elif "ready" in report:
            zygote.ready = True
        else:
            zygote.jobs.pop(report["job"]).set_result(report)

    def _discard(self, zygote: Zygote) -> None:
        """End a zygote. At end-of-file it kills its children, whom only it knows; a kill is for one that hangs."""
        self._zygotes.remove(zygote)
        self._loop.remove_reader(zygote.channel)
        zygote.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            zygote.process.wait(timeout=10)
        zygote.process.kill()  # does nothing if it has ended
        zygote.process.wait()
        for ended in zygote.jobs.values():
            ended.set_result({})


def check_sandbox() -> None:
    """Runs a trivial program; SandboxError, in one line, if this machine cannot. To be asked before anything is
    computed that would then be lost."""
    with Executor(workers=1) as executor:
        result = executor.run("print(1)")
    if result.status == "sandbox_error":
        raise SandboxError(f"this machine cannot run programs: {result.stderr.strip().splitlines()[-1]}")


def failure(reason: str) -> Result:
    """The Result of a program that has none, by no fault of its own."""
    return Result("sandbox_error", "", f"sandbox error: {reason}\n")


def memory_file(name: str) -> io.FileIO:
    """A file in memory, which disappears with its last descriptor."""
    return open(os.memfd_create(name), "w+b", buffering=0)


def judge(report: dict, outputs: list[bytes], limits: dict, submitted: float) -> Result:
    """The Result of a program whose child has ended."""
    stdout, stderr = (data[: limits["output_bytes"]].decode("utf-8", "replace") for data in outputs)
    truncated = any(len(data) > limits["output_bytes"] for data in outputs)
    usage, exit_code, died_of = report["usage"], report["exit_code"], None
    if exit_code < 0:
        exit_code, died_of = None, -exit_code
    out_of_cpu = died_of == signal.SIGXCPU or (died_of == signal.SIGKILL and usage["cpu_s"] >= limits["timeout"])
    last_line = stderr.rstrip().rpartition("\n")[2]
    if not report["layers"]:
        status = "sandbox_error"
    elif died_of:
        status = "timeout" if report["timed_out"] or out_of_cpu else "signal"
    elif truncated:
        status = "output"
    elif exit_code == 1 and "MemoryError" in last_line.partition(":")[0]:
        status = "memory"
    else:
        status = "error" if exit_code else "ok"
    queue_s, layers = report["started"] - submitted, tuple(report["layers"])
    return Result(status, stdout, stderr, exit_code, died_of, truncated, **usage, queue_s=queue_s, layers=layers)


def main() -> None:
    """Run the program in a file and print its Result. The exit code is 0 if its status is ok, otherwise 1."""
    if sys.argv[1:2] == ["--zygote"]:
        try:
            zygote_main(socket.socket(fileno=0), flavour=sys.argv[2], limits=json.loads(sys.argv[3]))
        except OSError as error:  # what the kernel does not offer
            sys.exit(f"executor.py: the fork server does not work on this machine: {error}")
    if len(sys.argv) != 2:
        sys.exit("usage: python executor.py FILE")
    with Executor(workers=1) as executor:
        result = executor.run(Path(sys.argv[1]).read_text(encoding="utf-8", errors="surrogateescape"))
    for name in Result.__slots__:
        print(f"{name:12}{getattr(result, name)}")
    sys.exit(result.status != "ok")


if __name__ == "__main__":
    main()
