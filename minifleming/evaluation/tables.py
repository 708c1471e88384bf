"""Tables from stored records: the ablation in the shape of the paper's Table 4."""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.evaluation.records import right
from minifleming.evaluation.scores import carried, to_csv
from minifleming.evaluation.statistics import holm, mcnemar, wilson
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput

VARIANTS = {"base": "Base", "cold_start": "+ CoT cold start", "rl_stage1": "+ RL stage 1", "rl_stage2": "+ RL stage 2"}
Records = dict[tuple[str, str], list[dict]]  # (variant, split) -> records


def ablation(records: Records, confidence: float) -> list[dict]:
    """One row per variant and split: counts, strict accuracy with its Wilson interval, and the diagnostics."""
    rows = []
    for (variant, split), found in records.items():
        n, correct = len(found), sum(map(right, found))
        low, high = wilson(correct, n, confidence)
        rows.append({
            "variant": variant, "split": split, "n": n, "correct": correct, "accuracy": correct / n,
            "ci_low": low, "ci_high": high,
            "lenient_accuracy": sum(r["lenient"] == r["answer"] for r in found) / n,
            "parse_rate": sum(r["rule"] == "ok" for r in found) / n,
            "truncated": sum(not r["finished"] for r in found) / n,
            "tokens": sum(r["tokens"] for r in found) / n,
        } | carried(found))
    return rows


def neighbours(records: Records) -> list[dict]:
    """Exact McNemar test of each variant against the one before it, item by item, Holm-adjusted over all."""
    tests = []
    for split in dict.fromkeys(split for _, split in records):
        present = [v for v in VARIANTS if (v, split) in records]
        for first, second in zip(present, present[1:]):
            before, after = ({r["item"]: right(r) for r in records[variant, split]} for variant in (first, second))
            if before.keys() != after.keys():
                raise BadInput(f"{split}: the records of {first} and {second} are not of the same items")
            pairs = [(before[item], after[item]) for item in before]
            lost, won = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
            tests.append({"split": split, "first": first, "second": second, "lost": lost, "won": won,
                          "difference": (won - lost) / len(pairs), "p": mcnemar(lost, won)})
    for test, p in zip(tests, holm([test["p"] for test in tests])):
        test["p_holm"] = p
    return tests


def markdown(rows: list[dict], tests: list[dict], confidence: float) -> str:
    """Table 4's shape: a line per variant, a column per split, the change to the line above beside it."""
    splits = list(dict.fromkeys(row["split"] for row in rows))
    by = {(row["variant"], row["split"]): row for row in rows}
    change = {(t["second"], t["split"]): t for t in tests}
    head = "| | " + " | ".join(f"{s} (n = {next(r['n'] for r in rows if r['split'] == s)})" for s in splits)
    lines = [head + " | lenient | parsed | right by a chain of edges | a hop false or missing | no hop read |",
             "|---|" + "---|" * (len(splits) + 5)]
    for variant, title in VARIANTS.items():
        if (variant, splits[0]) not in by:
            continue
        cells = []
        for split in splits:
            row, test = by[variant, split], change.get((variant, split))
            cell = f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
            if test:
                star = "" if test["p_holm"] < 0.05 else " n.s."
                cell += f" ({100 * test['difference']:+.1f}{star})"
            cells.append(cell)
        first = by[variant, splits[0]]
        cells += ["" if first[key] is None else f"{100 * first[key]:.1f}" for key in (
            "lenient_accuracy", "parse_rate", "right_by_a_chain_of_edges", "right_with_a_false_hop_or_a_gap",
            "right_and_no_hop_read")]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines.append("")
    lines.append(f"Strict accuracy in %, with {100 * confidence:.0f} % Wilson intervals; in round brackets the change "
                 "to the line above (n.s.: exact McNemar test, Holm-adjusted p >= 0.05). The last five columns are of "
                 f"{splits[0]}; the last three part its right answers by what the reasoning says.")
    return "\n".join(lines)


def write_report(folder: Path, records: Records, confidence: float, blind: dict[str, float] | None = None) -> str:
    """Write ``ablation.md``, ``.csv``, ``.json``, ``paired.json`` and ``blind.json``; return the table.

    ``blind``: split -> accuracy of ``rods.mix.blind_accuracy``.
    """
    rows, tests = ablation(records, confidence), neighbours(records)
    text = markdown(rows, tests, confidence)
    if blind:
        found = ", ".join(f"{100 * share:.1f} of {split}" for split, share in blind.items())
        text += f" A rule that never reads the question, only how often each option was right in training: {found}."
        write_text(folder / "blind.json", json.dumps(blind, indent=1) + "\n")
    write_text(folder / "ablation.json", json.dumps(rows, indent=1) + "\n")
    write_text(folder / "paired.json", json.dumps(tests, indent=1) + "\n")
    write_text(folder / "ablation.csv", to_csv(rows))
    write_text(folder / "ablation.md", text + "\n")
    return text
