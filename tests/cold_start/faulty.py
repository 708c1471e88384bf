"""A teacher that is wrong on purpose, for tests of selection and refinement."""

from __future__ import annotations

from minifleming.cold_start.oracle import Oracle, seeded_rng
from minifleming.cold_start.trace import Trace


class FaultyOracle(Oracle):
    """An oracle that spoils a share of its traces: half the answers, half the reasonings."""

    def __init__(self, *args, error_rate: float, **settings):
        super().__init__(*args, **settings)
        self.error_rate = error_rate

    def make_trace(self, item, strategy: str, sample: int) -> Trace:
        trace = super().make_trace(item, strategy, sample)
        rng = seeded_rng(self.seed, "fault", item.id, strategy, str(sample))
        if not trace.answer or rng.random() >= self.error_rate:
            return trace
        wrong = next(label for label in item.options if label != item.answer)
        if rng.random() < 0.5:
            trace.answer = wrong
        else:
            trace.reasoning = trace.reasoning.replace(item.options[item.answer], item.options[wrong])
        return trace
