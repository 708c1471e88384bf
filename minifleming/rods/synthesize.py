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

from minifleming.extras.wording.wording import Wording, read_names
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.question import PLAIN, leaks, make_item, tells_masked
from minifleming.rods.walk import EVIDENCE, Walk, Walker
from minifleming.run.errors import BadInput
from minifleming.run.fields import Data

HELD_OUT_SHARE = 0.25
VAIN_DRAWS = 4000


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
    evidence: tuple[str, ...] = EVIDENCE,
    pins: bool = False,
    both: float = 0.0,
    apart: bool = False,
    wording: Wording = PLAIN,
    keep: Callable[[Walk], bool] = lambda walk: True,
    taken: Iterable[frozenset[str]] = (),
    refuse: Callable[[Item], str] = lambda item: "",
    refused: Counter | None = None,
    prefix: str = "kg",
    progress: Callable[[list], Iterable] = lambda x: x,
) -> list[Item]:
    """Up to ``count`` different items with proofs, the path lengths equally often, in a fixed random order.

    Items are different if their question or their set of options is. Fewer come back only if a path length is used
    up: ``VAIN_DRAWS`` draws found no further item of it. ``both`` is the share of items that
    ask for the root too. What ``refuse`` gives a reason for is not used and counted in ``refused``.
    """
    walker = Walker(graph, rarity, rare_boost, roots, evidence, pins, by_name=apart)
    rng = np.random.default_rng([seed, 0x5EED])
    strict = apart or wording.language != "en"
    taken, seen, items, owed, vain = set(taken), set(), [], Counter(), Counter()
    for number in progress(range(count)):
        length = hops[number % len(hops)]
        while vain[length] < VAIN_DRAWS:
            vain[length] += 1
            walk = walker.walk(length, findings, rng)
            if walk is None or not keep(walk):
                continue
            two = both > 0 and rng.random() < both
            item = make_item(walk, walker, options, rng, prefix, owed, wording, two, apart)
            if item is None or option_set(item) in taken or gives_away(item, strict):
                continue
            key = (walk.root, frozenset(walk.evidence), walk.chain, option_set(item))
            if key not in seen and item.id not in seen:  # edges of one wording, there and back, ask the same
                seen.update((key, item.id))
                if reason := refuse(item):
                    refused = Counter() if refused is None else refused
                    refused[reason] += 1
                    continue
                items.append(item)
                owed.subtract("; ".join(item.nodes(label)) for label in item.options if label != item.answer)
                owed[item.masked] += options - 1
                vain[length] = 0
                break
    return items


def gives_away(item: Item, strict: bool) -> bool:
    """Does the question name the answer? "expanded FXN GAA repeat" among the findings would tell the cause, FXN.
    ``strict`` asks for what only reads like it, too."""
    return any(name in item.question for name in item.nodes(item.answer)) or (
        strict and (tells_masked(item) or leaks(item)))


def settings(data: Data, graph: Graph) -> dict:
    """The arguments of ``synthesise`` that the configuration gives. Raises BadInput for a graph that cannot serve."""
    evidence = tuple(data.evidence) or EVIDENCE
    if not any(relation in graph.code for relation in evidence):
        raise BadInput(f"data.evidence: the graph has none of {', '.join(evidence)}; its relations are "
                       f"{', '.join(graph.relations[:30])}")
    if data.qualifiers and (data.style == "plain" or data.language != "en"):
        raise BadInput("data.qualifiers: only the English styles varied and vignette can tell them")
    if data.language != "en" and data.style == "varied":
        raise BadInput("data.style: in Chinese there is one wording; 'vignette' adds absent findings")
    wording = Wording(data.style, data.language, read_names(data.names, graph) if data.language != "en" else {})
    return {"options": data.options, "findings": tuple(data.findings), "rarity": data.rarity,
            "rare_boost": data.rare_boost, "roots": data.num_diseases, "evidence": evidence, "pins": data.qualifiers,
            "both": data.two_targets, "apart": data.exclude_variants, "wording": wording}


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
