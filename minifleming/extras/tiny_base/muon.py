"""Muon (Jordan et al. 2024): momentum whose matrix updates are made nearly orthogonal.

Used only for the tiny base. With AdamW a decoder of this size learns late or never to look up a
name in its context; with Muon and a growing set of names it takes a few hundred steps, see
docs/tiny.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # its iteration drives singular values to about 1


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return roughly U Vᵀ of the decomposition U S Vᵀ; its singular values are about 0.7 to 1.2."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm() + 1e-7)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(steps):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """An optimizer for two-dimensional hidden matrices; AdamW takes embeddings and norms."""

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
