"""The README's other commands, one after the other, each on what the one before wrote."""

from __future__ import annotations

import json

import pytest

import eval as evaluation
import generate
import synth_kg
import train_sft
from minifleming.cold_start import sft, teacher
from minifleming.cold_start.trace import Trace, write_traces
from minifleming.rods import proof
from minifleming.run.checkpoint import verify_folder
from minifleming.run.errors import run_cli


def test_items_traces_model_answers_accuracy(tmp_path, capsys):
    items, traces, model, answers = (str(tmp_path / n) for n in ("items.jsonl", "traces.jsonl", "sft", "answers.jsonl"))
    short = ["--set=eval.max_new_tokens=24", "--set=run.device=\"cpu\""]
    assert run_cli(synth_kg.main, ["--n", "12", "--out", items]) == 0
    assert run_cli(proof.main, ["--items", items]) == 0
    assert run_cli(teacher.main, ["--items", items, "--out", traces]) == 0
    assert run_cli(train_sft.main, ["--model", "tiny", "--traces", traces, "--out", model, *short]) == 0
    assert verify_folder(tmp_path / "sft") is None
    assert run_cli(train_sft.main, ["--model", "tiny", "--traces", traces, "--out", model, *short]) == 2, "kept"
    assert run_cli(generate.main, ["--model", model, "--items", items, "--out", answers, "--max-new-tokens", "24"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 12 and all(len(row["logprobs"]) == len(row["completion_ids"]) for row in rows)
    assert {row["finish_reason"] for row in rows} <= {"stop", "length"}
    capsys.readouterr()
    out = str(tmp_path / "eval")
    assert run_cli(evaluation.main, ["--model", model, "--benchmark", f"mine={items}", "--out", out, *short]) == 0
    assert "| mine | 12 | " in capsys.readouterr().out and len(
        (tmp_path / "eval" / "mine.jsonl").read_text().splitlines()) == 12
    again = str(tmp_path / "again")
    assert run_cli(evaluation.main, ["--model", model, "--benchmark", f"mine={items}", "--out", again, "--limit", "8",
                                     "--permute-options", "--samples", "2", *short]) == 0
    said = capsys.readouterr().out
    assert "| mine | 8 | " in said and "wrong options moved" in said and "pass@k" in said
    assert {"scores.html", "scores.json", "robust.md", "votes.json"} <= {
        path.name for path in (tmp_path / "again").iterdir()}
    assert run_cli(evaluation.main, ["--compare", again, again]) == 2 and "comes twice" in capsys.readouterr().err
    assert run_cli(evaluation.main, ["--compare", out, again]) == 2 and "same items" in capsys.readouterr().err
    assert run_cli(evaluation.main, ["--model", "tiny", "--benchmark", f"mine={items}", "--out", str(tmp_path / "base"),
                                     *short]) == 0
    assert run_cli(evaluation.main, ["--compare", out, str(tmp_path / "base"), "--out", str(tmp_path / "table")]) == 0
    assert (tmp_path / "table" / "compare.md").read_text() in capsys.readouterr().out
    assert len(json.loads((tmp_path / "table" / "compare.json").read_text())["models"]) == 4


def test_fine_tuning_says_why_nothing_is_left_to_train_on(tmp_path, capsys):
    trace = Trace("i", "Which ?", {"A": "a", "B": "b"}, " a", "A", "blind", "t", {"answer": True})
    write_traces(tmp_path / "traces.jsonl", [trace])
    for field, reason in [("val_fraction=0.9", "every trace is held out"), ("max_tokens=8", "all 1 traces are longer")]:
        shown = ["--set=run.device=\"cpu\"", "--set=run.seed=1", f"--set=cold_start.{field}"]
        assert run_cli(train_sft.main, ["--model", "tiny", "--traces", str(tmp_path / "traces.jsonl"),
                                        "--out", str(tmp_path / "sft"), *shown]) == 2
        assert reason in capsys.readouterr().err and not (tmp_path / "sft").exists()


def test_a_chat_says_what_it_is_and_ends_with_the_input(monkeypatch, capsys):
    lines = iter(["A patient has fever . Which disease is it ?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert run_cli(generate.main, ["--model", "tiny", "--max-new-tokens", "8", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "not for clinical use" in said and "answer:" in said


@pytest.mark.slow
def test_a_killed_sft_run_is_not_gone_on_with_under_other_settings(tmp_path, capsys, monkeypatch):
    """The differing keys are named, and nothing is touched; with the old settings it goes on."""
    monkeypatch.chdir(tmp_path)
    assert run_cli(synth_kg.main, ["--n", "30", "--out", "items.jsonl"]) == 0
    assert run_cli(teacher.main, ["--items", "items.jsonl", "--out", "traces.jsonl"]) == 0
    argv = ["--model", "tiny", "--traces", "traces.jsonl", "--out", "sft", "--set", "cold_start.epochs=2", "--set",
            "cold_start.batch=8", "--set", "cold_start.checkpoint_every=2"]
    with monkeypatch.context() as patch:
        patch.setattr(sft, "write_folder_together", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run_cli(train_sft.main, argv) == 130
    capsys.readouterr()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert run_cli(train_sft.main, [*argv, "--set", "cold_start.lr=0.5", "--set", "run.seed=3"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "other values of run.seed, cold_start.lr" in told[0]
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert run_cli(train_sft.main, argv) == 0
    assert (tmp_path / "sft" / "model.safetensors").exists() and not (tmp_path / "sft.checkpoints").exists()
