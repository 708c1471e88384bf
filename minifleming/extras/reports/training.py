"""The page of a training run, from its own logs.

    python -m minifleming.rlvr.report RUN        writes RUN/report/training.html
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from minifleming.audit.reader import read_lines, read_step
from minifleming.extras.reports import plots
from minifleming.extras.reports.page import NOTE, document, heading, paragraph, preformatted, table
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

EXAMPLES = 5
SUPPORT = ("chain", "gap", "false", "unread")
STAGE_METRICS = ("reward", "accuracy", "zero_variance_groups", "sampled_entropy",
                 "completion_tokens")
KINDS = ("right", "middle", "wrong", "quarantine")
SUPPORT_NOTE = ("All right samples of these steps. chain: every stated hop is an edge of the graph and the "
                "last one touches the answer; gap: every hop is an edge, the last one does not touch it; "
                "false: a hop is no edge; unread: no hop could be read. A measure, never a reward.")
SOURCES = ("Made from metrics.jsonl, mining.jsonl and rollouts/; <code>python -m minifleming.audit "
           "verify</code> recomputes them.")


def write_page(folder: Path) -> Path:
    """Writes ``report/training.html`` of a run folder; returns its path."""
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
    counts = support_by_step(folder, steps, items, tokenizer, graph) if graph else []
    parts = [NOTE.format(SOURCES), stages_table(metrics, steps), heading("Curves"),
             plots.training(steps, rounds, counts)]
    parts += [support_table(counts), pools(rounds, ledger), alarms_table(folder),
              examples(folder, steps, items, tokenizer)]
    page = folder / "report" / "training.html"
    write_text(page, document(f"Reinforcement learning: {cfg.run.out}", parts))
    return page


def stages_table(metrics: list[dict], steps: list[dict]) -> str:
    """Each stage and round: the means of its first and of its last fifth."""
    stages: dict[tuple, list[dict]] = {}
    for m in steps:
        stages.setdefault((m["stage"], m["round"]), []).append(m)
    rows = []
    for (stage, number), mine in stages.items():
        fifth = max(len(mine) // 5, 1)
        row = ["stage 1" if stage == "rl_stage1" else f"stage 2, round {number}",
               f"{mine[0]['step']} to {mine[-1]['step']}"]
        for name in STAGE_METRICS:
            row.append(f"{_mean(mine[:fifth], name):.2f} → {_mean(mine[-fifth:], name):.2f}")
        rows.append([*row, f"{max(m['logprob_diff_max'] for m in mine):.1e}"])
    text = heading("Stages")
    text += paragraph("Means over the first fifth of the steps → over the last fifth.")
    text += table(["", "steps", *STAGE_METRICS, "logprob_diff_max"], rows)
    for m in metrics:
        if m["stage"] == "switch":
            text += paragraph(f"Stage 1 ended after step {m['step']}: {m['why']} (mean share of "
                              f"zero-variance groups {m['mean_zero_variance']:.2f}, threshold {m['threshold']:.2f}).")
    return text


def support_by_step(folder: Path, steps: list[dict], items: dict[str, Item], tokenizer: Tokenizer,
                    graph: Graph) -> list[dict]:
    """At ten steps: counts of the right answers to items with a path, by what their reasoning states."""
    size = max(-(-len(steps) // 10), 1)
    found = []
    for start in range(0, len(steps), size):
        part = steps[start : start + size]
        step = part[len(part) // 2]["step"]
        counts: Counter[str] = Counter()
        for entry in read_step(folder, step):
            item = items[entry["item_id"]]
            if entry["verdict"]["label"] == item.answer and item.path:
                reasoning = reasoning_of(tokenizer.decode(entry["completion_ids"][:-1]))
                counts[support(reasoning, item.nodes(item.answer)[-1].strip(), graph)] += 1
        if counts:
            found.append({"step": step, "right": counts.total(), **counts})
    return found


def support_table(counts: list[dict]) -> str:
    if not counts:
        return ""
    rows = []
    for row in counts:
        rows.append([row["step"], row["right"], *(row.get(kind, 0) / row["right"] for kind in SUPPORT)])
    return (heading("Right answers, and what supports them") + paragraph(SUPPORT_NOTE)
            + table(["step", "right", *SUPPORT], rows))


def pools(rounds: list[dict], ledger: list[dict]) -> str:
    """Sizes of the mined classes, and how items moved between them."""
    if not rounds:
        return ""
    sizes = [[r["round"], r["step"], *(r[kind] for kind in KINDS)] for r in rounds]
    text = heading("Mining") + table(["round", "after step", *KINDS], sizes)
    for r in rounds:
        moves: Counter[tuple[str, str]] = Counter()
        for entry in ledger:
            if entry["event"] == "mined" and entry["round"] == r["round"]:
                moves[entry["before"] or "no pool", entry["now"]] += 1
        rows = []
        for before in sorted({before for before, _ in moves}):
            rows.append([before, *(moves[before, kind] for kind in KINDS)])
        text += heading(f"Transitions at round {r['round']}", 3) + table(["from, to", *KINDS], rows)
    return text


def alarms_table(folder: Path) -> str:
    path = folder / "alarms.jsonl"
    rows = []
    for line in read_lines(path) if path.exists() else []:
        entry = json.loads(line)
        rows.append([entry["step"], entry["alarm"], entry["words"]])
    return heading("Alarms") + (table(["step", "alarm", "what"], rows) if rows else paragraph("None."))


def examples(folder: Path, steps: list[dict], items: dict[str, Item], tokenizer: Tokenizer) -> str:
    """Sample 0 of items drawn in the first and in the last fifth, as it was written."""
    fifth = max(len(steps) // 5, 1)
    early = first_samples(folder, steps[:fifth])
    late = first_samples(folder, steps[-fifth:])
    gains = []
    for name in early.keys() & late.keys():
        gains.append((early[name][1]["reward"] - late[name][1]["reward"], name))
    lost = sum(gain > 0 for gain, _ in gains)
    text = heading("Reasoning before and after") + paragraph(
        "Sample 0 of items drawn in the first and in the last fifth, the largest gains first; of "
        f"{len(gains)} such items {lost} lost.")
    for _, name in sorted(gains)[:EXAMPLES]:
        item = items[name]
        lines = [item.question, *(f"{label}. {option}" for label, option in item.options.items())]
        text += heading(name, 3) + preformatted("\n".join(lines))
        for step, entry in (early[name], late[name]):
            text += paragraph(f"Step {step}, reward {entry['reward']:.1f} "
                              f"({entry['verdict']['rule']}; right: {item.answer})")
            text += preformatted(tokenizer.decode(entry["completion_ids"]))
    return text


def first_samples(folder: Path, steps: list[dict]) -> dict[str, tuple[int, dict]]:
    """Returns the last step of these that drew an item, and the item's sample 0, by the item's id."""
    found = {}
    for m in steps:
        for entry in read_step(folder, m["step"]):
            if entry["sample"] == 0:
                found[entry["item_id"]] = (m["step"], entry)
    return found


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
