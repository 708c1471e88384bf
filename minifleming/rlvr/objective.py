"""The objective (arXiv:2509.15279 Eq. 1-3), exactly, and the field's variants of it, each one line of a table away.

    L = - E_x,{y_i} [ (1/k) Σ_i log π(y_i|x) · A(x, y_i) ]        Eq. 1
    A(x, y_i) = r(x, y_i) - r̄                                     Eq. 2
    r̄ = (1/k) Σ_j r(x, y_j)                                       Eq. 3

log π(y|x) is the sum over the tokens of y, its end token included. E_x is the mean over the prompts of the step, so
``paper`` divides by k · prompts and by nothing else; groups of constant reward add nothing and still count.

A step has three parts: ``advantages`` of each group; ``policy_loss`` of each token (plus ``kl``, if it is asked for);
``aggregate`` of the tokens into one number. Whatever a denominator counts, it counts over the whole optimizer step:
all micro-batches, all ranks.

B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minifleming.run.fields import RL

EPSILON = 1e-4  # beside a deviation in a denominator, as in TRL


@dataclass(frozen=True)
class Objective:
    """One row of the table: what weighs the advantage, where that is clipped, the mean taken, the advantage."""

    ratio: str  # none: A log π; token: A ρ_t; sequence: A exp(mean log ρ); cispo_weight: A ρ_t log π, ρ_t a constant
    clip: tuple[float, float] | None  # ρ is clipped to [1 - low, 1 + high]
    mean: str  # a mode of ``aggregate``
    advantage: str  # a scale of ``advantages``


OBJECTIVES = {
    "paper": Objective("none", None, "sequence_sum", "centred"),  # Eq. 1-3
    "dr_grpo": Objective("token", (0.2, 0.2), "constant", "centred"),  # Liu et al. 2025, arXiv:2503.20783
    "grpo": Objective("token", (0.2, 0.2), "sequence_mean", "group"),  # Shao et al. 2024, arXiv:2402.03300
    "dapo": Objective("token", (0.2, 0.28), "token_mean", "group"),  # Yu et al. 2025, arXiv:2503.14476
    "gspo": Objective("sequence", (3e-4, 4e-4), "sequence_mean", "group"),  # Zheng et al. 2025, arXiv:2507.18071
    "cispo": Objective("cispo_weight", (1.0, 4.0), "token_mean", "group"),  # MiniMax 2025, arXiv:2506.13585
}
SCALES = ("centred", "group", "batch", "leave_one_out")
ESTIMATORS = ("k1", "k2", "k3")


def objective_of(cfg: RL) -> Objective:
    """The named objective with the fields that override a part of it."""
    named = OBJECTIVES[cfg.objective]
    return replace(named, advantage=cfg.advantage or named.advantage, clip=tuple(cfg.clip_eps) or named.clip)


def advantages(rewards: list[float], scale: str = "centred", batch: float = 0.0) -> list[float]:
    """One group's advantages, in fp64. Exactly zero for a constant group, also of 0.3s: decided by max = min.

    centred        r_i - r̄                              Eq. 2-3; expected gradient (1 - 1/k) ∇J
    leave_one_out  r_i - mean of the others             = centred · k / (k - 1); unbiased
    group          (r_i - r̄) / (deviation + 1e-4)       of the group, unbiased (k - 1)
    batch          (r_i - r̄) / (deviation + 1e-4)       of all rewards of the step: ``batch``
    """
    k = len(rewards)
    if max(rewards) == min(rewards):
        return [0.0] * k
    mean = sum(rewards) / k
    divisor = {"centred": 1.0, "leave_one_out": (k - 1) / k, "group": deviation(rewards) + EPSILON,
               "batch": batch + EPSILON}[scale]
    return [(reward - mean) / divisor for reward in rewards]


def deviation(rewards: list[float]) -> float:
    """The unbiased standard deviation (n - 1); 0 for a single reward."""
    mean = sum(rewards) / len(rewards)
    return (sum((r - mean) ** 2 for r in rewards) / max(len(rewards) - 1, 1)) ** 0.5


def log_ratio(logprobs: Tensor, old: Tensor, mask: Tensor, objective: Objective) -> Tensor:
    """log ρ: π over the policy that sampled, by token, or for ``sequence`` its mean over the tokens. -> [B, T]"""
    difference = (logprobs - old) * mask
    if objective.ratio == "sequence":
        return (difference.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)).expand_as(logprobs)
    return difference


def policy_loss(logprobs: Tensor, old: Tensor, advantage: Tensor, mask: Tensor, objective: Objective) -> Tensor:
    """The loss of each token, before any mean. -> [B, T]

    Args:
        logprobs: log π(y_t | x, y_<t). [B, T]
        old: the same under the policy that sampled, no gradient; equal to ``logprobs`` while on-policy. [B, T]
        advantage: A(x, y), no gradient. [B]
        mask: which of the T are tokens of y. [B, T]
    """
    A = advantage[:, None]
    if objective.ratio == "none":
        return -logprobs * A
    ratio = log_ratio(logprobs, old, mask, objective).exp()
    clipped = ratio.clamp(1 - objective.clip[0], 1 + objective.clip[1])
    if objective.ratio == "cispo_weight":
        return -clipped.detach() * A * logprobs
    return -torch.minimum(ratio * A, clipped * A)


def clipped(logprobs: Tensor, old: Tensor, advantage: Tensor, mask: Tensor,
            objective: Objective) -> tuple[Tensor, Tensor]:
    """Where the clip acts, below and above: it takes the gradient away, or for ``cispo_weight`` bounds it. bool [B, T]

    A ratio beyond the bound of the *other* sign of advantage is not clipped: there the minimum is the ratio itself.
    """
    if objective.ratio == "none":
        return torch.zeros_like(mask), torch.zeros_like(mask)
    ratio, A = log_ratio(logprobs, old, mask, objective).exp(), advantage[:, None]
    low, high = ratio < 1 - objective.clip[0], ratio > 1 + objective.clip[1]
    if objective.ratio == "cispo_weight":
        return low & mask & (A != 0), high & mask & (A != 0)
    return low & mask & (A < 0), high & mask & (A > 0)


def kl(logprobs: Tensor, reference: Tensor, old: Tensor, estimator: str = "k3", weighted: bool = True) -> Tensor:
    """An estimate of KL(π || reference) from each sampled token (Schulman 2020). All [B, T].

    With d = reference - log π:  k1 = -d,  k2 = d² / 2,  k3 = exp(d) - 1 - d >= 0.
    ``weighted`` multiplies by ρ = π / old, whose gradient counts that the samples come from π itself. With it k1 and k3
    have the gradient of KL(π || reference); without it that of k1 is zero on average and that of k3 is the gradient of
    KL(reference || π). k2 has the right gradient without the weight alone.
    """
    d = reference - logprobs
    value = {"k1": -d, "k2": d.square() / 2, "k3": d.exp() - 1 - d}[estimator]
    return value * (logprobs - old).exp() if weighted else value


@dataclass(frozen=True)
class Counts:
    """What one optimizer step holds over all micro-batches and ranks; constant groups count."""

    sequences: int  # k · prompts
    tokens: int  # of all completions
    longest: int  # the limit on a completion's tokens, a constant of the run


def aggregate(values: Tensor, mask: Tensor, mode: str, global_counts: Counts) -> Tensor:
    """One number from the tokens of a micro-batch; those of all micro-batches and ranks add up to the loss.

    sequence_sum   (1 / sequences) Σ_i Σ_t v            Eq. 1
    sequence_mean  (1 / sequences) Σ_i (1/|y_i|) Σ_t v
    token_mean     (1 / tokens) Σ_i Σ_t v
    constant       (1 / (sequences · longest)) Σ_i Σ_t v

    The numerator's mask is the one that the counts were made from. No sequences give 0, with a gradient of 0.
    """
    values = torch.where(mask, values, 0.0)
    if mode == "sequence_mean":
        values = values / mask.sum(-1, keepdim=True).clamp(min=1)
    return values.sum() / max(denominator(mode, global_counts), 1)


def denominator(mode: str, counts: Counts) -> int:
    """What every token is divided by; in ``sequence_mean`` its sequence's length comes on top."""
    return {"sequence_sum": counts.sequences, "sequence_mean": counts.sequences, "token_mean": counts.tokens,
            "constant": counts.sequences * counts.longest}[mode]
