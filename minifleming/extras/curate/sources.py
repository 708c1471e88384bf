"""Reads the inputs of the curation: NAME=PATH, a public benchmark or a JSONL file of items.

    medqa=train.jsonl  ->  Source("medqa", "train.jsonl", sha256, items=10178, unusable={...})
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from minifleming.evaluation.benchmarks import BENCHMARKS, read_set
from minifleming.extras.curate.step import noted
from minifleming.rods.item import TIERS, Item, read_items
from minifleming.run.checkpoint import sha256
from minifleming.run.errors import BadInput


class Source(NamedTuple):
    """An input file: name, sha256, number of items, and unusable rows by reason."""

    name: str
    file: str
    sha256: str
    items: int
    unusable: dict[str, int]


def parse(argument: str) -> tuple[str, Path]:
    name, _, path = argument.partition("=")
    if not (name and path):
        raise BadInput(f"'{argument}' must be NAME=PATH")
    return name, Path(path)


def read_sources(arguments: list[str]) -> tuple[list[tuple[str, list[Item]]], list[Source]]:
    """Returns the items and the source of each argument, in order."""
    pairs, sources = [], []
    for name, path in map(parse, arguments):
        if name in BENCHMARKS:
            items, unusable = read_set(name, path)
        else:
            items, unusable = read_items(path), []
        for item in items:
            check(item, path)
        pairs.append((name, items))
        reasons = Counter(row.reason for row in unusable)
        sources.append(Source(name, path.name, digest(path), len(items), reasons))
    return pairs, sources


def pool(pairs: list[tuple[str, list[Item]]]) -> list[Item]:
    """Returns all items with unique ids: a repeated id gets the suffix "~2", "~3" ..."""
    items = []
    taken = Counter()
    for name, group in pairs:
        for item in group:
            new = item.id
            while new in taken:
                taken[item.id] += 1
                new = f"{item.id}~{taken[item.id]}"
            taken[new] += 1
            was = {"was": item.id} if new != item.id else {}
            item = dataclasses.replace(item, id=new, source=item.source or name)
            items.append(noted(item, "read", set=name, **was))
    return items


def check(item: Item, path: Path) -> None:
    """Raises BadInput for a lineage or tiers that the steps cannot extend."""
    lineage = item.provenance.get("lineage", [])
    if not isinstance(lineage, list) or not all(isinstance(entry, dict) for entry in lineage):
        raise BadInput(f"item '{item.id}': 'provenance.lineage' must be a list of objects", path)
    tiers = item.provenance.get("tiers", {})
    if not isinstance(tiers, dict) or not all(tier in TIERS for tier in tiers.values()):
        raise BadInput(f"item '{item.id}': 'provenance.tiers' has an unknown tier", path)


def digest(path: Path) -> str:
    """Returns the sha256 of a file; for a folder, of its files' names and digests."""
    if not path.is_dir():
        return sha256(path)
    lines = [f"{file.name} {sha256(file)}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
