"""Entity linking by lexicon: which nodes of a graph a sentence names, and where.

    "Wilson's disease affects the kidneys."   ->   Mention(0, 16, ("Wilson disease",)), Mention(29, 36, ("kidney",))

Names are matched word by word in a trie, the longest first, without regard to case, accents, hyphens, possessives,
plurals and British spelling. Surfaces in capitals ("HFE") are matched to the letter. A surface of two nodes gives a
mention with two names; the relation's types decide later (patterns.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minifleming.rods.graph import Graph
from minifleming.run.errors import BadInput

WORD = re.compile(r"[^\W_]+(?:['\u2019]s\b)?")
INSIDE = re.compile(r"['\u2019]?[\s\u2010-\u2015-]{0,3}")  # what may stand between two words of one name
CAPITALS = re.compile(r"(?=.*[A-Z])[A-Z0-9]+(?:-[A-Z0-9]+)*")
DEFINED = re.compile(r"\s*\(([A-Z][A-Za-z0-9]{1,9})\)")  # "... erythematosus (SLE)"
DEFINES = re.compile(r"([A-Z][A-Za-z0-9]{1,9})\s*\($")  # "SLE (systemic ..."
GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "ω": "omega"}
# An organ before one of these words is part of another thing: "lung cancer", "heart attack".
COMPOUND = re.compile(r"\s(?:cancer|tumou?r|attack|failure|disease|transplant\w*|biops\w+|injury|function|cells?|"
                      r"work|tests?|counts?|pressure|enzymes?|muscle|beat|rate|sounds?|films?|x-rays?|"
                      r"radiograph\w*|scan\w*)\b", re.IGNORECASE)
ORGAN = "Anatomy"

Abbreviations = dict[str, tuple[str, ...]]


class Mention(NamedTuple):
    start: int
    end: int
    names: tuple[str, ...]  # the candidates, sorted; one unless the surface is ambiguous


class Entry(NamedTuple):
    name: str
    exact: str  # the surface to the letter, or "" where case is free
    rank: int  # 0 a name or synonym, 1 a plural or singular of one


class Lexicon:
    """A trie over folded words. Finding is linear in the text: a match is never longer than the longest name."""

    def __init__(self, types: dict[str, str], synonyms: Iterable[tuple[str, str]] = ()):
        """``types`` maps each node to its type; ``synonyms`` are pairs (node, other surface)."""
        self.types = types
        self.root: dict = {}
        for name, surface in [*((name, name) for name in types), *synonyms]:
            self._add(name, surface)

    def _add(self, name: str, surface: str) -> None:
        words = [fold(word) for word in WORD.findall(surface)]
        exact = surface if CAPITALS.fullmatch(surface) else ""
        if words:
            self._insert(words, Entry(name, exact, 0))
        for last in () if exact or not words else variants(words[-1]):
            self._insert([*words[:-1], last], Entry(name, "", 1))

    def _insert(self, words: list[str], entry: Entry) -> None:
        node = self.root
        for word in words:
            node = node.setdefault(word, {})
        node.setdefault("", []).append(entry)

    def find(self, text: str, abbreviations: Abbreviations | None = None) -> list[Mention]:
        """Mentions from left to right, none overlapping. ``abbreviations``: those that the page defines."""
        words = [(match.start(), match.end(), match[0]) for match in WORD.finditer(text)]
        found, i = [], 0
        while i < len(words):
            length, names = self._longest(text, words, i)
            if length <= 1 and abbreviations and words[i][2] in abbreviations:
                length, names = 1, tuple(sorted({*names, *abbreviations[words[i][2]]}))
            if names:
                mention = Mention(words[i][0], words[i + length - 1][1], names)
                if free(text, mention) and not self._compound(text, mention):
                    found.append(mention)
            i += max(length, 1)
        return merged(text, found)

    def _longest(self, text: str, words: list, i: int) -> tuple[int, tuple[str, ...]]:
        """(words, names) of the longest surface that starts at word ``i``; (0, ()) without one."""
        node, best = self.root, (0, ())
        for j in range(i, len(words)):
            if j > i and not INSIDE.fullmatch(text, words[j - 1][1], words[j][0]):
                break
            node = node.get(fold(words[j][2]))
            if node is None:
                break
            surface = text[words[i][0] : words[j][1]]
            entries = [e for e in node.get("", ()) if e.exact in ("", surface)]
            if entries:
                rank = min(e.rank for e in entries)
                best = j - i + 1, tuple(sorted({e.name for e in entries if e.rank == rank}))
        return best

    def _compound(self, text: str, mention: Mention) -> bool:
        return (all(self.types[name] == ORGAN for name in mention.names)
                and COMPOUND.match(text, mention.end) is not None)

    def abbreviations(self, texts: Iterable[str]) -> Abbreviations:
        """Those that the texts define, as in "systemic lupus erythematosus (SLE)" or "SLE (systemic ...)"."""
        found: dict[str, set[str]] = {}
        for text in texts:
            for mention in self.find(text):
                after = DEFINED.match(text, mention.end)
                before = DEFINES.search(text[max(0, mention.start - 14) : mention.start])
                short = after[1] if after else before[1] if before and text.startswith(")", mention.end) else ""
                if sum(c.isupper() for c in short) >= 2 and self._stands_for(short, mention):
                    found.setdefault(short, set()).update(mention.names)
        return {short: tuple(sorted(found[short])) for short in sorted(found)}

    def _stands_for(self, short: str, mention: Mention) -> bool:
        """A surface of the lexicon ("tuberin (HFE)") is taken only if its letters stand in the long form, in order."""
        letters = iter(mention.names[0].lower())
        return not self.find(short) or all(c in letters for c in short.lower())


def fold(word: str) -> str:
    """A word without case, accents, possessive and British spelling: the key in the trie."""
    word = re.sub(r"['\u2019]s$", "", word)
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
        word = "".join(GREEK.get(c, c) for c in word)
    return word.casefold().replace("ae", "e").replace("oe", "e").replace("our", "or")


def variants(word: str) -> list[str]:
    """Plurals of a word and, for a plural, its singular."""
    if not word.isalpha() or len(word) < 3:
        return []
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return [word[:-1]] if len(word) > 4 else []
    if word.endswith("y") and word[-2] not in "aeiou":
        return [word[:-1] + "ies"]
    if word.endswith("us"):
        return [word[:-2] + "i", word + "es"]
    if word.endswith("is"):
        return [word[:-2] + "es"]
    return [word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")]


def free(text: str, mention: Mention) -> bool:
    """Not a part of a hyphened word: "gluten-free" and "non-asthma" name neither gluten nor asthma."""
    before = text[max(0, mention.start - 2) : mention.start]
    after = text[mention.end : mention.end + 2]
    return not (re.fullmatch(r"\w-", before) or re.fullmatch(r"-\w", after))


def merged(text: str, mentions: list[Mention]) -> list[Mention]:
    """A name and its abbreviation in brackets after it, or the other way round, are one mention."""
    found: list[Mention] = []
    for mention in mentions:
        last = found[-1] if found else None
        if last and last.names == mention.names and re.fullmatch(r"\s*\(", text[last.end : mention.start]) \
                and text.startswith(")", mention.end):
            found[-1] = Mention(last.start, mention.end + 1, last.names)
        else:
            found.append(mention)
    return found


def read_synonyms(path: Path, types: dict[str, str]) -> list[tuple[str, str]]:
    """``name<TAB>synonym`` lines, blank ones skipped. Raises BadInput with file and line."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise BadInput(error.strerror or "cannot be read", path) from None
    except UnicodeDecodeError as error:
        raise BadInput("not UTF-8 text", path, path.read_bytes()[: error.start].count(b"\n") + 1) from None
    pairs = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip():
            continue
        if len(cells) != 2 or not WORD.search(cells[1]):
            raise BadInput("expected name, tab, synonym", path, number)
        if cells[0] not in types:
            raise BadInput(f"'{cells[0]}' is not in the lexicon", path, number)
        pairs.append((cells[0], cells[1]))
    return pairs


def lexicon(graph: Graph, synonyms: Path | None = None) -> Lexicon:
    types = dict(zip(graph.names, graph.types))
    return Lexicon(types, read_synonyms(synonyms, types) if synonyms else ())
