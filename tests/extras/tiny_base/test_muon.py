"""Tests for extras/tiny_base/muon.py."""

from __future__ import annotations

import pytest
import torch

from minifleming.extras.tiny_base.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(12, 12), (8, 30), (30, 8)])
def test_muon_orthogonalises(shape):
    """U S V^T keeps its singular vectors and loses its singular values, whatever its shape and scale."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.3, 3.0, min(shape))) @ vh
    found = orthogonalise(matrix)
    inside = u.T @ found @ vh.T
    assert (inside - inside.diag().diag()).abs().max() < 1e-4
    assert 0.6 < inside.diag().min() and inside.diag().max() < 1.3
    torch.testing.assert_close(orthogonalise(matrix * 1e3), found, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(orthogonalise(matrix.T), found.T, atol=1e-5, rtol=1e-4)


def test_muon_goes_down():
    """It moves against the gradient and lowers a quadratic, wide and tall alike."""
    for shape in ((4, 9), (9, 4)):
        goal = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        weight = torch.nn.Parameter(torch.zeros(shape))
        optimizer, losses = Muon([weight], lr=0.05), []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (weight - goal).square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[1] < losses[0] and losses[-1] < 0.5 * losses[0]
