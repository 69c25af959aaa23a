"""What only a CUDA device can show. The other tests run on CPUs, and their process group with them, so these run the
scripts as a user does."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli import ROOT

pytestmark = pytest.mark.gpu


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("cache_gib", ["0", "0.5"])
def test_one_gpu_without_torchrun(cache_gib: str, tmp_path: Path):
    """FSDP wants a process group, also of one GPU. The weights are fp32, what generates is bf16, and the two must agree
    on log-probs as well as bf16 can: also with memory set apart, where CUDA graphs see three versions of the weights.
    """
    run("sft.py", "--trajectories", "320", "--epochs", "1", "--out", str(tmp_path / "sft"))
    flags = ["--model", str(tmp_path / "sft/checkpoint"), "--steps", "3", "--cache_gib", cache_gib]
    run("grpo.py", *flags, "--out", str(tmp_path / "grpo"))
    lines = [json.loads(line) for line in (tmp_path / "grpo/metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(math.isfinite(value) for line in lines for value in line.values())
    assert all(line["logprob_gap"] < 0.05 for line in lines)
    before, after = (load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("sft", "grpo"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(tensor.dtype == torch.bfloat16 for tensor in after.values())
