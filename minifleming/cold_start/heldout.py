"""Held-out traces: how the student does on questions that it was not trained on, while it trains."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from minifleming.cold_start.trace import Trace
from minifleming.lm.batch import Example
from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import pack_groups, packed_logprobs
from minifleming.lm.sampler import sample
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.answer import parse_strict
from minifleming.run import distributed


def split(traces: Sequence[Trace], share: float, seed: int) -> tuple[list[Trace], list[Trace]]:
    """Training and held-out traces, both in their order; those of one item stay together, by a hash of its id."""

    def held(trace: Trace) -> bool:
        digest = hashlib.sha256(f"{seed}\x1f{trace.item}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    return [t for t in traces if not held(t)], [t for t in traces if held(t)]


@dataclass(frozen=True)
class HeldOut:
    """The held-out traces as examples, each with its labels and its answer."""

    examples: list[Example]
    labels: list[str]
    answers: list[str]
    tokenizer: Tokenizer
    tokens: int  # per forward pass
    slots: int = 256

    def measure(self, model: LanguageModel) -> tuple[float, float]:
        """Mean negative log-likelihood of the targets (nats a token), and strict accuracy of greedy answers.

        An answer may be twice as long as the longest trace; a longer one is wrong.
        """
        mine = distributed.share(list(range(len(self.examples))))
        loss, right = self.loss(model, mine), self.right(model, mine)
        targets = sum(len(example.completion) for example in self.examples)
        loss, right = distributed.all_sum([loss, right], model.device)
        return loss / targets, right / len(self.examples)

    @torch.inference_mode()
    def loss(self, model: LanguageModel, rows: list[int]) -> float:
        """Summed over the targets of these rows."""
        return sum(-packed_logprobs(model, pack)[0].sum().item()
                   for pack in pack_groups([self.examples[i] for i in rows], self.tokens))

    def right(self, model: LanguageModel, rows: list[int]) -> int:
        longest = 2 * max(len(example.completion) for example in self.examples)
        found = sample(model, [self.examples[i].prompt for i in rows], [str(i) for i in rows], temperature=0,
                       max_new_tokens=longest, end_ids=self.tokenizer.end_ids, slots=self.slots)
        return sum(self.verdict(rows[row.prompt], row.ids, row.finished) for row in found)

    def verdict(self, i: int, ids: list[int], finished: bool) -> bool:
        text = self.tokenizer.decode(ids[:-1] if finished else ids)
        return parse_strict(text, self.labels[i], finished).label == self.answers[i]
