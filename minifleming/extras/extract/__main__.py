"""The discovery agent at our scale: from plain-text pages to triples with provenance (arXiv:2509.15279 §3.1).

    python -m minifleming.rods.extract --pages FOLDER --lexicon embedded --out triples.tsv

    head    head_type  relation     tail     tail_type  source  sentence                          how
    gout    Disease    has_symptom  podagra  Symptom    gout    Podagra is a hallmark of gout.    pattern

One line per triple, sentence and way; every command reads the file as a graph. The steps: pages.py cuts pages into
sentences, lexicon.py and clauses.py link names and pronouns, a relator (relations.py, answers.py) finds the triples of
one sentence, find.py brings them together.

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

from pathlib import Path

from minifleming.extras.extract.cues import signatures
from minifleming.extras.extract.find import Relator, extract, prompt, prompted, table
from minifleming.extras.extract.lexicon import lexicon
from minifleming.extras.extract.model_answers import AnswersRelator, read_answers
from minifleming.extras.extract.pages import read_pages
from minifleming.extras.extract.relations import PatternRelator
from minifleming.rods.readers import load_graph
from minifleming.run.checkpoint import ensure_writable, write_text
from minifleming.run.errors import Parser, run_cli


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
        ensure_writable(path)
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
    raise SystemExit(run_cli(main))
