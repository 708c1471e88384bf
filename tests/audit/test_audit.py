"""A run verifies and replays, also elsewhere; whatever is changed in its log is found."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import shutil

import pytest
import torch

from minifleming.audit import __main__
from minifleming.audit import verify as verify_module
from minifleming.audit.reader import read_lines
from minifleming.audit.verify import verify
from minifleming.rlvr import train
from minifleming.rlvr.log import append_hash, step_path
from minifleming.rods.item import write_items
from minifleming.run import config as configuration
from minifleming.run.errors import RunFailed, run_cli
from minifleming.run.fields import RL, Config, Mining, Run, Stage1, Stage2


def settings(source: str = "mined", **rl) -> Config:
    return Config(
        run=Run(checkpoint_every=4, keep_last=1, seed=3),
        rl=RL(max_new_tokens=12, lr=2e-3, prompts_per_step=4, **rl),
        stage1=Stage1(samples_per_prompt=4, min_steps=3, max_steps=5, plateau_threshold=1.0, window=2),
        stage2=Stage2(samples_per_prompt=6, rounds=2, steps_per_round=3, sampling=source), mining=Mining(samples=3))


def make_run(talker, tokenizer, folder, cfg, start=None):
    """What pipeline.py leaves behind, for the audit."""
    fresh, items = talker
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(configuration.to_toml(cfg))
    (folder / "manifest.json").write_text(json.dumps(
        {"world_size": 1, "threads": torch.get_num_threads(), "device": "cpu", "replay_tolerance": 0.0}))
    write_items(folder / "items" / "train.jsonl", items)
    model = fresh()
    train.train(cfg, model, tokenizer, items, folder, start)
    return folder


def test_a_whole_run_verifies(whole):
    found = verify(whole)
    assert found.differences == [] and not found.unfinished
    assert (found.steps, found.samples, found.rounds) == (11, 5 * 16 + 6 * 24, 2) and found.checkpoints == 3


@pytest.mark.parametrize("step", [1, 3, 6, 11])
def test_any_step_replays_bit_for_bit(whole, step, capsys):
    assert __main__.main(["replay", str(whole), "--step", str(step)]) == 0
    assert f"step {step}, replayed from step_" in capsys.readouterr().out


def test_a_copy_elsewhere_verifies_and_replays(whole, tmp_path):
    away = tmp_path / "another place"
    shutil.copytree(whole, away)
    before = {p: p.read_bytes() for p in away.rglob("*") if p.is_file()}
    assert __main__.main(["verify", str(away)]) == 0
    assert __main__.main(["replay", str(away), "--step", "7"]) == 0
    assert {p: p.read_bytes() for p in away.rglob("*") if p.is_file()} == before, "an audit writes nothing"


VARIANTS = [settings(objective=name) for name in ("dr_grpo", "grpo", "dapo", "gspo", "cispo")] + [
    settings(objective="grpo", num_iterations=2, minibatches=2, kl_coef=0.05),
    settings(objective="gspo", minibatches=3, clip_eps=[1e-3, 1e-3]),
    settings(objective="cispo", num_iterations=2, clip_eps=[1.0, 0.01], kl_coef=0.1, kl_estimator="k2", kl_importance_weighted=False),
    settings(advantage="leave_one_out", kl_coef=0.1), settings(objective="dapo", advantage="batch", num_iterations=3),
]


@pytest.mark.slow
@pytest.mark.parametrize("cfg", VARIANTS, ids=lambda c: "-".join(
    str(x) for x in (c.rl.objective, c.rl.advantage, c.rl.num_iterations, c.rl.minibatches, c.rl.kl_coef)))
def test_every_variant_verifies_and_replays(talker, tokenizer, tmp_path, cfg):
    """Several epochs, minibatches, clips and a KL term among them."""
    cfg = dataclasses.replace(cfg, stage1=dataclasses.replace(cfg.stage1, max_steps=3),
                              stage2=dataclasses.replace(cfg.stage2, rounds=1, steps_per_round=2))
    folder = make_run(talker, tokenizer, tmp_path / "run", cfg)
    assert verify(folder).differences == []
    assert __main__.main(["replay", str(folder), "--step", "5"]) == 0
    metrics = [json.loads(line) for line in read_lines(folder / "metrics.jsonl")]
    steps = [m for m in metrics if m["stage"].startswith("rl_")]
    assert any(m["grad_norm"] > 0 for m in steps)
    assert all(("kl" in m) == (cfg.rl.kl_coef > 0) and "clipped_tokens_low" in m or cfg.rl.objective == "paper" for m in steps)
    if cfg.rl.num_iterations * cfg.rl.minibatches > 1 and cfg.rl.clip_eps:
        assert sum(m["clipped_tokens_low"] + m["clipped_tokens_high"] for m in steps) > 0


@pytest.mark.slow
def test_a_control_from_another_run_and_a_run_that_was_interrupted_verify(talker, tokenizer, whole, tmp_path,
                                                                          monkeypatch):
    control = make_run(talker, tokenizer, tmp_path / "control", settings("uniform"),
                       whole / "checkpoints" / "step_000005")
    assert verify(control).differences == [] and __main__.main(["replay", str(control), "--step", "8"]) == 0
    step, count = train.Training.train_step, iter(range(99))

    def mortal(self, progress):
        if next(count) == 6:
            raise KeyboardInterrupt
        return step(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(train.Training, "train_step", mortal)
        with pytest.raises(KeyboardInterrupt):
            make_run(talker, tokenizer, tmp_path / "killed", settings())
    found = verify(tmp_path / "killed")
    assert found.differences == [] and found.unfinished and found.steps == 6
    again = make_run(talker, tokenizer, tmp_path / "killed", settings())
    assert verify(again).differences == [] and not verify(again).unfinished
    assert (again / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def status(folder, capsys) -> tuple[int, str]:
    code = run_cli(__main__.main, ["verify", str(folder)])
    error = capsys.readouterr().err
    assert error.count("\n") == (code != 0) and "Traceback" not in error
    return code, error


LOGS = ("metrics.jsonl", "mining.jsonl", "rollouts/step_000002.jsonl.gz", "rollouts/step_000009.jsonl.gz")


@pytest.mark.slow
@pytest.mark.parametrize("name", LOGS)
@pytest.mark.parametrize("seed", range(12))
def test_one_changed_byte_in_a_record_is_found(whole, tmp_path, capsys, name, seed):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / name
    text = bytearray("\n".join(read_lines(path)).encode() + b"\n")
    rng = random.Random(f"{name} {seed}")
    at = rng.randrange(len(text) - 1)
    text[at] = rng.choice([c for c in b'0123456789abcxyz",{}[ ' if c != text[at]])
    path.write_bytes(gzip.compress(bytes(text)) if path.suffix == ".gz" else bytes(text))
    code, error = status(folder, capsys)
    assert code == 1 and name in error


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_one_flipped_bit_of_a_compressed_log_is_found_or_changes_no_record(whole, tmp_path, capsys, seed):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = step_path(folder, 4)
    raw = bytearray(path.read_bytes())
    raw[random.Random(seed).randrange(10, len(raw))] ^= 1 << seed % 8
    path.write_bytes(bytes(raw))
    assert status(folder, capsys)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize("change", ["drop a line", "swap lines", "drop the last lines", "drop a step", "double a line"])
def test_lost_and_moved_lines_are_found(whole, tmp_path, capsys, change):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    if change == "drop a step":
        step_path(folder, 8).unlink()
    new = {"drop a line": lines[:4] + lines[5:], "swap lines": [lines[1], lines[0], *lines[2:]],
           "drop the last lines": lines[:-2], "drop a step": lines, "double a line": [*lines[:3], *lines[2:]]}[change]
    path.write_text("".join(new))
    code, _ = status(folder, capsys)
    assert code == 1


def rewrite(folder, change, step: int = 1) -> None:
    """Change a record of the first step and forge every hash after it, as somebody with the source code could."""
    log = read_lines(step_path(folder, step))
    ledger, metrics = (read_lines(folder / name) for name in ("mining.jsonl", "metrics.jsonl"))
    chain = json.loads([line for line in ledger if '"event": "entered"' in line][-1])["hash"]
    lines = []
    for number, line in enumerate(log):
        entry = json.loads(line)
        entry.pop("hash")
        if number == 0:
            change(entry)
        line, chain = append_hash(entry, chain)
        lines.append(line + "\n")
    step_path(folder, step).write_bytes(gzip.compress("".join(lines).encode()))
    forged = []
    for line in ledger:
        if '"event": "trained"' in line and '"step": 1,' in line:
            entry = json.loads(line)
            entry.pop("hash")
            line, chain = append_hash(entry, chain)
        forged.append(line + "\n")
    (folder / "mining.jsonl").write_text("".join(forged))
    entry = json.loads(metrics[0])
    entry.pop("hash")
    metrics[0], _ = append_hash(entry, chain)
    (folder / "metrics.jsonl").write_text(metrics[0] + "\n")
    for later in ("step_000005", "step_000011"):
        shutil.rmtree(folder / "checkpoints" / later)


@pytest.mark.slow
@pytest.mark.parametrize("name, value", [
    ("reward", 1.1), ("advantage", 0.9), ("group_mean", 0.7), ("coefficient", 0.5), ("denominator", 15),
    ("pool", "difficult"), ("answer", "?"), ("item_sha256", "0" * 64), ("key", [3, 0, "item-1", 9]),
    ("verdict", {"label": "A", "rule": "ok", "span": [0, 1]}), ("finished", None), ("prompt_ids", [1, 2]),
    ("completion_ids", [1, 2]), ("logprobs", [-1.0]), ("trained_logprobs", [-1.0])])
def test_a_forged_field_is_found_though_all_hashes_fit(whole, tmp_path, capsys, name, value):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)

    def change(entry):
        entry[name] = (not entry[name]) if value is None else value if entry[name] != value else 0

    rewrite(folder, change)
    code, error = status(folder, capsys)
    assert code == 1 and ("recomputed" in error or "step_000001.jsonl.gz:1: " in error), error


def test_forging_nothing_leaves_no_difference_but_what_was_cut(whole, tmp_path):
    """The forger of the test above is good enough: without a change his run is a clean one of one step."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    rewrite(folder, lambda entry: None)
    found = verify(folder)
    assert found.differences == [] and found.steps == 1


def test_other_weights_in_a_checkpoint_and_other_items_are_found(talker, whole, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    other = folder / "checkpoints" / "step_000005"
    assert verify(folder).differences == []
    shutil.rmtree(other)
    shutil.copytree(folder / "checkpoints" / "step_000011", other)
    code, error = status(folder, capsys)
    assert code == 1 and "step_000005" in error
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    items = [dataclasses.replace(item, question=item.question + " ?") for item in talker[1]]
    write_items(folder / "items" / "train.jsonl", items)
    assert status(folder, capsys)[0] == 1


@pytest.mark.parametrize("what", ["reward", "seed"])
def test_changed_rules_and_settings_are_found(whole, tmp_path, capsys, what):
    """A reward that pays otherwise, or another seed: the log is whole and nothing in it fits any more."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    config = (folder / "config.toml").read_text()
    old, new = ("reward_format = 0.1", "reward_format = 0.2") if what == "reward" else ("seed = 3", "seed = 4")
    assert old in config
    (folder / "config.toml").write_text(config.replace(old, new))
    assert status(folder, capsys)[0] == 1


def test_a_replay_that_differs_says_where(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()
    first = json.loads(lines[0])
    path.write_text("\n".join([lines[0].replace(repr(first["grad_norm"]), "1.5"), *lines[1:]]) + "\n")
    with pytest.raises(RunFailed, match="step 1: gradient norm 1.5, replayed"):
        __main__.main(["replay", str(folder), "--step", "2"])
    path.write_text("\n".join([lines[0].replace(first["weights_checksum"], "f" * 64), *lines[1:]]) + "\n")
    with pytest.raises(RunFailed, match="another checksum"):
        __main__.main(["replay", str(folder), "--step", "2"])
    path.write_text("\n".join(lines) + "\n")
    text = "\n".join(read_lines(step_path(folder, 2))) + "\n"
    ids = json.loads(text.splitlines()[0])["completion_ids"]
    step_path(folder, 2).write_bytes(gzip.compress(
        text.replace(f'"completion_ids": {ids}', f'"completion_ids": {[*ids[:-1], 0]}', 1).encode()))
    with pytest.raises(RunFailed, match="step_000002.jsonl.gz:1: replayed, completion_ids is another"):
        __main__.main(["replay", str(folder), "--step", "2"])


@pytest.mark.parametrize("arguments, reason", [
    (["verify", "nowhere"], "not a run folder"), (["replay", "RUN"], "--step: give"),
    (["replay", "RUN", "--step", "99"], "there is no step 99"), (["replay", "RUN", "--step", "0"], "--step: give"),
    (["look", "RUN"], "invalid choice"), (["verify"], "required")])
def test_bad_arguments_are_one_line_and_exit_2(whole, capsys, arguments, reason):
    code = run_cli(__main__.main, [str(whole) if a == "RUN" else a for a in arguments])
    error = capsys.readouterr().err
    assert code == 2 and reason in error and error.count("\n") == 1


def test_a_changed_a_dropped_and_a_forged_record_are_found(whole, tmp_path, capsys):
    """One case of each kind; the slow tests have many."""
    folder = tmp_path / "run"
    missed = []
    for change in ("byte", "drop", "forge", "no record"):
        shutil.copytree(whole, folder)
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True)
        if change == "byte":
            path.write_text("".join(lines).replace("0", "1", 1))
        if change == "drop":
            path.write_text("".join(lines[:4] + lines[5:]))
        if change == "forge":
            rewrite(folder, lambda entry: entry.update(reward=0.5))
        if change == "no record":
            step_path(folder, 2).write_bytes(gzip.compress(b"[]\n"))
        if status(folder, capsys)[0] != 1:
            missed.append(change)
        shutil.rmtree(folder)
    assert missed == []


def test_a_log_of_another_format_is_refused_in_one_line(whole, tmp_path, capsys):
    """A run folder of an older version: its first record has no format number, and its hash is right."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    first, *rest = read_lines(folder / "mining.jsonl")
    entry = json.loads(first)
    del entry["hash"], entry["format"]
    old, _ = append_hash(entry, entry["from"])
    (folder / "mining.jsonl").write_text("".join(line + "\n" for line in [old, *rest]))
    for arguments in (["verify", str(folder)], ["replay", str(folder), "--step", "1"]):
        assert run_cli(__main__.main, arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "a log of format 1" in error


def test_an_error_of_the_audit_itself_shows_its_traceback(whole, monkeypatch):
    def broken(*arguments):
        raise KeyError("ours")

    monkeypatch.setattr(verify_module, "recompute_update", broken)
    with pytest.raises(KeyError, match="ours"):
        run_cli(__main__.main, ["verify", str(whole)])
