"""The same question with its options in another order, or with no question: does the answer follow?

    A. aspirin  B. heparin  C. none of the above      turn 1:  A. heparin  B. aspirin  C. none of the above
                                                      back:    {"A": "B", "B": "A", "C": "C"}

Options that speak of the others ("none of the above", "both") are *pinned*: they keep their place. Items with an option
that names others by letter ("A and C"), or a question that does, would change their meaning and are left out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from typing import NamedTuple

import numpy as np

from minifleming.rods.item import Item

TURNS = 4
OTHERS = re.compile(
    r"(?:(?:all|none|any|both|neither|either|some|one|two)(?: of)?(?: the)?"
    r"(?: (?:above|these|those|others?|options?|choices?|answers?))(?: (?:options?|choices?|answers?|mentioned|listed"
    r"|given))?(?: (?:is|are) (?:all )?(?:true|correct|false|possible|wrong))?|both|neither|either|all|none|nil"
    r"|both (?:are )?(?:true|correct|equal)|both can be true"
    r"|(?:选项)?(?:全部?|都|均|皆)(?:不?是|不?对|不?正确|错误?|不?可)|(?:以上|上述).{0,8})",
    re.IGNORECASE)
ONE = r"\(?[a-h]\)?"
LETTERS = re.compile(rf"(?:only )?(?:(?:both|either|neither|all|only) )?(?:options? |choices? )?{ONE}"
                     rf"(?:(?:, (?:and )?| ?[,&/] ?| and | or | nor ){ONE})+"
                     r"(?: both| only)?(?: (?:is|are) (?:true|correct))?"
                     r"|(?:both|either|neither|all|only) (?-i:[A-H]{2,5})|(?:options?|choices?) [a-h]|[a-h] only",
                     re.IGNORECASE)
ROW = re.compile("[A-H]{1,6}")
STEM = re.compile(r"\b(?:[Oo]ptions?|[Cc]hoices?) \(?[A-H]\b|选项[A-H]")
BLANK = {"en": "The question is not shown. Choose an option.", "zh": "题目未显示。请选择一个选项。"}


class Permuted(NamedTuple):
    item: Item
    back: dict[str, str]  # label in the new item -> label in the old one
    pinned: int


def pinned(item: Item) -> list[str] | None:
    """Labels that must keep their place; None if the item cannot be permuted.

    Where every option is a row of letters, these name what stands in the question, and nothing is pinned.
    """
    texts = {label: " ".join(text.split()).strip(" .:;") for label, text in item.options.items()}
    lettered = [label for label, text in texts.items() if LETTERS.fullmatch(text)]
    rows = all(label in lettered or ROW.fullmatch(text) for label, text in texts.items())
    if STEM.search(item.question) or lettered and not rows:
        return None
    found = [label for label, text in texts.items() if OTHERS.fullmatch(text)]
    return found if len(texts) - len(found) >= 2 else None


def permuted(item: Item, turn: int, seed: int = 0, keep_gold: bool = False) -> Permuted | None:
    """The item in the order of this turn (1 to ``TURNS``); None if it cannot be permuted.

    The turns of an item differ from the file's order and from one another wherever there are orders enough. With
    ``keep_gold`` the right option stays, and distractors alone change places: the weaker test of arXiv:2601.15160.
    """
    fixed = pinned(item)
    if fixed is None or not 1 <= turn <= TURNS:
        return None
    labels = list(item.options)
    free = [i for i, label in enumerate(labels) if label not in fixed and not (keep_gold and label == item.answer)]
    if len(free) < 2:
        return None
    order, places = list(range(len(labels))), orders(len(free), f"{seed}\x1f{item.id}")[turn - 1]
    for place, source in zip(free, places):
        order[place] = free[source]
    back = {labels[new]: labels[old] for new, old in enumerate(order)}
    return Permuted(relabelled(item, back, f"#{'d' if keep_gold else 'p'}{turn}"), back, len(fixed))


def orders(count: int, key: str) -> list[list[int]]:
    """``TURNS`` orders of ``count`` things, drawn by ``key``."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little"))
    if count <= 4:
        every = [list(order) for order in itertools.permutations(range(count))][1:]  # the first changes nothing
        found = [every[i] for i in rng.permutation(len(every))]
        while len(found) < TURNS:
            found += [list(range(count)), *found]
        return found[:TURNS]
    found, seen = [], {tuple(range(count))}
    while len(found) < min(TURNS, math.factorial(count) - 1):
        order = rng.permutation(count).tolist()
        if tuple(order) not in seen:
            seen.add(tuple(order))
            found.append(order)
    return found


def relabelled(item: Item, back: dict[str, str], mark: str) -> Item:
    """The item with option ``back[label]`` at each label, and all that is kept by label along with it."""
    there = {old: new for new, old in back.items()}

    def moved(by_label: dict) -> dict:
        return {there[label]: value for label, value in sorted(by_label.items(), key=lambda pair: there[pair[0]])}

    provenance = item.provenance | {name: moved(item.provenance[name]) for name in ("rivals", "lacks", "nodes")
                                    if name in item.provenance}
    return dataclasses.replace(item, id=item.id + mark, options=moved(item.options), answer=there[item.answer],
                               discriminating=moved(item.discriminating), provenance=provenance)


def blanked(item: Item) -> Item:
    """The options alone: what is right above chance here is read off them."""
    return dataclasses.replace(item, id=item.id + "#blank", question=BLANK.get(item.language, BLANK["en"]))
