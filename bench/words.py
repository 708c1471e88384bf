"""Token ids as text, for benchmarks that need a tokenizer and no language: token 17 is the word "w17".

No word has a special token inside: a peer's tokenizer would find it there. The token after the last of the vocabulary
is an end that the model cannot draw.
"""

from __future__ import annotations


def text(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


def backend(vocabulary: int):
    """A word for every token and for the end behind them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({text([i]): i for i in range(vocabulary + 1)}, unk_token=text([0])))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


class Words:
    """What ``roll_out`` asks of a tokenizer; a prompt is the question alone."""

    def __init__(self, vocabulary: int, end_ids: list[int] | None = None):
        self.backend, self.end_ids = backend(vocabulary), end_ids or [vocabulary]

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return self.backend.decode(ids)

    def prompt(self, question: str, options: dict[str, str]) -> str:
        return question
