"""Detours of a reasoning that recovers (arXiv:2509.15279 §3.2): backtracking, path exploration, self-correction.

For graph items all three can be told without a model. Each returns the text that comes *before* the straight
path; everything it states is true in the graph, so it teaches checking and not falsehoods.

    backtrack      fever points to R . R lacks rash . back .           a rival is taken, found wanting, left
    explore        consider R : fever points to R . R lacks rash .     a candidate is tried before it is believed
    self-correct   R is treated with T . wait , R lacks rash .         a rival's whole chain, then the slip is seen
"""

from __future__ import annotations

import numpy as np

from minifleming.extras.teachers.prompts import ROUNDS
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.phrases import statement


def detour(item: Item, strategy: str, graph: Graph, rng: np.random.Generator) -> str | None:
    """The text before the straight path; '' for a strategy without one, None if the item has no fit rival."""
    if strategy not in ROUNDS:
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
    (_, relation, _), end = item.path[1], item.nodes(label)[-1]
    forward = (name, relation, end) in graph
    head, tail = (name, end) if forward else (end, name)
    if (head, relation, tail) not in graph:
        return f" {shared} points to {name} . wait , {name} lacks {lacking} ."
    return f" {statement(head, relation, tail, forward)} . wait , {name} lacks {lacking} ."


def pick_rival(item: Item, graph: Graph, rng: np.random.Generator) -> tuple[str, str, str] | None:
    """A rival of the root, a finding that both have, and one that the rival lacks, as the item records it."""
    lacks: dict[str, list[str]] = {}
    for label, rival in item.provenance.get("rivals", {}).items():
        lacks.setdefault(rival, item.provenance.get("lacks", {}).get(label, []))
    rivals = [name for name in lacks if name]
    for i in rng.permutation(len(rivals)):
        lacking = lacks[rivals[i]]
        shared = [t for _, r, t in item.evidence if t not in lacking and (rivals[i], r, t) in graph]
        if shared and lacking:
            return rivals[i], shared[rng.integers(len(shared))], lacking[rng.integers(len(lacking))]
    return None
