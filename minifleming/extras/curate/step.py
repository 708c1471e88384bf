"""What a step of the curation gives back: the items that stay, and what left with its reason.

    kept, left = format_step(items)
    left[0]  ->  Dropped(item, step="format", reason="duplicate options", evidence={"labels": ["A", "C"]})

Every step is a pure function: its input is never changed, and each input item is either kept or among what left.
What a step did to an item stands in ``item.provenance["lineage"]``, one small dict a step, in the order of the steps.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from minifleming.rods.item import Item

CHUNK = 64  # items handed to a worker at a time: enough to hide the cost of sending, few enough to share evenly


@dataclass(frozen=True, slots=True)
class Dropped:
    """An item that left, or waits in quarantine for a person to decide."""

    item: Item
    step: str
    reason: str
    evidence: dict = field(default_factory=dict)
    quarantined: bool = False


Result = tuple[list[Item], list[Dropped]]


def noted(item: Item, step: str, **facts) -> Item:
    """A copy of the item with one more entry in its lineage."""
    lineage = [*item.provenance.get("lineage", []), {"step": step, **facts}]
    return dataclasses.replace(item, provenance={**item.provenance, "lineage": lineage})


def divide(outcomes: Iterable[Item | Dropped]) -> Result:
    """One outcome an item, into what stays and what left, each in order."""
    kept, left = [], []
    for outcome in outcomes:
        (left if isinstance(outcome, Dropped) else kept).append(outcome)
    return kept, left


def each(judge: Callable[[Item], Item | Dropped], items: list[Item], workers: int = 1) -> list[Item | Dropped]:
    """``judge`` on every item, in order, whatever the number of workers.

    Where the system can fork, the workers share what ``judge`` holds (an index of the benchmarks) without a copy.
    """
    if workers <= 1 or len(items) <= CHUNK:
        return [judge(item) for item in items]
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    global _JUDGE
    _JUDGE = judge
    try:
        with context.Pool(workers, initializer=partial(_hold, None if "fork" in methods else judge)) as pool:
            outcomes = list(pool.imap(_call, items, chunksize=CHUNK))
            pool.close()
            pool.join()  # leaving the block ends the workers with SIGTERM, which those still alive would report
        return outcomes
    finally:
        _JUDGE = None


_JUDGE: Callable[[Item], Item | Dropped] | None = None


def _hold(judge) -> None:
    """In a worker: signals are for the parent to handle, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    global _JUDGE
    _JUDGE = judge or _JUDGE


def _call(item: Item) -> Item | Dropped:
    return _JUDGE(item)
