"""The objective (arXiv:2509.15279 Eq. 1-3), exactly: on-policy, no ratio, no clip, no KL, no deviation.

    L = - E_x,{y_i} [ (1/k) Σ_i log π(y_i|x) · A(x, y_i) ]        Eq. 1
    A(x, y_i) = r(x, y_i) - r̄                                     Eq. 2
    r̄ = (1/k) Σ_j r(x, y_j)                                       Eq. 3

log π(y|x) is the sum over the tokens of y, its end token included. E_x is the mean over the prompts of the step,
so the loss divides by k · prompts and by nothing else; groups with constant reward add nothing and still count.
"""

from __future__ import annotations

from torch import Tensor


def advantages(rewards: list[float]) -> list[float]:
    """Eq. 2-3 for one group: r_i - r̄, in fp64. Exactly zero for a constant group, also of 0.3s."""
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def policy_loss(sequence_logprobs: Tensor, advantage: Tensor, samples: int, prompts: int) -> Tensor:
    """Eq. 1 for some of a step's sequences; the parts of all micro-batches and ranks add up to L.

    Args:
        sequence_logprobs: log π(y|x), summed over tokens. [B]
        advantage: A(x, y), no gradient. [B]
        samples: k. prompts: the prompts of the whole step, over all ranks, constant groups included.
    """
    return -(sequence_logprobs * advantage).sum() / (samples * prompts)
