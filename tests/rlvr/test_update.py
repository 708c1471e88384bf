"""One GRPO step: what is sampled is what is trained, whatever the micro-batches."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.optimizer import adamw
from minifleming.rlvr.objective import OBJECTIVES
from minifleming.rlvr.rollout import flatten, roll_out
from minifleming.rlvr.update import minibatches, update
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL
from tests.rlvr.conftest import describe


def rollouts(talker, tokenizer, model=None, **settings):
    fresh, items = talker
    model = model or fresh()
    cfg = RL(max_new_tokens=12, lr=1e-3, **settings)
    drawn = [(item, item.tier) for item in items[:6]]
    return model, cfg, roll_out(model, tokenizer, drawn, cfg, samples=8, seed=0, step=3)


def gradient(model, groups, cfg):
    """The gradient of a step, before clipping and stepping."""
    update(model, torch.optim.SGD(model.parameters(), lr=0.0), groups, cfg)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def test_T9_micro_batches_do_not_change_the_gradient(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    grads = []
    for tokens in (1, 100, 100_000):
        cfg.micro_batch_tokens, cfg.max_grad_norm = tokens, 1e9
        grads.append(gradient(model, groups, cfg))
    assert grads[0].abs().max() > 1e-4
    for other in grads[1:]:
        assert (grads[0] - other).abs().max() <= 1e-6


def test_in_the_deterministic_mode_an_update_finds_the_samplers_numbers_to_the_bit(talker, tokenizer):
    model = talker[0]()
    make_batch_invariant(model)
    _, cfg, groups = rollouts(talker, tokenizer, model)
    found = update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert found["samples_with_gradient"] > 0 and found["logprob_diff_max"] == 0.0


def test_gradient_is_that_of_eq_1_written_out(talker, tokenizer):
    """Against one forward pass per rollout, no batching, no skipping of zero advantages."""
    model, cfg, groups = rollouts(talker, tokenizer)
    cfg.max_grad_norm = 1e9
    found = gradient(model, groups, cfg)
    model.zero_grad(set_to_none=True)
    loss = 0.0
    for group in groups:
        mean = sum(r.reward for r in group) / len(group)
        for r in group:
            ids = torch.tensor([r.prompt_ids + r.completion_ids])
            logp = model.logits(model(ids)).log_softmax(-1)[0, len(r.prompt_ids) - 1 : -1]
            loss = loss - logp.gather(-1, torch.tensor(r.completion_ids)[:, None]).sum() * (r.reward - mean)
    (loss / (8 * len(groups))).backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert (plain - found).abs().max() <= 1e-6


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.4])
def test_T14_T16_sampler_and_trainer_agree_at_every_temperature(talker, tokenizer, temperature):
    model, cfg, groups = rollouts(talker, tokenizer, temperature=temperature)
    result = update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert 0 < result["logprob_diff_max"] < 1e-5


def test_a_disagreement_stops_the_run_before_the_step(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    live = next(r for g in groups for r in g if r.advantage)
    live.logprobs[0] += 0.5
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RunFailed, match="disagree"):
        update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))


def test_T38_weights_change_and_T6_constant_groups_change_nothing(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    constant = [g for g in groups if len({r.reward for r in g}) == 1]
    for group in groups:
        for r in group:
            r.advantage *= group not in constant
    update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert not torch.equal(before, after)
    for group in groups:
        for r in group:
            r.advantage = 0.0
    cfg.max_logprob_diff = 100.0  # the weights are others now
    result = update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert result["samples_with_gradient"] == 0 and result["loss"] == 0.0
    assert torch.equal(after, torch.cat([p.detach().flatten() for p in model.parameters()]))


def test_T8_equal_prompts_stay_two_groups(talker, tokenizer):
    fresh, items = talker
    twin = type(items[0])("twin", items[0].question, items[0].options, items[0].answer)
    cfg = RL(max_new_tokens=12)
    groups = roll_out(fresh(), tokenizer, [(items[0], ""), (twin, "")], cfg, samples=8, seed=0, step=0)
    assert [len(g) for g in groups] == [8, 8]
    assert groups[0][0].prompt_ids == groups[1][0].prompt_ids
    assert [r.completion_ids for r in groups[0]] != [r.completion_ids for r in groups[1]]


def test_T23_tokens_do_not_depend_on_the_batch(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    alone = roll_out(model, tokenizer, [(groups[4][0].item, "")], cfg, samples=8, seed=0, step=3)[0]
    assert [r.completion_ids for r in alone] == [r.completion_ids for r in groups[4]]


def test_T36_figures_are_sums_over_counts(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    figures = describe(groups)
    flat = [r for g in groups for r in g]
    assert figures["accuracy"] == sum(r.correct for r in flat) / len(flat)
    assert figures["zero_variance_groups"] == sum(len({r.reward for r in g}) == 1 for g in groups) / len(groups)
    assert figures["completion_tokens"] == sum(len(r.completion_ids) for r in flat) / len(flat)


def test_reward_has_three_values_and_knows_no_length(talker, tokenizer):
    _, _, groups = rollouts(talker, tokenizer)
    for r in (r for g in groups for r in g):
        assert r.reward in (0.0, 0.1, 1.1)
        assert (r.reward == 1.1) == r.correct and (r.reward > 0) == r.verdict.formatted


def weights_after(talker, groups, cfg, shift: float = 0.0, fused: bool = False) -> torch.Tensor:
    """Weights after SGD steps large enough to leave the policy that sampled. ``shift``: of the sampler's logprobs."""
    model = talker[0]()
    groups = copy.deepcopy(groups)
    for r in flatten(groups):
        r.logprobs = [p + shift for p in r.logprobs]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    update(model, optimizer, groups, cfg, key=(1, 2), fused=fused)
    return parameters_to_vector(model.parameters()).detach()


def test_T16_the_old_policy_is_the_trainers_and_never_the_samplers(talker, tokenizer):
    """In the plain loss and in the fused head: other log-probabilities of the sampler change no weight."""
    _, cfg, groups = rollouts(talker, tokenizer, max_logprob_diff=9.0)
    for name in ("grpo", "cispo", "gspo"):
        cfg = dataclasses.replace(cfg, objective=name, minibatches=2)
        for fused in (False, True):
            plain = weights_after(talker, groups, cfg, 0.0, fused)
            assert torch.equal(plain, weights_after(talker, groups, cfg, -0.5, fused)), (name, fused)


def test_the_fused_head_takes_the_steps_of_the_plain_loss(talker, tokenizer):
    _, cfg, groups = rollouts(talker, tokenizer)
    start = parameters_to_vector(talker[0]().parameters()).detach()
    for name in OBJECTIVES:
        for number in (1, 2):
            if name == "paper" and number == 2:
                continue  # refused: it has no ratio
            variant = dataclasses.replace(cfg, objective=name, minibatches=number)
            plain = weights_after(talker, groups, variant)
            assert (plain - start).abs().max() > 1e-4
            assert (weights_after(talker, groups, variant, fused=True) - plain).abs().max() <= 1e-6, (name, number)


def test_two_minibatches_are_two_hand_written_steps_of_grpo(talker, tokenizer):
    """The second step is off-policy: its ratios compare with the policy before the first one."""
    _, cfg, groups = rollouts(talker, tokenizer, objective="grpo", minibatches=2, max_grad_norm=0.5)
    model = talker[0]()

    def logprobs(r):
        ids = torch.tensor([r.prompt_ids + r.completion_ids])
        rows = model.logits(model(ids)).log_softmax(-1)[0, len(r.prompt_ids) - 1 : -1]
        return rows.gather(-1, torch.tensor(r.completion_ids)[:, None])[:, 0]

    old = {id(r): logprobs(r).detach() for r in flatten(groups)}
    for chosen in minibatches(len(groups), cfg, (1, 2)):
        loss = 0.0
        for r in flatten([groups[i] for i in chosen]):
            ratio = (logprobs(r) - old[id(r)]).exp()
            bounded = ratio.clamp(0.8, 1.2)
            loss = loss - torch.minimum(ratio * r.advantage, bounded * r.advantage).mean()
        model.zero_grad()
        (loss / (8 * len(chosen))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.3 * p.grad
    expected = parameters_to_vector(model.parameters()).detach()
    assert (weights_after(talker, groups, cfg) - expected).abs().max() <= 1e-6
