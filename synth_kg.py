"""Synthesise multiple-choice items with proofs from a medical knowledge graph (arXiv:2509.15279 §3.1).

    python synth_kg.py --graph embedded --n 2000 --seed 0 --out items.jsonl
    python synth_kg.py --n 500 --split heldout --out test.jsonl       shares no combination with --split train

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.rods.check import fault, index_triples
from minifleming.rods.graph import load_graph
from minifleming.rods.item import write_items
from minifleming.rods.mix import is_held_out, synthesise, tier_counts
from minifleming.run import config as configuration
from minifleming.run.checkpoint import writable
from minifleming.run.errors import BadInput, Parser, RunFailed, guarded
from minifleming.run.progress import bar

SPLITS = {"all": lambda walk: True, "train": lambda walk: not is_held_out(walk), "heldout": is_held_out}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="synth_kg.py", description=__doc__, allow_abbrev=False, epilog=configuration.describe(),
                    formatter_class=configuration.HelpFormatter)
    parser.add_argument("--graph", help="embedded, or the path of a triple file (default: data.graph)")
    parser.add_argument("--n", type=int, default=2000, help="items to write (default: 2000)")
    parser.add_argument("--seed", type=int, help="same seed, same bytes (default: run.seed)")
    parser.add_argument("--hops", help="path lengths, e.g. 1,2,3 (default: data.hops)")
    parser.add_argument("--options", type=int, help="options per item (default: data.options)")
    parser.add_argument("--split", choices=SPLITS, default="all",
                        help="combinations of findings that may be trained on, those held out, or all (default)")
    parser.add_argument("--out", type=Path, help="the JSONL file to write")
    configuration.add_arguments(parser)
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"data.graph": args.graph, "run.seed": args.seed,
                                              "data.hops": args.hops, "data.options": args.options})
    if args.n < 1:
        raise BadInput("--n: must be positive")
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    if args.out is None:
        raise BadInput("--out: the file to write is missing")
    writable(args.out)
    data, graph = cfg.data, load_graph(cfg.data.graph)
    items = synthesise(graph, args.n, data.hops, seed=cfg.run.seed, options=data.options,
                       findings=tuple(data.findings), rarity=data.rarity, rare_boost=data.rare_boost, roots=data.roots,
                       keep=SPLITS[args.split], progress=lambda x: bar(x, desc="items"))
    edges, index = set(graph.triples), index_triples(graph.triples)
    wrong = [item.id for item in items if fault(item, edges, index)]
    if wrong:
        raise RunFailed(f"{wrong[0]} and {len(wrong) - 1} others fail their proof: this is a bug")
    if len(items) < args.n:
        raise RunFailed(f"the graph gave {len(items)} different items of the {args.n} asked for")
    write_items(args.out, items)
    print(f"{len(items)} items, each with a proof, in {args.out}; tiers {tier_counts(items)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded(main))
