"""What the Chinese names of the embedded graph promise: one name for one node, safe to put into a list."""

import re
from collections import Counter

import pytest

from minifleming.rods.readers import EMBEDDED, load_graph

PATH = EMBEDDED.with_name("names_zh.tsv")
SEPARATORS = set("、，。；：！？（）「」《》【】“”‘’,;:!?()[]{}<>|/\\\"'\t\r\u3000\u00a0")
HAN = re.compile("[\u3400-\u9fff]")
IDENTIFIER = re.compile(r"(?:[A-Z0-9-]|orf)+")  # FBN1, HLA-B27, MT-ND4, C9orf72, DNA
NEGATION = ("无", "非", "不", "未", "不能", "缺乏", "没有", "阴性")
AT_LEAST = {
    "Disease": 203, "Symptom": 426, "LabFinding": 348, "ImagingFinding": 137, "Mechanism": 201, "Drug": 182,
    "Test": 173, "DrugAction": 154, "Anatomy": 144, "Target": 141, "Condition": 80, "Gene": 79, "Protein": 76,
    "AdverseEffect": 70, "Pathogen": 39, "Cause": 29, "Transmission": 26, "Procedure": 19, "SupportiveCare": 17,
    "Autoantibody": 14, "Diet": 13, "Exposure": 5, "Deficiency": 4, "Prevalence": 2,
}


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """The rows under the header: [[name, zh], ...]"""
    return [line.split("\t") for line in PATH.read_bytes().decode("utf-8").split("\n")[1:-1]]


@pytest.fixture(scope="module")
def types() -> dict[str, str]:
    """{name: type}, in order of first appearance in the graph's file."""
    table = {}
    for line in EMBEDDED.read_text(encoding="ascii").splitlines()[1:]:
        head, head_type, _, tail, tail_type, _ = line.split("\t")
        table.setdefault(head, head_type)
        table.setdefault(tail, tail_type)
    return table


def test_the_file_is_plain_utf8_with_a_header():
    data = PATH.read_bytes()
    assert data.startswith(b"name\tzh\n") and data.endswith(b"\n") and not data.endswith(b"\n\n")
    assert b"\r" not in data
    data.decode("utf-8")


def test_every_row_has_two_cells_without_white_space_around_them(rows):
    for row in rows:
        assert len(row) == 2 and all(cell and cell == " ".join(cell.split()) for cell in row), row


def test_names_are_nodes_of_the_graph_in_its_order(rows, types):
    named = {row[0] for row in rows}
    assert set(types) == set(load_graph("embedded").names)
    assert [row[0] for row in rows] == [name for name in types if name in named]


def test_one_chinese_name_for_one_node(rows):
    assert len({row[0] for row in rows}) == len(rows)
    assert [zh for zh, count in Counter(row[1] for row in rows).items() if count > 1] == []


def test_a_name_is_chinese_unless_it_is_an_identifier(rows):
    for name, zh in rows:
        assert HAN.search(zh) or (zh == name and IDENTIFIER.fullmatch(name)), (name, zh)


def test_gene_symbols_stay(rows, types):
    assert all(name == zh for name, zh in rows if types[name] == "Gene")


def test_no_name_holds_a_separator_of_a_list(rows):
    for name, zh in rows:
        assert not SEPARATORS & set(zh), (name, zh)


def test_no_name_is_another_one_with_a_negation_before_it(rows):
    """As the direct words for conjugated and unconjugated bilirubin would be: one stands inside the other."""
    names = {zh: name for name, zh in rows}
    for zh in names:
        for start in range(1, len(zh)):
            inner = names.get(zh[start:])
            assert inner is None or not zh[:start].endswith(NEGATION), (names[zh], inner)


def test_coverage_by_type(rows, types):
    have = Counter(types[name] for name, _ in rows)
    total = Counter(types.values())
    print({kind: f"{have[kind]} of {total[kind]}" for kind in total})
    assert set(AT_LEAST) == set(total)
    assert {kind: have[kind] for kind in total if have[kind] < AT_LEAST[kind]} == {}


def test_only_drugs_and_proteins_are_left_out(rows, types):
    """So every finding, mechanism and test of a disease can be said in Chinese."""
    named = {row[0] for row in rows}
    assert {kind for name, kind in types.items() if name not in named} <= {"Drug", "Protein"}
