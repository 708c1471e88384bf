"""Synthesize multiple-choice items with proofs from a medical knowledge graph (arXiv:2509.15279 §3.1).

    python synth_kg.py --graph embedded --n 2000 --seed 0 --out items.jsonl
    python synth_kg.py --n 500 --split heldout --out test.jsonl    no combination of --split train
    python synth_kg.py --graph hpo --style vignette --qualifiers --n 20000 --out hpo.jsonl
    python synth_kg.py --graph my.csv --columns head=subject,relation=predicate,tail=object \\
        --support-graph hpo --out my.jsonl

Research software. Not for clinical use.
"""

import dataclasses
from argparse import Namespace
from collections import Counter
from pathlib import Path

from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, write_items
from minifleming.rods.proof import find_fault
from minifleming.rods.query import Facts
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import (
    Reject,
    Split,
    item_builder,
    support_filter,
    synthesize,
    tier_counts,
)
from minifleming.run import config as configuration
from minifleming.run.checkpoint import ensure_writable
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli
from minifleming.run.fields import Data

SPLITS = {"all": Split(), "train": Split(held_out=False), "heldout": Split(held_out=True)}


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    cfg = configuration.from_arguments(args, {
        "data.graph": args.graph, "run.seed": args.seed, "data.hops": args.hops,
        "data.options": args.options, "data.columns": args.columns, "data.support_graphs": args.support_graph,
        "data.style": args.style, "data.language": args.language, "data.names": args.names,
        "data.qualifiers": args.qualifiers, "data.two_targets": args.two_targets})
    if args.n < 1:
        raise BadInput("--n: must be positive")
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    if args.out is None:
        raise BadInput("--out: the file to write is missing")
    ensure_writable(args.out)
    if args.coverage and args.coverage.exists() and not args.coverage.is_dir():
        raise BadInput("--coverage: is a file, not a folder", args.coverage)

    graph = load_graph(cfg.data.graph, cfg.data.columns)
    reject = support_filter(cfg.data)
    items = make_items(args, cfg, cfg.data, graph, reject, "items")
    check_proofs(items, graph)
    for reason, count in sorted(getattr(reject, "counts", {}).items()):
        print(f"{count} items dropped: a distractor is {reason}")
    if len(items) < args.n:
        raise RunFailed(f"the graph gave {len(items)} different items of the {args.n} asked for; "
                        f"{shortage(items, cfg.data)}")
    write_items(args.out, items)
    print(f"{len(items)} items, each with a proof, in {args.out}; tiers {tier_counts(items)}")
    if args.coverage:
        from minifleming.extras.wording import coverage

        uniform = dataclasses.replace(cfg.data, rarity=0.0, rare_boost=1.0)
        others = make_items(args, cfg, uniform, graph, reject, "uniform walk")
        name = f"topological (rarity {cfg.data.rarity:g}, boost {cfg.data.rare_boost:g})"
        coverage.write(args.coverage, {name: items, "uniform": others}, graph)
    return 0


def make_items(args: Namespace, cfg: configuration.Config, data: Data, graph: Graph,
               reject: Reject, label: str) -> list[Item]:
    return synthesize(item_builder(data, graph), args.n, data.hops, seed=cfg.run.seed,
                      split=SPLITS[args.split], reject=reject, label=label)


def check_proofs(items: list[Item], graph: Graph) -> None:
    """Raises RunFailed if the independent checker finds a fault."""
    facts = Facts(graph)
    faults = [(item.id, find_fault(item, facts)) for item in items]
    wrong = [(name, fault) for name, fault in faults if fault]
    if wrong:
        name, fault = wrong[0]
        raise RunFailed(f"{name} and {len(wrong) - 1} others fail their proof ({fault}): a bug")


def shortage(items: list[Item], data: Data) -> str:
    """Returns how many items there are of each path length, and what would give more."""
    found = Counter(item.hops for item in items)
    counts = ", ".join(f"{found[hops]} of {hops} hops" for hops in data.hops)
    hints = ["fewer --hops"]
    if not data.qualifiers:
        hints.append("--qualifiers with --style varied or vignette")
    if data.language != "en":
        hints.append("more names in --names: nodes without a name are not used")
    return f"{counts}; more come with {' or '.join(hints)}"


def arguments() -> Parser:
    parser = configuration.parser("synth_kg.py", __doc__)
    add = parser.add_argument
    add("--graph", help="embedded, hpo, or a path (default: data.graph)")
    add("--columns", help="columns of a triple file: head=NAME,relation=NAME,tail=NAME")
    add("--support-graph", action="append", metavar="GRAPH",
        help="another graph: an item is dropped if it supports one of its distractors; repeatable")
    add("--n", type=int, default=2000, help="items to write (default: 2000)")
    add("--seed", type=int, help="same seed, same bytes (default: run.seed)")
    add("--hops", help="path lengths, e.g. 1,2,3 (default: data.hops)")
    add("--options", type=int, help="options per item (default: data.options)")
    add("--style", help="plain, varied or vignette (default: data.style)")
    add("--language", help="en or zh (default: data.language)")
    add("--names", help="Chinese names, a TSV with the columns name and zh (default: data.names)")
    add("--qualifiers", action="store_true", default=None,
        help="also walk to one of several nodes, singled out by a finding of its own")
    add("--two-targets", type=float, help="share of items that ask for two nodes (default: data.two_targets)")
    add("--split", choices=SPLITS, default="all",
        help="combinations of findings for training, held out, or all (default)")
    add("--out", type=Path, help="the JSONL file to write")
    add("--coverage", type=Path, metavar="FOLDER",
        help="also walk without weights, and write which share of each walk touches rare nodes")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
