"""Coverage counts what a plain look at the triples counts, and more weight on rare things touches more of them."""

from dataclasses import replace

import numpy as np
import pytest

from minifleming.evaluation.statistics import wilson
from minifleming.extras.wording import coverage
from minifleming.rods.readers import load_graph
from tests.extras.wording import worded
from tests.rods.items import synthesize

GRAPH = load_graph("embedded")
WALKS = {name: synthesize(GRAPH, 200, [1, 2, 3], seed=0, rarity=rarity, rare_boost=1.0)
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
    text = coverage.table(WALKS, GRAPH)
    share = 100 * coverage.counts(WALKS["heavy"], GRAPH)[1] / 200
    assert all(f"| {name} | 200 |" in text for name in WALKS) and f"{share:.1f} [" in text


def test_the_plot_is_the_same_each_time():
    assert coverage.plot(WALKS, GRAPH) == coverage.plot(WALKS, GRAPH) and "uniform" in coverage.plot(WALKS, GRAPH)


def test_a_pair_is_counted_by_its_roots_and_its_last_node_and_each_node_once():
    items = worded.synthesize(GRAPH, 100, [2, 3], seed=0, two_targets=1.0)
    single = [replace(item, options={label: item.nodes(label)[-1] for label in item.options},
                      provenance={"root": item.provenance["root"]}) for item in items]
    assert coverage.counts(items, GRAPH) == coverage.counts(single, GRAPH)
    for item in items:
        found = coverage.touched(item, GRAPH)
        assert len(found) == len(set(found)) and {GRAPH.names[n] for n in found} == {
            name for h, _, t in item.visible for name in (h, t)}


def test_the_tenths_are_by_degree_and_of_one_size():
    """Against a plain sort; ties in the order of the graph."""
    degree = degrees()
    order = sorted(GRAPH.names, key=lambda name: degree[name])
    tenth = {name: place * 10 // len(order) for place, name in enumerate(order)}
    for items in WALKS.values():
        touches = [tenth[n] for item in items for n in {n for h, _, t in item.visible for n in (h, t)}]
        wanted = [touches.count(i) / len(touches) for i in range(10)]
        np.testing.assert_allclose(coverage.by_decile(items, GRAPH), wanted)


def test_the_cells_of_the_table():
    """Each share with its interval, low before high, and the number of different nodes."""
    lines = coverage.table(WALKS, GRAPH).splitlines()
    for (_, items), line in zip(WALKS.items(), lines[2:]):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for count, cell in zip(coverage.counts(items, GRAPH), cells[2:5]):
            low, high = wilson(count, len(items))
            assert cell == f"{count / 2:.1f} [{100 * low:.1f}, {100 * high:.1f}]" and low < high
        assert int(cells[5]) == len({n for item in items for h, _, t in item.visible for n in (h, t)})
    values = list(degrees().values())
    median = int(np.median(values))
    share = 100 * sum(value <= median for value in values) / len(values)
    assert f"at most {median}, the median, as {share:.1f} % of the {len(values):,} nodes" in lines[-1]


def test_the_uniform_walk_has_no_weights():
    items = synthesize(GRAPH, 40, [1, 2], seed=0, rarity=0.0, rare_boost=1.0)
    assert {item.rarity for item in items} == {1.0}


def test_the_plot_has_a_dot_per_walk_and_tenth():
    assert coverage.plot(WALKS, GRAPH).count("<circle") == 10 * len(WALKS)
