"""The command: python -m minifleming.cold_start.teacher."""

from __future__ import annotations

import functools
import json

import pytest
from chat_server import ChatServer, chat

from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.trace import read_traces
from minifleming.extras.teachers import __main__ as teacher
from minifleming.rods.item import write_items
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput, RunFailed
from tests.cold_start.faulty import FaultyOracle
from tests.rods.items import synthesize


@pytest.fixture(scope="module")
def items():
    return synthesize(load_graph("embedded"), 24, [1, 2, 3], seed=7)


@pytest.fixture
def arguments(items, tmp_path):
    write_items(tmp_path / "items.jsonl", items)
    return ["--items", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--samples", "2"]


def test_the_oracle_tells_every_item(arguments, items, tmp_path, capsys):
    assert teacher.main([*arguments, "--detour-fraction", "1"]) == 0
    traces = read_traces(tmp_path / "out.jsonl")
    assert [trace.item for trace in traces] == [item.id for item in items]
    for trace in traces:
        assert trace.verified and set(trace.checks) >= {"format", "answer", "hops", "leak", "brevity", "resolved"}
    assert "24 traces of 24 items" in capsys.readouterr().out
    assert "not for clinical use" in (tmp_path / "out.jsonl.card.md").read_text()
    record = [json.loads(line) for line in (tmp_path / "out.jsonl.record.jsonl").read_text().splitlines()]
    assert [len(row["proposals"]) for row in record] == [2] * 24


def test_items_without_a_verified_sample_are_refined(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "Oracle", functools.partial(FaultyOracle, error_rate=0.7))
    assert teacher.main([*arguments, "--seed", "3"]) == 0
    kept = [trace.strategy for trace in read_traces(tmp_path / "out.jsonl")]
    assert {"conditioned", "backtrack", "explore"} <= set(kept)


def test_a_model_folder_teaches_and_the_oracle_steps_in(arguments, tmp_path):
    assert teacher.main([*arguments, "--teacher", "tiny", "--fallback", "oracle", "--rounds", "0", "--samples", "1",
                         "--max-new-tokens", "8", "--max-chars", "300"]) == 0
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


def test_a_server_teaches_and_no_answer_is_paid_for_twice(arguments, items, tmp_path, monkeypatch):
    """It gives the graph's own reasoning in prose; asked to resolve, the option that the reasoning names."""
    graph = load_graph("embedded")
    told = {item.question: rows[0] for item, rows in zip(items, Oracle(graph, 0.0).propose(items))}

    def behave(handler, request, number):
        text = request["messages"][0]["content"]
        for question, trace in told.items():
            if text.startswith(question) or trace.reasoning.split(" so ")[0].strip() in text:
                return 200, {}, chat(f"{trace.reasoning.strip()}\n\n<answer>{trace.answer}</answer>")
        return 200, {}, chat("I do not know.")

    monkeypatch.setenv("MINIFLEMING_API_KEY", "sk-canary-123456")
    with ChatServer(behave) as server:
        command = [*arguments, "--teacher", server.url, "--model", "big", "--workers", "3"]
        assert teacher.main(command) == 0
        asked = len(server.requests)
        traces = read_traces(tmp_path / "out.jsonl")
        assert [trace.item for trace in traces] == [item.id for item in items]
        assert {(trace.teacher, trace.strategy, trace.verified) for trace in traces} == {("big", "blind", True)}
        assert asked == 3 * len(items), "two samples an item, and one closing of their equal reasonings"
        for name in ("out.jsonl", "out.jsonl.record.jsonl", "out.jsonl.record.jsonl.settings.json"):
            (tmp_path / name).unlink()
        assert teacher.main(command) == 0
        assert len(server.requests) == asked and read_traces(tmp_path / "out.jsonl") == traces
    assert not [path for path in tmp_path.iterdir() if b"sk-canary" in path.read_bytes()]


def test_nothing_verified_is_a_run_that_failed(arguments, tmp_path):
    with pytest.raises(RunFailed, match="none of 24 items"):
        teacher.main([*arguments, "--max-chars", "5"])
    assert not (tmp_path / "out.jsonl").exists() and (tmp_path / "out.jsonl.card.md").exists()


@pytest.mark.parametrize("bad", [
    ["--teacher", "nobody"], ["--fallback", "nobody"], ["--judge", "nobody"], ["--detour-fraction", "1.5"],
    ["--detour-fraction", "nan"],
    ["--samples", "0"], ["--pass-k", "3"], ["--rounds", "4"], ["--min-length-quantile", "2"], ["--hard-at-most", "-0.1"],
    ["--chunk", "0"], ["--max-chars", "0"], ["--seed", "-1"], ["--temperature", "-1"], ["--max-new-tokens", "0"],
    ["--workers", "0"], ["--retries", "-1"], ["--timeout", "nan"],
    ["--guidelines", "none.tsv"], ["--teacher", "http://localhost:1/v1"], ["--graph", ""]])
def test_bad_arguments_are_named(arguments, bad, tmp_path):
    named = {"nobody": "nobody", "none.tsv": "none.tsv", "http://localhost:1/v1": "--model: which"}
    with pytest.raises(BadInput, match=named.get(bad[1], bad[0])):
        teacher.main([*arguments, *bad])
    assert not (tmp_path / "out.jsonl").exists()


def test_a_record_is_of_the_bytes_of_what_was_read(arguments, tmp_path):
    """Items, the graph's file, the prompts and the words of leaks: a change of one is another run."""
    def made(*more):
        return teacher.run_fingerprint(teacher.parser().parse_args([*arguments, *more]))

    (tmp_path / "g.tsv").write_text("a\tr\tb\n")
    first = made("--graph", str(tmp_path / "g.tsv"))
    assert {f"sha256 {name}" for name in ("g.tsv", "leaks.txt", "conditioned.txt", "resolve.txt")} <= set(first)
    assert any(name.startswith("sha256") and name.endswith(".jsonl") for name in first)
    (tmp_path / "g.tsv").write_text("a\tr\tc\n")
    second = made("--graph", str(tmp_path / "g.tsv"))
    assert [name for name in first if first[name] != second[name]] == ["sha256 g.tsv"]
