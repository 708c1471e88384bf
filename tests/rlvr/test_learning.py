"""It learns: two layers, one thread, under 30 seconds. With the advantage's sign flipped it must not."""

from __future__ import annotations

import pytest

from minifleming.lm.optimizer import adamw
from minifleming.rlvr import rollout
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
from minifleming.run.fields import RL
from tests.rlvr.conftest import describe

THRESHOLD = 0.9  # mean reward of the last step; it starts at about 0.3


def reward_after_training(talker, tokenizer, steps: int = 160) -> float:
    fresh, items = talker
    model, cfg = fresh(), RL(max_new_tokens=12, lr=3e-3)
    optimizer = adamw(model, cfg.lr, (0.9, 0.95), 0.0)
    for step in range(steps):
        drawn = [(items[(16 * step + i) % len(items)], "") for i in range(16)]
        groups = roll_out(model, tokenizer, drawn, cfg, samples=8, seed=0, step=step)
        update(model, optimizer, groups, cfg)
    return describe(groups)["reward"]


@pytest.mark.slow
def test_two_layers_learn_the_task(talker, tokenizer):
    assert reward_after_training(talker, tokenizer) > THRESHOLD


@pytest.mark.slow
def test_flipped_advantage_fails_the_same_test(talker, tokenizer, monkeypatch):
    straight = rollout.advantages
    monkeypatch.setattr(rollout, "advantages", lambda rewards, *scale: [-a for a in straight(rewards, *scale)])
    with pytest.raises(AssertionError):
        test_two_layers_learn_the_task(talker, tokenizer)
