"""Tests for cold_start/oracle.py: its traces follow the item's path and state only true edges."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from minifleming.cold_start.checks import Checks
from minifleming.cold_start.oracle import (
    Oracle,
    has_path,
    pick_rival,
    write_detour,
    write_path,
)
from minifleming.cold_start.trace import ROUNDS
from minifleming.rods.answer import parse_strict
from minifleming.rods.readers import load_graph
from minifleming.rods.reasoning import stated_hops
from minifleming.rods.walk import EVIDENCE
from tests.rods.items import synthesize


@pytest.fixture(scope="module")
def graph():
    return load_graph("embedded")


@pytest.fixture(scope="module")
def items(graph):
    """300 items, path lengths 1 to 4 equally often."""
    made = synthesize(graph, 300, [1, 2, 3, 4], seed=7)
    assert len(made) == 300
    return made


@pytest.fixture(scope="module")
def told(graph, items):
    """A trace of every item in each mode: straight on, and a detour wherever there is one."""
    return {share: firsts(Oracle(graph, share, seed=1).propose(items)) for share in (0.0, 0.3, 1.0)}


def firsts(proposed: list[list]) -> list:
    assert all(len(traces) == 1 for traces in proposed)
    return [traces[0] for traces in proposed]


def lacks(reasoning: str) -> list[tuple[str, str]]:
    """(who, what) of every "R lacks F ." in a reasoning."""
    return re.findall(r"(?:^|[.,] )((?:(?! [.,] ).)+?) lacks (.+?) \.", reasoning.strip())


def test_every_trace_parses_strictly_and_has_the_right_label(told, items):
    for traces in told.values():
        for trace, item in zip(traces, items, strict=True):
            verdict = parse_strict(trace.completion, item.labels)
            assert (trace.item, verdict.rule, verdict.label) == (item.id, "ok", item.answer)
            assert trace.answer == item.answer


def test_every_trace_states_only_edges_and_each_hop_of_its_path(told, items, graph):
    for trace, item in zip([*told[0.0], *told[0.3], *told[1.0]], [*items, *items, *items], strict=True):
        hops = stated_hops(trace.reasoning, graph)
        assert all(found for _, found in hops), trace.reasoning
        stated = {triple for triple, _ in hops}
        evidence = {(h, t) for h, _, t in item.visible if h == item.provenance["root"]}
        assert set(item.path[1:]) <= stated, "the whole chain is stated"
        assert {(h, t) for h, r, t in stated if h == item.provenance["root"] and r in EVIDENCE} >= {
            (h, t) for h, t in evidence if any((h, r, t) in graph for r in EVIDENCE)}
        assert all(Checks(graph).check_text(item, trace).values())


def test_the_straight_trace_states_the_path_in_order_and_ends_at_the_answer(told, items, graph):
    for trace, item in zip(told[0.0], items, strict=True):
        assert trace.strategy == "blind" and trace.reasoning == write_path(item)
        chain = [triple for triple, _ in stated_hops(trace.reasoning, graph)][-len(item.path) + 1 :]
        assert item.hops == 1 or chain == item.path[1:]
        assert trace.reasoning.endswith(f" so {item.options[item.answer]} ({item.answer})")


def test_a_one_finding_trace_agrees_in_number(items):
    item = dataclasses.replace(items[0], visible=items[0].visible[:1], path=items[0].path[:1])
    assert " points to " in write_path(item) and " points to " not in write_path(items[0]) and " point to " in write_path(items[0])


def test_all_three_strategies_occur_in_their_share(told):
    assert {trace.strategy for rate in told for trace in told[rate]} == {"blind"}, "the requested strategy"
    counts = Counter(trace.detour for trace in told[1.0])
    assert set(counts) == {"", *ROUNDS}  # none where an item has no fit rival
    assert all(counts[strategy] > 50 for strategy in ROUNDS)
    some = Counter(trace.detour for trace in told[0.3])
    assert 0.15 < 1 - some[""] / 300 < 0.35


def test_a_detour_names_a_true_rival_and_what_it_truly_lacks(items, graph):
    """Hops before the straight path are edges; "R lacks F" is no edge, while the root has F."""
    rng = np.random.default_rng(3)
    rivals = [(item, pick_rival(item, graph, rng)) for item in items]
    made = [(item, strategy, write_detour(item, strategy, rival, graph))
            for strategy in ROUNDS for item, rival in rivals if rival]
    assert len(made) > 450
    for item, strategy, text in made:
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


def test_self_correction_states_a_rivals_whole_chain_if_there_is_one(items, graph):
    rng = np.random.default_rng(4)
    rivals = [(item, pick_rival(item, graph, rng)) for item in items if item.hops == 2]
    texts = [write_detour(item, "self-correct", rival, graph) for item, rival in rivals if rival]
    assert sum("points to" not in text for text in texts) > 5


def test_an_item_without_rivals_has_no_detour(items, graph):
    alone = dataclasses.replace(items[0], provenance=items[0].provenance | {"rivals": {}})
    assert pick_rival(alone, graph, np.random.default_rng(0)) is None
    (trace,), = Oracle(graph, 1.0).propose([alone])
    assert trace.strategy == "blind" and trace.reasoning == write_path(alone)


def test_the_seed_decides(items, graph):
    first, second, other = (Oracle(graph, 0.5, seed=seed).propose(items[:80]) for seed in (1, 1, 2))
    assert first == second != other


def test_a_trace_does_not_depend_on_the_other_items(items, graph):
    oracle = Oracle(graph, 0.5, seed=3)
    for strategy in ("blind", *ROUNDS):
        whole = oracle.propose(items[:60], strategy, 3)
        assert whole == [oracle.propose([item], strategy, 3)[0] for item in items[:60]]
        assert [traces[:2] for traces in whole] == oracle.propose(items[:60], strategy, 2)
        assert whole[::-1] == oracle.propose(items[59::-1], strategy, 3)


def test_a_round_returns_its_detour_or_an_empty_trace(items, graph):
    rng = np.random.default_rng(0)
    for strategy in ROUNDS:
        made = firsts(Oracle(graph, 0.0).propose(items, strategy))
        kinds = {(trace.strategy, trace.detour) for trace in made}
        assert kinds == {(strategy, strategy), (strategy, "")}
        for item, trace in zip(items, made, strict=True):
            has_rival = pick_rival(item, graph, rng) is not None
            assert bool(trace.answer) == bool(trace.detour) == has_rival
            if has_rival:
                assert trace.reasoning.endswith(write_path(item)) and lacks(trace.reasoning)


def test_an_item_that_has_no_path_here_gets_an_empty_trace(items, graph):
    strange = [dataclasses.replace(items[0], path=[]),
               dataclasses.replace(items[0], provenance=items[0].provenance | {"root": "nothing of this graph"}),
               dataclasses.replace(items[0], provenance={})]
    for item in strange:
        assert not has_path(item, graph)
        assert [(t.reasoning, t.answer) for t in Oracle(graph).propose([item], "blind", 2)[0]] == [("", "")] * 2


def test_it_resolves_its_own_reasonings_and_nothing_else(items, graph):
    oracle = Oracle(graph, 0.5, seed=4)
    told = firsts(oracle.propose(items))
    assert oracle.resolve(items, [trace.reasoning for trace in told]) == [item.answer for item in items]
    assert oracle.resolve(items[:3], ["", "because I say so", "so nothing"]) == ["", "", ""]
    straight = firsts(Oracle(graph, 0.0).propose(items))
    others = [straight[i - 1].reasoning for i in range(len(items))]
    same = sum(label == item.answer for label, item in zip(oracle.resolve(items, others), items))
    assert same < 30, "another item's reasoning rarely ends at the same name"
