"""Command-line arguments of the curation with their defaults, and their validation."""

from __future__ import annotations

import argparse
import math
import re
from fractions import Fraction
from pathlib import Path

from minifleming.extras.curate.blend import Ratios
from minifleming.extras.curate.contamination import Limits
from minifleming.extras.curate.sources import parse
from minifleming.extras.curate.steps import Settings
from minifleming.rods.item import TIERS
from minifleming.run.errors import BadInput, Parser

DEFAULT, LIMITS = Settings(), Limits()
PATHS = ("sets", "decontaminate", "votes", "tier_votes", "out")
MACHINE = ("workers", "examples")  # change no item


def parser() -> Parser:
    p = Parser(prog="curate", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, description=(
        "Curation of public question banks (arXiv:2509.15279 §3.1, Fig. 2).\n\n"
        "    python -m minifleming.rods.curate medqa=train.jsonl kg=items.jsonl --decontaminate medqa=test.jsonl --out F\n\n"
        "writes F (items), F.dropped.jsonl, F.quarantine.jsonl and F.card.md."),
        epilog="Research software. Not for clinical use.")
    p.add_argument("sets", nargs="+", metavar="NAME=PATH",
                   help="a public set by the name of its reader, or any other name and a JSONL file of items; of two "
                        "equal items the first stays")
    p.add_argument("--decontaminate", action="append", default=[], metavar="NAME=PATH",
                   help="a benchmark to be kept out of the items; may be repeated")
    p.add_argument("--votes", type=Path, help="completions of the items by generate.py: verifies labels, rates tiers")
    p.add_argument("--tier-votes", type=Path, help='verdicts of a model: {"id": ..., "tiers": ["easy", ...]} a line')
    p.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    p.add_argument("--seed", type=int, default=0, help="of the blend; same seed, same bytes (default: 0)")
    p.add_argument("--workers", type=int, default=1, help="processes; any number gives the same bytes (default: 1)")
    p.add_argument("--examples", type=int, default=0,
                   help="dropped items to show in the card, per reason (default: 0, because it is a benchmark's text)")
    add_numbers(p)
    return p


def add_numbers(p: Parser) -> None:
    def number(flag: str, default, kind, why: str) -> None:
        p.add_argument(flag, type=kind, default=default, help=f"{why} (default: {default})")

    number("--shortest", DEFAULT.shortest, int, "characters of a question, ideographs count double: fewer ask nothing")
    number("--near", DEFAULT.near, str, "Jaccard similarity of near duplicates: one word of fifteen may differ")
    number("--gram", LIMITS.size, int, "words of a shared run that is followed up, as in GPT-3's decontamination")
    number("--gram-common", LIMITS.common, int, "a run in more benchmark items than this is a stock phrase")
    number("--covered", LIMITS.covered, float, "part of a question's weight in shared runs: copies have 0.75 and more")
    number("--nats", LIMITS.nats, float, "least weight of shared words among 3,170 benchmark items, "
           "in proportion to log N: frames of templates reach 46")
    number("--similar", LIMITS.near, float, "question + options, each 0 to 1: at 1.6 templates give under 1 %% alarms")
    number("--similar-question", LIMITS.question, float, "least similarity of the question alone")
    number("--retouched", LIMITS.retouched, float, "similarity of the options from which a word may differ")
    number("--samples", DEFAULT.samples, int, "votes that verify a label: one right of two misses five with 3 %%")
    number("--least", DEFAULT.least, int, "right votes below which an item is quarantined")
    number("--easy", DEFAULT.easy, float, "pass rate from which an item is easy")
    number("--difficult", DEFAULT.difficult, float, "pass rate up to which an item is difficult")
    p.add_argument("--n", type=int, help="items to blend (default: as many as the ratios allow)")
    p.add_argument("--mix", default="", metavar="SOURCE=RATIO,...", help="e.g. medqa=2,embedded=1")
    p.add_argument("--languages", default="", metavar="LANGUAGE=RATIO,...", help="e.g. en=1,zh=1")
    p.add_argument("--tiers", default="", metavar="TIER=RATIO,...", help="e.g. easy=1,moderate=2,difficult=2")


RANGES = {"workers": (1, 256), "examples": (0, 1000), "shortest": (1, 10000), "gram": (2, 100),
          "gram_common": (1, math.inf), "covered": (0, 1), "nats": (0, math.inf), "similar": (1, 2),
          "similar_question": (0, 1), "retouched": (0, 1), "samples": (1, 10000), "least": (1, 10000),
          "easy": (0, 1), "difficult": (0, 1), "seed": (0, math.inf)}


def settings(args: argparse.Namespace) -> Settings:
    """Raises BadInput with the flag's name for what is out of range."""
    for name, (low, high) in RANGES.items():
        value = getattr(args, name)
        if not (low <= value <= high and math.isfinite(value)):
            raise BadInput(f"--{name.replace('_', '-')}: {value} is out of range")
    if args.difficult >= args.easy:
        raise BadInput("--difficult: must be below --easy")
    if args.least > args.samples:
        raise BadInput("--least: more than --samples")
    if args.n is not None and args.n < 1:
        raise BadInput("--n: must be positive")
    if not re.fullmatch(r"0?\.\d{1,9}|1(\.0{0,9})?|0\.\d{1,9}", args.near) or not Fraction(args.near):
        raise BadInput(f"--near: {args.near} is out of range; a decimal above 0, at most 1")
    for argument in (*args.sets, *args.decontaminate):
        parse(argument)
    limits = Limits(args.gram, args.gram_common, args.covered, args.nats, args.similar, args.similar_question,
                    args.retouched)
    return Settings(args.shortest, args.near, limits, args.samples, args.least, args.easy, args.difficult,
                    all_ratios(args), args.n, args.seed)


def all_ratios(args: argparse.Namespace) -> Ratios:
    found = {"source": ratios("--mix", args.mix), "language": ratios("--languages", args.languages),
             "tier": ratios("--tiers", args.tiers)}
    unknown = sorted(set(found["tier"]) - set(TIERS))
    if unknown:
        raise BadInput(f"--tiers: '{unknown[0]}' is not one of {', '.join(TIERS)}")
    return {name: shares for name, shares in found.items() if shares}


def ratios(flag: str, text: str) -> dict[str, Fraction]:
    """"medqa=2,kg=1" -> {"medqa": 2, "kg": 1}"""
    found: dict[str, Fraction] = {}
    for part in text.split(",") if text else []:
        name, _, number = (word.strip() for word in part.partition("="))
        if not name or name in found or not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", number):
            raise BadInput(f"{flag}: '{part}' must be NAME=RATIO, each name once")
        found[name] = Fraction(number)
    if found and not any(found.values()):
        raise BadInput(f"{flag}: every ratio is 0")
    return found


def told(args: argparse.Namespace) -> dict[str, str]:
    """The arguments for the card: base names of files, nothing of the machine."""
    shown = {name: str(value) for name, value in vars(args).items() if name not in PATHS + MACHINE and value not in
             (None, "")}
    for name in ("votes", "tier_votes"):
        if getattr(args, name):
            shown[name] = getattr(args, name).name
    return shown
