"""Tests for the graph cache: a reload equals the first read, and damaged entries are replaced."""

import numpy as np
import pytest

from minifleming.extras.graphs import cache
from minifleming.rods.readers import load_graph

ROWS = "head\thead_type\trelation\ttail\ttail_type\tfrequency\n" + "".join(
    f"d{i}\tDisease\thas_symptom\ts{i % 7}\tSymptom\t{'0.5' if i % 2 else ''}\n" for i in range(50))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIFLEMING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SMALL", 1)
    (tmp_path / "g.tsv").write_text(ROWS)
    return tmp_path / "g.tsv"


def content(graph) -> list:
    arrays = [graph.table, graph.frequencies, graph.out.key, graph.out.other, graph.into.start]
    return [graph.names, graph.types, graph.relations, graph.source, *map(np.ndarray.tolist, arrays)]


def test_a_reload_equals_the_first_read_without_reading_the_rows(path, monkeypatch):
    first = content(load_graph(str(path)))
    monkeypatch.setattr("minifleming.rods.readers.read_triples", None)
    np.testing.assert_equal(content(load_graph(str(path))), first)


def test_a_damaged_entry_is_replaced(path):
    first = content(load_graph(str(path)))
    [entry] = (path.parent / "cache" / "graphs").iterdir()
    (entry / "table.npy").write_bytes(b"damaged")
    np.testing.assert_equal(content(load_graph(str(path))), first)
    assert (entry / "table.npy").read_bytes() != b"damaged"


def test_another_source_is_another_entry_and_an_empty_variable_keeps_nothing(path, monkeypatch):
    load_graph(str(path))
    path.write_text(ROWS.replace("d1\t", "e1\t"))
    assert "e1" in load_graph(str(path)).names
    assert len(list((path.parent / "cache" / "graphs").iterdir())) == 2
    monkeypatch.setenv("MINIFLEMING_CACHE", "")
    path.write_text(ROWS.replace("d2\t", "e2\t"))
    assert "e2" in load_graph(str(path)).names
    assert len(list((path.parent / "cache" / "graphs").iterdir())) == 2
