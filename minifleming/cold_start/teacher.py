"""Teachers write reasoning traces (arXiv:2509.15279 §3.2).

    python -m minifleming.cold_start.teacher --items F --teacher oracle --out traces.jsonl
    ... --teacher runs/tiny/cold_start --fallback oracle
    ... --teacher http://localhost:8000/v1 --model NAME

Each item: --samples blind samples, of which a short verified one is kept; where none is, the right option is told, then
up to three rounds of refinement; then the --fallback teacher. Beside the traces stand the record of all that was
proposed (.record.jsonl; a killed run goes on from it) and a card with the yield by strategy and tier (.card.md). A
server's answers are kept in .answers.jsonl, so that none is paid for twice; its key is read from MINIFLEMING_API_KEY.

Research software. Not for clinical use.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

from minifleming.cold_start.checks import LEAKS, Checks
from minifleming.cold_start.oracle import Oracle, tells
from minifleming.cold_start.protocol import Teacher
from minifleming.cold_start.refine import collect
from minifleming.cold_start.trace import write_traces
from minifleming.extras.numbers.guidelines import read_guidelines
from minifleming.extras.teachers.answers import Answers
from minifleming.extras.teachers.card import card, yield_table
from minifleming.extras.teachers.endpoint import Endpoint
from minifleming.extras.teachers.local import Local
from minifleming.extras.teachers.prompts import FOLDER
from minifleming.extras.teachers.record import tell_all
from minifleming.lm.tensors import weight_files
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.graph import Graph
from minifleming.rods.item import read_items
from minifleming.rods.readers import load_graph
from minifleming.run import distributed
from minifleming.run.checkpoint import sha256, writable, write_text
from minifleming.run.errors import BadInput, Parser, RunFailed, guarded
from minifleming.run.progress import bar

NO_MATTER = ("out", "chunk", "device", "workers", "requests_per_minute", "timeout", "retries")  # to what is told
SELECTION = {"samples": "samples", "pass_k": "pass_k", "hard": "hard_below", "floor": "min_length_quantile",
             "rounds": "rounds"}  # parameters of collect and their flags


def arguments() -> Parser:
    parser = Parser(prog="teacher", description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--items", type=Path, required=True, help="the items (JSONL)")
    add("--teacher", default="oracle", help="oracle: the graph; a model folder (or tiny); or the URL of a server")
    add("--fallback", help="a second teacher, for the items that the first gives nothing for")
    add("--judge", default="self", help="who says where a reasoning leads without its question: self (each "
                                        "teacher), none, or a teacher")
    add("--graph", default="embedded", help="embedded, hpo or a path: tells and checks paths")
    add("--samples", type=int, default=8, help="blind samples an item")
    add("--pass-k", type=int, default=1, help="k of the unbiased pass@k that says which items are hard")
    add("--hard-below", type=float, default=0.0, help="an item is hard, and refined, if its pass@k is not above this")
    add("--min-length-quantile", type=float, default=0.25,
        help="of the verified samples, lengths below this quantile are not kept")
    add("--rounds", type=int, default=3, help="rounds of refinement at the most, 0 to 3")
    add("--max-chars", type=int, default=4000, help="characters of a reasoning at the most")
    add("--guidelines", type=Path, help="a TSV of guideline snippets (extras/numbers/guidelines.py)")
    add("--detours", type=float, default=0.3, help="oracle: share of its blind traces with a detour")
    add("--error-rate", type=float, default=0.0, help="oracle: share of its traces that go wrong on purpose")
    add("--temperature", type=float, default=1.0)
    add("--max-new-tokens", type=int, default=1024)
    add("--model", help="server: the name of its model")
    add("--workers", type=int, default=8, help="server: requests at a time")
    add("--requests-per-minute", type=float, default=math.inf, help="server: at most so many (default: no limit)")
    add("--timeout", type=float, default=600.0, help="server: seconds for one answer")
    add("--retries", type=int, default=8, help="server: attempts after a first one that failed")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--seed", type=int, default=0)
    add("--chunk", type=int, default=256, help="items told before they are recorded")
    add("--out", type=Path, required=True, help="the traces (JSONL)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    check(args)
    items = read_items(args.items)
    if args.out.exists() and not record_of(args.out).exists():
        raise BadInput("exists already, and not from a run of this command; nothing is overwritten", args.out)
    graph = load_graph(args.graph) if args.graph else None
    if {args.teacher, args.fallback or "oracle"} == {"oracle"} and graph and not any(
            tells(item, graph) for item in items):
        raise BadInput("no item has a path in this graph", args.items)
    guidelines = read_guidelines(args.guidelines) if args.guidelines else ()
    served = any(map(is_url, (args.teacher, args.fallback or "", args.judge)))
    answers = Answers(args.out.with_name(f"{args.out.name}.answers.jsonl")) if served else None
    selection = {name: getattr(args, flag) for name, flag in SELECTION.items()}
    samples = Samples()
    opened = partial(open_teacher, args=args, graph=graph, answers=answers, done=samples.ended)
    teachers = [opened(flag) for flag in ("teacher", "fallback") if getattr(args, flag)]
    judge = opened("judge") if args.judge not in ("self", "none") else None
    checks = Checks(graph, judge, args.judge != "none", guidelines, args.max_chars)
    with bar(total=len(items), desc="items") as samples.bar:
        told = tell_all(items, lambda part: collect(part, teachers, checks, **selection),
                        record_of(args.out), made_with(args), chunk=args.chunk,
                        done=samples.bar.update)
    traces = [one.kept for one in told if one.kept]
    write_text(args.out.with_name(f"{args.out.name}.card.md"), card(args.out.name, told, settings_of(args)))
    if not traces:
        raise RunFailed(f"none of {len(items)} items has a verified trace; see {args.out.name}.card.md")
    write_traces(args.out, traces)
    print(f"{yield_table(told)}\n{len(traces)} traces of {len(items)} items in {args.out}")
    return 0


def check(args) -> None:
    for name, low, high in [("detours", 0, 1), ("error_rate", 0, 1), ("min_length_quantile", 0, 1),
                            ("hard_below", 0, 1), ("rounds", 0, 3), ("samples", 1, 10_000), ("pass_k", 1, args.samples), ("chunk", 1, 10**9),
                            ("seed", 0, 2**63), ("max_chars", 1, 10**9), ("temperature", 0, 100),
                            ("max_new_tokens", 1, 10**9)]:
        if not low <= getattr(args, name) <= high:
            raise BadInput(f"--{name.replace('_', '-')}: must lie between {low} and {high}")
    writable(args.out)


def record_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.record.jsonl")


class Samples:
    """Counts samples beside the items of a progress bar: an item shows only at the end of its chunk."""

    def __init__(self):
        self.bar, self.count = None, 0

    def ended(self, count: int) -> None:
        self.count += count
        if self.bar is not None:
            self.bar.set_postfix(samples=self.count, refresh=False)
            self.bar.update(0)


def open_teacher(flag: str, args, graph: Graph | None, answers: Answers | None, done: Callable[[int], None]) -> Teacher:
    name = getattr(args, flag)
    if name == "oracle":
        if graph is None:
            raise BadInput("--graph: the oracle needs one")
        return Oracle(graph, args.detours, args.error_rate, args.seed)
    if is_url(name):
        if not args.model:
            raise BadInput(f"--model: which model of {name}?")
        return Endpoint(name, args.model, answers, temperature=args.temperature, max_tokens=args.max_new_tokens,
                        seed=args.seed, workers=args.workers, timeout=args.timeout, retries=args.retries,
                        requests_per_minute=args.requests_per_minute, done=done)
    if name != "tiny" and not Path(name).is_dir():
        raise BadInput(f"--{flag}: '{name}' is not a teacher: oracle, tiny, a model folder, or a URL")
    folder = model_folder(name)
    device = distributed.pick_device(args.device)
    model = load_model(folder, "bfloat16" if device.type == "cuda" else "float32", device)
    return Local(model, Tokenizer(folder), name, temperature=args.temperature, max_new_tokens=args.max_new_tokens,
                 seed=args.seed, done=done)


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def settings_of(args) -> dict[str, str]:
    return {name.replace("_", "-"): str(value) for name, value in vars(args).items()
            if name not in NO_MATTER and value is not None}


def made_with(args) -> dict:
    """What a record must agree on to be gone on with: the settings, and the bytes of what is read."""
    files = [args.items, *([args.guidelines] if args.guidelines else []), LEAKS, *sorted(FOLDER.glob("*.txt"))]
    files += [Path(args.graph)] if Path(args.graph).is_file() else []
    for name in {args.teacher, args.fallback, args.judge} - {None, "oracle", "self", "none"}:
        if is_url(name):
            continue
        folder = model_folder(name)
        files += [folder / "config.json", *weight_files(folder)]
    return settings_of(args) | {f"sha256 {file.name}": sha256(file) for file in files}


if __name__ == "__main__":
    raise SystemExit(guarded(main))
