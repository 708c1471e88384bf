"""A model folder as teacher: whatever minifleming loads, through its own sampler.

Blind, a question is asked as the model was trained to be asked (lm/tokenizer.py); the other strategies put more words
where the question stands. ``resolve`` lets the model close a reasoning greedily: the options and the reasoning up to
its last label stand there, the question does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minifleming.cold_start.trace import Trace, trace_of
from minifleming.extras.teachers.prompts import STRATEGIES, ask, read_completion
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import sample
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import Item

CLOSING = 32  # tokens in which a reasoning must be closed


class Local:
    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, name: str, *, temperature: float = 1.0,
                 max_new_tokens: int = 1024, seed: int = 0, slots: int = 256,
                 done: Callable[[int], None] = lambda count: None):
        """``done`` is called with the number of samples that ended."""
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.done = done
        self.settings = {"temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed, "slots": slots,
                         "end_ids": tokenizer.end_ids}

    def propose(self, items: Sequence[Item], strategy: str = "blind", samples: int = 1,
                earlier: Sequence[Trace] = ()) -> list[list[Trace]]:
        asked = [self.prompt(ask(item, strategy, trace), item.options)
                 for item, trace in zip(items, earlier or [None] * len(items))]
        room = self.with_room(asked)
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

    def resolve(self, items: Sequence[Item], reasonings: Sequence[str]) -> list[str]:
        asked = [self.prompt("", item.options) + self.tokenizer.encode(f"<think>{reasoning.rstrip()}")
                 for item, reasoning in zip(items, reasonings)]
        found, room = [""] * len(items), self.with_room(asked)
        rows = sample(self.model, [asked[i] for i in room], [items[i].id for i in room],
                      **self.settings | {"temperature": 0, "max_new_tokens": CLOSING})
        for row in rows:
            text = self.tokenizer.decode(row.ids[:-1] if row.finished else row.ids)
            found[room[row.prompt]] = read_completion(text, items[room[row.prompt]].labels)[1]
        return found

    def with_room(self, prompts: list[list[int]]) -> list[int]:
        """Those that leave a token to sample; the others count as tried and unread."""
        return [i for i, ids in enumerate(prompts) if len(ids) < self.model.config.max_position_embeddings]

    def prompt(self, question: str, options: dict[str, str]) -> list[int]:
        return self.tokenizer.encode(self.tokenizer.prompt(question, options))
