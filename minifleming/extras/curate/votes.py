"""Verifies labels and assigns difficulty tiers with a model that answers each item several times.

    python generate.py --model DIR --items F --samples 5 --temperature 1 --out votes.jsonl
    {"id": "medmcqa-1", "sample": 0, "text": "<think>...</think><answer>B</answer><|im_end|>",
     "finish_reason": "stop"}

Labels: if none of five answers is right, the label is in doubt and the item is quarantined with the
chosen letters; it may also be a hard item, so it is not dropped. An item with fewer votes is kept
as unverified. A completion that the strict parser cannot read is a vote for no letter: "-".

Tiers: a pass rate of at least 0.75 is easy, of at most 0.25 difficult. An item without votes keeps
the tier that it has from the graph walk (structure). ``provenance["tiers"]`` has both.

Label check and difficulty stratification, arXiv:2509.15279 §3.1 and Fig. 2.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path

from minifleming.extras.curate.step import Dropped, Result, divide, last_entry, noted
from minifleming.rods.answer import parse_strict
from minifleming.rods.item import TIERS, Item, read_jsonl
from minifleming.run.errors import BadInput

SAMPLES = 5  # a model that is right every second time misses five times in a row with 3 %
EASY, DIFFICULT = 0.75, 0.25  # of four completions: at most one wrong; at most one right
CLOSE = "</answer>"

Votes = dict[str, list[str]]  # item id -> the letters chosen, in the order of the samples


def read_votes(path: Path, items: list[Item]) -> Votes:
    """Returns the letters by item. Votes on items that are not in ``items`` are ignored.

    Raises BadInput for a line that is not a completion, and for a file without a vote on ``items``.
    """
    labels = {item.id: item.labels for item in items}
    found: dict[str, dict[int, str]] = {}
    for number, record in read_jsonl(path):
        for name, kind in (("id", str), ("sample", int), ("text", str), ("finish_reason", str)):
            if type(record.get(name)) is not kind:
                raise BadInput(f"no completion: '{name}' must be {kind.__name__}", path, number)
        name, sample = record["id"], record["sample"]
        if name not in labels:
            continue
        letters = found.setdefault(name, {})
        if sample in letters:
            raise BadInput(f"sample {sample} of '{name}' is there twice", path, number)
        letters[sample] = vote(record["text"], record["finish_reason"], labels[name])
    if not found:
        raise BadInput(f"no vote is on any of the {len(items)} items", path)
    votes = {}
    for name, letters in found.items():
        votes[name] = [letters[sample] for sample in sorted(letters)]
    return votes


def vote(text: str, finish_reason: str, labels: str) -> str:
    """Returns the letter of a completion, or "-"."""
    finished = finish_reason == "stop"
    return parse_strict(without_end(text) if finished else text, labels, finished).label or "-"


def without_end(text: str) -> str:
    """Returns the text without the end token, such as "<|im_end|>" or "</s>".

    Other text after the answer stays and violates the format.
    """
    head, closed, tail = text.rpartition(CLOSE)
    is_token = re.fullmatch(r"<[^<>\s]*>", tail.strip()) is not None
    return head + closed if closed and is_token else text


def labels_step(items: list[Item], votes: Votes, samples: int = SAMPLES) -> Result:
    """Quarantines items that have ``samples`` votes and none for the label."""
    return divide(verify(item, votes.get(item.id, []), samples) for item in items)


def verify(item: Item, letters: list[str], samples: int) -> Item | Dropped:
    right = letters.count(item.answer)
    if len(letters) < samples:
        return noted(item, "labels", verified=False, votes=len(letters))
    if right:
        return noted(item, "labels", verified=True, right=right, votes=len(letters))
    chosen = dict(sorted(Counter(letters).items()))
    item = noted(item, "labels", verified=False, right=right, votes=len(letters))
    return Dropped(item, "labels", "no vote is for the label",
                   {"label": item.answer, "chosen": chosen}, quarantined=True)


def tiers_step(items: list[Item], votes: Votes) -> Result:
    """Drops no item; an item without votes and without a tier keeps an empty tier."""
    return [stratify(item, votes.get(item.id)) for item in items], []


def stratify(item: Item, letters: list[str] | None) -> Item:
    found = dict(item.provenance.get("tiers", {}))
    if letters:
        found["pass rate"] = by_pass_rate(letters.count(item.answer) / len(letters))
    if item.tier and not last_entry(item, "tiers"):  # else this step has set the tier before
        found["structure"] = item.tier
    tiers = {name: found[name] for name in ("pass rate", "structure") if name in found}
    source = next(iter(tiers), "")
    provenance = {**item.provenance, "tiers": tiers}
    item = dataclasses.replace(item, tier=tiers.get(source, item.tier), provenance=provenance)
    return noted(item, "tiers", tier=item.tier, by=source)


def by_pass_rate(rate: float) -> str:
    if rate >= EASY:
        return TIERS[0]
    return TIERS[2] if rate <= DIFFICULT else TIERS[1]
