"""Tests for extras/teachers/local.py: a model folder as teacher asks, reads and counts as the protocol says."""

from __future__ import annotations

import pytest
import torch

from minifleming.cold_start.checks import without_labels
from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.sft import examples_of, train
from minifleming.cold_start.trace import ROUNDS
from minifleming.extras.teachers.local import LocalTeacher
from minifleming.extras.teachers.prompts import ask
from minifleming.extras.tiny_base.base import build_tokenizer
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.rods.readers import load_graph
from minifleming.run.fields import ColdStart
from minifleming.run.run_folder import Journal
from tests.rods.items import synthesize


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model that knows the traces of eight items by heart, and also the reasoning without the question."""
    folder, graph = tmp_path_factory.mktemp("local"), load_graph("embedded")
    tokenizer = build_tokenizer(graph, folder)
    items = synthesize(graph, 10, [1], seed=5)
    traces = [t for t, in Oracle(graph, 0.0).propose(items[:8])]
    size = tokenizer.backend.get_vocab_size()
    model = LanguageModel(ModelConfig("qwen3", size, 64, 128, 2, 4, 2, 16, 1e-6, 10000.0, True, 200))
    model.init_weights(0)
    _, examples = examples_of(traces, tokenizer, 256)
    with torch.random.fork_rng():
        train(model, examples, ColdStart(epochs=200, batch=8, lr=3e-3), seed=0, journal=Journal(folder))
    return LocalTeacher(model, tokenizer, "small", temperature=0.5, max_new_tokens=60), items, traces


def test_it_gives_as_many_traces_as_it_was_asked_for(world):
    local, items, traces = world
    told = local.propose(items, samples=3)
    assert [len(rows) for rows in told] == [3] * 10
    for item, rows in zip(items, told):
        assert {(t.item, t.question, t.strategy, t.teacher) for t in rows} == {
            (item.id, item.question, "blind", "small")}
    known = [rows[0] for rows in told[:8]]
    assert sum(t.reasoning == k.reasoning and t.answer == k.answer for t, k in zip(known, traces)) >= 6


def test_what_it_tells_of_an_item_depends_on_seed_strategy_and_sample(world):
    local, items, _ = world
    whole = local.propose(items, samples=2)
    assert [local.propose([item], samples=2)[0] for item in items] == whole
    warm = LocalTeacher(local.model, local.tokenizer, "small", temperature=3.0, max_new_tokens=20, seed=0)
    other = LocalTeacher(local.model, local.tokenizer, "small", temperature=3.0, max_new_tokens=20, seed=1)
    first = warm.propose(items[:2], samples=2)
    assert first == warm.propose(items[:2], samples=2) != other.propose(items[:2], samples=2)
    assert first[0][0].reasoning != first[0][1].reasoning


def test_a_truncated_answer_has_no_label(world):
    local, items, _ = world
    short = LocalTeacher(local.model, local.tokenizer, "small", temperature=0, max_new_tokens=3)
    assert {t.answer for rows in short.propose(items) for t in rows} == {""}


@pytest.mark.parametrize("strategy", ["blind", "conditioned", *ROUNDS])
def test_it_asks_with_the_words_of_the_strategy(world, strategy, monkeypatch):
    local, items, traces = world
    traces[0].checks = {"answer": False}
    seen = []
    monkeypatch.setattr("minifleming.extras.teachers.local.generate", lambda m, prompts, *a, **k: seen.append(prompts) or [])
    earlier = traces[:1] if strategy in ROUNDS else ()
    told = local.propose(items[:1], strategy, 2, earlier)
    text = local.tokenizer.prompt(ask(items[0], strategy, earlier[0] if earlier else None), items[0].options)
    assert seen == [[local.tokenizer.encode(text)]] or not seen[0], "an over-long prompt is not sampled"
    assert [(t.reasoning, t.answer, t.strategy) for t in told[0]] == [("", "", strategy)] * 2


def test_a_prompt_without_room_counts_as_unread(world):
    local, items, traces = world
    room = local.model.config.max_position_embeddings
    long = type(traces[0])(**{name: getattr(traces[0], name) for name in traces[0].__slots__})
    long.reasoning = " fever" * room
    told = local.propose(items[:2], "backtrack", 1, [traces[0], long])
    assert (told[1][0].answer, told[1][0].reasoning) == ("", "")
    assert local.resolve(items[:1], [long.reasoning]) == [""]


def test_it_closes_a_reasoning_without_its_question(world, monkeypatch):
    """Neither the question nor a label that was struck out is shown; the reasoning is."""
    local, items, traces = world
    seen = []
    monkeypatch.setattr("minifleming.extras.teachers.local.generate", lambda m, prompts, *a, **k: seen.append(prompts) or [])
    assert local.resolve(items[:3], [without_labels(t.reasoning) for t in traces[:3]]) == ["", "", ""]
    for ids, item, trace in zip(seen[0], items, traces):
        shown = local.tokenizer.decode(ids)
        assert item.question not in shown and shown.endswith(without_labels(trace.reasoning).rstrip())
        assert all(f"{text} ({label})" not in shown.partition("<think>")[2] for label, text in item.options.items())


def test_it_resolves_by_the_label_that_it_writes(world, monkeypatch):
    local, items, _ = world
    from minifleming.lm.sampler import Completion
    ends = local.tokenizer.end_ids[:1]
    written = [local.tokenizer.encode(text) + ends for text in ("</think><answer>B</answer>", "nothing")]
    monkeypatch.setattr("minifleming.extras.teachers.local.generate", lambda *a, **k: [
        Completion(i, 0, ids, [], True) for i, ids in reversed(list(enumerate(written)))])
    assert local.resolve(items[:2], [" x", " y"]) == ["B", ""]
