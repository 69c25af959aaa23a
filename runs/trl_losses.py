"""What TRL's GRPOTrainer makes of a small batch under each loss it shares with loss.py: tests/data/trl_losses.json.

    pip install trl==1.16.0 && python runs/trl_losses.py

Only needed to make the file anew: TRL is no dependency, and the test reads the file. The trainer's own loss is called
with log-probs that are given rather than computed, so that the figures are those of the loss alone.
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from torch import Tensor
from trl import GRPOTrainer

LONGEST = 16  # the longest reply allowed
COUNTS = (3, 9, 5, 1, 12, 7)
SETTINGS = {
    "grpo": {"loss_type": "grpo", "beta": 0.001, "epsilon_high": 0.2},
    "dr_grpo": {"loss_type": "dr_grpo", "epsilon_high": 0.2},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "gspo": {
        "loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4
    },
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0},
    "dapo, importance capped at 2": {"loss_type": "dapo", "epsilon_high": 0.28, "use_vllm": True},
}  # fmt: skip


def padded(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def main() -> None:
    g = torch.Generator().manual_seed(0)
    old = [-3 * torch.rand(n, generator=g) for n in COUNTS]
    near = {"log_probs": 0.4, "sampler": 0.5, "reference": 0.3}
    batch = {name: [row + far * torch.randn(len(row), generator=g) for row in old] for name, far in near.items()}
    batch |= {"old": old, "advantages": torch.tensor([1.2, -0.4, -0.8, 0.7, -1.4, 0.7])}
    mask = padded([torch.ones(n, dtype=torch.int64) for n in COUNTS])
    results = {}
    for name, setting in SETTINGS.items():
        log_probs = padded(batch["log_probs"]).requires_grad_()
        accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x)
        args = SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1)
        defaults = {
            "importance_sampling_level": "token", "beta": 0.0, "epsilon_low": 0.2, "use_vllm": False, "args": args,
            "vllm_importance_sampling_correction": True, "accelerator": accelerator, "top_entropy_quantile": 1.0,
            "off_policy_mask_threshold": None, "aux_loss_enabled": False, "max_completion_length": LONGEST,
            "_entropy_bonus_enabled": False, "model": torch.nn.Identity(), "current_gradient_accumulation_steps": 1,
            "_metrics": {"train": defaultdict(list)},
            "_get_per_token_logps_and_entropies": lambda *_, log_probs=log_probs, **__: (
                log_probs, torch.zeros_like(log_probs), None
            ),
        }  # fmt: skip
        inputs = {
            "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
            "advantages": batch["advantages"], "old_per_token_logps": padded(batch["old"]),
            "ref_per_token_logps": padded(batch["reference"]), "num_items_in_batch": mask.sum(),
            "importance_sampling_ratio": (padded(batch["old"]) - padded(batch["sampler"])).exp().clamp(max=2.0),
        }  # fmt: skip
        loss = GRPOTrainer._compute_loss(SimpleNamespace(**(defaults | setting)), None, inputs)
        loss.backward()
        gradient = [row[:n].tolist() for row, n in zip(log_probs.grad, COUNTS, strict=True)]
        results[name] = {"loss": float(loss), "gradient": gradient}
    rows = {k: v.tolist() if isinstance(v, Tensor) else [row.tolist() for row in v] for k, v in batch.items()}
    path = Path(__file__).resolve().parent.parent / "tests/data/trl_losses.json"
    path.write_text(json.dumps({"trl": trl.__version__, "longest": LONGEST, "batch": rows, "results": results}) + "\n")


if __name__ == "__main__":
    main()
