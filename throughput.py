"""What generation costs, and what it would cost if the machine did nothing but read memory and multiply.

The roofline (Williams et al., 2009) of a pass: it has to read all weights and the keys and values of every sequence in
it, and to do a certain number of multiplications. Whichever of the two takes longer on this machine, whose bandwidth
and speed are measured, is the least that the pass can take.
"""

import dataclasses
import functools
import time

import torch

from model import Decoder

READ_AT_MOST = 2**28  # bytes, to measure the bandwidth


@functools.lru_cache
def machine_peak(device: torch.device, dtype: torch.dtype, threads: int, nbytes: int) -> tuple[float, float]:
    """Bytes per second when `nbytes` are read again and again, and floating point operations per second of a large
    matrix product; measured in some tenths of a second."""
    size = 512 if device.type == "cpu" else 8192
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    memory = torch.ones(nbytes // dtype.itemsize, dtype=dtype, device=device)

    def fastest(function) -> float:
        seconds = []
        for _ in range(6):
            started = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    return memory.nbytes / fastest(memory.sum), 2 * size**3 / fastest(lambda: matrix @ matrix)


class Roofline:
    """The least time that passes of a model can take on this machine."""

    def __init__(self, model: Decoder):
        config, weight = model.config, model.embed_tokens.weight
        width = config.num_heads * config.head_dim
        self.head_flops = 2 * weight.numel()
        self.weights = sum(p.numel() for p in model.parameters()) - (0 if config.tied else weight.numel())
        self.row_flops = 2 * self.weights - self.head_flops
        self.weight_bytes = self.weights * weight.itemsize
        self.token_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * weight.itemsize
        self.pair_flops = 4 * config.num_layers * width  # a query and a key
        nbytes = min(READ_AT_MOST, self.weight_bytes)
        self.bandwidth, self.peak = machine_peak(weight.device, weight.dtype, torch.get_num_threads(), nbytes)

    def seconds(self, rows: int, samples: int, prefix: int, pairs: int, passes: int = 1) -> float:
        """`rows` of the passes, those of them that sample, the cached tokens that are read, and query-key pairs."""
        nbytes = passes * self.weight_bytes + prefix * self.token_bytes
        flops = rows * self.row_flops + samples * self.head_flops + pairs * self.pair_flops
        return max(nbytes / self.bandwidth, flops / self.peak)


@dataclasses.dataclass
class GeneratorStats:
    """Running totals of a generator. A step that prefills and decodes counts for each by its share of the rows."""

    passes: int = 0  # forward passes
    busy_passes: float = 0.0  # the same, each weighed by the share of slots that took part
    sampled_tokens: int = 0
    prefilled_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    roofline_seconds: float = 0.0  # the least that the same passes could have taken


@dataclasses.dataclass
class RolloutStats(GeneratorStats):
    """What a rollout cost. Seconds are wall time."""

    seconds: float = 0.0
    tool_wait_seconds: float = 0.0  # nothing to generate, waiting for programs
    programs: int = 0
    program_seconds: float = 0.0  # sum over programs, most of it in parallel with generation
    program_cpu_seconds: float = 0.0
    program_queue_seconds: float = 0.0
    sandbox_errors: int = 0

    def __add__(self, other: "RolloutStats") -> "RolloutStats":
        """Of one rollout after another."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return RolloutStats(**{name: value + theirs[name] for name, value in mine.items()})

    def rates(self, useful_tokens: int) -> dict[str, float]:
        """How fast it was, and where the time went. `useful_tokens`: sampled tokens of the episodes that count."""
        generating = self.prefill_seconds + self.decode_seconds
        parts = {
            "tokens_per_second": (self.sampled_tokens, self.seconds),
            "useful_tokens_per_second": (useful_tokens, self.seconds),
            "slots_busy": (self.busy_passes, self.passes),
            "tool_wait_share": (self.tool_wait_seconds, self.seconds),
            "prefill_share": (self.prefill_seconds, generating),
            "roofline_share": (self.roofline_seconds, generating),
        }
        return {name: part / whole if whole else 0.0 for name, (part, whole) in parts.items()}
