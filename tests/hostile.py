"""Programs that a sandbox must survive, as data: what each of them tries, and what must come of it.

    python tests/hostile.py [PATTERN]     run them as whoever you are: all, or those whose id contains PATTERN

tests/test_sandbox.py makes a test of each case, and runs this file once more as a user who is not root. Nothing here
needs pytest, torch or a GPU: the standard library, executor.py, zygote.py and sandbox.py will do.

A program that tries something forbidden prints `refused` and the name of the error, so that a case pins down WHICH wall
stood in its way: EPERM is the system call filter, EACCES is Landlock or the kernel's own care for a process that is not
dumpable. Run these programs against the whole sandbox only: with a layer switched off, some of them do real harm to
whoever runs them, and to root above all.
"""

import contextlib
import fcntl
import gc
import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for `python tests/hostile.py`

import executor as executor_module
from executor import KNOWN, Executor, Result
from sandbox import ALLOWED, CLONE3, CONDITIONS, LAYERS, OPTIONAL, number

OUTPUT_BYTES = 64 << 10
MARK = "canary-"  # what each secret of a World begins with; no program says it

# What programs start with, besides the constants of `World.prelude`.
PRELUDE = '''
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, sys, time
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.mmap.restype = ctypes.c_void_p
MARK = "-yranac"[::-1]  # a program that searched its memory for the word itself would find itself

def syscall(number, *arguments):
    """A system call by its number, past all that Python or the C library might check."""
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    value = LIBC.syscall(ctypes.c_long(number), *wide)
    if value < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value

def attempt(act, *arguments, **named):
    try:
        value = act(*arguments, **named)
    except OSError as error:
        print("refused", errno.errorcode.get(error.errno, error.errno))
    else:
        print("DONE", value)

def read(path):
    with open(path, "rb", buffering=0) as file:
        return file.read(1 << 16)

def machine_code(code):
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    return function()
'''


@dataclass(frozen=True)
class Case:
    """One program, and how it must end."""

    group: str
    name: str
    program: str
    status: tuple[str, ...] = ("ok",)  # one of these
    stdout: str | None = ""  # exactly this; None: see the next two
    begins: str = ""  # what stdout begins with
    refusal: str = ""  # an error: all attempts must print that they were refused with it
    stderr: str | None = None  # a part of it; None: nothing if the status is ok, anything otherwise
    exit_code: int | None = None  # None: not looked at
    signals: tuple[int, ...] = ()  # one of these killed it
    needs: str = ""  # a package
    times: int = 1  # how often the text is repeated
    runs: int = 1  # how often it runs; all outputs must be equal
    bare: bool = False  # without the prelude: for texts that are odd in themselves

    @property
    def id(self) -> str:
        return f"{self.group}-{self.name.replace(' ', '_')}"

    @property
    def hasty(self) -> bool:
        """Whether it is meant to run into the time limit."""
        return "timeout" in self.status

    @property
    def missing(self) -> bool:
        """Whether it needs a package that is not there."""
        return bool(self.needs) and importlib.util.find_spec(self.needs) is None


def cases(group: str, text: str, **more: object) -> list[Case]:
    """Programs that end well, one behind the other: `=== name`, or `=== name [package]`; the program; `---` and what it
    must print. `--- EPERM` stands for: each of its attempts is refused with this error."""
    made = []
    for section in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("\n")
        program, _, rest = re.split(r"^(---)", rest, flags=re.MULTILINE)
        refusal, _, stdout = rest.partition("\n")
        name, _, needs = name.removesuffix("]").partition(" [")
        expected = {"stdout": None, "refusal": refusal.strip()} if refusal.strip() else {"stdout": stdout}
        made.append(Case(group, name, program, needs=needs, **expected, **more))
    return made


# ---------------------------------------------------------------------------------------------------------------------
# Time, memory, output, crashes, texts: what goes wrong by itself.


def endless(name: str, program: str, stderr: str | None = None) -> Case:
    """A program that never ends. What it has printed by then must survive."""
    return Case("time", name, f"print('first', end='')\n{program}", ("timeout",), "first", stderr=stderr)


BOMB = "while True: threading.Thread(target=time.sleep, args=(600,)).start()"
TIME = [
    endless("endless loop", "while True: pass"),
    endless("sleep", "time.sleep(600)"),
    endless(
        "signals ignored",
        "for n in (1, 2, 3, 13, 14, 15, 24, 25): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
    ),
    endless("signals masked", "signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65))\nwhile True: pass"),
    endless("except BaseException", "while True:\n    try:\n        while True: pass\n    except BaseException: pass"),
    endless("catastrophic regex", "import re\nre.match('(a+)+b', 'a' * 64)"),
    endless("power in one instruction", "10 ** 10 ** 9"),
    endless("exit handler sleeps", "import atexit\natexit.register(time.sleep, 600)"),
    endless("finally sleeps", "try: sys.exit(3)\nfinally: time.sleep(600)"),
    endless("thread outlives main", "import threading\nthreading.Thread(target=time.sleep, args=(600,)).start()"),
    endless(
        "main thread leaves by raw exit",
        "import threading\nthreading.Thread(target=time.sleep, args=(600,)).start()\nsyscall(60, 0)",
    ),
    endless("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)"),
    endless("alarms", "signal.signal(14, lambda *_: None)\nwhile True: signal.alarm(1)"),
    endless("deadlock", "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()"),
    endless("pipe to itself", "os.read(os.pipe()[0], 1)"),
    endless("memory error caught for ever", "while True:\n    try: bytearray(4 << 30)\n    except MemoryError: pass"),
    endless("thread bomb", f"import threading\n{BOMB}", stderr="can't start new thread"),
    endless("thread bomb with small stacks", f"import threading\nthreading.stack_size(1 << 18)\n{BOMB}"),
    Case("time", "CPU time over", "os.kill(os.getpid(), signal.SIGXCPU)", ("timeout",), signals=(signal.SIGXCPU,)),
]

TOO_MUCH = [
    ("one request", "bytearray(4 << 30)"),
    ("little by little", "x = []\nwhile True: x.append(bytes(1 << 20))"),
    ("list doubling", "x = [0]\nwhile True: x += x"),
    ("text doubling", "x = 'x'\nwhile True: x += x"),
    ("constant folding", "x = 'a' * (1 << 40)"),
    ("tuple of the compiler", "x = ((1,) * 100,) * 10 ** 10"),
    (
        "soft limit raised",
        "n = resource.RLIMIT_AS\nresource.setrlimit(n, resource.getrlimit(n)[1:] * 2)\nbytes(4 << 30)",
    ),
    ("numpy", "import numpy\nnumpy.ones(1 << 32)"),
]
MEMORY = [
    Case("memory", name, program, ("memory",), stderr="MemoryError", exit_code=1, needs=name if name == "numpy" else "")
    for name, program in TOO_MUCH
] + cases(
    "memory",
    r"""
=== caught
try: bytearray(4 << 30)
except MemoryError: print("caught")
print(sum([1, 2]))
---
caught
3
=== mapped
attempt(mmap.mmap, -1, 4 << 30)
--- ENOMEM
=== mapped past the library
print(LIBC.mmap(None, ctypes.c_size_t(4 << 30), 3, 0x22, -1, ctypes.c_long(0)) == 2 ** 64 - 1)
---
True
""",
)

OUTPUT = [
    Case("output", "stdout flood", "while True: print('x' * 999)", ("output",), None, "x" * 999, exit_code=1),
    Case("output", "stderr flood", "while True: print('x' * 999, file=sys.stderr)", ("output",), stderr="x" * 999),
    Case(
        "output",
        "error of the limit caught",
        "for _ in range(999):\n    try: os.write(1, b'x' * 999)\n    except OSError as e: last = e.errno\n"
        "sys.exit(last != errno.EFBIG)",
        ("output",),
        "x" * OUTPUT_BYTES,
        exit_code=0,
    ),
    Case("output", "one line of 50 MB", "print('x' * 50_000_000)", ("output",), "x" * OUTPUT_BYTES, exit_code=1),
    Case("output", "far beyond the end", "os.lseek(1, 1 << 40, 0)\nos.write(1, b'x')", ("error",), stderr="OSError"),
    Case("output", "mapped", "mmap.mmap(1, 1 << 20)", ("error",), stderr="mmap length is greater than file size"),
    Case(
        "output",
        "both just fit",
        f"sys.stdout.write('x' * {OUTPUT_BYTES})\nsys.stderr.write('y' * {OUTPUT_BYTES})",
        stdout="x" * OUTPUT_BYTES,
        stderr="y" * OUTPUT_BYTES,
    ),
    Case(
        "output",
        "rewritten",
        "print('first')\nos.lseek(1, 0, 0)\nprint('again')\nattempt(os.ftruncate, 1, 0)",
        stdout="again\nrefused EPERM\n",
    ),
]

SEGMENTATION = (signal.SIGSEGV,)
CRASH = [
    Case("crash", "recursion", "def f(n): return f(n + 1)\nf(0)", ("error",), stderr="RecursionError", exit_code=1),
    Case(
        "crash",
        "recursion without limit",
        "sys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nrepr(x)",
        ("signal",) if sys.version_info < (3, 12) else ("signal", "error"),
        signals=SEGMENTATION,
    ),
    Case("crash", "null pointer", "print(1)\nctypes.string_at(0)", ("signal",), "1\n", signals=SEGMENTATION),
    Case("crash", "abort", "print(1)\nos.abort()", ("signal",), "1\n", signals=(signal.SIGABRT,)),
    Case("crash", "kills itself", "os.kill(os.getpid(), 9)", ("signal",), signals=(signal.SIGKILL,)),
    Case("crash", "raises a signal", "signal.raise_signal(15)", ("signal",), signals=(signal.SIGTERM,)),
    Case("crash", "alarm", "signal.setitimer(0, 0.05)\ntime.sleep(600)", ("signal",), signals=(signal.SIGALRM,)),
    Case("crash", "exit at once", "os._exit(3)", ("error",), exit_code=3),
    Case("crash", "exit", "sys.exit(3)", ("error",), exit_code=3),
    Case("crash", "exit with a text", "sys.exit('stopped')", ("error",), stderr="stopped\n", exit_code=1),
    Case("crash", "closerange", "os.closerange(0, 64)\nprint(1)", ("error",), exit_code=1),
    Case("crash", "close_range", "syscall(436, 0, 0xFFFFFFFF, 0)\n1 / 0", ("error",), exit_code=1),
    Case("crash", "dup2", "os.dup2(2, 1)\nprint('astray')", stderr="astray\n"),
    Case("crash", "stdout is None", "sys.stdout = sys.stderr = None\nprint(1)"),
    Case("crash", "stdout is a number", "sys.stdout = 1", ("error",), exit_code=1),
    Case("crash", "modules cleared", "sys.modules.clear()\nprint(1)", stdout="1\n"),
    Case("crash", "builtins deleted", "print(1)\nvars(__builtins__).clear()\n1 / 0", ("error",), "1\n", exit_code=1),
    Case("crash", "hook replaced", "sys.excepthook = lambda *_: os._exit(0)\n1 / 0", ("error",), exit_code=1),
    Case(
        "crash",
        "frames of the sandbox",
        "f = sys._getframe(1).f_globals\nf['os'] = f['report_exception'] = f['threading'] = None\n1 / 0",
        ("error",),
        exit_code=1,
    ),
    Case(
        "crash",
        "exit in a thread",
        "import threading\nt = threading.Thread(target=sys.exit, args=(3,))\nt.start()\nt.join()\nprint('on')",
        stdout="on\n",
    ),
    Case(
        "crash",
        "exit at once in a thread",
        "import threading\nthreading.Thread(target=os._exit, args=(4,)).start()\ntime.sleep(600)",
        ("error",),
        exit_code=4,
    ),
    Case(
        "crash",
        "error in a thread",
        "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
        stderr="ZeroDivisionError",
    ),
    Case(
        "crash",
        "error in an exit handler",
        "import atexit\natexit.register(lambda: 1 / 0)\nprint(1)",
        stdout="1\n",
        stderr="ZeroDivisionError",
    ),
]

# Nobody can make a failure of this machinery: such results are masked out of training. `memory` can be forged, as the
# executor says.
FORGED = [
    Case(
        "forged",
        name,
        f"print('sandbox error: the layer seccomp does not hold', file=sys.stderr)\n{end}",
        (status,),
        stderr="sandbox error",
        signals=(signal.SIGKILL,),
    )
    for name, end, status in [
        ("text", "", "ok"),
        ("exception", "raise OSError('the layer seccomp does not hold')", "error"),
        ("exit code 97", "os._exit(97)", "error"),
        ("exit code 255", "os._exit(-1)", "error"),
        ("signal", "os.kill(os.getpid(), 9)", "signal"),
        ("closed descriptors", "os.closerange(3, 64)\nos._exit(1)", "error"),
        ("functions of the sandbox", "sys._getframe(1).f_globals['be_child'] = None\nos._exit(1)", "error"),
    ]
] + [
    Case("forged", "memory", "print('MemoryError', file=sys.stderr)\nsys.exit(1)", ("memory",), stderr="MemoryError"),
    *cases(
        "forged",
        r"""
=== report to the zygote
for fd in range(3, 64): attempt(os.eventfd_write, fd, 1)
--- EBADF
=== report to the trainer
frame = sys._getframe()
while "self" not in frame.f_locals: frame = frame.f_back
attempt(frame.f_locals["self"].channel.send, b'{"job": 5, "error": "forged"}')
--- ENOTSOCK
""",
    ),
]

TEXT = [
    *(
        Case("text", name, program, ("error",), stderr=stderr, exit_code=1, bare=True)
        for name, program, stderr in [
            ("syntax error", "x = = 1", "SyntaxError"),
            ("tab error", "if 1:\n\tx = 1\n        y = 2", "TabError"),
            ("NUL", "x = 1\0", "null bytes"),
            ("surrogates in the source", "x = '\ud800'", "UnicodeEncodeError"),
            ("surrogates in an error", "raise ValueError('\\ud800')", "ValueError: \\ud800\n"),
        ]
    ),
    Case("text", "deep parentheses", "(\n" * 100_000, ("error", "memory"), stderr="Error", exit_code=1, bare=True),
    # In one line, which the traceback quotes: uncut, it would fill stderr, and the message be lost.
    Case(
        "text", "deep parentheses in a line", "(" * 100_000, ("error", "memory"), stderr="Error", exit_code=1, bare=True
    ),
    Case("text", "deep operators", "-" * 100_000 + "1", ("error", "memory"), stderr="Error", exit_code=1, bare=True),
    Case("text", "100 MB", "#" * 99 + "\n", ("error",), stderr="limit is 1000000\n", times=1_000_000, bare=True),
    Case("text", "surrogates in the output", "print('\\ud800')", stdout="\\ud800\n", bare=True),
    Case("text", "bytes that are no UTF-8", "sys.stdout.buffer.write(b'a\\xff\\xfe')", stdout="a\ufffd\ufffd"),
    Case("text", "all of Unicode", "print('\u00e9\u2211\U0001f600')", stdout="\u00e9\u2211\U0001f600\n", bare=True),
    Case("text", "coding line", "# coding: latin-1\nprint('\u00e9')", stdout="\u00e9\n", bare=True),
    Case("text", "unknown coding line", "# coding: nonsense\nprint(1)", stdout="1\n", bare=True),
    Case("text", "carriage returns", "x = 1\r\nif x:\r\n    print(x)\r\n", stdout="1\n", bare=True),
    Case("text", "empty", "", bare=True),
]

# ---------------------------------------------------------------------------------------------------------------------
# Other processes.

PROCESSES = cases(
    "processes",
    r"""
=== fork
attempt(os.fork)
attempt(syscall, 57)
--- EPERM
=== fork bomb
n = 0
for _ in range(10_000):
    try: os.fork()
    except PermissionError: n += 1
print(n)
---
10000
=== vfork
attempt(syscall, 58)
--- EPERM
=== clone
attempt(syscall, 56, signal.SIGCHLD, 0, 0, 0, 0)
attempt(syscall, 56, 0x4100 | signal.SIGCHLD, 0, 0, 0, 0)  # CLONE_VM | CLONE_VFORK
--- EPERM
=== threads in namespaces of their own
for flag in (0x80, 0x20000, 0x2000000, *(1 << n for n in range(26, 31))):
    attempt(syscall, 56, 0x10F00 | flag, 0, 0, 0, 0)
--- EPERM
=== clone3
attempt(syscall, 435, struct.pack("=11Q", 0, 0, 0, 0, signal.SIGCHLD, *[0] * 6), 88)
--- ENOSYS
=== daemon
def daemon():
    if os.fork() == 0:
        os.setsid()
        os.fork() or time.sleep(600)
        os._exit(0)
attempt(daemon)
--- EPERM
=== subprocess
import subprocess
attempt(subprocess.run, ["/bin/true"])
attempt(subprocess.run, ["/bin/true"], preexec_fn=print)
attempt(subprocess.getoutput, "id")
--- EPERM
=== system
print(os.system("true") == 0, LIBC.system(b"true") == 0)
---
False False
=== popen
attempt(os.popen, "id")
--- EPERM
=== posix_spawn
attempt(os.posix_spawn, "/bin/true", ["true"], {})
--- EPERM
=== exec
attempt(os.execv, "/bin/true", ["true"])
attempt(os.execv, sys.executable, ["python", "-c", "print(1)"])
attempt(syscall, 322, 1, b"", (ctypes.c_char_p * 1)(), (ctypes.c_char_p * 1)(), 0x1000)
--- EPERM
=== pseudo terminal
attempt(os.forkpty)
attempt(os.openpty)
--- EPERM
=== multiprocessing
import multiprocessing
for method in multiprocessing.get_all_start_methods():
    attempt(multiprocessing.get_context(method).Process(target=print).start)
attempt(multiprocessing.Pool, 1)
attempt(multiprocessing.Queue)
import multiprocessing.pool
attempt(multiprocessing.pool.ThreadPool, 1)  # of threads, but its locks are files in /dev/shm
--- EPERM
=== process pool
from concurrent.futures import ProcessPoolExecutor
attempt(lambda: ProcessPoolExecutor(1).submit(print).result())
--- EPERM
=== asyncio subprocess
import asyncio
attempt(lambda: asyncio.run(asyncio.create_subprocess_exec("/bin/true")))
--- EPERM
=== kill the zygote
for n in (0, 9, 15, 19): attempt(os.kill, os.getppid(), n)
attempt(os.killpg, os.getppid(), 9)
--- EPERM
=== kill the trainer
for n in (0, 2, 10): attempt(os.kill, TRAINER, n)
--- EPERM
=== kill a victim
for n in (0, 9, 15): attempt(os.kill, VICTIM, n)
attempt(os.killpg, VICTIM, 9)
--- EPERM
=== kill all
attempt(os.kill, -1, 9)
attempt(os.kill, 0, 9)
attempt(os.kill, -os.getpid(), 9)
attempt(os.kill, -VICTIM, 9)
attempt(syscall, 62, (1 << 32) - 1, 9)
--- EPERM
=== tgkill
attempt(syscall, 234, VICTIM, VICTIM, 9)
attempt(syscall, 234, (1 << 64) - 1, VICTIM, 9)
attempt(syscall, 200, VICTIM, 9)
--- EPERM
=== queued signals
attempt(syscall, 129, VICTIM, 9, struct.pack("=iii", 9, 0, -1) + bytes(116))
attempt(syscall, 297, VICTIM, VICTIM, 9, struct.pack("=iii", 9, 0, -1) + bytes(116))
--- EPERM
=== pidfd
attempt(os.pidfd_open, VICTIM)
attempt(signal.pidfd_send_signal, 1, 9)
attempt(syscall, 438, 1, 0, 0)
--- EPERM
=== owner of a descriptor
reader, writer = os.pipe()
one, other = socket.socketpair()
attempt(fcntl.fcntl, reader, 8, VICTIM)  # F_SETOWN
attempt(fcntl.fcntl, reader, 15, struct.pack("=ii", 1, VICTIM))  # F_SETOWN_EX
attempt(fcntl.fcntl, reader, 10, 9)  # F_SETSIG
attempt(fcntl.ioctl, one, 0x8901, struct.pack("=i", VICTIM))  # FIOSETOWN
attempt(fcntl.ioctl, one, 0x8902, struct.pack("=i", VICTIM))  # SIOCSPGRP
attempt(fcntl.ioctl, reader, 0x5452, struct.pack("=i", 1))  # FIOASYNC
--- EPERM
=== owner of a descriptor to the end
for end, other in os.pipe(), [s.detach() for s in socket.socketpair()]:
    for command, value in (8, VICTIM), (10, 9), (fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK):
        try: fcntl.fcntl(end, command, value)
        except PermissionError: print("refused", command)
    os.write(other, b"x")
---
refused 8
refused 10
refused 8
refused 10
=== commands of fcntl
passed = []
for command in [*range(64), *range(1024, 1080)]:
    try: syscall(72, 1, command, 0)
    except PermissionError: continue
    except OSError: pass
    passed.append(command)
print(passed)
---
[0, 1, 2, 3, 4, 1030]
=== requests of ioctl
passed = []
for request in [*range(0x5400, 0x5480), *range(0x8900, 0x8A00), *range(0x8B00, 0x8B80)]:
    try: syscall(16, 1, request, ctypes.create_string_buffer(99))
    except PermissionError: continue
    except OSError: pass
    passed.append(hex(request))
print(passed)
---
['0x5401', '0x5421', '0x5451']
=== group and session
attempt(os.setsid)
attempt(os.setpgid, 0, 0)
attempt(os.setpgid, 0, os.getppid())
--- EPERM
=== outlive the zygote
attempt(syscall, 157, 1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG
attempt(syscall, 157, 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
--- EPERM
""",
)

# SIBLING is another program, of the same user and in the same Landlock domain, that runs at the same time.
SIBLING = cases(
    "sibling",
    r"""
=== output
for n in (0, 1, 2): attempt(read, f"/proc/{SIBLING}/fd/{n}")
attempt(os.readlink, f"/proc/{SIBLING}/fd/1")
attempt(os.readlink, f"/proc/{SIBLING}/exe")
attempt(os.listdir, f"/proc/{SIBLING}/fd")
--- EACCES
=== memory
for name in ("mem", "maps", "environ", "stat", "status", f"task/{SIBLING}/mem"):
    attempt(read, f"/proc/{SIBLING}/{name}")
--- EACCES
=== memory by ptrace
attempt(syscall, 101, 16, SIBLING, 0, 0)  # PTRACE_ATTACH
attempt(syscall, 101, 0x4206, SIBLING, 0, 0)  # PTRACE_SEIZE
--- EPERM
=== memory by process_vm
one = struct.pack("QQ", 0, 0)
for n in (310, 311): attempt(syscall, n, SIBLING, one, 1, one, 1, 0)
--- EPERM
=== writing
for name in ("mem", "fd/1", "oom_score_adj", "comm", "clear_refs"): attempt(open, f"/proc/{SIBLING}/{name}", "wb")
--- EPERM
=== kill
attempt(os.kill, SIBLING, 9)
attempt(os.killpg, SIBLING, 9)
attempt(syscall, 234, SIBLING, SIBLING, 9)
attempt(syscall, 200, SIBLING, 9)
attempt(os.pidfd_open, SIBLING)
--- EPERM
=== owner of a descriptor
reader, writer = os.pipe()
attempt(fcntl.fcntl, reader, 8, SIBLING)
attempt(fcntl.fcntl, reader, 15, struct.pack("=ii", 1, SIBLING))
attempt(fcntl.fcntl, reader, 10, 9)
fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
os.write(writer, b"x")
--- EPERM
=== limits
attempt(resource.prlimit, SIBLING, resource.RLIMIT_CPU, (0, 0))
attempt(os.sched_setaffinity, SIBLING, {0})
attempt(os.setpriority, os.PRIO_PROCESS, SIBLING, 19)
--- EPERM
=== whoever is there
found = []
for pid in [*range(max(1, os.getpid() - 300), os.getpid() + 300), SIBLING, os.getppid(), TRAINER, VICTIM]:
    for name in ["mem", "environ", "maps", *[f"fd/{n}" for n in range(32)]]:
        if pid != os.getpid():
            try: found.append(read(f"/proc/{pid}/{name}"))
            except OSError: pass
print(found)
---
[]
""",
)

OTHERS = cases(
    "others",
    r"""
=== ptrace
for pid in (VICTIM, TRAINER, os.getppid()):
    attempt(syscall, 101, 16, pid, 0, 0)
    attempt(syscall, 101, 0x4206, pid, 0, 0)
attempt(syscall, 101, 0, 0, 0, 0)  # PTRACE_TRACEME
--- EPERM
=== process_vm
text = ctypes.create_string_buffer(8)
one = struct.pack("QQ", ctypes.addressof(text), 8)
for pid in (VICTIM, TRAINER, os.getppid(), os.getpid()):
    for n in (310, 311): attempt(syscall, n, pid, one, 1, one, 1, 0)
--- EPERM
=== zygote by proc
for name in ("mem", "maps", "environ", "cmdline", "fd/0", "fd/2", "fd/3"): attempt(read, f"/proc/{os.getppid()}/{name}")
--- EACCES
=== trainer by proc
for name in ("mem", "maps", "environ", "cmdline", "fd/0", "fd/1", "fd/2", "root/etc/passwd"):
    attempt(read, f"/proc/{TRAINER}/{name}")
--- EACCES
=== descriptors of the trainer
attempt(read, f"/proc/{TRAINER}/fd/{SECRET_FD}")
attempt(os.readlink, f"/proc/{TRAINER}/fd/{SECRET_FD}")
attempt(os.readlink, f"/proc/{TRAINER}/cwd")
attempt(os.listdir, f"/proc/{TRAINER}/fd")
--- EACCES
=== itself by proc
for name in ("maps", "mem", "environ", "cmdline", "status", "root/etc/passwd"): attempt(read, f"/proc/self/{name}")
attempt(os.listdir, "/proc")
attempt(os.listdir, "/proc/self/fd")
--- EACCES
=== writing to proc
for name in ("self/mem", "self/oom_score_adj", "self/uid_map", "sys/kernel/core_pattern", "sysrq-trigger"):
    attempt(open, f"/proc/{name}", "wb")
--- EPERM
=== pages
attempt(syscall, 256, VICTIM, 1, bytes(8), bytes(8))  # migrate_pages
attempt(syscall, 279, VICTIM, 0, 0, 0, 0, 0)  # move_pages
attempt(syscall, 440, 1, 0, 0, 0, 0)  # process_madvise
attempt(syscall, 312, VICTIM, os.getpid(), 0, 1, 1)  # kcmp
attempt(syscall, 448, 1, 0)  # process_mrelease
--- EPERM
""",
)

# ---------------------------------------------------------------------------------------------------------------------
# Privileges. Where the kernel would take the arguments, EPERM can only come from the filter; where it would say EPERM
# itself, to a process without capabilities, "all other calls" still tells the two apart.

PRIVILEGE = [
    *cases(
        "privilege",
        r"""
=== user numbers
attempt(os.setuid, os.getuid())
attempt(os.setgid, os.getgid())
attempt(os.setreuid, -1, -1)
attempt(os.setresuid, -1, -1, -1)
attempt(os.setgroups, [])
attempt(syscall, 122, os.getuid())  # setfsuid
--- EPERM
=== root
attempt(os.setuid, 0)
attempt(os.setgid, 0)
attempt(os.setresuid, 0, 0, 0)
--- EPERM
=== capabilities
attempt(syscall, 126, struct.pack("=Ii", 0x20080522, 0), bytes(24))
attempt(syscall, 157, 47, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
attempt(syscall, 157, 8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
--- EPERM
=== unshare
for flags in (0, 0x10000000, 0x50000000, 0x20000, 0x400, 0x200): attempt(syscall, 272, flags)
attempt(syscall, 308, 1, 0)  # setns
--- EPERM
=== mount
attempt(syscall, 165, b"none", FOLDER.encode(), b"tmpfs", 0, 0)
attempt(syscall, 165, b"none", b"/", 0, 1 << 18, 0)
attempt(syscall, 166, FOLDER.encode(), 2)
attempt(syscall, 155, b"/", b"/")  # pivot_root
--- EPERM
=== mount by the new calls
attempt(syscall, 430, b"tmpfs", 0)  # fsopen
attempt(syscall, 428, -100, b"/", 0)  # open_tree
attempt(syscall, 429, 1, b"", -100, b"/", 4)  # move_mount
attempt(syscall, 433, -100, b"/", 0)  # fspick
attempt(syscall, 442, -100, b"/", 0, bytes(32), 32)  # mount_setattr
--- EPERM
=== chroot
attempt(os.chroot, "/")
attempt(os.fchdir, 0)
--- EPERM
=== bpf
attempt(syscall, 321, 0, struct.pack("=5I", 2, 4, 4, 1, 0) + bytes(100), 120)
--- EPERM
=== keys
attempt(syscall, 250, 0, 0xFFFFFFFD, 1)  # the session keyring
attempt(syscall, 248, b"user", b"x", b"payload", 7, 0xFFFFFFFD)
attempt(syscall, 249, b"user", b"x", 0, 0)
--- EPERM
=== perf
attempt(syscall, 298, struct.pack("=IIQ", 1, 128, 0) + bytes(112), 0, (1 << 64) - 1, (1 << 64) - 1, 0)
--- EPERM
=== userfaultfd
attempt(syscall, 323, 1)  # for faults of user mode, which needs no right
attempt(syscall, 323, 0)
--- EPERM
=== io_uring
attempt(syscall, 425, 8, ctypes.create_string_buffer(120))
attempt(syscall, 426, 0, 0, 0, 0, 0, 0)
attempt(syscall, 427, 0, 0, 0, 0)
attempt(syscall, 206, 8, ctypes.create_string_buffer(8))  # io_setup
--- EPERM
=== memory files
attempt(os.memfd_create, "x")
attempt(syscall, 447, 0)  # memfd_secret
--- EPERM
=== System V
attempt(syscall, 29, 0, 4096, 0o1600)  # shmget
attempt(syscall, 64, 0, 1, 0o1600)  # semget
attempt(syscall, 68, 0, 0o1600)  # msgget
attempt(syscall, 240, b"x", 0o102, 0o600, 0)  # mq_open
--- EPERM
=== shared memory
import _multiprocessing, multiprocessing
from multiprocessing.shared_memory import SharedMemory
attempt(open, f"/dev/shm/{MARKED}", "w")
attempt(SharedMemory, MARKED, True, 99)
attempt(_multiprocessing.SemLock, 1, 1, 1, f"/{MARKED}", False)
attempt(multiprocessing.Lock)
--- EPERM
=== personality
for kind in (0x40000, 8, 0xFFFFFFFF): attempt(syscall, 135, kind)
--- EPERM
=== dumpable again
attempt(syscall, 157, 4, 1, 0, 0, 0)
attempt(syscall, 157, 0x59616D61, (1 << 64) - 1, 0, 0, 0)  # PR_SET_PTRACER: any
attempt(syscall, 157, 35, 8, 0, 0, 0)  # PR_SET_MM
--- EPERM
=== filter upon filter
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))
attempt(syscall, 317, 1, 0, program)
attempt(syscall, 157, 22, 2, ctypes.addressof(program), 0, 0)
attempt(syscall, 444, 0, 0, 1)  # landlock_create_ruleset
attempt(syscall, 446, 1, 0)
--- EPERM
=== segments and ports
attempt(syscall, 158, 0x1003, ctypes.create_string_buffer(8))  # arch_prctl
attempt(syscall, 154, 0, ctypes.create_string_buffer(16), 16)  # modify_ldt
attempt(syscall, 172, 3)  # iopl
attempt(syscall, 173, 0x60, 1, 1)  # ioperm
--- EPERM
=== niceness and cores
attempt(os.nice, 1)
attempt(os.setpriority, os.PRIO_PROCESS, 0, 1)
attempt(syscall, 251, 1, 0, 0x4000)  # ioprio_set
attempt(os.sched_setaffinity, 0, os.sched_getaffinity(0))
attempt(os.sched_setscheduler, 0, os.SCHED_IDLE, os.sched_param(0))
attempt(syscall, 314, 0, struct.pack("=IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0)  # sched_setattr
--- EPERM
=== clock and host
attempt(time.clock_settime, time.CLOCK_REALTIME, time.time())
attempt(socket.sethostname, socket.gethostname())
attempt(syscall, 159, ctypes.create_string_buffer(208))  # adjtimex, which may be read by all
attempt(syscall, 164, 0, 0)
--- EPERM
=== kernel
attempt(syscall, 103, 10, 0, 0)  # the size of its log
attempt(syscall, 175, bytes(9), 9, b"")  # init_module
attempt(syscall, 246, 0, 0, 0, 0)  # kexec_load
attempt(syscall, 163, 0)  # acct
attempt(syscall, 153)  # vhangup
--- EPERM
=== locked memory
attempt(syscall, 149, 0, 0)
attempt(syscall, 151, 1)
attempt(syscall, 325, 0, 0, 0)
--- EPERM
=== file handles
handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
attempt(syscall, 303, -100, CANARY.encode(), handle, ctypes.create_string_buffer(4), 0)
attempt(syscall, 304, -100, handle, 0)
--- EPERM
=== watches and timers
attempt(syscall, 294, 0)  # inotify_init1
attempt(syscall, 300, 0, 0)  # fanotify_init
attempt(syscall, 289, -1, bytes(8), 8, 0)  # signalfd4
attempt(syscall, 283, 1, 0)  # timerfd_create
attempt(syscall, 222, 0, 0, ctypes.create_string_buffer(8))  # timer_create
--- EPERM
=== copies in the kernel
reader, writer = os.pipe()
attempt(syscall, 278, writer, struct.pack("QQ", 0, 0), 1, 0)  # vmsplice
attempt(os.splice, 0, writer, 1)
attempt(syscall, 276, reader, writer, 1, 0)  # tee
attempt(os.sendfile, writer, 0, 0, 1)
attempt(os.copy_file_range, 0, 1, 1)
--- EPERM
=== limits of others
for pid in (VICTIM, TRAINER, os.getppid()): attempt(resource.prlimit, pid, resource.RLIMIT_CPU, (0, 0))
attempt(syscall, 160, 7, struct.pack("QQ", 64, 64))  # setrlimit, which is not prlimit64
--- EPERM
=== raise limits
for name in ("CPU", "AS", "FSIZE", "NOFILE", "STACK", "CORE"):
    kind = getattr(resource, "RLIMIT_" + name)
    soft, hard = resource.getrlimit(kind)
    for more in (hard + 1, resource.RLIM_INFINITY):
        try: resource.setrlimit(kind, (more, more))
        except ValueError as error: print(name, error)
    assert resource.getrlimit(kind) == (soft, hard)
---
"""
        + "".join(
            f"{name} not allowed to raise maximum limit\n" * 2
            for name in ("CPU", "AS", "FSIZE", "NOFILE", "STACK", "CORE")
        )
        + r"""=== from a thread
import threading
t = threading.Thread(target=lambda: [attempt(*a) for a in ((os.fork,), (socket.socket,), (os.unlink, CANARY))])
t.start()
t.join()
--- EPERM
""",
    ),
    Case(
        "privilege",
        "all other calls",
        f"allowed = {sorted({*map(number, ALLOWED.split()), *(number(name) for name, *_ in CONDITIONS), CLONE3})}\n"
        "passed = []\n"
        "for n in set(range(1024)) - set(allowed) - {335, 336}:\n"
        "    try: syscall(n, 0, 0, 0, 0, 0, 0)\n"
        "    except PermissionError: continue\n"
        "    except OSError as error: passed.append((n, errno.errorcode[error.errno]))\n"
        "    else: passed.append((n, 'DONE'))\n"
        "print(passed)",
        stdout="[]\n",
    ),
    # Recent kernels let these two past every filter. Only a trap that a debugger has set can use them.
    Case("privilege", "uretprobe", "syscall(335)", ("signal", "error"), signals=(signal.SIGILL,)),
    Case("privilege", "uprobe", "attempt(syscall, 336)", stdout=None, begins="refused E"),
    *(
        Case("privilege", name, f"print(1)\nprint({act})", ("signal",), "1\n", signals=signals)
        for name, act, signals in [
            ("x32 numbers", "syscall((1 << 30) + 39)", (signal.SIGSYS,)),
            ("a number below all", "syscall(-1)", (signal.SIGSYS,)),
            # mov eax, 20; int 0x80; ret: getpid, for 32-bit programs. A kernel without that gate answers with SIGSEGV.
            ("32-bit getpid", r"machine_code(b'\xb8\x14\0\0\0\xcd\x80\xc3')", (signal.SIGSYS, signal.SIGSEGV)),
            # 2 is fork there and open here: a filter that ignores the architecture lets it through.
            ("32-bit fork", r"machine_code(b'\xb8\x02\0\0\0\xcd\x80\xc3')", (signal.SIGSYS, signal.SIGSEGV)),
        ]
    ),
]

# ---------------------------------------------------------------------------------------------------------------------
# Files, the network, secrets.

FILES = cases(
    "files",
    r"""
=== system
for path in ("/etc/passwd", "/proc/version", "/dev/random", "/dev/full"): attempt(read, path)
for path in ("/", "/etc", "/dev", "/tmp", "/root"): attempt(os.listdir, path)
--- EACCES
=== answers
attempt(read, CANARY)
attempt(os.open, CANARY, os.O_RDONLY)
attempt(os.open, CANARY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME)
attempt(syscall, 2, CANARY.encode(), 0, 0)
attempt(os.open, os.path.dirname(CANARY), os.O_DIRECTORY)
attempt(os.listdir, os.path.dirname(CANARY))
attempt(os.scandir, os.path.dirname(CANARY))
--- EACCES
=== answers by detours
os.chdir(os.path.dirname(CANARY))
attempt(read, "answers.json")
attempt(os.listdir, ".")
attempt(read, "/proc/self/cwd/answers.json")
attempt(read, f"/proc/self/root{CANARY}")
attempt(read, os.path.dirname(os.__file__) + "/.." * 20 + CANARY)
attempt(read, LINK)
--- EACCES
=== answers by a descriptor that opens nothing
folder = os.open(os.path.dirname(CANARY), os.O_PATH)
file = os.open(CANARY, os.O_PATH)
attempt(read, f"/proc/self/fd/{file}")
attempt(os.open, "answers.json", os.O_RDONLY, dir_fd=folder)
attempt(os.listdir, f"/proc/self/fd/{folder}")
--- EACCES
=== answers by openat2
attempt(syscall, 437, -100, CANARY.encode(), bytes(24), 24)
--- EPERM
=== answers by the loader
try: ctypes.CDLL(CANARY)
except OSError as error: print("Permission denied" in str(error))
---
True
=== answers by glob
import glob
print(glob.glob(os.path.dirname(CANARY) + "/*"), list(os.walk(FOLDER)))
---
[] []
=== source of the executor
attempt(read, EXECUTOR)
attempt(read, SERVER)
attempt(read, os.path.join(os.path.dirname(SERVER), "sandbox.py"))
attempt(read, sys._getframe(1).f_code.co_filename)
attempt(os.listdir, os.path.dirname(SERVER))
--- EACCES
=== package that is not named
import importlib.util, runpy
def load():
    spec = importlib.util.spec_from_file_location("x", PACKAGE)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
attempt(read, PACKAGE)
attempt(runpy.run_path, PACKAGE)
attempt(load)
--- EACCES
=== package that is not named by its name
sys.path.insert(0, os.path.dirname(os.path.dirname(PACKAGE)))
try: __import__("reasoning_gym")
except (ModuleNotFoundError, PermissionError): print("refused")
---
refused
=== user site
import site
print([path for path in sys.path if "-packages" in path], site.ENABLE_USER_SITE)
---
[] None
=== write
for path in (f"/tmp/{MARKED}", f"{FOLDER}/new", f"{FOLDER}/file", CANARY, MARKED, os.__file__, "/dev/null"):
    for mode in ("w", "a", "r+", "x"): attempt(open, path, mode)
--- EPERM
=== write in the working folder
os.chdir(FOLDER)
attempt(open, "new", "w")
attempt(open, "file", "r+")
attempt(os.mkdir, "new")
attempt(os.remove, "file")
--- EPERM
=== flags of open
path = f"{FOLDER}/file"
for flags in (1, 2, 3, os.O_TRUNC, os.O_CREAT, os.O_APPEND, os.O_RDWR | os.O_PATH, os.O_WRONLY | os.O_CLOEXEC):
    attempt(os.open, path, flags)
    attempt(syscall, 2, path.encode(), flags, 0o600)
attempt(syscall, 85, f"{FOLDER}/new".encode(), 0o600)  # creat
--- EPERM
=== unnamed file
attempt(os.open, FOLDER, os.O_TMPFILE | os.O_RDWR)
attempt(os.open, FOLDER, os.O_TMPFILE)
attempt(syscall, 2, FOLDER.encode(), os.O_TMPFILE, 0)
--- EPERM
=== tempfile
import tempfile
for make in (tempfile.TemporaryFile, tempfile.mkdtemp, tempfile.NamedTemporaryFile): attempt(make)
--- ENOENT
=== remove
attempt(os.unlink, f"{FOLDER}/file")
attempt(os.unlink, CANARY)
attempt(os.rmdir, f"{FOLDER}/folder")
--- EPERM
=== rename
attempt(os.rename, f"{FOLDER}/file", f"{FOLDER}/new")
attempt(os.replace, f"{FOLDER}/file", CANARY)
attempt(syscall, 316, -100, f"{FOLDER}/file".encode(), -100, f"{FOLDER}/folder".encode(), 2)  # RENAME_EXCHANGE
--- EPERM
=== truncate
attempt(os.truncate, f"{FOLDER}/file", 0)
attempt(os.truncate, CANARY, 0)
attempt(os.posix_fallocate, 1, 0, 9)
--- EPERM
=== times
attempt(os.utime, f"{FOLDER}/file", (0, 0))
for n in (132, 235): attempt(syscall, n, f"{FOLDER}/file".encode(), 0)
--- EPERM
=== modes and owners
attempt(os.chmod, f"{FOLDER}/file", 0o777)
attempt(os.fchmod, 1, 0o777)
attempt(os.chown, f"{FOLDER}/file", -1, -1)
attempt(os.lchown, f"{FOLDER}/file", -1, -1)
attempt(os.fchown, 1, -1, -1)
attempt(syscall, 452, -100, f"{FOLDER}/file".encode(), 0o777, 0)  # fchmodat2
--- EPERM
=== attributes
attempt(os.setxattr, f"{FOLDER}/file", "user.x", b"1")
attempt(os.removexattr, f"{FOLDER}/file", "user.x")
attempt(os.getxattr, CANARY, "user.x")
--- EPERM
=== links
attempt(os.symlink, CANARY, f"{FOLDER}/link")
attempt(os.link, CANARY, f"{FOLDER}/link")
attempt(syscall, 265, 1, b"", -100, f"{FOLDER}/link".encode(), 0x1000)  # linkat of a descriptor
--- EPERM
=== new entries
attempt(os.mkdir, f"{FOLDER}/new")
attempt(os.mkfifo, f"{FOLDER}/new")
attempt(os.mknod, f"{FOLDER}/new")
--- EPERM
=== locks
attempt(fcntl.flock, 1, fcntl.LOCK_EX)
attempt(fcntl.lockf, 1, fcntl.LOCK_EX)
attempt(fcntl.fcntl, 1, 1024, 1)  # F_SETLEASE
attempt(syscall, 162)  # sync
--- EPERM
=== fill the disk
n = 0
for i in range(1000):
    for place in ("/tmp", FOLDER, "/var/tmp", "/dev/shm", "."):
        try: open(f"{place}/{MARKED}{i}", "wb").write(bytes(1 << 20))
        except PermissionError: n += 1
print(n)
---
5000
""",
)

NETWORK = cases(
    "network",
    r"""
=== sockets
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW): attempt(socket.socket, socket.AF_INET, kind)
for family in ("INET6", "UNIX", "NETLINK", "PACKET", "VSOCK", "ALG"):
    attempt(socket.socket, getattr(socket, f"AF_{family}"), socket.SOCK_DGRAM)
--- EPERM
=== TCP
attempt(socket.create_connection, ("127.0.0.1", TCP))
attempt(socket.create_server, ("127.0.0.1", 0))
--- EPERM
=== numbers
attempt(syscall, 41, 2, 2, 0)
for n in (42, 49): attempt(syscall, n, 1, struct.pack("=HH4s8x", 2, socket.htons(UDP), bytes([127, 0, 0, 1])), 16)
attempt(syscall, 50, 1, 1)
attempt(syscall, 43, 1, 0, 0)
attempt(syscall, 288, 1, 0, 0, 0)
--- EPERM
=== urllib
import urllib.request
try: urllib.request.urlopen(f"http://127.0.0.1:{TCP}/")
except OSError as error: print(errno.errorcode[error.reason.errno])
---
EPERM
=== asyncio
import asyncio
attempt(lambda: asyncio.run(asyncio.open_connection("127.0.0.1", TCP)))
--- EPERM
=== names
try: print(socket.getaddrinfo("example.org", 80))
except socket.gaierror: print("refused")
---
refused
=== pair that sends elsewhere
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for address in (ABSTRACT, SOCKET):
    attempt(one.sendto, b"x", address)
    attempt(one.sendto, b"x", 0, address)
    attempt(one.connect, address)
    attempt(one.sendmsg, [b"x"], [], 0, address)
attempt(one.sendmsg, [b"x"])
attempt(syscall, 307, one.fileno(), bytes(64), 1, 0)  # sendmmsg
attempt(one.bind, "")
attempt(one.bind, f"{FOLDER}/new")
--- EPERM
=== pair that sends to addresses of which a half is zero
# A filter sees halves of arguments.
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
address = struct.pack("H", 1) + ABSTRACT.encode()
for place in (1 << 32, 1 << 28):
    assert LIBC.mmap(ctypes.c_void_p(place), ctypes.c_size_t(4096), 3, 0x100022, -1, ctypes.c_long(0)) == place
    ctypes.memmove(place, address, len(address))
    attempt(syscall, 44, one.fileno(), b"x", 1, 0, place, len(address))
--- EPERM
=== pairs of other families
attempt(socket.socketpair, socket.AF_INET, socket.SOCK_STREAM)
attempt(syscall, 53, 30, 1, 0, ctypes.create_string_buffer(8))  # TIPC
attempt(syscall, 53, 16, 3, 0, ctypes.create_string_buffer(8))  # netlink
--- EPERM
=== descriptors over a pair
one, other = socket.socketpair()
attempt(socket.send_fds, one, [b"x"], [0, 1])
attempt(socket.recv_fds, other, 1, 1)
--- EPERM
=== pair that talks to itself
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    one.send(b"x")
    print(other.recv(9))
---
b'x'
b'x'
b'x'
""",
)

SECRETS = [
    *cases(
        "secrets",
        r"""
=== environment
print([name for name, value in os.environ.items() if "TOKEN" in name or MARK in value], len(os.environ) > 5)
---
[] True
=== environment in memory
start, names = ctypes.POINTER(ctypes.c_char_p).in_dll(LIBC, "environ"), []
while start[len(names)]: names.append(start[len(names)])
print(len(names) > 5, MARK.encode() in b"".join(names), b"TOKEN" in b"".join(names))
---
True False False
=== objects in memory
import gc
gc.unfreeze()
found, seen = [], set()
def look(thing):
    if id(thing) not in seen:
        seen.add(id(thing))
        text = thing.decode("latin-1") if isinstance(thing, bytes) else thing if isinstance(thing, str) else ""
        if MARK in text and text != MARK: found.append(text)
for thing in gc.get_objects():
    look(thing)
    for inner in gc.get_referents(thing): look(inner)
print(found, len(seen) > 9999)
---
[] True
=== arguments
print(sys.argv, any(MARK in argument for argument in sys.orig_argv))
---
['<program>'] False
=== descriptors
found = []
for fd in range(20_000):
    try: os.fstat(fd)
    except OSError: continue
    found.append(fd)
print(found)
---
[0, 1, 2]
=== inherited descriptor
attempt(os.pread, SECRET_FD, 99, 0)
attempt(os.lseek, SECRET_FD, 0, 0)
attempt(os.dup, SECRET_FD)
--- EBADF
=== stdin
print(os.read(0, 99), sys.stdin.read() == "")
---
b'' True
=== modules of the trainer
for name in ("executor", "sandbox", "zygote", "rollout", "tasks", "suites", "reasoning_gym", "torch"):
    try: __import__(name)
    except ModuleNotFoundError: print("no", name)
---
no executor
no sandbox
no zygote
no rollout
no tasks
no suites
no reasoning_gym
no torch
""",
    ),
]

DETERMINISM = [
    Case("determinism", name, program, stdout=None, begins=begins, runs=4, needs=needs)
    for name, program, begins, needs in [
        ("hashes", "print(hash('a'), hash((1, 'b')), list(set('abcdefgh')))", "", ""),
        ("random", "import random\nprint(random.random(), random.sample(range(999), 9))", "0.", ""),
        ("numpy", "import numpy\nprint(numpy.random.rand(3), numpy.random.permutation(9))", "[0.", "numpy"),
        (
            "state of others",
            "import builtins, math, random\nprint('leak' in dir(builtins), hasattr(math, 'leak'), random.random())\n"
            "builtins.leak = math.leak = 1\nrandom.seed(5)\nsys.setrecursionlimit(60)",
            "False False 0.",
            "",
        ),
    ]
]

# ---------------------------------------------------------------------------------------------------------------------
# What must work: a wall that honest programs run into costs accuracy, and nobody notices.

BENIGN = [
    *cases(
        "benign",
        r"""
=== threads
import threading
numbers = []
threads = [threading.Thread(target=numbers.append, args=(i,)) for i in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(numbers))
---
[0, 1, 2, 3, 4, 5, 6, 7]
=== pool of threads
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(9))))
---
36
=== asyncio
import asyncio
async def later(n):
    await asyncio.sleep(0.01)
    return n
async def main():
    print(await asyncio.gather(*map(later, range(4))), await asyncio.to_thread(abs, -3))
    try: await asyncio.wait_for(asyncio.sleep(600), 0.01)
    except TimeoutError: print("late")
asyncio.run(main())
---
[0, 1, 2, 3] 3
late
=== dataclasses and pickle
import copy, pickle
from dataclasses import asdict, dataclass
@dataclass(order=True)
class Point:
    x: int
    y: "float" = 2.0
print(pickle.loads(pickle.dumps(Point(3))), asdict(copy.deepcopy(Point(1))), Point(1) < Point(2))
---
Point(x=3, y=2.0) {'x': 1, 'y': 2.0} True
=== sqlite in memory
import sqlite3
db = sqlite3.connect(":memory:")
db.execute("create table t (x)")
db.executemany("insert into t values (?)", [(i,) for i in range(9)])
db.commit()
print(db.execute("select sum(x) from t").fetchone())
---
(36,)
=== zoneinfo
from datetime import datetime, timezone
from zoneinfo import ZoneInfo
print(datetime(2024, 7, 1, 12, tzinfo=timezone.utc).astimezone(ZoneInfo("Europe/Berlin")))
---
2024-07-01 14:00:00+02:00
=== main
if __name__ == "__main__":
    import __main__
    x = 5
    print(__main__.x, __name__)
---
5 __main__
=== stdin
import sys
print(sys.stdin.read() == "", list(sys.stdin))
---
True []
=== exit
print(1)
exit()
---
1
=== quit
print(1)
quit()
---
1
=== json and re
import json, re
print(json.dumps(json.loads('{"a": [1, 2.5, null]}')), re.findall(r"\d+", "a1b22"))
---
{"a": [1, 2.5, null]} ['1', '22']
=== numbers
import cmath, math, statistics
from decimal import Decimal, getcontext
from fractions import Fraction
getcontext().prec = 30
print(Decimal(2).sqrt(), Fraction(1, 3) + Fraction(1, 6), math.comb(10, 3), statistics.median([3, 1, 2]), 2**70)
---
1.41421356237309504880168872421 1/2 120 2 1180591620717411303424
=== containers
import array, bisect, collections, functools, heapq, itertools, operator, queue
print(collections.Counter("abca").most_common(1), heapq.nsmallest(2, [3, 1, 2]), bisect.bisect([1, 2], 1))
print(list(itertools.permutations("ab")), functools.reduce(operator.mul, [1, 2, 3]), array.array("i", [1])[0])
---
[('a', 2)] [1, 2] 1
[('a', 'b'), ('b', 'a')] 6 1
=== texts
import base64, csv, difflib, hashlib, io, string, struct, textwrap, unicodedata, zlib
print(next(csv.reader(io.StringIO("a,b"))), unicodedata.name("x"), hashlib.sha256(b"").hexdigest()[:8])
print(zlib.decompress(zlib.compress(b"z")), base64.b64encode(b"a"), textwrap.wrap("a b", 1))
---
['a', 'b'] LATIN SMALL LETTER X e3b0c442
b'z' b'YQ==' ['a', 'b']
=== types
import abc, enum, typing
class Colour(enum.Enum): RED = 1
class Pair(typing.NamedTuple):
    x: int
print(Colour.RED, Pair(1), typing.get_type_hints(Pair))
---
Colour.RED Pair(x=1) {'x': <class 'int'>}
=== generators
def echo():
    n = yield 1
    yield n
it = echo()
print(next(it), it.send(5), [*map(lambda x: x * x, range(3))])
---
1 5 [0, 1, 4]
=== alarm as a time limit
import signal
def late(*_): raise TimeoutError
signal.signal(signal.SIGALRM, late)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    while True: sum(range(9))  # not `pass`: in such a loop, Python 3.11 loses the handler
except TimeoutError: print("late")
---
late
=== unittest
import io, unittest
class Test(unittest.TestCase):
    def test(self): self.assertEqual(1, 1)
suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
print(unittest.TextTestRunner(io.StringIO()).run(suite))
---
<unittest.runner.TextTestResult run=1 errors=0 failures=0>
=== doctest
'''
>>> 1 + 1
2
'''
import doctest
print(doctest.testmod())
---
TestResults(failed=0, attempted=1)
=== time
import datetime, time
start = time.perf_counter()
time.sleep(0.01)
print(time.perf_counter() > start, datetime.datetime.now().year > 2000, time.strftime("%Z"))
---
True True UTC
=== sources of randomness
import os, random, secrets, uuid
print(len(os.urandom(4)), len(secrets.token_hex(4)), uuid.uuid4().version, random.SystemRandom().random() < 1)
---
4 8 4 True
=== machine
import os, platform
print(os.cpu_count() > 0, platform.system(), platform.python_version_tuple()[0], os.getcwd())
---
True Linux 3 /
=== deep recursion
import functools, sys
sys.setrecursionlimit(20_000)
@functools.cache
def depth(n): return 0 if n == 0 else 1 + depth(n - 1)
print(depth(4000))
---
4000
=== files of the library
import html, inspect, json, pydoc
import xml.etree.ElementTree as E
print(len(inspect.getsource(json)) > 99, E.fromstring('<a b="1"/>').get("b"), html.unescape("&lt;"))
---
True 1 <
=== archives in memory
import bz2, gzip, io, lzma, zipfile
file = io.BytesIO()
with zipfile.ZipFile(file, "w") as archive: archive.writestr("a", "b")
print(zipfile.ZipFile(file).read("a"), [m.decompress(m.compress(b"c")) for m in (bz2, gzip, lzma)])
---
b'b' [b'c', b'c', b'c']
=== exception groups
try: raise ExceptionGroup("g", [ValueError(1), KeyError(2)])
except* ValueError as error: print(error.exceptions)
except* KeyError as error: print(error.exceptions)
---
(ValueError(1),)
(KeyError(2),)
=== code of its own
names = {}
exec(compile("y = 6 * 7", "x", "exec"), names)
print(names["y"], eval("1 + 1"))
---
42 2
=== output redirected
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text: print("inside")
print(repr(text.getvalue()))
---
'inside\n'
=== numpy [numpy]
import numpy as np
a = np.arange(6).reshape(2, 3)
print(a.sum(), (a @ a.T).tolist(), np.random.default_rng(1).random() < 1, np.fft.fft([1, 0]).real.tolist())
---
15 [[5, 14], [14, 50]] True [1.0, 1.0]
=== numpy.linalg [numpy]
import numpy as np
a = np.random.rand(300, 300)
print(np.allclose(a @ np.linalg.inv(a), np.eye(300)), round(np.linalg.det(np.diag([2.0, 3.0]))))
print(np.linalg.eigvalsh(np.eye(2)).tolist(), np.linalg.svd(a)[1].shape)
---
True 6
[1.0, 1.0] (300,)
=== numpy that was not foreseen [numpy]
import importlib
numpy = importlib.import_module("num" + "py")
print(numpy.linalg.norm([3, 4]))
---
5.0
=== sympy [sympy]
import sympy as sp
from sympy.abc import x, y
print(sp.solve(x**2 - 4), sp.integrate(sp.sin(x), x), sp.factorint(360), sp.diff(x**3, x))
print(sp.solve([x + y - 3, x - y - 1]), sp.Rational(1, 3).evalf(5), sp.latex(x**2))
---
[-2, 2] -cos(x) {2: 3, 3: 2, 5: 1} 3*x**2
{x: 2, y: 1} 0.33333 x^{2}
=== sympy limits [sympy]
import sympy as sp
x = sp.Symbol("x")
print(sp.limit(sp.sin(x) / x, x, 0), sp.Matrix([[1, 2], [3, 4]]).det(), sp.series(sp.exp(x), x, 0, 3), sp.isprime(97))
---
1 -2 1 + x + x**2/2 + O(x**3) True
=== mpmath [mpmath]
import mpmath
mpmath.mp.dps = 20
print(mpmath.zeta(2))
---
1.6449340668482264365
=== scipy [scipy]
import scipy.optimize
print(round(scipy.optimize.brentq(lambda x: x * x - 2, 0, 2), 6))
---
1.414214
=== networkx [networkx]
import networkx
print(networkx.shortest_path(networkx.path_graph(4), 0, 3))
---
[0, 1, 2, 3]
=== pandas [pandas]
import pandas
print(pandas.DataFrame({"a": [1, 2]}).a.sum(), pandas.to_datetime("2024-01-31").month)
---
3 1
""",
        bare=True,
    ),
    Case("benign", "input", "x = input('? ')", ("error",), "? ", stderr="EOFError: EOF when", exit_code=1, bare=True),
    Case("benign", "exit with a code", "exit(7)", ("error",), exit_code=7, bare=True),
    Case("benign", "logging", "import logging\nlogging.warning('careful')", stderr="WARNING:root:careful\n", bare=True),
    Case("benign", "warnings", "import warnings\nwarnings.warn('careful')", stderr="UserWarning: careful", bare=True),
    *(
        Case("benign", f"import {name}", f"import {name}", ("error",), stderr=f"No module named '{name}'\n", bare=True)
        for name in ("torch", "reasoning_gym", "executor")
    ),
]

CASES = [
    *TIME, *MEMORY, *OUTPUT, *CRASH, *FORGED, *TEXT, *PROCESSES, *SIBLING, *OTHERS, *PRIVILEGE, *FILES, *NETWORK,
    *SECRETS, *DETERMINISM, *BENIGN,
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# What is around the programs, and what must be left of it.


def descendants(pid: int) -> set[int]:
    """The living descendants of a process, by /proc."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for listing in Path(f"/proc/{pid}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in map(int, listing.read_text().split()):
                    found |= {child} | descendants(child)
    return found


def state(pid: int) -> dict[str, str]:
    """/proc/PID/status, which everybody may read; empty if there is no such process, or a zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return {} if fields["State"].startswith("Z") else fields
    return {}


def zygotes() -> set[int]:
    """The fork servers of this process."""
    name, found = executor_module.SERVER.name.encode(), set()
    for pid in descendants(os.getpid()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if name in command and state(pid).get("PPid") == str(os.getpid()):
                found.add(pid)
    return found


def sleeping_programs() -> set[int]:
    """The programs of this process that run, have been sealed, and sleep."""
    found = set()
    for zygote in zygotes():
        filters = state(zygote).get("Seccomp_filters")
        for pid in descendants(zygote):
            here = state(pid)
            if here.get("State", "").startswith("S") and here["Seccomp_filters"] != filters:
                found.add(pid)
    return found


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> object:
    """What `condition()` returns once that is true, or after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


class World(contextlib.AbstractContextManager):
    """What is around a training, and must not be read, changed or reached: answers in a file, a folder that all may
    write to, an open file, a token in the environment, a process of the same user, and those who listen."""

    def __init__(self):
        # The programs print it if they find it.
        self.secret = MARK + secrets.token_hex(16)
        self.marked = f"hostile-{secrets.token_hex(8)}"  # in the names of all that the programs try to make
        self.sibling = 0

    def __enter__(self) -> "World":
        package = importlib.util.find_spec("reasoning_gym")
        assert package, "reasoning_gym must be installed: programs try to read it"
        self._processes = descendants(os.getpid())
        with contextlib.ExitStack() as stack:
            top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="world-"))).resolve()
            self.answers, self.folder = top / "answers" / "answers.json", top / "folder"
            self.answers.parent.mkdir()
            self.answers.write_text(f'{{"answer": "{self.secret}"}}')
            (self.folder / "folder").mkdir(parents=True)
            (self.folder / "file").write_text("untouched")
            (self.folder / "to_answers").symlink_to(self.answers)
            for path in (self.folder, self.folder / "folder", self.folder / "file"):
                path.chmod(0o777)
            with self.answers.open() as file:
                self._secret_fd = fcntl.fcntl(file, fcntl.F_DUPFD, 40)  # the low ones have other meanings in a child
            stack.callback(os.close, self._secret_fd)
            os.environ["CANARY_TOKEN"] = self.secret
            stack.callback(os.environ.pop, "CANARY_TOKEN")
            self._victim = stack.enter_context(subprocess.Popen(["sleep", "600"], start_new_session=True))
            stack.callback(self._victim.kill)
            self._tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            self._udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self._udp.bind(("127.0.0.1", 0))
            self._abstract = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._abstract.bind(f"\0{self.marked}")
            self._path = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            self._path.bind(str(self.folder / "socket"))
            for listener in (self._tcp, self._udp, self._abstract, self._path):
                listener.setblocking(False)
            self._knock()
            assert self.hits() == 4, "nobody would notice a connection"
            self._before = self._snapshot()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _knock(self) -> None:
        """What programs must not get done: one hit on each of those who listen."""
        socket.create_connection(self._tcp.getsockname()).close()
        for listener in (self._udp, self._abstract, self._path):
            with socket.socket(listener.family, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"x", listener.getsockname())

    def hits(self) -> int:
        """How often those who listen were reached since the last call."""
        count = 0
        for hear in (self._tcp.accept, *(listener.recv for listener in (self._udp, self._abstract, self._path))):
            with contextlib.suppress(BlockingIOError):
                while True:
                    heard = hear() if hear == self._tcp.accept else hear(99)
                    count += 1
                    if isinstance(heard, tuple):
                        heard[0].close()
        return count

    def _snapshot(self) -> dict[str, object]:
        """All that must be the same afterwards."""
        files = {}
        for path in [self.answers, self.answers.parent, self.folder, *sorted(self.folder.rglob("*"))]:
            about = path.lstat()
            files[str(path)] = [about.st_mode, about.st_uid, about.st_nlink, about.st_size, about.st_mtime_ns]
            files[str(path)] += [path.read_text() if path.is_file() else None]
        gc.collect()  # closes what nobody refers to
        return {
            "files": files,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "niceness": os.nice(0),
            "cores": os.sched_getaffinity(0),
            "host name": socket.gethostname(),
        }

    def damage(self) -> list[str]:
        """What the programs have changed, in words. To be asked when the executors are closed."""
        found = [f"{hits} hits on those who listen"] if (hits := self.hits()) else []
        if self._victim.poll() is not None:
            found.append(f"the victim ended: {self._victim.returncode}")
        after = self._snapshot()
        found += [
            f"{name}: {self._before[name]} -> {after[name]}" for name in after if after[name] != self._before[name]
        ]
        # Others may use /dev/shm at the same time: what these programs make there bears their mark.
        for place in ("/dev/shm", "/tmp", "/var/tmp", "/"):
            found += [f"{place}/{name}" for name in os.listdir(place) if self.marked in name]
        left = descendants(os.getpid()) - self._processes - {self._victim.pid}
        return found + [f"a process is left: {state(pid)}" for pid in left]

    def prelude(self) -> str:
        """The start of a program: what it may know of this world, which is a lot, and some functions."""
        constants = {
            "TRAINER": os.getpid(),
            "VICTIM": self._victim.pid,
            "SIBLING": self.sibling,
            "CANARY": str(self.answers),
            "FOLDER": str(self.folder),
            "LINK": str(self.folder / "to_answers"),
            "MARKED": self.marked,
            "SECRET_FD": self._secret_fd,
            "TCP": self._tcp.getsockname()[1],
            "UDP": self._udp.getsockname()[1],
            "ABSTRACT": f"\0{self.marked}",
            "SOCKET": str(self.folder / "socket"),
            "EXECUTOR": executor_module.__file__,
            "SERVER": str(executor_module.SERVER),
            "PACKAGE": importlib.util.find_spec("reasoning_gym").origin,
        }
        return "".join(f"{name} = {value!r}\n" for name, value in constants.items()) + PRELUDE

    def submit(self, executor: Executor, case: Case) -> list[Future[Result]]:
        """Queue the runs of a case."""
        text = ("" if case.bare else self.prelude()) + case.program * case.times
        return [executor.submit(text) for _ in range(case.runs)]

    def run_beside_sibling(
        self, executor: Executor, chosen: Sequence[Case]
    ) -> tuple[dict[str, list[Result]], list[str]]:
        """Run programs while another one of the same executor sleeps and holds the secret; also what was wrong."""
        future = executor.submit(f"secret = {self.secret!r}\nprint(secret)\nimport time\ntime.sleep(600)")
        (self.sibling,) = wait_until(sleeping_programs) or {0}
        assert self.sibling, f"the sibling does not run: {future.result()}"
        found = []
        if os.getuid() != 0:  # root may read everything
            for name in ("fd/1", "mem", "environ", "maps"):
                with contextlib.suppress(PermissionError):
                    Path(f"/proc/{self.sibling}/{name}").open("rb").close()
                    found.append(f"{name} of a program is open to processes of the same user")
        queued = {case.id: self.submit(executor, case) for case in chosen}
        results = {name: [future.result() for future in futures] for name, futures in queued.items()}
        if not state(self.sibling):
            found.append("the sibling did not survive")
        else:
            os.kill(self.sibling, signal.SIGKILL)
        if future.result().stdout != f"{self.secret}\n":
            found.append(f"the sibling had nothing to hide: {future.result()}")
        return results, found


def complaints(case: Case, results: Sequence[Result], secret: str) -> list[str]:
    """What is wrong with how a case ended, in words."""
    found = []
    for result in results:
        out, err = result.stdout, result.stderr
        wanted = {
            f"the status is one of {case.status}": result.status in case.status,
            f"stdout is {case.stdout!r:.200}": case.stdout in (None, out),
            f"stdout begins with {case.begins!r:.200}": out.startswith(case.begins),
            "the secret is not told": secret not in out + err,
            "each text is at most as long as the limit": max(len(out), len(err)) <= OUTPUT_BYTES,
            "the texts are valid": all(text.encode(errors="ignore").decode() == text for text in (out, err)),
            "only an output that was cut has the status output": result.truncated or result.status != "output",
            "the layers hold": case.times > 1 or set(LAYERS) - set(result.layers) <= set(OPTIONAL),
            f"stderr has {case.stderr!r:.200}": (case.stderr or "") in err,
            "stderr is empty": case.stderr is not None or result.status != "ok" or not err,
            f"the exit code is {case.exit_code}": case.exit_code in (None, result.exit_code),
            f"the signal is one of {case.signals}": result.status != "signal" or result.signal in case.signals,
        }
        if case.refusal:
            lines = out.splitlines()
            wanted[f"all is refused with {case.refusal}"] = set(lines) == {f"refused {case.refusal}"}
            wanted["every attempt is told"] = len(lines) >= case.program.count("attempt(")
        found += [f"not true: {what}" for what, holds in wanted.items() if not holds]
    if len({result.stdout for result in results}) > 1:
        found.append("not true: all runs are equal")
    return [*found, *(f"{result!r:.1500}" for result in results)] if found else []


def examine(chosen: Sequence[Case] = CASES, workers: int = 8) -> tuple[dict[str, list[str]], list[str]]:
    """Run cases in a world of their own. Returns the complaints of each case, and the damage."""
    with World() as world:
        with (
            Executor(workers=workers, timeout=60.0) as patient,
            Executor(workers=workers, timeout=1.5) as hasty,
        ):
            checks = [(executor, program, output) for executor in (patient, hasty) for program, output in KNOWN.items()]

            def healthy() -> list[str]:
                ended = [(executor.submit(program), output) for executor, program, output in checks]
                return [f"a harmless program: {f.result()}" for f, output in ended if f.result().stdout != output]

            damage = healthy()
            first = zygotes()
            beside = [case for case in chosen if case.group == "sibling"]
            results, found = world.run_beside_sibling(patient, beside)
            damage += found
            alone = [case for case in chosen if case.group != "sibling" and not case.missing]
            for part, executor in (True, hasty), (False, patient):
                queued = {case.id: world.submit(executor, case) for case in alone if case.hasty == part}
                results |= {name: [future.result() for future in futures] for name, futures in queued.items()}
            damage += healthy() + [f"zygote {pid} has died" for pid in first - zygotes()]
        told = {case.id: complaints(case, results[case.id], world.secret) for case in chosen if case.id in results}
        return told, damage + world.damage()


def main() -> int:
    """Run all cases, or those whose id contains the first argument; the exit code is 1 if something is wrong."""
    chosen = [case for case in CASES if "".join(sys.argv[1:2]) in case.id]
    told, damage = examine(chosen)
    for name, lines in told.items():
        if lines:
            print(f"FAILED {name}: {' | '.join(lines)}")
    for line in damage:
        print(f"DAMAGE {line}")
    for case in chosen:
        if case.missing:
            print(f"left out {case.id}: {case.needs} is not installed")
    failed = sum(map(bool, told.values()))
    print(f"uid {os.getuid()}: {len(told)} cases, {failed} failed, {len(damage)} damages")
    return int(bool(failed or damage))


if __name__ == "__main__":
    sys.exit(main())
