"""Audits of unusual runs, and of folders in which somebody has been busy."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from minifleming.audit import __main__
from minifleming.audit.reader import read_lines
from minifleming.audit.verify import verify
from minifleming.lm.optimizer import adamw
from minifleming.rlvr.log import append_hash, step_path
from minifleming.rlvr.rollout import roll_out
from minifleming.rlvr.update import update
from minifleming.rods.item import read_items, write_items
from minifleming.run.checkpoint import write_folder
from minifleming.run.errors import BadInput, RunFailed, run_cli
from minifleming.run.fields import RL
from tests.audit.test_audit import make_run, settings


@pytest.fixture
def folder(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def status(capsys, *arguments) -> tuple[int, str]:
    code = run_cli(__main__.main, [str(a) for a in arguments])
    error = re.sub(r"[^\n]*\r", "", capsys.readouterr().err)  # progress bars
    said = [line for line in error.split("\n") if line.startswith("minifleming:")]
    assert len(said) == (code != 0) and "Traceback" not in error
    return code, said[0] if said else ""


@pytest.mark.slow
@pytest.mark.parametrize("start, rl", [(5, {"kl_coef": 0.05}), (5, {}), (8, {}), (0, {})])
def test_a_run_that_goes_on_from_anywhere_in_another_one_verifies_and_replays(talker, tokenizer, tmp_path, start, rl):
    """The middle of stage 2, the end of stage 1 with a KL term to the start, the very beginning."""
    cfg = settings(**rl)
    cfg.run.keep_last = 9
    first = make_run(talker, tokenizer, tmp_path / "first", cfg)
    again = make_run(talker, tokenizer, tmp_path / "again", cfg, first / "checkpoints" / f"step_{start:06d}")
    assert verify(again).differences == [] and verify(again).steps == 11 - start
    assert __main__.main(["replay", str(again), "--step", "11"]) == 0
    theirs, ours = (read_lines(run / "metrics.jsonl")[-1] for run in (first, again))
    assert json.loads(theirs)["weights_checksum"] == json.loads(ours)["weights_checksum"], "it is the same run"


def test_the_end_of_a_run_is_nothing_to_go_on_with(talker, tokenizer, whole, tmp_path):
    with pytest.raises(BadInput, match="the end of a run"):
        make_run(talker, tokenizer, tmp_path / "more", settings(), whole / "checkpoints" / "step_000011")


def test_a_step_beyond_the_end_is_found_and_does_not_replay_for_ever(folder, capsys):
    shutil.copy(step_path(folder, 11), step_path(folder, 12))
    assert status(capsys, "verify", folder)[0] == 1
    code, said = status(capsys, "replay", folder, "--step", 12)
    assert code == 1 and "the run ends at step 11" in said


@pytest.mark.slow
@pytest.mark.parametrize("what", ["lr", "max_new_tokens", "an item that was never drawn", "another first model",
                                  "the first records"])
def test_what_the_run_was_made_from_is_part_of_the_chain(talker, folder, capsys, what):
    config = folder / "config.toml"
    if what in ("lr", "max_new_tokens"):
        old, new = ("lr = 0.002", "lr = 0.003") if what == "lr" else ("max_new_tokens = 12", "max_new_tokens = 9")
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
    if what.startswith("an item"):
        drawn = {json.loads(line).get("item") for line in read_lines(folder / "mining.jsonl") if '"trained"' in line}
        items = read_items(folder / "items" / "train.jsonl")
        next(item for item in items if item.id not in drawn).question = " blue"
        write_items(folder / "items" / "train.jsonl", items)
    if what == "another first model":
        shutil.copytree(folder / "checkpoints" / "step_000011" / "model", folder / "other")
        home = folder / "checkpoints" / "step_000000"
        rest = {name: (home / name).read_bytes() for name in ("optimizer.safetensors", "state.json")}

        def fill(path):
            shutil.copytree(folder / "other", path / "model")
            for name, data in rest.items():
                (path / name).write_bytes(data)

        write_folder(home, fill)
    if what == "the first records":
        path = folder / "mining.jsonl"
        path.write_text("".join(line + "\n" for line in read_lines(path) if '"entered"' not in line))
    assert status(capsys, "verify", folder)[0] == 1


def test_replay_finds_what_was_forged_in_the_ledger_by_the_hash_after_it(folder, capsys):
    """Mined passes within a class can be forged so that all hashes fit: then a later one is another than replayed."""
    path = folder / "metrics.jsonl"
    metrics = read_lines(path)
    at = next(i for i, line in enumerate(metrics) if '"step": 6,' in line and '"rl_stage2"' in line)
    entry = json.loads(metrics[at])
    entry.pop("hash")
    forged, _ = append_hash(entry, "0" * 64)  # what any change before it in the log does to this line
    path.write_text("\n".join([*metrics[:at], forged, *metrics[at + 1 :]]) + "\n")
    code, said = status(capsys, "replay", folder, "--step", 6)
    assert code == 1 and "its line of the metrics is another (hash)" in said


@pytest.mark.slow
@pytest.mark.parametrize("change", ["[]", "{}", '{"threads": "abc", "world_size": 1, "device": "cpu", '
                                    '"replay_tolerance": 0.0}', '{"threads": 1, "world_size": 1, "device": "tpu", '
                                    '"replay_tolerance": 0.0}', '{"threads": 1, "world_size": true, "device": "cpu", '
                                    '"replay_tolerance": 0.0}', "nonsense"])
def test_a_manifest_that_is_none_is_one_line(folder, capsys, change):
    (folder / "manifest.json").write_text(change)
    code, said = status(capsys, "replay", folder, "--step", 2)
    assert code == 2 and "manifest.json" in said


def test_a_cpu_run_has_no_tolerance_whatever_its_manifest_says(folder, capsys):
    (folder / "manifest.json").write_text(json.dumps(
        {"threads": 1, "world_size": 1, "device": "cpu", "replay_tolerance": 1e9}))
    path = folder / "metrics.jsonl"
    lines = read_lines(path)
    norm = json.loads(lines[0])["grad_norm"]
    path.write_text("\n".join([lines[0].replace(repr(norm), repr(norm + 1e-9)), *lines[1:]]) + "\n")
    assert status(capsys, "replay", folder, "--step", 1)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"", b"[]\n", b"x\n", b'{"item_id": 1}\n'])
def test_a_log_that_is_none_is_one_line(folder, capsys, text):
    import gzip

    step_path(folder, 2).write_bytes(gzip.compress(text))
    assert status(capsys, "replay", folder, "--step", 2)[0] == 1
    assert status(capsys, "verify", folder)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["step_000000", "step_000005", "step_000011"])
def test_the_checkpoints_that_are_never_deleted_must_be_there(folder, capsys, step):
    shutil.rmtree(folder / "checkpoints" / step)
    code, said = status(capsys, "verify", folder)
    assert code == 1 and step in said


def test_a_log_that_ends_before_the_checkpoint_is_not_gone_on_with(talker, tokenizer, folder):
    path = folder / "metrics.jsonl"
    path.write_text("".join(line + "\n" for line in read_lines(path)[:-2]))
    with pytest.raises(BadInput, match="the log ends before this checkpoint"):
        make_run(talker, tokenizer, folder, settings())


@pytest.mark.parametrize("cfg", [RL(max_new_tokens=12), RL(max_new_tokens=12, objective="dapo", num_iterations=2)],
                         ids=["paper", "several"])
def test_sampler_and_trainer_are_compared_also_where_nothing_is_trained(talker, tokenizer, cfg):
    fresh, items = talker
    model = fresh()
    groups = roll_out(model, tokenizer, [(item, "") for item in items[:3]], cfg, samples=4, seed=0, step=1)
    for r in (r for group in groups for r in group):
        r.advantage = 0.0
    found = update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
    assert found["samples_with_gradient"] == 0 and found["logprob_diff_mean"] > 0
    groups[0][0].logprobs[0] -= 1.0
    with pytest.raises(RunFailed, match="disagree"):
        update(model, adamw(model, 1e-3, (0.9, 0.95), 0.0), groups, cfg)
