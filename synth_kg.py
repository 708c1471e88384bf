"""Synthesise multiple-choice items with proofs from a medical knowledge graph (arXiv:2509.15279 §3.1).

    python synth_kg.py --graph embedded --n 2000 --seed 0 --out items.jsonl
    python synth_kg.py --n 500 --split heldout --out test.jsonl       shares no combination with --split train
    python synth_kg.py --graph hpo --style vignette --qualifiers --n 20000 --out hpo.jsonl
    python synth_kg.py --graph my.csv --columns head=subject,relation=predicate,tail=object --support-graph hpo --out my.jsonl

Research software. Not for clinical use.
"""

from collections import Counter
from pathlib import Path

from minifleming.evaluation.statistics import wilson
from minifleming.extras.wording import coverage
from minifleming.extras.wording.support import Support
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, write_items
from minifleming.rods.proof import Facts, fault
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import is_held_out, settings, synthesise, tier_counts
from minifleming.run import config as configuration
from minifleming.run.checkpoint import ensure_writable, write_text
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli
from minifleming.run.journal import bar

SPLITS = {"all": lambda walk: True, "train": lambda walk: not is_held_out(walk), "heldout": is_held_out}


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    cfg = configuration.from_arguments(args, {
        "data.graph": args.graph, "run.seed": args.seed, "data.hops": args.hops, "data.options": args.options,
        "data.columns": args.columns, "data.support_graphs": args.support_graph, "data.style": args.style, "data.language": args.language,
        "data.names": args.names, "data.qualifiers": args.qualifiers, "data.two_targets": args.two_targets})
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
    graph, refused = load_graph(cfg.data.graph, cfg.data.columns), Counter()
    how = settings(cfg.data, graph) | {"seed": cfg.run.seed, "keep": SPLITS[args.split],
                                       "refuse": Support([load_graph(source) for source in cfg.data.support_graphs])}
    items = synthesise(graph, args.n, cfg.data.hops, **how, refused=refused, progress=lambda x: bar(x, desc="items"))
    facts = Facts(graph)
    wrong = [(item.id, reason) for item in items if (reason := fault(item, facts))]
    if wrong:
        raise RunFailed(f"{wrong[0][0]} and {len(wrong) - 1} others fail their proof ({wrong[0][1]}): this is a bug")
    for reason, count in sorted(refused.items()):
        print(f"{count} items dropped: a distractor is {reason}")
    if len(items) < args.n:
        raise RunFailed(f"the graph gave {len(items)} different items of the {args.n} asked for; "
                        f"{shortage(items, cfg)}")
    write_items(args.out, items)
    print(f"{len(items)} items, each with a proof, in {args.out}; tiers {tier_counts(items)}")
    if args.coverage:
        uniform = synthesise(graph, args.n, cfg.data.hops, **how | coverage.UNIFORM,
                             progress=lambda x: bar(x, desc="uniform walk"))
        name = f"topological (rarity {cfg.data.rarity:g}, boost {cfg.data.rare_boost:g})"
        write_coverage(args.coverage, {name: items, "uniform": uniform}, graph)
    return 0


def shortage(items: list[Item], cfg: configuration.Config) -> str:
    """How many items there are of each path length, and what would give more."""
    found = Counter(item.hops for item in items)
    told = ", ".join(f"{found[hops]} of {hops} hops" for hops in cfg.data.hops)
    hints = ["fewer --hops"] + ([] if cfg.data.qualifiers else ["--qualifiers with --style varied or vignette"])
    if cfg.data.language != "en":
        hints.append("more names in --names: what has none cannot be told")
    return f"{told}; more come with {' or '.join(hints)}"


def write_coverage(folder: Path, walks: dict, graph: Graph) -> None:
    """The coverage report: coverage.md, and coverage.svg with the [plot] extra."""
    folder.mkdir(parents=True, exist_ok=True)
    text, picture = coverage.table(walks, graph, wilson), coverage.plot(walks, graph)
    write_text(folder / "coverage.md", text + "\n")
    if picture:
        write_text(folder / "coverage.svg", picture)
    print(text)


def arguments() -> Parser:
    parser = configuration.parser("synth_kg.py", __doc__)
    parser.add_argument("--graph", help="embedded, hpo, or a path (default: data.graph)")
    parser.add_argument("--columns", help="columns of a triple file: head=NAME,relation=NAME,tail=NAME")
    parser.add_argument("--support-graph", action="append", metavar="GRAPH",
                        help="a graph that may know more: items with a distractor it supports are dropped; repeatable")
    parser.add_argument("--n", type=int, default=2000, help="items to write (default: 2000)")
    parser.add_argument("--seed", type=int, help="same seed, same bytes (default: run.seed)")
    parser.add_argument("--hops", help="path lengths, e.g. 1,2,3 (default: data.hops)")
    parser.add_argument("--options", type=int, help="options per item (default: data.options)")
    parser.add_argument("--style", help="plain, varied or vignette (default: data.style)")
    parser.add_argument("--language", help="en or zh (default: data.language)")
    parser.add_argument("--names", help="Chinese names: a TSV with the columns name and zh (default: data.names)")
    parser.add_argument("--qualifiers", action="store_true", default=None,
                        help="also walk to one of several nodes, singled out by a finding of its own")
    parser.add_argument("--two-targets", type=float, help="share of items that ask for two nodes (default: data.two_targets)")
    parser.add_argument("--split", choices=SPLITS, default="all",
                        help="combinations of findings that may be trained on, those held out, or all (default)")
    parser.add_argument("--out", type=Path, help="the JSONL file to write")
    parser.add_argument("--coverage", type=Path, metavar="FOLDER",
                        help="also walk without weights, and write there which share of either touches rare nodes")
    return parser


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
