"""From items to at most one verified trace each: selection, then refinement of hard cases (§3.2).

    blind           k samples per item; the shortest verified one above a length floor is kept
    conditioned     items without one: the teacher is given the right option
    backtrack, explore, self-correct     items that still have none; at most ``rounds`` of them

An item is *hard* if the unbiased pass@k of its blind samples is at most ``hard_at_most``; with the
default 0 these are the items without a verified sample. All proposals are recorded with their
checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minifleming.cold_start.checks import Checks
from minifleming.cold_start.oracle import Oracle, has_path
from minifleming.cold_start.trace import ROUNDS, Teacher, Trace
from minifleming.rods.answer import pass_at_k
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.fields import ColdStart

# sets ``checks`` of the traces, all of one teacher; see checks.Checks
Check = Callable[[Sequence[Item], Sequence[Trace], Teacher], None]


@dataclass
class TeacherResult:
    """All traces proposed for an item, in order, and the one that was kept."""

    item: Item
    proposals: list[Trace] = field(default_factory=list)
    kept: Trace | None = None
    hard: bool = False  # for the first teacher

    def attempts(self) -> dict[str, list[int]]:
        """Returns "teacher strategy" -> [proposed, verified]."""
        counts: dict[str, list[int]] = {}
        for trace in self.proposals:
            pair = counts.setdefault(f"{trace.teacher} {trace.strategy}", [0, 0])
            pair[0] += 1
            pair[1] += trace.verified
        return counts


def collect_traces(items: Sequence[Item], teachers: Sequence[Teacher], check: Check, *,
                   samples: int = 8, pass_k: int = 1, hard_at_most: float = 0.0,
                   min_length_quantile: float = 0.25,
                   rounds: int = len(ROUNDS)) -> list[TeacherResult]:
    """Returns one result per item, in order. A later teacher gets the items still without a trace.

    Raises ValueError unless 1 <= pass_k <= samples.
    """
    results = [TeacherResult(item) for item in items]
    for teacher in teachers:
        remaining = [result for result in results if result.kept is None]
        proposals = propose(remaining, teacher, check, "blind", samples)
        hard = []
        for result, traces in zip(remaining, proposals):
            result.kept = select(traces, min_length_quantile)
            num_verified = sum(trace.verified for trace in traces)
            if pass_at_k(samples, num_verified, pass_k) <= hard_at_most:
                hard.append(result)
                result.hard |= teacher is teachers[0]
        refine(hard, teacher, check, rounds)
    for result in results:
        if result.kept:
            result.kept.attempts = result.attempts()
    return results


def refine(hard: list[TeacherResult], teacher: Teacher, check: Check, rounds: int) -> None:
    """Requests a conditioned trace, then the rounds, each shown the failure before it."""
    for strategy in ("conditioned", *ROUNDS[:rounds]):
        failed = []
        for result, traces in zip(hard, propose(hard, teacher, check, strategy, 1)):
            if traces[0].verified:
                result.kept = traces[0]
            else:
                failed.append(result)
        hard = failed


def propose(results: list[TeacherResult], teacher: Teacher, check: Check, strategy: str,
            samples: int) -> list[list[Trace]]:
    """Returns ``samples`` checked traces for each item and appends them to its proposals."""
    if not results:
        return []
    items = [result.item for result in results]
    earlier = []
    if strategy in ROUNDS:
        earlier = [result.proposals[-1] for result in results]
    proposals = teacher.propose(items, strategy, samples, earlier)
    item_of_trace = []
    all_traces = []
    for result, traces in zip(results, proposals):
        item_of_trace += [result.item] * len(traces)
        all_traces += traces
        result.proposals += traces
    check(item_of_trace, all_traces, teacher)
    return proposals


def select(traces: Sequence[Trace], min_length_quantile: float) -> Trace | None:
    """Returns the shortest verified trace that is not below a quantile of the verified lengths.

    Brevity is a quality signal of §1; the quantile excludes traces cut to nothing. Lengths are in
    characters. The quantile is the length of one of the traces, the lower one if it falls between
    two, so a quartile of up to four traces excludes none. Of equal lengths the first is kept.
    """
    verified = [trace for trace in traces if trace.verified]
    if not verified:
        return None
    verified.sort(key=lambda trace: len(trace.reasoning))  # stable
    lengths = [len(trace.reasoning) for trace in verified]
    floor = np.quantile(lengths, min_length_quantile, method="lower")
    return verified[lengths.index(floor)]


def collect_oracle_traces(items: list[Item], graph: Graph, cfg: ColdStart,
                          seed: int) -> list[Trace]:
    """Returns verified traces of the graph oracle for the items of a fraction of the diseases."""
    chosen = []
    for item in items:
        if has_path(item, graph) and is_covered(item.provenance["root"], cfg.disease_fraction):
            chosen.append(item)
    if not chosen:
        raise BadInput("cold_start.disease_fraction: no training item is covered")
    oracle = Oracle(graph, cfg.detour_fraction, seed=seed)
    results = collect_traces(chosen[: cfg.traces], [oracle], Checks(graph), samples=1)
    traces = [result.kept for result in results if result.kept]
    if not traces:
        raise RunFailed(f"none of {len(results)} traces passed its checks")
    return traces


def is_covered(disease: str, fraction: float) -> bool:
    """Returns whether the cold start sees this disease: a property of its name."""
    return hashlib.sha256(disease.encode()).digest()[1] < 256 * fraction
