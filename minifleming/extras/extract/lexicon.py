"""Entity linking by lexicon: finds the nodes of a graph that a sentence names.

    "Wilson's disease affects the kidneys."
        ->  Mention(0, 16, ("Wilson disease",)), Mention(29, 36, ("kidney",))

A trie matches names word by word, the longest first. Case, accents, hyphens, possessives, plurals
and British spelling are ignored; names in capitals ("HFE") must match exactly. A surface form of
two nodes gives a mention with two names; the relation's types decide later (relations.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from minifleming.rods.graph import Graph
from minifleming.run.checkpoint import read_text
from minifleming.run.errors import BadInput

WORD = re.compile(r"[^\W_]+(?:['\u2019]s\b)?")
INSIDE = re.compile(r"['\u2019]?[\s\u2010-\u2015-]{0,3}")  # between two words of one name
CAPITALS = re.compile(r"(?=.*[A-Z])[A-Z0-9]+(?:-[A-Z0-9]+)*")
DEFINED = re.compile(r"\s*\(([A-Z][A-Za-z0-9]{1,9})\)")  # "... erythematosus (SLE)"
DEFINES = re.compile(r"([A-Z][A-Za-z0-9]{1,9})\s*\($")  # "SLE (systemic ..."
GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "κ": "kappa", "ω": "omega"}
# An organ before one of these words is part of another name: "lung cancer", "heart attack".
COMPOUND = re.compile(
    r"\s(?:cancer|tumou?r|attack|failure|disease|transplant\w*|biops\w+|injury|function|cells?|work"
    r"|tests?|counts?|pressure|enzymes?|muscle|beat|rate|sounds?|films?|x-rays?|radiograph\w*"
    r"|scan\w*)\b", re.IGNORECASE)

Abbreviations = dict[str, tuple[str, ...]]


class Mention(NamedTuple):
    start: int
    end: int
    names: tuple[str, ...]  # candidates, sorted; more than one if the surface form is ambiguous

    @property
    def implied(self) -> bool:
        """Says whether the mention is empty: the sentence is about the node without naming it."""
        return self.start == self.end


class Entry(NamedTuple):
    name: str
    exact: str  # the exact surface form, or "" if case is ignored
    rank: int  # 0 for a name or synonym, 1 for its plural or singular


class Lexicon:
    """A trie over normalised words. Search time is linear in the length of the text."""

    def __init__(self, types: dict[str, str], synonyms: Iterable[tuple[str, str]] = ()):
        """``types``: type by node; ``synonyms``: pairs (node, other surface form)."""
        self.types = types
        self.root: dict = {}
        for name, surface in [*((name, name) for name in types), *synonyms]:
            self._add(name, surface)

    def _add(self, name: str, surface: str) -> None:
        words = [fold(word) for word in WORD.findall(surface)]
        exact = surface if CAPITALS.fullmatch(surface) else ""
        if words:
            self._insert(words, Entry(name, exact, 0))
        if words and not exact:
            for last in variants(words[-1]):
                self._insert([*words[:-1], last], Entry(name, "", 1))

    def _insert(self, words: list[str], entry: Entry) -> None:
        node = self.root
        for word in words:
            node = node.setdefault(word, {})
        node.setdefault("", []).append(entry)

    def find(self, text: str, abbreviations: Abbreviations | None = None) -> list[Mention]:
        """Returns the mentions from left to right, without overlap."""
        words = list(WORD.finditer(text))
        found = []
        i = 0
        while i < len(words):
            length, names = self._longest(text, words, i)
            if length <= 1 and abbreviations and words[i][0] in abbreviations:
                length = 1
                names = tuple(sorted({*names, *abbreviations[words[i][0]]}))
            if names:
                mention = Mention(words[i].start(), words[i + length - 1].end(), names)
                if not is_word_part(text, mention) and not self._in_compound(text, mention):
                    found.append(mention)
            i += max(length, 1)
        return merge_abbreviations(text, found)

    def _longest(self, text: str, words: list[re.Match], i: int) -> tuple[int, tuple[str, ...]]:
        """Returns (number of words, names) of the longest surface form that starts at word ``i``."""
        node = self.root
        best = (0, ())
        for j in range(i, len(words)):
            if j > i and not INSIDE.fullmatch(text, words[j - 1].end(), words[j].start()):
                break
            node = node.get(fold(words[j][0]))
            if node is None:
                break
            surface = text[words[i].start() : words[j].end()]
            entries = [e for e in node.get("", ()) if e.exact in ("", surface)]
            if entries:
                rank = min(e.rank for e in entries)
                best = j - i + 1, tuple(sorted({e.name for e in entries if e.rank == rank}))
        return best

    def _in_compound(self, text: str, mention: Mention) -> bool:
        organ = all(self.types[name] == "Anatomy" for name in mention.names)
        return organ and COMPOUND.match(text, mention.end) is not None

    def abbreviations(self, texts: Iterable[str]) -> Abbreviations:
        """Returns those that the texts define: "systemic lupus (SLE)" or "SLE (systemic lupus)"."""
        found: dict[str, set[str]] = {}
        for text in texts:
            for mention in self.find(text):
                match = DEFINED.match(text, mention.end)
                if not match and text.startswith(")", mention.end):
                    match = DEFINES.search(text[max(0, mention.start - 14) : mention.start])
                short = match[1] if match else ""
                if sum(c.isupper() for c in short) >= 2 and self._abbreviates(short, mention):
                    found.setdefault(short, set()).update(mention.names)
        return {short: tuple(sorted(found[short])) for short in sorted(found)}

    def _abbreviates(self, short: str, mention: Mention) -> bool:
        """Says whether ``short`` abbreviates the mention.

        A name of the lexicon does ("INH", not the "HFE" of "tuberin (HFE)") only if the long form
        has its letters in this order.
        """
        letters = iter(mention.names[0].lower())
        return not self.find(short) or all(c in letters for c in short.lower())


def fold(word: str) -> str:
    """Returns the key of a word in the trie: no case, accents, possessive or British spelling."""
    word = re.sub(r"['\u2019]s$", "", word)
    if not word.isascii():
        letters = unicodedata.normalize("NFKD", word)
        word = "".join(GREEK.get(c, c) for c in letters if not unicodedata.combining(c))
    return word.casefold().replace("ae", "e").replace("oe", "e").replace("our", "or")


def variants(word: str) -> list[str]:
    """Returns the plurals of a word or, for a plural, its singular."""
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


def is_word_part(text: str, mention: Mention) -> bool:
    """Says whether a hyphen joins the mention to another word: "gluten-free", "non-asthma"."""
    before = text[max(0, mention.start - 2) : mention.start]
    after = text[mention.end : mention.end + 2]
    return bool(re.fullmatch(r"\w-", before) or re.fullmatch(r"-\w", after))


def merge_abbreviations(text: str, mentions: list[Mention]) -> list[Mention]:
    """Merges a name and its abbreviation in brackets, in either order, into one mention."""
    found: list[Mention] = []
    for mention in mentions:
        last = found[-1] if found else None
        in_brackets = (last and re.fullmatch(r"\s*\(", text[last.end : mention.start])
                       and text.startswith(")", mention.end))
        if in_brackets and last.names == mention.names:
            found[-1] = Mention(last.start, mention.end + 1, last.names)
        else:
            found.append(mention)
    return found


def read_synonyms(path: Path, types: dict[str, str]) -> list[tuple[str, str]]:
    """Reads ``name<TAB>synonym`` lines. Raises BadInput with file and line."""
    pairs = []
    for number, line in enumerate(read_text(path).lstrip("\ufeff").split("\n"), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not WORD.search(cells[1]):
            raise BadInput("expected name, tab, synonym", path, number)
        if cells[0] not in types:
            raise BadInput(f"'{cells[0]}' is not in the lexicon", path, number)
        pairs.append((cells[0], cells[1]))
    return pairs


def lexicon(graph: Graph, synonyms: Path | None = None) -> Lexicon:
    """Returns the lexicon of a graph's names and of a file of synonyms."""
    types = dict(zip(graph.names, graph.types))
    return Lexicon(types, read_synonyms(synonyms, types) if synonyms else ())
