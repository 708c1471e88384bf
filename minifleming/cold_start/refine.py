"""Detours of a reasoning that recovers (arXiv:2509.15279 §3.2): backtracking, path exploration, self-correction.

For graph items all three can be told without a model. Each returns the text that comes *before* the straight
path; everything it states is true in the graph, so it teaches checking and not falsehoods.

    backtrack      fever points to R . R lacks rash . back .           a rival is taken, found wanting, left
    explore        consider R : fever points to R . R lacks rash .     a candidate is tried before it is believed
    self-correct   R is treated with T . wait , R lacks rash .         a rival's whole chain, then the slip is seen
"""

from __future__ import annotations

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.phrases import statement

STRATEGIES = ("backtrack", "explore", "self-correct")


def detour(item: Item, strategy: str, graph: Graph, rng: np.random.Generator) -> str | None:
    """The text before the straight path; '' for the blind strategy, None if the item has no fit rival."""
    if strategy == "blind":
        return ""
    rival = pick_rival(item, graph, rng)
    if rival is None:
        return None
    name, shared, lacking = rival
    if strategy == "backtrack":
        return f" {shared} points to {name} . {name} lacks {lacking} . back ."
    if strategy == "explore":
        return f" consider {name} : {shared} points to {name} . {name} lacks {lacking} ."
    label = next((k for k, rival in item.provenance["rivals"].items() if rival == name), None)
    if label is None or len(item.path) != 2:
        return f" {shared} points to {name} . wait , {name} lacks {lacking} ."
    _, relation, _ = item.path[1]
    forward = (name, relation, item.options[label]) in graph
    head, tail = (name, item.options[label]) if forward else (item.options[label], name)
    if (head, relation, tail) not in graph:
        return f" {shared} points to {name} . wait , {name} lacks {lacking} ."
    return f" {statement(head, relation, tail, forward)} . wait , {name} lacks {lacking} ."


def pick_rival(item: Item, graph: Graph, rng: np.random.Generator) -> tuple[str, str, str] | None:
    """A rival of the root, a finding that both have, and one that the rival lacks."""
    root = item.provenance["root"]
    evidence = [(r, t) for h, r, t in item.visible if h == root][: len(item.visible) - len(item.path) + 1]
    rivals = [name for name in dict.fromkeys(item.provenance.get("rivals", {}).values()) if name]
    for i in rng.permutation(len(rivals)):
        shared = [t for r, t in evidence if (rivals[i], r, t) in graph]
        lacking = [t for r, t in evidence if (rivals[i], r, t) not in graph]
        if shared and lacking:
            return rivals[i], shared[rng.integers(len(shared))], lacking[rng.integers(len(lacking))]
    return None
