"""Reads a folder of plain-text pages and splits them into numbered sentences.

    gout.txt  ->  Page("gout", "Gout", [Sentence("gout", 1, "Gout is a common disease."), ...])

The first line of a page is its title, which is not a sentence. A blank line ends a paragraph; the
lines of a paragraph are joined. A bullet is a sentence of its own, but bullets after a line that
ends in a colon belong to that line: "Key symptoms: wheezing, cough".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from minifleming.run.checkpoint import read_text
from minifleming.run.errors import BadInput

BULLET = re.compile(r"\s*[-*+\u2022]\s+")
STOP = re.compile(r"""[.!?]+["'\u201d\u2019)\]]*\s+(?=["'\u201c\u2018(\[]*[^\W_a-z])""")
# A full stop after these ends no sentence, except after capitals ("of CF. The").
ABBREVIATIONS = frozenset(
    "e.g i.e dr prof mr mrs ms st vs cf approx ca al resp viz spp sp subsp dept".split())
BEFORE_NUMBER = frozenset(  # the same before a number: "No. 5"
    "no nos fig figs tab eq vol pp ed jan feb mar apr jun jul aug sept oct nov dec".split())
# A single capital after these is not an initial: "vitamin K. The", but "by J. Smith".
BEFORE_LETTER = frozenset(
    "vitamin hepatitis type factor group influenza protein immunoglobulin grade class".split())


class Sentence(NamedTuple):
    page: str
    number: int  # from 1
    text: str  # no tabs, no line breaks, single spaces


class Page(NamedTuple):
    name: str  # the file's name without .txt
    title: str
    sentences: list[Sentence]


def read_pages(folder: Path) -> list[Page]:
    """Returns the pages of every ``*.txt``, by name. Raises BadInput if there is none."""
    paths = sorted(Path(folder).glob("*.txt"))
    if not paths:
        raise BadInput("no *.txt pages in this folder", folder)
    return [read_page(path) for path in paths]


def read_page(path: Path) -> Page:
    """Raises BadInput for text that is not UTF-8 and for an empty title."""
    title, _, body = read_text(path).lstrip("\ufeff").partition("\n")
    page = Page(one_line(path.stem), one_line(title), [])
    if not page.title:
        raise BadInput("the first line must be the title", path, 1)
    for block in blocks(body):
        for sentence in split(block):
            page.sentences.append(Sentence(page.name, len(page.sentences) + 1, sentence))
    return page


def blocks(text: str) -> list[str]:
    """Returns paragraphs and bullets; bullets join a line that ends in a colon."""
    found: list[list[str]] = []
    new_block = True
    joins_bullets = False  # bullets belong to the last block
    for line in text.split("\n"):
        bullet = BULLET.match(line)
        if not line.strip():
            new_block = True
        elif bullet:
            joins_bullets = joins_bullets or bool(found and found[-1][-1].rstrip().endswith(":"))
            if joins_bullets:
                found[-1].append(line[bullet.end() :])
            else:
                found.append([line[bullet.end() :]])
            new_block = False
        elif new_block:
            found.append([line])
            new_block, joins_bullets = False, False
        else:
            found[-1][-1] = join_lines(found[-1][-1], line)
    return [join_block(block) for block in found]


def join_lines(text: str, line: str) -> str:
    """Returns the text with one more line; a word broken after its hyphen is joined."""
    text, line = text.rstrip(), line.strip()
    broken = re.search(r"[^\W_]-$", text) and line[:1].islower()
    return text + line if broken else f"{text} {line}"


def join_block(block: list[str]) -> str:
    lead, *items = [one_line(line) for line in block]
    return " ".join([lead, ", ".join(item.rstrip(",;") for item in items)]).strip()


def one_line(text: str) -> str:
    """Returns the text with every run of white space as one space."""
    return " ".join(text.split())


def split(text: str) -> list[str]:
    """Returns the sentences of one paragraph."""
    found, start = [], 0
    for stop in STOP.finditer(text):
        before = text[max(start, stop.start() - 60) : stop.start() + 1]
        if ends_sentence(before, text[stop.end()].isdigit()):
            found.append(text[start : stop.end()].strip())
            start = stop.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def ends_sentence(text: str, number: bool) -> bool:
    """Says whether the mark at the end of the text ends a sentence. ``number``: one follows."""
    if not text.endswith("."):
        return True
    words = text[:-1].split(" ")[-2:]
    word = words[-1].lstrip("(['\"")
    if re.fullmatch(r"[A-Z]", word):
        return words[0].lower() in BEFORE_LETTER
    if re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word):
        return False
    if word.isupper() and len(word) > 1:
        return True
    return not (word.lower() in ABBREVIATIONS or number and word.lower() in BEFORE_NUMBER)
