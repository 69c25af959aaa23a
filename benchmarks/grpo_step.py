"""What a step of GRPO costs: ours against the GRPOTrainer of Hugging Face's TRL, with the same weights and prompts.

    python -m venv trl && trl/bin/pip install trl                   # an environment of its own; torch as in ours
    python benchmarks/grpo_step.py --trl_python trl/bin/python [--models tiny 30m] [--rounds 5] [--threads 2]

Sixteen questions of the embedded tasks, eight samples each, fp32, one update on all of them. Weights are random, so
what is sampled is noise, and how long it becomes is forced: as many tokens per episode in both, 16 to 140 of them. With
tools, every episode also writes the same program in the middle: TRL's tool is Python started by `subprocess.run`, ours
is the executor with its sandbox. Half of each group is rewarded.

Two processes take turns, step by step, so that a busy machine hurts both alike; the first step of each warms up. TRL
has its own settings but for gradient checkpointing, which is off (it would only be slower), and the fused optimizer.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

GROUPS, GROUP_SIZE, SHORTEST, LONGEST = 16, 8, 16, 140
PROGRAM = "\n```python\nprint(6 * 7)\n```"
FREE = -1  # in a list of forced tokens: whatever is sampled, but for special tokens and what could end a fence
SIZES = {
    "tiny": {},
    "30m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8},
}


def lengths(step: int) -> list[tuple[int, int]]:
    """For every episode of a step, how many tokens it samples before the program and after it (or before and after
    nothing, if there are no tools); the end token is the last."""
    r = random.Random(step)
    totals = [r.randint(SHORTEST, LONGEST) for _ in range(GROUPS * GROUP_SIZE)]
    return [(total // 2, total - total // 2 - 1) for total in totals]


def reward(episode: int) -> float:
    """Of an episode, by its number."""
    return float(episode % 2)


def report(ready: Callable[[], Iterator[dict[str, Any]]]) -> None:
    """The far side of a `Worker`: one step, and a line of figures about it, for every line that comes in."""
    for figures in ready():
        figures["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print("\n@" + json.dumps(figures), flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# ours


def ours(folder: str, tools: bool) -> Iterator[dict[str, Any]]:
    import generator
    from executor import Executor
    from grpo import GRPOArguments, update
    from rollout import Rollout, observation, observation_tokens, prompt_tokens
    from sampling import sampling_key
    from training import Policy, start_processes

    start_processes()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    sizes = {"slots": GROUPS * GROUP_SIZE, "micro_batch_tokens": 4096, "max_reply_tokens": 512}
    settings = GRPOArguments(model=folder, updates_per_step=1, max_code_runs=1, deterministic=False, **sizes)
    policy, drawn = Policy(folder, settings.learning_rate), questions()
    tokenizer, end = policy.bundle.tokenizer, policy.bundle.end_id
    program = tokenizer.encode(PROGRAM)
    banned = torch.tensor(unwanted(tokenizer))
    prompts = [len(prompt_tokens(tokenizer, problem.question, "bare")) for problem in drawn]
    sample, uniforms = generator.sample, generator.uniforms

    with Executor() as executor:
        result = executor.submit(PROGRAM.split("\n")[2]).result()
        seen = len(observation_tokens(tokenizer, observation(result), settings.max_observation_tokens))
        rollout, asked = Rollout(policy.bundle, executor, settings), []
        for step, _ in enumerate(sys.stdin):
            keys, order = torch.tensor([sampling_key(0, step, i) for i in range(GROUPS * GROUP_SIZE)]).sort()
            table = torch.full((GROUPS * GROUP_SIZE, 1024), FREE)
            for i, (before, after) in enumerate(lengths(step)):
                at = prompts[i // GROUP_SIZE] + before
                if tools:
                    table[i, at : at + len(program)] = torch.tensor(program)
                    at += len(program) + seen
                table[i, at + after] = end

            def forced(logits: Tensor, *rest, table=table, keys=keys, order=order) -> tuple[Tensor, Tensor]:
                rows, positions = asked.pop()
                logits[:, banned] = -torch.inf
                tokens, logprobs = sample(logits, *rest)
                wanted = table[order[torch.searchsorted(keys, rows)], positions]
                return torch.where(wanted == FREE, tokens, wanted), logprobs

            generator.uniforms = lambda rows, positions: asked.append((rows, positions)) or uniforms(rows, positions)
            generator.sample = forced
            times = [time.perf_counter()]
            episodes, _ = rollout(drawn, GROUP_SIZE, 1.0, step)
            times.append(time.perf_counter())
            for episode in episodes:
                episode.advantage = 2 * reward(episode.id) - 1
            update(policy, episodes, settings, step, None)
            policy.sync()
            times.append(time.perf_counter())
            yield {
                "rollout": times[1] - times[0],
                "update": times[2] - times[1],
                "sampled": sum(int(episode.sampled.sum()) for episode in episodes),
                "programs": sum(turn.result.stdout == "42\n" for e in episodes for turn in e.turns if turn.result),
            }


# ---------------------------------------------------------------------------------------------------------------------
# TRL

TEMPLATE = """\
{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}\
{% for call in m['tool_calls'] or [] %}{{ call['function']['name'] }} {{ call['function']['arguments'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
RESPONSES = {  # a program in a fence is a call of the tool
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open": "```python\n",
            "close_pattern": "```",
            "repeats": True,
            "content": "text",
            "transform": {"type": "function", "function": {"name": "python", "arguments": {"code": "{content}"}}},
        },
        "content": {"close_pattern": r"<\|im_end\|>\s*", "content": "text"},
    },
}


def python(code: str) -> str:
    """Runs a program.

    Args:
        code: Python.

    Returns:
        What it printed.
    """
    python.runs += 1
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=10)
    return done.stdout + done.stderr


def trl(folder: str, tools: bool) -> Iterator[dict[str, Any]]:
    """Yields from inside the training loop: by a thread that runs it."""
    import queue
    import threading

    from datasets import Dataset
    from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, RESPONSES
    banned, end, program = torch.tensor(unwanted(tokenizer)), tokenizer.eos_token_id, tokenizer.encode(PROGRAM)
    asked, python.runs = json.loads(os.environ["QUESTIONS"]), 0
    state = {"step": 0, "turn": 0}
    figures: queue.Queue[dict[str, Any]] = queue.Queue()

    class Forced(LogitsProcessor):
        """One turn's tokens."""

        def __init__(self, prompt: int, turn: int):
            self.prompt = prompt
            self.table = torch.full((GROUPS * GROUP_SIZE, 512), FREE)
            for i, (before, after) in enumerate(lengths(state["step"])):
                if tools and not turn:
                    self.table[i, before : before + len(program)] = torch.tensor(program)
                    self.table[i, before + len(program)] = end
                else:
                    self.table[i, after if tools else before + after] = end

        def __call__(self, tokens, scores):
            wanted = self.table[:, tokens.shape[1] - self.prompt]
            scores[:, banned] = -torch.inf
            rows = (wanted != FREE).nonzero()[:, 0]
            scores[rows] = -torch.inf
            scores[rows, wanted[rows]] = 0.0
            return scores

    class Paced(TrainerCallback):
        def on_step_begin(self, *_, **__):
            if not sys.stdin.readline():
                os._exit(0)
            state.update(turn=0, rollout=0.0, sampled=0, runs=python.runs, began=time.perf_counter())

        def on_step_end(self, *_, **__):
            seconds = time.perf_counter() - state["began"]
            more = {"sampled": state["sampled"], "programs": python.runs - state["runs"]}
            figures.put({"rollout": state["rollout"], "update": seconds - state["rollout"], **more})
            state["step"] += 1

    class Watched(GRPOTrainer):
        def _generate(self, prompts):
            began = time.perf_counter()
            found = super()._generate(prompts)
            state["rollout"] = time.perf_counter() - began
            return found

        def _generate_single_turn(self, prompt_ids, *arguments, **named):
            ids, logprobs = super()._generate_single_turn(prompt_ids, *arguments, **named)
            state["sampled"] += sum(map(len, ids))
            return ids, logprobs

    settings = GRPOConfig(
        output_dir=str(Path(folder) / "trl"), per_device_train_batch_size=GROUPS * GROUP_SIZE,
        num_generations=GROUP_SIZE, max_completion_length=512, max_steps=10_000, beta=0.0, seed=0,
        use_cpu=True, bf16=False, gradient_checkpointing=False, optim="adamw_torch_fused", shuffle_dataset=False,
        report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, log_level="error",
        model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    trainer = Watched(
        model=folder,
        args=settings,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [reward(i) for i in range(len(completions))],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": question}]} for question in asked]),
        tools=[python] if tools else None,
        callbacks=[Paced()],
    )  # fmt: skip
    generate = trainer.model.generate

    def force(**arguments):
        processor = Forced(arguments["input_ids"].shape[1], state["turn"])
        state["turn"] += 1
        return generate(**arguments, logits_processor=LogitsProcessorList([processor]))

    trainer.model.generate = force
    threading.Thread(target=trainer.train, daemon=True).start()
    while True:
        yield figures.get()


# ---------------------------------------------------------------------------------------------------------------------
# both


def questions() -> list:
    from tasks import EMBEDDED, problems

    return [problem for task in EMBEDDED for problem in problems(task, "dev", 2)][:GROUPS]


def unwanted(tokenizer) -> list[int]:
    """Tokens that are not to be sampled: special ones, and what could open or close a fence or an answer."""
    return [i for token, i in tokenizer.get_vocab().items() if i in tokenizer.all_special_ids or {*"`<>"} & {*token}]


class Worker:
    """A process that does a step whenever it is told to."""

    def __init__(self, python: str, system: str, folder: str, tools: bool, threads: int, asked: list[str]):
        command = [python, __file__, "--worker", system, "--folder", folder, *(["--tools"] if tools else [])]
        more = {"OMP_NUM_THREADS": str(threads), "QUESTIONS": json.dumps(asked), "TRL_EXPERIMENTAL_SILENCE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=os.environ | more, text=True, **pipes)

    def step(self) -> dict[str, float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"a process has ended:\n{self.process.stderr.read()}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def make_model(size: dict[str, int], folder: Path) -> int:
    """Random weights of a size, and how many there are."""
    from gpu import random_weights

    shape = json.loads((ROOT / "assets/tiny/config.json").read_text()) | size
    shape["layer_types"] = ["full_attention"] * shape["num_hidden_layers"]
    (folder / "shape").mkdir()
    (folder / "shape/config.json").write_text(json.dumps(shape))
    random_weights(folder / "shape", folder)
    from checkpoint import load_bundle

    return sum(parameter.numel() for parameter in load_bundle(str(folder)).model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl_python", help="the interpreter of an environment that has TRL")
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--tools", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        system = {"ours": ours, "trl": trl}[arguments.worker]
        report(lambda: system(arguments.folder, arguments.tools))
        return
    if not arguments.trl_python:
        parser.error("--trl_python is needed")
    asked = [problem.question for problem in questions()]
    for name in arguments.models:
        for tools in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                weights = make_model(SIZES[name], Path(folder))
                compare(arguments, f"{name} ({weights / 1e6:.1f}M)" + ", with tools" * tools, folder, tools, asked)


def compare(arguments: argparse.Namespace, title: str, folder: str, tools: bool, asked: list[str]) -> None:
    interpreters = {"ours": sys.executable, "trl": arguments.trl_python}
    workers = {k: Worker(v, k, folder, tools, arguments.threads, asked) for k, v in interpreters.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for number in range(arguments.rounds + 1):
        for name, worker in workers.items():
            figures = worker.step()
            found[name] += [figures] * (number > 0)
    for worker in workers.values():
        worker.end()
    print(f"\n{title}, {arguments.threads} threads, medians of {arguments.rounds} steps (least-most)")
    print(f"{'':6} {'step, s':>22} {'rollout':>8} {'update':>8} {'sampled/s':>10} {'peak GB':>8}  tokens, programs")
    for name, steps in found.items():
        total = [step["rollout"] + step["update"] for step in steps]
        each = {key: statistics.median(step[key] for step in steps) for key in steps[0]}
        spread = f"{statistics.median(total):.2f} ({min(total):.2f}-{max(total):.2f})"
        rate = statistics.median(step["sampled"] / seconds for step, seconds in zip(steps, total, strict=True))
        figures = f"{each['rollout']:8.2f} {each['update']:8.2f} {rate:10.0f} {each['bytes'] / 1e9:8.2f}"
        print(f"{name:6} {spread:>22} {figures}  {each['sampled']:.0f}, {each['programs']:.0f}")
    ratios = {
        part: statistics.median(
            sum(theirs[k] for k in keys) / sum(own[k] for k in keys)
            for own, theirs in zip(found["ours"], found["trl"], strict=True)
        )
        for part, keys in {"step": ("rollout", "update"), "rollout": ("rollout",), "update": ("update",)}.items()
    }
    print("trl / ours: " + ", ".join(f"{part} {ratio:.1f}" for part, ratio in ratios.items()), flush=True)


if __name__ == "__main__":
    main()
