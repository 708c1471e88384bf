"""Several models on the same items: the paper's Table 3, and each model against the first, item by item.

    {"benchmark": "medqa", "model": "rl_stage2", "against": "cold_start", "n": 500, "first": 0.564, "second": 0.854,
     "difference": 0.29, "ci_low": 0.248, "ci_high": 0.334, "lost": 9, "won": 154, "p": 3e-35, "p_holm": 3e-35}
"""

from __future__ import annotations

import numpy as np

from minifleming.evaluation.evaluate import is_correct
from minifleming.evaluation.statistics import holm, mcnemar, paired_bootstrap
from minifleming.evaluation.tables import Sets, interval, macro, score_rows
from minifleming.run.errors import BadInput


def in_common(models: dict[str, Sets]) -> list[str]:
    """The benchmarks that all models have, in the order of the first. Raises BadInput if there is none."""
    names = [name for name in next(iter(models.values())) if all(name in sets for sets in models.values())]
    if not names:
        raise BadInput(f"{', '.join(models)}: no benchmark in common")
    return names


def compared(models: dict[str, Sets], confidence: float) -> list[dict]:
    """Each other model minus the first on each benchmark: bootstrap interval, exact McNemar test, Holm over all rows.

    Raises BadInput where two were not asked the same items.
    """
    against, *others = models
    rows = []
    for model in others:
        for name in in_common(models):
            before, after = ({r["item"]: (is_correct(r), r["answer"]) for r in models[m][name]} for m in (against, model))
            if before.keys() != after.keys() or any(before[i][1] != after[i][1] for i in before):
                raise BadInput(f"{name}: the records of {against} and {model} are not of the same items")
            pairs = np.array([(before[item][0], after[item][0]) for item in before], np.int64)
            lost, won = int((pairs[:, 0] > pairs[:, 1]).sum()), int((pairs[:, 0] < pairs[:, 1]).sum())
            mean, low, high = paired_bootstrap(pairs[:, 0], pairs[:, 1], confidence=confidence)
            rows.append({"benchmark": name, "model": model, "against": against, "n": len(pairs),
                         "first": float(pairs[:, 0].mean()), "second": float(pairs[:, 1].mean()), "difference": mean,
                         "ci_low": low, "ci_high": high, "lost": lost, "won": won, "p": mcnemar(lost, won)})
    for row, p in zip(rows, holm([row["p"] for row in rows])):
        row["p_holm"] = p
    return rows


def side_by_side(models: dict[str, Sets], confidence: float) -> list[dict]:
    """Table 3: a row a model and benchmark, as tables.score_rows gives them, and one for the macro average."""
    rows, names = [], in_common(models)
    for model, sets in models.items():
        shared = {name: sets[name] for name in names}
        rows += [{"model": model} | row for row in score_rows(shared, confidence)]
        mean, low, high = macro(shared, confidence)
        rows.append({"model": model, "benchmark": "macro average", "accuracy": mean, "ci_low": low, "ci_high": high})
    return rows


def table3(rows: list[dict], confidence: float) -> str:
    """The paper's shape: a line a model, a column a benchmark, the best of each in bold. ``rows`` of side_by_side."""
    models, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("model", "benchmark"))
    cell = {(row["model"], row["benchmark"]): row for row in rows}
    heads = [f"{name} (n = {cell[models[0], name]['n']})" if "n" in cell[models[0], name] else name for name in names]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for model in models:
        shown = []
        for name in names:
            row, best = cell[model, name], max(cell[other, name]["accuracy"] for other in models)
            text = interval(row["accuracy"], row["ci_low"], row["ci_high"])
            shown.append(f"**{text}**" if row["accuracy"] == best else text)
        lines.append(f"| {model} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", f"Strict accuracy in %, with {100 * confidence:.0f} % Wilson intervals (macro "
                      "average: bootstrap over items, or from the Wilson limits where a benchmark is at 0 or "
                      "100); the highest figure of a column is bold, whatever its interval."])


def paired_markdown(rows: list[dict], confidence: float) -> str:
    """A table for each model that is held against the first."""
    parts = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        lines = [f"| benchmark | n | {mine[0]['against']} | {model} | difference | lost, won | p (Holm) |",
                 "|---|---|---|---|---|---|---|"]
        for row in mine:
            mark = "" if row["p_holm"] < 0.05 else " n.s."
            lines.append(f"| {row['benchmark']} | {row['n']} | {100 * row['first']:.1f} | {100 * row['second']:.1f} | "
                         f"{interval(row['difference'], row['ci_low'], row['ci_high'], '+')}{mark} | {row['lost']}, "
                         f"{row['won']} | {row['p_holm']:.3g} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, f"Strict accuracy in %, differences in points with {100 * confidence:.0f} % "
                        "intervals of a paired bootstrap; n.s.: exact McNemar test, p >= 0.05, adjusted after Holm "
                        "over all lines."])
