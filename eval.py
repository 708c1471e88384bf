"""Evaluate a model on items, make tables again from stored records, or compare two evaluations item by item.

    python eval.py --model DIR --benchmark synthetic=items.jsonl --benchmark medqa=test.jsonl --out runs/eval
    python eval.py --run runs/tiny
    python eval.py --compare runs/eval-a runs/eval-b runs/eval-c

The records of --out (NAME.jsonl) hold every answer; scores.md, .csv, .json, .html, slices.csv and, with matplotlib,
plots/ are made from them. The same command again generates nothing; after a kill it goes on.

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.evaluation import scores
from minifleming.evaluation.evaluate import evaluate_into, made_with
from minifleming.evaluation.records import read_records
from minifleming.evaluation.sets.read import READERS, read_benchmark
from minifleming.evaluation.tables import VARIANTS, write_report
from minifleming.extras.analysis import robust, votes
from minifleming.extras.reports.report import write_comparison, write_rows, write_scores
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder, weights_checksum
from minifleming.rods.item import Item
from minifleming.rods.readers import load_graph
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput, Parser, guarded


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="eval.py", description=__doc__, allow_abbrev=False, epilog=configuration.describe(),
                    formatter_class=configuration.HelpFormatter)
    configuration.add_arguments(parser)
    parser.add_argument("--run", type=Path, help="a run folder: tables from its records, no generation")
    parser.add_argument("--model", help="tiny, or a model folder (default: model.base)")
    parser.add_argument("--benchmark", action="append", default=[], metavar="NAME=PATH",
                        help=f"items (JSONL) under a name of yours, or the file of a public set under its own: "
                             f"{', '.join(READERS)}; repeatable")
    parser.add_argument("--permute-options", action="store_true", help="ask again with the options in four other orders, "
                                                              "with the wrong ones alone in another, and with the "
                                                              "question hidden")
    parser.add_argument("--samples", type=int, default=1, help="beside the greedy answer, so many at --temperature: "
                                                               "avg@k, pass@k, maj@k and calibration")
    parser.add_argument("--temperature", type=float, default=1.0, help="of --samples")
    parser.add_argument("--limit", type=int, help="the first so many items of each benchmark")
    parser.add_argument("--compare", type=Path, nargs="+", metavar="DIR",
                        help="folders that --out has written: Table 3, and each against the first, item by item; with "
                             "--out also as files")
    parser.add_argument("--out", type=Path, help="the folder to write")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    if args.run:
        return tables(args.run)
    if args.compare:
        return compare(args.compare, args.out, cfg.eval.confidence)
    if not args.benchmark or args.out is None:
        raise BadInput("--benchmark and --out: both are needed, or --run, or --compare")
    for name, least in (("limit", 1), ("samples", 1), ("temperature", 0)):
        if (value := getattr(args, name)) is not None and not least <= value <= 10**6:
            raise BadInput(f"--{name}: must be at least {least}")
    return benchmarks(args, cfg)


def tables(folder: Path) -> int:
    """The tables of a run again, with its own confidence, from its records."""
    paths = {(v, s): folder / "eval" / f"{v}.{s}.jsonl" for v in VARIANTS for s in ("heldout", "longer_hops")}
    records = {key: read_records(path) for key, path in paths.items() if path.exists()}
    if not records:
        raise BadInput("no evaluation records", folder / "eval")
    blind = folder / "report" / "blind.json"
    print(write_report(folder / "report", records, configuration.load(folder / "config.toml").eval.confidence,
                       read_json(blind) if blind.exists() else None))
    return 0


def benchmarks(args, cfg: configuration.Config) -> int:
    sets, out = {name: items[: args.limit] for name, items in read_all(args.benchmark).items()}, args.out
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    device = distributed.pick_device(cfg.run.device)
    with distributed.session(device):
        model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
        weights = weights_checksum(model)

        def ask(name: str, path: Path, items: list[Item], **how) -> list[dict]:
            graph = load_graph(cfg.data.graph, cfg.data.columns) if any(item.path for item in items) else None
            return evaluate_into(path, model, tokenizer, items, cfg, name=name, graph=graph, **how,
                                 made_with=made_with(items, tokenizer, cfg, name, cfg.model.base, weights) | how)

        asked = {name: {"": ask(name, out / f"{name}.jsonl", items)} for name, items in sets.items()}
        for name, items in sets.items() if args.permute_options else ():
            for variant, changed in robust.variants(items).items():
                asked[name][variant] = ask(f"{name} {variant}", out / "robust" / f"{name}.{variant}.jsonl", changed)
        sampled = {name: ask(f"{name} x {args.samples}", out / "samples" / f"{name}.jsonl", items, samples=args.samples,
                             temperature=args.temperature) for name, items in sets.items() if args.samples > 1}
        if distributed.rank() == 0:
            robustness = {name: robust.robustness(items, asked[name], cfg.eval.confidence)
                          for name, items in sets.items() if args.permute_options}
            print(report(out, robustness, {name: votes.voted(found) for name, found in sampled.items()},
                         cfg.eval.confidence))
    return 0


def report(out: Path, robustness: dict[str, dict], voted: dict[str, dict], confidence: float) -> str:
    """All tables of ``out``; returns them as text."""
    more = {}
    if robustness:
        more["Options in other orders"] = write_rows(out, "robust", robustness, robust.markdown(robustness))
    if voted:
        more["Several samples"] = write_rows(out, "votes", voted, votes.markdown(voted))
    return "\n\n".join([write_scores(out, stored(out), confidence, more, voted), *more.values()])


def compare(folders: list[Path], out: Path | None, confidence: float) -> int:
    if len(folders) < 2:
        raise BadInput("--compare: two folders are needed")
    names = [folder.name for folder in folders]
    models = {folder.name if names.count(folder.name) == 1 else str(folder): stored(folder) for folder in folders}
    if len(models) < len(folders):
        raise BadInput("--compare: a folder comes twice")
    print(write_comparison(out, models, confidence))
    return 0


def stored(folder: Path) -> scores.Sets:
    sets = {path.stem: read_records(path) for path in sorted(folder.glob("*.jsonl"))}
    if not sets:
        raise BadInput("no evaluation records", folder)
    return sets


def read_all(named: list[str]) -> dict[str, list[Item]]:
    """The items of each NAME=PATH; says how many rows of a public set give none."""
    sets = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"--benchmark: '{text}' is not NAME=PATH")
        if name in sets:
            raise BadInput(f"--benchmark: '{name}' comes twice")
        sets[name], unusable = read_benchmark(name, path)
        if unusable:
            print(f"{name}: {len(unusable)} of {len(sets[name]) + len(unusable)} rows are unusable; the first, "
                  f"row {unusable[0].row}: {unusable[0].reason}")
    return sets


if __name__ == "__main__":
    raise SystemExit(guarded(main))
