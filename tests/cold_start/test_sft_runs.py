"""Tests for supervised runs: killed and resumed, or on several ranks, they end with the same model."""

from __future__ import annotations

import json
import os
import signal
from functools import partial

import pytest
import torch

from minifleming.cold_start import sft, sft_checkpoint
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import TINY, load_for_training, load_model, save_model, weights_checksum
from minifleming.run.checkpoint import write_folder_together
from minifleming.run.errors import BadInput, Terminated
from minifleming.run.fields import ColdStart, Config, Run
from minifleming.run.run_folder import Journal
from tests.cold_start.test_sft import Judged, model_of, some_examples
from tests.ranks import on_ranks

CPU = torch.device("cpu")
SCRIPT = [(1.0, 0.3), (1.0, 0.4), (1.0, 0.2)]  # of three measurements; the second is the best
EXAMPLES = some_examples(26, seed=4)


def settings(**change) -> ColdStart:
    return ColdStart(**{"epochs": 4.0, "batch": 9, "lr": 1e-2, "num_evals": 3, "micro_batch_tokens": 40,
                        "checkpoint_every": 3} | change)


def run(folder, cfg=None, script=SCRIPT, model=None):
    """Runs 12 steps, measured after 4, 8 and 12. Returns the model and its log."""
    model = model or model_of(2)
    folder.mkdir(exist_ok=True)
    sft.train(model, EXAMPLES, cfg or settings(), seed=1, journal=Journal(folder), validation=Judged(script),
              folder=folder / "home")
    return model, (folder / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run")


class Killed(BaseException):
    pass


def test_T34_a_killed_run_resumes_and_ends_bit_for_bit(whole_run, tmp_path, monkeypatch):
    kill_and_resume(whole_run, tmp_path, monkeypatch, step=7)


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in range(1, 12) if step != 7])
def test_T34_at_every_other_step(whole_run, tmp_path, monkeypatch, step):
    kill_and_resume(whole_run, tmp_path, monkeypatch, step)


def kill_and_resume(whole_run, tmp_path, monkeypatch, step: int) -> None:
    """Killed after ``step`` steps, before their checkpoint; the log is truncated and rewritten."""
    one_step, count = sft.one_step, iter(range(1, 100))

    def struck(*arguments):
        found = one_step(*arguments)
        if next(count) == step + 1:
            raise Killed
        return found

    monkeypatch.setattr(sft, "one_step", struck)
    with pytest.raises(Killed):
        run(tmp_path)
    monkeypatch.setattr(sft, "one_step", one_step)
    begun = step // 3 * 3
    assert [p.name for p in sorted((tmp_path / "home").glob("step*"))] == [
        f"step_{n:06d}" for n in range(3, begun + 1, 3)][-sft_checkpoint.NUM_KEPT:]
    done = sum(begun >= at for at in (4, 8))
    model, log = run(tmp_path, script=SCRIPT[done:])
    assert log == whole_run[1] and weights_checksum(model) == weights_checksum(whole_run[0])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupted_run_saves_after_the_current_step(whole_run, tmp_path, monkeypatch, number, error):
    one_step, count = sft.one_step, iter(range(1, 100))

    def struck(*arguments):
        if next(count) == 5:
            os.kill(os.getpid(), number)
        return one_step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(sft, "one_step", struck)
        run(tmp_path)
    assert (tmp_path / "home" / "step_000005").exists()
    model, log = run(tmp_path, script=SCRIPT[1:])
    assert log == whole_run[1] and weights_checksum(model) == weights_checksum(whole_run[0])


@pytest.mark.parametrize("change", ["traces", "model", "settings"])
def test_checkpoints_of_another_run_are_refused(whole_run, tmp_path, monkeypatch, change):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(sft.SftCheckpointer, "load_best", lambda self, last: None)
    run(tmp_path / "run")
    before = sorted(tmp_path.rglob("*"))
    model = model_of(3) if change == "model" else model_of(2)
    examples = EXAMPLES[::-1] if change == "traces" else EXAMPLES
    cfg = settings(lr=1e-3) if change == "settings" else settings()
    with pytest.raises(BadInput, match="home: begun with other traces, another model, other settings"):
        sft.train(model, examples, cfg, seed=1, journal=Journal(tmp_path / "run"), folder=tmp_path / "run" / "home")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before(whole_run, tmp_path, capsys):
    run(tmp_path)
    newest = sorted((tmp_path / "home").glob("step*"))[-1]
    data = bytearray((newest / "optimizer.safetensors").read_bytes())
    data[-3] ^= 1
    (newest / "optimizer.safetensors").write_bytes(data)
    capsys.readouterr()
    model, log = run(tmp_path, script=SCRIPT[1:])
    assert log == whole_run[1] and weights_checksum(model) == weights_checksum(whole_run[0])
    assert capsys.readouterr().out.count("warning") == 1


def ranked(rank: int, folder, tokenizer, shard: int, killed: bool) -> None:
    cfg, one_step = Config(run=Run(fsdp_size=shard)), sft.one_step

    def struck(*arguments):
        if arguments[-1] == 7:
            raise Killed
        return one_step(*arguments)

    def begin():
        model = load_for_training(folder / "model", cfg, CPU)
        sft.train(model, EXAMPLES, settings(), seed=1, journal=Journal(folder), folder=folder / "home")
        return model

    if killed:
        sft.one_step = struck
        with pytest.raises(Killed):
            begin()
        sft.one_step = one_step
    write_folder_together(folder / "out", partial(save_model, begin(), tokenizer))


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "shard"), [(2, 1), (4, 1), (2, 0), (4, 2), (4, 0)])
def test_several_ranks_take_the_steps_of_one_and_resume(tmp_path, ranks, shard):
    """Batches of nine do not divide among the ranks; resumed runs end with the same bits."""
    tokenizer, alone = Tokenizer(TINY), model_of(2)
    ends = []
    for name, killed in (("plain", False), ("killed", True)):
        save_model(alone, tokenizer, tmp_path / name / "model")
        assert on_ranks(ranks, ranked, tmp_path / name, tokenizer, shard, killed) == [0] * ranks
        ends.append(load_model(tmp_path / name / "out"))
    assert weights_checksum(ends[0]) == weights_checksum(ends[1])
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("plain", "killed")]
    assert logs[0] == logs[1]
    sft.train(alone, EXAMPLES, settings(), seed=1, journal=Journal(tmp_path))
    assert all((a - b).abs().max() < 1e-4 for a, b in zip(alone.parameters(), ends[0].parameters()))
    for ours, theirs in zip((tmp_path / "metrics.jsonl").read_text().splitlines(), logs[0].splitlines()):
        ours, theirs = ({k: v for k, v in json.loads(line).items() if k != "stage"} for line in (ours, theirs))
        assert theirs == pytest.approx(ours, rel=1e-4)
