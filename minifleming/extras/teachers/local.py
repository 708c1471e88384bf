"""A model folder as teacher: any model that minifleming loads, through its own sampler.

A blind sample uses the prompt format the model was trained with (lm/tokenizer.py); the other
strategies put a longer text in the question's place. `resolve` shows the model the options and a
reasoning up to its last label, without the question, and lets it finish greedily.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from minifleming.cold_start.trace import STRATEGIES, Trace, new_trace
from minifleming.extras.teachers.prompts import ask, read_completion
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.item import Item
from minifleming.run.distributed import pick_device

RESOLVE_TOKENS = 32  # to finish a reasoning


def open_local(name: str, args: argparse.Namespace) -> LocalTeacher:
    """Returns the teacher of a model folder, with the command's arguments."""
    folder = model_folder(name)
    device = pick_device(args.device)
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    return LocalTeacher(load_model(folder, dtype, device), Tokenizer(folder), name,
                        temperature=args.temperature, max_new_tokens=args.max_new_tokens,
                        seed=args.seed)


class LocalTeacher:
    """A Teacher (see cold_start/trace.py)."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, name: str, *,
                 temperature: float = 1.0, max_new_tokens: int = 1024, seed: int = 0):
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self.seed = seed

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        prompts = []
        proposals = []
        for i, item in enumerate(items):
            text = ask(item, strategy, earlier[i] if earlier else None)
            prompts.append(self.prompt(text, item.options))
            unread = [new_trace(item, "", "", strategy, self.name) for _ in range(samples)]
            proposals.append(unread)
        rows = self.generate(items, prompts, samples=samples, step=STRATEGIES.index(strategy),
                             temperature=self.temperature, max_new_tokens=self.max_new_tokens)
        for i, row in rows:
            reasoning, label = self.read(row, items[i])
            answer = label if row.finished else ""
            trace = new_trace(items[i], reasoning, answer, strategy, self.name)
            proposals[i][row.sample] = trace
        return proposals

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        prompts = []
        for item, reasoning in zip(items, reasonings):
            opening = self.tokenizer.encode(f"<think>{reasoning.rstrip()}")
            prompts.append(self.prompt("", item.options) + opening)
        labels = [""] * len(items)
        rows = self.generate(items, prompts, temperature=0, max_new_tokens=RESOLVE_TOKENS)
        for i, row in rows:
            labels[i] = self.read(row, items[i])[1]
        return labels

    def generate(self, items: Sequence[Item], prompts: list[list[int]], **settings) -> list[tuple]:
        """Returns (index of the item, sampled row). A prompt that fills the context is skipped."""
        positions = self.model.config.max_position_embeddings
        fitting = [i for i, ids in enumerate(prompts) if len(ids) < positions]
        keys = [items[i].id for i in fitting]
        params = SamplingParams(end_ids=self.tokenizer.end_ids, seed=self.seed, **settings)
        rows = generate(self.model, [prompts[i] for i in fitting], keys, params)
        return [(fitting[row.prompt], row) for row in rows]

    def read(self, row, item: Item) -> tuple[str, str]:
        """Returns the reasoning and the label of a sampled row."""
        text = self.tokenizer.decode(row.ids[:-1] if row.finished else row.ids)
        return read_completion(text, item.labels)

    def prompt(self, question: str, options: dict[str, str]) -> list[int]:
        return self.tokenizer.encode(self.tokenizer.prompt(question, options))
