"""Eq. 1-3 and their variants, computed a second way: exact enumeration, literals, invariances, finite differences."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from minifleming.audit.recompute import sequence_contribution
from minifleming.rlvr.objective import (
    OBJECTIVES,
    SCALES,
    GlobalCounts,
    advantages,
    aggregate,
    clipped,
    kl,
    objective_of,
    policy_loss,
    sample_std,
)
from minifleming.rlvr.rollout import Rollout
from minifleming.run.fields import RL

END, WORDS, LONGEST = 0, (1, 2), 3
PREFIXES = [p for n in range(LONGEST) for p in itertools.product(WORDS, repeat=n)]
# every completion over {end, 1, 2} of at most three tokens
YS = [(*p, END) for p in PREFIXES] + list(itertools.product(WORDS, repeat=LONGEST))
MASK = torch.tensor([[t < len(y) for t in range(LONGEST)] for y in YS])


def policy(seed: int) -> torch.Tensor:
    """A tabular policy: one row of logits for each prefix."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(PREFIXES), 3, dtype=torch.float64, generator=generator)


def token_logprobs(table: torch.Tensor) -> torch.Tensor:
    """[15, 3]: log π of the tokens of every completion, 0 behind its end."""
    rows, zero = table.log_softmax(-1), table.new_zeros(())
    return torch.stack([torch.stack([rows[PREFIXES.index(y[:t]), y[t]] if t < len(y) else zero for t in range(LONGEST)])
                        for y in YS])


def expected_gradient(name: str, k: int, scale: str = "", rewards: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """E over all groups of k of the gradient of the loss (on-policy), and ∇J; both exact, in fp64."""
    table = policy(0).requires_grad_()
    generator = torch.Generator().manual_seed(rewards)
    reward = torch.rand(len(YS), dtype=torch.float64, generator=generator)
    tokens = token_logprobs(table)
    probability = tokens.sum(-1).exp()
    assert math.isclose(probability.sum().item(), 1.0, abs_tol=1e-12)
    truth = torch.autograd.grad((probability * reward).sum(), table, retain_graph=True)[0]
    objective = objective_of(RL(objective=name, advantage=scale))
    loss = torch.zeros((), dtype=torch.float64)
    spread = sample_std(reward.tolist())
    for group in itertools.product(range(len(YS)), repeat=k):
        chosen, mask = tokens[list(group)], MASK[list(group)]
        A = torch.tensor(advantages(reward[list(group)].tolist(), objective.advantage, spread), dtype=torch.float64)
        values = policy_loss(chosen, chosen.detach(), A, mask, objective)
        counts = GlobalCounts(k, int(mask.sum()), LONGEST)
        loss = loss + probability[list(group)].prod().detach() * aggregate(values, mask, objective.aggregation, counts)
    return torch.autograd.grad(loss, table)[0], truth


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


@pytest.mark.parametrize("k", [2, 3])
def test_T1_expected_gradient_of_eq_1_to_3_is_minus_1_minus_1_over_k_grad_J(k):
    found, truth = expected_gradient("paper", k)
    assert torch.allclose(found, -(1 - 1 / k) * truth, atol=1e-12, rtol=0) and truth.abs().max() > 1e-3


@pytest.mark.parametrize("k", [2, 3])
def test_T1_leave_one_out_is_unbiased(k):
    found, truth = expected_gradient("paper", k, "leave_one_out")
    assert torch.allclose(found, -truth, atol=1e-12, rtol=0)


def test_T1_dr_grpo_is_eq_1_over_the_longest_completion():
    found, truth = expected_gradient("dr_grpo", 2)
    assert torch.allclose(found, -0.5 * truth / LONGEST, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name, scale", [("paper", "group"), ("grpo", ""), ("grpo", "mean_baseline"), ("dapo", ""),
                                         ("dapo", "mean_baseline"), ("gspo", ""), ("cispo", "")])
def test_T1_the_others_point_elsewhere(name, scale):
    """Division by the group's sample_std, by |y|, by the tokens: no multiple of ∇J, however many samples are drawn."""
    found, truth = expected_gradient(name, 2, scale)
    assert 0.5 < cosine(-found, truth) < 0.999


def test_T2_loss_is_about_zero_and_its_gradient_is_not():
    logps = torch.full((4, 1), -2.0, requires_grad=True)
    loss = paper(logps, advantages([1, 0, 0, 1]))
    loss.backward()
    assert loss.item() == 0.0 and logps.grad.abs().min() > 0


def paper(logps: torch.Tensor, A: list[float], prompts: int = 1) -> torch.Tensor:
    """Eq. 1 of rows of tokens that are all there."""
    mask = torch.ones_like(logps, dtype=torch.bool)
    values = policy_loss(logps, logps.detach(), torch.tensor(A, dtype=logps.dtype), mask, OBJECTIVES["paper"])
    return aggregate(values, mask, "sequence_sum", GlobalCounts(len(A) * prompts, logps.numel(), 9))


def test_eq_1_by_loops():
    """The vectorised loss is the double sum of the paper."""
    logps = torch.tensor([-1.0, -2.0, -3.0, -4.0, -0.5, -0.25])
    rewards = [[1.1, 0.1, 0.0], [0.0, 1.1, 1.1]]
    total = 0.0
    for x, group in enumerate(rewards):
        mean = sum(group) / 3
        total += sum(logps[3 * x + i].item() * (group[i] - mean) for i in range(3)) / 3
    flat = [a for group in rewards for a in advantages(group)]
    assert paper(logps[:, None], flat).item() == pytest.approx(-total / 2, abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_T3_on_policy_the_ratio_is_exactly_one(name):
    """So no clip acts, and the gradient of every variant is that of log π · A, to the bit."""
    logps = torch.randn(5, 7).requires_grad_()
    mask, A = torch.ones(5, 7, dtype=torch.bool), torch.randn(5)
    objective = OBJECTIVES[name]
    gradient = torch.autograd.grad(policy_loss(logps, logps.detach(), A, mask, objective).sum(), logps)[0]
    expected = -A[:, None].expand(5, 7)
    assert torch.equal(gradient, expected) or objective.ratio == "sequence" and torch.allclose(gradient, expected)
    assert not any(c.any() for c in clipped(logps.detach(), logps.detach(), A, mask, objective))


VALUES = torch.tensor([[6.0, 99, 99, 99, 99], [1, 2, 6, 99, 99], [1, 2, 3, 4, 5]])
RAGGED = torch.tensor([[True] + [False] * 4, [True] * 3 + [False] * 2, [True] * 5])


@pytest.mark.parametrize("mode, value", [
    ("sequence_sum", 10.0),  # (6 + 9 + 15) / 3
    ("sequence_mean", 4.0),  # (6 + 3 + 3) / 3
    ("token_mean", 30 / 9), ("constant", 1.0)])  # 30 / (3 · 10)
def test_T4_T10_aggregation_of_lengths_1_3_5(mode, value):
    """Literals; what stands behind the mask (99) is in no numerator and in no denominator."""
    assert aggregate(VALUES, RAGGED, mode, GlobalCounts(3, 9, 10)).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("mode", ["sequence_sum", "sequence_mean", "token_mean", "constant"])
def test_T9_T28_parts_add_up_whatever_the_split(mode):
    """Micro-batches and ranks share global counts, an empty part gives 0 with a gradient, and padding adds nothing."""
    counts = GlobalCounts(3, 9, 10)
    whole = aggregate(VALUES, RAGGED, mode, counts)
    for cut in (0, 1, 2, 3):
        first, second = (aggregate(VALUES[s], RAGGED[s], mode, counts) for s in (slice(cut), slice(cut, None)))
        assert (first + second).item() == pytest.approx(whole.item(), abs=1e-6)
    wide, mask = (torch.nn.functional.pad(x, (0, 4)) for x in (VALUES, RAGGED))
    assert aggregate(wide, mask, mode, counts).item() == pytest.approx(whole.item(), abs=1e-6)
    nothing = torch.full((2, 3), math.nan, requires_grad=True)
    loss = aggregate(nothing, torch.zeros(2, 3, dtype=torch.bool), mode, GlobalCounts(0, 0, 10))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(nothing.grad, torch.zeros(2, 3))


def test_T5_advantages_literals():
    assert advantages([1, 0, 0, 0]) == [0.75, -0.25, -0.25, -0.25]
    assert advantages([1.1, 0.1]) == pytest.approx([0.5, -0.5], abs=1e-15)
    one_of_eight = [1.0] + [0.0] * 7
    assert advantages(one_of_eight)[0] == 0.875
    assert advantages(one_of_eight, "group")[0] == pytest.approx(0.875 / (0.125**0.5 + 1e-4), abs=1e-12)  # unbiased
    assert advantages(one_of_eight, "group")[0] == pytest.approx(2.474, abs=1e-3)
    assert advantages(one_of_eight, "leave_one_out") == pytest.approx([1.0] + [-1 / 7] * 7, abs=1e-15)
    assert advantages(one_of_eight, "batch", 0.5)[0] == pytest.approx(0.875 / 0.5001, abs=1e-12)
    assert sample_std([1.0, 0.0]) == pytest.approx(0.5**0.5) and sample_std([3.0]) == 0.0


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.1, 1 / 3, float(torch.tensor(0.3))])
def test_T6_constant_group_has_exactly_zero_advantage(scale, value):
    """Also of 0.3 in fp32, whose sample_std is not 0 there, and with a batch sample_std of 0."""
    assert advantages([value] * 8, scale, 0.0) == [0.0] * 8


def test_T7_leave_one_out_keeps_a_group_whole():
    """Degeneracy is a property of the group: nobody in [1, 0, 0, 0] is dropped."""
    found = advantages([1, 0, 0, 0], "leave_one_out")
    assert len(found) == 4 and all(a != 0 for a in found)


@pytest.mark.parametrize("scale", SCALES)
def test_advantages_sum_to_zero_follow_permutation_and_affine_reward(scale):
    rewards, order = [1.1, 0.0, 0.1, 1.1, 0.0], [3, 0, 4, 1, 2]
    base = advantages(rewards, scale, 0.5)
    assert abs(sum(base)) < 1e-12
    assert advantages([rewards[i] for i in order], scale, 0.5) == pytest.approx([base[i] for i in order], abs=1e-15)
    factor = 2 if scale in ("mean_baseline", "leave_one_out") else 2 * (sample_std(rewards) + 1e-4) / (
        2 * sample_std(rewards) + 1e-4) if scale == "group" else 2 * 0.5001 / 1.0001
    twice = advantages([2 * r + 5 for r in rewards], scale, 1.0)
    assert twice == pytest.approx([factor * a for a in base], abs=1e-12)


def test_constant_groups_stay_in_the_denominator():
    logps, A = torch.tensor([[-1.0], [-2.0]]), advantages([1, 0])
    assert paper(logps, A, 4).item() == pytest.approx(paper(logps, A, 1).item() / 4)


RATIOS = torch.tensor([0.5, 0.79, 0.81, 1.0, 1.19, 1.21, 1.27, 1.29, 6.0], dtype=torch.float64)


def clip_case(name: str, A: float):
    """One token a row at each ratio. -> gradient by log π, clipped below, clipped above"""
    logps = RATIOS.log()[:, None].requires_grad_()
    mask, advantage = torch.ones(9, 1, dtype=torch.bool), torch.full((9,), A, dtype=torch.float64)
    old = torch.zeros(9, 1, dtype=torch.float64)
    values = policy_loss(logps, old, advantage, mask, OBJECTIVES[name])
    low, high = clipped(logps.detach(), old, advantage, mask, OBJECTIVES[name])
    return torch.autograd.grad(values.sum(), logps)[0][:, 0], low[:, 0], high[:, 0]


@pytest.mark.parametrize("name, top", [("grpo", 1.2), ("dr_grpo", 1.2), ("dapo", 1.28), ("gspo", 1.0004)])
def test_T12_the_clip_takes_the_gradient_only_where_it_would_go_further(name, top):
    bottom = 1 - OBJECTIVES[name].clip[0]
    for A in (1.0, -1.0):
        gradient, low, high = clip_case(name, A)
        for ratio, g, below, above in zip(RATIOS, gradient, low, high):
            acts = ratio > top if A > 0 else ratio < bottom
            assert g.item() == pytest.approx(0.0 if acts else -A * ratio.item(), abs=1e-12)
            assert (below.item(), above.item()) == ((False, bool(acts)) if A > 0 else (bool(acts), False))


def test_T13_cispo_bounds_a_constant_weight_and_gspo_takes_the_mean_of_the_logs():
    for A in (1.0, -1.0):
        gradient, low, high = clip_case("cispo", A)
        assert torch.allclose(gradient, -A * RATIOS.clamp(max=5.0))
        assert not low.any() and high.tolist() == [False] * 8 + [True]
    old, mask = torch.zeros(1, 4), torch.tensor([[True, True, False, False]])
    logps = torch.tensor([[2e-4, -1e-4, 7.0, 7.0]], requires_grad=True)
    values = policy_loss(logps, old, torch.tensor([2.0]), mask, OBJECTIVES["gspo"])
    assert values[0, :2].tolist() == pytest.approx([-2 * math.exp(0.5e-4)] * 2, abs=1e-6)
    gradient = torch.autograd.grad(aggregate(values, mask, "sequence_mean", GlobalCounts(1, 2, 9)), logps)[0]
    assert gradient[0].tolist() == pytest.approx([-math.exp(0.5e-4)] * 2 + [0, 0], abs=1e-6), "A s / |y|"


def test_T11_kl_gradients_by_enumeration():
    """Over a softmax of seven: what each estimator's gradient is on average, exactly."""
    torch.manual_seed(1)
    logits = torch.randn(7, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(7, dtype=torch.float64).log_softmax(-1)
    logp = logits.log_softmax(-1)
    probability = logp.exp().detach()
    reverse = torch.autograd.grad((logp.exp() * (logp - reference)).sum(), logits, retain_graph=True)[0]
    forward = torch.autograd.grad((reference.exp() * (reference - logp)).sum(), logits, retain_graph=True)[0]

    def mean(estimator: str, weighted: bool) -> torch.Tensor:
        values = kl(logp, reference, logp.detach(), estimator, weighted)
        assert estimator != "k3" or values.min() >= 0
        return torch.autograd.grad((probability * values).sum(), logits, retain_graph=True)[0]

    assert torch.allclose(mean("k1", False), torch.zeros(7, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(mean("k3", False), forward, atol=1e-15) and not torch.allclose(forward, reverse, atol=1e-2)
    for estimator, weighted in (("k2", False), ("k1", True), ("k3", True)):
        assert torch.allclose(mean(estimator, weighted), reverse, atol=1e-15), (estimator, weighted)
    rho_k3 = torch.autograd.grad(kl(logp, reference, logp.detach(), "k3", True)[3], logits, retain_graph=True)[0]
    k2 = torch.autograd.grad(kl(logp, reference, logp.detach(), "k2", False)[3], logits)[0]
    assert torch.allclose(rho_k3, k2, atol=1e-15), "also for every sample by itself"


SETTINGS = [RL(objective=name, max_new_tokens=8, kl_coef=beta, kl_estimator=estimator, kl_importance_weighted=weighted)
            for name in OBJECTIVES
            for beta, estimator, weighted in ((0.0, "k3", True), (0.1, "k1", True), (0.1, "k2", False),
                                              (0.1, "k3", False), (0.1, "k3", True))]


def random_case(cfg: RL):
    """Four ragged sequences away from the policy that sampled them, near enough that only some are clipped."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.tensor([[t < n for t in range(6)] for n in (1, 3, 6, 4)])
    near = {"gspo": 2e-3, "cispo": 2.0}.get(cfg.objective, 1.0)
    old = -3 * torch.rand(4, 6, dtype=torch.float64, generator=generator) * mask
    logps = old + near * torch.randn(4, 6, dtype=torch.float64, generator=generator) * mask
    reference = old + 0.5 * torch.randn(4, 6, dtype=torch.float64, generator=generator) * mask
    A = torch.tensor([0.9, -0.4, 0.0, -0.5], dtype=torch.float64)
    return logps, old, reference, A, mask


def total_loss(logps, old, reference, A, mask, cfg: RL, counts: GlobalCounts) -> torch.Tensor:
    objective = objective_of(cfg)
    values = policy_loss(logps, old, A, mask, objective)
    if cfg.kl_coef:
        values = values + cfg.kl_coef * kl(logps, reference, old, cfg.kl_estimator, cfg.kl_importance_weighted)
    return aggregate(values, mask, objective.aggregation, counts)


@pytest.mark.parametrize("cfg", SETTINGS, ids=lambda c: f"{c.objective}-{c.kl_coef}-{c.kl_estimator}-{c.kl_importance_weighted}")
def test_gradients_by_finite_differences_and_by_the_plain_python_of_the_audit(cfg):
    logps, old, reference, A, mask = random_case(cfg)
    counts = GlobalCounts(4, int(mask.sum()), 8)
    leaf = logps.clone().requires_grad_()
    loss = total_loss(leaf, old, reference, A, mask, cfg, counts)
    loss.backward()
    low, high = clipped(logps, old, A, mask, objective_of(cfg))
    if OBJECTIVES[cfg.objective].ratio != "none":
        assert low.any() or high.any(), "the case must clip something"
    if OBJECTIVES[cfg.objective].ratio != "cispo_weight":  # its gradient is not that of its value, on purpose
        for i, t in mask.nonzero().tolist():
            step = torch.zeros_like(logps)
            step[i, t] = 1e-6
            slope = (total_loss(logps + step, old, reference, A, mask, cfg, counts)
                     - total_loss(logps - step, old, reference, A, mask, cfg, counts)) / 2e-6
            assert leaf.grad[i, t].item() == pytest.approx(slope.item(), abs=1e-8)
    value = 0.0
    for i in range(4):
        n = int(mask[i].sum())
        r = Rollout(None, "", 0, [], [0] * n, [], True, None, {}, 0.0, advantage=A[i].item(),
                    reference_logprobs=reference[i, :n].tolist(), trained_logprobs=old[i, :n].tolist())
        part = sequence_contribution(r, logps[i, :n].tolist(), cfg, counts)
        assert part.coefficient == pytest.approx(leaf.grad[i, :n].tolist(), abs=1e-14)
        assert part.clipped == [int(low[i].sum()), int(high[i].sum())]
        value += part.loss
    assert value == pytest.approx(loss.item(), abs=1e-14)


@pytest.mark.parametrize("cfg", SETTINGS[::5], ids=lambda c: c.objective)
def test_order_padding_and_split_of_the_sequences_do_not_matter(cfg):
    logps, old, reference, A, mask = random_case(cfg)
    counts = GlobalCounts(4, int(mask.sum()), 8)

    def gradient(rows: list[list[int]], pad: int) -> torch.Tensor:
        leaf = logps.clone().requires_grad_()
        for part in rows:
            wide = [torch.nn.functional.pad(x[part], (0, pad)) for x in (leaf, old, reference, mask)]
            total_loss(wide[0], wide[1], wide[2], A[part], wide[3], cfg, counts).backward()
        return leaf.grad

    plain = gradient([[0, 1, 2, 3]], 0)
    assert plain.abs().max() > 0
    for rows, pad in (([[3, 1, 0, 2]], 0), ([[0, 1, 2, 3]], 5), ([[0], [1], [2], [3]], 0), ([[2, 0], [], [3, 1]], 2)):
        assert torch.allclose(gradient(rows, pad), plain, atol=1e-14, rtol=0)


def test_every_variant_is_a_row_of_its_own_and_fields_override_a_part_of_it():
    assert len(set(OBJECTIVES.values())) == len(OBJECTIVES) == 6
    assert objective_of(RL(objective="grpo", clip_eps=[0.1, 0.3], advantage="mean_baseline")).clip == (0.1, 0.3)
    assert objective_of(RL()) == OBJECTIVES["paper"]
