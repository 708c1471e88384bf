"""Tests for validation traces (cold_start/sft.py): the split, and loss and accuracy by definition."""

from __future__ import annotations

import math

import pytest
import torch

from minifleming.cold_start.oracle import Oracle
from minifleming.cold_start.sft import ValidationSet, examples_of, split_traces, train
from minifleming.cold_start.trace import Trace
from minifleming.extras.tiny_base.base import build_tokenizer
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.rods.readers import load_graph
from minifleming.run.fields import ColdStart
from minifleming.run.run_folder import Journal
from tests.rods.items import synthesize


def trace(number: int) -> Trace:
    return Trace(f"item {number}", "q", {"A": "a", "B": "b"}, " r", "A", "blind", "t")


def test_the_fraction_is_kept_and_an_item_is_on_one_side():
    for fraction in (0.0, 0.05, 0.3, 0.9):
        check_split(fraction)


def check_split(share: float) -> None:
    traces = [trace(i) for i in range(2000) for _ in range(2)]
    train_, held = split_traces(traces, share, seed=3)
    assert sorted(t.item for t in train_ + held) == sorted(t.item for t in traces)
    assert not {t.item for t in train_} & {t.item for t in held}
    spread = 5 * math.sqrt(share * (1 - share) / 2000) + 1e-12
    assert abs(len(held) / 4000 - share) <= spread
    kept = {t.item for t in train_}
    assert [t.item for t in train_] == [t.item for t in traces if t.item in kept], "in order"


def test_the_side_of_an_item_depends_only_on_seed_and_id():
    traces = [trace(i) for i in range(300)]
    held = {t.item for t in split_traces(traces, 0.3, 1)[1]}
    assert held == {t.item for t in split_traces(traces[::-1], 0.3, 1)[1]}
    assert held & {t.item for t in traces[:50]} == {t.item for t in split_traces(traces[:50], 0.3, 1)[1]}
    assert held != {t.item for t in split_traces(traces, 0.3, 2)[1]}
    assert held < {t.item for t in split_traces(traces, 0.6, 1)[1]}


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A small model that has learned twelve traces nearly by heart, its tokenizer, and the traces."""
    folder, graph = tmp_path_factory.mktemp("student"), load_graph("embedded")
    tokenizer = build_tokenizer(graph, folder)
    traces = [t for t, in Oracle(graph, 0.0).propose(synthesize(graph, 12, [1], seed=5))]
    size = tokenizer.backend.get_vocab_size()
    model = LanguageModel(ModelConfig("qwen3", size, 64, 128, 2, 4, 2, 16, 1e-6, 10000.0, True, 256))
    model.init_weights(0)
    _, examples = examples_of(traces, tokenizer, 256)
    train(model, examples, ColdStart(epochs=70, batch=12, lr=5e-3), seed=0, journal=Journal(folder))
    return model, tokenizer, traces


def test_the_loss_equals_that_of_one_token_at_a_time(student):
    model, tokenizer, traces = student
    held = ValidationSet(*examples_of(traces, tokenizer, 256), tokenizer, 100)
    total, count = 0.0, 0
    with torch.no_grad():
        for example in held.examples:
            ids = example.prompt + example.completion
            logprobs = model.logits(model(torch.tensor([ids])))[0].double().log_softmax(-1)
            for place in range(len(example.prompt), len(ids)):
                total, count = total - logprobs[place - 1, ids[place]].item(), count + 1
    assert held.measure(model)[0] == pytest.approx(total / count, rel=1e-5)


def test_accuracy_is_strict_and_greedy(student):
    """Second way: one prompt at a time, and the exact text."""
    model, tokenizer, traces = student
    traces = traces[:9] + [Trace(t.item, t.question, t.options, t.reasoning, "A" if t.answer != "A" else "B", "blind",
                                 "t") for t in traces[9:]]  # three whose answer is another one
    held = ValidationSet(*examples_of(traces, tokenizer, 256), tokenizer, 1000)
    right = 0
    for trace, example in zip(traces, held.examples):
        row, = generate(model, [example.prompt], ["x"], SamplingParams(200, tokenizer.end_ids, temperature=0))
        text = tokenizer.decode(row.ids)
        right += text.endswith(f"</think><answer>{trace.answer}</answer><|im_end|>") and text.startswith("<think>")
    assert 0 < right <= 9 and held.measure(model)[1] == right / 12
