"""Curates public question banks (arXiv:2509.15279 §3.1, Fig. 2).

    python -m minifleming.rods.curate medqa=train.jsonl kg=items.jsonl \\
        --decontaminate medqa=test.jsonl --out F

writes F (items), F.dropped.jsonl, F.quarantine.jsonl and F.card.md. The same input, arguments and
seed give the same bytes. Research software, not for clinical use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path

from minifleming.extras.curate.data_card import data_card
from minifleming.extras.curate.sources import parse, pool, read_sources
from minifleming.extras.curate.step import Dropped
from minifleming.extras.curate.steps import curate
from minifleming.extras.curate.votes import SAMPLES, read_votes
from minifleming.rods.item import write_items
from minifleming.run.checkpoint import ensure_writable, sha256, write_text
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli


def parser() -> Parser:
    p = Parser(prog="curate", allow_abbrev=False, description=__doc__,
               formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("sets", nargs="+", metavar="NAME=PATH",
                   help="the name of a public set and its file, or any other name and a JSONL "
                        "file of items; of two equal items the first stays")
    p.add_argument("--decontaminate", action="append", default=[], metavar="NAME=PATH",
                   help="a benchmark whose items are removed; may be repeated")
    p.add_argument("--votes", type=Path,
                   help="completions of the items by generate.py: verify labels, rate tiers")
    p.add_argument("--samples", type=int, default=SAMPLES,
                   help="votes that verify a label (default: %(default)s)")
    p.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    p.add_argument("--n", type=int, help="items to draw (default: as many as the ratios allow)")
    p.add_argument("--mix", default="", metavar="SOURCE=RATIO,...", help="e.g. medqa=2,embedded=1")
    p.add_argument("--languages", default="", metavar="LANGUAGE=RATIO,...", help="e.g. en=1,zh=1")
    p.add_argument("--tiers", default="", metavar="TIER=RATIO,...",
                   help="e.g. easy=1,moderate=2,difficult=2")
    p.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    return p


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.samples < 1 or (args.n is not None and args.n < 1):
        raise BadInput("--n, --samples: must be positive")
    ratios = {"source": read_ratios("--mix", args.mix),
              "language": read_ratios("--languages", args.languages),
              "tier": read_ratios("--tiers", args.tiers)}
    refuse_inputs(args)
    pairs, sources = read_sources(args.sets)
    against, benchmarks = read_sources(args.decontaminate)
    items = pool(pairs)
    shown = {}
    for name in ("samples", "n", "mix", "languages", "tiers", "seed"):
        if getattr(args, name) not in (None, ""):
            shown[name] = str(getattr(args, name))
    votes = None
    if args.votes:
        votes = read_votes(args.votes, items)
        print(f"{args.votes.name}: votes on {len(votes)} of {len(items)} items")
        shown["votes"] = f"{args.votes.name} sha256 {sha256(args.votes)}"
    curated = curate(items, against=against, votes=votes, samples=args.samples, ratios=ratios,
                     n=args.n, seed=args.seed)
    if not curated.items:
        raise RunFailed(f"no item of {len(items)} is left")
    held = [dropped for dropped in curated.left if dropped.quarantined]
    left = [dropped for dropped in curated.left if not dropped.quarantined]
    write_text(beside(args.out, ".dropped.jsonl"), "".join(map(line, left)))
    write_text(beside(args.out, ".quarantine.jsonl"), "".join(map(line, held)))
    card = data_card(args.out.name, curated, sources, benchmarks, shown)
    write_text(beside(args.out, ".card.md"), card)
    write_items(args.out, curated.items)  # last: if they exist, the other files are complete
    short = sum(c.short for c in curated.classes)
    print(f"{len(curated.items)} of {len(items)} items in {args.out}; {len(held)} in quarantine"
          + (f"; the blend is short of {short}" if short else ""))
    return 0


def read_ratios(flag: str, text: str) -> dict[str, Fraction]:
    """"medqa=2,kg=1" -> {"medqa": 2, "kg": 1}"""
    found: dict[str, Fraction] = {}
    for part in text.split(",") if text else []:
        name, _, number = part.partition("=")
        if not name or name in found or not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", number):
            raise BadInput(f"{flag}: '{part}' must be NAME=RATIO, each name once")
        found[name] = Fraction(number)
    if found and not any(found.values()):
        raise BadInput(f"{flag}: every ratio is 0")
    return found


def refuse_inputs(args: argparse.Namespace) -> None:
    """Raises BadInput if an output would overwrite an input."""
    ends = ("", ".dropped.jsonl", ".quarantine.jsonl", ".card.md")
    outputs = [beside(args.out, end).resolve() for end in ends]
    inputs = [parse(text)[1] for text in (*args.sets, *args.decontaminate)]
    inputs += [args.votes] if args.votes else []
    for path in inputs:
        if path.resolve() in outputs:
            raise BadInput("is an input, too; nothing is overwritten", path)
    ensure_writable(args.out)


def beside(out: Path, end: str) -> Path:
    return out.with_name(out.name + end)


def line(dropped: Dropped) -> str:
    """Returns the line of a dropped item in its file."""
    record = dataclasses.asdict(dropped)
    del record["quarantined"]
    return json.dumps(record, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
