"""Items for tests: `synthesize` on a graph, with settings as keywords."""

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.proof import find_fault
from minifleming.rods.query import Facts
from minifleming.rods.question import ItemBuilder
from minifleming.rods.synthesize import Split
from minifleming.rods.synthesize import synthesize as make_items
from minifleming.rods.walk import EVIDENCE, Walker

ALL = Split()
TRAIN = Split("train", held_out=False)
HELD_OUT = Split("heldout", held_out=True)


def builder_of(graph: Graph, options: int = 4, findings: tuple[int, int] = (2, 4), rarity: float = 0.5,
               rare_boost: float = 2.0, num_diseases: int = 0, evidence: tuple[str, ...] = EVIDENCE) -> ItemBuilder:
    return ItemBuilder(Walker(graph, rarity, rare_boost, num_diseases, evidence), options, findings)


def synthesize(graph: Graph, count: int, hops: list[int], *, seed: int, split: Split = ALL, excluded=(),
               reject=lambda item: "", **settings) -> list[Item]:
    """Returns items in the plain style; ``settings`` as in ``builder_of``."""
    builder = builder_of(graph, **settings)
    return make_items(builder, count, hops, seed=seed, split=split, excluded=excluded, reject=reject)


def fault(item: Item, facts: Facts) -> str | None:
    """Returns the text of the checker's fault, or None for a valid proof."""
    found = find_fault(item, facts)
    return None if found is None else str(found)
