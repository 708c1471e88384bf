"""Contamination: copies found, and alarms without a copy: `python bench/contamination.py [--benchmarks FOLDER]`.

    held      1,000 items of the embedded graph with combinations of findings that are held out: the benchmark
    clean     10,000 items with other combinations, in the same wordings: every one that is called a copy is an alarm
    planted   100 of the benchmark's items once for each edit of tests/extras/curate/planting.py (typos, other options, a
              sentence more, ...): every one that is not found is missed

With ``--benchmarks`` also the development questions of MedMCQA in that folder (medmcqa_dev.jsonl) as clean items beside
its MedQA, MMLU and Medbullets files; what is called a copy there may be one, so the count is an upper bound of alarms.
The thresholds were chosen with the same graph and the same files at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "extras" / "curate"))
from planting import EDITS

from minifleming.evaluation.benchmarks import read_benchmark
from minifleming.evaluation.statistics import wilson
from minifleming.extras.curate.contamination import Index, contamination_step
from minifleming.rods.item import Item
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import Split, item_builder, synthesize
from minifleming.run.errors import Parser, run_cli
from minifleming.run.fields import Data

HELD, CLEAN, PLANTED = 1000, 10_000, 100
REAL = {"medqa": "medqa_test_4options.jsonl", "mmlu": "mmlu", "medbullets": "medbullets_op4.json"}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="contamination.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--benchmarks", type=Path)
    args = parser.parse_args(argv)
    held, clean = made(HELD, 2, True), made(CLEAN, 1, False)
    index = Index([("held", held)])
    results = [rate("clean, synthetic", called(clean, index), len(clean))]
    for edit in EDITS:
        rng = np.random.default_rng(0)
        copies = [edit(item, rng) for item in held[:PLANTED]]
        results.append(rate(f"planted, {edit.__name__}", called(copies, index), PLANTED))
    if args.benchmarks:
        against = [(name, read_benchmark(name, args.benchmarks / file)[0]) for name, file in REAL.items()]
        questions, _ = read_benchmark("medmcqa", args.benchmarks / "medmcqa_dev.jsonl")
        results.append(rate("clean or not, MedMCQA dev", called(questions, Index(against)), len(questions)))
    print(markdown(results), end="")
    if args.json:
        args.json.write_text(json.dumps({"date": date.today().isoformat(), "results": results}, indent=1) + "\n")
    return 0


def made(count: int, seed: int, held: bool) -> list[Item]:
    builder = item_builder(Data(style="vignette"), load_graph("embedded"))
    return synthesize(builder, count, [1, 2, 3], seed=seed, split=Split(held_out=held))


def called(items: list[Item], index: Index) -> int:
    """How many are called copies: dropped, or held back in quarantine."""
    return len(contamination_step(items, index)[1])


def rate(what: str, found: int, n: int) -> dict:
    low, high = wilson(found, n)
    return {"what": what, "called": found, "n": n, "low": low, "high": high}


def markdown(results: list[dict]) -> str:
    lines = ["| items | called copies | share, % |", "|---|---|---|"]
    lines += [f"| {r['what']} | {r['called']} of {r['n']} | {100 * r['called'] / r['n']:.2f} "
              f"[{100 * r['low']:.2f}, {100 * r['high']:.2f}] |" for r in results]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
