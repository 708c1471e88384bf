"""Making item sets: how many of which length, and which combination of findings belongs to which split.

A split is a property of the *combination*: the root and its set of visible findings are hashed, and the hash
says whether items with that combination may be trained on or are held out. So no held-out item shares its
combination of findings with a training item, whatever the seeds and sizes; and a held-out item whose set of
options occurs in training is not used.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.question import make_item
from minifleming.rods.walk import Walk, Walker

HELD_OUT_SHARE = 0.25
TRIES_PER_ITEM = 400


def is_held_out(walk: Walk) -> bool:
    """Does this walk's combination of root and findings belong to the held-out splits?"""
    key = "\x1f".join([walk.root, *sorted(step.end for step in walk.evidence)])
    return hashlib.sha256(key.encode()).digest()[0] < 256 * HELD_OUT_SHARE


def option_set(item: Item) -> frozenset[str]:
    return frozenset(item.options.values())


def synthesise(
    graph: Graph,
    count: int,
    hops: list[int],
    *,
    seed: int,
    options: int = 4,
    findings: tuple[int, int] = (2, 4),
    rarity: float = 0.5,
    rare_boost: float = 2.0,
    roots: int = 0,
    keep: Callable[[Walk], bool] = lambda walk: True,
    taken: Iterable[frozenset[str]] = (),
    prefix: str = "kg",
    progress: Callable[[list], Iterable] = lambda x: x,
) -> list[Item]:
    """Up to ``count`` different items with proofs, the path lengths equally often, in a fixed random order.

    Items are different if their question or their set of options is. Fewer come back only if
    ``TRIES_PER_ITEM`` draws for each missing item found no further one.
    """
    walker = Walker(graph, rarity, rare_boost, roots)
    rng = np.random.default_rng([seed, 0x5EED])
    taken, seen, items = set(taken), set(), []
    for number in progress(range(count)):
        length = hops[number % len(hops)]
        for _ in range(TRIES_PER_ITEM):
            walk = walker.walk(length, findings, rng)
            if walk is None or not keep(walk):
                continue
            item = make_item(walk, walker, options, rng, f"{prefix}-{length}-{number:06d}")
            if item is None or option_set(item) in taken:
                continue
            key = (walk.root, frozenset(walk.evidence), walk.chain, option_set(item))
            if key not in seen:
                seen.add(key)
                items.append(item)
                break
    return items


def tier_counts(items: list[Item]) -> dict[str, int]:
    return dict(sorted(Counter(item.tier for item in items).items()))
