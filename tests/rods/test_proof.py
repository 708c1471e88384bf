"""Every synthesized item is proven by a second, independent way, and the checker rejects every planted fault."""

import copy
import dataclasses
import itertools
import json

import numpy as np
import pytest

from minifleming.rods import proof
from minifleming.rods.item import Item, write_items
from minifleming.rods.query import Disconnected, Facts, solve
from minifleming.rods.readers import load_graph
from minifleming.run.errors import run_cli
from tests.rods.items import fault, synthesize
from tests.rods.toy_graphs import build, solutions

GRAPH = load_graph("embedded")
TRIPLES = GRAPH.triples
EDGES = set(TRIPLES)
FACTS = Facts(GRAPH)
ITEMS = synthesize(load_graph("embedded"), 300, [1, 2, 3, 4], seed=3)
SOME = ITEMS[::7]


def variables(item) -> set[str]:
    return {item.masked, *item.provenance["hidden"]}


class Patched(Facts):
    """The embedded graph with some triples more or fewer."""

    def __init__(self, extra, without):
        self.__dict__.update(FACTS.__dict__)
        self.extra, self.without = list(extra), list(without)

    def tails(self, head, relation):
        found = super().tails(head, relation) - {t for h, r, t in self.without if (h, r) == (head, relation)}
        return found | {t for h, r, t in self.extra if (h, r) == (head, relation)}

    def heads(self, tail, relation):
        found = super().heads(tail, relation) - {h for h, r, t in self.without if (t, r) == (tail, relation)}
        return found | {h for h, r, t in self.extra if (t, r) == (tail, relation)}


def verdict(item, extra=(), without=()):
    """What the checker says of an item in the embedded graph with some triples more or fewer."""
    return fault(item, Patched(extra, without))


def distractor(item) -> tuple[str, str]:
    return next((label, text) for label, text in item.options.items() if label != item.answer)


def test_there_are_300_items_over_all_lengths():
    assert [sum(item.hops == hops for item in ITEMS) for hops in (1, 2, 3, 4)] == [75] * 4


def test_by_set_logic_over_all_nodes_each_answer_is_the_only_one():
    """No code of the package takes part: all 2,592 nodes are candidates for every hidden name."""
    for item in ITEMS:
        assert set(item.path) | set(item.visible) <= EDGES
        answers = solutions(item.visible, variables(item), item.masked, TRIPLES)
        assert answers == {item.masked}
        assert answers & set(item.options.values()) == {item.options[item.answer]}


def test_by_set_logic_each_hidden_name_is_determined_too():
    for item in SOME:
        for name in variables(item):
            assert solutions(item.visible, variables(item), name, TRIPLES) == {name}


def test_no_question_tells_its_answer():
    assert not [item.id for item in ITEMS if item.masked in item.question]
    told = dataclasses.replace(ITEMS[0], question=f"{ITEMS[0].question} {ITEMS[0].masked} ?")
    assert "names the masked node" in fault(told, FACTS)


def test_what_decides_must_stand_in_the_question():
    """A finding among the visible triples that the question leaves out proves nothing to its reader."""
    for item in SOME:
        finding = next(t for h, r, t in item.visible if h == item.provenance["root"] and r.startswith("has_"))
        silent = dataclasses.replace(item, question=item.question.replace(finding, "something"))
        assert fault(silent, FACTS) == f"the question does not name '{finding}'"


def test_a_hidden_name_that_is_not_declared_is_no_constant():
    for item in (item for item in SOME if item.hops > 1):
        bare = dataclasses.replace(item, provenance=item.provenance | {"hidden": []})
        assert fault(bare, FACTS).startswith("the question does not name '")


def test_the_checker_accepts_them_all():
    assert [reason for item in ITEMS if (reason := fault(item, FACTS))] == []


def test_with_a_visible_triple_left_out_the_checker_and_set_logic_agree():
    """Some are then ambiguous and some are not; the checker must say which."""
    ambiguous = 0
    for item in SOME:
        for triple in item.visible[:-1] if item.hops > 1 else item.visible:
            weak = copy.deepcopy(item)
            weak.visible = [t for t in item.visible if t != triple]
            used = {name for head, _, tail in weak.visible for name in (head, tail)} & variables(item)
            inner = [t for t in weak.visible if {t[0], t[2]} <= variables(item)]
            if item.masked not in used or len(inner) != len(used) - 1 or not set(weak.visible) - set(inner):
                continue
            answers = solutions(weak.visible, variables(item), item.masked, TRIPLES)
            said = fault(weak, FACTS)
            assert (said == f"{len(answers)} nodes satisfy the visible part") == (answers != {item.masked}), said
            ambiguous += answers != {item.masked}
    assert ambiguous > 5


@pytest.mark.parametrize("seed", range(40))
def test_the_solver_agrees_with_trying_every_assignment(seed):
    """Random graphs of six nodes, random connected queries with up to three variables, cycles included."""
    rng = np.random.default_rng(seed)
    nodes, relations = list("abcdef"), ["r", "s"]
    triples = sorted({(nodes[i], relations[k], nodes[j])
                      for i, k, j in zip(rng.integers(6, size=22), rng.integers(2, size=22), rng.integers(6, size=22))})
    for _ in range(20):
        query, names = [triples[rng.integers(len(triples))]], set()
        for _ in range(rng.integers(4)):
            names = {name for head, _, tail in query for name in (head, tail)}
            near = [t for t in triples if {t[0], t[2]} & names]
            query.append(near[rng.integers(len(near))])
        names = sorted({name for head, _, tail in query for name in (head, tail)})
        free = [names[i] for i in rng.permutation(len(names))[:3]]
        wanted = free[0]
        found = set()
        for values in itertools.product(nodes, repeat=len(free)):
            put = dict(zip(free, values))
            if all((put.get(h, h), r, put.get(t, t)) in set(triples) for h, r, t in query):
                found.add(put[wanted])
        assert found, "the query comes from the graph"
        try:
            said = solve(query, set(free), (wanted,), Facts(build(triples)))
        except Disconnected:
            assert not any({h, t} - set(free) for h, _, t in query) or not hangs_together(query, set(free))
        else:
            assert said == {(value,) for value in found}


def hangs_together(query: list, free: set[str]) -> bool:
    """Can every triple be reached from a fixed name through shared variables?"""
    known, before = {name for h, _, t in query for name in (h, t)} - free, None
    while before != known:
        before = set(known)
        known |= {name for h, _, t in query if {h, t} & known for name in (h, t)}
    return all({h, t} & known for h, _, t in query)


def test_the_order_of_the_visible_triples_does_not_matter():
    rng = np.random.default_rng(0)
    for item in SOME:
        shuffled = copy.deepcopy(item)
        shuffled.visible = [item.visible[i] for i in rng.permutation(len(item.visible))]
        assert fault(shuffled, FACTS) is None


def test_a_missing_edge_of_the_path_is_found():
    for item in SOME:
        for triple in item.path:
            assert verdict(item, without=[triple]) == f"not an edge: {' | '.join(triple)}"


def test_an_edge_that_is_only_claimed_is_found():
    for item in SOME:
        for name in ("path", "visible"):
            lying = copy.deepcopy(item)
            getattr(lying, name).append(("fever", "first_line_treatment", item.masked))
            assert fault(lying, FACTS).startswith("not an edge: fever")


def test_a_second_node_that_satisfies_is_found():
    """A twin of the answer, with its place in every visible triple."""
    for item in SOME:
        twin = [tuple("twin" if name == item.masked else name for name in t) for t in item.visible if item.masked in t]
        assert verdict(item, extra=twin) == "2 nodes satisfy the visible part"


def test_a_second_root_with_another_answer_is_found():
    """A twin of the root has all the findings and a chain of its own to 'other'."""
    for item in (item for item in SOME if item.hops > 1):
        renamed = {name: f"{name} twin" for name in variables(item)}
        twin = [(renamed.get(h, h), r, renamed.get(t, t)) for h, r, t in item.visible]
        assert verdict(item, extra=twin) == "2 nodes satisfy the visible part"


def test_a_distractor_that_satisfies_is_found():
    """Each distractor in turn is given the answer's place: in all visible triples, and in its own one alone."""
    for item in SOME:
        for label, text in item.options.items():
            if label == item.answer:
                continue
            place = [tuple(text if n == item.masked else n for n in t) for t in item.visible if item.masked in t]
            assert verdict(item, extra=place) == "2 nodes satisfy the visible part"
            own = tuple(text if name == item.masked else name for name in item.discriminating[label])
            said = verdict(item, extra=[own])
            assert said in (f"option {label} satisfies its discriminating triple", "2 nodes satisfy the visible part")
            assert item.hops == 1 or said.startswith("2 nodes"), "the last edge is all that is asked of the answer"


def test_a_discriminating_triple_that_does_not_discriminate_is_found():
    for item in (item for item in ITEMS if item.hops == 1):
        for label, text in item.options.items():
            shared = [t for t in item.visible if (text, t[1], t[2]) in EDGES]
            if label != item.answer and shared:
                wrong = copy.deepcopy(item)
                wrong.discriminating[label] = shared[0]
                assert fault(wrong, FACTS) == f"option {label} satisfies its discriminating triple"
                return
    raise AssertionError("no item to plant it in")


def test_a_wrong_discriminating_triple_is_found():
    """None at all, one that is not visible, and one without the answer in it."""
    for item in SOME:
        label, _ = distractor(item)
        elsewhere = next((t for t in TRIPLES if item.masked in (t[0], t[2]) and t not in item.visible), TRIPLES[0])
        bystander = [t for t in item.visible if item.masked not in (t[0], t[2])]
        for triple in [None, elsewhere, *bystander[:1]]:
            wrong = copy.deepcopy(item)
            wrong.discriminating.pop(label)
            if triple is not None:
                wrong.discriminating[label] = triple
            assert fault(wrong, FACTS) == f"option {label} has no discriminating triple"


def test_a_moved_answer_is_found():
    for item in SOME:
        label, _ = distractor(item)
        assert fault(dataclasses.replace(item, answer=label), FACTS) == f"option {label} is not the masked node"


@pytest.mark.parametrize("name, empty", [("path", []), ("visible", []), ("masked", "")])
def test_an_item_without_a_proof_is_not_proven(name, empty):
    assert fault(dataclasses.replace(ITEMS[0], **{name: empty}), FACTS).startswith("no proof")


def test_a_visible_part_in_pieces_is_a_fault_and_no_crash():
    item = copy.deepcopy(next(item for item in ITEMS if item.hops == 4))
    item.visible = [item.visible[0], item.visible[-1]]
    assert fault(item, FACTS) == "the visible part is not connected"


def test_the_command_counts_the_proven_and_names_the_others(tmp_path, capsys):
    path = tmp_path / "items.jsonl"
    write_items(path, ITEMS[:20])
    assert run_cli(proof.main, ["--items", str(path)]) == 0
    assert f"20 of 20 items proven against {len(EDGES)} triples" in capsys.readouterr().out
    lines = path.read_text().splitlines()
    broken = json.loads(lines[4])
    broken["visible"][0][2] = "nothing"
    path.write_text("\n".join([*lines[:4], json.dumps(broken), *lines[5:]]))
    assert run_cli(proof.main, ["--items", str(path)]) == 1
    out, err = capsys.readouterr()
    assert f"{ITEMS[4].id}: not an edge" in out and "19 of 20 items proven" in out
    assert err == f"minifleming: {path}: 1 items without a valid proof\n"


def changed(item, **fields):
    """A copy with other fields; those of the provenance are put into it."""
    inner = {name: fields.pop(name) for name in ("nodes", "told", "hidden") if name in fields}
    return dataclasses.replace(copy.deepcopy(item), provenance=item.provenance | inner, **fields)


def test_a_path_that_ends_or_falls_apart_elsewhere_is_found():
    for item in (item for item in SOME if item.hops > 2):
        for path in (item.path[:-1], [item.path[0], item.path[-1]]):
            assert fault(changed(item, path=path), FACTS) == "the path does not lead to the masked node"


def test_an_english_item_is_told_by_its_names_alone():
    """A table of other words in an English item changes nothing: the question is read as it stands."""
    for item in SOME:
        dressed = changed(item, told={item.evidence[0][2]: "something else", item.masked: item.evidence[0][2]})
        assert fault(dressed, FACTS) is None


@pytest.mark.parametrize("question, tells", [
    ("has a.b now", True), ("has aXb now", False), ("has xa.b now", False), ("has a.by now", False), ("a.b", True),
    ("(a.b)", True), ("has a.b, c", True), ("has a.b1", False), ("has -a.b-", True)])
def test_a_name_is_told_as_words_of_its_own_and_to_the_letter(question, tells):
    item = Item("x", question, {"A": "d1", "B": "d2"}, "A", visible=[("d1", "has_symptom", "a.b")])
    assert ("a.b" in proof.named_in_question(item, {})[0]) == tells


@pytest.mark.parametrize("question, present, absent", [
    ("A patient has chronic fever.", {"chronic fever"}, set()), ("A patient has fever.", {"fever"}, set()),
    ("A patient has chronic fever and fever.", {"chronic fever", "fever"}, set()),
    ("A patient has fever and no chronic fever.", {"fever"}, {"chronic fever"}),
    ("A patient has chronic fever. The patient has no fever. Why?", {"chronic fever"}, {"fever"}),
    ("Without fever, chronic fever.", set(), {"fever", "chronic fever"}),
    ("There is no doubt. A patient has fever.", {"fever"}, set())])
def test_what_a_question_tells_as_present_and_as_absent(question, present, absent):
    """A name within a longer one is not told; what follows a "no" is not told as present."""
    item = Item("x", question, {"A": "d1", "B": "d2"}, "A",
                visible=[("d1", "has_symptom", name) for name in ("fever", "chronic fever")])
    assert proof.named_in_question(item, {}) == (present, absent)


def test_the_command_names_twenty_and_reads_the_columns(tmp_path, capsys):
    lines = ["\t".join(("subject", "type", "verb", "object", "kind"))]
    kinds = dict(zip(GRAPH.names, GRAPH.types))
    lines += ["\t".join((h, kinds[h], r, t, kinds[t])) for h, r, t in TRIPLES]
    (tmp_path / "g.tsv").write_text("\n".join(lines), encoding="utf-8")
    write_items(tmp_path / "i.jsonl", [changed(item, masked="x") for item in ITEMS[:25]])
    columns = "head=subject,head_type=type,relation=verb,tail=object,tail_type=kind"
    argv = ["--graph", str(tmp_path / "g.tsv"), "--columns", columns, "--items", str(tmp_path / "i.jsonl")]
    assert run_cli(proof.main, argv) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 21 and out[-1] == f"0 of 25 items proven against {len(EDGES)} triples"


def test_a_triple_without_variables_must_hold():
    facts = Facts(build([("a", "r", "b"), ("b", "r", "c"), ("d", "is_a", "c"), ("a", "r", "d")]))
    assert solve([("a", "r", "b"), ("b", "r", "x")], {"x"}, ("x",), facts) == {("c",)}
    assert solve([("a", "r", "c"), ("b", "r", "x")], {"x"}, ("x",), facts) == {("c",)}, "by is_a"
    assert solve([("b", "r", "a"), ("b", "r", "x")], {"x"}, ("x",), facts) == set()
