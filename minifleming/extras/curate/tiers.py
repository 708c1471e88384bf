"""Assigns a difficulty tier (easy, moderate, difficult) from up to three sources.

    votes      a model's verdicts, {"id": "medmcqa-1", "tiers": ["easy", "moderate", "easy"]}: the
               majority, or moderate if there is none
    pass rate  share of the completions with the correct letter: >= 0.75 easy, <= 0.25 difficult
    structure  the tier that a synthetic item has from the graph walk

The first available source determines the tier. All are kept in ``provenance["tiers"]``; their
agreement is reported as Cohen's kappa. Difficulty stratification, arXiv:2509.15279 Fig. 2.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from minifleming.extras.curate.labels import Votes
from minifleming.extras.curate.step import Result, noted
from minifleming.rods.item import TIERS, Item, read_jsonl
from minifleming.run.errors import BadInput

STEP = "tiers"
SOURCES = ("votes", "pass rate", "structure")  # the first that there is decides
EASY, DIFFICULT = 0.75, 0.25  # of four completions: at most one wrong; at most one right


def read_tiers(path: Path) -> dict[str, str]:
    """Returns the majority of verdicts by item id."""
    found = {}
    for number, record in read_jsonl(path):
        name, tiers = record.get("id"), record.get("tiers")
        if not isinstance(name, str) or not is_list_of_tiers(tiers):
            reason = f"must be {{\"id\": ..., \"tiers\": [of {', '.join(TIERS)}]}}"
            raise BadInput(reason, path, number)
        if name in found:
            raise BadInput(f"'{name}' stands there twice", path, number)
        found[name] = majority(tiers)
    if not found:
        raise BadInput("no tiers", path)
    return found


def is_list_of_tiers(values) -> bool:
    return isinstance(values, list) and bool(values) and all(value in TIERS for value in values)


def majority(tiers: Sequence[str]) -> str:
    """Returns the tier with more than half of the verdicts, else moderate."""
    tier, count = Counter(tiers).most_common(1)[0]
    return tier if 2 * count > len(tiers) else TIERS[1]


def by_pass_rate(rate: float, easy: float = EASY, difficult: float = DIFFICULT) -> str:
    return TIERS[0] if rate >= easy else TIERS[2] if rate <= difficult else TIERS[1]


def tiers_step(items: list[Item], verdicts: dict[str, str], votes: Votes, *, easy: float = EASY,
               difficult: float = DIFFICULT) -> Result:
    """Drops no item; an item without any source keeps an empty tier."""
    kept = []
    for item in items:
        verdict, letters = verdicts.get(item.id), votes.get(item.id)
        kept.append(stratify(item, verdict, letters, easy, difficult))
    return kept, []


def stratify(item: Item, verdict: str | None, letters: list[str] | None, easy: float,
             difficult: float) -> Item:
    found = dict(item.provenance.get("tiers", {}))
    if verdict:
        found["votes"] = verdict
    if letters:
        rate = letters.count(item.answer) / len(letters)
        found["pass rate"] = by_pass_rate(rate, easy, difficult)
    if item.tier and not judged(item):
        found["structure"] = item.tier
    tiers = {name: found[name] for name in SOURCES if name in found}
    source = next(iter(tiers), "")
    provenance = {**item.provenance, "tiers": tiers}
    item = dataclasses.replace(item, tier=tiers.get(source, item.tier), provenance=provenance)
    return noted(item, STEP, tier=item.tier, by=source)


def judged(item: Item) -> bool:
    """Says whether this step has set the tier before; then the tier is not the structure's."""
    return any(entry.get("step") == STEP for entry in item.provenance.get("lineage", []))


def agreement(items: list[Item]) -> list[tuple[str, str, int, float | None]]:
    """Returns (source, source, items with both, Cohen's kappa) of every pair of sources."""
    rows = []
    for a, b in combinations(SOURCES, 2):
        tiers = [item.provenance.get("tiers", {}) for item in items]
        both = [t for t in tiers if a in t and b in t]
        rows.append((a, b, len(both), kappa([t[a] for t in both], [t[b] for t in both])))
    return rows


def kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """Returns (p_o - p_e) / (1 - p_e), Cohen 1960; None without items or if p_e is 1.

    Computed from integers: n^2 p_o = n * agreements, n^2 p_e = the sum of products of counts.
    """
    n, left, right = len(a), Counter(a), Counter(b)
    agree = n * sum(x == y for x, y in zip(a, b))
    chance = sum(left[tier] * right[tier] for tier in TIERS)
    return (agree - chance) / (n * n - chance) if n * n > chance else None
