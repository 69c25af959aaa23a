"""A long run of programs, some of them hostile: is a result lost or swapped, does anything grow?

    python benchmarks/soak.py [--programs 100000] [--hostile 0.05] [--every 1000] [--seed 0] [--out FILE]
    python benchmarks/soak.py --programs 800 --every 100        does it work?

Sixteen programs run at a time and 64 are submitted. Each prints its own number before all else, so that a result can be
told from that of any other. After every thousand, all are awaited, then resident memory, open descriptors and processes
of the trainer and its zygotes are counted: nothing runs, so that what is more than before has leaked. (The descriptors
of a zygote can be counted by root, or with Linux 6.2.) The last line is a summary in JSON; exit code 1 if a result was
lost, wrong or a `sandbox_error`, if something grew, or if a process is left.
"""

import argparse
import contextlib
import json
import os
import platform
import queue
import random
import resource
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from executor import Executor, Result

WORKERS, WINDOW, TIMEOUT_S = 16, 64, 0.5
LOST_S = 120.0  # no program takes nearly as long: what has not come by then will not come
# What hostile programs do, the status they must end with, and what the last line of stderr must begin with.
HOSTILE = {
    "endless loop": ("while True: pass", "timeout", ""),
    "fork": ("import os; os.fork()", "error", "PermissionError"),
    "4 GB": ("bytearray(4 << 30)", "memory", "MemoryError"),
    "output flood": ("while True: print('x' * 1000)", "output", "OSError"),
    "os._exit": ("import os; os._exit(7)", "error", ""),
    "segfault": ("import ctypes; ctypes.string_at(0)", "signal", ""),
    "kill the parent": ("import os; os.kill(os.getppid(), 9)", "error", "PermissionError"),
    "connect": ("import socket; socket.create_connection(('127.0.0.1', 9), 1)", "error", "PermissionError"),
    "deep recursion": ("def f(): return f()\nf()", "error", "RecursionError"),
}
# What may grow between the medians of the first and the last quarter of the samples, and by least squares, a program;
# only what passes both has grown. No descriptor and no process is in use when they are counted: one more is a leak.
# Memory comes in pages that the allocators of nine processes keep: 2 MB are no sign of anything, and 100 bytes a
# program would be 100 MB in a million programs, which no machine that trains would miss.
MAY_GROW = {"memory_mb": 2.0, "descriptors": 0.0, "processes": 0.0}
MAY_GROW_A_PROGRAM = {"memory_mb": 100 / 2**20, "descriptors": 0.0, "processes": 0.0}


@dataclass(frozen=True)
class Sample:
    """The trainer and its descendants, between programs."""

    programs: int
    memory_mb: float
    descriptors: int
    processes: int


def descendants(pid: int | str) -> list[int]:
    """The process itself, its children, and theirs. Zombies count."""
    found = [int(pid)]
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(child)
    return found


def open_descriptors(pid: int) -> int:
    """How many it has; Linux 6.2 tells the number as the folder's size, to everybody."""
    return os.stat(f"/proc/{pid}/fd").st_size or len(os.listdir(f"/proc/{pid}/fd"))


def take_sample(programs: int) -> tuple[Sample, set[int]]:
    """A sample, and the numbers of the processes it counted."""
    pids, memory, descriptors = descendants(os.getpid()), 0, 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
            descriptors += open_descriptors(pid)
    return Sample(programs, memory / 2**20, descriptors, len(pids)), set(pids)


def draw(number: int, rate: float, generator: random.Random) -> tuple[str, str]:
    """The kind of a program, "" if it is benign, and the program."""
    if generator.random() >= rate:
        return "", f"print({number})\nprint({number} ** 2)"
    kind = generator.choice(list(HOSTILE))
    return kind, f"print({number}, flush=True)\n{HOSTILE[kind][0]}"


def verdict(number: int, kind: str, result: Result) -> str:
    """ok | late | sandbox_error | wrong. Late: on a busy machine a program ran out of time that should not have, or
    that should have said its number first."""
    if result.status == "sandbox_error":
        return "sandbox_error"
    status, error = HOSTILE[kind][1:] if kind else ("ok", "")
    own, last_line = f"{number}\n", result.stderr.rstrip().rpartition("\n")[2]
    if result.status == "timeout" and (status != "timeout" or result.stdout != own):
        return "late" if own.startswith(result.stdout) or result.stdout.startswith(own) else "wrong"
    belongs = result.stdout.startswith(own) if kind else result.stdout == f"{own}{number**2}\n"
    fits = result.status == status and last_line.startswith(error) and (kind != "os._exit" or result.exit_code == 7)
    return "ok" if belongs and fits else "wrong"


def growth(samples: list[Sample], name: str) -> dict[str, float]:
    """How a column of the samples changed from the first quarter to the last; `grew` is 1 if by more than it may."""
    values, quarter = [getattr(sample, name) for sample in samples], len(samples) // 4
    first, last = statistics.median(values[:quarter]), statistics.median(values[-quarter:])
    slope = statistics.linear_regression([sample.programs for sample in samples], values).slope
    grew = last - first > MAY_GROW[name] and slope > MAY_GROW_A_PROGRAM[name]
    per_million = round(slope * 1e6, 2)
    return {"first": round(first, 2), "last": round(last, 2), "slope_per_million": per_million, "grew": int(grew)}


def report(summary: dict) -> str:
    """The summary as Markdown."""
    s, options = summary, " ".join(f"--{name} {summary[name]}" for name in ("programs", "hostile", "every", "seed"))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    lines = [
        "\n## A long run\n",
        f"`python benchmarks/soak.py {options}` on {machine}; {WORKERS} programs at a time, {TIMEOUT_S} s each.\n",
        f"{s['programs']} programs, {s['hostile_programs']} of them hostile, in {s['seconds']:.0f} s: {s['per_s']:.0f} "
        f"per second. Lost: {s['lost']}; twice: {s['twice']}; wrong: {s['wrong']}; sandbox_error: "
        f"{s['sandbox_error']}. Out of time because the machine was busy: {s['late_benign']} benign, "
        f"{s['late_hostile']} hostile. Zygotes started: {s['zygotes']}; processes left at the end: {s['left']}.\n",
        "| | first quarter | last quarter | slope, a million programs | grew |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name in MAY_GROW:
        row = s[name]
        figures = f"{row['first']:g} | {row['last']:g} | {row['slope_per_million']:+g}"
        lines.append(f"| {name} | {figures} | {'yes' if row['grew'] else 'no'} |")
    lines += ["\n| hostile program | ended as |", "| --- | --- |"]
    for kind, ended in s["ended"].items():
        lines.append(f"| {kind} | {', '.join(f'{status} {count}' for status, count in ended.items())} |")
    return "\n".join([*lines, f"\nVerdict: {s['verdict']}."]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--hostile", type=float, default=0.05, help="share of hostile programs")
    parser.add_argument("--every", type=int, default=1000, help="programs from one sample to the next")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of programs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="append a summary in Markdown")
    arguments = parser.parse_args()
    if arguments.programs < 4 * arguments.every:
        parser.error("quarters take four samples: more --programs, or a smaller --every")
    generator = random.Random(arguments.seed)
    seen = bytearray(arguments.programs)  # how often each program came back
    verdicts, ended = Counter(), {kind: Counter() for kind in HOSTILE}
    arrived: queue.SimpleQueue[tuple[int, str, Future[Result]]] = queue.SimpleQueue()
    samples: list[Sample] = []
    submitted = outstanding = 0
    pids: set[int] = set()
    started = time.monotonic()
    with (
        Executor(workers=WORKERS, timeout=TIMEOUT_S) as executor,
        tqdm(total=arguments.programs, unit="program", smoothing=0.02) as progress,
    ):
        while submitted < arguments.programs or outstanding:
            # At a sample's turn, nothing is submitted until nothing is outstanding.
            due = submitted >= arguments.every * (len(samples) + 1)
            while not due and outstanding < WINDOW and submitted < arguments.programs:
                kind, code = draw(submitted, arguments.hostile, generator)
                future = executor.submit(code)
                future.add_done_callback(lambda future, n=submitted, kind=kind: arrived.put((n, kind, future)))
                submitted, outstanding = submitted + 1, outstanding + 1
                due = submitted >= arguments.every * (len(samples) + 1)
            if outstanding:
                try:
                    number, kind, future = arrived.get(timeout=LOST_S)
                except queue.Empty:
                    break
                outstanding -= 1
                seen[number] = min(255, seen[number] + 1)
                result = future.result()
                outcome = verdict(number, kind, result)
                verdicts[outcome, bool(kind)] += 1
                if kind:
                    ended[kind][result.status] += 1
                if outcome in ("wrong", "sandbox_error"):
                    tqdm.write(
                        f"program {number} ({kind or 'benign'}): {outcome}: {str(result)[:500]}", file=sys.stderr
                    )
                progress.update()
            if due and not outstanding:
                sample, found = take_sample(submitted)
                samples.append(sample)
                pids |= found
    seconds = time.monotonic() - started
    if len(samples) < 4:
        sys.exit(f"no result for {LOST_S:g} s: {seen.count(0, 0, submitted)} of {submitted} programs are lost")
    changes = {name: growth(samples, name) for name in MAY_GROW}
    summary = {
        **{name: getattr(arguments, name) for name in ("programs", "hostile", "every", "seed")},
        "hostile_programs": sum(sum(counts.values()) for counts in ended.values()),
        "seconds": round(seconds, 1),
        "per_s": round((submitted - outstanding) / seconds, 1),
        "lost": seen.count(0, 0, submitted),
        "twice": sum(count > 1 for count in seen),
        "wrong": verdicts["wrong", False] + verdicts["wrong", True],
        "sandbox_error": verdicts["sandbox_error", False] + verdicts["sandbox_error", True],
        "late_benign": verdicts["late", False],
        "late_hostile": verdicts["late", True],
        "zygotes": len(pids) - 1,
        "left": len(descendants(os.getpid())) - 1,
        **changes,
        "ended": {kind: dict(counts) for kind, counts in ended.items() if counts},
    }
    failed = [name for name in ("lost", "twice", "wrong", "sandbox_error", "left") if summary[name]]
    failed += [f"{name} grew" for name in changes if changes[name]["grew"]]
    summary["verdict"] = f"FAILED: {', '.join(failed)}" if failed else "nothing lost, wrong or grown"
    if arguments.out:
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(report(summary))
    print(json.dumps(summary))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
