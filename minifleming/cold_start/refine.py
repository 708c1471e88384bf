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

from minifleming.cold_start.protocol import Teacher
from minifleming.cold_start.trace import Trace
from minifleming.extras.teachers.prompts import ROUNDS
from minifleming.rods.answer import pass_at_k
from minifleming.rods.item import Item

Check = Callable[[Sequence[Item], Sequence[Trace], Teacher], None]  # fills ``checks`` of each of a teacher's traces


@dataclass
class Told:
    """What became of an item: all that was proposed, in order, and which one was kept."""

    item: Item
    proposals: list[Trace] = field(default_factory=list)
    kept: Trace | None = None
    hard: bool = False  # for the first teacher

    def attempts(self) -> dict[str, list[int]]:
        """"teacher strategy" -> [proposed, verified]"""
        count: dict[str, list[int]] = {}
        for trace in self.proposals:
            pair = count.setdefault(f"{trace.teacher} {trace.strategy}", [0, 0])
            pair[0] += 1
            pair[1] += trace.verified
        return count


def collect(items: Sequence[Item], teachers: Sequence[Teacher], check: Check, *, samples: int = 8, pass_k: int = 1,
            hard: float = 0.0, floor: float = 0.25, rounds: int = len(ROUNDS)) -> list[Told]:
    """One ``Told`` an item, in their order. A later teacher is asked where the earlier ones gave nothing.

    Raises ValueError unless 1 <= pass_k <= samples.
    """
    found = [Told(item) for item in items]
    for teacher in teachers:
        still = [told for told in found if told.kept is None]
        unsolved = []
        for told, traces in zip(still, propose(still, teacher, check, "blind", samples)):
            told.kept = choose(traces, floor)
            if pass_at_k(samples, sum(trace.verified for trace in traces), pass_k) <= hard:
                unsolved.append(told)
        refine(unsolved, teacher, check, rounds)
        for told in unsolved if teacher is teachers[0] else []:
            told.hard = True
    for told in found:
        if told.kept:
            told.kept.attempts = told.attempts()
    return found


def refine(hard: list[Told], teacher: Teacher, check: Check, rounds: int) -> None:
    """The right option is told; where that gives no verified trace, the rounds follow, each on the last failure."""
    for strategy in ("conditioned", *ROUNDS[:rounds]):
        for told, (trace,) in zip(hard, propose(hard, teacher, check, strategy, 1)):
            told.kept = trace if trace.verified else told.kept
        hard = [told for told in hard if not told.proposals[-1].verified]


def propose(found: list[Told], teacher: Teacher, check: Check, strategy: str, samples: int) -> list[list[Trace]]:
    """Ask, check and record."""
    if not found:
        return []
    earlier = [told.proposals[-1] for told in found] if strategy in ROUNDS else []
    proposed = teacher.propose([told.item for told in found], strategy, samples, earlier)
    check([told.item for told, traces in zip(found, proposed) for _ in traces],
          [trace for traces in proposed for trace in traces], teacher)
    for told, traces in zip(found, proposed):
        told.proposals += traces
    return proposed


def choose(traces: Sequence[Trace], floor: float) -> Trace | None:
    """The shortest verified trace among those not below the ``floor`` quantile of their lengths, the first of equals.

    Brevity is a signal of §1; the floor keeps out what was cut to nothing. Lengths are in characters. The quantile is
    the length of one of them, the lower where it falls between two: of two or three the first quarter drops none.
    """
    right = [trace for trace in traces if trace.verified]
    if not right:
        return None
    least = np.quantile([len(trace.reasoning) for trace in right], floor, method="lower")
    return min((trace for trace in right if len(trace.reasoning) >= least), key=lambda trace: len(trace.reasoning))
