"""Studies: arms trained from the same warm starts over several seeds, and judged on the same held-out problems.

    python runs/study.py demo                  the demo itself: mean and spread over seeds
    python runs/study.py baselines             GRPO against simpler methods, and with its parts taken away
    python runs/study.py ablations             the choices within GRPO, one at a time
    python runs/study.py tuning                what the defaults were chosen by: other seeds, other problems (dev)

Every run is a process of its own, `--jobs` at a time on one thread each, and what it costs is the CPU time that the
kernel has counted for it and its children. Runs lie in out/study, where studies find what others have run already
(those of ablations, with flags of their own, in out/study/ablations), and a study that was interrupted goes on where it
stopped. The table and the figure go to docs/studies/NAME.md and .svg,
every run's figures to NAME.json beside them.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COOLER = 0.6  # the temperature at which the paper evaluates; sampled replies are at 1 otherwise, as in training
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided, by the number of seeds
WARM, BASE = "warm start", "base"
MEASURED = "measured.jsonl"  # of measure.py with the same --problems_per_task


@dataclasses.dataclass(frozen=True)
class Study:
    arms: dict[str, str]  # name -> flags of grpo.py
    seeds: tuple[int, ...] = (0, 1, 2)
    split: str = "test"
    samples: int = 2  # sampled replies per problem
    reference: str = ""  # the arm that the others are compared with
    common: str = ""  # flags of all arms
    cooler: bool = True  # whether to evaluate at COOLER too


REJECTION = "--method rejection"
STUDIES = {
    "demo": Study({"GRPO": ""}),
    "baselines": Study(
        {
            "GRPO": "",
            "rejection sampling": REJECTION,
            "rewards shuffled": "--shuffle_rewards true",
            "observations not masked": "--mask_observations false",
            "no warm start": "--model assets/tiny",
            "GRPO, tuned": "--advantage group_mean --temperature 1.3",
            "rejection sampling, tuned": f"{REJECTION} --temperature 1.3",
        },
        reference="GRPO",
    ),
    "ablations": Study(
        {
            "GRPO": "",
            "preset: grpo": "--preset grpo",
            "preset: dr_grpo": "--preset dr_grpo",
            "preset: gspo": "--preset gspo",
            "preset: cispo": "--preset cispo",
            "preset: reinforce_pp": "--preset reinforce_pp",
            "advantage: group_mean": "--advantage group_mean",
            "advantage: rloo": "--advantage rloo",
            "advantage: batch": "--advantage batch",
            "aggregation: sequence": "--aggregation sequence",
            "aggregation: constant": "--aggregation constant",
            "group size 2": "--group_size 2 --prompts_per_step 64",
            "group size 4": "--group_size 4 --prompts_per_step 32",
            "group size 16": "--group_size 16 --prompts_per_step 8",
            "KL 0.001": "--kl 0.001",
            "KL 0.01": "--kl 0.01",
            "curriculum: potential": "--curriculum potential --measured {measured}",
            "curriculum: difficulty": "--curriculum difficulty --measured {measured}",
            "curriculum: online": "--curriculum online --measured {measured}",
            "code runs: 1": "--max_code_runs 1",
            "code runs: 3": "--max_code_runs 3",
            "RL on the problems of SFT": "--split sft",
            "1 update per rollout": "--updates_per_step 1",
            "4 updates per rollout": "--updates_per_step 4",
        },
        reference="GRPO",
        common="--problems_per_task 60",  # so few that their potential can be measured in minutes; none comes twice
        cooler=False,
    ),
    "tuning": Study(
        {
            "GRPO": "",
            "GRPO, rate 2e-4": "--learning_rate 2e-4",
            "GRPO, rate 8e-4": "--learning_rate 8e-4",
            "GRPO, decay": "--schedule wsd",
            "GRPO, 4 updates": "--updates_per_step 4",
            "GRPO, mean": "--advantage group_mean",
            "GRPO, mean, T 1.3": "--advantage group_mean --temperature 1.3",
            "GRPO, mean, 60 steps": "--advantage group_mean --steps 60",
            "rejection": REJECTION,
            "rejection, rate 8e-4": f"{REJECTION} --learning_rate 8e-4",
            "rejection, rate 1.6e-3": f"{REJECTION} --learning_rate 1.6e-3",
            "rejection, T 1.3": f"{REJECTION} --temperature 1.3",
            "rejection, 60 steps": f"{REJECTION} --steps 60",
        },
        seeds=(10, 11),
        split="dev",
        reference="GRPO",
    ),
}

# --------------------------------------------------------------------------------------------------------------------
# running


def cpu_seconds(command: Sequence[str], log: Path) -> float:
    """Runs a command with its output in `log`; returns the CPU time of it and of all its children."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = (log.read_text().strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"{' '.join(command)} failed ({log}): {last}")
    return usage.ru_utime + usage.ru_stime


def beside(folder: Path, ending: str) -> Path:
    """The file of this folder's name and an ending; `with_suffix` would cut "T-1.3-10" at its dot."""
    return folder.with_name(folder.name + ending)


def done_once(record: Path, key: str, work: Callable[[], dict]) -> dict:
    """What `work()` gave: from `record`, if an earlier call with the same key has come to its end."""
    if record.exists() and (stored := json.loads(record.read_text()))["key"] == key:
        return stored
    value = {"key": key, **work()}
    temporary = record.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.rename(record)
    return value


class Runs:
    """The runs of one study. Every method returns figures and is safe to call from several threads."""

    def __init__(self, study: Study, folder: Path):
        self.study, self.folder = study, folder
        self.held_out = f"--split {study.split} --samples {study.samples} --show 0"
        self.cooler = f"{self.held_out} --temperature {COOLER}"
        self.locks = {seed: threading.Lock() for seed in study.seeds}  # of the warm start, and of its measurement

    def arm(self, name: str, seed: int) -> dict:
        """Trains and evaluates one arm; the base model is only evaluated."""
        if name == BASE:
            return self._once(name, seed, "", "")
        with self.locks[seed]:
            warm = self._once(WARM, seed, "sft.py", "")
        if name == WARM:
            return warm
        flags = f"{self.study.common} {self.study.arms[name]}".strip()
        if "{measured}" in flags:
            with self.locks[seed]:
                flags = flags.format(measured=self._measured(seed, warm["checkpoint"]))
        return self._once(name, seed, "grpo.py", f"--model {warm['checkpoint']} {flags}")

    def _measured(self, seed: int, checkpoint: str) -> Path:
        out = self.folder / f"measured-{seed}"
        command = [sys.executable, "measure.py", "--model", checkpoint, "--out", str(out), "--seed", str(seed)]
        cpu_seconds([*command, *self.study.common.split()], beside(out, ".log"))  # one that is done takes seconds
        return out / MEASURED

    def _once(self, name: str, seed: int, script: str, flags: str) -> dict:
        folder = self.folder / f"{'-'.join(name.replace(',', '').replace(':', '').split())}-{seed}"
        flags = f"--seed {seed} {flags}"
        key = f"{script} {flags}; {self.held_out}" + (f"; {self.cooler}" if self.study.cooler else "")
        return done_once(beside(folder, ".json"), key, lambda: self._run(script, folder, flags, seed))

    def _run(self, script: str, folder: Path, flags: str, seed: int) -> dict:
        if not script:
            return self._evaluated(ROOT / "assets/tiny", folder, seed)
        command = [sys.executable, script, "--out", str(folder), *flags.split()]
        seconds = cpu_seconds(command, beside(folder, ".log"))
        metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        keys = ("accuracy", "code_use", "seconds/cpu")
        curve = {key: [line[key] for line in metrics] for key in keys if key in metrics[0]}
        figures = self._evaluated(folder / "checkpoint", folder, seed)
        return {"checkpoint": str(folder / "checkpoint"), "cpu_seconds": seconds, "curve": curve, **figures}

    def _evaluated(self, checkpoint: Path, folder: Path, seed: int) -> dict:
        warm, seconds = self._overall(checkpoint, folder, f"--seed {seed} {self.held_out}")
        figures = {
            "sampled": warm["sampled"]["accuracy"],
            "greedy": warm["greedy"]["accuracy"],
            "code_use": warm["sampled"]["code_use"],
            "problems": warm["sampled"]["problems"],
        }
        if self.study.cooler:
            cool, more = self._overall(
                checkpoint, folder.with_name(f"{folder.name}-cooler"), f"--seed {seed} {self.cooler}"
            )
            figures["cooler"], seconds = cool["sampled"]["accuracy"], seconds + more
        return {"evaluation_cpu_seconds": seconds, **figures}

    def _overall(self, checkpoint: Path, folder: Path, flags: str) -> tuple[dict, float]:
        out = folder.with_name(f"{folder.name}-{self.study.split}")
        command = [sys.executable, "evaluate.py", "--model", str(checkpoint), "--out", str(out), *flags.split()]
        seconds = cpu_seconds(command, beside(out, ".log"))
        (results,) = json.loads((out / "evaluation.json").read_text())["results"].values()
        return {decoding: figures["overall"] for decoding, figures in results.items()}, seconds


def run_study(study: Study, folder: Path, jobs: int) -> dict[str, dict[int, dict]]:
    """All figures: arm -> seed -> figures. Warm starts come first in each, since all else waits for them."""
    runs = Runs(study, folder)
    names = [BASE, WARM, *study.arms]
    with ThreadPoolExecutor(jobs) as pool:
        work = {(name, seed): pool.submit(runs.arm, name, seed) for seed in study.seeds for name in [WARM, *names]}
        results: dict[str, dict[int, dict]] = {}
        try:
            for (name, seed), future in work.items():
                figures = results.setdefault(name, {})[seed] = future.result()
                scores = f"sampled {figures['sampled']:.3f}  greedy {figures['greedy']:.3f}"
                print(f"{name:26} seed {seed}  {scores}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or every arm would try the warm start that has failed
            raise
    return {name: results[name] for name in names}


# --------------------------------------------------------------------------------------------------------------------
# writing


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the 95 % interval of Student's t."""
    if len(values) < 2:
        return statistics.mean(values), math.inf
    return statistics.mean(values), T_95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))


def table(study: Study, results: dict[str, dict[int, dict]]) -> str:
    """Markdown, a row per arm: means over seeds, the seeds' own figures in brackets. "While training" is the mean over
    all steps of what was sampled: of two arms that end alike, the one that learnt faster has more."""

    def cell(figures: dict[int, dict], key: str) -> str:
        values = [figures[seed][key] for seed in study.seeds]
        return f"{statistics.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"

    compared = [f"sampled, minus {study.reference}"] if study.reference else []
    columns = {"sampled": "sampled", "cooler": f"at temperature {COOLER}", "greedy": "greedy", "code_use": "code use"}
    if not study.cooler:
        del columns["cooler"]
    head = ["", *columns.values(), "while training", "CPU s of training", *compared]
    rows = []
    for name, figures in results.items():
        seconds = [figures[seed].get("cpu_seconds", 0) for seed in study.seeds]
        cost = f"{statistics.mean(seconds):.0f} ({min(seconds):.0f}-{max(seconds):.0f})" if any(seconds) else ""
        curves = [figures[seed].get("curve", {}).get("accuracy") for seed in study.seeds]
        learning = f"{statistics.mean(map(statistics.mean, curves)):.3f}" if all(curves) else ""
        row = [name, *(cell(figures, key) for key in columns), learning, cost]
        if compared:
            other = results[study.reference]
            differences = [figures[seed]["sampled"] - other[seed]["sampled"] for seed in study.seeds]
            middle, half = mean_and_half_width(differences)
            row.append("" if name == study.reference else f"{middle:+.3f} ± {half:.3f}")
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def figure(study: Study, results: dict[str, dict[int, dict]], path: Path) -> None:
    """Accuracy on the problems of each step against CPU time, unless there are too many arms to tell apart; held-out
    accuracy with every seed."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "study", "font.size": 9})
    many = len(study.arms) > 10
    if many:
        fig, right = pyplot.subplots(figsize=(7, 0.6 + 0.2 * len(study.arms)), layout="constrained")
        left = None
    else:
        fig, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.8), width_ratios=(3, 2), layout="constrained")
    kinds = dict.fromkeys(name.split(":")[0] if many else name for name in study.arms)
    colours = dict(zip(kinds, itertools.cycle(pyplot.get_cmap("tab10").colors), strict=False))
    colours = {name: colours[name.split(":")[0] if many else name] for name in study.arms}
    for name in study.arms if left else ():
        for seed in study.seeds:
            curve = results[name][seed]["curve"]
            smooth = [statistics.mean(curve["accuracy"][max(0, i - 2) : i + 1]) for i in range(len(curve["accuracy"]))]
            label = name if seed == study.seeds[0] else None
            left.plot(curve["seconds/cpu"], smooth, color=colours[name], label=label, linewidth=1.2, alpha=0.85)
    if left:
        left.set(xlabel="CPU seconds of training", ylabel="right, sampled (mean of 3 steps)", ylim=(0, 1))
        left.legend(frameon=False, fontsize=8)
    names = list(study.arms if many else results)
    for place, name in enumerate(reversed(names)):
        values = [results[name][seed]["sampled"] for seed in study.seeds]
        right.plot(values, [place] * len(values), "o", color=colours.get(name, "grey"), alpha=0.7)
        right.plot([statistics.mean(values)], [place], "|", color="black", markersize=16)
    right.set(xlabel="held-out problems right, sampled", yticks=range(len(names)))
    if not many:
        right.set_xlim(-0.02, 1)
    right.set_yticklabels(list(reversed(names)))
    for axes in (left, right) if left else (right,):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--arms", nargs="+", help="only these, and nothing is written to docs/")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    if arguments.jobs < 1:
        parser.error("--jobs must be at least 1")
    if arguments.arms:
        if unknown := [name for name in arguments.arms if name not in study.arms]:
            parser.error(f"no arm {unknown[0]!r}: one of {', '.join(study.arms)}")
        study = dataclasses.replace(study, arms={name: study.arms[name] for name in arguments.arms}, reference="")
    folder = ROOT / "out/study" / (arguments.study if study.common else "")
    results = run_study(study, folder, arguments.jobs)
    text = table(study, results)
    print(f"\n{text}")
    if not arguments.arms:
        target = ROOT / "docs/studies" / arguments.study
        figure(study, results, target.with_suffix(".svg"))
        problems = results[BASE][study.seeds[0]]["problems"]
        seeds = ", ".join(map(str, study.seeds))
        about = (
            f"`python runs/study.py {arguments.study}`: {problems} problems of the split {study.split}, "
            f"{study.samples} sampled and one greedy reply each; seeds {seeds}. In brackets, every seed's figure (of "
            "CPU seconds, the range); behind ±, half of the 95 % interval of Student's t over seeds, paired by "
            "warm start."
        )
        given = {name: f"{study.common} {flags}".strip() for name, flags in study.arms.items()}
        flags = "\n".join(
            f"- {name}: `grpo.py {flags}`".replace(" `grpo.py `", " the defaults").replace("{measured}", MEASURED)
            for name, flags in given.items()
        )
        target.with_suffix(".md").write_text(f"{about}\n\n{text}\n\n{flags}\n\n![curves]({target.name}.svg)\n")
        kept = {
            n: {s: {k: v for k, v in f.items() if k not in ("checkpoint", "key")} for s, f in fs.items()}
            for n, fs in results.items()
        }
        target.with_suffix(".json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
