"""Verifies labels with a model that answers each item several times.

    python generate.py --model DIR --items F --samples 5 --temperature 1 --out votes.jsonl
    {"id": "medmcqa-1", "sample": 0, "text": "<think>...</think><answer>B</answer><|im_end|>",
     "finish_reason": "stop"}

If none of five answers is right, the label is in doubt and the item is quarantined with the chosen
letters; it may also be a hard item, so it is not dropped. An item with fewer votes is kept as
unverified. A completion that the strict parser cannot read is a vote for no letter: "-".
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from minifleming.extras.curate.step import Dropped, Result, divide, noted
from minifleming.rods.answer import parse_strict
from minifleming.rods.item import Item, read_jsonl
from minifleming.run.errors import BadInput

STEP = "labels"
SAMPLES = 5  # a model that is right every second time misses five times in a row with 3 %
CLOSE = "</answer>"

Votes = dict[str, list[str]]  # item id -> the letters chosen, in the order of the samples


def read_votes(path: Path, items: list[Item]) -> Votes:
    """Returns the letters by item. Votes on items that are not in ``items`` are ignored.

    Raises BadInput for a line that is not a completion, and for a file without a vote on ``items``.
    """
    labels = {item.id: item.labels for item in items}
    found: dict[str, dict[int, str]] = {}
    seen = set()
    first = ""
    for number, record in read_jsonl(path):
        for name, kind in (("id", str), ("sample", int), ("text", str), ("finish_reason", str)):
            if type(record.get(name)) is not kind:
                raise BadInput(f"no completion: '{name}' must be {kind.__name__}", path, number)
        at = record["id"], record["sample"]
        if at in seen:
            raise BadInput(f"sample {at[1]} of '{at[0]}' stands there twice", path, number)
        seen.add(at)
        first = first or at[0]
        if at[0] in labels:
            letter = vote(record["text"], record["finish_reason"], labels[at[0]])
            found.setdefault(at[0], {})[at[1]] = letter
    if not seen:
        raise BadInput("no votes", path)
    if not found:
        reason = f"no vote is on any of the {len(items)} items; the first is on '{first}'"
        raise BadInput(reason, path)
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
    token = tail.strip()
    is_token = re.fullmatch(r"<[^<>\s]*>", token) is not None
    return head + closed if closed and is_token else text


def labels_step(items: list[Item], votes: Votes, *, samples: int = SAMPLES,
                least: int = 1) -> Result:
    """Quarantines items with fewer than ``least`` of ``samples`` votes for the label."""
    return divide(judge(item, votes.get(item.id, []), samples, least) for item in items)


def judge(item: Item, letters: list[str], samples: int, least: int) -> Item | Dropped:
    right = letters.count(item.answer)
    if len(letters) < samples:
        return noted(item, STEP, verified=False, votes=len(letters))
    if right >= least:
        return noted(item, STEP, verified=True, right=right, votes=len(letters))
    chosen = dict(sorted(Counter(letters).items()))
    item = noted(item, STEP, verified=False, right=right, votes=len(letters))
    return Dropped(item, STEP, f"the label has fewer than {least} votes",
                   {"label": item.answer, "chosen": chosen}, quarantined=True)
