"""An evaluation as one self-contained HTML page: scores, letters, slices, how right answers are carried.

    runs/eval/scores.html

Nothing is loaded from elsewhere. The bars are drawn in the page itself; the plots need matplotlib, and the page says
so where it is missing.
"""

from __future__ import annotations

import html
from collections import Counter

from minifleming.evaluation.records import right
from minifleming.evaluation.scores import Sets, interval
from minifleming.extras.analysis.paper import differences
from minifleming.extras.analysis.robust import letters
from minifleming.extras.analysis.slices import slices
from minifleming.extras.reports import plots

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}\
td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}td{white-space:nowrap}td svg{max-width:none}
svg{display:block;max-width:100%;height:auto}.note{color:#666}"""
SUPPORT = {"chain": "a chain of edges", "gap": "true hops, the last one elsewhere", "false": "a false hop",
           "unread": "no hop read"}


def page(title: str, sets: Sets, rows: list[dict], confidence: float, more: dict[str, str], drawn: dict[str, str]
         ) -> str:
    """``rows`` as scores.scores gives them for ``sets``; ``more``: heading -> markdown; ``drawn``: name -> SVG.

    A drawing whose name begins with a benchmark's and a point stands with that benchmark, any other above them.
    """
    parts = [f"<h1>{html.escape(title)}</h1>",
             "<p class=note>Research software, not for clinical use. Strict accuracy; "
             f"{100 * confidence:.0f} % Wilson intervals; the red mark is chance; the denominator is n throughout.</p>",
             score_table(rows), *(f"<p>{html.escape(text)}</p>" for text in differences(
                 {row["benchmark"]: row["n"] for row in rows}))]
    if not plots.available():
        parts.append("<p class=note>No plots: matplotlib is not installed (the [plot] extra).</p>")
    parts += [svg for name, svg in drawn.items() if name.partition(".")[0] not in sets]
    parts += [f"<h2>{html.escape(heading)}</h2>{from_markdown(text)}" for heading, text in more.items()]
    for name, records in sets.items():
        parts += [f"<h2>{html.escape(name)}</h2>", letter_table(records), support_table(records),
                  *(svg for of, svg in drawn.items() if of.partition(".")[0] == name), slice_table(records, confidence)]
    return (f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
            f"<style>{STYLE}</style>{''.join(parts)}</html>\n")


def from_markdown(text: str) -> str:
    """Our own tables and paragraphs."""
    lines = [line for line in text.split("\n") if line and not line.startswith("|---")]
    rows = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    words = [f"<p>{html.escape(line)}</p>" for line in lines if not line.startswith("|")]
    return (table(rows[0], rows[1:]) if rows else "") + "".join(words)


def score_table(rows: list[dict]) -> str:
    kinds = ("multiple", "truncated", "empty", "unparsed")
    return table(["benchmark", "n", "strict, %", "", "chance", "lenient", *kinds],
                 [[row["benchmark"], row["n"], interval(row["accuracy"], row["ci_low"], row["ci_high"]), Bar(row),
                   *(f"{100 * row[key]:.1f}" for key in ("chance", "lenient", *kinds))] for row in rows])


class Bar:
    """Accuracy as a bar with its interval as a line and chance, where it is known, as a mark."""

    def __init__(self, row: dict):
        self.row = row

    def __str__(self) -> str:
        row, wide = self.row, 200
        chance = f'<rect x="{wide * row["chance"]:.1f}" y="0" width="1" height="14" fill="#c0504d"/>' \
            if "chance" in row else ""
        return (f'<svg width="{wide}" height="14" role="img"><rect width="{wide}" height="14" fill="#eee"/>'
                f'<rect y="2" width="{wide * row["accuracy"]:.1f}" height="10" fill="#6699cc"/>'
                f'<rect x="{wide * row["ci_low"]:.1f}" y="6" width="{wide * (row["ci_high"] - row["ci_low"]):.1f}" '
                f'height="2" fill="#222"/>{chance}</svg>')


def letter_table(records: list[dict]) -> str:
    found = letters([r["answer"] for r in records], [r["strict"] for r in records])
    names = sorted(found["gold"].keys() | found["predicted"].keys())
    return "<h3>Letters</h3>" + table(["", *names], [
        ["right answers", *(found["gold"].get(k, 0) for k in names)],
        ["given answers", *(found["predicted"].get(k, 0) for k in names)]]) + (
        f"<p>Total variation distance {found['distance']:.2f}: 0 where the model gives each letter as often as it is "
        "right.</p>")


def support_table(records: list[dict]) -> str:
    """Right answers by what their reasoning states, for items with a path in the graph."""
    counts = Counter(r["support"] for r in records if right(r) and r["support"])
    if not counts:
        return ""
    total = sum(counts.values())
    return "<h3>What the right answers rest on</h3>" + table(["", "items", "%"], [
        [title, counts[key], f"{100 * counts[key] / total:.1f}"] for key, title in SUPPORT.items()])


def slice_table(records: list[dict], confidence: float) -> str:
    """Dimensions that part the records; one slice for all would say nothing."""
    rows = slices(records, right, confidence)
    several = [d for d, count in Counter(row["dimension"] for row in rows).items() if count > 1]
    cells = [[f"{row['dimension']} {row['slice']}", row["n"],
              interval(row["accuracy"], row["ci_low"], row["ci_high"]) if "accuracy" in row else "fewer than 30",
              Bar(row) if "accuracy" in row else ""] for row in rows if row["dimension"] in several]
    return "<h3>Slices</h3>" + table(["", "n", "strict, %", ""], cells) if cells else ""


def table(head: list, rows: list[list]) -> str:
    def cell(value) -> str:
        return str(value) if isinstance(value, Bar) else html.escape(str(value))

    lines = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
