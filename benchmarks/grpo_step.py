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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from peers import Worker, asked_again, make_model, parse_flags, take_turns, tell
from torch import Tensor

GROUPS, GROUP_SIZE, SHORTEST, LONGEST = 16, 8, 16, 140
PROGRAM = "\n```python\nprint(6 * 7)\n```"
FREE = -1  # in a list of forced tokens: whatever is sampled, but for special tokens and what could end a fence


def lengths(step: int) -> list[tuple[int, int]]:
    """For every episode of a step, how many tokens it samples before the program and after it (or before and after
    nothing, if there are no tools); the end token is the last."""
    r = random.Random(step)
    totals = [r.randint(SHORTEST, LONGEST) for _ in range(GROUPS * GROUP_SIZE)]
    return [(total // 2, total - total // 2 - 1) for total in totals]


def reward(episode: int) -> float:
    """Of an episode, by its number."""
    return float(episode % 2)


# ---------------------------------------------------------------------------------------------------------------------
# ours


def ours(folder: str, tools: str = "") -> None:
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
        step = 0
        while asked_again():
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
            step += 1
            tell(
                rollout=times[1] - times[0],
                update=times[2] - times[1],
                sampled=sum(int(episode.sampled.sum()) for episode in episodes),
                programs=sum(turn.result.stdout == "42\n" for e in episodes for turn in e.turns if turn.result),
            )


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


def trl(folder: str, tools: str = "") -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template, tokenizer.response_template = TEMPLATE, RESPONSES
    banned, end, program = torch.tensor(unwanted(tokenizer)), tokenizer.eos_token_id, tokenizer.encode(PROGRAM)
    asked, python.runs = json.loads((Path(folder) / "questions.json").read_text()), 0
    state = {"step": 0, "turn": 0}

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
            if not asked_again():
                os._exit(0)
            state.update(turn=0, rollout=0.0, sampled=0, runs=python.runs, began=time.perf_counter())

        def on_step_end(self, *_, **__):
            seconds = time.perf_counter() - state["began"]
            more = {"sampled": state["sampled"], "programs": python.runs - state["runs"]}
            tell(rollout=state["rollout"], update=seconds - state["rollout"], **more)
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
    trainer.train()


# ---------------------------------------------------------------------------------------------------------------------
# both


def questions() -> list:
    from tasks import EMBEDDED, problems

    return [problem for task in EMBEDDED for problem in problems(task, "dev", 2)][:GROUPS]


def unwanted(tokenizer) -> list[int]:
    """Tokens that are not to be sampled: special ones, and what could open or close a fence or an answer."""
    return [i for token, i in tokenizer.get_vocab().items() if i in tokenizer.all_special_ids or {*"`<>"} & {*token}]


def main() -> None:
    arguments = parse_flags(__doc__)
    if arguments.worker:
        system, *tools = arguments.worker
        {"ours": ours, "trl": trl}[system](arguments.folder, *tools)
        return
    for name in arguments.models:
        for tools in ([], ["tools"]):
            with tempfile.TemporaryDirectory() as folder:
                title = ", with ".join([make_model(name, Path(folder)), *tools])
                asked = [problem.question for problem in questions()]
                (Path(folder) / "questions.json").write_text(json.dumps(asked))
                compare(arguments, title, folder, tools)


def compare(arguments: argparse.Namespace, title: str, folder: str, tools: list[str]) -> None:
    interpreters = {"ours": sys.executable, "trl": arguments.trl_python}
    workers = {k: Worker(v, [k, *tools], folder, arguments.threads) for k, v in interpreters.items()}
    found = take_turns(workers, arguments.rounds)
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
