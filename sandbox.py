"""The walls around a program that a model has written: layers by which a process gives up its rights.

A layer is a function that raises OSError if it does not hold. None trusts the others: what one of them misses, the next
one stops. By value: the seccomp filter > Landlock > resource limits > no descriptors, not dumpable > namespaces.
zygote.py puts them up, some once in the fork server, the rest in each child. `python executor.py --doctor` tries them.

What they do NOT promise. The kernel is shared: a bug in it is a way out, and a virtual machine is the answer to that.
`stat` works on every path, so that names, sizes and dates of files are no secret, nor what is installed. Time on the
cores is limited for each program, not shared out fairly. What a program may read (the standard library, numpy) it may
read whole, and the frames of zygote.py it sees through `sys._getframe`. Sets of objects that are hashed by address,
`os.urandom` and unseeded `numpy.random.default_rng` differ between runs. And honest programs find less than at home:
no file to write, no `multiprocessing` (whose locks are files), no `open("/dev/null", "w")`.

Standard library only, and as little of it as it takes: what the fork server maps is what every fork copies.
"""

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import resource
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable, Collection
from pathlib import Path

REPORT_BYTES = 16 << 20  # address space kept back for reporting a MemoryError
SEALED_FD = 3  # in the child: the eventfd by which it reports the layers that hold
LIBC = ctypes.CDLL(None, use_errno=True)

# <linux/prctl.h>, <linux/sched.h>
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP = 1, 4, 15, 22
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 1 << 26, 1 << 27, 1 << 28, 1 << 30
CLONE_THREAD, ALL_NAMESPACES = 0x10000, 0x7E020080


def call(function: Callable[..., int], *arguments: int | bytes | None) -> int:
    """Call a C function with arguments as wide as registers; raises OSError where it returns a negative number."""
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if (value := function(*wide)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value


def prctl(option: int, *arguments: int) -> None:
    """Call prctl(2), which wants five arguments; raises OSError where the kernel refuses."""
    call(LIBC.prctl, option, *arguments, *[0] * (4 - len(arguments)))


# ---------------------------------------------------------------------------------------------------------------------
# The layers of the zygote: put up once, after its imports, and inherited by every fork.


def namespaces() -> None:
    """Its own user, network, IPC, host name and mount namespaces: the network has no interface but a loopback that is
    down, System V memory is empty, and what would be mounted is seen by nobody else.

    Where a machine forbids this to ordinary users, as Docker's default profile does, the other layers must do. Tried in
    a child first, since some kernels let a process in and then leave it without the rights that it needs there.
    """
    uid, gid = os.getuid(), os.getgid()

    def enter() -> None:
        call(LIBC.unshare, CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS)
        # Inside, users keep their numbers: the files that they own stay readable.
        for name, text in ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1"):
            Path(f"/proc/self/{name}").write_text(text)

    if (pid := os.fork()) == 0:
        number = 1
        try:
            enter()
            number = 0
        except OSError as error:
            number = error.errno
        finally:
            os._exit(number)
    if number := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(number, os.strerror(number))
    enter()


def no_new_privs() -> None:
    """No exec can give more rights than there are now: setuid programs are programs like others. Without this promise
    the kernel does not let ordinary users filter system calls."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def capabilities() -> None:
    """Root's rights, one by one, are given up for good. A process that runs as root, or as the owner of its namespace,
    then can do what its user number can."""
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)  # version 3, this process; <linux/capability.h>
    call(LIBC.capset, header, none)


def landlock(packages: dict[str, str]) -> None:
    """The files that may be opened, and those only for reading: `readable`. All else is refused by the kernel, whoever
    owns it: data, answers, keys, other packages, /proc, /tmp. TCP, abstract sockets and signals to processes
    outside are refused too, where the kernel is recent enough (6.7 and 6.12).
    """
    create, add, restrict = 444, 445, 446  # the same numbers on every architecture
    version = call(LIBC.syscall, create, None, 0, 1)
    # <linux/landlock.h>: what is handled is forbidden unless a rule allows it. Each version can handle more.
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = call(LIBC.syscall, create, struct.pack("=QQQ", files, 0b11, 0b11)[:size], size, 0)
    for path, rights in readable(packages).items():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                call(LIBC.syscall, add, ruleset, 1, struct.pack("=Qi", rights, folder), 0)
            finally:
                os.close(folder)
    call(LIBC.syscall, restrict, ruleset, 0)
    os.close(ruleset)


def readable(packages: dict[str, str]) -> dict[str, int]:
    """Paths and Landlock's rights to them; a right to a folder holds for all below it. From the folder of the standard
    library, its entries one by one: site-packages lies in it, and may hold the answers of tasks. (That folder and those
    in it can still be listed.)"""
    file, folder = 1 << 2, 1 << 3
    library = os.path.dirname(os.__file__)
    paths = {library: folder}  # imports list it
    for entry in os.scandir(library):
        if entry.name not in ("site-packages", "dist-packages"):
            paths[entry.path] = file | folder if entry.is_dir() else file
    for place in ("/lib", "/lib64", "/usr/lib", "/usr/lib64", f"{sys.base_prefix}/lib"):
        for pattern in ("*.so*", "*-linux-gnu/*.so*"):
            paths |= {str(path): file for path in Path(place).glob(pattern) if path.is_file()}
    for origin in packages.values():
        if os.path.basename(origin) == "__init__.py":
            home = os.path.dirname(origin)
            paths |= {home: file | folder, f"{home}.libs": file | folder}  # the second: shared libraries of a wheel
        else:
            paths[origin] = file
    for path in ("/dev/null", "/dev/zero", "/dev/urandom", "/etc/ld.so.cache", "/etc/localtime"):
        paths[path] = file
    return paths | {"/usr/share/zoneinfo": file | folder, "/usr/lib/locale": file | folder}


# ---------------------------------------------------------------------------------------------------------------------
# The layers of the child. The filter comes last, since it forbids what the ones before it need.


def process_group() -> None:
    """A process group of its own: one signal reaches all that a program started and did not detach."""
    os.setpgid(0, 0)


def parent_death(zygote: int) -> None:
    """The kernel kills the child when its zygote dies, however that happens. One that died before goes unnoticed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:
        raise OSError("the zygote is gone")


def descriptors() -> None:
    """Whatever is open stays open in a fork: the zygote's socket, a sibling's output. Only stdin (/dev/null), stdout,
    stderr and SEALED_FD stay."""
    os.closerange(SEALED_FD + 1, os.sysconf("SC_OPEN_MAX"))


def not_dumpable() -> None:
    """Its memory, and its descriptors by way of /proc, are closed to other processes of the same user: siblings could
    otherwise read each other's output, Landlock or not. No core dump either."""
    prctl(PR_SET_DUMPABLE, 0)


def rlimits(limits: dict) -> None:
    """Bounds of the kernel, soft and hard, that only root could raise again.

    CPU time is for programs that compute in several threads: others meet the time-out first. A file's extra byte tells
    an output that was cut from one that just fits.
    """
    cpu_s, file_bytes = math.ceil(limits["timeout"]) + 1, limits["output_bytes"] + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_AS, (limits["address_space"], limits["address_space"] + REPORT_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, 8 << 20))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def seccomp() -> None:
    """The system calls that may be made; all others fail with EPERM before the kernel looks at them. There is no fork,
    exec, socket, mount, ptrace nor write to the file system behind this filter, and no part of the kernel that a
    program computing something does not need. It cannot be taken off again.
    """
    if os.uname().machine != "x86_64" or sys.maxsize < 2**32:
        raise OSError(f"there is no filter for {os.uname().machine}")
    program = FILTER.replace(struct.pack("=I", OWN_PID), struct.pack("=I", os.getpid()))
    address = ctypes.cast(ctypes.c_char_p(program), ctypes.c_void_p).value
    call(LIBC.prctl, PR_SET_SECCOMP, 2, struct.pack("HxxxxxxQ", len(program) // 8, address), 0, 0)


# name:number for x86_64, <asm/unistd_64.h>
ALLOWED = """
read:0 write:1 close:3 lseek:8 pread64:17 pwrite64:18 readv:19 writev:20 fsync:74 fdatasync:75 dup:32 dup2:33 dup3:292
pipe:22 pipe2:293 close_range:436
stat:4 fstat:5 lstat:6 newfstatat:262 statx:332 access:21 faccessat:269 faccessat2:439 getdents64:217 readlink:89
readlinkat:267 getcwd:79 chdir:80
mmap:9 mprotect:10 munmap:11 mremap:25 brk:12 madvise:28 mincore:27 msync:26 membarrier:324
rt_sigaction:13 rt_sigprocmask:14 rt_sigreturn:15 rt_sigpending:127 rt_sigtimedwait:128 rt_sigsuspend:130
sigaltstack:131 pause:34 alarm:37 setitimer:38 getitimer:36 restart_syscall:219
futex:202 sched_yield:24 set_robust_list:273 get_robust_list:274 rseq:334 set_tid_address:218 gettid:186 exit:60
exit_group:231
poll:7 ppoll:271 select:23 pselect6:270 epoll_create1:291 epoll_ctl:233 epoll_wait:232 epoll_pwait:281 eventfd2:290
nanosleep:35 clock_nanosleep:230 recvfrom:45
clock_gettime:228 clock_getres:229 gettimeofday:96 time:201 times:100 getrusage:98 getrandom:318 getpid:39 getppid:110
getuid:102 geteuid:107 getgid:104 getegid:108 getresuid:118 getresgid:120 getgroups:115 getpgrp:111 getpgid:121
getsid:124 uname:63 sysinfo:99 sched_getaffinity:204 getcpu:309 getrlimit:97 umask:95
"""
OWN_PID = 0x7FFFFFFF  # stands for the number of the child, and is none itself
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | (os.O_TMPFILE & ~os.O_DIRECTORY)
# Calls that depend on an argument: name:number, the argument's place, and what must be true of its lower 32 bits
# ("high": the upper ones). Where a call has several lines, all must be true.
CONDITIONS: list[tuple[str, int, str, Collection[int]]] = [
    ("open:2", 1, "has none of", [WRITING]),
    ("openat:257", 2, "has none of", [WRITING]),
    ("kill:62", 0, "is", [OWN_PID]),
    ("tgkill:234", 0, "is", [OWN_PID]),
    ("clone:56", 0, "has", [CLONE_THREAD]),
    ("clone:56", 0, "has none of", [ALL_NAMESPACES]),
    # Not F_SETOWN and F_SETSIG, by which the kernel sends a signal of one's choice to any process.
    (
        "fcntl:72",
        1,
        "is",
        [fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_DUPFD_CLOEXEC],
    ),
    ("ioctl:16", 1, "is", [termios.TCGETS, termios.FIONBIO, termios.FIOCLEX]),
    ("prlimit64:302", 0, "is", [0]),  # one's own; the hard limits stand
    ("prctl:157", 0, "is", [PR_SET_NAME]),
    # asyncio wakes itself by a pair of sockets. With an address, a datagram socket of a pair could send elsewhere.
    ("socketpair:53", 0, "is", [socket.AF_UNIX]),
    ("sendto:44", 4, "is", [0]),
    ("sendto:44", 4, "high is", [0]),
]
CLONE3 = 435  # has its flags in memory, where a filter cannot look; C libraries then take clone


def seccomp_filter() -> bytes:
    """A program for the kernel's packet-filter machine: 8 bytes an instruction (code, jump if true, jump if false,
    operand), run on {number, architecture, instruction pointer, arguments} at every system call. Jumps only go forward,
    and count the instructions that are passed over."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06  # <linux/bpf_common.h>
    allow, kill, fail = 0x7FFF0000, 0x80000000, 0x00050000  # <linux/seccomp.h>

    def instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, operand)

    def check(place: int, test: str, operands: Collection[int]) -> list[bytes]:
        """Goes on behind itself if the test holds, and otherwise ends with EPERM."""
        lines = [instruction(load, 16 + 8 * place + 4 * test.startswith("high"))]
        if test.endswith("is"):
            lines += [instruction(equal, value, len(operands) - i, 0) for i, value in enumerate(operands)]
        else:
            (bits,) = operands
            lines.append(instruction(any_bit, bits, *((1, 0) if test == "has" else (0, 1))))
        return [*lines, instruction(give, fail | errno.EPERM)]

    program = [
        # Another architecture has other numbers, and so has x32, which counts from 2**30.
        instruction(load, 4), instruction(equal, 0xC000003E, 1), instruction(give, kill),
        instruction(load, 0), instruction(at_least, 1 << 30, 0, 1), instruction(give, kill),
        instruction(equal, CLONE3, 0, 1), instruction(give, fail | errno.ENOSYS),
    ]  # fmt: skip
    for name in dict.fromkeys(name for name, *_ in CONDITIONS):
        lines = [line for other, *rest in CONDITIONS if other == name for line in check(*rest)]
        lines.append(instruction(give, allow))
        program += [instruction(equal, number(name), 0, len(lines)), *lines]
    allowed = [number(name) for name in ALLOWED.split()]
    program += [instruction(equal, value, len(allowed) - i, 0) for i, value in enumerate(allowed)]
    return b"".join([*program, instruction(give, fail | errno.EPERM), instruction(give, allow)])


def number(name: str) -> int:
    return int(name.partition(":")[2])


FILTER = seccomp_filter()  # made once: it takes half a millisecond


ZYGOTE_LAYERS = ("namespaces", "no_new_privs", "capabilities", "landlock")
CHILD_LAYERS = ("process_group", "parent_death", "descriptors", "not_dumpable", "rlimits", "seccomp")
LAYERS = ZYGOTE_LAYERS + CHILD_LAYERS
OPTIONAL = ("namespaces",)  # a second wall where another one stands


def put_up(layers: dict[str, Callable[[], None]], strict: bool) -> list[str]:
    """Puts up layers in order and returns the names of those that hold; OSError, if strict, for one that is needed and
    does not."""
    held = []
    for name, layer in layers.items():
        try:
            layer()
        except (OSError, ValueError) as error:
            if strict and name not in OPTIONAL:
                raise OSError(f"the layer {name} does not hold: {error}") from error
        else:
            held.append(name)
    return held
