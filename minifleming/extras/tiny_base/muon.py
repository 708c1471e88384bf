"""Muon (Jordan et al. 2024): momentum whose matrix updates are made nearly orthogonal.

Used for the tiny base alone. A decoder of this size learns to look a name up in its context only late or not at
all under AdamW; under Muon, with a growing set of names, in a few hundred steps (docs/tiny.md has the runs).
"""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic whose iteration drives singular values towards 1


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Roughly U Vᵀ of the singular value decomposition U S Vᵀ: singular values come to lie around 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """For two-dimensional hidden matrices; embeddings and norms belong to AdamW."""

    def __init__(self, parameters, lr: float = 0.02, momentum: float = 0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(state["momentum"], group["momentum"])  # Nesterov
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.add_(orthogonalise(ahead), alpha=-group["lr"] * scale)
