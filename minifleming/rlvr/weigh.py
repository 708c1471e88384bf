"""What each token of a micro-batch weighs in the loss: dL/dlogπ, in fp64 for the log ("coefficient"), and for the head
the policy from which it makes the same in fp32.

B sequences, T tokens of the longest.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.kernels.head import TokenLoss
from minifleming.lm.model import LanguageModel
from minifleming.rlvr.objective import (
    Counts,
    aggregate,
    clipped,
    denominator,
    kl,
    objective_of,
    policy_loss,
)
from minifleming.rlvr.rollout import Rollout
from minifleming.run.fields import RL


@dataclass(frozen=True)
class Weighed:
    """What the log-probabilities of a micro-batch's rollouts add to the loss. [B, T] each"""

    mask: Tensor  # the tokens
    coefficient: Tensor  # dL/dlogπ, fp64
    low: Tensor  # where the clip acts below
    high: Tensor
    loss: float
    kl: float


def weigh(rollouts: list[Rollout], flat: list[float], cfg: RL, counts: Counts, first: bool,
          device: torch.device) -> Weighed:
    """``flat``: log π of all tokens, one after another; ``first``: they are of the policy that sampled."""
    objective, divergence = objective_of(cfg), 0.0
    leaf, mask = columns(rollouts, flat, device)
    leaf.requires_grad_()
    old = leaf.detach() if first else columns(rollouts, [p for r in rollouts for p in r.trained], device)[0]
    advantage = torch.tensor([r.advantage for r in rollouts], dtype=torch.float64, device=device)
    values = policy_loss(leaf, old, advantage, mask, objective)
    if cfg.kl_coef > 0:
        reference = columns(rollouts, [p for r in rollouts for p in r.reference], device)[0]
        estimate = kl(leaf, reference, old, cfg.kl_estimator, cfg.kl_importance_weighted)
        values = values + cfg.kl_coef * estimate
        divergence = aggregate(estimate.detach(), mask, objective.mean, counts).item()
    loss = aggregate(values, mask, objective.mean, counts)
    loss.backward()
    low, high = clipped(leaf.detach(), old, advantage, mask, objective)
    return Weighed(mask, leaf.grad, low, high, loss.item(), divergence)


def policy_of(rollouts: list[Rollout], cfg: RL, counts: Counts, first: bool, model: LanguageModel) -> TokenLoss | None:
    """The loss token by token, so that the head makes its gradients while the logits are there; None where a token's
    part depends on others' log-probabilities or on a reference, or where the head must compute as the sampler does.

    On the policy that sampled every ratio is 1, so the coefficients do not depend on the log-probabilities.
    """
    objective = objective_of(cfg)
    if cfg.kl_coef > 0 or model.deterministic or (objective.ratio == "sequence" and not first):
        return None
    if first or objective.ratio == "none":
        found = weigh(rollouts, [0.0] * sum(len(r.ids) for r in rollouts), cfg, counts, True, torch.device("cpu"))
        return TokenLoss("weighted", found.coefficient[found.mask].float().to(model.device))
    tokens = zip(*((1 / divisor_of(r, cfg, counts), r.advantage, old) for r in rollouts for old in r.trained))
    weight, advantage, old = (torch.tensor(column, device=model.device) for column in tokens)
    return TokenLoss(objective.ratio, weight, advantage, old, *objective.clip)


def columns(rollouts: list[Rollout], flat: list[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """Numbers of the tokens, one after another, as rows in fp64, and the mask of the tokens. [B, T], [B, T]"""
    lengths = torch.tensor([len(r.ids) for r in rollouts], device=device)
    mask = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    rows = torch.zeros(mask.shape, dtype=torch.float64, device=device)
    rows[mask] = torch.tensor(flat, dtype=torch.float64, device=device)
    return rows, mask


def divisor_of(r: Rollout, cfg: RL, counts: Counts) -> int:
    """What each token of a sample is divided by."""
    mean = objective_of(cfg).mean
    return denominator(mean, counts) * (len(r.ids) if mean == "sequence_mean" else 1)
