"""The same triples make the same graph in every layout, and what is bad is one line with its file, row and reason."""

import csv
import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest

from minifleming.rods.readers import load_graph
from minifleming.rods.triples import SPELLINGS
from minifleming.run.errors import BadInput

# (head, its type, relation, tail, its type): in relations that PrimeKG and Hetionet both have
EDGES = [
    ("alpha, beta block", "drug", "treats", "Crohn's \"gut\"", "disease"),
    ("alpha, beta block", "drug", "treats", "Ménière α", "disease"),
    ("plainol", "drug", "treats", "Ménière α", "disease"),
    ("Crohn's \"gut\"", "disease", "associated_gene", "NOD7", "gene/protein"),
    ("Ménière α", "disease", "associated_gene", "NOD7", "gene/protein"),
    ("Ménière α", "disease", "associated_gene", "COH9", "gene/protein"),
    ("NOD7", "gene/protein", "interacts_with", "COH9", "gene/protein"),
    ("COH9", "gene/protein", "interacts_with", "NOD7", "gene/protein"),
    ("NOD7", "gene/protein", "interacts_with", "NOD7", "gene/protein"),
]
HEADER = ["head", "head_type", "relation", "tail", "tail_type"]
PLAIN = [["h", "r", "t"], ["h", "r", "u"]]


def tsv(rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def comma(rows, quoting=csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=quoting).writerows(rows)
    return text.getvalue()


def put(folder, name: str, content: str | bytes) -> str:
    """The path of a new file, gzipped if its name says so."""
    content = content.encode() if isinstance(content, str) else content
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def essence(graph):
    """What of a graph does not depend on the order of its source; every count is checked on the way."""
    assert len(set(graph.names)) == len(graph.names) == len(graph.types) and graph.degrees().all()
    assert len(graph.triples) == len(set(graph.triples)) == len(graph) == len(graph.out.other) == len(graph.into.other)
    assert graph.relations == sorted(graph.relations) and all("".join(name.split()) for name in graph.names)
    return dict(zip(graph.names, graph.types)), set(graph.triples)


def expected(edges):
    return ({name: kind for h, hk, _, t, tk in edges for name, kind in ((h, hk), (t, tk))},
            {(h, r, t) for h, _, r, t, _ in edges})


def refused(source, columns: str = "") -> str:
    with pytest.raises(BadInput) as caught:
        load_graph(str(source), columns)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kg_layout(edges) -> list[list[str]]:
    header = "head_id head head_type relation tail_id tail tail_type evidence source license".split()
    return [header, *([f"ID:{h}", h, hk, r, f"ID:{t}", t, tk, "curated", "us", "CC0"] for h, hk, r, t, tk in edges)]


def primekg(edges, mirrored: bool = True) -> list[list[str]]:
    """kg.csv: every edge in both directions, extra columns, its own names of relations."""
    names = {"treats": "indication", "associated_gene": "disease_protein"}
    index = {name: str(i) for i, name in enumerate(sorted({e for h, _, _, t, _ in edges for e in (h, t)}))}
    rows = [["relation", "display_relation", "x_index", "x_id", "x_type", "x_name", "x_source", "y_index", "y_id",
             "y_type", "y_name", "y_source"]]
    for h, hk, r, t, tk in edges:
        x, y = ([index[name], f"9{index[name]}", kind, name, "S"] for name, kind in ((h, hk), (t, tk)))
        rows.append([names.get(r, r), "shown", *x, *y])
        if mirrored and hk != tk:
            rows.append([names.get(r, r), "shown", *y, *x])
    return rows


def hetionet(folder, edges, packed: str = "") -> str:
    meta = {"treats": "CtD", "associated_gene": "DaG", "interacts_with": "GiG"}
    folder.mkdir(exist_ok=True)
    kinds = {name: kind for h, hk, _, t, tk in edges for name, kind in ((h, hk), (t, tk))}
    put(folder, f"hetionet-v1.0-nodes.tsv{packed}",
        tsv([["id", "name", "kind"], *([f"{kind}::{name}", name, kind] for name, kind in kinds.items())]))
    put(folder, f"hetionet-v1.0-edges.sif{packed}",
        tsv([["source", "metaedge", "target"],
             *([f"{hk}::{h}", meta[r], f"{tk}::{t}"] for h, hk, r, t, tk in edges)]))
    return str(folder)


def every_layout(folder, edges) -> dict:
    """(source, columns) by the name of the layout"""
    rows = [list(edge) for edge in edges]
    turned = [[tk, t, "note", r, hk, h] for h, hk, r, t, tk in edges]
    table = tsv([HEADER, *rows])
    texts = {
        "plain.tsv": table, "plain.csv": comma([HEADER, *rows]), "quoted.csv": comma([HEADER, *rows], csv.QUOTE_ALL),
        "packed.tsv.gz": table, "packed.csv.gz": comma([HEADER, *rows]), "UPPER.TSV": table,
        "bom.tsv": "\ufeff" + table, "bom.csv": "\ufeff" + comma([HEADER, *rows]),
        "quoted_bom.csv": "\ufeff" + comma([HEADER, *rows], csv.QUOTE_ALL),
        "crlf.tsv": table.replace("\n", "\r\n"), "crlf.csv": comma([HEADER, *rows]).replace("\n", "\r\n"),
        "no_last_newline.tsv": table[:-1], "no_last_newline.csv": comma([HEADER, *rows])[:-1],
        "any.txt": table, "twice.tsv": tsv([HEADER, *rows, *rows]),
        "spaces.tsv": tsv([HEADER, *([f"  {cell} ".replace(" ", "  ") for cell in row] for row in rows)]),
        "loud.tsv": tsv([[f" {name.upper()} " for name in HEADER], *rows]),
        "newlines.csv": comma([HEADER, *([cell.replace(" ", "\n") for cell in row] for row in rows)]),
        "ids.tsv": tsv(kg_layout(edges)), "ids.csv.gz": comma(kg_layout(edges)),
        "subject.tsv": tsv([["object_type", "object", "note", "predicate", "subject_type", "subject"], *turned]),
        "names.tsv": tsv([["y_type", "y_name", "note", "edge_type", "x_type", "x_name"], *turned]),
        "rel.tsv": tsv([["tail_type", "tail_name", "note", "rel", "head_type", "head_name"], *turned]),
        "kg.csv": comma(primekg(edges)), "kg.csv.gz": comma(primekg(edges)),
        "half.csv": comma(primekg(edges, mirrored=False)), "kg.tsv": tsv(primekg(edges)),
    }
    found = {name: (put(folder, name, text), "") for name, text in texts.items()}
    given = "tail_type=a,tail=b,relation=d,head_type=E,head=f"
    found["columns by name"] = put(folder, "given.tsv", tsv([list("abcdef"), *turned])), given
    numbers = "head=6,head_type=5, relation=4 ,tail=2,tail_type = 1"
    found["columns by number"] = put(folder, "bare.csv", "\ufeff" + comma(turned)), numbers
    found["columns by number, packed"] = put(folder, "bare.tsv.gz", tsv(turned)), numbers
    found["hetionet"] = hetionet(folder / "plain_folder", edges), ""
    found["hetionet, packed"] = hetionet(folder / "packed_folder", edges, ".gz"), ""
    return found


@pytest.mark.parametrize("seed", range(3))
def test_every_layout_gives_the_same_graph(tmp_path, seed):
    """Names with commas, quotes and letters beyond ASCII, in any order of the rows."""
    edges = [EDGES[i] for i in np.random.default_rng(seed).permutation(len(EDGES))]
    for name, (source, columns) in every_layout(tmp_path, edges).items():
        graph = load_graph(source, columns)
        assert essence(graph) == expected(edges), name
        assert graph.source == source and graph.frequencies is None, name


def test_triples_stand_in_the_order_of_their_file_and_the_first_of_equals_counts(tmp_path):
    rows = [[h, hk, r, t, tk] for h, hk, r, t, tk in EDGES]
    graph = load_graph(put(tmp_path, "g.tsv", tsv([HEADER, *rows[::-1], *rows])))
    assert graph.triples == [(h, r, t) for h, _, r, t, _ in EDGES[::-1]]


def test_quotes_are_plain_text_in_a_tsv(tmp_path):
    graph = load_graph(put(tmp_path, "g.tsv", 'head\trelation\ttail\n"a\tr\tb"c"\n'))
    assert graph.triples == [('"a', "r", 'b"c"')]


def test_without_types_every_node_is_an_entity(tmp_path):
    graph = load_graph(put(tmp_path, "g.tsv", tsv([["head", "relation", "tail"], *PLAIN])))
    assert graph.types == ["Entity"] * 3 and graph.triples == [("h", "r", "t"), ("h", "r", "u")]


@pytest.mark.parametrize("column", [name for names in SPELLINGS.values() for name in names])
def test_every_spelling_is_found(tmp_path, column):
    """Each in a file that has all the other columns in their first spelling."""
    role = next(name for name, names in SPELLINGS.items() if column in names)
    cells = {name: {"frequency": "0.5"}.get(name, f"a {name}") for name in SPELLINGS}
    header = [column if name == role else name for name in cells]
    graph = load_graph(put(tmp_path, "g.tsv", tsv([header, list(cells.values())])))
    assert graph.triples == [("a head", "a relation", "a tail")]
    assert graph.types == ["a head_type", "a tail_type"] and graph.frequency("a head", "a relation", "a tail") == 0.5


@pytest.mark.parametrize("columns, reason", [
    ("head", "'head' is not NAME=COLUMN"), ("head=", "'head=' is not"), ("head=0", "'head=0' is not"),
    ("head=00,relation=2,tail=3", "'head=00' is not"), ("subject=1", "'subject=1' is not"), ("=1", "'=1' is not"),
    ("head=1,relation=2", "'tail' is missing; a file read by number has no header"),
    ("head=1,tail=2", "'relation' is missing"), ("tail=1,relation=2", "'head' is missing"),
    ("head=1,relation=2,tail=3,head_type=1", "'tail_type' is missing"),
    ("head=1,relation=2,tail=3,tail_id=1", "'head_id' is missing"),
    ("head=nose", "no column 'nose' in the header"), ("head=h,relation=NOSE", "no column 'nose' in the header"),
    ("head=1,relation=r", "no column '1' in the header"),
    ("head=h,relation=r,tail=t,head_type=h", "no column 'tail_type' in the header"),
    ("head=h,relation=r", "no column 'tail' in the header"),
    ("head=1,relation=2,tail=4", "3 columns, and column 4 is asked for"),
])
def test_wrong_columns_are_refused(tmp_path, columns, reason):
    path = put(tmp_path, "g.tsv", tsv([["h", "r", "t"]] * 3))
    assert reason in refused(path, columns)


@pytest.mark.parametrize("source", ["embedded", "."])
def test_columns_are_for_triple_files_only(source):
    assert "only a triple file has columns to name" in refused(source, "head=1,relation=2,tail=3")


def test_columns_make_a_triple_file_of_primekgs_table(tmp_path):
    path = put(tmp_path, "kg.csv", comma(primekg(EDGES[:1])))
    graph = load_graph(path, "head=x_name,relation=relation,tail=y_name")
    assert set(graph.relations) == {"indication"} and len(graph) == 2


# Ids


def id_rows(*nodes) -> str:
    """A file in which a hub has an edge to each (id, name, type)."""
    return tsv([["head_id", "head", "head_type", "relation", "tail_id", "tail", "tail_type"],
                *(["H", "hub", "Hub", "r", *node] for node in nodes)])


@pytest.mark.parametrize("nodes, names", [
    ([("1", "cold", "D"), ("2", "chill", "D")], ["cold", "chill"]),
    ([("1", "cold", "D"), ("2", "cold", "S")], ["cold (D)", "cold (S)"]),
    ([("1", "cold", "D"), ("2", "cold", "D")], ["cold (D) [1]", "cold (D) [2]"]),
    ([("1", "cold", "D"), ("2", "cold", "D"), ("3", "cold", "S")], ["cold (D) [1]", "cold (D) [2]", "cold (S)"]),
    ([("1", "cold", "D"), ("2", "cold", "S"), ("3", "cold (D)", "D")],
     ["cold (D) [1]", "cold (S)", "cold (D) [3]"]),
    ([("1", "a  cold", "D"), ("2", "a cold", "D")], ["a cold (D) [1]", "a cold (D) [2]"]),
])
def test_two_ids_of_one_name_are_two_nodes_of_distinct_names(tmp_path, nodes, names):
    graph = load_graph(put(tmp_path, "g.tsv", id_rows(*nodes)))
    assert graph.tails("hub", "r") == names and graph.types == ["Hub", *(kind for _, _, kind in nodes)]


@pytest.mark.parametrize("node, reason", [
    (("1", "chill", "D"), "'1' is named 'chill' here and 'cold' above"),
    (("1", "cold", "S"), "'cold' is a S here and a D above"),
    (("H", "cold", "Hub"), "'H' is named 'cold' here and 'hub' above"),
])
def test_an_id_has_one_name_and_one_type(tmp_path, node, reason):
    assert refused(put(tmp_path, "g.tsv", id_rows(("1", "cold", "D"), node))) == f"{tmp_path}/g.tsv:3: {reason}"


def test_without_ids_a_node_is_its_name_however_it_is_spaced(tmp_path):
    graph = load_graph(put(tmp_path, "g.tsv", tsv([["head", "relation", "tail"], ["a  b", "r", " c"],
                                                   [" a b ", "r", "d"]])))
    assert graph.triples == [("a b", "r", "c"), ("a b", "r", "d")]


# Frequencies


@pytest.mark.parametrize("text, value", [("0", 0), ("1", 1), ("0.25", 0.25), (" 0.25 ", 0.25), ("2.5e-1", 0.25),
                                         ("", None)])
def test_a_frequency_is_kept(tmp_path, text, value):
    rows = [["head", "relation", "tail", "frequency"], ["a", "r", "c", "0.5"], ["a", "r", "b", text],
            ["a", "r", "b", "0.75"]]
    graph = load_graph(put(tmp_path, "g.tsv", tsv(rows)))
    assert graph.frequency("a", "r", "b") == value and graph.frequency("a", "r", "c") == 0.5
    assert graph.frequency("b", "r", "a") is graph.frequency("a", "q", "b") is graph.frequency("x", "r", "b") is None


def test_a_column_without_any_frequency_is_none(tmp_path):
    rows = [["head", "relation", "tail", "frequency"], ["a", "r", "b", ""]]
    graph = load_graph(put(tmp_path, "g.tsv", tsv(rows)))
    assert graph.frequencies is None and graph.frequency("a", "r", "b") is None


@pytest.mark.parametrize("text, reason", [
    ("1.01", "frequency 1.01 is not between 0 and 1"), ("-0.1", "frequency -0.1 is not"), ("nan", "frequency nan is"),
    ("NaN", "frequency NaN is not"), ("inf", "frequency inf is not"), ("often", "often"), ("50%", "50%")])
def test_what_is_no_share_is_refused(tmp_path, text, reason):
    rows = [["head", "relation", "tail", "frequency"], ["a", "r", "b", "0.5"], ["c", "r", "d", text]]
    message = refused(put(tmp_path, "g.tsv", tsv(rows)))
    assert message.startswith(f"{tmp_path}/g.tsv:3: ") and reason in message


def test_frequencies_follow_their_triples_in_any_order(tmp_path):
    """Against a dictionary, with repeated triples."""
    rng = np.random.default_rng(0)
    told, rows = {}, []
    for _ in range(400):
        triple = (f"n{rng.integers(12)}", f"r{rng.integers(3)}", f"n{rng.integers(12)}")
        share = None if rng.integers(3) == 0 else int(rng.integers(65)) / 64
        told.setdefault(triple, share)
        rows.append([*triple, "" if share is None else str(share)])
    graph = load_graph(put(tmp_path, "g.csv", comma([["head", "relation", "tail", "frequency"], *rows])))
    assert {triple: graph.frequency(*triple) for triple in graph.triples} == told


# Bad rows


def good_rows(count: int) -> list[list[str]]:
    return [[f"h{i}", "A", "r", f"t{i}", "B"] for i in range(count)]


BAD = {
    "few columns": (["x", "A", "r", "y"], "4 columns where the header has 5"),
    "an empty head": (["", "A", "r", "y", "B"], "an empty cell"),
    "an empty type": (["x", "A", "r", "y", " "], "an empty cell"),
    "another type of the tail": (["x", "A", "r", "h0", "B"], "'h0' is a B here and a A above"),
    "another type of the head": (["t0", "A", "r", "y", "B"], "'t0' is a A here and a B above"),
    "another type in the row itself": (["x", "A", "r", "x", "B"], "'x' is a B here and a A above"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_passed_row_is_said_and_leaves_nothing_behind(tmp_path, capsys, case):
    """The graph is that of the file without the row, even where later rows have its names in other types."""
    row, reason = BAD[case]
    good = [*good_rows(120), ["y", "C", "r", "x", "C"]]
    clean = load_graph(put(tmp_path, "clean.tsv", tsv([HEADER, *good])))
    assert capsys.readouterr().err == ""
    path = put(tmp_path, "g.tsv", tsv([HEADER, *good[:7], row, *good[7:]]))
    graph = load_graph(path)
    assert capsys.readouterr().err == f"minifleming: {path}:9: {reason}; passed over\n"
    assert (graph.names, graph.types, graph.triples) == (clean.names, clean.types, clean.triples)


@pytest.mark.parametrize("bad, rows, passes", [
    (1, 100, True), (1, 99, False), (2, 100, False), (2, 200, True), (2, 199, False), (3, 300, True),
    (3, 299, False), (5, 500, True), (6, 500, False), (7, 700, True), (0, 1, True), (1, 1, False)])
@pytest.mark.parametrize("kind", ["width", "content"])
def test_one_row_in_a_hundred_may_be_bad(tmp_path, capsys, bad, rows, passes, kind):
    """The first three are said one by one, and that there are more in a last line."""
    wrong = ["x"] if kind == "width" else ["", "A", "r", "y", "B"]
    path = put(tmp_path, "g.tsv", tsv([HEADER, *[wrong] * bad, *good_rows(rows - bad)]))
    if passes:
        assert len(load_graph(path)) == rows - bad
        said = capsys.readouterr().err.splitlines()
        reason = "1 columns where the header has 5" if kind == "width" else "an empty cell"
        assert said[:3] == [f"minifleming: {path}:{i + 2}: {reason}; passed over" for i in range(min(bad, 3))]
        assert said[3:] == ([f"minifleming: {path}: {bad} bad rows of {rows} passed over"] if bad > 3 else [])
    else:
        message = refused(path)
        assert message.startswith(f"{path}:2: ") and capsys.readouterr().err == ""
        assert message.endswith(f"({bad} bad rows of {rows})") == (bad > 1)


def test_the_line_is_that_of_the_file_under_quoted_newlines(tmp_path):
    """A row over several lines is named by its last one."""
    text = 'head,relation,tail\n"a\nb",r,c\nd,,e\n'
    assert refused(put(tmp_path, "g.csv", text)) == f"{tmp_path}/g.csv:4: an empty cell"
    assert refused(put(tmp_path, "g.csv", 'head,relation,tail\n"a\n\nb",r\n')).startswith(f"{tmp_path}/g.csv:4: 2 col")


@pytest.mark.parametrize("text, line, reason", [
    ('head,relation,tail\na,r,"b\nc,r,d\n', 3, "no CSV"), ('head,relation,tail\na,r,"b"c\n', 2, "no CSV"),
    ("head,relation,tail\na,r," + "x" * 140_000 + "\n", 2, "no CSV"), ('"head', 1, "no CSV")])
def test_what_is_no_csv_is_refused_with_its_line(tmp_path, text, line, reason):
    assert refused(put(tmp_path, "g.csv", text)).startswith(f"{tmp_path}/g.csv:{line}: {reason}")


def test_a_very_long_line_is_read(tmp_path):
    long = "x" * 1_500_000
    path = put(tmp_path, "g.tsv", tsv([["head", "relation", "tail"], ["a", "r", long]]))
    assert load_graph(path).names == ["a", long]
    columns = [["head", *map(str, range(30_000)), "relation", "tail"], ["a", *["-"] * 30_000, "r", "b"]]
    assert load_graph(put(tmp_path, "g.csv", comma(columns))).triples == [("a", "r", "b")]


@pytest.mark.parametrize("name", ["g.tsv", "g.csv"])
def test_a_zero_byte_is_a_letter_like_any_other(tmp_path, name):
    text = tsv([["head", "relation", "tail"], ["a\0b", "r", "c"]])
    graph = load_graph(put(tmp_path, name, text if name.endswith("tsv") else text.replace("\t", ",")))
    assert graph.triples == [("a\0b", "r", "c")]


@pytest.mark.parametrize("name", ["g.tsv", "g.csv", "g.tsv.gz"])
def test_lines_that_are_no_utf8_are_bad_rows(tmp_path, capsys, name):
    rows = [HEADER, *good_rows(99)]
    text = (comma(rows) if "csv" in name else tsv(rows)).encode()
    path = put(tmp_path, name, text + b"caf\xe9\n")
    assert len(load_graph(path)) == 99
    assert capsys.readouterr().err == f"minifleming: {path}:101: not UTF-8 text; passed over\n"
    assert refused(put(tmp_path, name, text + b"caf\xe9\n" * 2)).startswith(f"{path}:101: not UTF-8 text")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_header_that_is_no_utf8_is_said_as_such(tmp_path, encoding):
    text = tsv([["hé", "head", "relation", "tail"], *(["-", *row] for row in PLAIN * 100)]).encode(encoding)
    assert refused(put(tmp_path, "g.tsv", text)).startswith(f"{tmp_path}/g.tsv:1: not UTF-8 text")


def test_a_file_without_header_may_begin_with_a_bad_row(tmp_path, capsys):
    rows = tsv([row[::2] for row in good_rows(99)]).encode()
    path = put(tmp_path, "g.tsv", b"\xe9\n" + rows)
    assert len(load_graph(path, "head=1,relation=2,tail=3")) == 99
    assert f"{path}:1: not UTF-8 text; passed over" in capsys.readouterr().err


@pytest.mark.parametrize("name, content, place, reason", [
    ("g.tsv", b"", ":1", "no column 'head'"), ("g.csv", b"", ":1", "no column 'head'"),
    ("g.tsv.gz", gzip.compress(b""), ":1", "no column 'head'"), ("g.tsv.gz", b"", ":1", "no column 'head'"),
    ("g.tsv", b"\n\n", ":1", "no column 'head'"), ("g.csv", b"head,relation,tail\n", "", "no triples"),
    ("g.tsv", b"head\trelation\ttail", "", "no triples"),
    ("g.tsv.gz", b"head\trelation\ttail\na\tr\tb\n", ":1", "damaged gzip data"),
    ("kg.csv", comma(primekg([])).encode(), "", "no triples"),
])
def test_a_file_without_triples_is_refused(tmp_path, name, content, place, reason):
    path = tmp_path / name
    path.write_bytes(content)
    assert refused(path).startswith(f"{path}{place}: {reason}")


def test_a_file_without_header_must_have_rows(tmp_path):
    assert refused(put(tmp_path, "g.tsv", ""), "head=1,relation=2,tail=3") == f"{tmp_path}/g.tsv: no triples"


def test_damaged_gzip_data_are_refused_wherever_they_end(tmp_path):
    """Cut anywhere, or with a byte turned: one line, never a graph of the first rows."""
    rows = [[*row[:3], f"{i * 7919 % 1000}", row[4]] for i, row in enumerate(good_rows(300))]
    data = gzip.compress(tsv([HEADER, *rows]).encode(), mtime=0)
    path = tmp_path / "g.tsv.gz"
    for cut in range(1, len(data), 97):
        path.write_bytes(data[:cut])
        message = refused(path)
        assert message.startswith(f"{path}:") and message.endswith(": damaged gzip data")
    for at in range(12, len(data), 97):
        path.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1:])
        assert refused(path).startswith(f"{path}:")


@pytest.mark.parametrize("columns", ["", "head=1,relation=2,tail=3"])
def test_a_missing_file_is_refused(tmp_path, columns):
    assert refused(tmp_path / "none.tsv", columns) == f"{tmp_path}/none.tsv: No such file or directory"


# PrimeKG


PRIME = primekg([])[0]


def prime(relation, x, x_type, y, y_type) -> list[list[str]]:
    """Both rows of an edge; a node's index is its name's."""
    ends = [[f"{name}#", "1", kind, name, "S"] for name, kind in ((x, x_type), (y, y_type))]
    return [[relation, "-", *ends[0], *ends[1]], [relation, "-", *ends[1], *ends[0]]]


@pytest.mark.parametrize("relation, x_type, y_type, name, head", [
    ("disease_phenotype_positive", "disease", "effect/phenotype", "has_phenotype", "disease"),
    ("disease_phenotype_negative", "disease", "effect/phenotype", "lacks_phenotype", "disease"),
    ("disease_protein", "gene/protein", "disease", "associated_gene", "disease"),
    ("indication", "disease", "drug", "treats", "drug"),
    ("off-label use", "disease", "drug", "treats_off_label", "drug"),
    ("contraindication", "disease", "drug", "contraindicated_in", "drug"),
    ("drug_effect", "effect/phenotype", "drug", "adverse_effect", "drug"),
    ("drug_protein", "gene/protein", "drug", "targets", "drug"),
    ("anatomy_protein_present", "gene/protein", "anatomy", "expresses", "anatomy"),
    ("anatomy_protein_absent", "gene/protein", "anatomy", "does_not_express", "anatomy"),
    ("exposure_disease", "exposure", "disease", "exposure_disease", "disease"),
    ("my new relation", "x", "y", "my_new_relation", "x"),
])
@pytest.mark.parametrize("rows", [slice(0, 2), slice(0, 1), slice(1, 2)], ids=["both", "first", "second"])
def test_a_mirrored_pair_is_one_edge_from_the_same_end(tmp_path, relation, x_type, y_type, name, head, rows):
    both = prime(relation, "ex", x_type, "why", y_type)
    graph = load_graph(put(tmp_path, "kg.csv", comma([PRIME, *both[rows]])))
    assert graph.triples == [("ex", name, "why") if head == x_type else ("why", name, "ex")]
    assert (graph.type_of("ex"), graph.type_of("why")) == (x_type, y_type)


def test_an_edge_within_one_type_stands_in_both_directions(tmp_path):
    graph = load_graph(put(tmp_path, "kg.csv", comma([PRIME, *prime("drug_drug", "a", "drug", "b", "drug"),
                                                      *prime("drug_drug", "c", "drug", "c", "drug")])))
    assert graph.triples == [("a", "drug_drug", "b"), ("b", "drug_drug", "a"), ("c", "drug_drug", "c")]


def test_primekg_columns_in_any_order_and_nodes_by_index(tmp_path):
    rows = [PRIME, *primekg(EDGES)[1:]]
    turned = load_graph(put(tmp_path, "turned.csv", comma([row[::-1] for row in rows])))
    assert essence(turned) == expected(EDGES)
    twins = [["r", "-", "1", "7", "a", "one", "S", "2", "7", "b", "same", "S"],
             ["r", "-", "1", "7", "a", "one", "S", "3", "7", "b", "same", "S"]]
    graph = load_graph(put(tmp_path, "twins.csv", comma([PRIME, *twins])))
    assert graph.tails("one", "r") == ["same (b) [2]", "same (b) [3]"]


@pytest.mark.parametrize("change, reason", [
    ({"y_name": ""}, "an empty cell"), ({"x_name": " "}, "an empty cell"), ({"relation": ""}, "an empty cell"),
    ({"x_type": ""}, "an empty cell"), ({"y_type": ""}, "an empty cell"),
    ({"y_type": "z"}, "'why' is a z here and a y above"), ({"y_name": "z"}, "'why#' is named 'z' here and 'why' above"),
])
def test_a_bad_row_of_primekg_is_named(tmp_path, capsys, change, reason):
    both = prime("r", "ex", "x", "why", "y")
    wrong = dict(zip(PRIME, both[0])) | {"x_index": "new", "x_name": "newcomer"} | change
    path = put(tmp_path, "kg.csv", comma([PRIME, *both, list(wrong.values()), *both * 50]))
    graph = load_graph(path)
    assert capsys.readouterr().err == f"minifleming: {path}:4: {reason}; passed over\n"
    assert graph.names == ["ex", "why"] and graph.triples == [("ex", "r", "why")]


# Hetionet


METAEDGES = ("AdG AeG AuG CbG CcSE CdG CpD CrC CtD CuG DaG DdG DlA DpS DrD DuG GcG GiG GpBP GpCC GpMF GpPW Gr>G PCiC"
             .split())


def het(folder, nodes, edges, packed: str = ""):
    put(folder, f"my-nodes.tsv{packed}", tsv([["id", "name", "kind"], *nodes]))
    put(folder, f"my-edges.sif{packed}", tsv([["source", "metaedge", "target"], *edges]))
    return str(folder)


TWO = [["a", "ay", "A"], ["b", "bee", "B"]]


def test_every_metaedge_has_a_relation(tmp_path):
    graph = load_graph(het(tmp_path, TWO, [["a", metaedge, "b"] for metaedge in METAEDGES]))
    assert graph.tails("ay", "has_symptom") == graph.tails("ay", "treats") == ["bee"]
    assert not set(graph.relations) & set(METAEDGES) and graph.heads("ay", "treats") == []
    assert graph.names == ["ay", "bee"] and graph.types == ["A", "B"]


def test_a_node_without_edges_is_left_out_and_two_of_one_name_stay_apart(tmp_path):
    nodes = [*TWO, ["c", "bee", "C"], ["d", "alone", "B"]]
    graph = load_graph(het(tmp_path, nodes, [["a", "CtD", "b"], ["a", "CtD", "c"]]))
    assert graph.names == ["ay", "bee (B)", "bee (C)"]


@pytest.mark.parametrize("edge, reason", [
    (["z", "CtD", "b"], "'z' is not in my-nodes.tsv"), (["a", "CtD", "z"], "'z' is not in my-nodes.tsv"),
    (["a", "XxX", "b"], "'XxX' is no metaedge"), (["a", "CtD"], "2 columns where the header has 3")])
def test_a_bad_edge_is_named(tmp_path, capsys, edge, reason):
    source = het(tmp_path, TWO, [edge, ["a", "CtD", "b"]])
    assert refused(source) == f"{tmp_path}/my-edges.sif:2: {reason}"
    load_graph(het(tmp_path, TWO, [edge, *[["a", "CtD", "b"]] * 99]))
    assert capsys.readouterr().err == f"minifleming: {tmp_path}/my-edges.sif:2: {reason}; passed over\n"


@pytest.mark.parametrize("node, reason", [
    (["a", "other", "A"], "'a' is there twice"), (["a", "ay", "B"], "'a' is there twice"),
    (["c", "", "A"], "an empty cell"), (["c", "  ", "A"], "an empty cell"), (["", "c", "A"], "an empty cell"),
    (["c", "see", ""], "an empty cell")])
def test_a_bad_node_is_named(tmp_path, node, reason):
    assert refused(het(tmp_path, [*TWO, node], [["a", "CtD", "b"]])) == f"{tmp_path}/my-nodes.tsv:4: {reason}"


def test_a_node_may_stand_twice_in_the_same_words(tmp_path):
    assert len(load_graph(het(tmp_path, [*TWO, *TWO], [["a", "CtD", "b"]]))) == 1


@pytest.mark.parametrize("file, header", [("my-nodes.tsv", "id\tkind\tname"), ("my-edges.sif", "source\ttarget")])
def test_a_wrong_header_of_hetionet_is_refused(tmp_path, file, header):
    source = het(tmp_path, TWO, [["a", "CtD", "b"]])
    put(tmp_path, file, header + "\n")
    assert refused(source).startswith(f"{tmp_path}/{file}:1: the header is not ")


def test_a_folder_of_hetionet_without_edges_is_refused(tmp_path):
    assert refused(het(tmp_path, TWO, [])) == f"{tmp_path}/my-edges.sif: no triples"


@pytest.mark.parametrize("files", [[], ["my-nodes.tsv"], ["my-edges.sif"], ["my-nodes.tsv", "my-nodes.tsv.gz",
                                                                             "my-edges.sif"],
                                   ["my-nodes.csv", "my-edges.sif"], ["hp.obo", "phenotype.hpoa"]])
def test_a_folder_of_no_known_layout_is_refused(tmp_path, files):
    for name in files:
        put(tmp_path, name, "")
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path}: Is a directory, and holds neither") and "hp.obo" in message


def test_no_line_of_random_bytes_ends_otherwise_than_in_one_line(tmp_path):
    """A file is read, or refused by BadInput; no other error comes out, whatever its bytes."""
    rng = np.random.default_rng(5)
    whole = {"g.tsv": tsv(kg_layout(EDGES)), "g.csv": comma(kg_layout(EDGES)), "kg.csv": comma(primekg(EDGES))}
    for _ in range(150):
        for name, text in whole.items():
            data = bytearray(text.encode())
            for at in rng.integers(len(data), size=rng.integers(1, 4)):
                data[at] = rng.choice(list(b'\t\n\r,"\0\xff\xc3a9 \\'))
            for columns in ("", "head=2,relation=4,tail=6"):
                try:
                    essence(load_graph(put(tmp_path, name, bytes(data)), columns))
                except BadInput as error:
                    assert str(error).startswith(f"{tmp_path}/{name}:") and "\n" not in str(error)


@pytest.mark.skipif("MINIFLEMING_DATA" not in os.environ, reason="needs the real files")
@pytest.mark.parametrize("name", ["kg_curated.tsv", "kg_default.tsv"])
def test_the_real_tables_are_read_whole(name):
    """Against a plain reading by ids: as many edges, and each edge's types, names and relation."""
    path = Path(os.environ["MINIFLEMING_DATA"]) / "kg" / name
    rows = [dict(zip(head, line)) for head, *lines in [[line.split("\t") for line in path.read_text().splitlines()]]
            for line in lines]
    graph = load_graph(str(path))
    assert len(graph) == len({(row["head_id"], row["relation"], row["tail_id"]) for row in rows})
    assert len(graph.names) == len({row[end] for row in rows for end in ("head_id", "tail_id")})
    for row, (head, relation, tail) in zip(rows, graph.triples):
        assert (relation, graph.type_of(head), graph.type_of(tail)) == (
            row["relation"], row["head_type"], row["tail_type"])
        assert head.startswith(row["head"]) and tail.startswith(row["tail"])
