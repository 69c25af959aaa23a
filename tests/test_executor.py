"""The executor, run for real: every test starts processes. No test asserts how long something takes.

Time-outs are short only where running into one is the point; elsewhere they are generous, for busy machines.
"""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("the executor needs Linux", allow_module_level=True)

from hostile import descendants, state, wait_until, zygotes

import executor as executor_module
from executor import Executor, Result

ROOT = Path(executor_module.__file__).parent


@pytest.fixture(scope="module")
def executor():
    with Executor(workers=4, timeout=30.0) as shared:
        yield shared


@pytest.fixture(scope="module")
def hasty():
    """An executor for programs that are meant to run into the limit."""
    with Executor(workers=8, timeout=1.0) as shared:
        yield shared


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return bool(state(pid))


# How programs end


def test_ok(executor):
    """The plain case, with every field filled: a caller that logs them must not find a None or a nonsense time."""
    result = executor.run("import sys\nprint('out', 6 * 7)\nprint('err', file=sys.stderr)")
    assert (result.status, result.stdout, result.stderr) == ("ok", "out 42\n", "err\n")
    assert (result.exit_code, result.signal, result.truncated) == (0, None, False)
    assert result.layers == executor_module.LAYERS
    assert result.wall_s > 0 and result.cpu_s > 0 and result.queue_s > 0 and result.max_rss_mb > 1


def test_traceback_shows_the_frames_of_the_program_only(executor):
    """The model reads tracebacks: frames of the executor would be noise to it, and would name its files."""
    result = executor.run("def divide(x):\n    return x / 0\n\ndivide(1)\n")
    assert (result.status, result.exit_code, result.stdout) == ("error", 1, "")
    lines = [line for line in result.stderr.splitlines() if set(line.strip()) - set("~^")]
    assert lines == [
        "Traceback (most recent call last):",
        '  File "<program>", line 4, in <module>',
        "    divide(1)",
        '  File "<program>", line 2, in divide',
        "    return x / 0",
        "ZeroDivisionError: division by zero",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    traceback.print_exc()\n    raise",
        "try:\n    {}['a']\nexcept KeyError as error:\n    raise ValueError('chained') from error",
        "def f(n):\n    return f(n + 1)\nf(0)",
        "x = = 1",
        "if True:\n\tx = 1\n        y = 2\n",
        "(" * 50_000,
        "from __future__ import no_such_feature",
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E",
        "import sys\nsys.modules.clear()\nsys.stdout = sys.stderr = None\n1 / 0",
    ],
)
def test_no_executor_path_in_any_error(executor, code):
    """Chained exceptions, errors of the compiler and a sabotaged interpreter take other ways to stderr."""
    result = executor.run(code)
    assert result.status in ("error", "memory") and result.exit_code == 1
    assert result.stderr and "executor" not in result.stderr and "run_program" not in result.stderr


def test_syntax_error(executor):
    """As CPython prints it: no "Traceback" line, but the source line and the caret."""
    result = executor.run("x = 1\ny = = 2\n")
    assert result.status == "error"
    assert result.stderr == '  File "<program>", line 2\n    y = = 2\n        ^\nSyntaxError: invalid syntax\n'


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "stderr"),
    [
        ("import os; os._exit(3)", "error", 3, ""),
        ("import sys; sys.exit(3)", "error", 3, ""),
        ("import sys; sys.exit('stopped')", "error", 1, "stopped\n"),
        ("raise SystemExit", "ok", 0, ""),
    ],
)
def test_exit_codes(executor, code, status, exit_code, stderr):
    """sys.exit takes None, a number or a message; os._exit goes past everything of ours in the child."""
    result = executor.run(code)
    assert (result.status, result.exit_code, result.stderr) == (status, exit_code, stderr)


def test_segmentation_fault_keeps_the_output(executor):
    """A crash must not take the zygote along, nor what was printed before it."""
    result = executor.run("import ctypes\nprint('before')\nctypes.string_at(0)")
    assert (result.status, result.signal, result.exit_code) == ("signal", signal.SIGSEGV, None)
    assert result.stdout == "before\n"


@pytest.mark.parametrize("code", ["bytearray(4 << 30)", "import numpy\nnumpy.ones(1 << 32)"])
def test_memory(executor, code):
    """One request beyond the limit; numpy has its own class of MemoryError."""
    result = executor.run(code)
    assert (result.status, result.exit_code) == ("memory", 1)
    assert result.stderr.startswith("Traceback") and "MemoryError" in result.stderr


def test_memory_filled_to_the_last_byte():
    """Small objects leave no memory to report the error with: stderr stayed empty before there was a reserve."""
    with Executor(workers=2, timeout=60.0, memory_mb=32) as executor:
        lists, numbers = executor.map(["x = []\nwhile True: x = [x]", "x = {}\nwhile True: x[len(x)] = str(x.keys)"])
    assert (lists.status, numbers.status) == ("memory", "memory")
    assert "MemoryError" in lists.stderr and "MemoryError" in numbers.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("text", ["'x' * 99 + '\\n'", "'x' * 50_000_000"])
def test_flood_is_capped(executor, stream, text):
    """The cap is the kernel's: the bytes past it are never stored, whether they come as many lines or as one."""
    result = executor.run(f"import sys\nwhile True:\n    sys.{stream}.write({text})")
    assert (result.status, result.truncated) == ("output", True)
    assert len(getattr(result, stream)) == 64 << 10


def test_output_that_just_fits_is_not_truncated(executor):
    """Off by one: a full stream looks like a cut one unless the kernel's limit is one byte higher."""
    result = executor.run(f"print('x' * {(64 << 10) - 1})")
    assert (result.status, result.truncated, len(result.stdout)) == ("ok", False, 64 << 10)


def test_output_is_always_text(executor):
    """Bytes that are no UTF-8, lone surrogates and NULs come back as a str that can be encoded again."""
    result = executor.run("import os\nprint('\\ud800', 'é', chr(0))\nos.write(1, b'\\xff')")
    assert (result.status, result.stdout) == ("ok", "\\ud800 é \x00\n�")


def test_source_is_any_text(executor):
    """A byte-level tokenizer lets the model write anything; an exception in submit would end the training run."""
    surrogate, nul, crlf = executor.map(["x = '\ud800'", "x = 1\0", "x = 1\r\nprint(x)\r\n"])
    assert (surrogate.status, nul.status, crlf.stdout) == ("error", "error", "1\n")
    assert "surrogates not allowed" in surrogate.stderr and "null bytes" in nul.stderr


def test_source_has_a_size_limit(executor):
    """A 100 MB program must not travel to a zygote."""
    result = executor.run("#" * 1_000_001)
    assert (result.status, result.exit_code) == ("error", None) and "1000001 bytes" in result.stderr
    assert executor.run("#" * 1_000_000).status == "ok"


def test_input_is_at_its_end(executor):
    """input() must not wait for the trainer's terminal."""
    result = executor.run("input('? ')")
    assert result.status == "error" and result.stderr.endswith("EOFError: EOF when reading a line\n")


def test_threads_and_exit_handlers_finish(executor):
    """The child leaves by os._exit, which alone would drop threads that still run and handlers of atexit."""
    code = """
import atexit, threading, time
from concurrent.futures import ThreadPoolExecutor
atexit.register(print, "handler")
ThreadPoolExecutor().submit(print, "pool")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
"""
    result = executor.run(code)
    assert result.status == "ok" and sorted(result.stdout.split()) == ["handler", "pool", "thread"]


def test_main_module(executor):
    """`if __name__ == "__main__"`, dataclasses and pickle look up the program's module by its name."""
    code = """
from dataclasses import dataclass
import pickle
@dataclass
class Point:
    x: "int"
if __name__ == "__main__":
    print(pickle.loads(pickle.dumps(Point(3))))
"""
    assert executor.run(code).stdout == "Point(x=3)\n"


# Time


def test_timeout(hasty):
    """No way to ignore the limit; and what was printed, even a line without its end, is kept."""
    endless = [
        "while True: pass",
        "import time; time.sleep(600)",
        "import signal\nfor n in (1, 2, 3, 14, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import atexit, time; atexit.register(time.sleep, 600)",
        "import threading, time; threading.Thread(target=time.sleep, args=(600,)).start()",
        "10 ** 10 ** 9",
    ]
    for result in hasty.map(["print('first', end='')\n" + code for code in endless]):
        assert (result.status, result.stdout, result.signal) == ("timeout", "first", signal.SIGKILL)
        assert result.exit_code is None and result.wall_s >= hasty.timeout


def test_time_limit_starts_with_the_child():
    """A limit that starts at submission times out whatever waits behind slow programs in the queue."""
    with Executor(workers=1, timeout=1.5) as executor:
        results = executor.map(["import time; time.sleep(0.5)"] * 5)
    assert [result.status for result in results] == ["ok"] * 5
    assert results[4].queue_s > executor.timeout > results[4].wall_s


def test_slow_neighbour_times_out_alone():
    """One shared deadline for a batch would take the innocent along."""
    with Executor(workers=2, timeout=1.5) as executor:
        results = executor.map(["while True: pass", *["print(1)"] * 20])
    assert [result.status for result in results] == ["timeout"] + ["ok"] * 20


# Many programs


def test_512_at_once_wait_their_turn(executor):
    """Programs end in any order, and results must not. All of them at the same time would have each other time out, for
    which the model would be blamed: no more than there are workers run at any moment, and waiting is counted apart."""
    code = "import time\nstart = time.monotonic()\ntime.sleep({} / 1000)\nprint({}, start, time.monotonic())"
    results = executor.map([code.format(index % 5, index) for index in range(512)])
    assert {result.status for result in results} == {"ok"}
    lines = [result.stdout.split() for result in results]
    assert [int(index) for index, *_ in lines] == [*range(512)]
    changes = sorted([(float(start), 1) for _, start, _ in lines] + [(float(end), -1) for *_, end in lines])
    assert max(itertools.accumulate(change for _, change in changes)) <= executor.workers == 4
    assert max(result.queue_s for result in results) > max(result.wall_s for result in results)


def test_no_state_leaks_between_programs(executor):
    """A program that breaks its interpreter breaks its own only."""
    executor.map(
        ["import builtins, math, sys\nbuiltins.leak = math.leak = 1\nsys.setrecursionlimit(50)\ndel builtins.len"] * 8
    )
    results = executor.map(["import math\nprint(len([1]), 'leak' in dir(__builtins__), hasattr(math, 'leak'))"] * 8)
    assert {result.stdout for result in results} == {"1 False False\n"}


def test_hashes_and_random_numbers_are_equal_in_every_run(executor):
    """An episode can be replayed only if set order and random numbers do not depend on which zygote ran it."""
    code = "import random\nprint(hash('a'), set('abcdefgh'), random.random(), random.sample(range(99), 9))"
    with Executor(workers=1, timeout=30.0) as other:
        outputs = {result.stdout for result in [*executor.map([code] * 8), other.run(code)]}
    assert len(outputs) == 1 and "0." in outputs.pop()


def test_numpy_and_sympy(executor):
    """The second flavour of zygote: started on demand, seeded per child, and not needed by other programs."""
    before = zygotes()
    code = "import numpy as np\nimport sympy\nx = sympy.Symbol('x')\nprint(sympy.solve(x**2 - 4), np.random.rand())"
    first, second = executor.map([code] * 2)
    assert first.status == "ok" and first.stdout.startswith("[-2, 2] 0.") and first.stdout == second.stdout
    flavours = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in zygotes() - before]
    assert all(b"science" in flavour for flavour in flavours)
    assert executor.run("import sys\nprint('numpy' in sys.modules)").stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "flavour"),
    [
        ("import numpy", True),
        ("def f():\n    from sympy.abc import x", True),
        ("import math, numpy as np", True),
        ("print('import numpy')", False),
        ("import numpydoc", False),
        ("numpy = 1", False),
    ],
)
def test_which_programs_want_the_second_flavour(code, flavour):
    """A wrong guess costs time only; but one that always says yes would make the plain demo load sympy."""
    assert bool(executor_module.SCIENCE.search(code)) == flavour


# What a program finds, and what it leaves


def test_environment_is_clean(monkeypatch):
    """The trainer's environment holds tokens of trackers and model hubs."""
    monkeypatch.setenv("CANARY_TOKEN", "secret-canary")
    with Executor(workers=1, timeout=30.0) as executor:
        result = executor.run("import os\nprint(dict(os.environ))")
    assert "PYTHONHASHSEED" in result.stdout and "canary" not in result.stdout.lower()


OPEN_DESCRIPTORS = """
import os
for fd in range(4096):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(fd)
"""


def test_no_descriptor_is_inherited(executor):
    """An open file of the trainer, the zygote's socket or a sibling's output would be the program's to use."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        with Executor(workers=4, timeout=30.0) as fresh:
            for result in fresh.map([OPEN_DESCRIPTORS] * 8):
                assert result.stdout == "0\n1\n2\n"
    finally:
        os.close(reader)
        os.close(writer)


def test_limits(executor):
    """Soft and hard: what a program may raise again is no limit."""
    code = """
import os, resource
print(os.getpgrp() == os.getpid())
for name in ("CPU", "FSIZE", "STACK", "NOFILE", "CORE"):
    print(name, *resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
print(resource.getrlimit(resource.RLIMIT_AS)[1] < 1 << 30)
"""
    assert executor.run(code).stdout.splitlines() == [
        "True",
        "CPU 31 32",
        "FSIZE 65537 65537",
        "STACK 8388608 8388608",
        "NOFILE 64 64",
        "CORE 0 0",
        "True",
    ]


DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid())
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(0.2)
"""
SLEEPER = """
import os, time
pid = os.fork()
if pid == 0:
    time.sleep(600)
print(pid)
"""


@pytest.mark.parametrize("code", [DAEMON, SLEEPER, SLEEPER + "os._exit(0)", SLEEPER + "while True: pass"])
def test_nothing_outlives_its_program(altered, code):
    """Such leftovers pile up over thousands of programs per step until the machine has no processes left. The filter
    lets no program fork; where a best effort has to do without it, the zygote is the one that cleans up."""
    altered(("program = FILTER.replace(", 'raise OSError("no filter here") or ('))
    endless = "while" in code
    with Executor(workers=1, timeout=1.0 if endless else 30.0, best_effort=True) as executor:
        result = executor.run(code)
        assert "seccomp" not in result.layers
        assert result.status == ("timeout" if endless else "ok")
        assert not is_alive(int(result.stdout))


@pytest.mark.parametrize("end", ["", "os._exit(97)", "os.kill(os.getpid(), 9)", "os.closerange(3, 64)"])
def test_sandbox_error_cannot_be_forged(executor, end):
    """It is masked out of training: a model that could produce it at will would hide its failures."""
    code = (
        f"import os, sys\nprint('sandbox_error: SANDBOX SETUP FAILED', file=sys.stderr)\n{end}\nraise OSError('prctl')"
    )
    assert executor.run(code).status in ("error", "signal")


# Failures of the executor itself


def test_killed_zygote_is_replaced():
    """Programs that were running in it run again; those that wait in the queue notice nothing."""
    before = zygotes()
    with Executor(workers=2, timeout=60.0) as executor:
        futures = [executor.submit(f"import time\ntime.sleep(0.4)\nprint({index})") for index in range(4)]
        busy = wait_until(lambda: [pid for pid in zygotes() - before if descendants(pid)])
        os.kill(busy[0], signal.SIGKILL)  # one alone: the second may be where its program runs again
        assert [future.result().stdout for future in futures] == [f"{index}\n" for index in range(4)]


def test_zygote_that_dies_again_is_an_infrastructure_failure():
    """A program may run twice, not for ever: one that takes its zygote along each time would stall the training."""
    before = zygotes()
    with Executor(workers=1, timeout=60.0) as executor:
        future = executor.submit("import time\ntime.sleep(600)")
        for _ in range(2):
            assert wait_until(lambda: any(descendants(pid) for pid in zygotes() - before))
            victims = zygotes() - before
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            assert wait_until(lambda: not any(map(is_alive, victims)))  # noqa: B023 - called at once
        assert future.result().status == "sandbox_error" and "died twice" in future.result().stderr
        assert executor.run("print(1)").status == "ok"


def test_unsealed_child_is_an_infrastructure_failure(altered):
    """A layer that does not hold: the program must not run, and must not be blamed."""
    altered(("os.setpgid(0, 0)", "raise OSError('refused')"))
    with Executor(workers=1, timeout=30.0) as executor:
        result = executor.run("print('ran')")
    assert (result.status, result.stdout, result.layers) == ("sandbox_error", "", ()) and "refused" in result.stderr


def test_close_leaves_nothing():
    """Each resumed or failed run in a notebook would otherwise leave a thread, zygotes and sleepers behind."""
    before, open_before = descendants(os.getpid()), len(os.listdir("/proc/self/fd"))
    executor = Executor(workers=2, timeout=60.0)
    assert executor.run("print(1)").status == "ok"
    futures = [executor.submit("import time; time.sleep(600)") for _ in range(6)]
    assert wait_until(lambda: any(descendants(pid) for pid in zygotes() - before))
    executor.close()
    executor.close()
    assert {future.result(timeout=0).status for future in futures} == {"sandbox_error"}
    assert descendants(os.getpid()) <= before and not executor._thread.is_alive()
    assert len(os.listdir("/proc/self/fd")) == open_before
    with pytest.raises(RuntimeError, match="closed"):
        executor.submit("print(1)")


def test_death_of_the_trainer_leaves_no_process():
    """A trainer that runs out of memory is killed without a word; its programs must not go on burning cores."""
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom executor import Executor\n" + (
        "Executor(workers=1, timeout=600).run('import time; time.sleep(600)')\n"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert wait_until(lambda: len(descendants(trainer.pid)) == 2)  # zygote and program
        family = descendants(trainer.pid)
    finally:
        trainer.kill()
        trainer.wait()
    assert wait_until(lambda: not any(map(is_alive, family)))


def test_the_trainer_has_one_copy_of_the_layers():
    """A zygote hides them from its programs; where the trainer did the same, it would load them a second time, and what
    is changed in one would not be changed in the other."""
    import sandbox
    import zygote

    assert zygote.sandbox is sandbox and executor_module.LAYERS is sandbox.LAYERS


def test_refuses_other_platforms(monkeypatch):
    """Without the kernel's help it would run programs unlimited."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RuntimeError, match="Linux"):
        Executor()


def test_command_line(tmp_path):
    """The first thing to try when a program behaves oddly in training."""
    program = tmp_path / "program.py"
    program.write_text("print(6 * 7)\n")
    command = [sys.executable, str(ROOT / "executor.py"), str(program)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "ok" in run.stdout and "42\n" in run.stdout and run.stderr == ""


def test_result_is_immutable():
    """One Result is shared by the episode, the log and the report."""
    with pytest.raises(AttributeError):
        Result("ok", "", "").status = "error"
