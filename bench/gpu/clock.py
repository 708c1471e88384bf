"""Seconds of a call, by the device's clock where there is one.

Times on a GPU are of CUDA events around calls that follow each other, medians of several rounds after a warm-up; of
kernels of a few microseconds, of a captured graph's replays. Callers hand in several calls, whose inputs rotate, where
one call's would stay in the L2 cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def span(run: Callable[[], object]) -> float:
    """Seconds of one call, by the device's clock where there is one."""
    if not torch.cuda.is_available():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def seconds(runs: list[Callable[[], object]], budget: float = 0.4) -> float:
    """Of one call: the median over rounds of all ``runs``, one behind the other."""
    def everything() -> None:
        for run in runs:
            run()

    everything()  # compiles, allocates
    rounds = min(max(int(budget / max(span(everything), 1e-6)), 3), 50)
    return statistics.median(span(everything) for _ in range(rounds)) / len(runs)


def replayed(runs: list[Callable[[], object]], copies: int = 10) -> float:
    """The same of calls that the host cannot start as fast as the device runs them: captured as one graph."""
    if not torch.cuda.is_available():
        return seconds(runs)
    for run in runs:
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(copies):
            for run in runs:
                run()
    return seconds([graph.replay]) / (copies * len(runs))
