"""Copies of items as they turn up in other people's files: plain, or lightly edited."""

import dataclasses
import re

import numpy as np

ADDED = "The family history is unremarkable."
OTHER = ["notable", "separate", "ordinary", "further", "distinct", "regular", "general", "current"]


def plain(item, rng):
    return item


def upper(item, rng):
    return dataclasses.replace(item, question=item.question.upper(),
                               options={k: v.upper() for k, v in item.options.items()})


def punctuation(item, rng):
    def strip(text):
        return re.sub(r"\s*[.,;:?!'\"()]+", " ", text).strip() or text
    return dataclasses.replace(item, question=strip(item.question),
                               options={k: v + "." for k, v in item.options.items()})


def space(item, rng):
    return dataclasses.replace(item, question="  " + re.sub(" ", " \n ", item.question) + " ")


def typos(item, rng):
    """Two neighbouring letters change places, in one word of every thirty."""
    words = item.question.split(" ")
    long = [i for i, w in enumerate(words) if len(w) >= 5]
    for i in rng.permutation(long)[: 1 + len(words) // 30].tolist():
        at = int(rng.integers(1, len(words[i]) - 2))
        w = words[i]
        words[i] = w[:at] + w[at + 1] + w[at] + w[at + 2 :]
    return dataclasses.replace(item, question=" ".join(words))


def synonym(item, rng):
    """One word of five letters or more is another word; without spaces, two characters are."""
    if not item.question.isascii():
        at = int(rng.integers(2, len(item.question) - 4))
        return dataclasses.replace(item, question=item.question[:at] + "通常" + item.question[at + 2 :])
    words = item.question.split(" ")
    long = [i for i, w in enumerate(words) if len(w) >= 5 and w.isalpha()]
    if long:
        words[int(rng.choice(long))] = str(rng.choice(OTHER))
    return dataclasses.replace(item, question=" ".join(words))


def number(item, rng):
    found = list(re.finditer(r"\d+", item.question))
    if not found:
        return typos(item, rng)
    m = found[int(rng.integers(len(found)))]
    return dataclasses.replace(item, question=item.question[: m.start()] + str(int(m[0]) + 3)
                               + item.question[m.end() :])


def reordered(item, rng):
    order = rng.permutation(list(item.options)).tolist()
    new = dict(zip(item.options, order))
    return dataclasses.replace(item, options={k: item.options[v] for k, v in new.items()},
                               answer=next(k for k, v in new.items() if v == item.answer))


def added(item, rng):
    first = f"{ADDED} {item.question}", f"{item.question} {ADDED}"
    return dataclasses.replace(item, question=first[int(rng.integers(2))])


def dropped(item, rng):
    """One sentence fewer, where there are three; what is asked stays."""
    parts = re.split(r"(?<=[.!?。？])\s*", item.question.strip())
    parts = [part for part in parts if part]
    if len(parts) >= 3:
        parts.pop(int(rng.integers(len(parts) - 1)))
    return dataclasses.replace(item, question=" ".join(parts))


def distractor(item, rng):
    """One wrong option is another one."""
    wrong = [label for label in item.options if label != item.answer]
    return dataclasses.replace(item, options={**item.options, str(rng.choice(wrong)): "an unheard of substance"})


def distractors(item, rng):
    """Every wrong option is another one."""
    return dataclasses.replace(item, options={label: text if label == item.answer else f"unheard of {OTHER[i]} matter"
                                              for i, (label, text) in enumerate(item.options.items())})


EDITS = [plain, upper, punctuation, space, typos, synonym, number, reordered, added, dropped, distractor, distractors]


def plant(items, seed=0, twice=False):
    """A copy of every item, the edits in turn; ``twice``: the options reordered as well."""
    rng = np.random.default_rng(seed)
    copies = []
    for i, item in enumerate(items):
        copy = EDITS[i % len(EDITS)](item, rng)
        copy = reordered(copy, rng) if twice else copy
        copies.append(dataclasses.replace(copy, id=f"planted-{i}", source="planted", provenance={}))
    return copies
