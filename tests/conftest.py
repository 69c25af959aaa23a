"""Shared helpers: tiny random models of every family, so that each test runs on a CPU in seconds."""

import random
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from transformers import LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

import executor
import sft
from cli import ROOT
from model import Decoder, ModelConfig
from rollout import Episode, Turn
from suites.base import Problem, Task
from trajectories import write_trajectories

torch.set_num_threads(1)  # models this small only wait for each other's threads


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def hf_config(family: str, tied: bool = True, heads: int = 4, kv_heads: int = 2, **more) -> PretrainedConfig:
    """A small transformers configuration of one family."""
    kind = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}[family]
    sizes = {"vocab_size": 101, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    more.setdefault("rope_parameters", {"rope_type": "default", "rope_theta": 1000.0})
    return kind(
        **sizes,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=more.pop("head_dim", 8),
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        **more,
    )


def random_model(config: PretrainedConfig, seed: int = 0) -> Decoder:
    """Our decoder with weights large enough that a wrong mask, bias or angle shows in the logits."""
    torch.manual_seed(seed)
    model = Decoder(ModelConfig.from_hf(config))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.25)
    return model.requires_grad_(False)


class ByteTokenizer:
    """One token per byte, token 0 as the end, and `pieces`: longer tokens that only a script can produce."""

    end = 0

    def __init__(self, pieces: tuple[str, ...] = ()):
        self.pieces = [bytes([i]) for i in range(256)] + [piece.encode() for piece in pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, text: str, add_special_tokens: bool = False, verbose: bool = True) -> list[int]:
        return list(text.encode())

    def decode(self, tokens, skip_special_tokens: bool = False) -> str:
        return b"".join(self.pieces[int(t)] for t in tokens if int(t) != self.end).decode(errors="replace")

    def get_vocab(self) -> dict[str, int]:
        return {f"{i}:{piece.decode(errors='replace')}": i for i, piece in enumerate(self.pieces)}

    def apply_chat_template(self, messages, tokenize: bool, add_generation_prompt: bool) -> str:
        return f"Q: {messages[0]['content']}\nA: "


class Coin(Task):
    """A task that a few updates of warm start solve about half of the time."""

    name, suite = "coin", "test"

    def problem(self, index: int) -> Problem:
        return Problem(self.name, index, f"Toss coin {index}.", "1")

    def score(self, problem: Problem, answer: str) -> int:
        return int(answer == "1")


def episode(number: int, group: int = 0, correct: bool = False, **more) -> Episode:
    """An episode made by hand: a prompt, what the model wrote, an observation, what it wrote then."""
    g = torch.Generator().manual_seed(number)
    n = 14 + 3 * (number % 5)
    sampled = torch.arange(n) >= 4
    sampled[8:11] = False
    values = {
        "tokens": torch.randint(3, 1024, (n,), generator=g),
        "sampled": sampled,
        "logprobs": torch.zeros(n),
        "turns": [Turn(4, 8), Turn(11, n)],
        "finish": "answer",
        "answer": "1",
        "reward": float(correct),
    }
    problem = Problem("coin", group, f"Toss coin {group}.", "1")
    return Episode(id=number, group=group, step=0, problem=problem, correct=correct, **(values | more))


def write_coin_trajectories(path: Path, count: int = 256) -> None:
    """Tosses by a program or in text, 1 or 0."""
    draw, stored = random.Random(0), []
    for i in range(count):
        prompt, side = {"text": f"Toss coin {draw.randrange(10**7, 2 * 10**7)}.", "source": "prompt"}, i // 2 % 2
        answer = {"text": f"So <<<{side}>>>", "source": "model"}
        code = {"text": f"```python\nprint({side})\n```", "source": "model"}
        seen = {"text": f"\nCode Execution Results:\n{side}\n", "source": "observation"}
        stored.append({"segments": [prompt, code, seen, answer] if i % 2 else [prompt, answer]})
    write_trajectories(stored, path)


@pytest.fixture(scope="session")
def warm(tmp_path_factory) -> str:
    """A checkpoint that has learnt to toss: by a program or in text, 1 or 0."""
    PartialState(cpu=True)
    folder = tmp_path_factory.mktemp("coin")
    write_coin_trajectories(folder / "t.jsonl")
    paths = {"model": str(ROOT / "assets/tiny"), "out": str(folder / "run"), "data": str(folder / "t.jsonl")}
    return str(sft.train(sft.SFTArguments(**paths, epochs=3, warmup=3)))


@pytest.fixture(scope="session")
def tiny() -> Decoder:
    return random_model(hf_config("qwen2"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to be in, so that the names of folders are the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def altered(monkeypatch, tmp_path):
    """altered((old, new), ...): executors started from then on have these lines replaced on the far side."""

    def alter(*lines: tuple[str, str]) -> None:
        texts = {name: executor.SERVER.with_name(name).read_text() for name in ("zygote.py", "sandbox.py")}
        for old, new in lines:
            assert any(old in text for text in texts.values()), old
            texts = {name: text.replace(old, new) for name, text in texts.items()}
        for name, text in texts.items():
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(executor, "SERVER", tmp_path / "zygote.py")

    return alter
