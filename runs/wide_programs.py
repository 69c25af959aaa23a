"""Programs of the scripted teacher for tasks beyond the embedded ones: `WIDE`, in the shape of scripted.PROGRAMS.

    python runs/wide_programs.py --count 100 [--tasks maze,survo]

measures them: per task the share of right answers of the right programs, and of the wrong ones; tokens of the tiny
tokenizer (of the questions, of the right programs, of question and reply together, of the longest output); and the
seconds of the slowest program.

The tasks are those whose question is short (most have at most 230 tokens) and whose answer comes from one short
program of the standard library that is the same for every question, but for spans copied from it and one of a few
words. wide_numbers.py and wide_puzzles.py have the programs.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wide_numbers import NUMBERS
from wide_puzzles import PUZZLES

from cli import ROOT
from executor import Executor
from rollout import observation
from scripted import Programs
from tasks import get_task, problems

WIDE: dict[str, Callable[[str], Programs]] = dict(sorted({**NUMBERS, **PUZZLES}.items()))


def last_line(output: str) -> str:
    """What the teacher answers, given what its program printed."""
    return output.strip().split("\n")[-1].strip()


def measure(name: str, count: int, tokenizer: Any, executor: Executor) -> str:
    """A row of the table, with a note of the first failures."""
    task, pool = get_task(name), problems(name, "sft", count)
    programs = [WIDE[name](problem.question) for problem in pool]
    results = list(executor.map(p.right + "\n" for p in programs))
    size = lambda text: len(tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
    right, episodes, outputs, failures = 0, [], [], []
    for problem, p, result in zip(pool, programs, results, strict=True):
        answer = last_line(result.stdout)
        correct = result.status == "ok" and task.score(problem, answer)
        right += correct
        outputs.append(size(result.stdout))
        reply = f"I will compute it.\n```python\n{p.right}\n```{observation(result)}So <<<{answer}>>>"
        episodes.append(size(problem.question) + size(reply) + 4)
        if not correct:
            failures.append((result.status, answer, problem.answer, result.stderr[-300:], problem.question[-300:]))
    bad = [(problem, code) for problem, p in zip(pool, programs, strict=True) for code in p.wrong]
    ends = list(executor.map(code + "\n" for _, code in bad))
    lucky = sum(task.score(pr, last_line(e.stdout)) for (pr, _), e in zip(bad, ends, strict=True)) / len(bad)
    off = {code for (_, code), e in zip(bad, ends, strict=True) if e.status != "ok" or not e.stdout.strip()}
    bugs = [code for p in programs for code in p.buggy]
    off |= {code for code, e in zip(bugs, executor.map(bugs), strict=True) if e.status != "error"}
    questions, codes = [size(p.question) for p in pool], [size(p.right) for p in programs]
    row = (
        f"{name:24} {len(pool):5} {right / len(pool):6.2f} {lucky:6.2f} {median(questions):9.0f} {max(questions):4} "
        f"{sum(q <= 230 for q in questions) / len(pool):6.2f} {median(codes):8.0f} {max(codes):4} "
        f"{median(episodes):8.0f} {max(episodes):4} {sum(e <= 512 for e in episodes) / len(pool):6.2f} "
        f"{max(outputs):6} {max(r.wall_s for r in results):6.2f}"
    )
    notes = [f"  not right: {failure}" for failure in failures[:2]]
    notes += [f"  ends otherwise: {code!r}" for code in sorted(off)[:2]]
    return "\n".join([row, *notes])


def main() -> None:
    from checkpoint import load_bundle

    parser = argparse.ArgumentParser(description="Measure the programs for tasks beyond the embedded ones.")
    parser.add_argument("--count", type=int, default=100, help="problems of each task")
    parser.add_argument("--tasks", default=",".join(WIDE), help="comma-separated names, all by default")
    options = parser.parse_args()
    tokenizer = load_bundle(str(ROOT / "assets/tiny")).tokenizer
    print(f"{'task':24} count  right  lucky  question  max  <=230  program  max  episode  max  <=512 output  max s")
    with Executor(workers=1, timeout=30.0) as executor:
        for name in options.tasks.split(","):
            print(measure(name, options.count, tokenizer, executor), flush=True)


if __name__ == "__main__":
    main()
