"""Laws of extras/tiny_base/corpus.py and of the tiny tokenizer: what the base may learn, and that it can be learned."""

from __future__ import annotations

import numpy as np
import pytest

from minifleming.cold_start.oracle import Oracle
from minifleming.extras.tiny_base.base import CONTROL, build_tokenizer, encode
from minifleming.extras.tiny_base.corpus import MARK, STATED, Corpus, template_text, without_names
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import LABELS
from minifleming.rods.phrases import EMBEDDED_RELATIONS, phrase
from minifleming.rods.readers import load_graph
from minifleming.rods.reasoning import stated_hops
from minifleming.rods.synthesize import is_held_out
from minifleming.rods.walk import Step, Walk, Walker
from tests.rods.items import synthesize

KINDS = ("statements", "links", "findings", "look_ups", "recitals")


@pytest.fixture(scope="module")
def graph():
    return load_graph("embedded")


@pytest.fixture(scope="module")
def tokenizer(graph, tmp_path_factory):
    return build_tokenizer(graph, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def items(graph):
    return synthesize(graph, 200, [1, 2, 3, 4], seed=11)


@pytest.fixture(scope="module")
def texts(graph):
    """400 texts of each kind, over all names."""
    corpus, rng = Corpus(graph), np.random.default_rng(5)
    return {kind: [corpus.text(kind, 56, len(graph.names), rng) for _ in range(400)] for kind in KINDS}


def joined(segments) -> str:
    return "".join(text for text, _ in segments)


def test_every_name_and_mark_and_control_tag_is_one_token(tokenizer, graph):
    ids = [tokenizer.encode(text) for text in
           [f" {name}" for name in graph.names] + [MARK.format(label=label) for label in LABELS] + CONTROL]
    assert all(len(i) == 1 for i in ids)
    assert len({i[0] for i in ids}) == len(ids)


def test_every_name_is_one_token_inside_sentences(tokenizer, graph):
    """Also where a name begins or ends like another, or like a word of the templates."""
    for name in graph.names:
        token, = tokenizer.encode(f" {name}")
        for text in (f" {name} .", f" so {name} (A)", f" back . {name} lacks {name} .", f"\n {name} (B)", f" {name} ,"):
            assert token in tokenizer.encode(text), text


def test_words_of_the_templates_are_single_tokens(tokenizer):
    for relation in EMBEDDED_RELATIONS:
        for word in f"{phrase(relation).verb} {phrase(relation, False).verb}".split():
            assert len(tokenizer.encode(f" {word}")) == 1, word
    for word in (" so", " .", " ,", " and", " point", " points", " to", " lacks", " consider", " back", " wait", " ?"):
        assert len(tokenizer.encode(word)) == 1, word


@pytest.mark.parametrize("kind", KINDS)
def test_segments_tokenise_alone_as_together(tokenizer, texts, kind):
    """So that the mask of what is learned stands on the right tokens."""
    for segments in texts[kind]:
        apart = [i for text, _ in segments for i in tokenizer.encode(text)]
        assert apart == tokenizer.encode(joined(segments))


def test_encoded_rows_mark_exactly_the_learned_segments(tokenizer, texts):
    rows = [texts[kind][i] for i in range(20) for kind in KINDS]
    rows.append([(" unknown words", True), (" more unknown words", False), (" x", True)])  # of several tokens each
    ids, learned = encode(tokenizer, rows, 56)
    assert ids.shape == learned.shape == (20 * len(KINDS) + 1, 56)
    for row, mask, segments in zip(ids.tolist(), learned.tolist(), rows):
        flat = [(i, learn) for text, learn in segments for i in tokenizer.encode(text)][:56]
        assert row[: len(flat)] == [i for i, _ in flat]
        assert mask == [learn for _, learn in flat] + [False] * (56 - len(flat))


def test_a_statement_is_one_edge_of_the_graph(texts, graph):
    """" first verb", " second", " .": two names, one relation; what is learned is the second name and the stop."""
    allowed = {(head, tail) for head, relation, tail in graph.triples if relation in STATED}
    for segments in texts["statements"]:
        for start, second, stop in zip(*[iter(segments)] * 3, strict=True):
            assert (start[1], second[1], stop) == (False, True, (" .", True))
            hops = stated_hops(f"{start[0]}{second[0]} .", graph)
            assert len(hops) == 1 and hops[0][1], (start, second)
            (head, _, tail), _ = hops[0]
            assert (head, tail) in allowed and second[0][1:] in (head, tail)


def test_a_link_is_one_edge_in_the_words_of_a_question(texts, graph):
    link = {phrase(relation).link: relation for relation in STATED}
    for segments in texts["links"]:
        for start, second, stop in zip(*[iter(segments)] * 3, strict=True):
            assert (start[1], second[1], stop) == (False, True, (" .", True))
            asked, head = start[0].removeprefix(" the ").removesuffix(" is").split(" of ", 1)
            relations = [relation for name, relation in link.items() if f"{asked} of {head}".startswith(f"{name} of ")]
            found = [(f"{asked} of {head}".removeprefix(f"{phrase(r).link} of "), r, second[0][1:]) for r in relations]
            assert any(triple in graph for triple in found), start


def test_both_directions_and_chains_are_stated(texts, graph):
    at, chained, backward = None, 0, 0
    for segments in texts["statements"]:
        for start, second, _ in zip(*[iter(segments)] * 3):
            (head, _, _), _ = stated_hops(f"{start[0]}{second[0]} .", graph)[0]
            chained += at is not None and start[0].startswith(f" {at} ")
            backward += not start[0].startswith(f" {head} ")
            at = second[0][1:]
    assert chained > 500 and backward > 200


def test_the_base_sees_no_question_and_no_reasoning(texts, graph, items):
    for kind, found in texts.items():
        for segments in found:
            bare = without_names(joined(segments), graph)
            for word in ("?", "Which", "What", "patient", "<think>", "<answer>", "<|", " lacks", " wait"):
                assert word not in bare, (kind, bare)
    everything = "\n".join(joined(segments) for found in texts.values() for segments in found)
    assert not any(item.question in everything for item in items)


def test_the_base_sees_no_held_out_combination_of_findings(texts, graph):
    """Each clause of findings determines its root, and none belongs to the held-out splits."""
    told = 0
    for segments in texts["findings"]:
        for clause, root, stop in zip(*[iter(segments)] * 3, strict=True):
            assert (clause[1], root[1], stop) == (False, True, (" .", True))
            hops = [triple for triple, found in stated_hops(f"{clause[0]}{root[0]} .", graph) if found]
            steps = tuple(Step(head, relation, tail, True) for head, relation, tail in hops)
            assert len(steps) >= 2 and {step.start for step in steps} == {root[0][1:]}
            assert not is_held_out(Walk(root[0][1:], steps, ()))
            told += 1
    assert told >= 1000
    for kind in ("statements", "look_ups", "recitals"):
        assert not any(" point to" in joined(segments) for segments in texts[kind])


def test_look_ups_are_over_random_names_and_find_the_mark_beside_the_name(texts, graph):
    counts = set()
    for segments in texts["look_ups"]:
        listed = [text for text, _ in segments if text.startswith("\n")]
        beside = {text[1 : -len(MARK.format(label="A"))]: text[-len(MARK.format(label="A")) :] for text in listed}
        counts.add(len(beside))
        assert list(beside.values()) == [MARK.format(label=label) for label in LABELS[: len(beside)]]
        assert all(name[1:] in graph.node_id for name in beside)
        rest = segments[len(listed) :]
        for (asked, first), (mark, second) in zip(rest[::2], rest[1::2], strict=True):
            assert (first, second) == (False, True) and mark == beside[asked.removeprefix(" so")]
        assert not any(learned for _, learned in segments[: len(listed)])
    assert len(counts) > 1
    types = {frozenset(graph.type_of(text.split(" ", 1)[1].rsplit(" (", 1)[0]) for text, _ in segments[:3])
             for segments in texts["look_ups"]}
    assert any(len(kinds) == 3 for kinds in types), "names of any type: no options of a question"


def test_in_recitals_only_what_followed_before_is_learned(texts, graph):
    for segments in texts["recitals"]:
        names = [text for text, _ in segments]
        assert all(name[1:] in graph.node_id for name in names)
        seen = set()
        for (before, _), (name, learned) in zip(segments, segments[1:]):
            if learned:
                assert (before, name) in seen
            seen.add((before, name))
        assert sum(learned for _, learned in segments) > 5
        assert not segments[0][1]


def test_tokenizer_round_trip_on_200_questions(tokenizer, items, graph):
    """Prompts, completions and questions come back as they were, also through the saved folder."""
    assert len(items) == 200
    again = Tokenizer(tokenizer.folder)
    for item, (trace,) in zip(items, Oracle(graph, 0.5).propose(items), strict=True):
        for text in (item.question, tokenizer.prompt(item.question, item.options), trace.completion):
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert again.encode(text) == ids
        assert len(tokenizer.encode(item.question)) < 60, "template words are whole tokens"


def test_any_text_survives_the_tokenizer(tokenizer):
    for text in ("", "é 中文 🙂", "a\tb\r\nc  d", "<think>", "fever(A)", "\x00", "Fever FEVER feverish ( A )"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_tokenizer_is_the_same_each_time_and_ends_with_its_end_token(tokenizer, graph, tmp_path):
    twin = build_tokenizer(graph, tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (tokenizer.folder / "tokenizer.json").read_bytes()
    assert twin.end_ids == [twin.backend.token_to_id("<|im_end|>")]


def test_the_merges_are_trained_without_names(graph):
    """A name inside the merge text would make word pieces of entities."""
    walker = Walker(graph)
    text = "\n".join(template_text(graph, walker)[: len(EMBEDDED_RELATIONS) * 8 + 400])
    long = [name for name in graph.names if len(name) > 8]
    assert len(long) > 1000 and not [name for name in long if f" {name} " in text]
