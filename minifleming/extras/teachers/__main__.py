"""Write reasoning traces with a teacher (arXiv:2509.15279 §3.2).

    python -m minifleming.cold_start.teacher --items F --teacher oracle --out traces.jsonl
    ... --teacher runs/tiny/cold_start --fallback oracle
    ... --teacher http://localhost:8000/v1 --model NAME

Each item gets --samples blind samples, and a short verified one is kept. Without one, the teacher
is given the right option; then up to three rounds of refinement follow; then the --fallback
teacher starts over. Next to the traces the command writes the record of all proposals
(.record.jsonl; a killed run resumes from it) and a card with the yield by strategy and tier
(.card.md). A server's answers are kept in .answers.jsonl, so that no request is paid twice; the
API key is read from MINIFLEMING_API_KEY.

Research software. Not for clinical use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minifleming.cold_start.checks import LEAKS, Checks
from minifleming.cold_start.oracle import Oracle, has_path
from minifleming.cold_start.refine import collect_traces
from minifleming.cold_start.trace import Teacher, write_traces
from minifleming.extras.numbers.guidelines import check_guidelines, read_guidelines
from minifleming.extras.numbers.units import check_numbers
from minifleming.extras.teachers.endpoint import open_endpoint
from minifleming.extras.teachers.local import open_local
from minifleming.extras.teachers.prompts import FOLDER
from minifleming.extras.teachers.record import run_teacher
from minifleming.extras.teachers.trace_card import trace_card, yield_table
from minifleming.lm.tensor_files import weight_files
from minifleming.lm.weights import model_folder
from minifleming.rods.graph import Graph
from minifleming.rods.item import read_items
from minifleming.rods.readers import load_graph
from minifleming.run.checkpoint import ensure_writable, sha256, write_text
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli

NUMBERS = (  # flag, default, minimum, maximum, help
    ("--samples", 8, 1, 10_000, "blind samples per item"),
    ("--pass-k", 1, 1, 10_000, "k of the unbiased pass@k that decides which items are hard"),
    ("--hard-at-most", 0.0, 0, 1, "items with at most this pass@k are hard and get refined"),
    ("--min-length-quantile", 0.25, 0, 1, "skip verified samples shorter than this quantile"),
    ("--rounds", 3, 0, 3, "rounds of refinement"),
    ("--max-chars", 4000, 1, 10**9, "characters of the longest reasoning that passes"),
    ("--detour-fraction", 0.3, 0, 1, "oracle: share of its blind traces with a detour"),
    ("--temperature", 1.0, 0, 100, "sampling temperature of a model"),
    ("--max-new-tokens", 1024, 1, 10**9, "tokens per answer of a model"),
    ("--workers", 8, 1, 1024, "server: concurrent requests"),
    ("--timeout", 600.0, 1e-3, 86_400, "server: seconds per answer"),
    ("--retries", 8, 0, 1000, "server: attempts after the first one failed"),
    ("--seed", 0, 0, 2**63, "seed of everything that is drawn"),
    ("--chunk", 256, 1, 10**9, "items between two writes of the record"),
)
URL = ("http://", "https://")
SELECTION = ("samples", "pass_k", "hard_at_most", "min_length_quantile", "rounds")
NO_EFFECT = {"out", "chunk", "device", "workers", "timeout", "retries"}


def parser() -> Parser:
    found = Parser(prog="teacher", description=__doc__, allow_abbrev=False,
                   formatter_class=argparse.RawDescriptionHelpFormatter)
    add = found.add_argument
    add("--items", type=Path, required=True, help="the items (JSONL)")
    add("--out", type=Path, required=True, help="the traces (JSONL)")
    add("--teacher", default="oracle", help="oracle, tiny, a model folder, or a server's URL")
    add("--fallback", help="a second teacher for items without a verified trace")
    judges = "self (each teacher), none, or a teacher"
    add("--judge", default="self", help=f"resolves a reasoning without its question: {judges}")
    add("--graph", default="embedded", help="embedded, hpo or a path; for oracle and checks")
    add("--guidelines", type=Path, help="TSV of guideline snippets to check against")
    add("--model", help="server: the name of its model")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    for flag, default, low, high, text in NUMBERS:
        add(flag, type=partial(number, kind=type(default), low=low, high=high), default=default,
            help=f"{text} (default: {default})")
    return found


def number(text: str, kind: type, low: float, high: float) -> float:
    """Returns a number in a range, for argparse."""
    value = kind(text)
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must lie between {low} and {high}")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.pass_k > args.samples:
        raise BadInput("--pass-k: must be at most --samples")
    items = read_items(args.items)
    ensure_writable(args.out)
    record = args.out.with_name(f"{args.out.name}.record.jsonl")
    if args.out.exists() and not record.exists():
        reason = "exists already, and not from a run of this command; nothing is overwritten"
        raise BadInput(reason, args.out)
    graph = load_graph(args.graph) if args.graph else None
    only_oracle = args.teacher == "oracle" and args.fallback in (None, "oracle")
    if only_oracle and graph and not any(has_path(item, graph) for item in items):
        raise BadInput("no item has a path in this graph", args.items)
    collect = collector(args, graph)
    results = run_teacher(items, collect, record, run_fingerprint(args), args.chunk)
    path = args.out.with_name(f"{args.out.name}.card.md")
    write_text(path, trace_card(args.out.name, results, settings_of(args)))
    traces = [result.kept for result in results if result.kept]
    if not traces:
        raise RunFailed(f"none of {len(items)} items has a verified trace; see {path.name}")
    write_traces(args.out, traces)
    print(f"{yield_table(results)}\n{len(traces)} traces of {len(items)} items in {args.out}")
    return 0


def collector(args: argparse.Namespace, graph: Graph | None) -> Callable:
    """Returns a function that collects the traces of some items, with the teachers and checks."""
    extra = [check_numbers]
    if args.guidelines:
        extra.append(check_guidelines(read_guidelines(args.guidelines)))
    teachers = [open_teacher("teacher", args, graph)]
    if args.fallback:
        teachers.append(open_teacher("fallback", args, graph))
    judge = None
    if args.judge not in ("self", "none"):
        judge = open_teacher("judge", args, graph)
    checks = Checks(graph, judge, args.judge != "none", extra, args.max_chars)
    selection = {name: getattr(args, name) for name in SELECTION}
    return partial(collect_traces, teachers=teachers, check=checks, **selection)


def open_teacher(flag: str, args: argparse.Namespace, graph: Graph | None) -> Teacher:
    """Returns the teacher that ``--flag`` names."""
    name = getattr(args, flag)
    if name == "oracle":
        if graph is None:
            raise BadInput("--graph: the oracle needs one")
        return Oracle(graph, args.detour_fraction, args.seed)
    if name.startswith(URL):
        return open_endpoint(name, args)
    if name != "tiny" and not Path(name).is_dir():
        choices = "oracle, tiny, a model folder, or a URL"
        raise BadInput(f"--{flag}: '{name}' is not a teacher: {choices}")
    return open_local(name, args)


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Returns the settings that influence the traces."""
    settings = {}
    for name, value in vars(args).items():
        if value is not None and name not in NO_EFFECT:
            settings[name.replace("_", "-")] = str(value)
    return settings


def run_fingerprint(args: argparse.Namespace) -> dict[str, str]:
    """Returns what a record must match to be resumed: settings and hashes of all files read."""
    files = [args.items, LEAKS, *sorted(FOLDER.glob("*.txt"))]
    if args.guidelines:
        files.append(args.guidelines)
    if Path(args.graph).is_file():
        files.append(Path(args.graph))
    for name in {args.teacher, args.fallback, args.judge} - {None, "oracle", "self", "none"}:
        if not name.startswith(URL):
            folder = model_folder(name)
            files += [folder / "config.json", *weight_files(folder)]
    hashes = {f"sha256 {file.name}": sha256(file) for file in files}
    return settings_of(args) | hashes


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
