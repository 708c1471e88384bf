"""The data card of a curated file: its sources, what each step removed, and what it contains.

    items.jsonl  ->  items.jsonl.card.md

The same input and arguments give the same bytes: no date, path or machine name. The card contains
texts of items only with --examples: cards are passed around, and benchmark texts should not be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from minifleming import __version__
from minifleming.extras.curate.sources import Source
from minifleming.extras.curate.steps import LEFT_OUT, ORDER, Curated
from minifleming.extras.curate.text import cut
from minifleming.extras.curate.tiers import agreement
from minifleming.rods.item import LABELS, TIERS, Item

NOTES = """Research data, not for clinical use. No text was checked by a physician in this process.

Licence: as upstream, file by file; check before you pass anything on. Anonymisation recognises
identifiers by their form: it finds none that looks like ordinary text, and proves nothing."""
NO_BENCHMARK = "No benchmark was given: contamination was not checked."


def data_card(name: str, curated: Curated, sources: list[Source], against: list[Source],
              arguments: dict[str, str], examples: int = 0) -> str:
    """Returns the card as Markdown. ``arguments``: settings as text, by name."""
    parts = [
        f"# {name}\n\n{len(curated.items)} items, curated by minifleming {__version__}.\n\n{NOTES}",
        "## What went in\n\n" + source_table(sources) + unusable_table(sources),
        "## Held apart\n\n" + (source_table(against) if against else NO_BENCHMARK),
        "## Funnel\n\n" + funnel_table(curated),
        "## What is in it\n\n" + "\n\n".join([*distributions(curated), *uneven(curated.items)]),
        "## Agreement of the tiers\n\n" + agreement_table(curated),
        *([f"## Blend\n\n{blend_table(curated)}"] if curated.blend.classes else []),
        *([f"## Examples\n\n{example_table(curated, examples)}"] if examples else []),
        "## Arguments\n\n" + table(["argument", "value"], sorted(arguments.items())),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(value) -> str:
    """Returns a value as text that cannot break the table or become markup."""
    text = " ".join(str(value).split())
    for sign, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "'")):
        text = text.replace(sign, harmless)
    return text


def source_table(sources: list[Source]) -> str:
    return table(["set", "file", "sha256", "rows", "items", "unusable"],
                 [(s.name, s.file, s.sha256, s.rows, s.items, s.rows - s.items) for s in sources])


def unusable_table(sources: list[Source]) -> str:
    rows = []
    for s in sources:
        rows += [(s.name, s.file, reason, count) for reason, count in s.unusable.items()]
    return "\n\n" + table(["set", "file", "unusable because", "rows"], rows) if rows else ""


def funnel_table(curated: Curated) -> str:
    stages = {stage.step: stage for stage in curated.stages}
    rows = []
    for step in ORDER:
        if step not in stages:
            rows.append((step, "", "", "", "", f"left out: {LEFT_OUT[step]}"))
            continue
        s = stages[step]
        reasons = "; ".join(f"{reason}: {count}" for reason, count in s.reasons.items())
        rows.append((step, s.came, s.dropped, s.quarantined, s.kept, reasons))
    head = ["step", "in", "dropped", "quarantined", "out", "by reason"]
    return table(head, rows) + facts(curated)


def facts(curated: Curated) -> str:
    """Returns the numbers of replaced identifiers and of unverified labels."""
    replaced = Counter()
    unverified = 0
    for item in [*curated.items, *(dropped.item for dropped in curated.left)]:
        entries = {entry["step"]: entry for entry in item.provenance["lineage"] if "step" in entry}
        replaced.update(entries.get("anonymise", {}).get("replaced", {}))
    for item in curated.items:
        entries = [entry for entry in item.provenance["lineage"] if entry.get("step") == "labels"]
        unverified += not (entries and entries[-1].get("verified"))
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(replaced.items())) or "none"
    unverified = f"Items whose label no model has verified: {unverified}."
    return f"\n\nIdentifiers replaced: {kinds}. {unverified}"


def distributions(curated: Curated) -> list[str]:
    items = curated.items
    columns = {"source": sorted(Counter(i.source for i in items).items()),
               "language": sorted(Counter(i.language for i in items).items()),
               "tier": in_order(Counter(i.tier or "none" for i in items), [*TIERS, "none"]),
               "options": sorted(Counter(len(i.options) for i in items).items()),
               "answer": in_order(Counter(i.answer for i in items), LABELS)}
    return [table([name, "items", "share"], [(k, n, f"{n / len(items):.1%}") for k, n in rows])
            for name, rows in columns.items()]


def in_order(counts: Counter, order: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, counts[name]) for name in order if counts[name]]


def uneven(items: list[Item]) -> list[str]:
    """Returns a warning if the positions of answers are uneven (chi-square test, p < 0.001).

    Items with different numbers of options are tested separately. A model can score above chance by
    choosing a position that is too often correct.
    """
    groups: dict[int, Counter] = {}
    for item in items:
        groups.setdefault(len(item.options), Counter())[list(item.options).index(item.answer)] += 1
    lines = []
    for size, counts in sorted(groups.items()):
        even = counts.total() / size
        value = sum((counts[place] - even) ** 2 / even for place in range(size))
        if even >= 5 and chi_square_tail(value, size - 1) < 0.001:
            shares = [counts[place] / counts.total() for place in range(size)]
            most, least = max(shares), min(shares)
            lines.append(f"The answers of items with {size} options are far from even: "
                         f"{LABELS[shares.index(most)]} {most:.1%}, "
                         f"{LABELS[shares.index(least)]} {least:.1%}, "
                         f"even is {1 / size:.1%} (chi-square {value:.1f}, p < 0.001).")
    return ["\n".join(lines)] if lines else []


def chi_square_tail(value: float, degrees: int) -> float:
    """P(X > value) of the chi-square distribution (Abramowitz and Stegun 26.4.4 and 26.4.5)."""
    half = value / 2
    tail = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    terms = []
    for k in range(1 if degrees % 2 else 2, degrees, 2):
        if half:
            terms.append(math.exp(k / 2 * math.log(half) - half - math.lgamma(k / 2 + 1)))
    return tail + sum(terms)


def agreement_table(curated: Curated) -> str:
    rows = [(a, b, n, "-" if k is None else f"{k:.3f}") for a, b, n, k in agreement(curated.items)]
    return table(["source", "source", "items with both", "Cohen's kappa"], rows)


def blend_table(curated: Curated) -> str:
    rows = []
    for c in curated.blend.classes:
        given = min(c.asked, c.had)
        rows.append((", ".join(c.values) or "all", c.asked, c.had, given, c.asked - given))
    return table(["class", "asked", "had", "given", "short"], rows)


def example_table(curated: Curated, examples: int) -> str:
    """Returns the first few dropped items of every step and reason."""
    seen = Counter()
    rows = []
    for d in curated.left:
        seen[d.step, d.reason] += 1
        if seen[d.step, d.reason] <= examples:
            rows.append((d.step, d.reason, d.item.id, cut(d.item.question)))
    return table(["step", "reason", "id", "question"], rows)
