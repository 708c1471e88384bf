"""Support: a distractor that another graph knows to be right, against a plain count over sets of triples."""

import re

import numpy as np
import pytest

import synth_kg
from minifleming.extras.wording.support import Support
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_items
from minifleming.rods.readers import load_graph
from minifleming.rods.triples import COLUMNS
from minifleming.run.errors import run_cli
from tests.rods.items import synthesize
from tests.rods.toy_graphs import build

GRAPH = load_graph("embedded")


def graph_of(triples, source="other") -> Graph:
    names = dict.fromkeys(name for head, _, tail in triples for name in (head, tail))
    return Graph(dict.fromkeys(names, "Thing"), triples, source)


def item_of(discriminating, nodes=None, options=("x1", "x2", "x3")) -> Item:
    """The answer is A; ``nodes`` where two are asked."""
    labels = dict(zip("ABC", options))
    return Item("i", "q ?", labels, "A", masked=options[0], discriminating=discriminating,
                provenance={"nodes": nodes} if nodes else {})


ITEM = item_of({"B": ("d1", "treats", "x1"), "C": ("d1", "treats", "x1")})


def words(name: str) -> list[str]:
    return re.sub(r"\W+", " ", name.casefold()).split()


def above(triples, name: str) -> set[str]:
    """The name and everything that is_a leads to from it."""
    found = {name}
    while more := {t for h, r, t in triples if r == "is_a" and h in found} - found:
        found |= more
    return found


def by_hand(item: Item, sources: dict[str, list]) -> str:
    for label, (head, _, tail) in item.discriminating.items():
        place = dict(zip(item.nodes(item.answer), item.nodes(label)))
        one, other = words(place.get(head, head)), words(place.get(tail, tail))
        for source in sorted(sources):
            triples = sources[source]
            edges = [(h, t) for h, r, t in triples if not r.startswith(("lacks_", "does_not_"))]
            for a, b in edges + [(b, a) for a, b in edges]:
                if words(a) == one and any(words(name) == other for name in above(triples, b)):
                    return f"supported by {source}"
    return ""


@pytest.mark.parametrize("triples, supported", [
    ([("d1", "treats", "x2")], True),
    ([("x3", "given_for", "d1")], True),
    ([("d1", "treats", "x1")], False),
    ([("d1", "treats", "x9"), ("d2", "treats", "x2")], False),
    ([("d1", "lacks_phenotype", "x2"), ("x2", "does_not_express", "d1")], False),
    ([("d1", "treats", "x20"), ("x20", "is_a", "x2")], True),
    ([("d1", "treats", "x200"), ("x200", "is_a", "x20"), ("x20", "is_a", "x2")], True),
    ([("d1", "treats", "x0"), ("x2", "is_a", "x0")], False),
    ([("D1!", "treats", "(X2)")], True),
    ([("d 1", "treats", "x2")], False),
])
def test_what_supports_a_distractor(triples, supported):
    """Either direction, any relation that does not deny, the node or a more special one; case and marks are nothing."""
    assert Support([graph_of(triples)])(ITEM) == ("supported by other" if supported else "")
    assert by_hand(ITEM, {"other": triples}) == ("supported by other" if supported else "")


def test_no_other_graph_supports_nothing():
    assert Support([])(ITEM) == "" and Support([graph_of([("a", "r", "b")])])(ITEM) == ""


def test_every_node_that_is_written_alike_is_asked():
    """"d-1" and "D 1" are the same words: the edge of either counts."""
    item = item_of({"B": ("d 1", "treats", "x1")})
    for triples in ([("d-1", "treats", "x2"), ("D 1", "treats", "x9")], [("D 1", "treats", "x2"), ("d-1", "r", "x9")]):
        assert Support([graph_of(triples)])(item) == "supported by other"


@pytest.mark.parametrize("triple, edge, supported", [
    (("d1", "has", "s1"), ("d2", "has", "s1"), True),  # the rival has the finding after all
    (("d1", "has", "s1"), ("d1", "has", "s1"), False),
    (("d1", "treats", "x1"), ("d2", "treats", "x2"), True),  # both ends are asked: both are put in place
    (("d1", "treats", "x1"), ("d1", "treats", "x2"), False),
    (("m1", "explains", "x1"), ("m1", "explains", "x2"), True)])
def test_of_a_pair_both_nodes_are_put_in_place(triple, edge, supported):
    nodes = {"A": ["d1", "x1"], "B": ["d2", "x2"], "C": ["d3", "x3"]}
    item = item_of({"B": triple}, nodes, ("d1; x1", "d2; x2", "d3; x3"))
    assert Support([graph_of([edge])])(item) == ("supported by other" if supported else "")


def test_in_another_language_the_nodes_are_asked_and_not_the_words():
    item = item_of({"B": ("d1", "treats", "x1")}, {"A": ["x1"], "B": ["x2"], "C": ["x3"]}, ("甲", "乙", "丙"))
    assert Support([graph_of([("d1", "treats", "x2")])])(item) == "supported by other"
    assert Support([graph_of([("d1", "treats", "乙")])])(item) == ""


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_against_sets_of_triples_in_any_order_of_the_graphs(seed):
    rng = np.random.default_rng(seed)
    names = ["d1", "D-1", "d2", "x1", "x2", "X2", "x3", "x4", "x5"]
    relations = ["treats", "is_a", "is_a", "is_a", "lacks_phenotype", "does_not_express"]
    sources = {name: sorted({(names[a], relations[r], names[b]) for a, r, b in
                             zip(rng.integers(9, size=5), rng.integers(6, size=5), rng.integers(9, size=5))})
               for name in ("first", "second")}
    graphs = [graph_of(triples, source) for source, triples in sources.items()]
    for item in (ITEM, item_of({"C": ("x1", "treats", "d1"), "B": ("d1", "treats", "x1")})):
        wanted = by_hand(item, sources)
        assert Support(graphs)(item) == Support(graphs[::-1])(item) == wanted


def test_the_random_graphs_hold_every_case():
    """Else the test above would prove little: with is_a some items are supported, without it fewer."""
    assert by_hand(ITEM, {"a": [("d1", "r", "x4"), ("x4", "is_a", "x2")]}) and not by_hand(ITEM, {"a": []})


def test_no_supported_item_is_made_and_each_is_counted_once():
    """The other graph says that every second drug treats everything: these may not be wrong options any more."""
    drugs = sorted({t for _, r, t in GRAPH.triples if r == "first_line_treatment"})[::2]
    heads = sorted({h for h, r, _ in GRAPH.triples if r == "first_line_treatment"})
    other = graph_of([(h, "treats", x) for h in heads for x in drugs])
    support, told = Support([other]), []
    items = synthesize(GRAPH, 60, [2], seed=0, reject=lambda item: told.append(item.id) or support(item))
    dropped = support.counts
    asked = [item for item in items if item.path[-1][1] == "first_line_treatment"]
    wrong = {text for item in asked for label, text in item.options.items() if label != item.answer}
    assert asked and not wrong & set(drugs) and len(items) == 60
    assert dropped == {"supported by other": len(told) - 60} and dropped.total() > 5
    assert len(set(told)) == len(told)


def test_the_command_says_how_many_were_dropped_and_drops_none_without_another_graph(tmp_path, capsys):
    other, out = tmp_path / "other.tsv", tmp_path / "items.jsonl"
    drugs = sorted({t for _, r, t in GRAPH.triples if r == "first_line_treatment"})[::2]
    diseases = sorted({h for h, r, _ in GRAPH.triples if r == "first_line_treatment" and GRAPH.type_of(h) == "Disease"})
    rows = [(disease, "Disease", "treats", drug, "Drug") for disease in diseases for drug in drugs]
    other.write_text("\n".join("\t".join(row) for row in [COLUMNS, *rows]))
    argv = ["--n", "30", "--hops", "2", "--out", str(out)]
    assert run_cli(synth_kg.main, argv) == 0 and "dropped" not in capsys.readouterr().out
    assert run_cli(synth_kg.main, [*argv, "--support-graph", str(other)]) == 0
    assert re.search(r"^\d+ items dropped: a distractor is supported by ", capsys.readouterr().out, re.M)
    assert not any(Support([load_graph(str(other))])(item) for item in read_items(out))


def test_the_graph_itself_supports_none_of_its_own_wrong_ends():
    """distract.py leaves out what has any edge to the node before the answer: so does the graph asked as another."""
    items = synthesize(GRAPH, 60, [2, 3], seed=5)
    assert [reason for item in items if (reason := Support([GRAPH])(item))] == []
    assert Support([build([("a", "r", "b")])])(items[0]) == ""


@pytest.mark.parametrize("here, there", [("x2 (Symptom)", "x2"), ("x2", "x2 (Symptom)"), ("X2 (A)", "x2 (B)")])
def test_the_type_that_tells_equal_names_apart_is_no_part_of_a_name(here, there):
    item = item_of({"B": ("d1", "treats", "x1")}, options=("x1", here, "x3"))
    assert Support([graph_of([(there, "treats", "d1")])])(item) == "supported by other"
    assert Support([graph_of([("x4", "treats", "d1")])])(item) == ""
