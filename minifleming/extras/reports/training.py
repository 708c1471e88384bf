"""A page of the run report: how reinforcement learning went, from the run's own logs.

    python -m minifleming.rlvr.report RUN        writes RUN/report/training.html

One file that a browser opens, without anything from elsewhere. The plots need matplotlib (`pip install -e '.[plot]'`);
without it the page has its tables and says so.
"""

from __future__ import annotations

import html
import json
from collections import Counter
from pathlib import Path

from minifleming.audit.reader import read_lines, read_step
from minifleming.extras.reports import training_plots
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.log import step_path
from minifleming.rods.answer import reasoning_of
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_items
from minifleming.rods.readers import load_graph
from minifleming.rods.reasoning import support
from minifleming.run import config as configuration
from minifleming.run.checkpoint import checkpoints, write_text
from minifleming.run.errors import BadInput, Parser, run_cli

EXAMPLES, SUPPORT = 5, ("chain", "gap", "false", "unread")
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:right}
td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
pre{background:#f6f6f6;padding:.6rem;white-space:pre-wrap}.note{color:#666}"""


def write_page(folder: Path) -> Path:
    """``report/training.html`` of a run folder."""
    cfg = configuration.load(folder / "config.toml")
    metrics = [json.loads(line) for line in read_lines(folder / "metrics.jsonl")]
    steps = [m for m in metrics if m["stage"].startswith("rl_")]
    if not steps:
        raise BadInput("no step of reinforcement learning", folder / "metrics.jsonl")
    rounds = [m for m in metrics if m["stage"] == "mining"]
    ledger = [json.loads(line) for line in read_lines(folder / "mining.jsonl")]
    items = {item.id: item for item in read_items(folder / "items" / "train.jsonl")}
    tokenizer = Tokenizer(checkpoints(folder / "checkpoints")[0] / "model")
    graph = load_graph(cfg.data.graph, cfg.data.columns) if cfg.data.graph else None
    chains = carried(folder, steps, items, tokenizer, graph) if graph else []
    parts = [
        f"<h1>Reinforcement learning: {html.escape(cfg.run.out)}</h1>",
        "<p class=note>Research software, not for clinical use. Made from metrics.jsonl, mining.jsonl and rollouts/; "
        "<code>python -m minifleming.audit verify</code> recomputes them.</p>",
        stages_table(metrics, steps), *drawn(steps, rounds, chains), carried_table(chains), pools(rounds, ledger),
        alarms_table(folder), examples(folder, steps, items, tokenizer),
    ]
    page = folder / "report" / "training.html"
    write_text(page, f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(cfg.run.out)}</title>"
                     f"<style>{STYLE}</style>{''.join(parts)}</html>\n")
    return page


def drawn(steps: list[dict], rounds: list[dict], chains: list[dict]) -> list[str]:
    if not training_plots.available():
        return ["<p class=note>No plots: matplotlib is not installed (the [plot] extra).</p>"]
    return ["<h2>Curves</h2>", training_plots.curves(steps, rounds, chains)]


def table(head: list[str], rows: list[list]) -> str:
    def cell(value) -> str:
        return html.escape(f"{value:.3f}" if isinstance(value, float) else str(value))

    lines = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{cell(value)}</td>" for value in row) + "</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"


def stages_table(metrics: list[dict], steps: list[dict]) -> str:
    """Each stage and round: its first and last fifth side by side, so that a change shows."""
    names = ("reward", "accuracy", "zero_variance_groups", "sampled_entropy", "completion_tokens")
    rows = []
    for place in dict.fromkeys((m["stage"], m["round"]) for m in steps):
        mine = [m for m in steps if (m["stage"], m["round"]) == place]
        fifth = max(len(mine) // 5, 1)
        title = "stage 1" if place[0] == "rl_stage1" else f"stage 2, round {place[1]}"
        cells = [f"{_mean(mine[:fifth], name):.2f} → {_mean(mine[-fifth:], name):.2f}" for name in names]
        rows.append([title, f"{mine[0]['step']} to {mine[-1]['step']}", *cells,
                     f"{max(m['logprob_diff_max'] for m in mine):.1e}"])
    switch = "".join(f"<p>Stage 1 ended after step {m['step']}: {html.escape(m['why'])} (mean share of "
                     f"zero-variance groups {m['mean_zero_variance']:.2f}, threshold {m['threshold']:.2f}).</p>"
                     for m in metrics if m["stage"] == "switch")
    return ("<h2>Stages</h2><p>Means over the first fifth of the steps → over the last fifth.</p>"
            + table(["", "steps", *names, "logprob_diff_max"], rows) + switch)


def carried(folder: Path, steps: list[dict], items: dict[str, Item], tokenizer: Tokenizer, graph: Graph) -> list[dict]:
    """At ten steps: how the right answers to items with a path are carried by what their reasoning states."""
    size, found = max(-(-len(steps) // 10), 1), []
    for at in range(0, len(steps), size):
        part, counts = steps[at : at + size], Counter()
        for entry in read_step(folder, part[len(part) // 2]["step"]):
            item = items[entry["item_id"]]
            if entry["verdict"]["label"] == item.answer and item.path:
                text = tokenizer.decode(entry["completion_ids"][:-1])
                counts[support(reasoning_of(text), item.nodes(item.answer)[-1].strip(), graph)] += 1
        found.append({"step": part[len(part) // 2]["step"], "right": sum(counts.values()), **counts})
    return [entry for entry in found if entry["right"]]


def carried_table(chains: list[dict]) -> str:
    if not chains:
        return ""
    rows = [[c["step"], c["right"], *(c.get(kind, 0) / c["right"] for kind in SUPPORT)] for c in chains]
    return ("<h2>Right answers, and what carries them</h2><p>All right samples of these steps. <em>chain</em>: every "
            "stated hop is an edge of the graph and the last one touches the answer; <em>gap</em>: every hop is an "
            "edge, the last one does not touch it; <em>false</em>: a hop is no edge; <em>unread</em>: no hop could be "
            "read. A measure, never a reward.</p>" + table(["step", "right", *SUPPORT], rows))


def pools(rounds: list[dict], ledger: list[dict]) -> str:
    """Sizes of the mined classes, and how items moved between them."""
    if not rounds:
        return ""
    kinds = ("right", "middle", "wrong", "quarantine")
    text = "<h2>Mining</h2>" + table(["round", "after step", *kinds], [
        [r["round"], r["step"], *(r[kind] for kind in kinds)] for r in rounds])
    for number in (r["round"] for r in rounds):
        moves = Counter((e["before"] or "no pool", e["now"]) for e in ledger
                        if e["event"] == "mined" and e["round"] == number)
        rows = [[before, *(moves[before, kind] for kind in kinds)] for before in sorted({b for b, _ in moves})]
        text += f"<h3>Transitions at round {number}</h3>" + table(["from, to", *kinds], rows)
    return text


def alarms_table(folder: Path) -> str:
    path = folder / "alarms.jsonl"
    entries = [json.loads(line) for line in read_lines(path)] if path.exists() else []
    return "<h2>Alarms</h2>" + (table(["step", "alarm", "what"], [[e["step"], e["alarm"], e["words"]] for e in entries])
                                if entries else "<p>None.</p>")


def examples(folder: Path, steps: list[dict], items: dict[str, Item], tokenizer: Tokenizer) -> str:
    """Items that were sampled in the first and in the last fifth: sample 0 of each, as it was written."""
    fifth = max(len(steps) // 5, 1)
    early, late = ({e["item_id"]: (m["step"], e) for m in part for e in read_step(folder, m["step"])
                    if e["sample"] == 0} for part in (steps[:fifth], steps[-fifth:]))
    both = [name for name in early if name in late]
    both.sort(key=lambda name: (early[name][1]["reward"] - late[name][1]["reward"], name))  # the largest gains first
    lost = sum(early[name][1]["reward"] > late[name][1]["reward"] for name in both)
    text = ("<h2>Reasoning before and after</h2><p>Sample 0 of items drawn in the first and in the last fifth, the "
            f"largest gains first; of {len(both)} such items {lost} lost.</p>")
    for name in both[:EXAMPLES]:
        item = items[name]
        options = "\n".join(f"{label}. {option}" for label, option in item.options.items())
        text += f"<h3>{html.escape(name)}</h3><pre>{html.escape(item.question)}\n{html.escape(options)}</pre>"
        for step, entry in (early[name], late[name]):
            text += (f"<p>Step {step}, reward {entry['reward']:.1f} ({entry['verdict']['rule']}; right: {item.answer})"
                     f"</p><pre>{html.escape(tokenizer.decode(entry['completion_ids']))}</pre>")
    return text


def _mean(steps: list[dict], name: str) -> float:
    return sum(m[name] for m in steps) / len(steps)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    args = parser.parse_args(argv)
    if not (args.run / "config.toml").is_file():
        raise BadInput("not a run folder: no config.toml", args.run)
    if not step_path(args.run, 1).parent.is_dir():
        raise BadInput("no rollouts", args.run)
    print(write_page(args.run))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
