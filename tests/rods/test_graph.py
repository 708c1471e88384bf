"""A graph answers like the plain set of its triples, and a file is read exactly or refused with its line."""

import numpy as np
import pytest

from minifleming.rods.graph import Graph
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput
from tests.rods.toy_graphs import build, neighbours

HEADER = "head\thead_type\trelation\ttail\ttail_type\n"
ROW = "flu\tDisease\thas_symptom\tfever\tSymptom\n"


def random_triples(seed: int, nodes: int = 9, relations: int = 4, edges: int = 40) -> list:
    rng = np.random.default_rng(seed)
    return [(f"n{a}", f"r{r}", f"n{b}") for a, r, b in
            zip(rng.integers(nodes, size=edges), rng.integers(relations, size=edges), rng.integers(nodes, size=edges))]


@pytest.mark.parametrize("seed", range(8))
def test_tails_and_heads_are_those_of_the_set_of_triples(seed):
    """Self-loops, parallel relations and repeated triples included."""
    triples = random_triples(seed)
    graph = build(triples)
    out, into = neighbours(triples)
    for name in graph.names:
        for relation in graph.relations:
            assert sorted(graph.tails(name, relation)) == sorted(out[name, relation])
            assert sorted(graph.heads(name, relation)) == sorted(into[name, relation])
    assert set(graph.triples) == set(triples) and len(graph) == len(set(triples))


@pytest.mark.parametrize("seed", range(4))
def test_degree_counts_every_edge_at_both_of_its_ends(seed):
    triples = random_triples(seed)
    graph = build(triples)
    ends = [name for head, _, tail in set(triples) for name in (head, tail)]
    assert [int(d) for d in graph.degrees()] == [ends.count(name) for name in graph.names]
    assert graph.degrees().sum() == 2 * len(graph)


def test_membership_is_directed_and_takes_lists():
    graph = build([("d1", "has_symptom", "s1")])
    assert ("d1", "has_symptom", "s1") in graph and ["d1", "has_symptom", "s1"] in graph
    assert ("s1", "has_symptom", "d1") not in graph and ("d1", "is", "s1") not in graph


def test_an_unknown_name_or_relation_has_no_neighbours():
    graph = build([("d1", "has_symptom", "s1")])
    assert graph.tails("d2", "has_symptom") == graph.heads("s1", "treats") == graph.tails("s1", "has_symptom") == []


def test_a_graph_without_edges_is_a_graph():
    graph = Graph({"a": "Thing"}, [])
    assert len(graph) == 0 and graph.degrees().tolist() == [0] and graph.tails("a", "r") == []


@pytest.mark.parametrize("text", [
    HEADER + ROW,
    HEADER + ROW.rstrip("\n"),
    (HEADER + ROW).replace("\n", "\r\n"),
    "\ufeff" + HEADER + ROW,
    HEADER + ROW + ROW,
    HEADER + ROW.replace("flu", "  flu ").replace("fever", "fever "),
    "tail_type\ttail\tnote\trelation\thead_type\thead\nSymptom\tfever\tx\thas_symptom\tDisease\tflu\n",
], ids=["plain", "no final newline", "CRLF", "BOM", "repeated", "spaces", "other columns in another order"])
def test_the_same_triple_is_read_from_every_harmless_form(tmp_path, text):
    path = tmp_path / "g.tsv"
    path.write_bytes(text.encode())
    graph = load_graph(str(path))
    assert graph.triples == [("flu", "has_symptom", "fever")]
    assert (graph.type_of("flu"), graph.type_of("fever"), graph.source) == ("Disease", "Symptom", str(path))


@pytest.mark.parametrize("text, line, reason", [
    ("", 1, "no column 'head'"),
    (ROW, 1, "no column 'head'"),
    (HEADER.replace("tail_type", "kind") + ROW, 1, "no column 'tail_type'"),
    (HEADER, None, "no triples"),
    (HEADER + ROW + "flu\tDisease\n", 3, "2 columns where the header has 5"),
    (HEADER + ROW + ROW.replace("\n", "\tmore\n"), 3, "6 columns"),
    (HEADER + "\n" + ROW, 2, "1 columns"),
    (HEADER + ROW.replace("fever", " "), 2, "an empty cell"),
    (HEADER + ROW.replace("has_symptom", ""), 2, "an empty cell"),
    (HEADER + ROW + "fever\tDisease\thas_symptom\tcough\tSymptom\n", 3,
     "'fever' is a Disease here and a Symptom above"),
])
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, line, reason):
    path = tmp_path / "g.tsv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_graph(str(path))
    place = f"{path}: " if line is None else f"{path}:{line}: "
    assert str(caught.value).startswith(place) and reason in str(caught.value)


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path):
    path = tmp_path / "g.tsv"
    path.write_bytes((HEADER + ROW + ROW).encode() + b"flu\tDis\xffease\thas_symptom\tfever\tSymptom\n")
    with pytest.raises(BadInput, match=r"g\.tsv:4: not UTF-8 text"):
        load_graph(str(path))


@pytest.mark.parametrize("name, reason", [("none.tsv", "No such file"), (".", "directory")])
def test_what_is_no_file_is_refused(tmp_path, name, reason):
    with pytest.raises(BadInput, match=reason):
        load_graph(str(tmp_path / name))


def test_connected_sees_both_directions_and_every_relation():
    graph = build([("d1", "has_symptom", "s1"), ("s2", "odd", "d1"), ("d2", "has_symptom", "s3")])
    assert all(graph.connected(*pair) for pair in [("d1", "s1"), ("s1", "d1"), ("d1", "s2"), ("s2", "d1")])
    assert not any(graph.connected(*pair) for pair in [("d1", "s3"), ("s1", "s2"), ("d1", "d2")])


def test_ends_are_the_nodes_at_that_end_of_the_relation():
    graph = build(random_triples(0))
    for relation in graph.relations:
        for tails, index in ((True, 2), (False, 0)):
            assert graph.ends(relation, tails) == sorted({t[index] for t in graph.triples if t[1] == relation})


def test_nodes_are_related_by_is_a_at_any_depth():
    graph = build([("d1", "is_a", "d2"), ("d2", "is_a", "d3"), ("d9", "is_a", "d3")])
    pairs = [("d1", "d2"), ("d1", "d3"), ("d3", "d1"), ("d2", "d1"), ("d1", "d1")]
    assert all(graph.is_a_related(*pair) for pair in pairs)
    assert not graph.is_a_related("d1", "d9") and not graph.is_a_related("d9", "d2"), "siblings are not related"
