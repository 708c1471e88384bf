"""Entity linking by lexicon: finds the nodes of a graph that a sentence names.

    "Wilson's disease affects the kidneys."
        ->  Mention(0, 16, "Wilson disease"), Mention(29, 36, "kidney")

Names are matched word by word, the longest first. Case, accents, hyphens, possessives, plurals and
British spelling are ignored; names in capitals ("HFE") must match exactly. A surface form of two
nodes gives no mention.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from minifleming.rods.graph import Graph

WORD = re.compile(r"[^\W_]+(?:['\u2019]s\b)?")
INSIDE = re.compile(r"['\u2019]?[\s\u2010-\u2015-]{0,3}")  # between two words of one name
CAPITALS = re.compile(r"(?=.*[A-Z])[A-Z0-9]+(?:-[A-Z0-9]+)*")
DEFINED = re.compile(r"\s*\(([A-Z][A-Za-z0-9]{1,9})\)")  # "... erythematosus (SLE)"


class Mention(NamedTuple):
    start: int
    end: int
    name: str

    @property
    def implied(self) -> bool:
        """Says whether the mention is empty: the sentence is about the node without naming it."""
        return self.start == self.end


class Lexicon:
    """The names of a graph by their normalised words. Search time is linear in the text."""

    def __init__(self, graph: Graph):
        self.types = dict(zip(graph.names, graph.types))
        self.entries: dict[tuple[str, ...], list[tuple[int, str, str]]] = {}
        for name in self.types:
            words = [fold(word) for word in WORD.findall(name)]
            exact = name if CAPITALS.fullmatch(name) else ""  # "": case is ignored
            keys = [tuple(words)]
            if words and not exact:
                keys += [(*words[:-1], last) for last in variants(words[-1])]
            for rank, key in enumerate(keys):  # a name precedes a plural or singular
                self.entries.setdefault(key, []).append((min(rank, 1), exact, name))
        self.longest = max(map(len, self.entries), default=0)

    def find(self, text: str, abbreviations: dict[str, str] | None = None) -> list[Mention]:
        """Returns the mentions from left to right, without overlap."""
        words = list(WORD.finditer(text))
        keys = [fold(word[0]) for word in words]
        found = []
        i = 0
        while i < len(words):
            length, name = self._longest(text, words, keys, i)
            if length <= 1 and abbreviations and words[i][0] in abbreviations:
                length, name = 1, abbreviations[words[i][0]]
            if name:
                mention = Mention(words[i].start(), words[i + length - 1].end(), name)
                if not is_word_part(text, mention):
                    found.append(mention)
            i += max(length, 1)
        return found

    def _longest(self, text: str, words: list[re.Match], keys: list[str],
                 i: int) -> tuple[int, str]:
        """Returns (number of words, name) of the longest surface form that starts at word ``i``."""
        best = (0, "")
        for j in range(i, min(i + self.longest, len(words))):
            if j > i and not INSIDE.fullmatch(text, words[j - 1].end(), words[j].start()):
                break
            surface = text[words[i].start() : words[j].end()]
            entries = self.entries.get(tuple(keys[i : j + 1]), ())
            entries = [entry for entry in entries if entry[1] in ("", surface)]
            if entries:
                rank = min(entries)[0]
                names = {name for entry_rank, _, name in entries if entry_rank == rank}
                best = j - i + 1, names.pop() if len(names) == 1 else ""
        return best

    def abbreviations(self, texts: Iterable[str]) -> dict[str, str]:
        """Returns those that the texts define: "systemic lupus erythematosus (SLE)".

        A name of the lexicon is an abbreviation ("INH", not the "HFE" of "tuberin (HFE)") only if
        the long form has its letters in this order.
        """
        found: dict[str, str] = {}
        for text in texts:
            for mention in self.find(text):
                match = DEFINED.match(text, mention.end)
                short = match[1] if match else ""
                letters = iter(mention.name.lower())
                if sum(c.isupper() for c in short) >= 2 and (
                        not self.find(short) or all(c in letters for c in short.lower())):
                    found.setdefault(short, mention.name)
        return found


def fold(word: str) -> str:
    """Returns the key of a word: no case, accents, possessive or British spelling."""
    word = re.sub(r"['\u2019]s$", "", word)
    if not word.isascii():
        letters = unicodedata.normalize("NFKD", word)
        word = "".join(c for c in letters if not unicodedata.combining(c))
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
