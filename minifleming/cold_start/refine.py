"""From items to one verified trace each, or to none: selection, then refinement of the hard cases (§3.2).

    blind         k samples of each item; of the verified ones the shortest above a length floor is kept
    conditioned   only where none is: the right option is told
    backtrack, explore, self-correct     only where that fails too, at most ``rounds`` of them, in this order

An item is *hard* if the unbiased pass@k of its blind samples is not above ``hard``; with the default 0 these are the
items with no verified sample. Every proposal is recorded with its checks, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minifleming.cold_start.prompts import ROUNDS
from minifleming.cold_start.teacher import Teacher
from minifleming.cold_start.trace import Trace
from minifleming.rods.answer import pass_at_k
from minifleming.rods.item import Item

Check = Callable[[Sequence[Item], Sequence[Trace]], None]  # fills ``checks`` of each trace


@dataclass
class Told:
    """What became of an item: all that was proposed, in order, and which one was kept."""

    item: Item
    proposals: list[Trace] = field(default_factory=list)
    kept: Trace | None = None
    hard: bool = False

    def attempts(self) -> dict[str, list[int]]:
        """strategy -> [proposed, verified]"""
        count: dict[str, list[int]] = {}
        for trace in self.proposals:
            pair = count.setdefault(trace.strategy, [0, 0])
            pair[0] += 1
            pair[1] += trace.verified
        return count


def collect(items: Sequence[Item], teacher: Teacher, check: Check, *, samples: int = 8, pass_k: int = 1,
            hard: float = 0.0, floor: float = 0.25, rounds: int = len(ROUNDS)) -> list[Told]:
    """One ``Told`` an item, in their order. Raises ValueError unless 1 <= pass_k <= samples."""
    found = [Told(item) for item in items]
    for told, traces in zip(found, propose(found, teacher, check, "blind", samples)):
        told.hard = pass_at_k(samples, sum(trace.verified for trace in traces), pass_k) <= hard
        told.kept = choose(traces, floor)
    unsettled = [told for told in found if told.hard]
    for strategy in ("conditioned", *ROUNDS[:rounds]):
        for told, (trace,) in zip(unsettled, propose(unsettled, teacher, check, strategy, 1)):
            told.kept = trace if trace.verified else told.kept
        unsettled = [told for told in unsettled if not told.proposals[-1].verified]
    for told in found:
        if told.kept:
            told.kept.attempts = told.attempts()
    return found


def propose(found: list[Told], teacher: Teacher, check: Check, strategy: str, samples: int) -> list[list[Trace]]:
    """Ask, check and record."""
    if not found:
        return []
    earlier = [told.proposals[-1] for told in found] if strategy in ROUNDS else []
    proposed = teacher.propose([told.item for told in found], strategy, samples, earlier)
    check([told.item for told, traces in zip(found, proposed) for _ in traces],
          [trace for traces in proposed for trace in traces])
    for told, traces in zip(found, proposed):
        told.proposals += traces
    return proposed


def choose(traces: Sequence[Trace], floor: float) -> Trace | None:
    """The shortest verified trace among those not below the ``floor`` quantile of their lengths, the first of equals.

    Brevity is a signal of §1; the floor keeps out what was cut to nothing. Lengths are in characters.
    """
    right = [trace for trace in traces if trace.verified]
    if not right:
        return None
    least = np.quantile([len(trace.reasoning) for trace in right], floor)
    return min((trace for trace in right if len(trace.reasoning) >= least), key=lambda trace: len(trace.reasoning))
