"""The result of a curation step: the items kept, and those dropped, each with a reason.

    kept, left = format_step(items)
    left[0]  ->  Dropped(item, step="format", reason="duplicate options", evidence={...})

Every step is a pure function that returns each input item either as kept or as dropped.
``item.provenance["lineage"]`` records what the steps did to an item: one dict per step, in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from minifleming.rods.item import Item


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that was dropped, or quarantined until a person decides."""

    item: Item
    step: str
    reason: str
    evidence: dict = field(default_factory=dict)
    quarantined: bool = False


Result = tuple[list[Item], list[Dropped]]


def noted(item: Item, step: str, **facts) -> Item:
    """Returns a copy of the item with one more entry in its lineage."""
    lineage = [*item.provenance.get("lineage", []), {"step": step, **facts}]
    return dataclasses.replace(item, provenance={**item.provenance, "lineage": lineage})


def last_entry(item: Item, step: str) -> dict:
    """Returns the last entry of a step in the item's lineage; empty if there is none."""
    for entry in reversed(item.provenance.get("lineage", [])):
        if entry.get("step") == step:
            return entry
    return {}


def drop(item: Item, step: str, reason: str, evidence: dict | None = None,
         quarantined: bool = False) -> Dropped:
    """Returns the item as dropped, with the reason in its lineage."""
    return Dropped(noted(item, step, reason=reason), step, reason, evidence or {}, quarantined)


def divide(outcomes: Iterable[Item | Dropped]) -> Result:
    """Splits outcomes into items kept and items dropped, each in order."""
    kept, left = [], []
    for outcome in outcomes:
        (left if isinstance(outcome, Dropped) else kept).append(outcome)
    return kept, left
