"""What stops a run before it does harm, and what it says aloud: on every rank, and with the weights as they were."""

from __future__ import annotations

import json
import math

import pytest
import torch

from minifleming.lm.optimizer import adamw
from minifleming.rlvr import curriculum, rollout, train
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
from minifleming.run.errors import RunFailed
from minifleming.run.fields import RL, Alarms, Config, Stage1, Stage2
from tests.rlvr.test_ranks import on_ranks

QUIET = {"prompts": 10, "samples": 8, "zero_variance_groups": 0.2, "groups_all_correct": 0.1, "groups_all_wrong": 0.1, "eos_rate": 1.0,
         "format": 0.9, "accuracy": 0.5, "answer_labels": {"A": 20, "B": 20, "C": 20, "D": 20}}
GOLD = ["A", "B", "C", "D", "A", "B", "C", "D", "A", "B"]


@pytest.mark.parametrize("finished, words", [
    (1.0, None), (0.11, None), (0.1, "90 % of 80 samples are truncated at rl.max_new_tokens 64"),
    (0.05, "95 % of 80 samples"), (0.0, "no end token in any of 80 samples")])
def test_truncation_and_missing_end_tokens_stop(finished, words):
    ended = curriculum.recent_truncation([], QUIET | {"eos_rate": finished}, Alarms())
    found = curriculum.should_abort(ended, Alarms(), RL(max_new_tokens=64))
    assert (found is None) == (words is None) and (words or "") in (found or "")


def test_a_handful_of_samples_is_no_evidence():
    """Four truncated samples a step: the eighth step has seen 32 of them and stops; a few whole ones go on."""
    few, cfg, ended, stopped = QUIET | {"prompts": 1, "samples": 4, "eos_rate": 0.0}, Alarms(), [], []
    for _ in range(9):
        ended = curriculum.recent_truncation(ended, few, cfg)
        stopped.append(curriculum.should_abort(ended, cfg, RL()) is not None)
    assert stopped == [False] * 7 + [True] * 2 and ended == [[0, 4]] * 8
    assert curriculum.should_abort([[4, 4], *ended[1:]], cfg, RL()) is None


FLAT = [[1.0, 0.5]] * 40


@pytest.mark.parametrize("figures, gold, history, names", [
    ({}, GOLD, [], set()),
    ({"zero_variance_groups": 0.9}, GOLD, [], {"constant_groups"}), ({"zero_variance_groups": 0.89}, GOLD, [], set()),
    ({"answer_labels": {"A": 72, "B": 8}}, GOLD, [], {"one_label"}), ({"answer_labels": {"A": 71, "B": 9}}, GOLD, [], set()),
    ({"answer_labels": {"A": 80}}, ["A"] * 10, [], set()),  # and rightly so
    ({"answer_labels": {}}, GOLD, [], set()),
    ({}, GOLD, FLAT, {"flat"}), ({}, GOLD, [[0.9, 0.5]] * 40, set()), ({}, GOLD, FLAT[:-1], set()),
    ({}, GOLD, [[1.0, i / 80] for i in range(40)], set()),
    ({}, GOLD, [[1.0, 0.99]] * 40, set()),  # flat at the top is no fault
])
def test_what_is_said_aloud(figures, gold, history, names):
    found = curriculum.warnings(QUIET | figures, gold, history, Alarms())
    assert found.keys() == names and all(found.values())


def settings(**rl) -> Config:
    return Config(rl=RL(lr=1e-3, prompts_per_step=8, **rl), stage2=Stage2(rounds=0),
                  stage1=Stage1(samples_per_prompt=4, min_steps=2, max_steps=2, plateau_threshold=1.0))


def test_a_truncated_run_stops_at_its_first_step_and_leaves_its_samples(talker, tokenizer, tmp_path):
    fresh, items = talker
    model = fresh()
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(RunFailed, match=r"^step 1: no end token .* its samples are in .*refused"):
        train.train(settings(max_new_tokens=2), model, tokenizer, items, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert (tmp_path / "refused" / "step_000001.jsonl.gz").exists()
    assert not (tmp_path / "metrics.jsonl").exists() and not (tmp_path / "rollouts").exists()


def test_a_warning_is_said_once_a_round_and_noted(talker, tokenizer, tmp_path, capsys, monkeypatch):
    fresh, items = talker
    found = iter([{"flat": "x"}, {"flat": "z", "one_label": "y"}, {}, {"flat": "x"}])
    monkeypatch.setattr(curriculum, "warnings", lambda *arguments: next(found))
    cfg = settings(max_new_tokens=12)
    cfg.stage1.max_steps = 4
    train.train(cfg, fresh(), tokenizer, items, tmp_path)
    said = [line for line in capsys.readouterr().err.replace("\r", "\n").split("\n") if "warning" in line]
    assert [line[line.index("step"):] for line in said] == ["step 1: x", "step 2: y"]
    noted = [json.loads(line) for line in (tmp_path / "alarms.jsonl").read_text().splitlines()]
    assert noted == [{"step": 1, "round": 0, "alarm": "flat", "words": "x"},
                     {"step": 2, "round": 0, "alarm": "one_label", "words": "y"}]


def prepared(talker, tokenizer):
    fresh, items = talker
    model, cfg = fresh(), RL(max_new_tokens=12)
    groups = roll_out(model, tokenizer, [(item, "") for item in items[:6]], cfg, samples=8, seed=0, step=3)
    return model, cfg, groups


def spoil(kind: str, model, groups) -> None:
    """Make one number of a step not finite."""
    live = next(r for g in groups for r in g if r.advantage)
    if kind == "reward":
        live.reward = math.nan
    if kind == "advantage":
        live.advantage = math.inf
    if kind == "logprob":
        model.model.norm.weight.data[0] = math.nan
    if kind == "loss":
        live.advantage = 1.7e308
        live.completion_ids = live.completion_ids * 4  # the sum of its terms is beyond fp64
        live.logprobs = live.logprobs * 4
    if kind == "gradient":
        model.model.norm.weight.register_hook(lambda gradient: gradient * math.nan)


REFUSED = {"reward": "reward or advantage is not finite", "advantage": "reward or advantage is not finite",
           "logprob": "a log-probability is not finite", "loss": "loss -?inf|loss nan", "gradient": "gradient norm nan"}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_finite_is_refused_before_the_update(talker, tokenizer, kind):
    model, cfg, groups = prepared(talker, tokenizer)
    spoil(kind, model, groups)
    before = [p.detach().clone() for p in model.parameters()]
    cfg.max_logprob_diff = 1e9
    with pytest.raises(RunFailed, match=REFUSED[kind]):
        update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert all(torch.equal(a.nan_to_num(), b.detach().nan_to_num()) for a, b in zip(before, model.parameters()))


def rank_refuses(rank: int, talker, tokenizer, folder, kind: str) -> None:
    """Only rank 1 sees the fault; both must stop, with weights as they were."""
    fresh, items = talker
    model, cfg = fresh(), RL(max_new_tokens=12, max_logprob_diff=1e9)
    groups = roll_out(model, tokenizer, [(item, "") for item in items[:6]], cfg, samples=8, seed=0, step=3)
    if rank == 1:
        spoil(kind, model, groups)
    before = [p.detach().clone() for p in model.parameters()]
    try:
        update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
        said = "went on"
    except RunFailed as error:
        said = str(error)
    same = all(torch.equal(a.nan_to_num(), b.detach().nan_to_num()) for a, b in zip(before, model.parameters()))
    (folder / f"{rank}.json").write_text(json.dumps([said, same]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reward", "logprob", "gradient"])
def test_every_rank_refuses_what_one_rank_sees(talker, tokenizer, tmp_path, kind):
    assert on_ranks(2, rank_refuses, talker, tokenizer, tmp_path, kind) == [0, 0]
    for rank in (0, 1):
        said, same = json.loads((tmp_path / f"{rank}.json").read_text())
        assert said != "went on" and same


def test_a_reward_that_is_no_number_stops_the_run(talker, tokenizer, tmp_path, monkeypatch):
    fresh, items = talker
    monkeypatch.setattr(rollout, "reward_terms", lambda *arguments: {"correct": math.nan, "format": 0.0})
    with pytest.raises(RunFailed, match="not finite"):
        train.train(settings(max_new_tokens=12), fresh(), tokenizer, items, tmp_path)
