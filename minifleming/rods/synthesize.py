"""Makes the items of a run: a training split and two disjoint evaluated splits (§3.1).

A split is a property of the *combination* of a root and its set of visible findings: a hash of
the combination decides whether its items may be trained on or are held out. Held-out items
therefore share no combination of findings with training items, for any seed and size. A held-out
item whose set of options occurs in training is not used either.

Option frequency must not reveal the answer. Each time a name is the correct answer of an n-option
item, it should later appear n - 1 times as a distractor. We track this deficit and pick the
distractors with the largest deficit. ``blind_accuracy`` measures what remains.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_items, write_items
from minifleming.rods.question import ItemBuilder
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import EVIDENCE, Walk, Walker
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.fields import Data
from minifleming.run.run_folder import bar

HELD_OUT_SHARE = 0.25
MAX_FAILED_DRAWS = 4000
EVALUATED = ("heldout", "longer_hops")
Splits = dict[str, list[Item]]
Question = tuple[str, frozenset[str]]  # the text and the options, in any order
Reject = Callable[[Item], str]  # the reason why an item is not used, or ""


@dataclass(frozen=True)
class Split:
    """``prefix`` of the items' ids, and whether combinations are held out; None allows all."""

    prefix: str = "kg"
    held_out: bool | None = None

    def contains(self, walk: Walk) -> bool:
        return self.held_out is None or is_held_out(walk) == self.held_out


def is_held_out(walk: Walk) -> bool:
    """Returns whether the walk's combination of root and findings is held out from training."""
    key = "\x1f".join([walk.root, *sorted(step.end for step in walk.evidence)])
    return hashlib.sha256(key.encode()).digest()[0] < 256 * HELD_OUT_SHARE


def option_set(item: Item) -> frozenset[str]:
    return frozenset(item.options.values())


def keep_all(item: Item) -> str:
    return ""


def synthesize(builder: ItemBuilder, count: int, hops: list[int], *, seed: int,
               split: Split = Split(), excluded: Iterable[frozenset[str]] = (),
               reject: Reject = keep_all, label: str = "items") -> list[Item]:
    """Returns up to ``count`` different items with proofs, all path lengths equally often.

    Items are different if their questions or their sets of options are. Fewer come back only if
    ``MAX_FAILED_DRAWS`` draws in a row found no further item of a path length. Sets of options in
    ``excluded`` are not used, nor are items for which ``reject`` returns a reason. ``label`` is
    shown at the progress bar.
    """
    draws = Draws(builder, np.random.default_rng([seed, 0x5EED]), split, set(excluded))
    items = []
    for number in bar(range(count), desc=label):
        item = draws.next_item(hops[number % len(hops)], reject)
        if item is not None:
            items.append(item)
    return items


class Draws:
    """The state of one call of ``synthesize``: what has been drawn, and each name's deficit."""

    def __init__(self, builder: ItemBuilder, rng: np.random.Generator, split: Split,
                 excluded: set[frozenset[str]]):
        self.builder, self.rng, self.split, self.excluded = builder, rng, split, excluded
        self.seen: set = set()
        self.option_deficit: Counter[str] = Counter()
        self.failed: Counter[int] = Counter()  # path length -> draws since the last item

    def next_item(self, hops: int, reject: Reject) -> Item | None:
        """Returns the next new item of this path length, or None if the length is used up."""
        while self.failed[hops] < MAX_FAILED_DRAWS:
            self.failed[hops] += 1
            item = self.draw(hops)
            if item is None or reject(item):
                continue
            self.count_options(item)
            self.failed[hops] = 0
            return item
        return None

    def draw(self, hops: int) -> Item | None:
        """Returns a new item, or None if this draw gives none."""
        builder = self.builder
        walk = builder.walker.walk(hops, builder.findings, self.rng)
        if walk is None or not self.split.contains(walk):
            return None
        item = builder.build(walk, self.rng, self.split.prefix, self.option_deficit)
        if item is None or option_set(item) in self.excluded or builder.gives_away(item):
            return None
        key = (walk.root, frozenset(walk.evidence), walk.chain, option_set(item))
        if key in self.seen or item.id in self.seen:  # two edges of one wording ask the same
            return None
        self.seen.update((key, item.id))
        return item

    def count_options(self, item: Item) -> None:
        self.option_deficit[item.masked] += len(item.options) - 1
        for label in item.options:
            if label != item.answer:
                self.option_deficit["; ".join(item.nodes(label))] -= 1


def walker_from_config(data: Data, graph: Graph, make: type[Walker] = Walker, **more) -> Walker:
    """Returns the walker of the configuration. Raises BadInput if the graph has no findings."""
    evidence = tuple(data.evidence) or EVIDENCE
    if not any(relation in graph.relation_id for relation in evidence):
        raise BadInput(f"data.evidence: the graph has none of {', '.join(evidence)}; its relations "
                       f"are {', '.join(graph.relations[:30])}")
    return make(graph, data.rarity, data.rare_boost, data.num_diseases, evidence, **more)


def item_builder(data: Data, graph: Graph) -> ItemBuilder:
    """Returns the builder of the configuration's items: plain, or one of extras/wording."""
    plain = data.style == "plain" and data.language == "en"
    if plain and not (data.qualifiers or data.two_targets > 0 or data.exclude_variants):
        return ItemBuilder(walker_from_config(data, graph), data.options, tuple(data.findings))
    from minifleming.extras.wording.builder import worded_builder

    return worded_builder(data, graph)


def support_filter(data: Data) -> Reject:
    """Returns the filter of items with a distractor that one of data.support_graphs supports."""
    if not data.support_graphs:
        return keep_all
    from minifleming.extras.wording.support import Support

    return Support([load_graph(source) for source in data.support_graphs])


def synthesize_splits(data: Data, graph: Graph, seed: int) -> Splits:
    """Returns the items of the three splits. Raises RunFailed if the graph gives too few."""
    builder = item_builder(data, graph)
    reject = support_filter(data)
    splits = {}
    excluded: set[frozenset[str]] = set()
    plan = [("train", data.train, data.hops), ("heldout", data.heldout, data.hops),
            ("longer_hops", data.num_ood, data.ood_hops)]
    for number, (name, count, hops) in enumerate(plan):
        items = synthesize(builder, count, hops, seed=10 * seed + number,
                           split=Split(name, name != "train"), excluded=excluded, reject=reject,
                           label=f"items {name}")
        if len(items) < count:
            raise RunFailed(f"the graph gave {len(items)} different {name} items of {count}")
        if name == "train":
            excluded = {option_set(item) for item in items}
        splits[name] = items
    return splits


def read_given(data: Data) -> Splits:
    """Returns the items of ``data.train_file`` and ``data.heldout_file``."""
    return {"train": read_items(data.train_file), "heldout": read_items(data.heldout_file),
            "longer_hops": []}


def write_splits(folder: Path, splits: Splits) -> None:
    for name, items in splits.items():
        write_items(folder / f"{name}.jsonl", items)


def read_splits(folder: Path) -> Splits:
    """Returns the splits that are not empty."""
    splits = {}
    for name in ("train", *EVALUATED):
        path = folder / f"{name}.jsonl"
        if path.stat().st_size:
            splits[name] = read_items(path)
    return splits


def question_of(record) -> Question:
    """Returns what makes two items (or a trace and an item) the same, whatever their ids."""
    return record.question, frozenset(record.options.values())


def check_disjoint(splits: Splits, place: str | Path) -> set[Question]:
    """Returns the evaluated questions. Raises BadInput if the training split has one of them."""
    ids, questions = set(), set()
    for name in EVALUATED:
        for item in splits.get(name, []):
            ids.add(item.id)
            questions.add(question_of(item))
    for item in splits["train"]:
        if item.id in ids or question_of(item) in questions:
            raise BadInput(f"item '{item.id}' is both trained on and evaluated", place)
    return questions


def blind_accuracy(train: list[Item], test: list[Item]) -> float:
    """Returns the accuracy on ``test`` of a rule that never reads the question.

    The rule picks the option with the highest share of correct occurrences in ``train``; among
    equals it scores by chance.
    """
    correct = Counter(item.options[item.answer] for item in train)
    shown: Counter[str] = Counter()
    for item in train:
        shown.update(item.options.values())
    hits = 0.0
    for item in test:
        rates = {text: correct[text] / max(shown[text], 1) for text in item.options.values()}
        highest = max(rates.values())
        best = [text for text, rate in rates.items() if rate == highest]
        hits += (item.options[item.answer] in best) / len(best)
    return hits / len(test)


def tier_counts(items: list[Item]) -> dict[str, int]:
    return dict(sorted(Counter(item.tier for item in items).items()))
