"""[10/10] Hard-sample mining: sort the pool by pass rate (arXiv:2509.15279 §3.3, Fig. 2).

Mining runs the model over the *whole* training pool, n samples per item, and classifies each item
by its pass rate p:

    wrong    p <= failed_below        right    p >= mastered_above        middle   between

Stage 2 composes batches Right : Wrong = 1 : 2. An item without a correct sample in
``quarantine_after`` mining rounds in a row is a label suspect and leaves the pool: its constant
reward gives no gradient. At most half of the wrong items leave at a time, those with the most
failures in a row, because a weak model is no reason to doubt every label.

Each class is drawn in a seeded order that uses every item once before any repeats. Draws depend
only on counts that are part of the saved state, so a resumed run and an audit draw the same items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from minifleming.lm.model import LanguageModel
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.rollout import roll_out
from minifleming.rods.item import TIERS, Item
from minifleming.run import distributed
from minifleming.run.fields import Config, Mining

CLASSES = ("right", "middle", "wrong", "quarantine")
MINING_STEP = 1_000_000_000  # + the round: keys the random numbers of a mining round


def count_passes(model: LanguageModel, tokenizer: Tokenizer, items: list[Item], cfg: Config,
                 number: int) -> Iterator[dict[str, int]]:
    """Yields item id -> correct samples in mining round ``number``, a chunk of items at a time."""
    for start in range(0, len(items), cfg.mining.chunk):
        chunk = [(item, "mining") for item in items[start : start + cfg.mining.chunk]]
        groups = roll_out(model, tokenizer, chunk, cfg.rl, samples=cfg.mining.samples,
                          seed=cfg.run.seed, step=MINING_STEP + number)
        passes = []
        for group in groups:
            passes.append([group[0].item.id, sum(r.correct for r in group)])
        yield dict(distributed.all_gather(passes, model.device))


def classify(rate: float, cfg: Mining) -> str:
    """Returns the class of a pass rate."""
    if rate <= cfg.failed_below:
        return "wrong"
    return "right" if rate >= cfg.mastered_above else "middle"


def mine(passes: dict[str, int], failures: dict[str, int],
         cfg: Mining) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Classifies every item by the number of its correct samples.

    Args:
        passes: item id -> correct ones of its ``cfg.samples`` samples in this round.
        failures: item id -> earlier rounds in a row without a correct sample.

    Returns class -> item ids, in the order of ``passes``, and the new consecutive failures.
    """
    kinds = {}
    streaks = {}
    for name, correct in passes.items():
        kinds[name] = classify(correct / cfg.samples, cfg)
        if correct == 0:
            streaks[name] = failures.get(name, 0) + 1
    wrong = [name for name in kinds if kinds[name] == "wrong"]
    suspects = [name for name in wrong if streaks.get(name, 0) >= cfg.quarantine_after]
    suspects.sort(key=lambda name: -streaks[name])
    for name in suspects[: len(wrong) // 2]:
        kinds[name] = "quarantine"
    pools: dict[str, list[str]] = {kind: [] for kind in CLASSES}
    for name, kind in kinds.items():
        pools[kind].append(name)
    return pools, streaks


def reason(kind: str, correct: int, failures: int, cfg: Mining) -> str:
    """Returns why an item is in its class, for the ledger."""
    rate = f"{correct} of {cfg.samples} correct"
    if kind == "wrong":
        return f"{rate}, at most {cfg.failed_below}"
    if kind == "right":
        return f"{rate}, at least {cfg.mastered_above}"
    if kind == "middle":
        return f"{rate}, between {cfg.failed_below} and {cfg.mastered_above}"
    return f"no correct sample in {failures} rounds: is its label right?"


def apportion_counts(total: int, weights: dict[str, int], sizes: dict[str, int],
                     step: int) -> dict[str, int]:
    """Returns how many of ``total`` draws each pool gives in step ``step`` (from 0).

    The weights hold exactly over time: after s steps the pools up to any one have given the rounded
    share of total · s draws. A pool gives at most its size. What a small pool cannot give comes
    from the pools without a weight (the middle), so that the others keep their ratio; only when
    these are empty does it come from the pools with one, the heaviest first.
    """
    parts = sum(weights.values())

    def given(steps: int, first_parts: int) -> int:
        """Draws of the first ``first_parts`` of all parts, after ``steps`` steps."""
        return (total * steps * first_parts + parts // 2) // parts

    counts = {}
    before = 0
    for name, weight in weights.items():
        after = before + weight
        through = given(step + 1, after) - given(step, after)
        through_previous = given(step + 1, before) - given(step, before)
        counts[name] = min(through - through_previous, sizes.get(name, 0))
        before = after
    for name in sorted(sizes, key=lambda name: -weights.get(name, parts + 1)):
        given_now = counts.get(name, 0)
        missing = total - sum(counts.values())
        counts[name] = given_now + max(min(missing, sizes[name] - given_now), 0)
    return {name: count for name, count in counts.items() if count}


@dataclass
class ShuffledCycle:
    """Draws ids in a seeded order: all of them before any repeats, and never one twice in a draw.

    Each pass over the ids has its own order; ids of lower ``priority`` come first in it. An id that
    a draw would get twice, where two passes meet, is skipped.
    """

    ids: list[str]
    key: list[int]  # of the random order
    position: int = 0  # ids drawn so far
    priority: dict[str, int] = field(default_factory=dict)

    def next(self, count: int) -> list[str]:
        """Returns ``count`` different ids; there must be as many."""
        drawn: list[str] = []
        current = -1
        while len(drawn) < count:
            epoch, place = divmod(self.position, len(self.ids))
            if epoch != current:
                order = self._order(epoch)
                current = epoch
            self.position += 1
            if order[place] not in drawn:
                drawn.append(order[place])
        return drawn

    def _order(self, epoch: int) -> list[str]:
        shuffled = np.random.default_rng([*self.key, epoch]).permutation(len(self.ids))
        ids = [self.ids[i] for i in shuffled]
        return sorted(ids, key=lambda name: self.priority.get(name, 0))


def difficult_first(ids: list[str], items: dict[str, Item],
                    drawn: dict[str, int]) -> dict[str, int]:
    """Returns the priority of each wrong item, lowest first.

    Least-trained items come first, so every failed item is eventually trained on; among these
    Difficult before Moderate before Easy, and items without a tier last. ``drawn``: times an item
    was trained on.
    """
    hardness = {"difficult": 0, "moderate": 1, "easy": 2}
    priority = {}
    for name in ids:
        tier = hardness.get(items[name].tier, len(TIERS))
        priority[name] = drawn.get(name, 0) * (len(TIERS) + 1) + tier
    return priority
