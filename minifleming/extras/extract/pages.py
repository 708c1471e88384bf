"""A folder of plain-text pages, cut into numbered sentences.

    gout.txt            Page("gout", "Gout", [Sentence("gout", 1, "Gout is a common disease of middle age."), ...])

The first line of a page is its title. A blank line ends a paragraph; lines of one paragraph are one text, so wrapped
text is fine. A heading and a bullet are sentences of their own, but bullets after a line that ends in a colon belong
to it: "Key symptoms: wheezing, cough". The title has number 0 and is not among the sentences.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from minifleming.run.errors import BadInput

BULLET = re.compile(r"\s*[-*+\u2022]\s+")
NUMBERED = re.compile(r"\s*\(?(\d{1,3})[.)]\s+")
HEADING = re.compile(r"\s*(?:#+\s*(.*?)\s*#*|=+\s*([^=]+?)\s*=+)\s*$")
STOP = re.compile(r"""[.!?]+["'\u201d\u2019)\]]*\s+(?=["'\u201c\u2018(\[]*[^\W_a-z])""")
# After these a sentence goes on, whatever follows; not after their capitals ("of CF. The").
OPEN = frozenset("e.g i.e dr prof mr mrs ms st vs cf approx ca al resp viz spp sp subsp dept".split())
COUNTED = frozenset("""no nos fig figs tab eq vol pp ed jan feb mar apr jun jul aug sept oct nov
    dec""".split())  # only before a number: "No. 5"
# These are followed by a single capital that is no initial: "vitamin K. The", but "by J. Smith".
LETTERED = frozenset("vitamin hepatitis type factor group influenza protein immunoglobulin grade class".split())


class Sentence(NamedTuple):
    page: str
    number: int  # from 1
    text: str  # no tabs, no line breaks, single spaces

    @property
    def id(self) -> str:
        return f"{self.page}:{self.number}"


class Page(NamedTuple):
    name: str  # the file's base name
    title: str
    sentences: list[Sentence]


def read_pages(folder: Path) -> list[Page]:
    """Every ``*.txt`` of a folder, by name. Raises BadInput for a folder without one."""
    if not Path(folder).is_dir():
        raise BadInput("not a folder", folder)
    paths = sorted(path for path in Path(folder).glob("*.txt") if path.is_file())
    if not paths:
        raise BadInput("no *.txt pages", folder)
    return [read_page(path) for path in paths]


def read_page(path: Path) -> Page:
    """One page. Raises BadInput with file and line for bytes that are not UTF-8, a NUL or an empty title."""
    name = path.stem
    if not name.isprintable() or ":" in name:
        raise BadInput("a page's name must be printable and have no ':'", ascii(path.name))
    data = path.read_bytes()
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8 text", path, data[: error.start].count(b"\n") + 1) from None
    if "\0" in text:
        raise BadInput("a NUL byte", path, text[: text.index("\0")].count("\n") + 1)
    title, _, body = text.lstrip("\ufeff").partition("\n")
    title = heading(plain(title))
    if not title:
        raise BadInput("the first line must be the title", path, 1)
    sentences = [sentence for block in blocks(body) for sentence in split(block)]
    return Page(name, title, [Sentence(name, i, text) for i, text in enumerate(sentences, 1)])


def blocks(text: str) -> list[str]:
    """Paragraphs, headings and bullets; bullets join the line before them if that ends in a colon."""
    found: list[list[str]] = []
    fresh, leading, listed = True, False, False  # a block starts here; bullets join the last block; in a list
    for line in text.split("\n"):
        bullet = BULLET.match(line) or NUMBERED.match(line)
        if bullet and bullet.re is NUMBERED and not (fresh or listed or bullet[1] == "1"):
            bullet = None  # a wrapped line of prose: "on chromosome / 7. The gene"
        if not line.strip():
            fresh, listed = True, False
        elif HEADING.match(line):
            found.append([heading(line)])
            fresh, leading = True, False
        elif bullet:
            leading = leading or bool(found and found[-1][-1].rstrip().endswith(":"))
            if leading:
                found[-1].append(line[bullet.end() :])
            else:
                found.append([line[bullet.end() :]])
            fresh, listed = False, True
        else:
            if fresh:
                found.append([line])
                leading = False
            else:
                found[-1][-1] = wrapped(found[-1][-1], line)
            fresh = False
    return [joined(block) for block in found]


def wrapped(text: str, line: str) -> str:
    """The next line of a paragraph; a word broken after its hyphen is one word."""
    text, line = text.rstrip(), line.strip()
    return text + line if re.search(r"[^\W_]-$", text) and line[:1].islower() else f"{text} {line}"


def joined(block: list[str]) -> str:
    lead, *items = [plain(line) for line in block]
    return " ".join([lead, ", ".join(item.rstrip(",;") for item in items)]).strip()


def heading(line: str) -> str:
    """A heading's words without the marks of Markdown or of a wiki."""
    match = HEADING.match(line)
    return plain(match[1] or match[2] or "") if match else line


def plain(text: str) -> str:
    """White space of any kind, line and paragraph separators included, as single spaces."""
    return " ".join(text.split())


def split(text: str) -> list[str]:
    """The sentences of one paragraph."""
    found, start = [], 0
    for stop in STOP.finditer(text):
        if ends(text[max(start, stop.start() - 60) : stop.start() + 1], text[stop.end()].isdigit()):
            found.append(text[start : stop.end()].strip())
            start = stop.end()
    return [sentence for sentence in [*found, text[start:].strip()] if sentence]


def ends(text: str, number: bool) -> bool:
    """Does the mark at the end of this text end a sentence, or an abbreviation? ``number``: a number follows."""
    if not text.endswith("."):
        return True
    words = text[:-1].split(" ")[-2:]
    word = words[-1].lstrip("(['\"")
    capitals = word.isupper() and len(word) > 1
    if re.fullmatch(r"(?:[A-Z]\.)+[A-Z]", word):
        return False
    if not capitals and word.lower() in (OPEN | COUNTED if number else OPEN):
        return False
    return not re.fullmatch(r"[A-Z]", word) or words[0].lower() in LETTERED
