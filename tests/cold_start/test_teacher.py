"""The command: python -m minifleming.cold_start.teacher."""

from __future__ import annotations

import json

import pytest

from minifleming.cold_start import teacher
from minifleming.cold_start.trace import read_traces
from minifleming.rods.graphs.readers import load_graph
from minifleming.rods.item import write_items
from minifleming.rods.mix import synthesise
from minifleming.run.errors import BadInput, RunFailed


@pytest.fixture(scope="module")
def items():
    return synthesise(load_graph("embedded"), 24, [1, 2, 3], seed=7)


@pytest.fixture
def arguments(items, tmp_path):
    write_items(tmp_path / "items.jsonl", items)
    return ["--items", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--samples", "2"]


def test_the_oracle_tells_every_item(arguments, items, tmp_path, capsys):
    assert teacher.main([*arguments, "--detours", "1"]) == 0
    traces = read_traces(tmp_path / "out.jsonl")
    assert [trace.item for trace in traces] == [item.id for item in items]
    for trace in traces:
        assert trace.verified and set(trace.checks) >= {"format", "answer", "hops", "leak", "brevity", "resolved"}
    assert "24 traces of 24 items" in capsys.readouterr().out
    assert "not for clinical use" in (tmp_path / "out.jsonl.card.md").read_text()
    record = [json.loads(line) for line in (tmp_path / "out.jsonl.record.jsonl").read_text().splitlines()]
    assert [len(row["proposals"]) for row in record] == [2] * 24


def test_what_errs_is_refined(arguments, tmp_path):
    assert teacher.main([*arguments, "--errs", "0.7", "--seed", "3"]) == 0
    kept = [trace.strategy for trace in read_traces(tmp_path / "out.jsonl")]
    assert {"conditioned", "backtrack", "explore"} <= set(kept)


def test_a_model_folder_teaches_and_the_oracle_steps_in(arguments, tmp_path):
    assert teacher.main([*arguments, "--teacher", "tiny", "--fallback", "oracle", "--rounds", "0", "--samples", "1",
                         "--max-new-tokens", "8", "--longest", "300"]) == 0
    assert {trace.teacher for trace in read_traces(tmp_path / "out.jsonl")} == {"oracle"}
    assert "| tiny | blind | 24 | 24 | 0 | 0 |" in (tmp_path / "out.jsonl.card.md").read_text()


def test_the_same_call_twice_asks_nothing_and_another_is_refused(arguments, tmp_path, monkeypatch):
    teacher.main(arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(teacher.Oracle, "propose", None)
    assert teacher.main(arguments) == 0
    with pytest.raises(BadInput, match="other settings"):
        teacher.main([*arguments, "--seed", "1"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_nothing_verified_is_a_run_that_failed(arguments, tmp_path):
    with pytest.raises(RunFailed, match="none of 24 items"):
        teacher.main([*arguments, "--longest", "5"])
    assert not (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl.card.md").exists()


@pytest.mark.parametrize("bad", [
    ["--teacher", "nobody"], ["--fallback", "nobody"], ["--judge", "nobody"], ["--detours", "1.5"],
    ["--detours", "nan"],
    ["--errs", "-1"], ["--samples", "0"], ["--pass-k", "3"], ["--rounds", "4"], ["--floor", "2"], ["--hard", "-0.1"],
    ["--chunk", "0"], ["--longest", "0"], ["--seed", "-1"], ["--temperature", "-1"], ["--max-new-tokens", "0"],
    ["--guidelines", "none.tsv"], ["--graph", ""]])
def test_bad_arguments_are_named(arguments, bad, tmp_path):
    with pytest.raises(BadInput, match=bad[0] if bad[1] not in ("nobody", "none.tsv") else bad[1]):
        teacher.main([*arguments, *bad])
    assert not (tmp_path / "out.jsonl").exists()
