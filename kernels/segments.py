"""Layout of a packed row: each segment attends causally to itself and fully to at most one earlier
segment, its prompt.

    tokens     p p p p a a a b b q q c c c c        one row of N tokens
    segments   p         a     b   q   c
    prefix_of            p     p       q            a prompt is stored once for its group

A document that shares nothing has no prompt. Segments with the same prompt are adjacent and follow
it directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Lengths of the segments in order, and for each the index of its prompt.

    ``prefix_of[i]`` is the index of segment i's prompt, or -1 if it reads only itself.
    """

    lengths: list[int]
    prefix_of: list[int]

    def __post_init__(self):
        assert len(self.lengths) == len(self.prefix_of) and min(self.lengths, default=1) > 0
        for i, read in enumerate(self.prefix_of):
            if read != -1:
                assert self.prefix_of[read] == -1, (i, read)
                assert read == i - 1 or self.prefix_of[i - 1] == read, (i, read)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def starts(self) -> list[int]:
        """The row's index of each segment's first token."""
        starts, at = [], 0
        for length in self.lengths:
            starts.append(at)
            at += length
        return starts

    def table(self) -> Tensor:
        """For the kernels: ``rows`` as [S, 6] int32."""
        return torch.tensor(self.rows, dtype=torch.int32).view(-1, 6)

    @cached_property
    def rows(self) -> list[tuple[int, ...]]:
        """Of each segment: start, length, start and length of what it reads (0, 0: nothing), start
        and length of the tokens that read it, which stand together behind it."""
        starts, readers = self.starts, [0] * len(self)
        for length, read in zip(self.lengths, self.prefix_of):
            if read >= 0:
                readers[read] += length
        rows = []
        for start, length, read, n in zip(starts, self.lengths, self.prefix_of, readers):
            prefix = (starts[read], self.lengths[read]) if read >= 0 else (0, 0)
            rows.append((start, length, *prefix, start + length, n))
        return rows

    def mask(self) -> Tensor:
        """Who attends to whom: [N, N] bool, row by query. For tests and small rows; nothing else
        needs it."""
        seen = torch.zeros(self.tokens, self.tokens, dtype=torch.bool)
        for start, length, first, size, _, _ in self.table().tolist():
            own = slice(start, start + length)
            seen[own, own] = torch.ones(length, length, dtype=torch.bool).tril()
            seen[own, first : first + size] = True
        return seen
