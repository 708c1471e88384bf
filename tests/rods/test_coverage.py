"""Coverage counts what a plain look at the triples counts, and more weight on rare things touches more of them."""

import numpy as np
import pytest

from minifleming.evaluation.statistics import wilson
from minifleming.rods import coverage
from minifleming.rods.graphs.readers import load_graph
from minifleming.rods.mix import synthesise

GRAPH = load_graph("embedded")
WALKS = {name: synthesise(GRAPH, 200, [1, 2, 3], seed=0, rarity=rarity, rare_boost=1.0)
         for name, rarity in (("uniform", 0.0), ("weighted", 0.5), ("heavy", 3.0))}


def degrees() -> dict[str, int]:
    found = dict.fromkeys(GRAPH.names, 0)
    for head, _, tail in GRAPH.triples:
        found[head] += 1
        found[tail] += 1
    return found


def test_counts_are_those_of_the_plain_triples():
    degree = degrees()
    median = np.median(list(degree.values()))
    of_kind = {kind: np.median([degree[n] for n in GRAPH.names if GRAPH.type_of(n) == kind])
               for kind in set(GRAPH.types)}
    for items in WALKS.values():
        names = [{n for h, _, t in item.visible for n in (h, t)} for item in items]
        rare = [name for name in GRAPH.names if degree[name] <= of_kind[GRAPH.type_of(name)]]
        assert coverage.counts(items, GRAPH) == (
            sum(any(degree[n] <= median for n in told) for told in names),
            sum(item.provenance["root"] in rare for item in items),
            sum(item.masked in rare for item in items))


def test_more_rarity_touches_more_rare_nodes():
    roots = [coverage.counts(WALKS[name], GRAPH)[1] for name in ("uniform", "weighted", "heavy")]
    assert roots == sorted(roots) and roots[-1] > roots[0] + 20


def test_the_tenths_of_all_touches_add_up():
    for items in WALKS.values():
        found = coverage.by_decile(items, GRAPH)
        assert found.shape == (10,) and found.sum() == pytest.approx(1) and (found >= 0).all()


def test_the_table_has_a_row_a_walk_with_its_shares():
    text = coverage.table(WALKS, GRAPH, wilson)
    share = 100 * coverage.counts(WALKS["heavy"], GRAPH)[1] / 200
    assert all(f"| {name} | 200 |" in text for name in WALKS) and f"{share:.1f} [" in text


def test_the_plot_is_the_same_each_time():
    pytest.importorskip("matplotlib")
    assert coverage.plot(WALKS, GRAPH) == coverage.plot(WALKS, GRAPH) and "uniform" in coverage.plot(WALKS, GRAPH)
