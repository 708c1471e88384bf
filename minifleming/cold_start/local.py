"""A model folder as teacher: whatever minifleming loads, through its own sampler.

Blind, a question is asked as the model was trained to be asked (lm/tokenizer.py); the other strategies put more words
where the question stands. ``resolve`` lets the model close a reasoning that it did not write: the options and the
reasoning stand there, the question does not, and the label with the highest probability is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from minifleming.cold_start.prompts import STRATEGIES, ask, fill, read_completion
from minifleming.cold_start.trace import Trace, trace_of
from minifleming.lm.batch import Example, micro_batches
from minifleming.lm.chat import completion
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import sample
from minifleming.lm.score import completion_logprobs
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import Item


class Local:
    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, name: str, *, temperature: float = 1.0,
                 max_new_tokens: int = 1024, seed: int = 0, slots: int = 256, tokens: int = 16384,
                 done: Callable[[int], None] = lambda count: None):
        """``tokens``: of a micro-batch of ``resolve``; ``done`` is called with the number of samples that ended."""
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.tokens, self.done = tokens, done
        self.settings = {"temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed, "slots": slots,
                         "end_ids": tokenizer.end_ids}

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        asked = [self.prompt(ask(item, strategy, trace), item.options)
                 for item, trace in zip(items, earlier or [None] * len(items))]
        room = [i for i, ids in enumerate(asked) if len(ids) < self.model.config.max_position_embeddings]
        rows = sample(self.model, [asked[i] for i in room], [items[i].id for i in room], samples=samples,
                      step=STRATEGIES.index(strategy), done=self.done, **self.settings)
        found = [[trace_of(item, "", "", strategy, self.name) for _ in range(samples)] for item in items]
        for row in rows:
            item = items[room[row.prompt]]
            ids = row.ids[:-1] if row.finished else row.ids
            reasoning, label = read_completion(self.tokenizer.decode(ids), item.labels)
            found[room[row.prompt]][row.sample] = trace_of(item, reasoning, label if row.finished else "", strategy,
                                                           self.name)
        return found

    @torch.inference_mode()
    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        labels, examples, owners = [""] * len(items), [], []
        for number, (item, reasoning) in enumerate(zip(items, reasonings)):
            prompt = self.prompt(fill("resolve", reasoning=""), item.options)
            for label in item.labels:
                example = Example(prompt, self.tokenizer.encode(completion(reasoning, label)))
                if len(example) <= self.model.config.max_position_embeddings:
                    examples.append(example)
                    owners.append((number, label))
        best = [-float("inf")] * len(items)
        for batch in micro_batches(examples, self.tokens):
            logprobs, rows = completion_logprobs(self.model, batch)
            totals = torch.zeros(len(batch.rows), dtype=torch.float64).index_add_(0, rows.cpu(), logprobs.double().cpu())
            for at, total in zip(batch.rows, totals.tolist()):
                number, label = owners[at]
                if total > best[number]:
                    best[number], labels[number] = total, label
        return labels

    def prompt(self, question: str, options: dict[str, str]) -> list[int]:
        return self.tokenizer.encode(self.tokenizer.prompt(question, options))
