"""Warm-start trajectories: a scripted teacher for the tasks of the embedded default.

    python scripted.py --out out/teacher.jsonl --count 7000 --seed 0

The teacher knows a program for each task, which it also gets wrong on purpose. Its trajectories come in four kinds, in
the proportions of `MIX`:

    ok      a correct program, its output reported
    text    the right answer stated without code, which a small student cannot compute and so learns to guess
    bad     a wrong program, its output reported (now and then it is right by accident)
    bug     a program that raises, then the correct one, its output reported

Every program is really executed, and every program binds the question's own words (`x = 641, 595`): copying is
what a small student can learn.

Differs from the paper: its teacher is GPT-4o, and it keeps only correct trajectories. Here the wrong ones stay, so that
a student that imitates the mixture is right less than half of the time and reinforcement learning has something to
choose from; taught by right programs alone, a small student would solve these tasks before it begins.

Besides what every trajectory has (see trajectories.py), they name their kind. One seed gives one file, byte for byte
(on one version of Python: tracebacks are quoted).
"""

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cli import check_out, run_main, user_input
from executor import Executor, Result, SandboxError, check_sandbox
from rollout import observation
from suites.base import Problem
from tasks import get_task, problems, resolve
from trajectories import write_trajectories

MIX = {"ok": 0.25, "text": 0.38, "bad": 0.22, "bug": 0.15}

PROGRAM_LEADS = ("I will compute it.", "That failed. Fix it.")
TEXT_LEADS = ("I can see it:", "The answer is")
CHUNK = 500  # programs between two ticks of the progress bar

# ---------------------------------------------------------------------------------------------------------------------
# Programs. A string is bound with a space in front (`s = " word"`), so that it is cut into the same tokens as in the
# question, where a space precedes it too: what is cut differently cannot be copied token by token.


@dataclass(frozen=True)
class Programs:
    """What the teacher may write for one question: the right program, wrong ones, and ones that raise."""

    right: str
    wrong: tuple[str, ...]
    buggy: tuple[str, ...]


def _parts(pattern: str, question: str) -> tuple[str, ...]:
    match = re.search(pattern, question, re.DOTALL)
    if match is None:
        raise ValueError(f"the teacher cannot read the question {question!r}")
    return match.groups()


def _basic_arithmetic(question: str) -> Programs:
    (span,) = _parts(r"Calculate (.*)\.$", question)
    x = f"x = {span}\n"
    return Programs(
        right=x + "print(int(x))",
        wrong=(x + "print(abs(x) + 1)", x + "print(-int(x) - 1)"),
        buggy=(x + "print(integer(x))", x + "print(x.int())"),
    )


def _chain_sum(question: str) -> Programs:
    (span,) = _parts(r"problem: (.*) =$", question)
    x = f"x = {span}\n"
    return Programs(
        right=x + "print(x)",
        wrong=(x + "print(abs(x) + 1)", x + "print(-x - 1)"),
        buggy=(x + "print(sum(x))",),
    )


def _products(question: str) -> Programs:
    (span,) = _parts(r"multiplication: (.*)\. Give", question)
    x = f"x = {span}\n"
    return Programs(
        right=x + "print(x)",
        wrong=(x + "print(x + 1)", x.replace("*", "+") + "print(x)"),
        buggy=(x + "print(prod(x))",),
    )


def _gcd(question: str) -> Programs:
    (span,) = _parts(r"numbers: (.*)\. Give", question)
    x = f"x = {span}\n"
    return Programs(
        right="import math\n" + x + "print(math.gcd(*x))",
        wrong=(x + "print(min(x))", x + "print(abs(x[0] - x[1]))"),
        buggy=(x + "print(gcd(*x))",),
    )


def _lcm(question: str) -> Programs:
    (span,) = _parts(r"numbers: (.*)$", question)
    x = f"x = {span}\n"
    return Programs(
        right="import math\n" + x + "print(math.lcm(*x))",
        wrong=(x + "print(sum(x))", x + "print(max(x))"),
        buggy=(x + "print(lcm(*x))",),
    )


def _count_bits(question: str) -> Programs:
    (span,) = _parts(r"number (\d+)\?$", question)
    x = f"x = {span}\n"
    return Programs(
        right=x + 'print(bin(x).count("1"))',
        wrong=(x + "print(len(bin(x)))", x + 'print(str(x).count("1"))'),
        buggy=(x + 'print(x.count("1"))',),
    )


def _count_primes(question: str) -> Programs:
    low, high = _parts(r"between (\d+) and (\d+) ", question)
    bounds = f"a = {low}\nb = {high}\n"
    prime = "n > 1 and all(n % d for d in range(2, int(n ** .5) + 1))"
    return Programs(
        right=bounds + f"print(sum({prime} for n in range(a, b + 1)))",
        wrong=(bounds + "print(b - a)", bounds + "print(sum(n % 2 for n in range(a, b + 1)))"),
        buggy=(bounds + "print(primes(a, b))",),
    )


def _spell_backward(question: str) -> Programs:
    (span,) = _parts(r"nus\): (.*)$", question)
    s = f's = " {span}"\n'
    return Programs(
        right=s + "print(s.strip()[::-1])",
        wrong=(s + "print(s.strip())", s + "print(s[-2::-1])"),
        buggy=(s + "print(s.reverse())",),
    )


def _letter_counting(question: str) -> Programs:
    letter, span = _parts(r'letter "(.)" appear in the text: "(.*)"\?$', question)
    s = f's = "{span}"\n'  # behind a quote in the question, so no space here
    return Programs(
        right=s + f'print(s.lower().count("{letter}"))',
        wrong=(s + "print(len(s))", s + f'print(s.find("{letter}"))'),
        buggy=(s + f'print(count(s, "{letter}"))',),
    )


def _simple_equations(question: str) -> Programs:
    (span,) = _parts(r": (.*)$", question)
    s = f's = " {span}"\n'
    search = (
        'a, b = re.sub("[a-z]", "v", s).split("=")\n'  # a variable copied once is copied right more often
        "for v in range(101):\n"
        " if eval(a) == eval(b): print(v)"
    )
    return Programs(
        right="import re\n" + s + search,
        wrong=(s + "print(len(s))", s + 'print(s.split("=")[1])'),
        buggy=(s + search,),
    )


def _prime_factorization(question: str) -> Programs:
    (span,) = _parts(r"factorization of (\d+)\.", question)
    divide = "while n > 1:\n if n % d: d += 1\n else:\n  f.append(str(d))\n  n //= d\n"
    n = f"n = {span}\nf = []\nd = 2\n"
    return Programs(
        right=n + divide + 'print(" × ".join(f))',
        wrong=(n + divide + "print(f)", n + divide + "print(d + 1)"),
        buggy=(n + divide.replace("str(d)", "d") + 'print(" × ".join(f))',),
    )


PROGRAMS: dict[str, Callable[[str], Programs]] = {
    "basic_arithmetic": _basic_arithmetic,
    "chain_sum": _chain_sum,
    "count_bits": _count_bits,
    "count_primes": _count_primes,
    "gcd": _gcd,
    "lcm": _lcm,
    "letter_counting": _letter_counting,
    "prime_factorization": _prime_factorization,
    "products": _products,
    "simple_equations": _simple_equations,
    "spell_backward": _spell_backward,
}

# ---------------------------------------------------------------------------------------------------------------------
# Trajectories


@dataclass(frozen=True)
class _Plan:
    """A trajectory before its programs have run."""

    problem: Problem
    kind: str
    codes: tuple[str, ...]
    answer_lead: str


def _plan(problem: Problem, mix: Mapping[str, float], rng: random.Random) -> _Plan:
    programs = PROGRAMS[problem.task](problem.question)
    kind = rng.choices(list(mix), list(mix.values()))[0]
    codes = {
        "ok": (programs.right,),
        "text": (),
        "bad": (rng.choice(programs.wrong),),
        "bug": (rng.choice(programs.buggy), programs.right),
    }[kind]
    return _Plan(problem, kind, codes, "So" if codes else rng.choice(TEXT_LEADS))


def _run(codes: list[str], executor: Executor) -> list[Result]:
    results: list[Result] = []
    with tqdm(total=len(codes), desc="programs", disable=None) as bar:  # None: only on a terminal
        for start in range(0, len(codes), CHUNK):
            results += executor.map(codes[start : start + CHUNK])
            bar.update(len(results) - bar.n)
    return results


def _trajectory(plan: _Plan, results: list[Result], fallible: bool) -> dict[str, Any] | None:
    problem, where = plan.problem, f"{plan.problem.task} {plan.problem.index}, kind {plan.kind}"
    segments = [{"text": problem.question, "source": "prompt"}]
    for turn, (code, result) in enumerate(zip(plan.codes, results, strict=True)):
        expected = "error" if plan.kind == "bug" and turn == 0 else "ok"
        if result.status in ("timeout", "sandbox_error"):
            reason = " ".join(result.stderr.split()) or "is the machine overloaded?"
            raise SandboxError(f"{where}: program {turn + 1} ended as {result.status}: {reason}")
        if result.status != expected:
            report = f"ended as {result.status}, not {expected}:\n{code}\n{result.stderr}"
            raise RuntimeError(f"{where}: program {turn + 1} {report}")
        segments.append({"text": f"{PROGRAM_LEADS[turn]}\n```python\n{code}\n```", "source": "model"})
        segments.append({"text": observation(result), "source": "observation"})
    answer = results[-1].stdout.strip().split("\n")[-1].strip() if results else problem.answer
    segments.append({"text": f"{plan.answer_lead} <<<{answer}>>>", "source": "model"})
    correct = bool(get_task(problem.task).score(problem, answer))
    if plan.kind != "bad" and not correct:
        if fallible:
            return None
        raise RuntimeError(f"{where}: answers {answer!r} where {problem.answer!r} is right")
    return {
        "task": problem.task,
        "index": problem.index,
        "kind": plan.kind,
        "correct": correct,
        "segments": segments,
    }


def check_tasks(names: list[str]) -> None:
    """ValueError if the teacher has no programs for one of these tasks."""
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise ValueError(f"no scripted programs for {', '.join(unknown)}; there are for {', '.join(PROGRAMS)}")


def compose(
    names: list[str],
    count: int,
    seed: int,
    executor: Executor,
    mix: Mapping[str, float] = MIX,
    fallible: Container[str] = (),
) -> list[dict[str, Any]]:
    """`count` trajectories, the tasks taking turns, on problems of the split "sft".

    A task's problems are all different until its pool is used up; then they come again, each time with a fate of
    their own. Raises ValueError on a task without programs, and RuntimeError if a program does not end as its kind
    demands: such a trajectory would teach something else than it says. Of `fallible` tasks, whose right programs guess
    wrongly now and then, those trajectories are left out.
    """
    check_tasks(names)
    if unknown := mix.keys() - MIX.keys():
        raise ValueError(f"unknown kind {', '.join(sorted(unknown))}; kinds are {', '.join(MIX)}")
    per_task = -(-count // len(names))
    pools = {name: problems(name, "sft", per_task) for name in names}
    plans = []
    for number in range(count):
        turn, name = number // len(names), names[number % len(names)]
        # Seeded by text, so that a trajectory does not depend on which tasks stand beside it.
        rng = random.Random(f"{seed} {name} {turn}")
        plans.append(_plan(pools[name][turn % len(pools[name])], mix, rng))
    # What is run is the content of the fence, which ends with a newline: tracebacks show the difference.
    results = iter(_run([code + "\n" for plan in plans for code in plan.codes], executor))
    made = [_trajectory(plan, [next(results) for _ in plan.codes], plan.problem.task in fallible) for plan in plans]
    return [trajectory for trajectory in made if trajectory is not None]


# ---------------------------------------------------------------------------------------------------------------------
# Command line


def summary(trajectories: list[dict[str, Any]]) -> str:
    """A table: per task the number of trajectories, the share of each kind, and the share correct."""
    by_task = defaultdict(list)
    for trajectory in trajectories:
        by_task[trajectory["task"]].append(trajectory)
    rows = [f"{'task':24} {'count':>6}" + "".join(f" {kind:>5}" for kind in MIX) + "  correct"]
    for name, group in [*by_task.items(), ("all", trajectories)]:
        kinds = Counter(trajectory["kind"] for trajectory in group)
        shares = "".join(f" {kinds[kind] / len(group):5.2f}" for kind in MIX)
        correct = sum(trajectory["correct"] for trajectory in group) / len(group)
        rows.append(f"{name:24} {len(group):6}{shares}  {correct:7.2f}")
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> None:
    """Write a file of trajectories and print what is in it."""
    parser = argparse.ArgumentParser(description="Write warm-start trajectories of the scripted teacher.")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines file to write")
    parser.add_argument("--count", type=int, default=7000, help="trajectories in all")
    parser.add_argument("--seed", type=int, default=0, help="chooses kinds, programs and phrases")
    parser.add_argument("--tasks", default="embedded", help="comma-separated tasks or suites")
    parser.add_argument("--best_effort", action="store_true", help="run programs even where the sandbox does not hold")
    options = parser.parse_args(argv)
    if options.count < 1:
        parser.error("--count must be at least 1")
    check_out(options.out.parent)
    if options.out.exists() and not options.out.is_file():  # renaming over /dev/null would do harm
        parser.error(f"--out {options.out} is no file")
    with user_input():
        names = resolve(options.tasks)
        check_tasks(names)
    check_sandbox(options.best_effort)
    with Executor(best_effort=options.best_effort) as executor:
        trajectories = compose(names, options.count, options.seed, executor)
    write_trajectories(trajectories, options.out)
    print(summary(trajectories))


if __name__ == "__main__":
    run_main(main)
