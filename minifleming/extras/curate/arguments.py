"""Command-line arguments of the curation, with defaults, ranges and validation."""

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

DESCRIPTION = """Curation of public question banks (arXiv:2509.15279 §3.1, Fig. 2).

    python -m minifleming.rods.curate medqa=train.jsonl kg=items.jsonl \\
        --decontaminate medqa=test.jsonl --out F

writes F (items), F.dropped.jsonl, F.quarantine.jsonl and F.card.md."""
PATHS = ("sets", "decontaminate", "votes", "tier_votes", "out")
NO_EFFECT = ("workers", "examples")  # on the items
SETTINGS = Settings()
LIMITS = Limits()
NUMBERS = [  # flag, default, lowest and highest value, help
    ("--seed", 0, 0, math.inf, "seed of the blend; the same seed gives the same bytes"),
    ("--workers", 1, 1, 256, "processes; any number gives the same bytes"),
    ("--examples", 0, 0, 1000, "dropped items to show in the card, per reason"),
    ("--shortest", SETTINGS.shortest, 1, 10000,
     "minimum characters of a question; an ideograph counts double"),
    ("--gram", LIMITS.size, 2, 100, "words of a shared run that is examined, as in GPT-3"),
    ("--gram-common", LIMITS.common, 1, math.inf,
     "a run in more benchmark items than this is a stock phrase"),
    ("--covered", LIMITS.covered, 0, 1,
     "share of a question's weight in shared runs: copies have 0.75 and more"),
    ("--nats", LIMITS.nats, 0, math.inf,
     "minimum weight of shared words among 3,170 benchmark items, in proportion to log N; "
     "template wordings reach 46"),
    ("--similar", LIMITS.near, 1, 2,
     "similarity of question plus options, each 0 to 1: 1.6 gives under 1 %% false alarms"),
    ("--similar-question", LIMITS.question, 0, 1, "minimum similarity of the question"),
    ("--retouched", LIMITS.retouched, 0, 1,
     "similarity of the options above which a word of the question may differ"),
    ("--samples", SETTINGS.samples, 1, 10000, "votes that verify a label"),
    ("--least", SETTINGS.least, 1, 10000, "an item with fewer correct votes is quarantined"),
    ("--easy", SETTINGS.easy, 0, 1, "minimum pass rate of an easy item"),
    ("--difficult", SETTINGS.difficult, 0, 1, "maximum pass rate of a difficult item"),
]


def parser() -> Parser:
    p = Parser(prog="curate", allow_abbrev=False, description=DESCRIPTION,
               formatter_class=argparse.RawDescriptionHelpFormatter,
               epilog="Research software. Not for clinical use.")
    p.add_argument("sets", nargs="+", metavar="NAME=PATH",
                   help="the name of a public set and its file, or any other name and a JSONL "
                        "file of items; of two equal items the first stays")
    p.add_argument("--decontaminate", action="append", default=[], metavar="NAME=PATH",
                   help="a benchmark whose items are removed; may be repeated")
    p.add_argument("--votes", type=Path,
                   help="completions of the items by generate.py: verify labels, rate tiers")
    p.add_argument("--tier-votes", type=Path,
                   help='tiers chosen by a model, one {"id": ..., "tiers": ["easy", ...]} a line')
    p.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    p.add_argument("--near", default=SETTINGS.near,
                   help="Jaccard similarity of near duplicates (default: %(default)s)")
    for flag, default, _, _, text in NUMBERS:
        p.add_argument(flag, type=type(default), default=default,
                       help=f"{text} (default: {default})")
    p.add_argument("--n", type=int, help="items to draw (default: as many as the ratios allow)")
    p.add_argument("--mix", default="", metavar="SOURCE=RATIO,...", help="e.g. medqa=2,embedded=1")
    p.add_argument("--languages", default="", metavar="LANGUAGE=RATIO,...", help="e.g. en=1,zh=1")
    p.add_argument("--tiers", default="", metavar="TIER=RATIO,...",
                   help="e.g. easy=1,moderate=2,difficult=2")
    return p


def settings(args: argparse.Namespace) -> Settings:
    """Returns the settings. Raises BadInput with the flag's name for a value out of range."""
    for flag, _, low, high, _ in NUMBERS:
        value = getattr(args, flag[2:].replace("-", "_"))
        if not (low <= value <= high and math.isfinite(value)):
            raise BadInput(f"{flag}: {value} is out of range")
    if args.difficult >= args.easy:
        raise BadInput("--difficult: must be below --easy")
    if args.least > args.samples:
        raise BadInput("--least: more than --samples")
    if args.n is not None and args.n < 1:
        raise BadInput("--n: must be positive")
    decimal = re.fullmatch(r"0?\.\d{1,9}|1(\.0{0,9})?", args.near)
    if not decimal or not Fraction(args.near):
        raise BadInput(f"--near: {args.near} is out of range; a decimal above 0, at most 1")
    for argument in (*args.sets, *args.decontaminate):
        parse(argument)
    limits = Limits(args.gram, args.gram_common, args.covered, args.nats, args.similar,
                    args.similar_question, args.retouched)
    return Settings(args.shortest, args.near, limits, args.samples, args.least, args.easy,
                    args.difficult, all_ratios(args), args.n, args.seed)


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


def shown_arguments(args: argparse.Namespace) -> dict[str, str]:
    """Returns the arguments that the card shows: no paths, nothing about the machine."""
    shown = {}
    for name, value in vars(args).items():
        if name not in PATHS + NO_EFFECT and value not in (None, ""):
            shown[name] = str(value)
    return shown
