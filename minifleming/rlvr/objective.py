"""[8/10] The objective (arXiv:2509.15279 Eq. 1-3), and the field's variants as rows of a table.

    L = - E_x,{y_i} [ (1/k) Σ_i log π(y_i|x) · A(x, y_i) ]        Eq. 1
    A(x, y_i) = r(x, y_i) - r̄                                     Eq. 2
    r̄ = (1/k) Σ_j r(x, y_j)                                       Eq. 3

log π(y|x) is the sum over the tokens of y, including its end token. E_x is the mean over the
prompts of the step. So ``paper`` divides by k · prompts and by nothing else; groups with constant
reward contribute zero and still count.

A step has three parts: ``advantages`` of each group; ``policy_loss`` (and optionally ``kl``) of
each token; ``aggregate`` of the tokens into one number. Every denominator counts over the whole
optimizer step: all micro-batches, all ranks.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minifleming.run.fields import RL

EPSILON = 1e-4  # added to a standard deviation before dividing by it, as in TRL


@dataclass(frozen=True)
class Objective:
    """One row of the table."""

    ratio: str  # none: A log π; token: A ρ_t; sequence: A exp(mean log ρ);
    #             cispo_weight: A ρ_t log π with ρ_t constant
    clip: tuple[float, float] | None  # ρ is clipped to [1 - low, 1 + high]
    aggregation: str  # a mode of ``aggregate``
    advantage: str  # a scale of ``advantages``


OBJECTIVES = {
    # this paper, Eq. 1-3
    "paper": Objective("none", None, "sequence_sum", "mean_baseline"),
    # Liu et al. 2025, arXiv:2503.20783
    "dr_grpo": Objective("token", (0.2, 0.2), "constant", "mean_baseline"),
    # Shao et al. 2024, arXiv:2402.03300
    "grpo": Objective("token", (0.2, 0.2), "sequence_mean", "group"),
    # Yu et al. 2025, arXiv:2503.14476
    "dapo": Objective("token", (0.2, 0.28), "token_mean", "group"),
    # Zheng et al. 2025, arXiv:2507.18071
    "gspo": Objective("sequence", (3e-4, 4e-4), "sequence_mean", "group"),
    # MiniMax 2025, arXiv:2506.13585
    "cispo": Objective("cispo_weight", (1.0, 4.0), "token_mean", "group"),
}
SCALES = ("mean_baseline", "group", "batch", "leave_one_out")


@dataclass(frozen=True)
class GlobalCounts:
    """Sizes of one optimizer step over all micro-batches and ranks, constant groups included."""

    sequences: int  # k · prompts
    tokens: int  # of all completions
    max_tokens: int  # the limit on a completion's tokens, a constant of the run


def objective_of(cfg: RL) -> Objective:
    """Returns the configured objective, with the fields that override a part of it."""
    named = OBJECTIVES[cfg.objective]
    advantage = cfg.advantage or named.advantage
    return replace(named, advantage=advantage, clip=tuple(cfg.clip_eps) or named.clip)


def advantages(rewards: list[float], scale: str = "mean_baseline",
               batch_std: float = 0.0) -> list[float]:
    """Returns the advantages of one group, in fp64; exactly zero if all rewards are equal.

    mean_baseline  r_i - r̄                       Eq. 2-3; expected gradient (1 - 1/k) ∇J
    leave_one_out  r_i - mean of the others      = mean_baseline · k / (k - 1); unbiased
    group          (r_i - r̄) / (std + 1e-4)      std of the group, unbiased (k - 1)
    batch          (r_i - r̄) / (std + 1e-4)      std of all rewards of the step: ``batch_std``
    """
    k = len(rewards)
    if max(rewards) == min(rewards):  # a std would not be exactly 0 for eight rewards of 0.3
        return [0.0] * k
    mean = sum(rewards) / k
    divisor = 1.0
    if scale == "leave_one_out":
        divisor = (k - 1) / k
    elif scale == "group":
        divisor = sample_std(rewards) + EPSILON
    elif scale == "batch":
        divisor = batch_std + EPSILON
    return [(reward - mean) / divisor for reward in rewards]


def sample_std(rewards: list[float]) -> float:
    """Returns the unbiased standard deviation (n - 1); 0 for a single reward."""
    mean = sum(rewards) / len(rewards)
    squares = sum((r - mean) ** 2 for r in rewards)
    return (squares / max(len(rewards) - 1, 1)) ** 0.5


def log_ratio(logprobs: Tensor, old: Tensor, mask: Tensor, objective: Objective) -> Tensor:
    """Returns log π - log π_old per token; for ``sequence`` their mean. [B, T]"""
    difference = (logprobs - old) * mask
    if objective.ratio == "sequence":
        mean = difference.sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        return mean.expand_as(logprobs)
    return difference


def policy_loss(logprobs: Tensor, old: Tensor, advantage: Tensor, mask: Tensor,
                objective: Objective) -> Tensor:
    """Returns the loss of each token, before any averaging. [B, T]

    Args:
        logprobs: log π(y_t | x, y_<t). [B, T]
        old: the same under the policy before the step, without gradient; on-policy equal to
            ``logprobs``. [B, T]
        advantage: A(x, y), without gradient. [B]
        mask: True for the tokens of y. [B, T]
    """
    A = advantage[:, None]
    if objective.ratio == "none":
        return -logprobs * A
    ratio = log_ratio(logprobs, old, mask, objective).exp()
    clipped_ratio = ratio.clamp(1 - objective.clip[0], 1 + objective.clip[1])
    if objective.ratio == "cispo_weight":
        return -clipped_ratio.detach() * A * logprobs
    return -torch.minimum(ratio * A, clipped_ratio * A)


def clipped(logprobs: Tensor, old: Tensor, advantage: Tensor, mask: Tensor,
            objective: Objective) -> tuple[Tensor, Tensor]:
    """Returns the tokens whose ratio is clipped from below and from above. bool [B, T] each

    Clipping removes the token's gradient, or for ``cispo_weight`` bounds its weight. A ratio
    outside the interval on the side that the other sign of the advantage would clip is not clipped:
    there the minimum is the ratio itself.
    """
    if objective.ratio == "none":
        return torch.zeros_like(mask), torch.zeros_like(mask)
    ratio = log_ratio(logprobs, old, mask, objective).exp()
    A = advantage[:, None]
    low = (ratio < 1 - objective.clip[0]) & mask
    high = (ratio > 1 + objective.clip[1]) & mask
    if objective.ratio == "cispo_weight":
        return low & (A != 0), high & (A != 0)
    return low & (A < 0), high & (A > 0)


def kl(logprobs: Tensor, reference: Tensor, old: Tensor, estimator: str = "k3",
       weighted: bool = True) -> Tensor:
    """Returns an estimate of KL(π || reference) per sampled token (Schulman 2020). All [B, T].

    With d = reference - log π:  k1 = -d,  k2 = d² / 2,  k3 = exp(d) - 1 - d >= 0.

    ``weighted`` multiplies by ρ = π / π_old, so that the gradient accounts for sampling from π.
    With it, k1 and k3 have the gradient of KL(π || reference). Without it, k1 has zero expected
    gradient and k3 has that of KL(reference || π); k2 has the right gradient only without it.
    """
    d = reference - logprobs
    value = {"k1": -d, "k2": d.square() / 2, "k3": d.exp() - 1 - d}[estimator]
    return value * (logprobs - old).exp() if weighted else value


def aggregate(values: Tensor, mask: Tensor, mode: str, counts: GlobalCounts) -> Tensor:
    """Returns a micro-batch's contribution to the loss, a scalar. Contributions are summed.

    sequence_sum   (1 / sequences) Σ_i Σ_t v            Eq. 1
    sequence_mean  (1 / sequences) Σ_i (1/|y_i|) Σ_t v
    token_mean     (1 / tokens) Σ_i Σ_t v
    constant       (1 / (sequences · max_tokens)) Σ_i Σ_t v

    The mask is the one that ``counts`` were computed from. An empty micro-batch gives 0 with
    gradient 0.
    """
    values = torch.where(mask, values, 0.0)
    if mode == "sequence_mean":
        values = values / mask.sum(-1, keepdim=True).clamp(min=1)
    return values.sum() / max(denominator(mode, counts), 1)


def denominator(mode: str, counts: GlobalCounts) -> int:
    """Returns the divisor of every token; ``sequence_mean`` also divides by the sequence length."""
    if mode == "token_mean":
        return counts.tokens
    if mode == "constant":
        return counts.sequences * counts.max_tokens
    return counts.sequences
