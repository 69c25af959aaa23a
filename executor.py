"""Run model-written Python: one short-lived process per program, thousands of programs per training step.

Starting a Python interpreter for every program costs 15-50 ms (0.5 s more with sympy), and forking the trainer is no
choice: it holds gigabytes, threads, a GPU and the answers. So there is a fork server in between, called a *zygote*:

    trainer --- Executor (one thread) ===socket=== zygote --fork--> child: sealed, then the program
                                          socket=== zygote --fork--> child: ...

- The **zygote** is a fresh interpreter with a clean environment. It imports common modules once, then only forks, kills
  and reaps. There are two flavours: plain, and numpy + sympy.
- The **child** is a fork of the zygote and starts in a few milliseconds. It seals itself, runs one program and exits:
  programs share no state. Hashes, `random` and `numpy.random` start alike in each. zygote.py has both, and sandbox.py
  the layers that confine them: a program computes, reads the standard library and a few packages, and prints; no more.
- The **channels** are memory files: source, stdout and stderr. The kernel bounds their size, what was printed survives
  a time-out or a crash, and there is no result pipe to corrupt: how a program ended comes from wait4 alone.
- The **Executor** admits at most `workers` programs at a time and queues the rest. The time limit of a program starts
  with its child, so that neither a long queue nor a slow neighbour can use it up.
- A zygote that dies is replaced and its programs run once more. When the trainer dies, however that happens, its
  zygotes kill their children and exit.

A failure of this machinery is not the model's fault: its status is `sandbox_error`, to be masked out of training. A
program cannot forge it by exit code or text: it means that the child did not report itself sealed. Differs from the
paper, where the interpreter had five nodes of 64 cores: here programs share the trainer's machine.

What this file does NOT promise. `memory` is inferred from stderr and so can be forged: show a status to the model,
never reward it. The memory limit is on address space, per program, and what all of them take together is not limited.
A machine without the means is refused, unless `best_effort` accepts what there is: then a hostile program may read and
write files, use the network and signal processes with the trainer's rights. sandbox.py has the list of what the layers
do not promise.

    python executor.py --doctor                  does the sandbox hold on this machine? Probes, and a table
    python executor.py [--best_effort] FILE      run a program and print its Result
"""

import argparse
import asyncio
import contextlib
import importlib.util
import io
import json
import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

if sys.platform == "linux":
    from sandbox import LAYERS, OPTIONAL
    from zygote import MAX_MESSAGE_BYTES, send

SERVER = Path(__file__).with_name("zygote.py")
MAX_SOURCE_BYTES = 1_000_000
MAX_ZYGOTES = 8  # per flavour, and one per core; each forks some hundred programs per second
STALL_S = 60.0  # a zygote that is that much behind a program's time limit is replaced; a cold sympy takes seconds
# What programs may import besides the standard library, where it is installed.
PACKAGES = ("numpy", "sympy", "mpmath", "scipy", "networkx", "pandas", "dateutil", "pytz", "tzdata", "six")
# A wrong guess only costs time. Anchored to lines, so that the search is linear in whatever the model writes.
SCIENCE = re.compile(r"^[ \t]*(?:import|from)[ \t][^\n]*\b(?:numpy|sympy|mpmath|scipy|pandas|networkx)\b", re.MULTILINE)
# For a health check: a program of each flavour, and what it prints.
KNOWN = {
    "print(sum(range(10)))": "45\n",
    "import numpy, sympy\nprint(numpy.arange(4).sum() + sympy.factorial(3))": "12\n",
}


class SandboxError(RuntimeError):
    """This machine cannot run programs, or not safely."""


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
    layers: tuple[str, ...] = ()  # the layers of the sandbox that held


@dataclass(eq=False)
class Zygote:
    """The trainer's side of a zygote."""

    process: subprocess.Popen
    channel: socket.socket
    flavour: str
    jobs: dict[int, "asyncio.Future[dict]"] = field(default_factory=dict)  # by the descriptor of stdout
    ready: bool = False  # its imports are done, and its layers hold


class Executor(contextlib.AbstractContextManager):
    """Runs programs, `workers` at a time (default: two per core), each for at most `timeout` seconds.

    `memory_mb` is the address space that a program may add to its interpreter's; `output_kb` limits stdout and stderr
    each. Where a layer of the sandbox does not hold, every Result is a `sandbox_error`; with `best_effort`, programs
    run all the same, the first one logs a warning, and `Result.layers` says what did hold. All methods may be called
    from any thread. Use it as a context manager, or `close` it.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout: float = 5.0,
        memory_mb: int = 512,
        output_kb: int = 64,
        best_effort: bool = False,
    ):
        """Start the thread; zygotes start when they are needed. Raises SandboxError on other systems than Linux, and on
        other processors than x86_64 unless `best_effort`."""
        check_platform(best_effort)
        self.workers = workers or 2 * len(os.sched_getaffinity(0))
        self.timeout = timeout
        self._limits = {"timeout": timeout, "memory_bytes": memory_mb << 20, "output_bytes": output_kb << 10}
        self._limits["strict"] = not best_effort
        self._packages = {n: s.origin for n in PACKAGES if (s := importlib.util.find_spec(n)) and s.has_location}
        self._refused = ""  # why no zygote will serve
        self._warned = not best_effort
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
            result = result or failure(self._refused or "its fork server died twice")
        except Exception as error:  # noqa: BLE001 - out of descriptors or processes, closed; nobody may wait for ever
            result = failure(str(error))
        future.set_result(result)

    async def _attempt(self, source: bytes, flavour: str, submitted: float) -> Result | None:
        """Run a program in a child; None if its zygote dies meanwhile."""
        if len(source) > MAX_SOURCE_BYTES:
            return Result("error", "", f"the program has {len(source)} bytes, and the limit is {MAX_SOURCE_BYTES}\n")
        if self._closed or self._refused:
            return failure(self._refused or "the executor was closed")
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
        if not report:
            return None
        result = judge(report, outputs, self._limits, submitted)
        if not self._warned and (missing := [n for n in LAYERS if n not in (*result.layers, *OPTIONAL)]):
            self._warned = True
            logging.warning("executor: best effort, programs are NOT SANDBOXED: %s missing", ", ".join(missing))
        return result

    def _choose(self, flavour: str) -> Zygote:
        """The least busy zygote of a flavour, rather one that is ready; where all are busy, one more is started."""
        pool = [zygote for zygote in self._zygotes if zygote.flavour == flavour]
        cores = len(os.sched_getaffinity(0))
        if all(zygote.jobs for zygote in pool) and len(pool) < max(1, min(MAX_ZYGOTES, cores, self.workers // 2)):
            pool.append(self._start_zygote(flavour))
        return min(pool, key=lambda zygote: (not zygote.ready, len(zygote.jobs)))

    def _start_zygote(self, flavour: str) -> Zygote:
        """Run zygote.py in a fresh interpreter: the exec leaves memory, environment and descriptors behind."""
        environment = dict(PATH="/usr/bin:/bin", HOME="/nonexistent", LC_ALL="C.UTF-8", TZ="UTC")
        environment |= dict(PYTHONHASHSEED="0", PYTHONIOENCODING="utf-8:backslashreplace", PYTHONDONTWRITEBYTECODE="1")
        # One thread each: threads do not survive a fork, and programs would fight for the cores.
        environment |= dict(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        if "LD_LIBRARY_PATH" in os.environ:  # some installations find libpython by it
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        # -u: no output is lost. -s, -S, -P: neither site-packages nor this folder on the path. Not -I, which ignores
        # PYTHONHASHSEED.
        flags, arguments = ["-u", "-s", "-S", "-P"], [json.dumps(self._limits), json.dumps(self._packages)]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, *flags, str(SERVER), flavour, *arguments],
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
        elif "refused" in report:
            self._refused = refusal(report["refused"])  # end-of-file follows
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


def check_platform(best_effort: bool) -> None:
    """SandboxError on a system or a processor for which there is no sandbox."""
    if sys.platform != "linux":
        raise SandboxError(f"the executor needs Linux, and this is {sys.platform}: use a Linux machine or container")
    if platform.machine() != "x86_64" and not best_effort:
        raise SandboxError(refusal(f"there is no system call filter for {platform.machine()}"))


def check_sandbox(best_effort: bool = False) -> None:
    """Runs a program of each flavour whose output is known; SandboxError, in one line, if this machine cannot. To be
    asked before anything is computed that would then be lost."""
    with Executor(timeout=60.0, best_effort=best_effort) as executor:
        results = executor.map(KNOWN)
    for expected, result in zip(KNOWN.values(), results, strict=True):
        if result.status != "ok" or result.stdout != expected:
            last_line = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SandboxError(f"this machine cannot run programs: {last_line.removeprefix('sandbox error: ')}")


def refusal(reason: str) -> str:
    """What is missing, and how to go on."""
    return (
        f"this machine cannot confine programs: {reason}. Needed: x86_64 Linux 5.13 or newer with Landlock and seccomp "
        "(python executor.py --doctor). --best_effort runs them all the same, with your rights"
    )


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
    if not report["sealed"]:
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
    parser = argparse.ArgumentParser(description="Run a Python program in the sandbox, and print how it ended.")
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds")
    parser.add_argument("--best_effort", action="store_true", help="run it even where the sandbox does not hold")
    parser.add_argument("--doctor", action="store_true", help="try to break out of the sandbox, and print a table")
    arguments = parser.parse_args()
    try:
        if arguments.doctor:
            check_platform(best_effort=True)  # elsewhere, the import would fail
            from doctor import examine

            sys.exit(not examine())
        if not arguments.file:
            parser.error("there is no FILE to run")
        code = arguments.file.read_text(encoding="utf-8", errors="surrogateescape")
        with Executor(workers=1, timeout=arguments.timeout, best_effort=arguments.best_effort) as executor:
            result = executor.run(code)
    except (SandboxError, OSError) as error:
        sys.exit(f"executor.py: {error}")
    for name in Result.__slots__:
        print(f"{name:12}{getattr(result, name)}")
    sys.exit(result.status != "ok")


if __name__ == "__main__":
    main()
