"""Tests for proof.py on two targets, vignettes, Chinese and specific findings: each planted fault is found."""

import re

import pytest

from minifleming.extras.wording.styles import Chinese, English, read_chinese_names
from minifleming.rods.graph import Graph
from minifleming.rods.query import Facts
from tests.extras.wording.worded import synthesize
from tests.rods.items import fault
from tests.rods.test_proof import FACTS, GRAPH, TRIPLES, changed, distractor, verdict
from tests.rods.toy_graphs import closed, genetics, neighbours, solutions

TOLD = synthesize(GRAPH, 60, [2, 3], seed=4, two_targets=1.0, style=English("vignette"))
CHINESE = synthesize(GRAPH, 60, [1, 2, 3], seed=4, two_targets=0.5, exclude_variants=True,
                     style=Chinese("vignette", read_chinese_names("", GRAPH)))
SPECIAL = genetics(0)
SPECIAL_FACTS = Facts(SPECIAL)
SPECIALS = synthesize(SPECIAL, 60, [1, 2], seed=0, findings=(1, 4), options=3, style=English("vignette"))


@pytest.mark.parametrize("items, facts", [(TOLD, FACTS), (CHINESE, FACTS), (SPECIALS, SPECIAL_FACTS)])
def test_the_checker_accepts_pairs_chinese_and_special_findings(items, facts):
    assert len(items) == 60 and [reason for item in items if (reason := fault(item, facts))] == []


def test_by_set_logic_each_pair_is_the_only_one():
    for item in TOLD[::4]:
        asked = tuple(item.nodes(item.answer))
        assert solutions(item.visible, {*asked, *item.provenance["hidden"]}, asked, TRIPLES) == {asked}


def test_facts_go_down_is_a_as_the_closure_does():
    _, into = neighbours(SPECIAL.triples)
    for name in SPECIAL.names:
        found = {name}
        while more := {h for at in found for h in into[at, "is_a"]} - found:
            found |= more
        assert SPECIAL_FACTS.descendants(name) == found
    whole = set(closed(SPECIAL.triples, set(SPECIAL.names)))
    for head in SPECIAL.names[:24]:
        for tail in SPECIAL.names:
            assert SPECIAL_FACTS.holds((head, "has_phenotype", tail)) == ((head, "has_phenotype", tail) in whole)


def test_by_closed_set_logic_each_special_answer_is_the_only_one_and_a_twin_is_found():
    for item in SPECIALS[::3]:
        free = {item.masked, *item.provenance["hidden"]}
        told = {tail for _, _, tail in item.visible} - free
        assert solutions(item.visible, free, item.masked, closed(SPECIAL.triples, told)) == {item.masked}


def test_a_second_root_whose_findings_are_more_special_is_found():
    """The twin has a grandchild by is_a of each told finding, and the item's chain to an end of its own."""
    for item in SPECIALS[::3]:
        free = {item.masked, *item.provenance["hidden"]}
        twin = [(f"{h} twin" if h in free else h, r, f"{t} twin" if t in free else f"{t} deep")
                for h, r, t in item.visible]
        deep = [triple for t in {t for _, _, t in item.visible} - free
                for triple in ((f"{t} deep", "is_a", f"{t} mid"), (f"{t} mid", "is_a", t))]
        types = dict(zip(SPECIAL.names, SPECIAL.types))
        more = [*SPECIAL.triples, *twin, *deep]
        types = {name: types.get(name, "Thing") for h, _, t in more for name in (h, t)}
        assert fault(item, Facts(Graph(types, more))) == "2 nodes satisfy the visible part"


def test_a_pair_whose_path_begins_or_ends_elsewhere_or_falls_apart_is_found():
    for item in (item for item in TOLD if item.hops == 3):
        for path in (item.path[2:], item.path[:-1], [item.path[0], item.path[-1]]):
            assert fault(changed(item, path=path), FACTS) == "the path does not lead to the masked node"


def test_a_pair_of_which_the_question_tells_either_node_is_found():
    for item in TOLD:
        for name in item.nodes(item.answer):
            assert fault(changed(item, question=f"{item.question} Not {name}."), FACTS) == (
                f"the question names the masked node '{name}', or it is not visible")


def test_options_that_do_not_say_their_nodes_are_found():
    for item in TOLD[::5] + CHINESE[::5]:
        label, _ = distractor(item)
        assert fault(changed(item, options=item.options | {label: "nothing"}), FACTS) == (
            f"option {label} does not name its nodes")
        nodes = {key: item.nodes(key) for key in item.options}
        more = nodes | {label: [*nodes[label], "fever"]}
        assert fault(changed(item, nodes=more), FACTS) == "some options stand for more nodes than others"


def test_swapped_halves_of_a_pair_and_a_wrong_mask_are_found():
    for item in TOLD[::5]:
        label, _ = distractor(item)
        turned = item.nodes(label)[::-1]
        said = fault(changed(item, options=item.options | {label: "; ".join(turned)}), FACTS)
        assert said == f"option {label} does not name its nodes"
        nodes = {key: item.nodes(key) for key in item.options} | {label: turned}
        said = fault(changed(item, options=item.options | {label: "; ".join(turned)}, nodes=nodes), FACTS)
        assert said == f"option {label} is of another type"
        assert fault(changed(item, masked=item.nodes(item.answer)[-1]), FACTS) == (
            f"option {item.answer} is not the masked node")


@pytest.mark.parametrize("place", [0, 1])
def test_a_half_of_another_type_is_found(place):
    for item in TOLD[::5]:
        label, _ = distractor(item)
        names = list(item.nodes(label))
        names[place] = "fever"
        nodes = {key: item.nodes(key) for key in item.options} | {label: names}
        said = fault(changed(item, options=item.options | {label: "; ".join(names)}, nodes=nodes), FACTS)
        assert said == f"option {label} is of another type"


def test_an_option_that_stands_for_the_answer_is_found():
    for item in TOLD[::5]:
        label, _ = distractor(item)
        nodes = {key: item.nodes(key) for key in item.options} | {label: item.nodes(item.answer)}
        said = fault(changed(item, options=item.options | {label: item.masked}, nodes=nodes), FACTS)
        assert said == f"option {label} satisfies the visible part"


def test_a_pair_with_another_root_as_answer_is_found():
    """The mask, the option and the path are all of the rival: its own findings are not the told ones."""
    for item in TOLD:
        for label in item.discriminating:
            assert fault(changed(item, answer=label, masked="; ".join(item.nodes(label))), FACTS)


def test_a_rival_that_has_the_finding_after_all_is_found():
    for item in TOLD[::3]:
        for label, (head, relation, tail) in item.discriminating.items():
            place = dict(zip(item.nodes(item.answer), item.nodes(label)))
            edge = (place.get(head, head), relation, place.get(tail, tail))
            said = verdict(item, extra=[edge])
            assert re.fullmatch(
                "option . satisfies its discriminating triple|[2-9] nodes satisfy the visible part", said)


def test_a_discriminating_triple_that_follows_by_is_a_is_found():
    """The option has a more special finding than the one that it is said to lack."""
    done = 0
    for item in SPECIALS:
        for label, (_head, relation, tail) in item.discriminating.items():
            if item.hops == 1:
                more = [*SPECIAL.triples, (item.options[label], relation, "deep"), ("deep", "is_a", tail)]
                types = dict(zip(SPECIAL.names, SPECIAL.types)) | {"deep": "Phenotype"}
                said = fault(item, Facts(Graph(types, more)))
                assert said in (f"option {label} satisfies its discriminating triple",
                                "2 nodes satisfy the visible part")
                done += said.startswith("option")
    assert done > 5


def test_a_finding_told_as_absent_that_is_there_is_found():
    """As an edge of the root, or by a more special one, and one that the question does not tell."""
    planted = [item for item in SPECIALS if item.absent]
    assert len(planted) > 20
    for item in planted:
        head, relation, tail = item.absent[0]
        types = dict(zip(SPECIAL.names, SPECIAL.types)) | {"deep": "Phenotype"}
        for more in ([(head, relation, tail)], [(head, relation, "deep"), ("deep", "is_a", tail)]):
            said = fault(item, Facts(Graph(types, [*SPECIAL.triples, *more])))
            assert said in (f"not absent: {head} | {relation} | {tail}", "2 nodes satisfy the visible part")
            assert said.startswith("not absent")
        silent = changed(item, absent=[*item.absent, (head, relation, "never told")])
        assert fault(silent, SPECIAL_FACTS) == "the question does not name 'never told'"


def test_chinese_names_that_are_told_alike_left_out_or_masked_are_found():
    for item in CHINESE:
        told = item.provenance["told"]
        one, other = sorted(told)[:2]
        assert fault(changed(item, told=told | {one: told[other]}), FACTS) == "two names have the same surface form"
        finding = item.evidence[0][2]
        silent = changed(item, question=item.question.replace(told[finding], "某"))
        assert fault(silent, FACTS).startswith("the question does not name '")  # this, or a name that holds its words
        for name in item.nodes(item.answer):
            loud = changed(item, question=f"{item.question}、{told[name]}、")
            assert fault(loud, FACTS).startswith(f"the question names the masked node '{name}'")
        for _head, _relation, tail in item.absent:
            mute = changed(item, question=item.question.replace(told[tail], "某"))
            assert fault(mute, FACTS) in {f"the question does not name '{name}'" for name in told}
    assert any(item.absent for item in CHINESE)
