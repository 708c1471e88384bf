"""Tests for cold_start/trace.py: files keep traces unchanged, and bad lines are refused."""

from __future__ import annotations

import json

import pytest

from minifleming.cold_start.trace import Trace, read_traces, write_traces
from minifleming.run.errors import BadInput


def test_a_trace_is_verified_if_it_was_checked_and_passed_everything():
    trace = Trace("x", "q", {"A": "a"}, " b", "A", "blind", "someone")
    assert not trace.verified
    for checks, verified in [({"format": True}, True), ({"format": True, "hops": False}, False)]:
        trace.checks = checks
        assert trace.verified is verified


def test_jsonl_round_trip(tmp_path):
    traces = [Trace(f"i{i}", "which ?", {"A": "a", "B": "b"}, " x is y .", "AB"[i % 2], "blind", "oracle",
                    {"format": True, "hops": True}, {"oracle blind": [4, i]}) for i in range(4)]
    reasoning = "reasoning with \"quotes\", é, 中文,\ttabs and \n lines"
    traces.append(Trace("x", "which ?", {"A": "a", "B": "b"}, reasoning, "A", "conditioned", "someone"))
    write_traces(tmp_path / "traces.jsonl", traces)
    assert read_traces(tmp_path / "traces.jsonl") == traces
    lines = (tmp_path / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(traces)
    assert list(json.loads(lines[0])) == ["item", "question", "options", "reasoning", "answer", "strategy", "teacher",
                                          "checks", "attempts", "detour"]


GOOD = {"item": "a", "question": "q", "options": {"A": "a", "C": "c"}, "reasoning": " b",
        "answer": "C", "strategy": "blind", "teacher": "oracle", "checks": {}}


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


BAD_LINES = [  # (line, part of the message)
    (b"not json", "JSON"), (b"[1]", "object"), (b'{"item": "a"', "JSON"), (b'"\xff"', "UTF-8"),
    (b"{}", "item"),
    *((without(name), name) for name in GOOD if name != "checks"),
    *((GOOD | {name: value}, name) for name, value in [
        ("item", 3), ("reasoning", None), ("answer", ["C"]), ("teacher", {}), ("checks", [True]),
        ("attempts", 3), ("options", {"A": 1}), ("options", {"A": "a"}), ("surplus", 1)]),
    *((GOOD | change, f"strict format ({rule})") for change, rule in [
        ({"answer": "B"}, "label"), ({"answer": ""}, "label"), ({"reasoning": " "}, "empty_think"),
        ({"reasoning": "a</think>"}, "think"), ({"reasoning": "<answer>A</answer>"}, "answer")]),
    *((GOOD | {"checks": {"format": True, "hops": verdict}}, "failed its check 'hops'")
      for verdict in (False, 0, None, "yes")),
]


def test_a_bad_line_is_refused_with_file_and_line(tmp_path):
    """Including a trace that would teach a broken format, and one that failed a check."""
    path = tmp_path / "t.jsonl"
    faults = []
    for line, reason in BAD_LINES:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + data + b"\n")
        message = "accepted"
        try:
            read_traces(path)
        except BadInput as error:
            message = str(error)
        if f"{path}:3: " not in message or reason not in message:
            faults.append((data, reason, message))
    assert faults == []


def test_an_empty_or_missing_file_is_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    for name in ("empty.jsonl", "missing.jsonl"):
        with pytest.raises(BadInput, match=name):
            read_traces(tmp_path / name)


def test_checks_may_be_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({k: v for k, v in GOOD.items() if k != "checks"}))
    assert read_traces(path) == [Trace("a", "q", {"A": "a", "C": "c"}, " b", "C", "blind", "oracle")]
