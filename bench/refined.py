"""Refined against unrefined traces: `python bench/refined.py --seeds 3 --json F`.

The cold start of recipes/tiny.toml from the shipped base, three times a seed, on the same items in the same order, with
as many traces; only what the traces tell differs:

    straight   the path alone (cold_start.detour_fraction = 0)
    mixed      the recipe's share of traces backtracks, explores or corrects itself
    refined    every trace does, where its item has a rival to go astray to

Each student answers the held-out items of the recipe greedily. A difference is paired: the same items and seeds, a
bootstrap over both, 95 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch

from minifleming.evaluation.evaluate import is_correct
from minifleming.recipe import Recipe
from minifleming.rods.synthesize import EVALUATED as SPLITS
from minifleming.rods.synthesize import check_disjoint
from minifleming.run import config as configuration
from minifleming.run.errors import BadInput, Parser, run_cli

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
DRAWS = 10_000


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="refined.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    if args.seeds < 1:
        raise BadInput("--seeds: must be positive")
    recipe = configuration.load(RECIPE)
    arms = {"straight": 0.0, "mixed": recipe.cold_start.detour_fraction, "refined": 1.0}
    right = {split: {arm: [] for arm in arms} for split in SPLITS}
    strategies: dict[str, dict[str, int]] = {}
    for seed in range(args.seeds):
        for arm, detours in arms.items():
            with tempfile.TemporaryDirectory() as folder:
                found, strategies[arm] = student(recipe, seed, detours, Path(folder))
            for split in SPLITS:
                right[split][arm].append(found[split])
            print(f"seed {seed}, {arm}: " + ", ".join(f"{s} {100 * np.mean(found[s]):.1f}" for s in SPLITS), flush=True)
    result = {"date": date.today().isoformat(), "machine": platform.machine(), "torch": torch.__version__,
              "threads": torch.get_num_threads(), "seeds": args.seeds, "strategies": strategies,
              "splits": {split: table(right[split]) for split in SPLITS}}
    print(markdown(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def student(recipe, seed: int, detours: float, folder: Path) -> tuple[dict[str, list[bool]], dict[str, int]]:
    """Item by item, whether the student of this arm answers right; and its traces by strategy."""
    cfg = dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, out=str(folder / "run"), seed=seed),
                              cold_start=dataclasses.replace(recipe.cold_start, detour_fraction=detours))
    recipe = Recipe(cfg)
    recipe.run.open(recipe.base)
    splits = recipe.items()
    model = recipe.cold_start(splits["train"], check_disjoint(splits, folder))
    found = {split: [is_correct(r) for r in recipe.evaluate("cold_start", model, split, splits[split])] for split in SPLITS}
    strategies = [json.loads(line)["strategy"] for line in (folder / "run" / "traces.jsonl").read_text().splitlines()]
    return found, {name: strategies.count(name) for name in sorted(set(strategies))}


def table(right: dict[str, list[list[bool]]]) -> dict:
    """Accuracy of each arm in each seed, and the paired differences to ``straight``, in points of a hundred."""
    arms = {arm: np.array(rows, dtype=float) for arm, rows in right.items()}  # [seeds, items]
    out = {"items": arms["straight"].shape[1], "accuracy": {a: (100 * x.mean(1)).tolist() for a, x in arms.items()}}
    rng = np.random.default_rng(0)
    seeds, items = arms["straight"].shape
    for arm in (a for a in arms if a != "straight"):
        gain = 100 * (arms[arm] - arms["straight"])
        draws = [gain[np.ix_(rng.integers(seeds, size=seeds), rng.integers(items, size=items))].mean()
                 for _ in range(DRAWS)]
        low, high = np.quantile(draws, [0.025, 0.975])
        out[f"{arm}_minus_straight"] = {"points": gain.mean(), "low": low, "high": high}
    return out


def markdown(result: dict) -> str:
    rows = ["| split | traces | accuracy, seed by seed | difference to straight |", "|---|---|---|---|"]
    for split, t in result["splits"].items():
        for arm, values in t["accuracy"].items():
            gain = t.get(f"{arm}_minus_straight")
            told = "" if gain is None else f"{gain['points']:+.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]"
            rows.append(f"| {split} (n = {t['items']}) | {arm} | {', '.join(f'{v:.1f}' for v in values)} | {told} |")
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
