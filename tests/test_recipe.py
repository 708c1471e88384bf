"""Tests for recipe.py: the main job at toy size writes every file, and a second run reuses them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import train_grpo
from minifleming.audit import __main__
from minifleming.audit.verify import verify
from minifleming.cold_start import sft
from minifleming.recipe import Recipe
from minifleming.run import config
from minifleming.run.checkpoint import verify_folder
from minifleming.run.errors import run_cli
from minifleming.run.run_folder import FORMAT

ROOT = Path(__file__).parents[1]
SMALL = ["data.train=60", "data.heldout=24", "data.num_ood=8", "cold_start.traces=16", "cold_start.disease_fraction=0.9",
         "cold_start.epochs=1", "rl.prompts_per_step=2", "rl.max_new_tokens=24", "stage1.max_steps=2",
         "stage1.samples_per_prompt=2", "stage2.samples_per_prompt=3", "stage2.rounds=1", "stage2.steps_per_round=2",
         "mining.samples=2", "eval.max_new_tokens=24", "run.device=\"cpu\""]


def run(folder, *extra) -> int:
    flags = [f"--set={value}" for value in [*SMALL, f"run.out={json.dumps(str(folder))}"]]
    return run_cli(train_grpo.main, [*flags, *extra])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    assert run(folder) == 0
    return folder


def test_the_run_folder_is_complete(finished):
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert {"config.toml", "manifest.json", "metrics.jsonl", "timings.jsonl", "mining.jsonl", "traces.jsonl",
            "items/train.jsonl", "items/heldout.jsonl", "items/longer_hops.jsonl", "cold_start/model.safetensors",
            "rollouts/step_000001.jsonl.gz", "rollouts/step_000004.jsonl.gz", "eval/base.heldout.jsonl",
            "eval/rl_stage2.longer_hops.jsonl", "report/ablation.json", "report/ablation.md"} <= names
    assert (finished / "checkpoints" / "step_000004" / "model" / "config.json").is_file()


def test_the_run_verifies_and_a_step_of_it_replays_also_elsewhere(finished, tmp_path):
    assert __main__.main(["verify", str(finished)]) == 0
    shutil.copytree(finished, tmp_path / "away")
    assert __main__.main(["replay", str(tmp_path / "away"), "--step", "3"]) == 0


def test_the_ablation_has_four_variants_and_two_splits(finished):
    rows = json.loads((finished / "report" / "ablation.json").read_text())
    assert [(r["variant"], r["split"]) for r in rows] == [
        (v, s) for v in ("base", "cold_start", "rl_stage1", "rl_stage2") for s in ("heldout", "longer_hops")]
    for row in rows:
        assert row["n"] == (24 if row["split"] == "heldout" else 8)
        assert row["accuracy"] == row["correct"] / row["n"] and 0 <= row["ci_low"] <= row["ci_high"] <= 1


def test_a_second_run_reuses_everything(finished, capsys):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert run(finished) == 0
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    changed = {p.relative_to(finished).as_posix() for p in after if after[p] != before.get(p)}
    assert {c.split("/")[0] for c in changed} <= {"report"}
    assert "+ RL stage 2" in capsys.readouterr().out


def test_another_configuration_in_the_same_folder_is_refused(finished, capsys):
    assert run(finished, "--set=rl.lr=0.5") == 2
    assert "rl.lr" in capsys.readouterr().err
    assert run(finished, "--resume", "never") == 2


def test_a_run_folder_of_another_format_is_refused_in_one_line(finished, tmp_path, capsys):
    """Folders of older versions have no format number, and names of fields that no longer exist."""
    for name in ("manifest.json", "config.toml"):
        (tmp_path / "old").mkdir(exist_ok=True)
        shutil.copy(finished / name, tmp_path / "old")
    (tmp_path / "old" / "checkpoints").mkdir()
    path = tmp_path / "old" / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest.pop("format") == FORMAT
    (tmp_path / "old" / "config.toml").write_text("[run]\nkeep = 2\n")
    for old in (manifest, manifest | {"format": FORMAT + 1}):
        path.write_text(json.dumps(old))
        capsys.readouterr()
        assert run(tmp_path / "old") == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and f"this version uses format {FORMAT}" in lines[0]


def test_a_kill_right_after_the_cold_start_was_written_leaves_no_trace(finished, tmp_path, monkeypatch):
    def cold_start(name):
        out = tmp_path / name
        shutil.copytree(finished / "items", out / "items", dirs_exist_ok=True)
        more = ["cold_start.batch=4", "cold_start.checkpoint_every=2"]
        recipe = Recipe(config.load(finished / "config.toml", [f"run.out={json.dumps(str(out))}", *more]))
        recipe.cold_start(recipe.items()["train"], set())
        return out

    def killed(out):
        raise InterruptedError

    expected = cold_start("whole")
    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(sft, "remove_checkpoints", killed)
        cold_start("killed")
    assert sft.checkpoints_of(tmp_path / "killed" / "cold_start").exists()
    out = cold_start("killed")
    assert not sft.checkpoints_of(out / "cold_start").exists()
    assert (out / "metrics.jsonl").read_text() == (expected / "metrics.jsonl").read_text()


def test_training_and_held_out_items_share_nothing(finished):
    def read(name):
        return [json.loads(line) for line in (finished / "items" / f"{name}.jsonl").read_text().splitlines()]

    def combination(item):
        found = item["visible"][: len(item["visible"]) - len(item["path"]) + 1]
        return item["provenance"]["root"], frozenset(t for _, _, t in found)

    train, held = read("train"), read("heldout") + read("longer_hops")
    assert not {combination(i) for i in train} & {combination(i) for i in held}
    assert not {frozenset(i["options"].values()) for i in train} & {frozenset(i["options"].values()) for i in held}
    assert {i["hops"] for i in read("longer_hops")} == {4} and {i["hops"] for i in train} == {1, 2, 3}


@pytest.mark.slow
def test_a_run_that_starts_from_anothers_stage_1_is_whole_by_itself(finished, tmp_path):
    """The control: ``--resume PATH`` into a new folder, with another stage 2, up to the table of all four variants."""
    for name in ("items", "cold_start"):
        shutil.copytree(finished / name, tmp_path / "control" / name)
    start = finished / "checkpoints" / "step_000002"
    assert run(tmp_path / "control", "--set=stage2.sampling=uniform", "--resume", str(start)) == 0
    theirs, ours = (json.loads((folder / "report" / "ablation.json").read_text())
                    for folder in (finished, tmp_path / "control"))
    assert [r["variant"] for r in ours] == [r["variant"] for r in theirs]
    assert ours[:6] == theirs[:6]
    assert '"event": "mined"' not in (tmp_path / "control" / "mining.jsonl").read_text()
    assert verify(tmp_path / "control").differences == []
    assert verify_folder(tmp_path / "control" / "checkpoints" / "step_000002") is None
    steps = [json.loads(line)["step"] for line in (tmp_path / "control" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [3, 4]


def test_a_checkpoint_of_stage_2_without_the_end_of_stage_1_beside_it_is_refused(finished, tmp_path, capsys):
    shutil.copytree(finished / "checkpoints" / "step_000004", tmp_path / "step_000004")
    for name in ("items", "cold_start"):
        shutil.copytree(finished / name, tmp_path / "new" / name)
    capsys.readouterr()
    assert run(tmp_path / "new", "--resume", str(tmp_path / "step_000004")) == 2
    assert "step_000002: files.json is missing" in capsys.readouterr().err and not (tmp_path / "new" / "checkpoints").exists()


def test_a_start_that_failed_does_not_lock_the_folder(tmp_path, capsys):
    """One disease has no rivals, so no question of one hop: status 1. The corrected call is not refused for it."""
    alone = ["--set=data.num_diseases=1", "--set=data.hops=[1]"]
    assert run(tmp_path / "a", *alone) == 1
    begun = (tmp_path / "a" / "config.toml").read_text()
    assert run(tmp_path / "a", *alone, "--set=run.seed=1") == 1, "no item stands there yet"
    assert (tmp_path / "a" / "config.toml").read_text() != begun and "gave 0 different" in capsys.readouterr().err


def test_a_mistyped_file_does_not_lock_the_folder_and_other_items_do(tmp_path, capsys):
    traces = ["--set=cold_start.traces_file=tracs.jsonl"]
    assert run(tmp_path / "a", *traces) == 2 and (tmp_path / "a" / "items").exists()
    assert run(tmp_path / "a", "--set=cold_start.traces_file=traces.jsonl") == 2
    assert "traces.jsonl: No such file" in capsys.readouterr().err.splitlines()[-1]
    assert run(tmp_path / "a", *traces, "--set=data.train=61") == 2
    assert "other values of data.train" in capsys.readouterr().err


def test_a_folder_that_is_no_checkpoint_is_named_as_such(finished, tmp_path, capsys):
    assert run(tmp_path / "new", "--resume", str(finished)) == 2
    assert "no checkpoint; give a folder RUN/checkpoints/step_NNNNNN" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_T42_given_items_must_differ_by_what_is_asked_not_by_their_ids(finished, tmp_path, capsys):
    items = [json.loads(line) for line in (finished / "items" / "train.jsonl").read_text().splitlines()]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(i) + "\n" for i in items))
    turned = items[0] | {"id": "another", "options": dict(zip("ABCDEFGH", reversed(items[0]["options"].values())))}
    turned["answer"] = "HGFEDCBA"["ABCDEFGH".index(items[0]["answer"])]
    (tmp_path / "held.jsonl").write_text(json.dumps({k: turned[k] for k in ("id", "question", "options", "answer")}))
    files = [f"--set=data.{name}_file={json.dumps(str(tmp_path / file))}"
             for name, file in (("train", "train.jsonl"), ("heldout", "held.jsonl"))]
    assert run(tmp_path / "run", *files) == 2
    assert "is both trained on and evaluated" in capsys.readouterr().err


def test_traces_of_evaluated_items_are_refused(finished, tmp_path, capsys):
    item = json.loads((finished / "items" / "heldout.jsonl").read_text().splitlines()[0])
    trace = {"item": "x", "question": item["question"], "options": item["options"], "reasoning": " so", "answer": "A",
             "strategy": "blind", "teacher": "someone"}
    (tmp_path / "traces.jsonl").write_text(json.dumps(trace))
    assert run(tmp_path / "run", f"--set=cold_start.traces_file={json.dumps(str(tmp_path / 'traces.jsonl'))}") == 2
    assert "tells an item that is evaluated" in capsys.readouterr().err


def test_a_damaged_cold_start_is_not_made_again_under_later_stages(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "cold_start" / "model.safetensors").write_bytes(b"")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert run(tmp_path / "run") == 2
    assert "choose another run.out" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_two_ranks_run_the_whole_job_and_one_of_them_speaks(finished, tmp_path):
    """(That two ranks compute what one does: tests/rlvr/test_ranks.py.)"""
    flags = [f"--set={value}" for value in [*SMALL, f"run.out={json.dumps(str(tmp_path / 'two'))}"]]
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                           str(ROOT / "train_grpo.py"), *flags], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("+ RL stage 2") == 1
    for name in ("train", "heldout", "longer_hops"):
        assert (tmp_path / "two" / "items" / f"{name}.jsonl").read_bytes() == (
            finished / "items" / f"{name}.jsonl").read_bytes()
