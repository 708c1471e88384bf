"""Evaluate a model on items, rebuild tables from its records, or compare models item by item.

    python eval.py --model DIR --benchmark mine=items.jsonl --benchmark medqa=test.jsonl --out DIR
    python eval.py --run runs/tiny
    python eval.py --compare runs/eval-a runs/eval-b runs/eval-c

--out holds a record of every answer (NAME.jsonl), and scores, tables and pages made from them. The
same command again resumes after a kill, and generates nothing if all records exist.

Research software. Not for clinical use.
"""

from functools import partial
from pathlib import Path

from minifleming.evaluation.benchmarks import BENCHMARKS, read_named
from minifleming.evaluation.evaluate import Decoding, Evaluator, read_folder
from minifleming.evaluation.tables import rebuild_ablation, write_scores
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.errors import BadInput, run_cli

BENCHMARK_HELP = ("items (JSONL) under a name of yours, or the file of a public benchmark under its "
                  f"own name: {', '.join(BENCHMARKS)}; repeatable")
PERMUTE_HELP = ("ask again with the options in four other orders, with only the wrong ones in another "
                "order, and with the question hidden")
SAMPLES_HELP = "this many samples at --temperature as well: avg@k, pass@k, maj@k and calibration"
COMPARE_HELP = ("folders that --out has written: Table 3, and each folder against the first, item by "
                "item; with --out also as files")
RANGES = {"limit": 1, "samples": 1, "temperature": 0}


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
    add("--compare", type=Path, nargs="+", metavar="DIR", help=COMPARE_HELP)
    add("--out", type=Path, help="the folder to write")
    args = parser.parse_args(argv)
    cfg = configuration.from_arguments(args, {"model.base": args.model})
    if args.dry_run:
        print(configuration.to_toml(cfg))
    elif args.run:
        print(ablation(args.run))
    elif args.compare:
        from minifleming.extras.reports.report import write_comparison

        print(write_comparison(args.out, args.compare, cfg.eval.confidence))
    else:
        check(args)
        evaluate_all(args, cfg)
    return 0


def check(args) -> None:
    if not args.benchmark or args.out is None:
        raise BadInput("--benchmark and --out: both are needed, or --run, or --compare")
    for name, least in RANGES.items():
        value = getattr(args, name)
        if value is not None and not least <= value <= 10**6:
            raise BadInput(f"--{name}: must be at least {least}")


def ablation(folder: Path) -> str:
    """Writes the tables and the page of a run again, from its records."""
    from minifleming.extras.reports.report import write_ablation_page

    confidence = configuration.load(folder / "config.toml").eval.confidence
    records, text = rebuild_ablation(folder, confidence)
    write_ablation_page(folder / "report", records, confidence, text)
    return text


def evaluate_all(args, cfg: configuration.Config) -> None:
    """Asks all items of all benchmarks, and writes tables and pages."""
    sets = {name: items[: args.limit] for name, items in read_named(args.benchmark).items()}
    confidence = cfg.eval.confidence
    device = distributed.pick_device(cfg.run.device)
    with distributed.process_group(device):
        evaluator = Evaluator(cfg, device)
        asked = {}
        for name, items in sets.items():
            asked[name] = evaluator.ask(args.out / f"{name}.jsonl", items, name)
        analyses = []
        if args.permute_options:
            from minifleming.extras.analysis import robust

            analyses.append(robust.analyse(evaluator.ask, sets, asked, args.out, confidence))
        if args.samples > 1:
            from minifleming.extras.analysis import votes

            ask = partial(evaluator.ask, decoding=Decoding(args.samples, args.temperature))
            analyses.append(votes.analyse(ask, sets, args.samples, args.out))
        if distributed.rank() == 0:
            print(tables(args.out, analyses, confidence))


def tables(out: Path, analyses: list, confidence: float) -> str:
    """Writes all tables and pages of ``out``; returns the tables as text."""
    from minifleming.extras.reports.report import size_notes, write_pages

    sets = read_folder(out)
    text = write_scores(out, sets, confidence, size_notes(sets))
    more = write_pages(out, sets, confidence, analyses)
    return "\n\n".join([text, *more])


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
