"""Items of any style for tests, with settings as keywords."""

import numpy as np

from minifleming.extras.wording.builder import MixedBuilder, TwoTargetBuilder, WordedBuilder
from minifleming.extras.wording.qualifiers import ExtendedWalker
from minifleming.extras.wording.styles import English
from minifleming.extras.wording.variants import VariantSearch
from minifleming.rods.distractors import Distractor, DistractorSearch
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.synthesize import Split
from minifleming.rods.synthesize import synthesize as make_items
from minifleming.rods.walk import Walk, Walker

ALL = Split()


def builder_of(graph: Graph, options: int = 4, findings: tuple[int, int] = (2, 4), num_diseases: int = 0,
               style: English | None = None, qualifiers: bool = False, two_targets: float = 0.0,
               exclude_variants: bool = False) -> WordedBuilder:
    walker = ExtendedWalker(graph, num_diseases=num_diseases, qualifiers=qualifiers, by_name=exclude_variants)
    if two_targets:
        return MixedBuilder(walker, options, findings, style, exclude_variants, share=two_targets)
    return WordedBuilder(walker, options, findings, style, exclude_variants)


def synthesize(graph: Graph, count: int, hops: list[int], *, seed: int, split: Split = ALL, **settings) -> list[Item]:
    """Returns items; ``settings`` as in ``builder_of``."""
    return make_items(builder_of(graph, **settings), count, hops, seed=seed, split=split)


def make_item(walk: Walk, walker: Walker, options: int, rng: np.random.Generator, *, option_deficit=None,
              style: English | None = None, two_targets: bool = False, exclude_variants: bool = False) -> Item | None:
    make = TwoTargetBuilder if two_targets and walk.chain else WordedBuilder
    builder = make(walker, options, style=style, exclude_variants=exclude_variants)
    return builder.build(walk, rng, "t", option_deficit or {})


def find(walk: Walk, walker: Walker, count: int, rng: np.random.Generator, deficit=None,
         exclude_variants: bool = False, is_usable=lambda name: True) -> dict[str, Distractor]:
    """Returns the distractors of a walk."""
    search = VariantSearch if exclude_variants else DistractorSearch
    return search(walker, is_usable).find(walk, count, rng, deficit or {})
