"""Reads triples that a model wrote for each sentence, from the completions of generate.py.

    {"id": "1", "sample": 0, "text": "gout | has_symptom | podagra", ...}
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from minifleming.extras.extract.cues import signatures
from minifleming.extras.extract.lexicon import Lexicon, Mention
from minifleming.extras.extract.pages import Sentence
from minifleming.rods.graph import Graph
from minifleming.rods.item import Triple, read_jsonl
from minifleming.run.errors import BadInput

MARK = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+")  # before an answer's line


class AnswersRelator:
    """Triples that a model wrote for each sentence, as lines "head | relation | tail"."""

    how = "model"

    def __init__(self, graph: Graph, names: Lexicon, answers: dict[str, list[str]]):
        """``answers``: by sentence id ("gout:3"), from ``read_answers``."""
        self.types, self.names, self.answers = names.types, names, answers
        self.signature = signatures(graph)
        self.counts: Counter[str] = Counter()

    def relate(self, sentence: Sentence, entities: list[Mention]) -> list[Triple]:
        there = {name for mention in entities if mention.end > mention.start for name in mention.names}
        found: list[Triple] = []
        for text in self.answers.get(sentence.id, ()):
            for line in re.split(r"[\r\n]+", text.rpartition("</think>")[2]):
                result = self._accept(line, there) if line.strip() else None
                if isinstance(result, str):
                    self.counts[result] += 1
                elif result:
                    found.append(result)
        return list(dict.fromkeys(found))

    def _accept(self, line: str, there: set[str]) -> Triple | str:
        """The triple of a line, or why it is refused."""
        cells = [cell.strip().strip("`\"'.") for cell in MARK.sub("", line).strip().strip("|").split("|")]
        if len(cells) != 3 or not all(cells):
            return "not a triple"
        relation = cells[1].lower().replace(" ", "_")
        if relation not in self.signature:
            return "unknown relation"
        heads, tails = self._names(cells[0]), self._names(cells[2])
        if not heads or not tails:
            return "unknown name"
        fits = [(h, relation, t) for h in heads & there for t in tails & there if h != t]
        if not fits:
            return "name not in the sentence"
        fits = [triple for triple in fits if (self.types[triple[0]], self.types[triple[2]]) in self.signature[relation]]
        return "types do not fit" if not fits else "ambiguous" if len(fits) > 1 else fits[0]

    def _names(self, text: str) -> set[str]:
        """The nodes that the whole text is a surface of."""
        mentions = self.names.find(text)
        return set(mentions[0].names) if mentions and (mentions[0].start, mentions[0].end) == (0, len(text)) else set()


def read_answers(path: Path, ids: list[str]) -> tuple[dict[str, list[str]], int]:
    """Completions by sentence id, and how many belong to no sentence.

    An ``id`` is a sentence's ("gout:3") or, as generate.py writes it, the line of the prompt: "1" is ``ids[0]``.
    """
    known, found, strays = set(ids), {}, 0
    for number, record in read_jsonl(path):
        name, text = record.get("id"), record.get("text")
        if not isinstance(name, str) or not isinstance(text, str):
            raise BadInput("a completion needs 'id' and 'text'", path, number)
        if re.fullmatch(r"[1-9]\d{0,8}", name) and int(name) <= len(ids):
            name = ids[int(name) - 1]
        if name in known:
            found.setdefault(name, []).append(text)
        else:
            strays += 1
    return found, strays
