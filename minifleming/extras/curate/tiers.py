"""Assigns a difficulty tier (easy, moderate, difficult) from up to three sources.

    votes      a model's three verdicts on the item, {"id": "medmcqa-1", "tiers": ["easy", "moderate", "easy"]}; the one
               with at least two, moderate if there is none
    pass rate  measured: the share of the completions with the right letter; >= 0.75 easy, <= 0.25 difficult
    structure  of synthetic items: what the walk through the graph said, the tier that the item came with

The first that there is, in this order, is the item's tier: verdicts were asked for on purpose, a pass rate depends on
the model that answered, and structure does not look at the words. All are kept in ``provenance["tiers"]``, and how well
they agree is reported as Cohen's kappa. Fig. 2 of arXiv:2509.15279: difficulty stratification.
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
    """The majority by item id."""
    found = {}
    for number, record in read_jsonl(path):
        name, tiers = record.get("id"), record.get("tiers")
        if not isinstance(name, str) or not isinstance(tiers, list) or not tiers or not set_of_tiers(tiers):
            raise BadInput(f"must be {{\"id\": ..., \"tiers\": [of {', '.join(TIERS)}]}}", path, number)
        if name in found:
            raise BadInput(f"'{name}' stands there twice", path, number)
        found[name] = majority(tiers)
    if not found:
        raise BadInput("no tiers", path)
    return found


def set_of_tiers(values: list) -> bool:
    return all(isinstance(value, str) and value in TIERS for value in values)


def majority(tiers: Sequence[str]) -> str:
    """More than half; otherwise the middle, the smallest error whichever was meant."""
    tier, count = Counter(tiers).most_common(1)[0]
    return tier if 2 * count > len(tiers) else TIERS[1]


def by_pass_rate(rate: float, easy: float = EASY, difficult: float = DIFFICULT) -> str:
    return TIERS[0] if rate >= easy else TIERS[2] if rate <= difficult else TIERS[1]


def tiers_step(items: list[Item], verdicts: dict[str, str], votes: Votes, *, easy: float = EASY,
               difficult: float = DIFFICULT) -> Result:
    """Nothing is dropped; an item without any source keeps an empty tier."""
    return [stratify(item, verdicts.get(item.id), votes.get(item.id), easy, difficult) for item in items], []


def stratify(item: Item, verdict: str | None, letters: list[str] | None, easy: float, difficult: float) -> Item:
    found = dict(item.provenance.get("tiers", {}))
    if verdict:
        found["votes"] = verdict
    if letters:
        found["pass rate"] = by_pass_rate(letters.count(item.answer) / len(letters), easy, difficult)
    if item.tier and not judged(item):
        found["structure"] = item.tier
    source = next((name for name in SOURCES if name in found), "")
    item = dataclasses.replace(item, tier=found[source] if source else item.tier,
                               provenance={**item.provenance, "tiers": {n: found[n] for n in SOURCES if n in found}})
    return noted(item, STEP, tier=item.tier, by=source)


def judged(item: Item) -> bool:
    """Has this step chosen the tier before? Then it says nothing about structure."""
    return any(entry.get("step") == STEP for entry in item.provenance.get("lineage", []))


def agreement(items: list[Item]) -> list[tuple[str, str, int, float | None]]:
    """(source, source, items with both, Cohen's kappa) for every pair of sources."""
    rows = []
    for a, b in combinations(SOURCES, 2):
        both = [tiers for item in items if a in (tiers := item.provenance.get("tiers", {})) and b in tiers]
        rows.append((a, b, len(both), kappa([t[a] for t in both], [t[b] for t in both])))
    return rows


def kappa(a: Sequence[str], b: Sequence[str]) -> float | None:
    """(p_o - p_e) / (1 - p_e): Cohen 1960. None without items, and where both always say the same one thing.

    In whole numbers until the last division: n^2 p_o = n * agreements, n^2 p_e = the sum of products of counts.
    """
    n, left, right = len(a), Counter(a), Counter(b)
    agree = n * sum(x == y for x, y in zip(a, b))
    chance = sum(left[tier] * right[tier] for tier in TIERS)
    return (agree - chance) / (n * n - chance) if n * n > chance else None
