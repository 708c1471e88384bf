"""Compares models on the same items: the paper's Table 3, and each model against the first.

    {"benchmark": "medqa", "model": "rl_stage2", "against": "cold_start", "n": 500, "first": 0.564,
     "second": 0.854, "difference": 0.29, "ci_low": 0.248, "ci_high": 0.334, "lost": 9, "won": 154,
     "p": 3e-35, "p_holm": 3e-35}
"""

from __future__ import annotations

import numpy as np

from minifleming.evaluation.evaluate import is_correct
from minifleming.evaluation.statistics import holm, mcnemar
from minifleming.evaluation.tables import Interval, Sets, interval, macro, score_rows
from minifleming.run.errors import BadInput


def in_common(models: dict[str, Sets]) -> list[str]:
    """Returns the benchmarks that all models have. Raises BadInput if there is none."""
    first, *others = models.values()
    names = [name for name in first if all(name in sets for sets in others)]
    if not names:
        raise BadInput(f"{', '.join(models)}: no benchmark in common")
    return names


def compared(models: dict[str, Sets], confidence: float) -> list[dict]:
    """Returns each other model minus the first on each benchmark, Holm-adjusted over all rows.

    Raises BadInput if two models were not given the same items.
    """
    against, *others = models
    rows = []
    for model in others:
        for name in in_common(models):
            before = by_item(models[against][name])
            after = by_item(models[model][name])
            answers = [{item: r["answer"] for item, r in part.items()} for part in (before, after)]
            if answers[0] != answers[1]:
                raise BadInput(f"{name}: the records of {against} and {model} are not of the same items")
            first = np.array([is_correct(r) for r in before.values()], np.int64)
            second = np.array([is_correct(after[item]) for item in before], np.int64)
            lost = int((first > second).sum())
            won = int((first < second).sum())
            difference, low, high = paired_bootstrap(first, second, confidence=confidence)
            rows.append({
                "benchmark": name, "model": model, "against": against, "n": len(first),
                "first": float(first.mean()), "second": float(second.mean()),
                "difference": difference, "ci_low": low, "ci_high": high, "lost": lost, "won": won,
                "p": mcnemar(lost, won)})
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = p
    return rows


def by_item(records: list[dict]) -> dict[str, dict]:
    return {record["item"]: record for record in records}


def paired_bootstrap(first: np.ndarray, second: np.ndarray, *, draws: int = 10_000, seed: int = 0,
                     confidence: float = 0.95) -> Interval:
    """Returns the mean of second - first with its percentile bootstrap interval (Efron 1979).

    Items are resampled as pairs. The numbers of won and lost items in a resample are multinomial,
    so the draw is exact and takes no memory per item.

    Args:
        first, second: correct (1) or not (0) of each item. [items], at least one
    """
    delta = np.asarray(second, np.int64) - np.asarray(first, np.int64)
    n = len(delta)
    shares = [(delta > 0).mean(), (delta < 0).mean(), (delta == 0).mean()]
    counts = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    tail = (1 - confidence) / 2
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [tail, 1 - tail])
    return float(delta.mean()), float(low), float(high)


def side_by_side(models: dict[str, Sets], confidence: float) -> list[dict]:
    """Returns Table 3: tables.score_rows of each model, and a row for its macro average."""
    names = in_common(models)
    rows = []
    for model, sets in models.items():
        shared = {name: sets[name] for name in names}
        rows += [{"model": model} | row for row in score_rows(shared, confidence)]
        mean, low, high = macro(shared, confidence)
        rows.append({"model": model, "benchmark": "macro average", "accuracy": mean,
                     "ci_low": low, "ci_high": high})
    return rows


def table3(rows: list[dict], confidence: float) -> str:
    """Returns markdown: a line per model, a column per benchmark, the best of each in bold."""
    cells: dict[str, dict[str, dict]] = {}
    best: dict[str, float] = {}
    for row in rows:
        name = row["benchmark"]
        cells.setdefault(row["model"], {})[name] = row
        best[name] = max(best.get(name, 0.0), row["accuracy"])
    first = next(iter(cells.values()))
    heads = [name + (f" (n = {row['n']})" if "n" in row else "") for name, row in first.items()]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for model, found in cells.items():
        shown = []
        for name, row in found.items():
            text = interval(row["accuracy"], row["ci_low"], row["ci_high"])
            shown.append(f"**{text}**" if row["accuracy"] == best[name] else text)
        lines.append(f"| {model} | {' | '.join(shown)} |")
    footer = (f"Strict accuracy in %, with {100 * confidence:.0f} % Wilson intervals (macro average: "
              "bootstrap over items, or from the Wilson limits if a benchmark is at 0 or 100); the "
              "highest value of a column is bold, whatever its interval.")
    return "\n".join([*lines, "", footer])


def paired_markdown(rows: list[dict], confidence: float) -> str:
    """Returns a table for each model that is compared with the first."""
    tables: dict[str, list[str]] = {}
    for row in rows:
        head = [f"| benchmark | n | {row['against']} | {row['model']} | difference | lost, won "
                "| p (Holm) |", "|---|---|---|---|---|---|---|"]
        mark = "" if row["p_holm"] < 0.05 else " n.s."
        difference = interval(row["difference"], row["ci_low"], row["ci_high"], "+")
        tables.setdefault(row["model"], head).append(
            f"| {row['benchmark']} | {row['n']} | {100 * row['first']:.1f} | "
            f"{100 * row['second']:.1f} | {difference}{mark} | {row['lost']}, {row['won']} | "
            f"{row['p_holm']:.3g} |")
    footer = (f"Strict accuracy in %, differences in points with {100 * confidence:.0f} % intervals of "
              "a paired bootstrap; n.s.: exact McNemar test, p >= 0.05, Holm-adjusted over all lines.")
    return "\n\n".join(["\n".join(lines) for lines in tables.values()] + [footer])
