"""The decoder against transformers, which stays the judge."""

import json
import shutil

import pytest
import torch
from conftest import LLAMA3_SCALING, hf_config, random_model
from transformers import AutoModelForCausalLM, GPT2Config

from checkpoint import save_model
from model import Decoder, ModelConfig, PackedAttention, load_model, packed_positions, resolve_model

CONFIGURATIONS = {
    "qwen2": hf_config("qwen2"),
    "qwen2-untied": hf_config("qwen2", tied=False, kv_heads=4),
    "qwen2-one-kv-head": hf_config("qwen2", kv_heads=1, rms_norm_eps=1e-5),
    "qwen2-linear": hf_config("qwen2", rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}),
    "qwen3": hf_config("qwen3", head_dim=16),
    "qwen3-untied": hf_config("qwen3", tied=False, heads=8, kv_heads=2),
    "llama": hf_config("llama", kv_heads=4),
    "llama3-scaled": hf_config("llama", tied=False, rope_parameters=LLAMA3_SCALING),
}


def logits(model: Decoder, documents: list[torch.Tensor], bucket: int = 32) -> torch.Tensor:
    lengths = [len(d) for d in documents]
    return model.logits(model(torch.cat(documents), packed_positions(lengths), PackedAttention(lengths, bucket=bucket)))


def documents(lengths: tuple[int, ...] = (70, 1, 33, 32, 7), seed: int = 1) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 101, (n,), generator=g) for n in lengths]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_saved_model_is_read_by_transformers_with_the_same_logits(name, tmp_path):
    """A wrong bias, norm, angle, head grouping or parameter name shows as a difference of logits."""
    config = CONFIGURATIONS[name]
    ours = random_model(config)
    save_model(ours, config, tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    for document in documents():
        expected = theirs(document[None]).logits[0]
        assert expected.std() > 0.1  # flat logits would agree with anything
        torch.testing.assert_close(logits(ours, [document]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_model_saved_by_transformers_is_read_by_us(name, tmp_path):
    """The reverse way, in several shards, as large models come."""
    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_config(CONFIGURATIONS[name]).float()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    document = documents()[0]
    expected = theirs.eval()(document[None]).logits[0]
    torch.testing.assert_close(logits(load_model(str(tmp_path)), [document]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["theta", "eps", "scaling", "qk_norm", "bias"])
def test_the_comparison_notices_what_it_should(change, tmp_path):
    """Negative controls: a detail left out must break the agreement, or the tests above prove little."""
    config = {"scaling": "llama3-scaled", "qk_norm": "qwen3"}.get(change, "qwen2")
    config = CONFIGURATIONS[config]
    ours = random_model(config)
    save_model(ours, config, tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    if change == "theta":
        ours.frequencies = ours.frequencies * 1.01
    elif change == "eps":
        ours.norm.eps = 1e-3
    elif change == "scaling":
        plain = hf_config("llama", tied=False, rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
        ours.frequencies = Decoder(ModelConfig.from_hf(plain)).frequencies
    elif change == "qk_norm":
        ours.layers[1].self_attn.qk_norm = False
    elif change == "bias":
        ours.layers[2].self_attn.v_proj.bias.zero_()
    document = documents()[0]
    assert (logits(ours, [document]) - theirs(document[None]).logits[0]).abs().max() > 1e-4


@pytest.mark.parametrize("bucket", [1, 8, 32])
def test_packed_equals_one_by_one(bucket):
    """Documents that see each other, or padding, when they share a batch."""
    model = random_model(CONFIGURATIONS["qwen2"])
    docs = documents((70, 1, 33, 32, 7, 33, 64))
    alone = torch.cat([logits(model, [d]) for d in docs])
    torch.testing.assert_close(logits(model, docs, bucket), alone, atol=1e-5, rtol=1e-5)


def test_packed_gradients_equal_one_by_one():
    """The padding rows of a bucket repeat a real row: they must send no gradient back to it."""
    docs = documents((70, 1, 33, 7))
    gradients = []
    for packed in (True, False):
        model = random_model(CONFIGURATIONS["qwen2"]).requires_grad_(True)
        out = [logits(model, docs)] if packed else [logits(model, [d]) for d in docs]
        torch.cat(out).log_softmax(-1)[:, 5].sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_bf16_keeps_angles_in_fp32():
    """module.to(bfloat16) on a buffer of angles silently rounds positions beyond 256."""
    model = random_model(CONFIGURATIONS["qwen2"]).to(torch.bfloat16)
    assert model.frequencies.dtype == torch.float32
    exact, rounded = random_model(CONFIGURATIONS["qwen2"]), [documents()[0]]
    assert (logits(model, rounded).float() - logits(exact, rounded)).abs().mean() < 0.2


def test_bad_models_are_refused_in_one_line(tmp_path):
    """A wrong path must not become a confusing download, and an unknown family not a wrong forward pass."""
    for name in ("nowhere/at/all", "./missing", str(tmp_path)):
        with pytest.raises(FileNotFoundError) as error:
            resolve_model(name)
        assert "\n" not in str(error.value)
    GPT2Config().save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ValueError, match="'gpt2' is not supported; known families: qwen2, qwen3, llama"):
        load_model(str(tmp_path / "gpt2"))
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps({"model_type": "notyet"}))
    with pytest.raises(ValueError, match="'notyet' is not supported"):
        load_model(str(tmp_path / "gpt2"))
    save_model(random_model(CONFIGURATIONS["qwen2"]), CONFIGURATIONS["qwen2"], tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="has no"):
        load_model(str(tmp_path / "m"))


def test_missing_and_foreign_weights_are_errors(tmp_path):
    """A checkpoint of another shape must not load with some weights left uninitialised."""
    save_model(random_model(CONFIGURATIONS["qwen2"]), CONFIGURATIONS["qwen2"], tmp_path / "a")
    save_model(random_model(CONFIGURATIONS["qwen3"]), CONFIGURATIONS["qwen3"], tmp_path / "b")
    shutil.copy(tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors")
    with pytest.raises(ValueError):
        load_model(str(tmp_path / "b"))
