"""The decoder: Qwen2/2.5, Qwen3 and Llama 3, read from and written to Hugging Face folders.

One forward pass over packed rows serves everything. A row is a token with its position; rows of many documents stand
one after the other in a single [rows, hidden] matrix, with no padding. Every layer computes q, k and v for all rows and
hands them to `attend`, the one seam that knows which rows may see which:

    training, scoring    `PackedAttention` below: block-diagonal causal attention over whole documents
    generation           the KV cache of generator.py: each row attends to the prefix of its own slot

Differs from transformers: no padding, no attention masks, no cache classes, no generate; the modules carry
transformers' parameter names, so a checkpoint needs no translation. tests/test_model.py holds the logits of all three
families to within 1e-5 of transformers' own in fp32.
"""

import dataclasses
import json
import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

try:  # the optional extra [flash]
    from flash_attn import flash_attn_varlen_func
except ImportError:
    flash_attn_varlen_func = None

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""attend(layer, q [rows, heads, head_dim], k and v [rows, kv_heads, head_dim]) -> [rows, heads, head_dim]"""

FAMILIES = {"qwen2": (True, False), "qwen3": (False, True), "llama": (False, False)}  # qkv_bias, qk_norm
HUB_SECONDS = 10  # until the hub counts as out of reach


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What the forward pass needs to know, whichever family it comes from."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_positions: int
    rope: dict  # rope_theta, rope_type and the parameters of its scaling
    tied: bool  # the output projection is the embedding
    qkv_bias: bool
    qk_norm: bool

    @classmethod
    def from_hf(cls, hf: "transformers.PretrainedConfig") -> "ModelConfig":  # noqa: F821
        """Reads a transformers configuration; raises ValueError for what this decoder cannot compute faithfully."""
        if hf.model_type not in FAMILIES:
            raise unknown_family(hf.model_type)
        qkv_bias, qk_norm = FAMILIES[hf.model_type]
        for flag in ("attention_bias", "mlp_bias", "use_sliding_window"):
            if getattr(hf, flag, False):
                raise ValueError(f"{hf.model_type} with {flag}=True is not supported; known: False")
        if hf.hidden_act != "silu":
            raise ValueError(f"activation {hf.hidden_act!r} is not supported; known: silu")
        return cls(
            vocab_size=hf.vocab_size,
            hidden_size=hf.hidden_size,
            intermediate_size=hf.intermediate_size,
            num_layers=hf.num_hidden_layers,
            num_heads=hf.num_attention_heads,
            num_kv_heads=hf.num_key_value_heads,
            head_dim=getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads,
            rms_norm_eps=hf.rms_norm_eps,
            max_positions=hf.max_position_embeddings,
            rope=dict(hf.rope_parameters),
            tied=hf.tie_word_embeddings,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
        )


def unknown_family(name: str) -> ValueError:
    return ValueError(f"model family {name!r} is not supported; known families: {', '.join(FAMILIES)}")


# --------------------------------------------------------------------------------------------------------------------
# the network


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang and Sennrich, 2019), computed in fp32 whatever the dtype of the weights."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)
        return self.weight * F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype)


def rope_frequencies(config: ModelConfig) -> Tensor:
    """Inverse frequencies [head_dim / 2] in fp32 of rotary embeddings (Su et al., 2021), scaled if so configured."""
    rope = config.rope
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64, device="cpu").float() / config.head_dim
    frequencies = 1.0 / rope["rope_theta"] ** exponent
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / rope["factor"]
    if kind == "llama3":
        # Short wavelengths are kept, long ones are stretched by `factor`, those between are interpolated.
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        turns = rope["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (keep + (1 - keep) / rope["factor"])
    raise ValueError(f"RoPE scaling {kind!r} is not supported; known: default, linear, llama3")


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates x [rows, heads, head_dim] by angles given in fp32: their cos [rows, 1, head_dim], and their sin with the
    sign that the other half has in the sum, minus in the first half."""
    wide = x.float()
    a, b = wide.chunk(2, dim=-1)
    return torch.addcmul(wide * cos, torch.cat((b, a), dim=-1), sin).to(x.dtype)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [rows, in] @ weight [out, in].T + bias, for inference."""
    few = 1 < len(x) <= 32 and weight.numel() >= 2**19
    if not few or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.linear(x, weight, bias)
    # MKL is up to twice as fast on a few rows if they are the second factor of a large matrix.
    return (torch.mm(weight, x.t()) if bias is None else torch.addmm(bias[:, None], weight, x.t())).t()


def project(linear: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer; without gradient, by `product`."""
    return linear(x) if torch.is_grad_enabled() else product(x, linear.weight, linear.bias)


def fuse(linears: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Lets the weights and biases of several projections of one input share one storage, in which they lie one after
    the other, and returns the whole: one product instead of many, always up to date."""

    def join(parameters: list[nn.Parameter]) -> Tensor:
        whole = torch.cat([parameter.detach() for parameter in parameters])
        for parameter, part in zip(parameters, whole.split([len(p) for p in parameters]), strict=True):
            parameter.data = part
        return whole

    weight = join([linear.weight for linear in linears])
    return weight, None if linears[0].bias is None else join([linear.bias for linear in linears])


class SelfAttention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.head_dim, self.heads = config.head_dim, (config.num_heads, config.num_kv_heads)
        self.fused: tuple[Tensor, Tensor | None] | None = None  # of q, k and v; see Decoder.fuse
        query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        if config.qk_norm:
            self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps)
        self.qk_norm = config.qk_norm

    def forward(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        if self.fused is None or torch.is_grad_enabled():
            qkv = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), -1)
        else:
            qkv = product(x, *self.fused)
        heads, kv_heads = self.heads
        qk, v = qkv.unflatten(-1, (-1, self.head_dim)).split((heads + kv_heads, kv_heads), 1)
        if self.qk_norm:
            qk = torch.cat((self.q_norm(qk[:, :heads]), self.k_norm(qk[:, heads:])), 1)
        q, k = rotate(qk, cos, sin).split((heads, kv_heads), 1)
        return project(self.o_proj, attend(layer, q, k, v).flatten(1))


class MLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.fused: tuple[Tensor, Tensor | None] | None = None  # of gate and up; see Decoder.fuse

    def forward(self, x: Tensor) -> Tensor:
        if self.fused is None or torch.is_grad_enabled():
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            gate, up = product(x, *self.fused).chunk(2, -1)
        return project(self.down_proj, F.silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, layer: int, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        x = x + self.self_attn(layer, self.input_layernorm(x), cos, sin, attend)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """A decoder-only transformer over packed rows; parameters are named as in transformers, less the prefix `model.`"""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tied:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.recompute = False  # activation checkpointing: of each layer only the input is kept for the backward pass
        # Neither parameter nor buffer: .to(bfloat16) would round the angles.
        self.frequencies = rope_frequencies(config)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if self.embed_tokens.weight.device.type != "meta":
            self.frequencies = self.frequencies.to(self.embed_tokens.weight.device)
        return self

    def forward(self, tokens: Tensor, positions: Tensor, attend: Attend, head: Callable | None = None) -> Tensor:
        """Hidden states [rows, hidden] after the last norm, for tokens and positions (int64 [rows]).

        With `head`, its result instead: head(hidden, output weight [vocab, hidden]). What needs logits goes through
        here rather than through `logits`, because under FSDP the weights are whole only inside forward.
        """
        x = self.embed_tokens(tokens)
        angles = positions[:, None, None].float() * self.frequencies
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
        for i, layer in enumerate(self.layers):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(layer, i, x, cos, sin, attend, use_reentrant=False)
            else:
                x = layer(i, x, cos, sin, attend)
        x = self.norm(x)
        return x if head is None else head(x, self.output_weight)

    @property
    def output_weight(self) -> Tensor:
        return self.embed_tokens.weight if self.config.tied else self.lm_head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        return product(hidden, self.output_weight)

    def fuse(self) -> None:
        """Makes inference faster: the projections that have the same input become one product, in the same storage.
        Training is as before, and what it changes in place is seen. To be called again after anything that gives the
        parameters other storage (`.to`); costs nothing if it is not needed."""
        for layer in self.layers:
            attention, mlp = layer.self_attn, layer.mlp
            for module, first, rest in (
                (attention, attention.q_proj, (attention.k_proj, attention.v_proj)),
                (mlp, mlp.gate_proj, (mlp.up_proj,)),
            ):
                if module.fused is None or module.fused[0].data_ptr() != first.weight.data_ptr():
                    module.fused = fuse([first, *rest])


# --------------------------------------------------------------------------------------------------------------------
# attention over whole documents


class PackedAttention:
    """Block-diagonal causal attention over documents packed one after the other.

    flash-attn's varlen kernel where it is installed and applies. Elsewhere documents of similar length are padded to a
    common multiple of `bucket` and share one call of scaled_dot_product_attention: padding stands behind the last
    token, so under a causal mask no real row ever sees it, and no mask needs to be built.
    """

    def __init__(self, lengths: list[int], device: torch.device | str = "cpu", bucket: int = 32):
        self.max_length = max(lengths)
        self.cu_seqlens = F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(device, torch.int32)
        starts = self.cu_seqlens[:-1].tolist()
        self.gather: list[Tensor] = []  # per bucket [documents, padded length]: the packed row that stands there
        scatter = torch.empty(sum(lengths), dtype=torch.int64)  # where each packed row's output ends up
        by_length: dict[int, list[int]] = {}
        for document, length in enumerate(lengths):
            by_length.setdefault(-(-length // bucket) * bucket, []).append(document)
        written = 0
        for padded, documents in sorted(by_length.items()):
            columns = torch.arange(padded)
            rows = []
            for document in documents:
                start, length = starts[document], lengths[document]
                rows.append(start + columns.clamp(max=length - 1))
                scatter[start : start + length] = written + columns[:length]
                written += padded
            self.gather.append(torch.stack(rows).to(device))
        self.scatter = scatter.to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if flash_attn_varlen_func is not None and q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
            seqlens, longest = self.cu_seqlens, self.max_length
            return flash_attn_varlen_func(q, k, v, seqlens, seqlens, longest, longest, causal=True)
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        outputs = []
        for rows in self.gather:
            # [documents, padded, heads, head_dim] -> heads first, as the kernel wants it, and back
            inputs = (x.index_select(0, rows.flatten()).unflatten(0, rows.shape).transpose(1, 2) for x in (q, k, v))
            outputs.append(F.scaled_dot_product_attention(*inputs, is_causal=True).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.scatter)


def packed_positions(lengths: list[int], device: torch.device | str = "cpu") -> Tensor:
    """Positions [rows] that start again at 0 with every document."""
    return torch.cat([torch.arange(length, device=device) for length in lengths])


# --------------------------------------------------------------------------------------------------------------------
# Hugging Face folders


def resolve_model(name: str, weights: bool = True) -> Path:
    """The folder of a model given as a folder or as a name on the Hugging Face hub (downloaded on first use; without
    `weights`, config.json alone).

    Raises FileNotFoundError, in one line that says what to do, for anything that is neither.
    """
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.exists():
        raise FileNotFoundError(f"{name} has no config.json: it is not a Hugging Face model folder")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"there is no model folder {name} (a name on the hub looks like Qwen/Qwen2.5-3B-Instruct)"
        )
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError

    files = ["*.json", "*.safetensors", "*.txt", "*.jinja"] if weights else ["config.json"]
    try:
        # Asked first, since the download has no time limit: behind a firewall it would wait for ever.
        HfApi().model_info(name, timeout=HUB_SECONDS)
        return Path(snapshot_download(name, allow_patterns=files))
    except (HTTPError, OSError, ValueError) as error:
        try:  # a copy from earlier does as well
            return Path(snapshot_download(name, allow_patterns=files, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):
            reason = textwrap.shorten(f"{type(error).__name__}: {error}", 300)
            raise FileNotFoundError(
                f"there is no folder {name}, and the hub does not give us a model of that name ({reason})"
            ) from error


def load_config(folder: Path) -> "transformers.PretrainedConfig":  # noqa: F821
    """Reads config.json; raises ValueError, in one line, if that is not the configuration of a known family."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    file = folder / "config.json"
    try:
        family = json.loads(file.read_bytes()).get("model_type")
        if family in FAMILIES:
            return AutoConfig.from_pretrained(folder)
    except (ValueError, AttributeError, KeyError, TypeError, StrictDataclassError) as error:
        raise ValueError(f"{file} does not describe a model: {textwrap.shorten(str(error), 300)}") from error
    raise unknown_family(family)


def load_model(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Decoder:
    """Loads a folder or hub model in `dtype`. Weights are copied shard by shard into storage allocated once, so that a
    model needs its own size in memory plus one tensor."""
    folder = resolve_model(name)
    config = ModelConfig.from_hf(load_config(folder))
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise FileNotFoundError(f"{folder} has no weights (*.safetensors)")
    with torch.device("meta"):
        model = Decoder(config)
    model = model.to(dtype).to_empty(device=device)
    missing = dict(model.named_parameters())
    for shard in shards:
        try:
            with safe_open(shard, framework="pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (not a dict)
                    parameter = missing.pop(key.removeprefix("model."), None)
                    if parameter is not None:
                        tensor = tensors.get_tensor(key)
                        if tensor.shape != parameter.shape:
                            shapes = f"{list(tensor.shape)}, and by config.json it should be {list(parameter.shape)}"
                            raise ValueError(f"{shard}: the shape of {key} is {shapes}")
                        parameter.data.copy_(tensor)
                    elif key != "lm_head.weight":  # tied checkpoints may store the embedding under both names
                        raise ValueError(f"{shard} holds {key!r}, for which config.json has no place")
        except SafetensorError as error:
            raise ValueError(f"{shard} is damaged, perhaps cut off while it was copied: {error}") from error
    if missing:
        raise ValueError(f"{folder} lacks the weights {', '.join(sorted(missing)[:3])} ({len(missing)} in all)")
    return model.requires_grad_(False)


def hf_state_dict(model: Decoder) -> dict[str, Tensor]:
    """A copy of the weights in main memory, under the names that transformers gives them. A copy, since files refuse
    tensors that share their storage, as those of `fuse` do."""
    weights = ((n, p.detach().to("cpu", copy=True)) for n, p in model.named_parameters())
    return {n if n.startswith("lm_head") else f"model.{n}": weight for n, weight in weights}
