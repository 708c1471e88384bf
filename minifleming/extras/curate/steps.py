"""Runs the curation steps in order and counts the items before and after each (the funnel).

    anonymise -> format -> duplicates -> contamination -> labels -> tiers -> blend

Identifiers are removed first, so that no file of dropped items contains them. Model votes come late
because they are expensive; blending comes last because it needs the tiers. Contamination needs a
benchmark, labels need votes and blending needs a ratio or a size; without them the step is left
out. arXiv:2509.15279 §3.1, Fig. 2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from minifleming.extras.curate.anonymise import anonymise_step
from minifleming.extras.curate.blend import Class, Ratios, blend, most
from minifleming.extras.curate.contamination import Index, contamination_step
from minifleming.extras.curate.duplicates import duplicates_step
from minifleming.extras.curate.format import format_step
from minifleming.extras.curate.step import Dropped, Result
from minifleming.extras.curate.votes import SAMPLES, Votes, labels_step, tiers_step
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

ORDER = ("anonymise", "format", "duplicates", "contamination", "labels", "tiers", "blend")
LEFT_OUT = {"contamination": "no benchmark was given", "labels": "no votes were given",
            "blend": "no ratio and no size were given"}  # why a step is not in the funnel


class Stage(NamedTuple):
    """One row of the funnel."""

    came: int
    kept: int
    reasons: dict[str, int]
    quarantined: int


@dataclass(slots=True)
class Curated:
    items: list[Item]
    left: list[Dropped] = field(default_factory=list)
    stages: dict[str, Stage] = field(default_factory=dict)
    classes: list[Class] = field(default_factory=list)  # of the blend

    def record(self, step: str, result: Result) -> None:
        came = len(self.items)
        self.items, left = result
        self.left += left
        reasons = Counter(dropped.reason for dropped in left)
        quarantined = sum(dropped.quarantined for dropped in left)
        self.stages[step] = Stage(came, len(self.items), dict(sorted(reasons.items())), quarantined)


def curate(items: list[Item], *, against: list[tuple[str, list[Item]]] | None = None,
           votes: Votes | None = None, samples: int = SAMPLES, ratios: Ratios | None = None,
           n: int | None = None, seed: int = 0) -> Curated:
    """Runs all steps. ``against``: benchmarks by name; ``votes``: letters by item id."""
    ratios = ratios or {}
    curated = Curated(items)
    curated.record("anonymise", anonymise_step(curated.items))
    curated.record("format", format_step(curated.items))
    curated.record("duplicates", duplicates_step(curated.items))
    if against:  # anonymised like the items, so that placeholders do not hide a copy
        benchmarks = [(name, anonymise_step(group)[0]) for name, group in against]
        curated.record("contamination", contamination_step(curated.items, Index(benchmarks)))
    if votes is not None:
        curated.record("labels", labels_step(curated.items, votes, samples))
    curated.record("tiers", tiers_step(curated.items, votes or {}))
    if any(ratios.values()) or n is not None:
        check_names(curated.items, ratios)
        n = most(curated.items, ratios) if n is None else n
        if n == 0:
            raise RunFailed("no item has all of the requested source, language and tier")
        kept, left, curated.classes = blend(curated.items, n, ratios, seed)
        curated.record("blend", (kept, left))
    return curated


def check_names(items: list[Item], ratios: Ratios) -> None:
    """Raises BadInput if a ratio names a source, language or tier that no item has."""
    for kind, shares in ratios.items():
        for name in shares.keys() - {getattr(item, kind) for item in items}:
            raise BadInput(f"--mix, --languages, --tiers: no item has the {kind} '{name}'")
