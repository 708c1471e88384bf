"""A model that has learned the format and a little of the task, trained once for all tests that use it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from minifleming.cold_start import sft
from minifleming.cold_start.trace import Trace
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.log import step_metrics, summary
from minifleming.rods.item import Item
from minifleming.run.fields import ColdStart
from minifleming.run.run_folder import Journal


def describe(groups) -> dict:
    """Returns the metrics of a step on one rank."""
    return step_metrics([[summary(r) for r in group] for group in groups])


COLOURS = {"red": "A", "green": "B", "blue": "C", "white": "D"}


def colour_items(count: int) -> list[Item]:
    """The right label depends on the one word of the question, and on nothing else."""
    tiers = ("easy", "moderate", "difficult")
    names = list(COLOURS)
    return [Item(f"item-{i}", f" {names[i % 4]}", {k: f" {k.lower()}" for k in "ABCD"}, COLOURS[names[i % 4]],
                 tier=tiers[i % 3], hops=1 + i % 3) for i in range(count)]


MADE: dict = {}  # several conftest.py import these fixtures; each is computed once all the same


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory) -> Tokenizer:
    if "tokenizer" not in MADE:
        MADE["tokenizer"] = make_tokenizer(tmp_path_factory)
    return MADE["tokenizer"]


def make_tokenizer(tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tags = ["<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
            "<answer>", "</answer>", *(f" {name}" for name in COLOURS), " so"]
    backend.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": "<|im_end|>", "minifleming": {"instruction": "", "option": "{label}{text}"}}))
    return Tokenizer(folder)


@pytest.fixture(scope="session")
def talker(tokenizer, tmp_path_factory):
    """Returns what ``make_talker`` does."""
    if "talker" not in MADE:
        MADE["talker"] = make_talker(tokenizer, tmp_path_factory)
    return MADE["talker"]


def make_talker(tokenizer, tmp_path_factory):
    """(make a fresh copy of the model, items): right about every other time, in the strict format nearly always."""
    torch.set_num_threads(1)
    config = ModelConfig("qwen3", tokenizer.backend.get_vocab_size(), 32, 64, 2, 4, 2, 8, 1e-6, 1e4, True, 128)
    model = LanguageModel(config)
    model.init_weights(0)
    items = colour_items(48)
    rng = np.random.default_rng(0)
    traces = [Trace(item.id, item.question, item.options, " so",
                    item.answer if rng.random() < 0.3 else "ABCD"[rng.integers(4)], "blind", "test")
              for item in items for _ in range(10)]
    _, examples = sft.examples_of(traces, tokenizer, 128)
    sft.train(model, examples, ColdStart(epochs=10, batch=32, lr=5e-3, micro_batch_tokens=4096), seed=0,
              journal=Journal(tmp_path_factory.mktemp("journal")))
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def fresh() -> LanguageModel:
        copy = LanguageModel(config)
        copy.load_state_dict(state)
        return copy.eval()

    return fresh, items
