"""The two stages as a whole: resumable bit for bit, audited, and in the order of the paper."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal

import pytest
import torch

from minifleming.rlvr import train as trainer
from minifleming.rlvr.objective import advantages
from minifleming.run.checkpoint import checkpoints, verify_folder
from minifleming.run.errors import BadInput, DeferSignals, Terminated
from minifleming.run.fields import RL, Config, Mining, Run, Stage1, Stage2


def settings(**stage2) -> Config:
    return Config(
        run=Run(checkpoint_every=2, keep_last=2, seed=3), rl=RL(max_new_tokens=12, lr=2e-3, prompts_per_step=4),
        stage1=Stage1(samples_per_prompt=4, min_steps=3, max_steps=5, plateau_threshold=1.0, window=2),
        stage2=Stage2(samples_per_prompt=6, rounds=2, steps_per_round=3, **stage2), mining=Mining(samples=3))


def train(talker, tokenizer, folder, cfg=None, start=None):
    fresh, items = talker
    folder.mkdir(exist_ok=True)
    model = fresh()
    state = trainer.train(cfg or settings(), model, tokenizer, items, folder, start)
    return state, torch.cat([p.detach().flatten() for p in model.parameters()])


def records(folder, name="metrics.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def whole(talker, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(talker, tokenizer, folder)


@pytest.mark.parametrize("unit", [4, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 6, 11))])
def test_T34_killed_and_resumed_equals_uninterrupted_bit_for_bit(talker, tokenizer, whole, tmp_path, monkeypatch, unit):
    """Killed after ``unit`` units of work; weights, metrics, ledger and rollouts come out the same."""
    folder, state, weights = whole
    advance, count = trainer.Training.run_one, iter(range(1000))

    def mortal(self, progress):
        if next(count) == unit:
            raise Killed
        return advance(self, progress)

    monkeypatch.setattr(trainer.Training, "run_one", mortal)
    with pytest.raises(Killed):
        train(talker, tokenizer, tmp_path)
    monkeypatch.setattr(trainer.Training, "run_one", advance)
    again, resumed = train(talker, tokenizer, tmp_path)
    assert torch.equal(weights, resumed) and again == state
    for name in ("metrics.jsonl", "mining.jsonl"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()
    logs = sorted(p.name for p in (folder / "rollouts").iterdir())
    assert logs == sorted(p.name for p in (tmp_path / "rollouts").iterdir())
    for name in logs:
        assert (folder / "rollouts" / name).read_bytes() == (tmp_path / "rollouts" / name).read_bytes()


def test_stages_come_in_order_and_checkpoints_verify(whole):
    folder, state, _ = whole
    assert state.stage == "done" and state.plateau == "max_steps" and state.step == 11 and state.round == 2
    kinds = [r["stage"] for r in records(folder)]
    assert kinds == ["rl_stage1"] * 5 + ["switch", "mining"] + ["rl_stage2"] * 3 + ["mining"] + ["rl_stage2"] * 3
    kept = checkpoints(folder / "checkpoints")
    assert [p.name for p in kept] == ["step_000000", "step_000005", "step_000010", "step_000011"]
    assert all(verify_folder(p) is None for p in kept)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {p.name for p in (kept[-1] / "model").iterdir()}


def test_every_weight_of_the_loss_follows_from_the_log(whole):
    """Reward, mean, advantage, denominator and coefficient are recomputed from each step's records."""
    folder, _, _ = whole
    for step in (1, 7):  # groups that teach something among them
        lines = gzip.decompress((folder / "rollouts" / f"step_{step:06d}.jsonl.gz").read_bytes()).decode().splitlines()
        rows = [json.loads(line) for line in lines]
        k = 4 if step < 6 else 6
        assert len(rows) == 4 * k
        for at in range(0, len(rows), k):
            group = rows[at : at + k]
            assert len({row["item_id"] for row in group}) == 1
            for row, advantage in zip(group, advantages([row["reward"] for row in group])):
                right = row["verdict"]["label"] == row["answer"]
                assert row["reward"] == 1.0 * right + 0.1 * (row["verdict"]["rule"] == "ok")
                assert row["advantage"] == advantage
                if advantage:
                    assert row["denominator"] == 4 * k and len(row["trained_logprobs"]) == len(row["logprobs"])
                assert row["coefficient"] == pytest.approx(-advantage / (4 * k), rel=1e-12)
                assert len(row["logprobs"]) == len(row["completion_ids"]) and max(row["logprobs"]) <= 0


def test_the_ledger_names_every_item_in_every_round(talker, whole):
    folder, _, _ = whole
    _, items = talker
    lines = records(folder, "mining.jsonl")
    tiers = {r["item"]: r["now"] for r in lines if r["event"] == "entered"}
    assert tiers == {item.id: item.tier for item in items if item.tier != "difficult"}
    ledger = [r for r in lines if r["event"] == "mined"]
    for number in (1, 2):
        rows = [r for r in ledger if r["round"] == number]
        assert sorted(r["item"] for r in rows) == sorted(item.id for item in items)
        assert all(0 <= r["passes"] <= r["samples"] for r in rows)
    assert all(r["before"] == tiers.get(r["item"], "") and r["why"] for r in ledger if r["round"] == 1)
    first = {r["item"]: r["now"] for r in ledger if r["round"] == 1}
    assert all(r["before"] == first[r["item"]] for r in ledger if r["round"] == 2)
    trained = [r for r in lines if r["event"] == "trained"]
    assert [r["step"] for r in trained] == [step for step in range(1, 12) for _ in range(4)]


def test_stage_1_trains_no_difficult_item(whole):
    folder, _, _ = whole
    for step in range(1, 6):
        text = gzip.decompress((folder / "rollouts" / f"step_{step:06d}.jsonl.gz").read_bytes()).decode()
        assert {json.loads(line)["pool"] for line in text.splitlines()} == {"easy", "moderate"}


def test_the_control_goes_on_from_the_same_stage_1_without_mining(talker, tokenizer, whole, tmp_path):
    folder, _, _ = whole
    start = folder / "checkpoints" / "step_000005"
    state, _ = train(talker, tokenizer, tmp_path, settings(sampling="uniform"), start)
    assert state.step == 11 and {r["event"] for r in records(tmp_path, "mining.jsonl")} == {"begun", "trained"}
    assert [r["step"] for r in records(tmp_path)] == list(range(6, 12))


@pytest.mark.slow
def test_T37_the_reference_is_the_frozen_start_and_is_loaded_only_for_a_kl_term(talker, tokenizer, tmp_path,
                                                                              monkeypatch):
    """Also when the run is resumed, and when it goes on from another run's second stage."""
    made, start_model = [], trainer.Training.start_model
    monkeypatch.setattr(trainer.Training, "start_model", lambda self: made.append(start_model(self)) or made[-1])
    train(talker, tokenizer, tmp_path / "without")
    assert made and all(model is None for model in made)
    made.clear()
    cfg = settings()
    cfg.rl.kl_coef = 0.1
    train(talker, tokenizer, tmp_path / "with", cfg)
    shutil.rmtree(tmp_path / "with" / "checkpoints" / "step_000011")
    train(talker, tokenizer, tmp_path / "with", cfg)
    train(talker, tokenizer, tmp_path / "control", cfg, tmp_path / "with" / "checkpoints" / "step_000005")
    start = dict(talker[0]().named_parameters())
    assert len({id(model) for model in made}) == 3
    for model in made:
        assert all(torch.equal(p, start[name]) and not p.requires_grad for name, p in model.named_parameters())


def test_pools_without_a_trainable_tier_are_refused(talker, tokenizer, tmp_path):
    fresh, items = talker
    with pytest.raises(BadInput, match="stage1.mix"):
        trainer.train(settings(), fresh(), tokenizer, [i for i in items if i.tier == "difficult"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number, error", [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupted_run_saves_between_two_steps_and_goes_on_bit_for_bit(talker, tokenizer, whole, tmp_path,
                                                                            monkeypatch, number, error):
    """Step 3 is no step of ``checkpoint_every``: without the save, step 2 would be the newest."""
    folder, state, weights = whole
    update = trainer.update

    def struck(*args, **kwargs):
        if len(list((tmp_path / "rollouts").glob("*.gz"))) == 2:
            os.kill(os.getpid(), number)
        return update(*args, **kwargs)

    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "update", struck)
        with pytest.raises(error):
            train(talker, tokenizer, tmp_path)
    assert signal.getsignal(number) is before
    assert checkpoints(tmp_path / "checkpoints")[-1].name == "step_000003"
    resumed, found = train(talker, tokenizer, tmp_path)
    assert resumed == state and torch.equal(found, weights)
    assert (tmp_path / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


def test_a_second_signal_strikes_at_once():
    with pytest.raises(KeyboardInterrupt):
        with DeferSignals() as hold:
            os.kill(os.getpid(), signal.SIGINT)
            assert isinstance(hold.received, KeyboardInterrupt)
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_a_run_without_a_whole_checkpoint_is_not_begun_again_over_its_records(talker, tokenizer, tmp_path):
    train(talker, tokenizer, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    for path in checkpoints(tmp_path / "checkpoints"):
        (path / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="no checkpoint is complete"):
        train(talker, tokenizer, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("change, reason", [
    ({"step": "x"}, "not the state of a run: 'step' is a str"), ({"surplus": 1}, "not the state of a run of this"),
    ({"pools": {"easy": ["from elsewhere"]}}, "made from other items: 'from elsewhere'")])
def test_a_state_that_is_none_or_of_other_items_is_refused(talker, tokenizer, whole, tmp_path, change, reason):
    start = tmp_path / "step_000005"
    shutil.copytree(whole[0] / "checkpoints" / "step_000005", start)
    state = json.loads((start / "state.json").read_text())
    (start / "state.json").write_text(json.dumps(state | change))
    with pytest.raises(BadInput, match=reason):
        train(talker, tokenizer, tmp_path / "run", start=start)
