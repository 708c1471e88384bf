"""The result of a curation step: the items kept, and those dropped, each with a reason.

    kept, left = format_step(items)
    left[0]  ->  Dropped(item, step="format", reason="duplicate options", evidence={...})

Every step is a pure function that returns each input item either as kept or as dropped.
``item.provenance["lineage"]`` records what the steps did to an item: one dict per step, in order.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from minifleming.rods.item import Item

CHUNK = 64  # items sent to a worker at a time


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


def divide(outcomes: Iterable[Item | Dropped]) -> Result:
    """Splits outcomes into items kept and items dropped, each in order."""
    kept, left = [], []
    for outcome in outcomes:
        (left if isinstance(outcome, Dropped) else kept).append(outcome)
    return kept, left


def each(judge: Callable[[Item], Item | Dropped], items: list[Item],
         workers: int = 1) -> list[Item | Dropped]:
    """Returns ``judge(item)`` for every item, in order; the result does not depend on ``workers``.

    With fork the workers share the data of ``judge`` (an index of benchmarks) without a copy.
    """
    if workers <= 1 or len(items) <= CHUNK:
        return [judge(item) for item in items]
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in methods else "spawn")
    global _JUDGE
    _JUDGE = judge
    try:
        initialise = partial(_hold, None if "fork" in methods else judge)
        with context.Pool(workers, initializer=initialise) as pool:
            outcomes = list(pool.imap(_call, items, chunksize=CHUNK))
            pool.close()
            pool.join()  # before the block ends and terminates the workers
        return outcomes
    finally:
        _JUDGE = None


_JUDGE: Callable[[Item], Item | Dropped] | None = None


def _hold(judge) -> None:
    """Initialises a worker, which leaves signals to the parent process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    global _JUDGE
    _JUDGE = judge or _JUDGE


def _call(item: Item) -> Item | Dropped:
    return _JUDGE(item)
