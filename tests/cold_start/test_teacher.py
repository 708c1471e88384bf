"""Laws of cold_start/teacher.py and refine.py: the oracle's traces are right and true, and files keep them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest

from minifleming.cold_start import teacher
from minifleming.cold_start.refine import STRATEGIES, detour, pick_rival
from minifleming.cold_start.teacher import Oracle, Trace, check, read_traces, tell, write_traces
from minifleming.rods.answer import parse_strict
from minifleming.rods.graphs.readers import load_graph
from minifleming.rods.hops import stated_hops
from minifleming.rods.item import write_items
from minifleming.rods.mix import synthesise
from minifleming.rods.walk import EVIDENCE
from minifleming.run.errors import BadInput


@pytest.fixture(scope="module")
def graph():
    return load_graph("embedded")


@pytest.fixture(scope="module")
def items(graph):
    """300 items, path lengths 1 to 4 equally often."""
    made = synthesise(graph, 300, [1, 2, 3, 4], seed=7)
    assert len(made) == 300
    return made


@pytest.fixture(scope="module")
def told(graph, items):
    """A trace of every item in each mode: straight on, and a detour wherever there is one."""
    return {share: Oracle(graph, share, seed=1).propose(items) for share in (0.0, 0.3, 1.0)}


def lacks(reasoning: str) -> list[tuple[str, str]]:
    """(who, what) of every "R lacks F ." in a reasoning."""
    return re.findall(r"(?:^|[.,] )((?:(?! [.,] ).)+?) lacks (.+?) \.", reasoning.strip())


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_trace_parses_strictly_and_has_the_right_label(told, items, share):
    for trace, item in zip(told[share], items, strict=True):
        verdict = parse_strict(trace.completion, item.labels)
        assert (trace.item, verdict.rule, verdict.label) == (item.id, "ok", item.answer)
        assert trace.answer == item.answer


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_trace_states_only_edges_and_each_hop_of_its_path(told, items, graph, share):
    for trace, item in zip(told[share], items, strict=True):
        hops = stated_hops(trace.reasoning, graph)
        assert all(found for _, found in hops), trace.reasoning
        stated = {triple for triple, _ in hops}
        evidence = {(h, t) for h, _, t in item.visible if h == item.provenance["root"]}
        assert set(item.path[1:]) <= stated, "the whole chain is told"
        assert {(h, t) for h, r, t in stated if h == item.provenance["root"] and r in EVIDENCE} >= {
            (h, t) for h, t in evidence if any((h, r, t) in graph for r in EVIDENCE)}
        assert all(check(trace, item, graph).checks.values())


def test_the_straight_trace_tells_the_path_in_order_and_ends_at_the_answer(told, items, graph):
    for trace, item in zip(told[0.0], items, strict=True):
        assert trace.strategy == "blind" and trace.reasoning == tell(item)
        chain = [triple for triple, _ in stated_hops(trace.reasoning, graph)][-len(item.path) + 1 :]
        assert item.hops == 1 or chain == item.path[1:]
        assert trace.reasoning.endswith(f" so {item.options[item.answer]} ({item.answer})")


def test_a_one_finding_trace_agrees_in_number(items):
    item = dataclasses.replace(items[0], visible=items[0].visible[:1], path=items[0].path[:1])
    assert " points to " in tell(item) and " points to " not in tell(items[0]) and " point to " in tell(items[0])


def test_all_three_strategies_occur_in_their_share(told):
    counts = Counter(trace.strategy for trace in told[1.0])
    assert set(counts) == {"blind", *STRATEGIES}  # blind where an item has no fit rival
    assert all(counts[strategy] > 50 for strategy in STRATEGIES)
    some = Counter(trace.strategy for trace in told[0.3])
    assert 0.15 < 1 - some["blind"] / 300 < 0.35


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_detour_names_a_true_rival_and_what_it_truly_lacks(items, graph, strategy):
    """Everything before the straight path is true: hops are edges, and "R lacks F" is no edge while the root has F."""
    rng, made = np.random.default_rng(3), 0
    for item in items:
        text = detour(item, strategy, graph, rng)
        if text is None:
            continue
        made += 1
        root, findings = item.provenance["root"], {t for h, _, t in item.visible if h == item.provenance["root"]}
        hops = stated_hops(text, graph)
        assert hops and all(found for _, found in hops), text
        (rival, missing), = lacks(text)
        assert rival != root and rival in item.provenance["rivals"].values() and missing in findings
        assert not any((rival, relation, missing) in graph for relation in EVIDENCE)
        assert any((root, relation, missing) in graph for relation in EVIDENCE)
        assert all(rival in triple for triple, _ in hops), "the detour is about the rival"
        sign = {"backtrack": " back .", "explore": " consider ", "self-correct": " wait , "}
        assert [name for name, word in sign.items() if word in text] == [strategy]
    assert made > 150


def test_self_correction_tells_a_rivals_whole_chain_where_there_is_one(items, graph):
    rng = np.random.default_rng(4)
    chains = [text for item in items if item.hops == 2
              and (text := detour(item, "self-correct", graph, rng)) and "points to" not in text]
    assert len(chains) > 5


def test_an_item_without_rivals_has_no_detour(items, graph):
    alone = dataclasses.replace(items[0], provenance=items[0].provenance | {"rivals": {}})
    rng = np.random.default_rng(0)
    assert pick_rival(alone, graph, rng) is None
    assert [detour(alone, strategy, graph, rng) for strategy in ("blind", *STRATEGIES)] == ["", None, None, None]
    trace, = Oracle(graph, 1.0).propose([alone])
    assert trace.strategy == "blind" and trace.reasoning == tell(alone)


def test_the_seed_decides(items, graph):
    first, second, other = (Oracle(graph, 0.5, seed).propose(items[:80]) for seed in (1, 1, 2))
    assert first == second != other


def test_checks_find_each_fault(items, graph):
    item = items[1]
    good = Oracle(graph, 0.0).propose([item])[0]
    wrong = next(label for label in item.labels if label != item.answer)
    root, other = item.provenance["root"], next(n for n in graph.names if graph.type_of(n) == "Disease")
    assert not any((root, r, other) in graph for r in EVIDENCE)

    def faults(**change) -> set[str]:
        checks = check(dataclasses.replace(good, **change), item, graph).checks
        assert set(checks) == {"format", "answer", "hops"}
        return {name for name, passed in checks.items() if not passed}

    assert faults() == set()
    assert faults(answer=wrong) == {"answer"}
    assert faults(answer="Z") == faults(answer="") == {"format", "answer"}
    assert faults(reasoning=f"{other} points to {root} . {good.reasoning}") == {"hops"}
    assert faults(reasoning="because I say so") == {"hops"}
    assert faults(reasoning=good.reasoning + "</think>") == {"format", "answer"}
    assert faults(reasoning=" ") == {"format", "answer", "hops"}


def test_jsonl_round_trip(told, items, graph, tmp_path):
    traces = [check(trace, item, graph) for trace, item in zip(told[1.0], items, strict=True)]
    reasoning = "reasoning with \"quotes\", é, 中文,\ttabs and \n lines"
    traces.append(Trace("x", "which ?", {"A": "a", "B": "b"}, reasoning, "A", "conditioned", "someone"))
    write_traces(tmp_path / "traces.jsonl", traces)
    assert read_traces(tmp_path / "traces.jsonl") == traces
    lines = (tmp_path / "traces.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(traces)
    assert list(json.loads(lines[0])) == ["item", "question", "options", "reasoning", "answer", "strategy", "teacher",
                                          "checks"]


GOOD = {"item": "a", "question": "q", "options": {"A": "a", "C": "c"}, "reasoning": " b",
        "answer": "C", "strategy": "blind", "teacher": "oracle", "checks": {}}


@pytest.mark.parametrize(("line", "reason"), [
    (b"not json", "JSON"), (b"[1]", "object"), (b'{"item": "a"', "JSON"), (b'"\xff"', "UTF-8"), (b"{}", "item"),
    *((json.dumps({k: v for k, v in GOOD.items() if k != name}).encode(), name)
      for name in ("item", "question", "options", "reasoning", "answer", "strategy", "teacher")),
    *((json.dumps(GOOD | {name: value}).encode(), name)
      for name, value in [("item", 3), ("reasoning", None), ("answer", ["C"]), ("teacher", {}), ("checks", [True]),
                          ("options", {"A": 1}), ("surplus", 1)]),
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


def test_the_command_writes_checked_traces(items, tmp_path, capsys):
    write_items(tmp_path / "items.jsonl", items[:40])
    arguments = ["--items", str(tmp_path / "items.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert teacher.main([*arguments, "--detours", "1"]) == 0
    traces = read_traces(tmp_path / "out.jsonl")
    assert [trace.item for trace in traces] == [item.id for item in items[:40]]
    assert all(trace.checks == {"format": True, "answer": True, "hops": True} for trace in traces)
    assert "40 traces of 40 items" in capsys.readouterr().out
    for bad in (["--teacher", "nobody"], ["--detours", "1.5"], ["--detours", "nan"]):
        with pytest.raises(BadInput, match=bad[0]):
            teacher.main([*arguments, *bad])
