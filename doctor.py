"""Does the sandbox hold on this machine? Tries to break out of it, and looks from outside whether that worked.

    python executor.py --doctor                  a table; the exit code is 0 only if everything holds

A layer that was put up without an error may still not hold: kernels are built and configured in many ways. So nothing
here asks the kernel what it can do. Programs try to read a file, reach a server, kill a process; where one says that it
was refused, and somebody else can tell, they are asked.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from executor import Executor, Result
from sandbox import LAYERS, OPTIONAL

SECRET = "a secret of the trainer"  # what no program may come to print


@dataclass(frozen=True)
class Surroundings:
    """What a program could read or do harm to."""

    folder: Path  # with the secret in a file
    victim: subprocess.Popen  # a process of the same user
    listener: socket.socket  # a server on loopback
    descriptor: int  # of the secret's file, inheritable

    def programs(self) -> list[int]:
        """The numbers of all processes that have come of this one, and so those of programs that are running."""
        found = [os.getpid()]
        for pid in found:
            for listing in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # it has ended
                    found += map(int, listing.read_text().split())
        return found[1:]

    def harm(self) -> list[str]:
        """What has happened to them."""
        found = ["the victim was killed"] * (self.victim.poll() is not None)
        if (names := sorted(path.name for path in self.folder.iterdir())) != ["secret.txt"]:
            found.append(f"the folder holds {names}")
        with contextlib.suppress(BlockingIOError):
            self.listener.accept()[0].close()
            found.append("somebody connected to the server")
        return found


@contextlib.contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Makes them, and takes them away again."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "secret.txt").write_text(SECRET)
        descriptor = os.open(folder / "secret.txt", os.O_RDONLY)
        stack.callback(os.close, descriptor)
        os.set_inheritable(descriptor, True)
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        os.environ["DOCTOR_TOKEN"] = SECRET
        stack.callback(os.environ.pop, "DOCTOR_TOKEN")
        yield Surroundings(folder, victim, listener, descriptor)


@dataclass(frozen=True)
class Probe:
    """A program that tries something, and prints "done" where it could. None does harm where nothing stops it."""

    layers: str  # any of which should stop it
    aim: str
    code: str | Callable[[Surroundings], str]  # finds `os`, `resource`, `signal` and `socket` imported
    statuses: tuple[str, ...] = ("error",)  # of which the Result must have one

    def held(self, result: Result) -> bool:
        said = result.stdout + result.stderr
        return result.status in self.statuses and "done" not in result.stdout and SECRET not in said


READ_OUTPUTS = """
for pid in {pids}:
    try:
        print(open(f"/proc/{{pid}}/fd/1").read())
    except OSError:
        pass
"""
PROBES = [
    Probe("", "compute something", "print(sum(range(10)))", ("ok",)),
    Probe("", "compute with numpy and sympy", "import numpy, sympy\nprint(sympy.factorial(5))", ("ok",)),
    Probe("", "run for ever", "while True: pass", ("timeout",)),
    Probe("", "find a token in the environment", "print(os.environ['DOCTOR_TOKEN'])"),
    Probe("landlock", "read a file of yours", lambda s: f"print(open('{s.folder}/secret.txt').read())"),
    Probe("landlock", "list a folder of yours", lambda s: f"print(os.listdir('{s.folder}'), 'done')"),
    Probe("landlock", "read what the system says of a process", "print(open('/proc/self/status').read(), 'done')"),
    Probe("landlock, seccomp", "write a file", lambda s: f"open('{s.folder}/mine', 'w')\nprint('done')"),
    Probe("landlock, seccomp", "delete a file", lambda s: f"os.remove('{s.folder}/secret.txt')\nprint('done')"),
    Probe(
        "not_dumpable, capabilities",
        "read what other programs print",
        lambda s: READ_OUTPUTS.format(pids=s.programs()),
        ("ok",),
    ),
    Probe("descriptors", "read a file that was left open", lambda s: f"print(os.pread({s.descriptor}, 99, 0))"),
    Probe("seccomp", "fork", "os.fork()\nprint('done')"),
    Probe("seccomp, landlock", "start another program", "os.execv('/bin/echo', ['echo', 'done'])"),
    Probe(
        "seccomp, landlock",
        "kill a process of yours",
        lambda s: f"os.kill({s.victim.pid}, signal.SIGKILL)\nprint('done')",
    ),
    Probe(
        "seccomp, landlock, namespaces",
        "connect to a server on this machine",
        lambda s: f"socket.create_connection({s.listener.getsockname()!r}, 2)\nprint('done')",
    ),
    Probe(
        "rlimits, capabilities",
        "raise a hard limit",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 9999))\nprint('done')",
    ),
    Probe("rlimits", "take 4 GB of memory", "bytearray(4 << 30)\nprint('done')", ("memory",)),
    Probe("rlimits", "print without end", "while True: print('x' * 9999)", ("output",)),
]


def examine(timeout: float = 5.0) -> bool:
    """Prints the table; returns whether the sandbox is what programs are run in by default: all layers but the optional
    ones, and no probe that came through."""
    # At best effort, to show what does hold on a machine that is refused otherwise.
    with Executor(workers=len(PROBES) + 1, timeout=timeout, best_effort=True) as executor, surroundings() as around:
        executor.map(["print(1)", "import numpy"])  # zygotes of both kinds are up: probes run beside each other
        talker = executor.submit(f"import time\nprint({SECRET!r}, flush=True)\ntime.sleep(600)")
        executor.run("print(1)")  # by then the one before it has a process
        programs = [p.code if isinstance(p.code, str) else p.code(around) for p in PROBES]
        results = executor.map([f"import os, resource, signal, socket\n{program}" for program in programs])
        harm, layers = around.harm(), talker.result().layers
    print(f"{'layer':30} {'a program tried to':40} outcome")
    for probe, result in zip(PROBES, results, strict=True):
        last_line = (result.stderr.strip().splitlines() or [""])[-1]
        outcome = f"{'as it should' if probe.held(result) else 'WRONG':13} {result.status}  {last_line[:60]}"
        print(f"{probe.layers or '-':30} {probe.aim:40} {outcome}")
    missing = [name for name in LAYERS if name not in layers]
    print(f"\nlayers that hold: {', '.join(layers) or 'none'}")
    for name in missing:
        print(f"missing: {name}{' (optional: the other layers must do, and do)' if name in OPTIONAL else ''}")
    for what in harm:
        print(f"harm done: {what}")
    safe = not harm and {*missing} <= {*OPTIONAL} and all(map(Probe.held, PROBES, results))
    print(f"\nprograms are {'confined' if safe else 'NOT confined'} on this machine")
    return safe
