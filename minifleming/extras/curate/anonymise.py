"""Replaces identifiers of persons by placeholders.

    "Mr. Smith, MRN 0012345, seen on 3/5/2019, aged 93"
    ->  "Mr. [NAME], MRN [ID], seen on [DATE], aged 90+"
        lineage: {"NAME": 1, "ID": 1, "DATE": 1, "AGE": 1}

No item is dropped. The kinds follow the safe harbour rule (45 CFR 164.514(b)(2)): e-mail, phone,
URL, record and identity numbers, full calendar dates, names after a title, and ages over 89, which
become "90+". Ages up to 89, years, and medical notation such as 120/80, 5-10-15, 1-800 or ICD codes
stay. Options keep names, dates and ages, and keep everything if they would become equal. An item
that a graph proves is unchanged: its names are nodes, and its proof quotes them.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections import Counter
from functools import partial
from pathlib import Path

from minifleming.extras.curate.step import Result, noted
from minifleming.extras.curate.text import plain
from minifleming.rods.item import Item

STEP = "anonymise"
IN_OPTIONS = ("URL", "EMAIL", "ID", "PHONE")
IDENTIFIERS = tomllib.loads(
    (Path(__file__).parent / "identifiers.toml").read_text(encoding="utf-8"))


def compile_pattern(text: str, case: bool = False, ascii: bool = False) -> re.Pattern:
    """Returns the regular expression of an entry of identifiers.toml."""
    for name, part in IDENTIFIERS["parts"].items():
        text = text.replace(f"<{name}>", part)
    flags = re.NOFLAG if case else re.IGNORECASE
    return re.compile(text.replace("\n", ""), flags | re.ASCII if ascii else flags)


RULES = []  # (kind, pattern, name of the rule)
for entry in IDENTIFIERS["identifiers"]:
    pattern = compile_pattern(entry["pattern"], entry.get("case", False), entry.get("ascii", False))
    RULES.append((entry["kind"], pattern, entry.get("rule", "placeholder")))


def replacement(kind: str, rule: str, found: re.Match) -> str:
    """Returns the text that replaces a match; the match itself if it is not an identifier."""
    text = found[0]
    digits = sum(c.isdigit() for c in text)
    if rule == "url":  # the full stop of the sentence stays
        return "[URL]" + text[len(text.rstrip(".,;:!?")) :]
    if rule == "international_phone" and digits < 9:  # "+21" is a chromosome, "+2 +3" a reflex
        return text
    if rule == "named_phone" and sum(c.isdigit() for c in found["number"]) < 7:
        return text
    kept = found.groupdict().get("keep") or ""
    return kept + ("90+" if kind == "AGE" else f"[{kind}]")


def anonymise_step(items: list[Item]) -> Result:
    return [anonymise(item) for item in items], []


def anonymise(item: Item) -> Item:
    """Returns the item with placeholders; its lineage counts the replacements by kind."""
    if item.visible or item.path:
        return noted(item, STEP, replaced={}, left="proven by a graph")
    question, counts = replace(item.question)
    options = {}
    in_options: Counter = Counter()
    for label, text in item.options.items():
        options[label], found = replace(text, IN_OPTIONS)
        in_options += found
    if len(set(map(plain, options.values()))) < len(set(map(plain, item.options.values()))):
        options = dict(item.options)
    else:
        counts += in_options
    item = dataclasses.replace(item, question=question, options=options)
    return noted(item, STEP, replaced=dict(sorted(counts.items())))


def replace(text: str, kinds: tuple[str, ...] = ()) -> tuple[str, Counter]:
    """Returns the text with placeholders and their number by kind. Default: all kinds."""
    counts: Counter = Counter()
    for kind, pattern, rule in RULES:
        if kinds and kind not in kinds:
            continue
        matches = pattern.finditer(text)
        new = partial(replacement, kind, rule)
        changed = sum(new(found) != found[0] for found in matches)
        if changed:
            text = pattern.sub(new, text)
            counts[kind] += changed
    return text, counts
