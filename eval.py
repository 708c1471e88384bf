"""Evaluate a model on items, or make the tables of a run again from its stored records.

    python eval.py --model DIR --benchmark synthetic=items.jsonl --benchmark medqa=test.jsonl --out runs/eval
    python eval.py --run runs/tiny

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.evaluation.benchmarks import evaluate, read_records, right, write_records
from minifleming.evaluation.statistics import wilson
from minifleming.evaluation.tables import VARIANTS, write_report
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.graphs.readers import load_graph
from minifleming.rods.item import Item
from minifleming.rods.sets.read import READERS, read_benchmark
from minifleming.run import config as configuration
from minifleming.run import parallel
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
    parser.add_argument("--out", type=Path, help="the folder to write")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        print(configuration.to_toml(cfg))
        return 0
    if args.run:
        return tables(args.run)
    if not args.benchmark or args.out is None:
        raise BadInput("--benchmark and --out: both are needed, or --run")
    return benchmarks(args.benchmark, args.out, cfg)


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


def benchmarks(named: list[str], out: Path, cfg: configuration.Config) -> int:
    sets = read_all(named)
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    device = parallel.pick_device(cfg.run.device)
    model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
    for name, items in sets.items():
        graph = load_graph(cfg.data.graph, cfg.data.columns) if any(item.path for item in items) else None
        records = evaluate(model, tokenizer, items, cfg, name=name, graph=graph)
        write_records(out / f"{name}.jsonl", records)
        print(line(name, records, cfg.eval.confidence))
    return 0


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


def line(name: str, records: list[dict], confidence: float) -> str:
    n, correct = len(records), sum(map(right, records))
    low, high = wilson(correct, n, confidence)
    lenient = sum(record["lenient"] == record["answer"] for record in records) / n
    parsed = sum(record["rule"] == "ok" for record in records) / n
    return (f"{name}: {correct}/{n} = {100 * correct / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] strict, "
            f"{100 * lenient:.1f} % lenient, {100 * parsed:.1f} % parsed")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
