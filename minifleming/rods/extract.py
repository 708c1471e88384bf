"""The discovery agent at our scale: from plain-text pages to triples with provenance (arXiv:2509.15279 §3.1).

    python -m minifleming.rods.extract --pages FOLDER --lexicon embedded --out triples.tsv

    head    head_type  relation     tail     tail_type  source  sentence                          how
    gout    Disease    has_symptom  podagra  Symptom    gout    Podagra is a hallmark of gout.    pattern

One line per triple, sentence and way; ``graph.load_graph`` reads the file. The steps: pages.py cuts pages into
sentences, lexicon.py and clauses.py link names and pronouns, a relator finds the triples of one sentence.

A model may find more of them, in two steps through files:

    python -m minifleming.rods.extract --pages FOLDER --prompts-out prompts.txt --out triples.tsv
    python generate.py --model DIR --prompts prompts.txt --out answers.jsonl
    python -m minifleming.rods.extract --pages FOLDER --answers answers.jsonl --out triples.tsv

prompts.txt has one prompt a line, for every sentence with two entities; generate.py numbers its answers by line, and
the second call makes the same list again. An answer's line "head | relation | tail" is taken only if both names link
to entities of that sentence and the graph joins their types by that relation; the rest is counted by reason. What a
model reads into a sentence is not checked against its wording.

Research software, not for clinical use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from minifleming.rods.clauses import link
from minifleming.rods.graph import COLUMNS, Graph, load_graph
from minifleming.rods.item import Triple, read_jsonl
from minifleming.rods.lexicon import Lexicon, Mention, lexicon
from minifleming.rods.pages import Page, Sentence, read_pages
from minifleming.rods.relations import PatternRelator, signatures
from minifleming.run.checkpoint import writable, write_text
from minifleming.run.errors import BadInput, Parser, guarded

MARK = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+")  # before an answer's line


class Relator(Protocol):
    how: str  # what the output's last column says
    counts: Counter[str]  # refused candidates by reason

    def relate(self, sentence: Sentence, entities: list[Mention]) -> list[Triple]:
        """The triples that the sentence states of the entities linked in it, none twice."""


class Extracted(NamedTuple):
    triple: Triple
    sentence: Sentence
    how: str


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


def linked(pages: list[Page], names: Lexicon) -> Iterator[tuple[Sentence, list[Mention]]]:
    for page in pages:
        yield from zip(page.sentences, link(names, page))


def extract(pages: list[Page], names: Lexicon, relators: list[Relator]) -> list[Extracted]:
    """Every relator on every sentence, pages in the order of their names."""
    return [Extracted(triple, sentence, relator.how)
            for sentence, entities in linked(sorted(pages), names) for relator in relators
            for triple in relator.relate(sentence, entities)]


def table(found: list[Extracted], types: dict[str, str]) -> str:
    """The TSV. The source is the page's name."""
    rows = [(*COLUMNS, "source", "sentence", "how")]
    for (head, relation, tail), sentence, how in found:
        rows.append((head, types[head], relation, tail, types[tail], sentence.page, sentence.text, how))
    return "".join("\t".join(row) + "\n" for row in rows)


def prompted(pages: list[Page], names: Lexicon) -> list[tuple[Sentence, list[str]]]:
    """Sentences that tell at least two nodes, and these nodes in the order of the sentence."""
    found = []
    for sentence, entities in linked(sorted(pages), names):
        told = list(dict.fromkeys(name for m in entities if m.end > m.start for name in m.names))
        if len(told) > 1:
            found.append((sentence, told))
    return found


def prompt(sentence: Sentence, told: list[str], types: dict[str, str], signature: dict) -> str:
    """One line, with "\\n" for a line break as generate.py reads it. A backslash of the sentence becomes a slash."""
    kinds = {types[name] for name in told}
    relations = [r for r in sorted(signature) if any(h in kinds and t in kinds for h, t in signature[r])]
    lines = [f"Sentence: {sentence.text}", "Entities: " + "; ".join(f"{name} ({types[name]})" for name in told),
             "Relations: " + ", ".join(relations),
             "Write every triple that the sentence states, one a line, as: head | relation | tail",
             "Use only these entities and relations. Write nothing that the sentence denies. If there is none: none"]
    return "\\n".join(line.replace("\\", "/") for line in lines)


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


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="extract", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pages", type=Path, required=True, help="a folder of *.txt, UTF-8, the first line the title")
    parser.add_argument("--lexicon", default="embedded", help="embedded, or a triple file: names, types and relations")
    parser.add_argument("--synonyms", type=Path, help="name, tab, synonym")
    parser.add_argument("--prompts-out", type=Path, help="write a prompt for every sentence with two entities")
    parser.add_argument("--answers", type=Path, help="completions of these prompts (generate.py's JSONL)")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    graph = load_graph(args.lexicon)
    names = lexicon(graph, args.synonyms)
    pages = read_pages(args.pages)
    for path in filter(None, (args.out, args.prompts_out)):
        writable(path)
    relators: list[Relator] = [PatternRelator(graph)]
    if args.answers or args.prompts_out:
        asked = prompted(pages, names)
    if args.answers:
        answers, strays = read_answers(args.answers, [sentence.id for sentence, _ in asked])
        relators.append(AnswersRelator(graph, names, answers))
        relators[-1].counts.update({"no such prompt": strays} if strays else {})
    found = extract(pages, names, relators)
    if args.prompts_out:
        signature = signatures(graph)
        write_text(args.prompts_out, "".join(prompt(*pair, names.types, signature) + "\n" for pair in asked))
    write_text(args.out, table(found, names.types))
    print(f"{len(found)} rows, {len({row.triple for row in found})} triples, {len(pages)} pages -> {args.out}")
    for relator in relators:
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(relator.counts.items()))
        print(f"{relator.how}: {sum(row.how == relator.how for row in found)} rows; refused: {refused or 'none'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
