"""Which items a step trains on: tiers in stage 1, mined classes in stage 2 (arXiv:2509.15279 §3.3, Fig. 2).

Mining runs the model over the *whole* training pool, n samples an item, and sorts the items by pass rate:

    wrong    p <= failed_below        right    p >= mastered_above        middle   between

Stage 2 composes batches Right : Wrong = 1 : 2. An item with no right sample in ``quarantine_after`` mining rounds
in a row is a label suspect and leaves the pool: with a constant reward it could teach nothing. At most half of the
wrong items leave at a time, those with the longest streaks: a weak model is no reason to doubt every label.

Every draw is a function of counts: a deck deals the items of a class in seeded order, each once before any comes
again (a card that would stand twice in one hand, where two orders meet, is passed over). The whole state is JSON, so
a resumed run deals the same cards, and an audit deals them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from minifleming.rods.item import TIERS, Item
from minifleming.run.fields import Mining

CLASSES = ("right", "middle", "wrong", "quarantine")


def classify(rate: float, cfg: Mining) -> str:
    return "wrong" if rate <= cfg.failed_below else "right" if rate >= cfg.mastered_above else "middle"


def mine(passes: dict[str, int], streaks: dict[str, int], cfg: Mining) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Sort the items by the right ones among their ``cfg.samples`` samples.

    Args:
        passes: item id -> right samples of this round.
        streaks: item id -> rounds in a row, before this one, without a right sample.
    Returns:
        class -> item ids, in the order of ``passes``; and the new streaks.
    """
    streaks = {name: streaks.get(name, 0) + 1 for name, right in passes.items() if right == 0}
    kinds = {name: classify(right / cfg.samples, cfg) for name, right in passes.items()}
    wrong = [name for name, kind in kinds.items() if kind == "wrong"]
    suspects = [name for name in wrong if streaks.get(name, 0) >= cfg.quarantine_after]
    for name in sorted(suspects, key=lambda name: -streaks[name])[: len(wrong) // 2]:
        kinds[name] = "quarantine"
    return {kind: [name for name in kinds if kinds[name] == kind] for kind in CLASSES}, streaks


def reason(kind: str, right: int, streak: int, cfg: Mining) -> str:
    """Why an item is in a class, as the ledger says it."""
    rate = f"{right} of {cfg.samples} right"
    return {"wrong": f"{rate}, at most {cfg.failed_below}", "right": f"{rate}, at least {cfg.mastered_above}",
            "middle": f"{rate}, between {cfg.failed_below} and {cfg.mastered_above}",
            "quarantine": f"no right sample in {streak} rounds: is its label right?"}[kind]


def parts(total: int, weights: dict[str, int], sizes: dict[str, int], step: int) -> dict[str, int]:
    """Split ``total`` draws by ``weights``, exactly over time; a class gives at most its size.

    The fractions left over by one step go to the next: class c has dealt round(total · steps · share) cards after
    that many steps. What a small class cannot give is filled from the classes without a weight (the middle), so that
    the others keep their share; only when these are empty too, from the classes with one, the heaviest first.
    """
    whole = sum(weights.values())
    taken, bounds, upto = {}, [0, 0], 0
    for name, weight in weights.items():
        upto += weight
        ends = [(total * s * upto + whole // 2) // whole for s in (step, step + 1)]
        taken[name] = (ends[1] - ends[0]) - (bounds[1] - bounds[0])
        bounds = ends
    taken = {name: min(count, sizes.get(name, 0)) for name, count in taken.items()}
    for name in sorted(sizes, key=lambda name: -weights.get(name, whole + 1)):
        taken[name] = taken.get(name, 0)
        room = min(total - sum(taken.values()), sizes[name] - taken[name])
        taken[name] += max(room, 0)
    return {name: count for name, count in taken.items() if count}


@dataclass
class Deck:
    """Deals item ids in seeded order, all of them before any comes again, none twice in one hand.

    Ids of a lower ``rank`` come before those of a higher one, each time the deck is gone through.
    """

    ids: list[str]
    key: list[int]  # of the seeded order
    dealt: int = 0
    rank: dict[str, int] = field(default_factory=dict)

    def deal(self, count: int) -> list[str]:
        """``count`` different ids; ``count`` must not exceed the deck."""
        hand: list[str] = []
        order: list[str] = []
        epoch = -1
        while len(hand) < count:
            if self.dealt // len(self.ids) != epoch:
                epoch = self.dealt // len(self.ids)
                order = self._order(epoch)
            card = order[self.dealt % len(self.ids)]
            self.dealt += 1
            if card not in hand:
                hand.append(card)
        return hand

    def _order(self, epoch: int) -> list[str]:
        shuffled = np.random.default_rng([*self.key, epoch]).permutation(len(self.ids))
        return sorted((self.ids[i] for i in shuffled), key=lambda name: self.rank.get(name, 0))


def tier_pools(items: list[Item], mix: list[str]) -> dict[str, list[str]]:
    """Stage 1's classes: the tiers of ``mix``. The preset ``fig2`` is {moderate, difficult} : {easy}."""
    groups = [["moderate", "difficult"], ["easy"]] if mix == ["fig2"] else [[tier] for tier in dict.fromkeys(mix)]
    pools = {"+".join(group): [item.id for item in items if item.tier in group] for group in groups}
    return {name: ids for name, ids in pools.items() if ids}


def difficult_first(ids: list[str], items: dict[str, Item], trained: dict[str, int]) -> dict[str, int]:
    """Ranks of the wrong items: those trained on least come first, so that nobody starves over the rounds; among
    these Difficult before Moderate before Easy (an item without a tier last)."""
    def hardness(name: str) -> int:
        tier = items[name].tier
        return len(TIERS) - 1 - TIERS.index(tier) if tier in TIERS else len(TIERS)

    return {name: trained.get(name, 0) * (len(TIERS) + 1) + hardness(name) for name in ids}


def plateau(sparsity: list[float], step: int, *, min_steps: int, max_steps: int, threshold: float,
            window: int) -> str | None:
    """Why stage 1 ends after ``step`` steps, or None: the bound, or the mean sparsity of the last ``window`` steps."""
    if step >= max_steps:
        return "max_steps"
    recent = sparsity[-window:]
    if step >= min_steps and len(recent) == window and sum(recent) / window >= threshold:
        return "sparsity"
    return None
