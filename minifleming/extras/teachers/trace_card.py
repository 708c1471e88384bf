"""The card of a trace file: yield by strategy and by tier, and the checks that proposals failed.

    | teacher | strategy | items | proposed | verified | kept | easy | moderate | difficult |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from minifleming import __version__
from minifleming.cold_start.refine import TeacherResult
from minifleming.extras.curate.data_card import table
from minifleming.rods.item import TIERS

NOTE = "Research data, not for clinical use. No text was checked by a physician in this process."


def trace_card(name: str, results: Sequence[TeacherResult], arguments: dict[str, str]) -> str:
    kept = sum(result.kept is not None for result in results)
    origin = f"{kept} traces of {len(results)} items, by minifleming {__version__}."
    sections = [f"# {name}", origin, NOTE,
                "## Yield by strategy", yield_table(results),
                "## Failed checks", failure_table(results),
                "## Arguments", table(["argument", "value"], sorted(arguments.items()))]
    return "\n\n".join(sections) + "\n"


def yield_table(results: Sequence[TeacherResult]) -> str:
    """Returns items, proposals, verified ones and kept traces (by tier) of each strategy."""
    counts: dict[str, Counter] = {}
    for result in results:
        for name, (proposed, verified) in result.attempts().items():
            row = counts.setdefault(name, Counter())
            row.update(items=1, proposed=proposed, verified=verified)
        if result.kept:
            row = counts[f"{result.kept.teacher} {result.kept.strategy}"]
            row.update(["kept", result.item.tier])
    columns = ["items", "proposed", "verified", "kept", *TIERS]
    rows = []
    for name, row in counts.items():
        rows.append((*name.rsplit(" ", 1), *(row[column] for column in columns)))
    return table(["teacher", "strategy", *columns], rows)


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
