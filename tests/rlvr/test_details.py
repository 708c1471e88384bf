"""Small things that the larger tests would not miss: partitions, keys, clipping, means, edges of rules."""

from __future__ import annotations

import pytest
import torch

from minifleming.rlvr.curriculum import State, plateau_reason, sample_prompts
from minifleming.rlvr.mining import ShuffledCycle
from minifleming.rlvr.objective import OBJECTIVES
from minifleming.rlvr.rollout import micro_batches, roll_out
from minifleming.rlvr.update import minibatches, update
from minifleming.run.fields import RL, Stage1
from tests.rlvr.test_curriculum import pool, settings
from tests.rlvr.test_update import rollouts


@pytest.mark.parametrize("prompts, count", [(5, 1), (5, 2), (7, 3), (4, 4)])
def test_every_epoch_takes_each_group_once_in_an_order_of_its_own(prompts, count):
    cfg = RL(objective="grpo", num_iterations=4, minibatches=count)
    chosen = minibatches(prompts, cfg, (1, 2))
    assert len(chosen) == 4 * count
    for epoch in range(4):
        part = chosen[epoch * count : (epoch + 1) * count]
        assert sorted(i for batch in part for i in batch) == list(range(prompts))
        assert max(map(len, part)) - min(map(len, part)) <= 1
    if 1 < count < prompts:
        assert len({tuple(map(tuple, map(sorted, chosen[e * count : (e + 1) * count]))) for e in range(4)}) > 1
        assert any(minibatches(prompts, cfg, (1, s)) != chosen for s in range(3, 9)), "another step, another order"


def test_the_gradient_is_clipped_and_its_norm_told_before(talker, tokenizer):
    model, cfg, groups = rollouts(talker, tokenizer)
    cfg.max_grad_norm = 1e-3
    told = update(model, torch.optim.SGD(model.parameters(), lr=0.0), groups, cfg)["grad_norm"]
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-3) and told > 0.1


def test_micro_batches_are_filled_up_to_their_tokens(talker, tokenizer):
    _, _, groups = rollouts(talker, tokenizer)
    everyone = sorted(id(r) for group in groups for r in group)
    for tokens, least, most in ((10**6, 1, 1), (250, 2, len(groups) - 1), (40, len(groups), 47), (1, 48, 48)):
        batches = micro_batches(groups, tokens)
        assert least <= len(batches) <= most
        assert sorted(id(r) for _, part in batches for r in part) == everyone, "each once"
        for pack, part in batches:
            ids = [r.completion_ids for r in part]
            assert pack.labels.tolist() == [token for tokens in ids for token in tokens], "in the order of the pack"
            assert pack.ids.shape[1] <= tokens or len(part) == 1


def test_another_step_draws_other_tokens_and_the_mean_is_eq_3(talker, tokenizer):
    fresh, items = talker
    drawn = [(item, "") for item in items[:4]]
    cfg = RL(max_new_tokens=12)
    first, second = (roll_out(fresh(), tokenizer, drawn, cfg, samples=8, seed=0, step=s) for s in (0, 1))
    assert [r.completion_ids for g in first for r in g] != [r.completion_ids for g in second for r in g]
    assert all(r.group_mean == sum(x.reward for x in g) / 8 for g in first for r in g)


def test_the_means_of_the_variants():
    assert {name: o.aggregation for name, o in OBJECTIVES.items()} == {
        "paper": "sequence_sum", "dr_grpo": "constant", "grpo": "sequence_mean", "dapo": "token_mean",
        "gspo": "sequence_mean", "cispo": "token_mean"}


def test_a_deck_is_shuffled_anew_each_time_it_is_gone_through():
    deck = ShuffledCycle([f"i{n}" for n in range(12)], [1])
    assert deck.next(12) != deck.next(12)


def test_the_plateau_is_of_the_newest_steps_whole_window_and_its_bound_counts():
    cfg = Stage1(min_steps=0, max_steps=99, plateau_threshold=0.5, window=2)

    def reason(*shares: float) -> str | None:
        return plateau_reason(State(step=len(shares), zero_variance=list(shares)), cfg)

    assert reason(0.9, 0.9, 0.0, 0.0) is None and reason(0.0, 0.0, 0.9, 0.9) == "sparsity"
    assert reason(0.5, 0.5) == "sparsity" and reason(1.0) is None


def test_suspects_do_not_fill_a_batch_and_another_round_deals_in_another_order():
    items, cfg = pool(30), settings(12)
    names = list(items)
    pools = {"right": names[:2], "middle": [], "wrong": names[2:5], "quarantine": names[5:]}
    state = State(stage="rl_stage2", stage1_end=0, round=1, pools=pools)
    assert {item.id for item, _ in sample_prompts(state, cfg, items)} == set(names[:5])
    full = {"right": names[:15], "middle": [], "wrong": names[15:], "quarantine": []}
    hands = [sample_prompts(State(stage="rl_stage2", stage1_end=0, round=r, pools=full), cfg, items) for r in (1, 2)]
    assert [i.id for i, _ in hands[0]] != [i.id for i, _ in hands[1]]
