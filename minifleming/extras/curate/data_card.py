"""The data card of a curated file: its sources, what each step removed, and what it contains.

    items.jsonl  ->  items.jsonl.card.md

The same input and arguments give the same bytes: no date, path or machine name. The card contains
no text of an item: cards are passed around, and benchmark texts should not be.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence

from minifleming import __version__
from minifleming.extras.curate.sources import Source
from minifleming.extras.curate.step import last_entry
from minifleming.extras.curate.steps import LEFT_OUT, ORDER, Curated
from minifleming.rods.item import TIERS

NOTES = """Research data, not for clinical use. No text was checked by a physician in this process.

Licence: as upstream, file by file; check before you pass anything on. Anonymisation recognises
identifiers by their form: it finds none that looks like ordinary text, and proves nothing."""


def data_card(name: str, curated: Curated, sources: list[Source], against: list[Source],
              arguments: dict[str, str]) -> str:
    """Returns the card as Markdown. ``arguments``: settings as text, by name."""
    parts = [
        f"# {name}\n\n{len(curated.items)} items, curated by minifleming {__version__}.\n\n{NOTES}",
        "## What went in\n\n" + source_table(sources),
        "## Held apart\n\n" + (source_table(against) if against else "No benchmark was given."),
        "## Funnel\n\n" + funnel_table(curated) + facts(curated),
        "## What is in it\n\n" + "\n\n".join(distributions(curated)),
    ]
    if curated.classes:
        rows = [(", ".join(c.values) or "all", c.asked, c.had, c.short) for c in curated.classes]
        parts.append("## Blend\n\n" + table(["class", "asked", "had", "short"], rows))
    parts.append("## Arguments\n\n" + table(["argument", "value"], sorted(arguments.items())))
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)


def cell(value) -> str:
    """Returns a value as text that cannot break the table or become markup."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return text.replace("|", "\\|").replace("`", "'")


def source_table(sources: list[Source]) -> str:
    rows = []
    for s in sources:
        rows.append((s.name, s.file, s.sha256, s.items, counts_by_reason(s.unusable)))
    return table(["set", "file", "sha256", "items", "unusable rows"], rows)


def counts_by_reason(counts: dict[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in sorted(counts.items()))


def funnel_table(curated: Curated) -> str:
    rows = []
    for step in ORDER:
        s = curated.stages.get(step)
        if s:
            dropped = s.came - s.kept - s.quarantined
            reasons = counts_by_reason(s.reasons)
            rows.append((step, s.came, dropped, s.quarantined, s.kept, reasons))
        else:
            rows.append((step, "", "", "", "", f"left out: {LEFT_OUT[step]}"))
    return table(["step", "in", "dropped", "quarantined", "out", "by reason"], rows)


def facts(curated: Curated) -> str:
    """Returns the numbers of replaced identifiers and of unverified labels."""
    replaced = Counter()
    for item in [*curated.items, *(dropped.item for dropped in curated.left)]:
        replaced.update(last_entry(item, "anonymise").get("replaced", {}))
    unverified = sum(not last_entry(item, "labels").get("verified") for item in curated.items)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(replaced.items())) or "none"
    return (f"\n\nIdentifiers replaced: {kinds}. "
            f"Items whose label no model has verified: {unverified}.")


def distributions(curated: Curated) -> list[str]:
    items = curated.items
    columns = {"source": [item.source for item in items],
               "language": [item.language for item in items],
               "tier": [item.tier or "none" for item in items],
               "options": [len(item.options) for item in items],
               "answer": [item.answer for item in items]}
    tables = []
    for name, values in columns.items():
        counts = Counter(values)
        order = [*TIERS, "none"] if name == "tier" else sorted(counts)
        rows = [(k, counts[k], f"{counts[k] / len(items):.1%}") for k in order if counts[k]]
        tables.append(table([name, "items", "share"], rows))
    return tables
