"""Evaluate a model on items, rebuild tables from stored records, or compare two evaluations item by item.

    python eval.py --model DIR --benchmark synthetic=items.jsonl --benchmark medqa=test.jsonl --out runs/eval
    python eval.py --run runs/tiny
    python eval.py --compare runs/eval-a runs/eval-b runs/eval-c

--out holds a record of every answer (NAME.jsonl) and the scores, tables and pages made from them.
The same command again resumes after a kill, and generates nothing if all records exist.

Research software. Not for clinical use.
"""

from pathlib import Path

from minifleming.evaluation.benchmarks import BENCHMARKS, read_benchmark
from minifleming.evaluation.evaluate import evaluate_into, run_fingerprint
from minifleming.evaluation.records import read_records
from minifleming.evaluation.scores import Sets, write_rows, write_scores
from minifleming.evaluation.tables import VARIANTS, write_report
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder, weights_checksum
from minifleming.rods.item import Item
from minifleming.rods.readers import load_graph
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput, run_cli

BENCHMARK_HELP = ("items (JSONL) under a name of yours, or the file of a public benchmark under its "
                  f"own name: {', '.join(BENCHMARKS)}; repeatable")
SAMPLES_HELP = ("after the greedy answer, this many at --temperature: avg@k, pass@k, maj@k and "
                "calibration")
PERMUTE_HELP = ("ask again with the options in four other orders, with only the wrong ones in another "
                "order, and with the question hidden")


def main(argv: list[str] | None = None) -> int:
    parser = configuration.parser("eval.py", __doc__)
    add = parser.add_argument
    add("--run", type=Path, help="a run folder: tables from its records, no generation")
    add("--model", help="tiny, or a model folder (default: model.base)")
    add("--benchmark", action="append", default=[], metavar="NAME=PATH", help=BENCHMARK_HELP)
    add("--permute-options", action="store_true", help=PERMUTE_HELP)
    add("--samples", type=int, default=1, help=SAMPLES_HELP)
    add("--temperature", type=float, default=1.0, help="temperature of --samples")
    add("--limit", type=int, help="only this many items of each benchmark")
    add("--compare", type=Path, nargs="+", metavar="DIR", help="folders that --out has written: Table 3, "
        "and each folder against the first, item by item; with --out also as files")
    add("--out", type=Path, help="the folder to write")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        print(configuration.to_toml(cfg))
    elif args.run:
        print(ablation(args.run))
    elif args.compare:
        print(comparison(args.compare, args.out, cfg.eval.confidence))
    else:
        check(args)
        evaluate_all(args, cfg)
    return 0


def check(args) -> None:
    if not args.benchmark or args.out is None:
        raise BadInput("--benchmark and --out: both are needed, or --run, or --compare")
    for name, least in (("limit", 1), ("samples", 1), ("temperature", 0)):
        value = getattr(args, name)
        if value is not None and not least <= value <= 10**6:
            raise BadInput(f"--{name}: must be at least {least}")


def ablation(folder: Path) -> str:
    """Writes the tables of a run again, from its records."""
    from minifleming.extras.reports import report

    records = {}
    for variant in VARIANTS:
        for split in ("heldout", "longer_hops"):
            path = folder / "eval" / f"{variant}.{split}.jsonl"
            if path.exists():
                records[variant, split] = read_records(path)
    if not records:
        raise BadInput("no evaluation records", folder / "eval")
    blind = folder / "report" / "blind.json"
    confidence = configuration.load(folder / "config.toml").eval.confidence
    text = write_report(folder / "report", records, confidence, read_json(blind) if blind.exists() else None)
    report.write_ablation(folder / "report", records, confidence, text)
    return text


def evaluate_all(args, cfg: configuration.Config) -> None:
    """Ask all items of all benchmarks, and write the tables and pages."""
    from minifleming.extras.analysis import robust

    sets = {name: items[: args.limit] for name, items in read_all(args.benchmark).items()}
    out = args.out
    folder = model_folder(cfg.model.base)
    tokenizer = Tokenizer(folder)
    device = distributed.pick_device(cfg.run.device)
    with distributed.process_group(device):
        model = load_model(folder, cfg.model.dtype, device, cfg.run.deterministic)
        weights = weights_checksum(model)

        def ask(name: str, path: Path, items: list[Item], **how) -> list[dict]:
            graph = load_graph(cfg.data.graph, cfg.data.columns) if any(item.path for item in items) else None
            identity = run_fingerprint(items, tokenizer, cfg, name, cfg.model.base, weights) | how
            return evaluate_into(path, model, tokenizer, items, cfg, name=name, graph=graph, run_fingerprint=identity, **how)

        asked, sampled = {}, {}
        for name, items in sets.items():
            asked[name] = {"": ask(name, out / f"{name}.jsonl", items)}
        for name, items in sets.items() if args.permute_options else ():
            for variant, changed in robust.variants(items).items():
                path = out / "robust" / f"{name}.{variant}.jsonl"
                asked[name][variant] = ask(f"{name} {variant}", path, changed)
        for name, items in sets.items() if args.samples > 1 else ():
            sampled[name] = ask(f"{name} x {args.samples}", out / "samples" / f"{name}.jsonl", items,
                                samples=args.samples, temperature=args.temperature)
        if distributed.rank() == 0:
            permuted = {}
            for name, items in sets.items() if args.permute_options else ():
                permuted[name] = robust.robustness(items, asked[name], cfg.eval.confidence)
            print(report(out, permuted, sampled, cfg.eval.confidence))


def report(out: Path, robustness: dict[str, dict], sampled: dict[str, list[dict]], confidence: float) -> str:
    """Writes all tables and pages of ``out``; returns the tables as text."""
    from minifleming.extras.analysis import robust, votes
    from minifleming.extras.reports.report import size_notes, write_pages

    voted = {name: votes.voted(found) for name, found in sampled.items()}
    more = {}
    if robustness:
        more["Options in other orders"] = write_rows(out, "robust", robustness, robust.markdown(robustness))
    if voted:
        more["Several samples"] = write_rows(out, "votes", voted, votes.markdown(voted))
    sets = stored(out)
    text = write_scores(out, sets, confidence, size_notes(sets))
    write_pages(out, sets, confidence, more, voted)
    return "\n\n".join([text, *more.values()])


def comparison(folders: list[Path], out: Path | None, confidence: float) -> str:
    from minifleming.extras.reports.report import write_comparison

    if len(folders) < 2:
        raise BadInput("--compare: two folders are needed")
    names = [folder.name for folder in folders]
    models = {folder.name if names.count(folder.name) == 1 else str(folder): stored(folder) for folder in folders}
    if len(models) < len(folders):
        raise BadInput("--compare: a folder comes twice")
    return write_comparison(out, models, confidence)


def stored(folder: Path) -> Sets:
    sets = {path.stem: read_records(path) for path in sorted(folder.glob("*.jsonl"))}
    if not sets:
        raise BadInput("no evaluation records", folder)
    return sets


def read_all(named: list[str]) -> dict[str, list[Item]]:
    """The items of each NAME=PATH; prints how many rows of a public benchmark give none."""
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
    raise SystemExit(run_cli(main))
