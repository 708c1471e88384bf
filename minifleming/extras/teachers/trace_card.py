"""The card of a trace file: yield by strategy and by tier, and the checks that proposals failed.

    | teacher | strategy | items | proposed | verified | kept | easy | moderate | difficult |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minifleming import __version__
from minifleming.cold_start.refine import TeacherResult
from minifleming.rods.item import TIERS

NOTE = "Research data, not for clinical use. No text was checked by a physician in this process."


def trace_card(name: str, results: Sequence[TeacherResult], arguments: dict[str, str]) -> str:
    kept = sum(result.kept is not None for result in results)
    origin = f"{kept} traces of {len(results)} items, by minifleming {__version__}."
    sections = [f"# {name}", origin, NOTE,
                "## Yield by strategy", yield_table(results),
                "## Yield by tier", tier_table(results),
                "## Failed checks", failure_table(results),
                "## Arguments", table(["argument", "value"], sorted(arguments.items()))]
    return "\n\n".join(sections) + "\n"


def yield_table(results: Sequence[TeacherResult]) -> str:
    """Returns items, proposals, verified ones and kept traces (by tier) of each strategy."""
    items, proposed, verified, kept = Counter(), Counter(), Counter(), Counter()
    for result in results:
        for trace in result.proposals:
            key = (trace.teacher, trace.strategy)
            proposed[key] += 1
            verified[key] += trace.verified
        items.update({(trace.teacher, trace.strategy) for trace in result.proposals})
        if result.kept:
            kept[result.kept.teacher, result.kept.strategy, result.item.tier] += 1
    tiers = tiers_of(results)
    rows = []
    for key in proposed:
        by_tier = [kept[*key, tier] for tier in tiers]
        rows.append((*key, items[key], proposed[key], verified[key], sum(by_tier), *by_tier))
    head = ["teacher", "strategy", "items", "proposed", "verified", "kept", *tiers]
    return table(head, rows)


def tier_table(results: Sequence[TeacherResult]) -> str:
    rows = []
    for tier in tiers_of(results):
        of_tier = [result for result in results if result.item.tier == tier]
        kept = sum(result.kept is not None for result in of_tier)
        hard = sum(result.hard for result in of_tier)
        rows.append((tier, len(of_tier), hard, kept, f"{100 * kept / len(of_tier):.1f}"))
    return table(["tier", "items", "hard", "kept", "kept, %"], rows)


def failure_table(results: Sequence[TeacherResult]) -> str:
    """Returns how many proposals failed each check that applied; one may fail several."""
    applied, failed = Counter(), Counter()
    for result in results:
        for trace in result.proposals:
            for name, passed in trace.checks.items():
                applied[name] += 1
                failed[name] += not passed
    rows = [(name, count, failed[name]) for name, count in applied.items()]
    return table(["check", "applied", "failed"], rows)


def tiers_of(results: Sequence[TeacherResult]) -> list[str]:
    present = {result.item.tier for result in results}
    return [tier for tier in TIERS if tier in present] + sorted(present - set(TIERS))


def table(head: Sequence, rows: Sequence[Sequence]) -> str:
    lines = []
    for row in (head, ["---"] * len(head), *rows):
        cells = [" ".join(str(cell).split()).replace("|", "\\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
