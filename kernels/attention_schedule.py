"""Block sizes and work tables of the attention kernels (attention.py), computed on the host."""

from __future__ import annotations

import torch

from minifleming.kernels.jit import cdiv
from minifleming.kernels.segments import Segments

PROGRAMS = 528  # that compute dk and dv: four for each of 132 multiprocessors
PIECE = 32  # query blocks of a piece, at least; a smaller piece costs more to sum than it saves


def tiles(width: int, wide: bool) -> list[tuple[int, int, int, int]]:
    """(queries, keys, warps, stages) of the three kernels for a head width.

    ``wide``: fp32, which tensor cores do not multiply exactly. One block size is a multiple of the
    other, so that only blocks on the diagonal need a mask.
    """
    if wide:
        return [(32, 32, 4, 1)] * 3
    if width == 128:
        return [(128, 64, 8, 3), (128, 64, 8, 2), (64, 128, 8, 2)]
    return [(128, 64, 8, 3), (64, 64, 4, 3), (64, 64, 4, 3)]


def query_blocks(segments: Segments, block: int) -> list[list[int]]:
    """[first query, start and end of its segment, start and length of its prompt], longest
    first."""
    rows = []
    for start, length, before, size, _, _ in segments.rows:
        for at in range(start, start + length, block):
            rows.append([at, start, start + length, before, size])
    return sorted(rows, key=lambda row: row[1] - row[0] - row[4])


def key_blocks(segments: Segments, queries: int, keys: int, heads: int,
               groups: int) -> tuple[list, list, int]:
    """Work of the dk, dv kernel: (pieces, sums, number of slots).

    A piece is [first key, end of its segment, end of the queries that see it, first unit, last
    unit, slot or -1]; pieces are sorted, longest first. A sum is [first key, end, first slot, last
    slot], one for every block of keys with more than one piece. A unit is a block of queries in one
    head. A segment's readers follow it directly, so the queries that see a block form one range.
    """
    rows = []
    for start, length, _, _, reading, readers in segments.rows:
        for at in range(start, start + length, keys):
            units = groups * cdiv(reading + readers - at, queries)
            rows.append([at, start + length, reading + readers, units])
    most = max(PIECE, cdiv(heads * sum(row[3] for row in rows), PROGRAMS))
    pieces, sums, slots = [], [], 0
    for first, end, last, units in rows:
        count = cdiv(units, most)
        bounds = [units * i // count for i in range(count + 1)]
        slot = slots if count > 1 else -1
        pieces += [[first, end, last, *bounds[i : i + 2], slot + i] for i in range(count)]
        if count > 1:
            sums.append([first, end, slots, slots + count])
            slots += count
    return sorted(pieces, key=lambda row: row[3] - row[4]), sums, slots


def tables(segments: Segments, device: torch.device, width: int, wide: bool, heads: int,
           groups: int) -> tuple:
    """Tables of the four kernels on the device, and the number of slots; computed once per row."""
    kept, key = vars(segments).setdefault("tables", {}), (device, width, wide, heads, groups)
    if key not in kept:
        forward, queries, keys = tiles(width, wide)
        pieces, sums, slots = key_blocks(segments, *keys[:2], heads, groups)
        made = query_blocks(segments, forward[0]), query_blocks(segments, queries[0]), pieces, sums
        kept[key] = (*(torch.tensor(t, dtype=torch.int32).to(device) for t in made), slots)
    return kept[key]
