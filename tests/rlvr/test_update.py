"""One GRPO step: what is sampled is what is trained, whatever the micro-batches."""

from __future__ import annotations

import pytest
import torch

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.optimizer import adamw
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
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
