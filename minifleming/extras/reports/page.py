"""HTML pages in one file each: the parts that all pages share, and the page of an evaluation.

Nothing is loaded from elsewhere: pictures are SVG inside the page.
"""

from __future__ import annotations

import html
from collections import Counter

from minifleming.evaluation.evaluate import is_correct
from minifleming.evaluation.tables import Sets, interval, percent
from minifleming.extras.analysis.paper import differences
from minifleming.extras.analysis.robust import label_distribution
from minifleming.extras.analysis.slices import slices

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}td{white-space:nowrap}td svg{max-width:none}
svg{display:block;max-width:100%;height:auto}.note{color:#666}
pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}"""
NOTE = "<p class=note>Research software, not for clinical use. {}</p>"
KINDS = ("multiple", "truncated", "empty", "unparsed")
SUPPORT_TITLES = {"chain": "a chain of edges", "gap": "true hops, the last one elsewhere",
                  "false": "a false hop", "unread": "no hop read"}
BAR = 200  # width, in pixels


class Markup(str):
    """Text that is HTML already and is not escaped again."""


def document(title: str, parts: list[str]) -> str:
    """Returns a whole page."""
    name = html.escape(title)
    return (f"<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title>"
            f"<style>{STYLE}</style><h1>{name}</h1>{''.join(parts)}</html>\n")


def heading(text: str, level: int = 2) -> str:
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def table(head: list[str], rows: list[list]) -> str:
    """Returns a table; cells are escaped unless they are Markup, and floats have three digits."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + "</tr>"]
    for row in rows:
        lines.append("<tr>" + "".join(map(_cell, row)) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(value) -> str:
    if isinstance(value, float):
        value = f"{value:.3f}"
    return f"<td>{value if isinstance(value, Markup) else html.escape(str(value))}</td>"


def from_markdown(text: str) -> str:
    """Returns the HTML of our own tables and paragraphs."""
    rows, words = [], []
    for line in text.split("\n"):
        if line.startswith("|") and not line.startswith("|---"):
            rows.append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
        elif line and not line.startswith("|"):
            words.append(paragraph(line))
    return (table(rows[0], rows[1:]) if rows else "") + "".join(words)


def evaluation_page(title: str, sets: Sets, rows: list[dict], confidence: float,
                    more: dict[str, str], drawn: dict[str, str]) -> str:
    """``rows``: tables.score_rows of ``sets``; ``more``: heading -> markdown; ``drawn``: name -> SVG.

    A drawing whose name begins with a benchmark's and a point is shown with that benchmark.
    """
    parts = [NOTE.format(f"Strict accuracy; {100 * confidence:.0f} % Wilson intervals; the red mark is "
                         "chance; the denominator is n throughout."), score_table(rows)]
    parts += map(paragraph, differences({row["benchmark"]: row["n"] for row in rows}))
    by_set: dict[str, list[str]] = {}
    for name, svg in drawn.items():
        by_set.setdefault(name.partition(".")[0], []).append(svg)
    for name in by_set.keys() - sets.keys():
        parts += by_set[name]
    for name, text in more.items():
        parts += [heading(name), from_markdown(text)]
    for name, records in sets.items():
        parts += [heading(name), label_table(records), support_table(records), *by_set.get(name, []),
                  slice_table(records, confidence)]
    return document(title, parts)


def score_table(rows: list[dict]) -> str:
    cells = []
    for row in rows:
        shares = [percent(row[key]) for key in ("chance", "lenient", *KINDS)]
        cells.append([row["benchmark"], row["n"], strict(row), bar(row), *shares])
    return table(["benchmark", "n", "strict, %", "", "chance", "lenient", *KINDS], cells)


def strict(row: dict) -> str:
    return interval(row["accuracy"], row["ci_low"], row["ci_high"])


def bar(row: dict) -> Markup:
    """Accuracy as a bar, its interval as a line, and chance, where it is known, as a mark."""
    mark = ""
    if "chance" in row:
        mark = f'<rect x="{BAR * row["chance"]:.1f}" y="0" width="1" height="14" fill="#c0504d"/>'
    wide = BAR * (row["ci_high"] - row["ci_low"])
    return Markup(
        f'<svg width="{BAR}" height="14" role="img"><rect width="{BAR}" height="14" fill="#eee"/>'
        f'<rect y="2" width="{BAR * row["accuracy"]:.1f}" height="10" fill="#6699cc"/>'
        f'<rect x="{BAR * row["ci_low"]:.1f}" y="6" width="{wide:.1f}" height="2" fill="#222"/>'
        f"{mark}</svg>")


def label_table(records: list[dict]) -> str:
    found = label_distribution(records)
    names = sorted(found["gold"].keys() | found["predicted"].keys())
    rows = [["right answers", *(found["gold"].get(name, 0) for name in names)],
            ["given answers", *(found["predicted"].get(name, 0) for name in names)]]
    return heading("Letters", 3) + table(["", *names], rows) + paragraph(
        f"Total variation distance {found['distance']:.2f}: 0 where the model gives each letter as often "
        "as it is right.")


def support_table(records: list[dict]) -> str:
    """Right answers by what their reasoning states, for items with a path in the graph."""
    counts = Counter(r["support"] for r in records if is_correct(r) and r["support"])
    if not counts:
        return ""
    rows = []
    for key, title in SUPPORT_TITLES.items():
        rows.append([title, counts[key], percent(counts[key] / counts.total())])
    return heading("What the right answers rest on", 3) + table(["", "items", "%"], rows)


def slice_table(records: list[dict], confidence: float) -> str:
    """Dimensions with several slices; one slice of all records would say nothing."""
    rows = slices(records, confidence)
    sizes = Counter(row["dimension"] for row in rows)
    cells = []
    for row in rows:
        if sizes[row["dimension"]] > 1:
            known = "accuracy" in row
            cells.append([f"{row['dimension']} {row['slice']}", row["n"],
                          strict(row) if known else "fewer than 30", bar(row) if known else ""])
    return heading("Slices", 3) + table(["", "n", "strict, %", ""], cells) if cells else ""
