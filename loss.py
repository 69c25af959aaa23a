"""The loss of GRPO and its kin: advantages within groups, the loss of a token, and how tokens are averaged.

The algorithms that are known by names differ in a handful of choices, independent of each other: what a reward is
compared with and divided by (`advantage`), whether the ratio of new to old policy belongs to a token or to a whole
reply (`ratio`), what happens where it leaves its bounds (`bound`, `clip_low`, `clip_high`), and what a mean is taken
over (`aggregation`). A preset sets them all as its paper does; every flag departs from it by itself.

Differs from the papers: groups whose outcomes are all alike leave the batch and its denominators in every variant
(their advantages are 0, or phantoms of the reward's other terms). The defaults of the embedded model are DAPO's.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cli import UserError
from rollout import Episode
from training import reduce_over_ranks

ADVANTAGES = ("group_norm", "group_mean", "rloo", "batch")
RATIOS = ("token", "sequence")
BOUNDS = ("objective", "weight")
AGGREGATIONS = ("token", "sequence", "constant")
Choices = dict[str, Any]


# --------------------------------------------------------------------------------------------------------------------
# presets


def grpo() -> Choices:
    """GRPO (Shao et al., 2024, DeepSeekMath, equations 3 and 4), as R1-Code-Interpreter has it: the mean over a reply's
    tokens, then over replies; KL to the start at 0.001."""
    return {
        "advantage": "group_norm", "ratio": "token", "bound": "objective", "clip_low": 0.2, "clip_high": 0.2,
        "aggregation": "sequence", "kl": 0.001,
    }  # fmt: skip


def dr_grpo() -> Choices:
    """Dr. GRPO (Liu et al., 2025, "Understanding R1-Zero-Like Training", section 3.2): neither the division by the
    group's deviation, which favours questions that are nearly always or never solved, nor the one by a reply's own
    length, which favours long wrong ones."""
    return grpo() | {"advantage": "group_mean", "aggregation": "constant", "kl": 0.0}


def dapo() -> Choices:
    """DAPO (Yu et al., 2025, equation 8): the mean over all tokens, a looser upper bound, no KL. The paper's dynamic
    sampling is --refills, its mask on overlong replies --mask_truncated."""
    return grpo() | {"clip_high": 0.28, "aggregation": "token", "kl": 0.0}


def gspo() -> Choices:
    """GSPO (Zheng et al., 2025, equations 5 and 7): one ratio for a reply, the geometric mean over its tokens, and
    bounds as narrow as it is steady (section 5.1)."""
    return grpo() | {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "kl": 0.0}


def cispo() -> Choices:
    """CISPO (MiniMax-M1, Chen et al., 2025, equations 4 and 5): the bounded ratio is a constant weight of the
    log-prob's gradient, so that no token's is lost. No lower bound; the upper one, which the paper does not tell, is
    5 (ScaleRL, Khatri et al., 2025)."""
    return grpo() | {"bound": "weight", "clip_low": 1.0, "clip_high": 4.0, "aggregation": "token", "kl": 0.0}


def reinforce_pp() -> Choices:
    """REINFORCE++ with baseline (Hu et al., 2025, section 3): rewards less their group's mean, divided by the
    deviation of the whole batch; the mean over all tokens, KL at 0.001. (Its KL estimate is k2; ours is k3.)"""
    return grpo() | {"advantage": "batch", "aggregation": "token"}


PRESETS: dict[str, Callable[[], Choices]] = {
    preset.__name__: preset for preset in (grpo, dr_grpo, dapo, gspo, cispo, reinforce_pp)
}


@dataclasses.dataclass
class LossArguments:
    """The choices; those that are not made are the preset's. A part of the arguments of grpo.py."""

    preset: str = dataclasses.field(
        default="dapo",
        metadata={"help": f"{' | '.join(PRESETS)}: see loss.py; as a flag, in place of a configuration file's choices"},
    )
    advantage: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "group_norm: (reward - mean) / std of the group; group_mean: without the division; rloo: reward - "
            "mean of the others; batch: group_mean / its std in the batch"
        },
    )
    ratio: str | None = dataclasses.field(
        default=None, metadata={"help": "new to old policy: of each token | of the whole sequence"}
    )
    bound: str | None = dataclasses.field(
        default=None,
        metadata={"help": "objective: no gradient beyond the bounds (PPO); weight: bounded, and constant (CISPO)"},
    )
    clip_low: float | None = dataclasses.field(default=None, metadata={"help": "the ratio is bounded by 1 - this"})
    clip_high: float | None = dataclasses.field(default=None, metadata={"help": "... and by 1 + this"})
    aggregation: str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "token: mean over all tokens; sequence: over each episode's, then over episodes; constant: sum "
            "over each episode's, divided by the longest reply allowed, then mean over episodes"
        },
    )
    kl: float | None = dataclasses.field(
        default=None, metadata={"help": "coefficient of KL to the start; 0 keeps no copy of it"}
    )
    entropy_bonus: float = dataclasses.field(default=0.0, metadata={"help": "coefficient of the entropy, to be raised"})
    importance_cap: float = dataclasses.field(
        default=0.0,
        metadata={"help": "tokens are weighed by trainer / generator probability, at most so much; 0: all alike"},
    )

    @staticmethod
    def replaced_by(flags: Sequence[str]) -> set[str]:
        """The settings of a configuration file that flags replace beyond those that they name: a run folder's own file
        holds all choices, and would make of another preset the old one under a new name."""
        given = any(flag.split("=")[0] == "--preset" for flag in flags)
        return set(grpo()) if given else set()

    def fill(self) -> None:
        """Makes the choices that are still open, the preset's way; UserError for a preset that there is not."""
        if self.preset not in PRESETS:
            raise UserError(f"unknown preset {self.preset!r}: one of {', '.join(PRESETS)}")
        for name, value in PRESETS[self.preset]().items():
            if getattr(self, name) is None:
                setattr(self, name, value)


# --------------------------------------------------------------------------------------------------------------------
# advantages


def live_groups(episodes: list[Episode], mask_truncated: bool = False) -> list[list[Episode]]:
    """The episodes that count, in groups; only groups with something to learn from.

    An episode that the sandbox failed, or whose prompt did not fit, or on demand one that was cut short, leaves its
    group's statistics. A group with fewer than two episodes left, or whose outcomes are all right or all wrong, is
    dropped whole: with rewards beyond right and wrong, normalising would blow its tiny differences up to full size.
    """
    left_out = {"sandbox_error", "prompt_too_long"} | ({"length", "turns"} if mask_truncated else set())
    groups: dict[int, list[Episode]] = {}
    for episode in episodes:
        if episode.finish not in left_out:
            groups.setdefault(episode.group, []).append(episode)
    return [members for members in groups.values() if len({episode.correct for episode in members}) == 2]


def group_advantages(episodes: list[Episode], kind: str = "group_norm", mask_truncated: bool = False) -> list[Episode]:
    """Sets the advantages of this rank's episodes, of which it has whole groups, and returns those of `live_groups`.

    group_norm: (reward - mean) / (std + 1e-6), std unbiased (GRPO, Shao et al., 2024, section 4.1.2). group_mean:
    reward - mean alone (Dr. GRPO, Liu et al., 2025). rloo: reward - mean of the others (Ahmadian et al., 2024,
    equation 8), n / (n - 1) times the former. batch: group_mean divided by its root mean square over the groups with
    signal of all ranks (a collective call; REINFORCE++ with baseline, Hu et al., 2025).
    """
    for episode in episodes:
        episode.advantage = 0.0
    live = []
    for members in live_groups(episodes, mask_truncated):
        rewards = torch.tensor([episode.reward for episode in members])
        advantages = rewards - rewards.mean()
        if kind == "group_norm":
            advantages = advantages / (rewards.std() + 1e-6)
        elif kind == "rloo":
            advantages = advantages * len(members) / (len(members) - 1)
        for episode, advantage in zip(members, advantages.tolist(), strict=True):
            episode.advantage = advantage
        live += members
    if kind == "batch":
        squares, count = reduce_over_ranks([sum(episode.advantage**2 for episode in live), len(live)])
        for episode in live:
            episode.advantage /= (squares / count) ** 0.5 + 1e-6
    return live


# --------------------------------------------------------------------------------------------------------------------
# tokens


class Tokens(NamedTuple):
    """What the loss is made of: the n tokens of a micro-batch that carry loss, whole episodes. float32 [n]."""

    log_probs: Tensor  # under the policy, with gradient
    old: Tensor  # under the policy before the first update on these episodes
    advantages: Tensor
    owner: Tensor  # int64 [n]: the episode, counted from 0
    entropy: Tensor  # of the policy's distribution, with gradient
    sampler: Tensor  # log-probs as the generator reported them
    reference: Tensor | None = None  # log-probs under the model that KL holds the policy to


def policy_loss(tokens: Tokens, choices: LossArguments) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss per token (float32 [n], to be weighted and summed), and per-token measurements without gradient.

    bound "objective": the clipped surrogate of PPO (Schulman et al., 2017, equation 7) with separate bounds (DAPO, Yu
    et al., 2025, equation 8). "weight": REINFORCE under a bounded, detached ratio (CISPO, Chen et al., 2025, equation
    4). Then `importance_cap` (truncated importance sampling, Yao et al., 2025), `kl` times the k3 estimate of
    KL(policy || reference) (GRPO, Shao et al., 2024, equation 4), minus `entropy_bonus` times the entropy.
    """
    log_probs, advantages = tokens.log_probs, tokens.advantages
    difference = log_probs - tokens.old
    if choices.ratio == "sequence":
        counts = torch.bincount(tokens.owner)
        sums = difference.new_zeros(len(counts)).index_add(0, tokens.owner, difference)
        difference = (sums / counts.clamp(min=1))[tokens.owner]
    # Clamped before exp: one token that the old policy found absurd must not turn the batch into inf.
    ratio = difference.clamp(-20, 20).exp()
    bounded = ratio.clamp(1 - choices.clip_low, 1 + choices.clip_high)
    if choices.bound == "objective":
        loss = -torch.minimum(ratio * advantages, bounded * advantages)
        clipped = ratio * advantages > bounded * advantages
    else:
        loss = -bounded.detach() * advantages * log_probs
        clipped = ratio != bounded
    measured = {"clip_fraction": clipped.float()}
    if choices.importance_cap:
        loss = loss * (tokens.old - tokens.sampler).clamp(-20, 20).exp().clamp(max=choices.importance_cap)
    if tokens.reference is not None:
        log_ratio = (tokens.reference - log_probs).clamp(-20, 20)
        divergence = log_ratio.exp() - log_ratio - 1
        loss = loss + choices.kl * divergence
        measured["kl"] = divergence.detach()
    if choices.entropy_bonus:
        loss = loss - choices.entropy_bonus * tokens.entropy
    return loss, measured


def token_weights(counts: list[int], aggregation: str, longest: int = 1) -> list[float]:
    """The weight of each token of each episode, from the numbers of tokens with loss of this rank's episodes (a
    collective call). Over all ranks' tokens, the weights of "token" and "sequence" sum to 1; those of "constant" to the
    mean length as a share of `longest`."""
    tokens, episodes = reduce_over_ranks([sum(counts), len(counts)])
    if aggregation == "token":
        return [1 / tokens] * len(counts)
    if aggregation == "constant":
        return [1 / (episodes * longest)] * len(counts)
    return [1 / (episodes * count) for count in counts]
