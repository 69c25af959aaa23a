"""What --plan counts, against what a small model really takes on a CPU."""

import dataclasses

import pytest
import torch
from conftest import hf_config, random_model
from test_training import assert_same, gradients

import grpo
from cli import ROOT, UserError, run_main
from model import Decoder, ModelConfig, PackedAttention, load_config, packed_positions
from plan import CARDS, Work, least_seconds, memory, parameters, saved_bytes
from slots import SlotCache, slot_bytes

CONFIGS = [
    ModelConfig.from_hf(hf_config("qwen2", tied=True)),
    ModelConfig.from_hf(hf_config("qwen3", tied=False)),
    ModelConfig.from_hf(hf_config("llama", heads=8, head_dim=16)),
]


def kept_for_backward(model: Decoder, lengths: list[int]) -> int:
    """Bytes of all that a forward pass keeps for the backward pass, but for the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # the storage itself, lest another takes its address
        return tensor

    tokens = torch.zeros(sum(lengths), dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(tokens, packed_positions(lengths), PackedAttention(lengths))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("config", CONFIGS)
def test_activations(config):
    """A formula from a paper is of another implementation: off by a factor, it fills a GPU or wastes it."""
    model, lengths = Decoder(config).requires_grad_(True), [64] * 8
    measured = kept_for_backward(model, lengths) / sum(lengths)
    assert config.num_layers * saved_bytes(config, torch.float32) == pytest.approx(measured, rel=0.25)
    model.recompute = True
    measured = kept_for_backward(model, lengths) / sum(lengths)
    of_layers = 4 * config.num_layers * config.hidden_size  # besides, there are the last norm and the angles
    assert of_layers <= measured <= of_layers + 4 * (3 * config.hidden_size + 2 * config.head_dim)


@pytest.mark.parametrize("config", CONFIGS)
def test_weights_optimizer_and_cache(config):
    """Sixteen bytes for each trained weight, and the tied output counted once."""
    model = Decoder(config).requires_grad_(True)
    total, layer, outside = parameters(config)
    assert total == sum(p.numel() for p in model.parameters()) == outside + config.num_layers * layer
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.zeros(9, dtype=torch.int64), packed_positions([9]), PackedAttention([9])).sum().backward()
    model.embed_tokens.weight.grad = torch.zeros_like(model.embed_tokens.weight)
    if not config.tied:
        model.lm_head.weight.grad = torch.zeros_like(model.lm_head.weight)
    optimizer.step()
    moments = [t for state in optimizer.state.values() for t in (state["exp_avg"], state["exp_avg_sq"])]
    held = sum(t.nbytes for p in model.parameters() for t in (p, p.grad)) + sum(t.nbytes for t in moments)
    need = memory(config, CARDS["h100"], 1, 7, 100, 1000, False, False, torch.float32)
    assert sum(need.always.values()) == held + 4 * total  # and the copy that generates
    cache = SlotCache(config, 7, 100, torch.float32, torch.device("cpu"))
    held = sum(keys.nbytes + values.nbytes for keys, values in cache.layers)
    assert held == 7 * slot_bytes(config, 100, torch.float32, torch.device("cpu"))


def test_recomputing_changes_no_gradient():
    """Activation checkpointing that runs a layer with another mask, or not at all, trains another model."""
    found, lengths = [], [5, 17, 2]
    for recompute in (False, True):
        model = random_model(hf_config("qwen2")).requires_grad_(True)
        model.recompute = recompute
        hidden = model(torch.arange(24), packed_positions(lengths), PackedAttention(lengths))
        hidden.square().sum().backward()
        found.append(gradients(model))
    assert_same(*found)


def test_what_grows_and_what_shrinks():
    """The arithmetic of a plan goes wrong in a sign or a unit."""
    config, card = CONFIGS[1], CARDS["a100"]

    def peak(gpus=8, slots=64, tokens=1000, batch=4096, reference=True, recompute=False):
        return memory(config, card, gpus, slots, tokens, batch, reference, recompute).peak

    assert peak(gpus=16) < peak() < peak(gpus=4) and peak(recompute=True) < peak() < peak(batch=8192)
    assert peak(reference=False) < peak()
    work = Work(640, 8, 500.0, 1, False)
    rollout, update = least_seconds(config, card, 8, 80, work, False)
    assert least_seconds(config, card, 16, 80, work, False)[1] == pytest.approx(update / 2)
    assert least_seconds(config, card, 8, 80, work._replace(episodes=1280), False)[1] == pytest.approx(2 * update)
    assert least_seconds(config, card, 8, 40, work, False)[0] > rollout
    assert least_seconds(config, card, 8, 80, work, True)[1] > update
    faster = dataclasses.replace(config) and card._replace(bandwidth=2 * card.bandwidth, flops=2 * card.flops)
    assert least_seconds(config, faster, 8, 80, work, False)[0] == pytest.approx(rollout / 2)


def test_what_is_kept_while_updating_and_what_is_not_sharded_further(capsys):
    """Plans that fit on paper: --replicas shards among fewer GPUs, and --cache_gib stays through the update."""

    def peak(*more: str) -> float:
        grpo.main(["runs/grpo-qwen2.5-14b.yaml", "--model", "runs/shapes/qwen2.5-14b", "--plan", "16", *more])
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("peak")]
        return float(line.split()[1])

    plain, parts = peak(), 16 * parameters(ModelConfig.from_hf(load_config(ROOT / "runs/shapes/qwen2.5-14b")))[0]
    reference = parts / 8  # in bf16, of 16 bytes
    more = (parts + reference) * (1 / 8 - 1 / 16) / 2**30
    assert peak("--replicas", "2") == pytest.approx(plain + more, rel=0.01)
    assert peak("--cache_gib", "40") > plain + 10
    with pytest.raises(UserError, match="--replicas 3 does not divide the number of GPUs, 16"):
        peak("--replicas", "3")


def test_the_command(capsys):
    """`--plan` needs neither weights nor a GPU nor a sandbox, and trains nothing."""
    grpo.main(["runs/grpo-qwen2.5-3b.yaml", "--model", "runs/shapes/qwen2.5-3b", "--plan", "8"])
    said = capsys.readouterr().out
    assert said.startswith("runs/shapes/qwen2.5-3b on 8 x h100, each\n") and "GPU-hours a step" in said
    with pytest.raises(UserError, match="unknown plan_card 'tpu'"):
        grpo.main(["--plan", "8", "--plan_card", "tpu"])
    with pytest.raises(SystemExit, match="there is no model folder nowhere"):
        run_main(lambda: grpo.main(["--plan", "8", "--model", "nowhere"]))
