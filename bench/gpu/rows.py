"""Rows of results: each in DIR/rows.jsonl as soon as it is measured, and the table made of them in the end.

A line of rows.jsonl is a row, or {"begin": name}: which measurement is in work, so that a killed part is told from a
finished one. Nothing is written down that was not measured: a measurement that failed has its error instead.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

FASTER = ("s", "ms", "us", "MiB", "GiB")  # less is better; of anything else more
TITLE = "# The GPU suite"
COLUMNS = ("what", "of", "shape", "measured", "limit", "share", "aim", "reached", "peer", "ratio", "command")


def command(part: str, toy: bool, model: Path | None) -> str:
    """What measures this part again; of the model the folder's name, since results go from machine to machine."""
    return f"bench/gpu.sh --out DIR --parts {part}" + " --toy" * toy + (f" --model {model.name}" if model else "")


def append(out: Path, line: dict) -> None:
    """One line, on the disk before this returns."""
    with (out / "rows.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(out: Path) -> list[dict]:
    """All whole lines; one that a kill cut off is left out."""
    path, found = out / "rows.jsonl", []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def judged(row: dict) -> dict:
    """The row with its share of the limit, its ratio to the peer, and whether its aim is reached.

    aim: {"share": least} and {"ratio": least}, {"most": value} or {"least": value} of what is measured. At toy sizes
    only correctness ("must") is judged.
    """
    measured, limit, peer, aim = (row.get(key) for key in ("measured", "limit", "peer", "aim"))
    less = row.get("unit") in FASTER
    if limit is not None and measured:
        row["share"] = limit / measured if less else measured / limit
    if peer is not None and measured:
        row["ratio"] = peer / measured if less else measured / peer
    if aim and measured is not None and (row.get("must") or not row.get("toy")):
        tests = {"share": lambda x: row.get("share", 0.0) >= x, "ratio": lambda x: row.get("ratio", 0.0) >= x,
                 "most": lambda x: measured <= x, "least": lambda x: measured >= x}
        row["reached"] = all(tests[kind](value) for kind, value in aim.items())
    return row


def bad(row: dict) -> bool:
    """An error, or a bound of correctness that was missed. A missed aim of speed is a result."""
    return "error" in row or (row.get("must", False) and row.get("reached") is False)


def write_results(out: Path, machine: dict, notes: list[str]) -> None:
    """gpu.json and gpu.md from what rows.jsonl holds."""
    rows = [row for row in read(out) if "what" in row]
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    result = {"machine": machine, "notes": notes, "rows": rows, "written": now}
    for name, text in (("gpu.json", json.dumps(result, indent=1) + "\n"), ("gpu.md", markdown(machine, notes, rows))):
        whole = out / f"{name}.part"
        whole.write_text(text, encoding="utf-8")
        whole.replace(out / name)


def markdown(machine: dict, notes: list[str], rows: list[dict]) -> str:
    lines = [TITLE, ""]
    if machine.get("toy", True):
        lines += [f"**Toy sizes, {machine.get('kind', 'CPU').upper()}: not results.**", ""]
    facts = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in machine.items()}
    lines += ["; ".join(f"{key} {value}" for key, value in facts.items() if value not in (None, "")) + ".", ""]
    lines += [f"- {note}" for note in notes] + [""] * bool(notes)
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cells(row: dict) -> list[str]:
    unit = row.get("unit", "")
    if "error" in row:
        measured = f"**failed**: {row['error']}"
    else:
        measured = amount(row.get("measured"), unit) + (f" ({row['note']})" if row.get("note") else "")
    peers = amount(row.get("peer"), unit) + (f" {row['peer_name']}" if row.get("peer_name") else "")
    reached = {None: "", True: "yes", False: "**no**"}[row.get("reached")]
    found = [*(row.get(name, "") for name in ("what", "measurement", "shape")), measured,
             amount(row.get("limit"), unit), "" if row.get("share") is None else f"{100 * row['share']:.3g} %",
             aims(row.get("aim"), unit), reached,
             peers, "" if row.get("ratio") is None else f"{row['ratio']:.3g}", f"`{row.get('command', '')}`"]
    return [str(cell).replace("|", "/").replace("\n", " ") for cell in found]


def aims(aim: dict | None, unit: str) -> str:
    words = {"share": lambda x: f"{100 * x:g} %", "ratio": lambda x: f"{x:g}x the peer",
             "most": lambda x: f"at most {amount(x, unit)}", "least": lambda x: f"at least {amount(x, unit)}"}
    return ", ".join(words[kind](value) for kind, value in (aim or {}).items())


def amount(value: float | str | None, unit: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".strip()
