"""The far side of the wall: the fork server ("zygote") and its children, in which programs run.

executor.py starts this file in a fresh interpreter, so that nothing of the trainer is in its memory: no weights, no
answers, no environment. The zygote imports common modules once, gives up its rights, then only forks, kills and reaps;
it never reads a program's output. Each child gives up what is left, reports on a descriptor that it is sealed, runs one
program and exits. sandbox.py has the layers.
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib.util
import io
import json
import linecache
import math
import os
import random
import resource
import select
import signal
import site
import socket
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # a zygote, whose path does not hold this folder
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sandbox

if __name__ == "__main__":  # programs are to import neither
    del sys.path[0], sys.modules["sandbox"]

PROGRAM = "<program>"  # the file name of a program in its tracebacks
MAX_MESSAGE_BYTES = 65536
POLL_S = 60.0  # how long a zygote sleeps at the most
PRELOAD = {
    "plain": "bisect collections copy dataclasses datetime decimal enum fractions functools heapq itertools json math "
    "operator random re statistics string textwrap typing",
    "science": "numpy numpy.linalg numpy.random sympy",
}


# ---------------------------------------------------------------------------------------------------------------------
# In the child: run one program.


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
        text = "".join(traceback.format_exception(type(error), error, frames))
        # A line of source can be as long as all that stderr may hold.
        write_stderr("\n".join(line if len(line) < 1000 else f"{line[:1000]} ..." for line in text.split("\n")))
    except BaseException:  # noqa: BLE001 - out of memory, or the program broke what is called here
        write_stderr(f"{type(error).__name__}\n")


def write_stderr(text: str) -> None:
    """Write to the descriptor, since the program may have replaced sys.stderr."""
    with contextlib.suppress(OSError):  # the output limit, or closed by the program
        os.write(2, text.encode(errors="backslashreplace"))


def be_child(fds: list[int], sealed_fd: int, limits: dict, zygote: int) -> None:
    """All that a child does. Does not return."""
    exit_code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        source, stdout, stderr = fds
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # in place of the channel
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        text = os.pread(source, os.fstat(source).st_size, 0).decode("utf-8", "surrogatepass")
        random.seed(0)  # the module seeds itself anew after each fork
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(0)
        os.dup2(sealed_fd, sandbox.SEALED_FD)
        if sealed_fd != sandbox.SEALED_FD:
            os.close(sealed_fd)  # a program that had it could read the report before the zygote does
        layers: tuple[Callable[[], None], ...] = (
            sandbox.process_group,
            lambda: sandbox.parent_death(zygote),
            sandbox.descriptors,
            sandbox.not_dumpable,
            lambda: sandbox.rlimits(limits),
            sandbox.seccomp,
        )
        held = sandbox.put_up(dict(zip(sandbox.CHILD_LAYERS, layers, strict=True)), limits["strict"])
        # Written before the program can do anything: no program can make itself look like a failure of the sandbox.
        os.eventfd_write(sandbox.SEALED_FD, sum(2 << sandbox.CHILD_LAYERS.index(name) for name in held) + 1)
        os.close(sandbox.SEALED_FD)
        exit_code = run_program(text)
    except BaseException as error:  # noqa: BLE001 - were it to go on, it would run a second zygote
        report_exception(error)
    finally:
        os._exit(exit_code)


# ---------------------------------------------------------------------------------------------------------------------
# In the zygote: fork, kill and reap.


@dataclass
class Child:
    """A running child of the zygote."""

    job: int
    pid: int
    pidfd: int  # polls as readable once the child has ended
    sealed_fd: int  # eventfd: 1, and once the child is sealed 2 more and a bit for each of its layers
    started: float
    deadline: float  # infinite once the child has been killed for it


def use_huge_pages() -> None:
    """Gathers the memory of this process into pages of 2 MB, since most of the time of a fork goes into copying the
    table of its pages. Does nothing before Linux 6.1."""
    enable, collapse = 14, 25  # MADV_HUGEPAGE, MADV_COLLAPSE: <linux/mman.h>
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, *file = line.split()
        start, end = (int(address, 16) for address in addresses.split("-"))
        start, end = (start + (1 << 21) - 1) >> 21 << 21, end >> 21 << 21
        if start < end and rights.startswith("rw") and (len(file) == 3 or file[3] == "[heap]"):  # of no file
            for advice in (enable, collapse):
                sandbox.LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


class NamedPackages:
    """Finds the packages that programs may import besides the standard library. To all others Python says that there is
    no such module, as on a machine that does not have it."""

    def __init__(self, origins: dict[str, str]):
        self.specs = {name: importlib.util.spec_from_file_location(name, origin) for name, origin in origins.items()}

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        return self.specs.get(name)


class Server:
    """A zygote at work.

    Messages are JSON. In: {"job": number}, with the descriptors of source, stdout and stderr. Out: {"ready": its
    layers} at first, or {"refused": why}; then for each job {"job": number, ...} with how it ended, or with an "error"
    if there is no child.
    """

    def __init__(self, channel: socket.socket, flavour: str, limits: dict, packages: dict[str, str]):
        """Prepare this fresh interpreter; OSError if it cannot be made safe."""
        self.channel, self.limits = channel, limits
        self.children: dict[int, Child] = {}  # by pidfd
        # If the trainer dies while a fork of it holds the socket open, there is no end-of-file: this makes one.
        signal.signal(signal.SIGTERM, lambda *_: channel.shutdown(socket.SHUT_RDWR))
        sandbox.prctl(sandbox.PR_SET_PDEATHSIG, signal.SIGTERM)
        sandbox.prctl(sandbox.PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])  # exec keeps the trainer's signal mask,
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # and an ignored SIGCHLD, with which wait4 would fail
        site.setquit()  # `exit` and `quit`, which -S leaves out
        sys.meta_path.append(NamedPackages(packages))
        for name in PRELOAD[flavour].split():
            with contextlib.suppress(ImportError):  # not installed: a program that imports it gets the error
                importlib.import_module(name)
        if "sympy" in sys.modules:
            sys.modules["sympy"].solve("x**2 - 2")  # loads what each program would load for itself, in 0.2 s
        gc.collect()
        gc.freeze()  # a collection in a child would write to, and so copy, every page of objects
        # /proc, for the last time: Landlock hides it.
        use_huge_pages()
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["address_space"] = pages * resource.getpagesize() + limits["memory_bytes"]
        self.listing = os.open(f"/proc/self/task/{threading.get_native_id()}/children", os.O_RDONLY)
        layers = (
            sandbox.namespaces,
            sandbox.no_new_privs,
            sandbox.capabilities,
            lambda: sandbox.landlock(packages),
        )
        self.layers = sandbox.put_up(dict(zip(sandbox.ZYGOTE_LAYERS, layers, strict=True)), limits["strict"])
        sandbox.prctl(sandbox.PR_SET_DUMPABLE, 0)
        self.kill_children(keep=())  # if /proc cannot list children, fail now

    def serve(self) -> None:
        """Run programs until end-of-file."""
        send(self.channel, ready=self.layers)
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        while True:
            wake_at = min([time.monotonic() + POLL_S, *(child.deadline for child in self.children.values())])
            for ready_fd, _ in poller.poll(max(0.0, wake_at - time.monotonic()) * 1000):
                if ready_fd in self.children:
                    poller.unregister(ready_fd)
                    child = self.children.pop(ready_fd)
                    send(self.channel, job=child.job, **self.reap(child))
                    continue
                message, fds, _, _ = socket.recv_fds(self.channel, MAX_MESSAGE_BYTES, 3)
                if not message:
                    return
                job = json.loads(message)["job"]
                try:
                    child = self.fork(job, fds)
                except OSError as error:  # no process or descriptor left
                    send(self.channel, job=job, error=str(error))
                else:
                    self.children[child.pidfd] = child
                    poller.register(child.pidfd, select.POLLIN)
                for fd in fds:
                    os.close(fd)
            for child in self.children.values():
                if child.deadline <= time.monotonic():
                    os.kill(child.pid, signal.SIGKILL)
                    child.deadline = math.inf

    def fork(self, job: int, fds: list[int]) -> Child:
        """Fork a child that runs a program; raises OSError if the system is out of processes or descriptors."""
        zygote, sealed_fd = os.getpid(), os.eventfd(1)
        try:
            if (pid := os.fork()) == 0:
                be_child(fds, sealed_fd, self.limits, zygote)
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.close(sealed_fd)
            self.kill_children(keep=[child.pid for child in self.children.values()])
            raise
        started = time.monotonic()
        return Child(job, pid, pidfd, sealed_fd, started, started + self.limits["timeout"])

    def reap(self, child: Child) -> dict[str, object]:
        """Collect an ended child, kill all it left behind, and return how it ended."""
        wall_s = time.monotonic() - child.started
        with contextlib.suppress(ProcessLookupError):  # it ended before it made its group
            os.killpg(child.pid, signal.SIGKILL)  # before wait4, after which the number may belong to another group
        _, status, usage = os.wait4(child.pid, 0)
        self.kill_children(keep=[other.pid for other in self.children.values()])
        sealed = os.eventfd_read(child.sealed_fd) - 2
        os.close(child.sealed_fd)
        os.close(child.pidfd)
        held = [name for bit, name in enumerate(sandbox.CHILD_LAYERS) if sealed & 2 << bit]
        return {
            "exit_code": os.waitstatus_to_exitcode(status),
            "sealed": sealed >= 0,
            "layers": [*self.layers, *held] if sealed >= 0 else [],
            "timed_out": child.deadline == math.inf,
            "started": child.started,  # time.monotonic() is one clock for all processes
            "usage": {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "max_rss_mb": usage.ru_maxrss / 1024},
        }

    def kill_children(self, keep: Collection[int]) -> None:
        """Kill and reap every child of this process except `keep`, then what those leave, until there is none.

        They are what programs have left or detached from themselves, which comes to the zygote as its subreaper. The
        filter does not let programs fork: this is for machines without it.
        """
        while orphans := set(map(int, os.pread(self.listing, 1 << 20, 0).split())) - set(keep):
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def send(channel: socket.socket, fds: Collection[int] = (), **message: object) -> None:
    """Send one message, with open descriptors."""
    socket.send_fds(channel, [json.dumps(message).encode()], fds)


def main() -> None:
    """`zygote.py FLAVOUR LIMITS PACKAGES`, with the channel as stdin: what executor.py starts."""
    channel, (flavour, limits, packages) = socket.socket(fileno=0), sys.argv[1:]
    try:
        server = Server(channel, flavour, json.loads(limits), json.loads(packages))
    except OSError as error:  # the kernel does not offer it
        send(channel, refused=str(error))
        return
    with contextlib.suppress(ConnectionError):  # closed while a message was on its way
        server.serve()
    server.kill_children(keep=())
    os._exit(0)


if __name__ == "__main__":
    main()
