"""Making item sets: how many of which length, and which combination of findings belongs to which split.

A split is a property of the *combination*: the root and its set of visible findings are hashed, and the hash
says whether items with that combination may be trained on or are held out. So no held-out item shares its
combination of findings with a training item, whatever the seeds and sizes; and a held-out item whose set of
options occurs in training is not used.

Options must not give the answer away: what stands as a wrong option far more often than as the right one could be
ruled out without reading the question. So every name is *owed* a wrong option for each of the options - 1 that stood
beside it when it was right, and distractors are chosen from what is owed most. ``blind_accuracy`` measures the rest.
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
GIVE_UP = 10


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

    Items are different if their question or their set of options is. Fewer come back only if a path length is used
    up: ``TRIES_PER_ITEM`` draws found no further item, ``GIVE_UP`` times in a row.
    """
    walker = Walker(graph, rarity, rare_boost, roots)
    rng = np.random.default_rng([seed, 0x5EED])
    taken, seen, items, owed, vain = set(taken), set(), [], Counter(), Counter()
    for number in progress(range(count)):
        length = hops[number % len(hops)]
        for _ in range(TRIES_PER_ITEM if vain[length] < GIVE_UP else 0):
            walk = walker.walk(length, findings, rng)
            if walk is None or not keep(walk):
                continue
            item = make_item(walk, walker, options, rng, prefix, owed)
            if item is None or option_set(item) in taken or item.masked in item.question:
                continue  # the last: "expanded FXN GAA repeat" among the findings would tell the cause, FXN
            key = (walk.root, frozenset(walk.evidence), walk.chain, option_set(item))
            if key not in seen:
                seen.add(key)
                items.append(item)
                owed.subtract(text for label, text in item.options.items() if label != item.answer)
                owed[item.masked] += options - 1
                vain[length] = 0
                break
        else:
            vain[length] += 1
    return items


def blind_accuracy(train: list[Item], test: list[Item]) -> float:
    """Accuracy on ``test`` of a rule that never reads the question: the option that was right most often in ``train``
    for each time that it stood there; chance among equals."""
    right = Counter(item.options[item.answer] for item in train)
    shown = Counter(text for item in train for text in item.options.values())
    hits = 0.0
    for item in test:
        rates = {text: right[text] / shown[text] if shown[text] else 0.0 for text in item.options.values()}
        best = [text for text, rate in rates.items() if rate == max(rates.values())]
        hits += (item.options[item.answer] in best) / len(best)
    return hits / len(test)


def tier_counts(items: list[Item]) -> dict[str, int]:
    return dict(sorted(Counter(item.tier for item in items).items()))
