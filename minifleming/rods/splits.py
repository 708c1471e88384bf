"""The items of a run: a training split, and two evaluated splits without its questions (§3.1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from minifleming.rods.item import Item, read_items, write_items
from minifleming.rods.question import ItemBuilder
from minifleming.rods.synthesize import Split, option_set, synthesise
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.fields import Data
from minifleming.run.journal import bar

EVALUATED = ("heldout", "longer_hops")
Splits = dict[str, list[Item]]
Question = tuple[str, frozenset[str]]  # the text and the options, in any order


def synthesize_splits(data: Data, builder: ItemBuilder, reject: Callable[[Item], str],
                      seed: int) -> Splits:
    """Returns the items of the three splits. Raises RunFailed if the graph gives too few."""
    splits = {}
    excluded: set[frozenset[str]] = set()
    plan = [("train", data.train, data.hops), ("heldout", data.heldout, data.hops),
            ("longer_hops", data.num_ood, data.ood_hops)]
    for number, (name, count, hops) in enumerate(plan):
        items = synthesise(builder, count, hops, seed=10 * seed + number,
                           split=Split(name, name != "train"), excluded=excluded, reject=reject,
                           progress=lambda numbers, name=name: bar(numbers, desc=f"items {name}"))
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
