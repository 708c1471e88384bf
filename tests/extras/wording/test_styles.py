"""Tests for styles.py and patient.py: what a question names and asks for, against its walk."""

import re

import numpy as np
import pytest

from minifleming.extras.graphs.hetionet import METAEDGES
from minifleming.extras.wording.builder import WordedBuilder
from minifleming.extras.wording.patient import ADULT, AGES, CHILDREN, describe_patient, draw_absent, draw_sex
from minifleming.extras.wording.qualifiers import QualifiedStep
from minifleming.extras.wording.styles import (
    DIAGNOSIS,
    GENERIC,
    STYLES,
    Chinese,
    English,
    join_names,
    read_chinese_names,
    varied_question,
    with_article,
)
from minifleming.rods.phrases import EMBEDDED_RELATIONS, PHRASES, asks_for, phrase
from minifleming.rods.question import noun_phrase
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import Step, Walk, Walker
from minifleming.run.errors import BadInput
from tests.rods.toy_graphs import build, genetics, in_chinese

GRAPH = genetics(0)
TREATED = Step("d1", "first_line_treatment", "x1", True)
ACTION = Step("x1", "drug_mechanism", "a1", True)
BACK = Step("x1", "first_line_treatment", "d2", False)
DRAWS = 60
ASKED = [(name, way) for name in (*PHRASES, "odd_thing") for way in (True, False) if phrase(name, way).questions]
ASKED += [("interacts_with", True), ("odd_thing", False)]


def walk_of(findings, *chain, root="d1") -> Walk:
    return Walk(root, tuple(Step(root, "has_symptom", name, True) for name in findings), chain)


def graph_of(*more, root="d1", kind="Disease"):
    return build([(root, "has_symptom", "s1"), *more], {root: kind})


def draws(function, count=DRAWS) -> set:
    return {function(np.random.default_rng(seed)) for seed in range(count)}


@pytest.mark.parametrize("names, text", [
    (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c"), (["a, x", "b"], "a, x; and b"),
    (["a", "b, x", "c"], "a; b, x; and c"), (["a, x"], "a, x")])
def test_a_list_reads_as_english_and_its_parts_can_be_told_apart(names, text):
    assert join_names(names) == text
    assert join_names(names, "or") == text.replace(" and ", " or ")


@pytest.mark.parametrize("word, text", [("toxin", "A toxin"), ("enzyme", "An enzyme"), ("ulcer", "An ulcer"),
                                        ("organ", "An organ"), ("illness", "An illness"), ("agent", "An agent")])
def test_the_article_goes_by_the_first_letter(word, text):
    assert with_article(word) == text


@pytest.mark.parametrize("style", ["varied", "vignette"])
@pytest.mark.parametrize("both", [False, True])
def test_every_finding_is_told_once_and_no_node_of_the_chain(style, both):
    graph = graph_of(("d1", "first_line_treatment", "x1"), ("x1", "drug_mechanism", "a1"))
    walk = walk_of(["humming", "cold elbows", "sweet tears"], TREATED, ACTION)
    for text in draws(lambda rng: English(style).render(walk, graph, rng, both, ("late yawning", "hiccup"))):
        assert all(text.count(name) == 1 for name in ("humming", "cold elbows", "sweet tears", "late yawning"))
        assert "humming, cold elbows and sweet tears" in text and "no late yawning or hiccup." in text
        assert not re.search(r"\b(?:d1|x1|a1)\b", text) and text.endswith(("?", ".")) and "{" not in text
        assert text.startswith("A patient ") == (style == "varied" or " patient" in text[:9])
        assert (" Which disease is it, and " in text) == both and "Name" not in text.split(", and ")[-1] * both


def test_only_a_vignette_tells_age_and_sex():
    graph = graph_of(("d1", "has_onset", "Adult onset"))
    for style in STYLES:
        texts = draws(lambda rng, style=style: English(style).render(walk_of(["s1"], TREATED), graph, rng))
        assert all(("-year-old " in text) == (style == "vignette") for text in texts)


def test_a_root_that_is_no_disease_is_called_what_it_is():
    graph = graph_of(root="k1", kind="Enzyme")
    for text in draws(lambda rng: English("varied").render(walk_of(["s1"], root="k1"), graph, rng, False, ("s9",))):
        assert text.startswith("An enzyme has s1. It has no s9. ") and text.endswith(
            ("Which enzyme is it?", "What enzyme fits best?"))


def test_plain_asks_for_both_and_for_the_last_link_first():
    graph = graph_of()
    asked_for = English().render(walk_of(["s1"], TREATED, ACTION, BACK), graph, np.random.default_rng(0), True)
    links = "disease that it treats of the action of the first-line treatment"
    assert asked_for == f"A patient has s1 . Which disease is it , and what is the {links} of this disease ?"


def test_without_a_chain_the_disease_is_asked_for_in_one_of_four_ways():
    assert draws(lambda rng: varied_question(walk_of(["s1"]), "disease", rng, False)) == set(DIAGNOSIS)


@pytest.mark.parametrize("relation, forward", ASKED)
def test_the_last_edge_is_asked_for_in_its_own_words_and_direction(relation, forward):
    """Every wording that the templates give for this relation in this direction comes, and no other."""
    last = Step("d1", relation, "x1", forward)
    walk = walk_of(["s1"], last)
    forms = [*phrase(relation, forward).questions, *GENERIC]
    wanted = {form.format(of="this disease", noun=noun_phrase(last, "this disease")) for form in forms}
    assert draws(lambda rng: varied_question(walk, "disease", rng, False), 120) == wanted
    two = {f"Which disease is it, and {t[0].lower()}{t[1:]}" for t in wanted if not t.startswith("Name")}
    assert draws(lambda rng: varied_question(walk, "disease", rng, True), 120) == two


@pytest.mark.parametrize("step, text", [
    (TREATED, "first-line treatment of this disease"), (BACK, "disease first treated with this disease"),
    (Step("a", "detects", "b", True), "finding that this disease detects"),
    (Step("a", "detects", "b", False), "test that detects this disease"),
    (Step("a", "odd_thing", "b", True), "'odd thing' partner (the one that this disease is joined to)"),
    (Step("a", "odd_thing", "b", False), "reverse 'odd thing' partner (the one that is joined to this disease)")])
def test_a_noun_is_said_of_what_stands_before(step, text):
    assert noun_phrase(step, "this disease").split() == text.split()
    if step.relation == "odd_thing":
        assert phrase("odd_thing").link == "'odd thing' partner"


def test_a_chain_is_nested_from_the_root_to_the_end():
    walk = walk_of(["s1"], TREATED, ACTION, Step("a1", "acts_on", "t1", True))
    inner = "the action of the first-line treatment of this disease"
    texts = draws(lambda rng: varied_question(walk, "disease", rng, False))
    assert f"What does {inner} act on?" in texts and all(inner in text for text in texts)


def test_a_pin_stands_behind_its_noun_and_its_edge_has_no_wording_of_its_own():
    finding = Step("d2", "has_symptom", "s{2} of {of}", True)  # a name may contain braces
    back = QualifiedStep("x1", "first_line_treatment", "d2", False, finding)
    walk = walk_of(["s1"], TREATED, back)
    name = "disease (the one with s{2} of {of}) first treated with the first-line treatment of this disease"
    assert draws(lambda rng: varied_question(walk, "disease", rng, False)) == {form.format(noun=name) for form in GENERIC}
    further = walk_of(["s1"], TREATED, back, Step("d2", "caused_by", "k", True))
    assert all(f"the {name}" in text for text in draws(lambda rng: varied_question(further, "disease", rng, False)))


@pytest.mark.parametrize("onset", AGES)
def test_the_age_lies_in_the_range_of_the_onset_and_reaches_both_ends(onset):
    graph, ages = graph_of(("d1", "has_onset", onset)), set()
    for text in draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), graph, rng, ()), 900):
        article, age, word = re.fullmatch(r"(An?) (\d+)-year-old (\w+)", text).groups()
        ages.add(int(age))
        assert (article == "An") == (int(age) in (8, 11, 18, *range(80, 90)))
        assert (word in CHILDREN) == (int(age) >= ADULT)
    assert ages == set(range(AGES[onset][0], AGES[onset][1] + 1))


def test_no_age_where_the_onset_is_unknown_or_asked_for():
    asks = Step("d1", "has_onset", "Adult onset", True)
    graph = graph_of(("d1", "has_onset", "Adult onset"))
    assert draws(lambda rng: describe_patient(walk_of(["s1"], asks), graph, rng, ())) == {"A patient"}
    assert draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), graph_of(), rng, ())) == {"A patient"}
    odd = graph_of(("d1", "has_onset", "some day"))
    assert draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), odd, rng, ())) == {"A patient"}


@pytest.mark.parametrize("inheritance, words", [
    ("Autosomal recessive inheritance", {"woman", "man"}), ("X-linked recessive inheritance", {"man"}),
    ("", {"patient"})])
def test_a_free_sex_is_told_only_where_onset_and_inheritance_are_known(inheritance, words):
    """A graph that is silent on whom a disease befalls must not make a woman of a boy with haemophilia."""
    known = [("d1", "has_inheritance", inheritance)] * bool(inheritance)
    adult = graph_of(("d1", "has_onset", "Adult onset"), *known)
    told = draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), adult, rng, ()), 60)
    assert {text.split()[-1].split("-")[-1] for text in told} == words
    assert draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), graph_of(*known), rng, ())) == (
        {"A man"} if words == {"man"} else {"A patient"})


@pytest.mark.parametrize("name, found", [
    ("Decreased fetal movement", False), ("Stillbirth", False), ("sudden cardiac death", False),
    ("Intrauterine growth retardation", False), ("fever", True), ("Feeding difficulties", True)])
def test_what_no_patient_comes_with_is_not_told_of_one(name, found):
    walk = walk_of(["s1", name])
    assert English("vignette").can_render(walk) == English("varied").can_render(walk) == found
    assert English().can_render(walk), "the plain style tells what the graph has"
    triples = [("d9", "has_symptom", "s1"), ("d1", "has_symptom", "s1"), ("d1", "has_symptom", name)]
    absent = draw_absent(Walk("d9", (Step("d9", "has_symptom", "s1", True),), ()), Walker(build(triples)),
                         ["d1"], np.random.default_rng(0), English("vignette").in_a_patient)
    assert [step.end for step in absent] == [name] * found


@pytest.mark.parametrize("root, findings, absent, inheritance, sexes", [
    ("d1", ["s1"], (), "", {"woman", "man"}),  # where it is free
    ("d1", ["Ovarian cyst"], (), "", {"woman"}), ("d1", ["s1", "hypospadias"], (), "", {"man"}),
    ("Rett syndrome", ["s1"], (), "", {"woman"}), ("d1", ["s1"], ("Prostatitis",), "", {"man"}),
    ("d1", ["s1"], ("Pregnancy loss",), "", {"woman"}),
    ("d1", ["Vaginal dryness", "SCROTAL pain"], (), "", {"patient"}),
    ("d1", ["scrotal tongue", "Small for gestational age"], (), "", {"woman", "man"}),
    ("d1", ["s1"], (), "X-linked recessive inheritance", {"man"}), ("d1", ["s1"], (), "Y-linked inheritance", {"man"}),
    ("d1", ["s1"], (), "Autosomal dominant inheritance", {"woman", "man"}),
    ("d1", ["ovary swollen"], (), "X-linked recessive inheritance", {"patient"})])
def test_the_sex_is_the_one_that_the_names_bind_it_to(root, findings, absent, inheritance, sexes):
    graph = graph_of(*[(root, "has_inheritance", inheritance)] * bool(inheritance), root=root)
    assert draws(lambda rng: draw_sex(walk_of(findings, root=root), graph.tails(root, "has_inheritance"), absent, rng, True)) == sexes
    bound = draws(lambda rng: draw_sex(walk_of(findings, root=root), graph.tails(root, "has_inheritance"), absent, rng, False))
    assert bound == (sexes if len(sexes) == 1 else {"patient"})


def test_no_sex_is_told_where_the_inheritance_is_asked_for():
    graph = graph_of(("d1", "has_inheritance", "X-linked recessive inheritance"))
    walk = walk_of(["s1"], Step("d1", "has_inheritance", "X-linked recessive inheritance", True))
    assert draws(lambda rng: describe_patient(walk, graph, rng, ())) == {"A patient"}
    assert draws(lambda rng: describe_patient(walk_of(["s1"], TREATED), graph, rng, ())) == {"A man"}


NAMES = {"d1": "病甲", "s1": "热", "s2": "痛", "s3": "咳", "x1": "药甲", "a1": "用甲"}


@pytest.mark.parametrize("chain, both, absent, end", [
    ((), False, (), "最可能的疾病是哪一种？"), ((TREATED,), False, (), "该疾病的一线治疗"),
    ((TREATED, ACTION), False, ("s3",), "该疾病的一线治疗的作用机制"),
    ((TREATED, BACK), True, (), "该疾病的一线治疗所治疗的疾病"), ((TREATED,), True, ("s3", "s2"), "该疾病的一线治疗")])
def test_a_chinese_question(chain, both, absent, end):
    wording = Chinese("vignette", NAMES)
    for text in draws(lambda rng: wording.render(walk_of(["s1", "s2"], *chain), graph_of(), rng, both, absent)):
        assert "：热、痛。" in text and not re.search("[a-z]", text)
        assert ("最可能的疾病是哪一种，并且" in text) == both and text.count(end) == 1
        told = f"无以下表现：{'、'.join(NAMES[name] for name in absent)}。"
        assert (told in text) == bool(absent) == ("无以下" in text)


@pytest.mark.parametrize("relation, forward", [(name, way) for name in PHRASES for way in (True, False) if phrase(name).zh])
def test_each_chinese_link_in_its_direction(relation, forward):
    words = phrase(relation, forward).zh
    walk = walk_of(["s1"], Step("d1", relation, "x1", forward))
    text = Chinese("plain", NAMES).render(walk, graph_of(), np.random.default_rng(0))
    assert ("该疾病" + ("" if words.startswith("所") else "的") + words) in text


def test_an_option_has_one_name_or_two_with_the_separator_of_its_language():
    english, zh = (WordedBuilder(Walker(graph_of()), style=style) for style in (English(), Chinese("plain", NAMES)))
    assert english.option_text(("d1", "x1")) == "d1; x1" and english.option_text(("x1",)) == "x1"
    assert zh.option_text(("d1", "x1")) == "病甲；药甲" and zh.option_text(("x1",)) == "药甲"
    assert zh.style.has_surface_form("d1") and not zh.style.has_surface_form("d9")
    assert english.style.has_surface_form("d9")


def test_what_can_be_said_in_which_style_and_language():
    qualified = QualifiedStep("d1", "first_line_treatment", "x1", True, Step("x1", "has_symptom", "s2", True))
    free, pinned = walk_of(["s1"], TREATED), walk_of(["s1"], qualified)
    for style in STYLES:
        assert English(style).can_render(free) and English(style).can_render(pinned) == (style != "plain")
        assert Chinese(style, NAMES).can_render(free) and not Chinese(style, NAMES).can_render(pinned)
        assert not Chinese(style, NAMES).can_render(walk_of(["s1", "s9"], TREATED))
        assert not Chinese(style, NAMES).can_render(walk_of(["s1"], TREATED, Step("x1", "odd", "a1", True)))


def rows(tmp_path, *lines, header="name\tzh"):
    path = tmp_path / "names.tsv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("line, reason", [
    ("fever\t", ":3: '' is empty"), ("\t热", ":3: '热' is empty"),
    ("fever\t咳", ":3: '咳' is empty, a duplicate"),
    *((f"fever\t发{mark}热", f":3: '发{mark}热' is empty") for mark in "、，。；：,;")])
def test_a_bad_row_of_names_is_refused(tmp_path, line, reason):
    path = rows(tmp_path, "cough\t咳", line)
    with pytest.raises(BadInput) as caught:
        read_chinese_names(str(path), load_graph("embedded"))
    assert reason in str(caught.value)


@pytest.mark.parametrize("header, lines, reason", [
    ("name\ttext", ("fever\t热",), "no column 'zh'"), ("node\tzh", ("fever\t热",), "no column 'name'"),
    ("name\tzh", ("no such node\t热",), "names no node"), ("name\tzh", (), "names no node")])
def test_a_file_of_names_that_cannot_serve_is_refused(tmp_path, header, lines, reason):
    with pytest.raises(BadInput, match=reason):
        read_chinese_names(str(rows(tmp_path, *lines, header=header)), load_graph("embedded"))


def test_names_are_read_in_any_order_of_columns_and_those_of_other_graphs_are_left_out(tmp_path):
    path = rows(tmp_path, "热\tx\tfever", "咳\ty\tcough", "无\tz\tno such node", header="ZH\tnote\tName")
    assert read_chinese_names(str(path), load_graph("embedded")) == {"fever": "热", "cough": "咳"}


def test_every_name_of_a_graph_can_be_read_back(tmp_path):
    names = in_chinese(GRAPH)
    assert read_chinese_names(str(rows(tmp_path, *("\t".join(pair) for pair in names.items()))), GRAPH) == names


REAL = ("has_symptom", "treats", "includes", "inhibitor_of", "palliates", "located_in", "has_cause", "agonist_of",
        "antagonist_of", "blocker_of", "transmitted_by", "has_phenotype", "has_feature", "activator_of", "triggered_by",
        "positive_allosteric_modulator_of", "opener_of", *METAEDGES.values(), *PHRASES)


@pytest.mark.parametrize("relation", [*dict.fromkeys(REAL), "some_odd_thing_of"])
@pytest.mark.parametrize("forward", [True, False])
def test_every_relation_of_the_graphs_reads_well_and_is_found_again(relation, forward):
    """No "of of", no word twice; and the checker hears the relation in every wording of both styles."""
    one, two = Step("d1", relation, "m1", forward), Step("m1", "has_cause", "x1", True)
    for chain in ((one,), (one, two), (two, one)):
        walk = walk_of(["s1"], *chain)
        texts = {English().render(walk, graph_of(), np.random.default_rng(0))}
        texts |= draws(lambda rng, walk=walk: varied_question(walk, "disease", rng, False), 40)
        for text in texts:
            assert asks_for(text, relation, forward)
            if relation not in EMBEDDED_RELATIONS:
                assert not re.search(r"\bof of\b|\bit of\b|\bof it\b|\bhas \w+ source\b|\b(\w+) \1\b", text), text
