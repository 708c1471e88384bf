"""Laws of cold_start/trace.py: files keep traces as they are, and what would teach a broken format is refused."""

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


@pytest.mark.parametrize(("line", "reason"), [
    (b"not json", "JSON"), (b"[1]", "object"), (b'{"item": "a"', "JSON"), (b'"\xff"', "UTF-8"), (b"{}", "item"),
    *((json.dumps({k: v for k, v in GOOD.items() if k != name}).encode(), name)
      for name in ("item", "question", "options", "reasoning", "answer", "strategy", "teacher")),
    *((json.dumps(GOOD | {name: value}).encode(), name)
      for name, value in [("item", 3), ("reasoning", None), ("answer", ["C"]), ("teacher", {}), ("checks", [True]),
                          ("attempts", 3), ("options", {"A": 1}), ("surplus", 1)]),
    *((json.dumps(GOOD | change).encode(), f"strict format ({rule})") for change, rule in [
        ({"answer": "B"}, "label"), ({"answer": ""}, "label"), ({"reasoning": " "}, "empty_think"),
        ({"reasoning": "a</think>"}, "think"), ({"reasoning": "<answer>A</answer>"}, "answer")])])
def test_a_bad_line_is_refused_with_file_and_line(tmp_path, line, reason):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(BadInput) as caught:
        read_traces(path)
    assert f"{path}:3: " in str(caught.value) and reason in str(caught.value)


def test_no_traces_and_no_file_are_refused(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    for name in ("empty.jsonl", "missing.jsonl"):
        with pytest.raises(BadInput, match=name):
            read_traces(tmp_path / name)


def test_checks_may_be_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({k: v for k, v in GOOD.items() if k != "checks"}))
    assert read_traces(path) == [Trace("a", "q", {"A": "a", "C": "c"}, " b", "C", "blind", "oracle")]


@pytest.mark.parametrize("verdict", [False, 0, None, "yes"])
def test_a_trace_that_failed_a_check_is_no_training_data(verdict, tmp_path):
    (tmp_path / "t.jsonl").write_text(json.dumps(GOOD | {"checks": {"format": True, "hops": verdict}}) + "\n")
    with pytest.raises(BadInput, match="failed its check 'hops'"):
        read_traces(tmp_path / "t.jsonl")
