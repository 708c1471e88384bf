"""Runs the curation steps in order and counts the items before and after each (the funnel).

    anonymise -> format -> duplicates -> contamination -> labels -> tiers -> blend

Identifiers are removed first, so that no file of dropped items contains them. Model votes come late
because they are expensive; blending comes last because it needs the tiers. Labels need --votes and
blending needs a ratio or --n; without them the step is skipped. arXiv:2509.15279 §3.1, Fig. 2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from minifleming.extras.curate import contamination, duplicates, labels, tiers
from minifleming.extras.curate import format as well_formed
from minifleming.extras.curate.anonymise import anonymise_step
from minifleming.extras.curate.blend import Blend, Ratios, blend_step, most
from minifleming.extras.curate.contamination import Index, contamination_step
from minifleming.extras.curate.duplicates import duplicates_step
from minifleming.extras.curate.format import format_step
from minifleming.extras.curate.labels import Votes, labels_step
from minifleming.extras.curate.step import Dropped, Result
from minifleming.extras.curate.tiers import tiers_step
from minifleming.rods.item import Item
from minifleming.run.errors import RunFailed

ORDER = ("anonymise", "format", "duplicates", "contamination", "labels", "tiers", "blend")
LEFT_OUT = {"contamination": "no benchmark was given", "labels": "no votes were given",
            "blend": "no ratio and no size were given"}  # why a step is not in the funnel


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the curation; each default is explained where it is defined."""

    shortest: int = well_formed.SHORTEST
    near: str = duplicates.NEAR
    limits: contamination.Limits = contamination.Limits()
    samples: int = labels.SAMPLES
    least: int = 1
    easy: float = tiers.EASY
    difficult: float = tiers.DIFFICULT
    ratios: Ratios = field(default_factory=dict)
    n: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the funnel."""

    step: str
    came: int
    kept: int
    reasons: dict[str, int]
    quarantined: int

    @property
    def dropped(self) -> int:
        return self.came - self.kept - self.quarantined


@dataclass(slots=True)
class Curated:
    items: list[Item]
    left: list[Dropped] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    blend: Blend = field(default_factory=Blend)


def curate(items: list[Item], settings: Settings, *, against: Iterable[tuple[str, list[Item]]] = (),
           votes: Votes | None = None, verdicts: dict[str, str] | None = None, workers: int = 1,
           progress: Callable[[list], Iterable] = lambda x: x) -> Curated:
    """Runs all steps.

    ``against``: benchmarks by name; ``votes``: letters by item id; ``verdicts``: tiers by item id.
    """
    curated = Curated(items)
    steps = plan(settings, list(against), votes, verdicts or {}, workers, curated.blend)
    for name, step in progress(steps):
        came = curated.items
        curated.items, left = step(came)
        if len(curated.items) + len(left) != len(came):
            went = f"{len(curated.items)} + {len(left)}"
            raise RunFailed(f"{name}: {len(came)} items came, {went} went: this is a bug")
        curated.left += left
        reasons = Counter(dropped.reason for dropped in left)
        quarantined = sum(dropped.quarantined for dropped in left)
        curated.stages.append(Stage(name, len(came), len(curated.items),
                                    dict(sorted(reasons.items())), quarantined))
    return curated


def plan(settings: Settings, against: list[tuple[str, list[Item]]], votes: Votes | None,
         verdicts: dict[str, str], workers: int,
         report: Blend) -> list[tuple[str, Callable[[list[Item]], Result]]]:
    """Returns (name, step) in order."""
    s = settings
    steps = [("anonymise", partial(anonymise_step, workers=workers)),
             ("format", partial(format_step, shortest=s.shortest, workers=workers)),
             ("duplicates", partial(duplicates_step, near=s.near))]
    if against:
        step = partial(decontaminate, against=against, limits=s.limits, workers=workers)
        steps.append(("contamination", step))
    if votes is not None:
        step = partial(labels_step, votes=votes, samples=s.samples, least=s.least)
        steps.append(("labels", step))
    step = partial(tiers_step, verdicts=verdicts, votes=votes or {}, easy=s.easy,
                   difficult=s.difficult)
    steps.append(("tiers", step))
    if s.ratios or s.n is not None:
        steps.append(("blend", partial(mixed, settings=s, report=report)))
    return steps


def decontaminate(items: list[Item], *, against: list[tuple[str, list[Item]]],
                  limits: contamination.Limits, workers: int) -> Result:
    """Anonymises the benchmarks like the items, so that placeholders do not hide a copy."""
    benchmarks = [(name, anonymise_step(group, workers=workers)[0]) for name, group in against]
    return contamination_step(items, Index(benchmarks, limits), workers=workers)


def mixed(items: list[Item], *, settings: Settings, report: Blend) -> Result:
    n = most(items, settings.ratios) if settings.n is None else settings.n
    if n == 0:
        reason = "a class with a share has no items; --n takes what there is"
        raise RunFailed(f"--mix, --languages, --tiers: {reason}")
    return blend_step(items, n, settings.ratios, settings.seed, report)
