"""Replayable sampling: a token depends on (seed, step, episode, position) and the distribution there, nothing else.

A stream of random numbers would make every token depend on who else is in the batch and in which order. Here the token
is the inverse of the CDF at a uniform that is computed from a key and the position, so that an episode is the same
whatever the batch size, the order of arrival and the latency of tools, but for rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _mix(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele et al., 2014) on int64 tensors, whose products wrap around as it needs."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def sampling_key(*parts: int) -> int:
    """One int64 key from (seed, step, episode, ...), for `uniforms`."""
    key = torch.tensor(0x1E3779B97F4A7C15)
    for part in parts:
        key = _mix(key + _mix(torch.tensor(part) + 0x3C6EF372FE94F82A))
    return int(key)


def uniforms(keys: Tensor, positions: Tensor) -> Tensor:
    """Uniforms in [0, 1), float64, that depend on key and position (int64, same shape) alone."""
    bits = _mix(_mix(keys + positions * 0x1E3779B97F4A7C15) ^ keys)
    return ((bits >> 11) & 0x1FFFFFFFFFFFFF).double() * 2.0**-53


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Sets to 0 what lies outside the smallest set of most likely tokens that has at least `top_p` of the mass
    (Holtzman et al., 2020). The first token always stays; among equals, those of lower number."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1, dtype=torch.float64) - ordered
    return probabilities.scatter(-1, tokens, ordered.masked_fill(before >= top_p, 0))


def sample(logits: Tensor, temperature: float, uniform: Tensor, top_p: float = 1.0) -> tuple[Tensor, Tensor]:
    """Tokens (int64 [n]) and their log-probs (float32 [n]) under softmax(logits / temperature), the full distribution.

    The token is the first whose cumulated probability (float64) exceeds the uniform, so one of probability 0 is never
    taken. Temperature 0 takes the most likely token; its log-prob is then that of temperature 1. `top_p` below 1 draws
    from the nucleus alone: for evaluation, since log-probs of another distribution than was drawn from would bias an
    update.
    """
    logits = logits.float()
    if temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, F.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    probabilities = (logits if temperature == 1 else logits / temperature).softmax(-1)
    cdf = (probabilities if top_p >= 1 else nucleus(probabilities, top_p)).cumsum(-1, dtype=torch.float64)
    tokens = torch.searchsorted(cdf, uniform[:, None] * cdf[:, -1:], right=True)
    tokens = tokens.clamp_(max=logits.shape[-1] - 1)  # u * total may round up to the total
    return tokens[:, 0], probabilities.gather(1, tokens)[:, 0].log()
