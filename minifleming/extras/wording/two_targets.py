"""Questions with two targets: the root and the end of the chain. An option is a pair of nodes (§3.1)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minifleming.rods.distractors import MAX_DIAGNOSES, Distractor, DistractorSearch, ends_of
from minifleming.rods.item import Item
from minifleming.rods.question import Option
from minifleming.rods.walk import Walk

from .builder import WordedBuilder


class TwoTargetBuilder(WordedBuilder):
    """Builds items that ask for the root and the end of the chain."""

    two_targets = True

    def targets(self, walk: Walk) -> Option:
        return walk.root, walk.answer

    def distractors(self, walk: Walk, rng: np.random.Generator,
                    option_deficit: Mapping[str, int]) -> dict[Option, Distractor]:
        return with_half_right(walk, find_pairs(walk, self.search, rng))


class MixedBuilder(WordedBuilder):
    """Builds items with two targets for a share of the walks that have a chain, else with one."""

    def __init__(self, *args, share: float, **more):
        super().__init__(*args, **more)
        self.share = share
        self.two_target_builder = TwoTargetBuilder(*args, **more)

    def build(self, walk: Walk, rng: np.random.Generator, prefix: str = "kg",
              option_deficit: Mapping[str, int] | None = None) -> Item | None:
        drawn = rng.random() < self.share
        if drawn and walk.chain:
            return self.two_target_builder.build(walk, rng, prefix, option_deficit)
        return super().build(walk, rng, prefix, option_deficit)


def find_pairs(walk: Walk, search: DistractorSearch, rng: np.random.Generator) -> dict[Option, Distractor]:
    """Returns wrong pairs: a competing diagnosis and the end of its chain, if that is not the answer.

    The discriminating triple is the first finding that the diagnosis lacks. The diagnosis that
    shares most findings comes first.
    """
    found: dict[Option, Distractor] = {}
    for diagnosis in search.ranked_diagnoses(walk, rng)[:MAX_DIAGNOSES]:
        missing = search.missing_findings(walk, diagnosis)
        if not missing or not search.is_usable(diagnosis) or search.too_similar(diagnosis, walk.root):
            continue
        for end in ends_of(diagnosis, walk.chain, search.graph):
            if end != diagnosis and search.discriminating_triple(walk, end) is not None:
                found[diagnosis, end] = Distractor(diagnosis, missing[0].triple)
                break
    return found


def with_half_right(walk: Walk, found: dict[Option, Distractor]) -> dict[Option, Distractor]:
    """Puts first the right root with a wrong end, and a wrong root with the right end.

    Otherwise one half of a pair would reveal the other.
    """
    if len(found) < 2:
        return found
    (diagnosis, _), (_, wrong_end) = list(found)[:2]
    right_root = Distractor("", walk.chain[-1].triple)
    mixed = {(walk.root, wrong_end): right_root, (diagnosis, walk.answer): found[list(found)[0]]}
    return mixed | found
