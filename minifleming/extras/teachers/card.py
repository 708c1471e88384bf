"""The trace table of the data card: how much each strategy of each teacher gave, and on which tier.

    | teacher | strategy | items | proposed | verified | kept | easy | moderate | difficult |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minifleming import __version__
from minifleming.cold_start.refine import TeacherResult
from minifleming.rods.item import TIERS

NOTE = "Research data, not for clinical use. No text was checked by a physician in this process."


def card(name: str, told: Sequence[TeacherResult], arguments: dict[str, str]) -> str:
    kept = sum(one.kept is not None for one in told)
    return "\n\n".join([
        f"# {name}", f"{kept} traces of {len(told)} items, by minifleming {__version__}.", NOTE,
        "## Yield by strategy\n\n" + yield_table(told), "## Yield by tier\n\n" + tier_table(told),
        "## What the proposals failed\n\n" + failure_table(told),
        "## Arguments\n\n" + table(["argument", "value"], sorted(arguments.items())),
    ]) + "\n"


def yield_table(told: Sequence[TeacherResult]) -> str:
    """Items asked, proposals, verified proposals, traces kept (by tier) of each teacher's strategy, in order."""
    asked, proposed, verified, kept = Counter(), Counter(), Counter(), Counter()
    for one in told:
        asked.update({(t.teacher, t.strategy) for t in one.proposals})
        proposed.update((t.teacher, t.strategy) for t in one.proposals)
        verified.update((t.teacher, t.strategy) for t in one.proposals if t.verified)
        if one.kept:
            kept[one.kept.teacher, one.kept.strategy, one.item.tier] += 1
    tiers = tiers_of(told)
    rows = [(*key, asked[key], proposed[key], verified[key], sum(kept[*key, tier] for tier in tiers),
             *(kept[*key, tier] for tier in tiers)) for key in proposed]
    return table(["teacher", "strategy", "items", "proposed", "verified", "kept", *map(str, tiers)], rows)


def tier_table(told: Sequence[TeacherResult]) -> str:
    rows = []
    for tier in tiers_of(told):
        ours = [one for one in told if one.item.tier == tier]
        kept, hard = sum(one.kept is not None for one in ours), sum(one.hard for one in ours)
        rows.append((tier, len(ours), hard, kept, f"{100 * kept / len(ours):.1f}"))
    return table(["tier", "items", "hard", "kept", "kept, %"], rows)


def failure_table(told: Sequence[TeacherResult]) -> str:
    """How many proposals failed each check, where it applied; one proposal may fail several."""
    applied, failed = Counter(), Counter()
    for trace in (trace for one in told for trace in one.proposals):
        applied.update(list(trace.checks))
        failed.update(name for name, passed in trace.checks.items() if not passed)
    return table(["check", "applied", "failed"], [(name, applied[name], failed[name]) for name in applied])


def tiers_of(told: Sequence[TeacherResult]) -> list[str]:
    present = {one.item.tier for one in told}
    return [tier for tier in TIERS if tier in present] + sorted(present - set(TIERS))


def table(head: Sequence, rows: Sequence[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in line) + " |"
                     for line in lines)
