"""What the embedded graph promises: its size, its shape, and that every disease can be reasoned about."""

import string
from collections import Counter, defaultdict

import pytest

from minifleming.rods.phrases import EMBEDDED_RELATIONS, phrase
from minifleming.rods.readers import EMBEDDED, load_graph
from minifleming.rods.triples import COLUMNS
from minifleming.rods.walk import EVIDENCE

PLAIN = set(string.ascii_letters + string.digits + " -")


@pytest.fixture(scope="module")
def graph():
    return load_graph("embedded")


@pytest.fixture(scope="module")
def rows():
    lines = EMBEDDED.read_text(encoding="ascii").splitlines()
    return [dict(zip(lines[0].split("\t"), line.split("\t"), strict=True)) for line in lines[1:]]


@pytest.fixture(scope="module")
def by_relation(graph):
    """{relation: {head: [tails]}}"""
    table = defaultdict(lambda: defaultdict(list))
    for head, relation, tail in graph.triples:
        table[relation][head].append(tail)
    return table


def diseases(by_relation) -> list[str]:
    return list(by_relation["has_prevalence"])


def findings(by_relation, disease: str) -> set[str]:
    return {tail for relation in EVIDENCE for tail in by_relation[relation][disease]}


def test_its_size(graph, rows):
    assert graph.types.count("Disease") >= 150
    assert len(graph) >= 2500 and len(graph.relations) >= 10
    assert len(graph.heads("rare disease", "has_prevalence")) >= 60
    assert len(rows) == len(graph), "no triple stands twice in the file"


def test_its_columns_and_its_one_source(rows):
    assert list(rows[0]) == [*COLUMNS, "source"]
    assert {row["source"] for row in rows} == {"established"}
    assert all(value == value.strip() and value for row in rows for value in row.values())


def test_every_name_is_of_plain_characters(graph):
    """Letters, digits, single spaces and hyphens: no name can hold a separator of a question or a tag."""
    for name in graph.names:
        assert set(name) <= PLAIN and name == " ".join(name.split()) and len(name) <= 80, name


def test_no_two_names_differ_by_case_alone(graph):
    assert max(Counter(name.lower() for name in graph.names).values()) == 1


def test_no_name_holds_a_verb_that_would_read_as_an_edge(graph):
    verbs = [phrase(r, forward).verb for r in EMBEDDED_RELATIONS for forward in (True, False)] + ["point to"]
    assert [name for name in graph.names for verb in verbs if f" {verb} " in f" {name} "] == []


def test_every_relation_has_a_phrase(graph):
    assert set(graph.relations) <= set(EMBEDDED_RELATIONS)


def test_no_edge_leads_to_itself_and_none_is_said_both_ways(graph):
    assert all(head != tail for head, _, tail in graph.triples)
    assert not [t for t in graph.triples if (t[2], t[1], t[0]) in graph]


def test_every_disease_has_one_prevalence_mechanism_test_and_first_treatment(graph, by_relation):
    for disease in (name for name in graph.names if graph.type_of(name) == "Disease"):
        assert by_relation["has_prevalence"][disease] in (["rare disease"], ["common disease"]), disease
        for relation in ("has_mechanism", "confirmed_by", "first_line_treatment"):
            assert len(by_relation[relation][disease]) == 1, (disease, relation)


def test_every_disease_has_at_least_five_findings_and_no_two_have_the_same(by_relation):
    sets = [frozenset(findings(by_relation, disease)) for disease in diseases(by_relation)]
    assert min(map(len, sets)) >= 5 and len(set(sets)) == len(sets)


def test_no_finding_of_a_disease_is_said_by_two_relations(by_relation):
    for disease in diseases(by_relation):
        told = [tail for relation in EVIDENCE for tail in by_relation[relation][disease]]
        assert len(told) == len(set(told)), disease


def test_what_a_mechanism_explains_and_what_a_test_detects_belongs_to_a_disease_that_has_it(graph, by_relation):
    """No mechanism explains, and no test detects, what none of its diseases shows."""
    for relation, link in (("explains", "has_mechanism"), ("detects", "confirmed_by")):
        for head, tails in by_relation[relation].items():
            owners = graph.heads(head, link)
            shown = set().union(*(findings(by_relation, disease) for disease in owners))
            assert owners and set(tails) <= shown, (head, set(tails) - shown)


def test_most_diseases_have_a_chain_from_finding_to_mechanism_to_test_to_treatment(by_relation):
    """A finding of the disease that its mechanism explains, a test that confirms it, a treatment: no gap."""
    whole = 0
    for disease in diseases(by_relation):
        [mechanism], [test] = by_relation["has_mechanism"][disease], by_relation["confirmed_by"][disease]
        own = findings(by_relation, disease)
        explained = own & set(by_relation["explains"][mechanism])
        detected = own & set(by_relation["detects"][test])
        whole += bool(explained and detected and by_relation["first_line_treatment"][disease])
    assert whole > 0.8 * len(diseases(by_relation))


def test_every_drug_has_one_action_and_nothing_else_has_any(graph, by_relation):
    drugs = {name for name in graph.names if graph.type_of(name) == "Drug"}
    assert set(by_relation["drug_mechanism"]) == drugs
    assert {len(actions) for actions in by_relation["drug_mechanism"].values()} == {1}


def test_no_drug_is_forbidden_in_the_disease_that_it_treats(graph):
    for drug, _, disease in (t for t in graph.triples if t[1] == "contraindicated_in"):
        assert drug not in graph.tails(disease, "first_line_treatment"), (drug, disease)
        assert drug not in graph.tails(disease, "other_treatment"), (drug, disease)


def test_no_treatment_is_both_the_first_and_another(by_relation):
    for disease in diseases(by_relation):
        both = set(by_relation["first_line_treatment"][disease]) & set(by_relation["other_treatment"][disease])
        assert not both, disease


def test_each_relation_keeps_to_its_types(graph):
    """Heads of a relation have one type; so have the tails of the chain's main relations."""
    for relation in graph.relations:
        assert len({graph.type_of(h) for h, r, _ in graph.triples if r == relation}) == 1, relation
    tails = {"has_symptom": "Symptom", "has_lab_finding": "LabFinding", "has_imaging_finding": "ImagingFinding",
             "has_mechanism": "Mechanism", "confirmed_by": "Test", "drug_mechanism": "DrugAction",
             "affects": "Anatomy", "has_prevalence": "Prevalence", "transmitted_by": "Transmission"}
    for relation, kind in tails.items():
        assert {graph.type_of(t) for _, r, t in graph.triples if r == relation} == {kind}
