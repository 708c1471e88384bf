"""Eq. 1-3, computed a second way: exact enumeration, literals, invariances, finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from minifleming.rlvr.objective import advantages, policy_loss

END, WORDS, LONGEST = 0, (1, 2), 3


def sequences() -> list[tuple[int, ...]]:
    """Every completion over {end, 1, 2} of at most three tokens."""
    found = []
    for n in range(LONGEST):
        found += [(*words, END) for words in itertools.product(WORDS, repeat=n)]
    return found + list(itertools.product(WORDS, repeat=LONGEST))


def log_prob(table: torch.Tensor, y: tuple[int, ...]) -> torch.Tensor:
    """log π(y) of a tabular policy: one row of logits per prefix."""
    prefixes = [p for n in range(LONGEST) for p in itertools.product(WORDS, repeat=n)]
    rows = torch.log_softmax(table, -1)
    return sum(rows[prefixes.index(y[:t]), y[t]] for t in range(len(y)))


@pytest.mark.parametrize("k", [2, 3])
def test_T1_expected_gradient_of_eq_1_to_3_is_minus_1_minus_1_over_k_grad_J(k):
    """E over all groups of grad L equals -(1 - 1/k) grad J, exactly (fp64, 1e-12)."""
    torch.manual_seed(0)
    table = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    ys = sequences()
    reward = {y: float(torch.rand(())) for y in ys}
    logps = torch.stack([log_prob(table, y) for y in ys])
    probability = logps.exp()
    assert math.isclose(probability.sum().item(), 1.0, abs_tol=1e-12)
    objective = (probability * torch.tensor([reward[y] for y in ys], dtype=torch.float64)).sum()
    truth = torch.autograd.grad(objective, table, retain_graph=True)[0]
    expected = torch.zeros((), dtype=torch.float64)
    for group in itertools.product(range(len(ys)), repeat=k):
        weight = probability[list(group)].prod().detach()
        advantage = torch.tensor(advantages([reward[ys[i]] for i in group]), dtype=torch.float64)
        expected = expected + weight * policy_loss(logps[list(group)], advantage, k, 1)
    found = torch.autograd.grad(expected, table)[0]
    assert torch.allclose(found, -(1 - 1 / k) * truth, atol=1e-12, rtol=0)
    assert truth.abs().max() > 1e-3


def test_eq_2_and_3_literals():
    assert advantages([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]
    assert advantages([1.1, 0.1]) == pytest.approx([0.5, -0.5], abs=1e-15)


def test_T6_constant_group_has_exactly_zero_advantage():
    for value in (0.0, 0.1, 0.3, 1.1, 1 / 3):
        assert advantages([value] * 8) == [0.0] * 8


def test_advantages_sum_to_zero_follow_permutation_and_affine_reward():
    rewards = [1.1, 0.0, 0.1, 1.1, 0.0]
    base = advantages(rewards)
    assert abs(sum(base)) < 1e-15
    order = [3, 0, 4, 1, 2]
    assert advantages([rewards[i] for i in order]) == [base[i] for i in order]
    assert advantages([2 * r + 5 for r in rewards]) == pytest.approx([2 * a for a in base], abs=1e-12)


def test_eq_1_by_loops():
    """The vectorised loss is the double sum of the paper."""
    logps = torch.tensor([-1.0, -2.0, -3.0, -4.0, -0.5, -0.25])
    rewards = [[1.1, 0.1, 0.0], [0.0, 1.1, 1.1]]
    total = 0.0
    for x, group in enumerate(rewards):
        mean = sum(group) / 3
        total += sum(logps[3 * x + i].item() * (group[i] - mean) for i in range(3)) / 3
    flat = torch.tensor([a for group in rewards for a in advantages(group)])
    assert policy_loss(logps, flat, 3, 2).item() == pytest.approx(-total / 2, abs=1e-6)


def test_T2_loss_is_about_zero_and_its_gradient_is_not():
    logps = torch.full((4,), -2.0, requires_grad=True)
    loss = policy_loss(logps, torch.tensor(advantages([1, 0, 0, 1])), 4, 1)
    loss.backward()
    assert loss.item() == 0.0 and logps.grad.abs().min() > 0


def test_constant_groups_stay_in_the_denominator():
    logps = torch.tensor([-1.0, -2.0])
    advantage = torch.tensor(advantages([1, 0]))
    assert policy_loss(logps, advantage, 2, 4).item() == pytest.approx(policy_loss(logps, advantage, 2, 1).item() / 4)


def test_T4_long_sequences_weigh_by_their_sum_not_their_mean():
    """log π(y|x) is a sum: a sequence of ten tokens has ten times the gradient entries of one, undivided."""
    tokens = torch.zeros(11, requires_grad=True)
    sums = torch.stack([tokens[:1].sum(), tokens[1:].sum()])
    policy_loss(sums, torch.tensor([0.5, -0.5]), 2, 1).backward()
    assert tokens.grad.tolist() == [-0.25] + [0.25] * 10
