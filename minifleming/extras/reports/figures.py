"""Draws the README's pictures as SVG: `python -m minifleming.extras.reports.figures --run runs/tiny`.

Writes `pipeline.svg`, `learning_curve.svg` and the figures behind the curve, `learning_curve.json`,
into `docs/figures`. Without `--run` the curve is drawn again from that JSON file. Every picture has
a light card of its own behind it, so it reads the same on a white and on a dark page.
"""

from __future__ import annotations

import json
from pathlib import Path

from minifleming.extras.reports.svg import INK, SOFT, card, line, text
from minifleming.run.errors import BadInput, Parser, run_cli

OUT = Path(__file__).parents[3] / "docs" / "figures"
COLORS = {"data": "#0969da", "cold": "#8250df", "rl": "#1a7f37", "eval": "#9a6700"}
WINDOW = 9  # steps of the smoothed curve

# x, y, width, kind, title, what it does, module
BOXES = [
    (20, 44, 150, "data", "Knowledge graph", "203 diseases", "rods/graph.py"),
    (200, 44, 150, "data", "Walk", "multi-hop, rare first", "rods/walk.py"),
    (380, 44, 150, "data", "Question", "mask, distractors", "rods/question.py"),
    (560, 44, 150, "data", "Proof", "checked against graph", "rods/proof.py"),
    (20, 154, 150, "cold", "Trace", "oracle or teacher", "cold_start/oracle.py"),
    (200, 154, 150, "cold", "Checks", "verify each trace", "cold_start/checks.py"),
    (380, 154, 150, "cold", "Fine-tuning", "loss on completions", "cold_start/sft.py"),
    (20, 264, 150, "rl", "Rollout", "k samples a prompt", "lm/sampler.py"),
    (200, 264, 150, "rl", "Reward", "correct + 0.1 format", "rlvr/reward.py"),
    (380, 264, 150, "rl", "Advantage, loss", "Eq. 1-3", "rlvr/objective.py"),
    (560, 264, 150, "rl", "Update", "one AdamW step", "rlvr/update.py"),
    (560, 154, 150, "rl", "Mining", "pass rate, 1 : 2", "rlvr/mining.py"),
    (740, 154, 120, "eval", "Evaluation", "strict, Wilson", "evaluation/"),
]
HEIGHT = 66
LABELS = [(20, 34, "data", "RODS, data with proofs (§3.1)"),
          (20, 146, "cold", "Cold start (§3.2)"),
          (20, 256, "rl", "Two-stage GRPO (§3.3)")]


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="figures", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", type=Path, help="a finished run folder")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    args = parser.parse_args(argv)
    data = args.out / "learning_curve.json"
    if args.run is None and not data.exists():
        raise BadInput("missing; give a finished run with --run", data)
    curve = json.loads(data.read_text()) if args.run is None else read_curve(args.run)
    args.out.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(curve, indent=1) + "\n")
    (args.out / "pipeline.svg").write_text(pipeline())
    (args.out / "learning_curve.svg").write_text(learning_curve(curve))
    print(f"pipeline.svg, learning_curve.svg and learning_curve.json in {args.out}")
    return 0


def read_curve(run: Path) -> dict:
    """Training accuracy of each RL step and held-out accuracy after each stage, from a run folder."""
    path = run / "metrics.jsonl"
    if not path.exists():
        raise BadInput("missing; give a finished run folder", path)
    steps = []
    for row_text in path.read_text().splitlines():
        row = json.loads(row_text)
        if row["stage"] in ("rl_stage1", "rl_stage2") and "accuracy" in row:
            steps.append({"step": row["step"], "stage": row["stage"], "accuracy": row["accuracy"]})
    heldout = {}
    for row in json.loads((run / "report" / "ablation.json").read_text()):
        if row["split"] == "heldout":
            shown = ("n", "accuracy", "ci_low", "ci_high")
            heldout[row["variant"]] = {name: row[name] for name in shown}
    return {"steps": steps, "heldout": heldout}


def arrow(points: list[tuple[float, float]]) -> str:
    return line(points, SOFT, 1.5, 'marker-end="url(#arrow)"')


def box(x: float, y: float, width: float, kind: str, title: str, what: str, module: str) -> str:
    frame = (f'<rect x="{x}" y="{y}" width="{width}" height="{HEIGHT}" rx="6" fill="#ffffff" '
             f'stroke="{COLORS[kind]}" stroke-width="1.5"/>')
    mono = "style='font-family: Menlo, Consolas, monospace'"
    return "\n".join([frame, text(x + 10, y + 21, title, 14, INK, extra="font-weight='bold'"),
                      text(x + 10, y + 39, what, 12, SOFT),
                      text(x + 10, y + 56, module, 11, COLORS[kind], extra=mono)])


def pipeline() -> str:
    """Fig. 2 of the paper as this code runs it, each box with its module."""
    body = [text(x, y, words, 13, COLORS[kind], extra="font-weight='bold'")
            for x, y, kind, words in LABELS]
    for row in BOXES:
        body.append(box(*row))
    middle = HEIGHT / 2
    for y, starts in ((44, (170, 350, 530)), (154, (170, 350)), (264, (170, 350, 530))):
        body += [arrow([(x, y + middle), (x + 29, y + middle)]) for x in starts]
    body.append(arrow([(635, 110), (635, 124), (10, 124), (10, 187), (19, 187)]))
    body.append(arrow([(455, 220), (455, 234), (10, 234), (10, 297), (19, 297)]))
    body.append(arrow([(635, 264), (635, 221)]))
    body.append(text(642, 240, "plateau", 12, SOFT))
    body.append(arrow([(710, 187), (739, 187)]))
    body.append(arrow([(635, 330), (635, 352), (95, 352), (95, 331)]))
    body.append(text(365, 367, "next step: stage 1 on easy + moderate items, "
                     "stage 2 on mined items", 12, SOFT, "middle"))
    return card(880, 384, "The pipeline: graph, walk, question and proof; traces, checks and "
                "fine-tuning; rollout, reward, advantage, update, mining; evaluation", body)


def smooth(values: list[float]) -> list[float]:
    """Centred moving average over at most WINDOW values."""
    half = WINDOW // 2
    result = []
    for index in range(len(values)):
        near = values[max(0, index - half): index + half + 1]
        result.append(sum(near) / len(near))
    return result


def learning_curve(curve: dict) -> str:
    """Accuracy over the RL steps: each step's samples, their average, and held-out accuracy."""
    left, right, top, bottom = 60, 850, 46, 270
    steps = curve["steps"]
    last = steps[-1]["step"]
    stage1 = max(row["step"] for row in steps if row["stage"] == "rl_stage1")

    def x_of(step: float) -> float:
        return left + (right - left) * step / last

    def y_of(share: float) -> float:
        return bottom - (bottom - top) * share

    title = f"Accuracy: training samples (grey; blue: mean of {WINDOW} steps), held-out items (dots)"
    body = [text(left, 26, title, 14, extra="font-weight='bold'")]
    for percent in (0, 25, 50, 75, 100):
        y = y_of(percent / 100)
        body.append(line([(left, y), (right, y)], "#d0d7de", 1))
        body.append(text(left - 8, y + 4, f"{percent} %", 12, SOFT, "end"))
    body.append(line([(x_of(stage1), top), (x_of(stage1), bottom)], SOFT, 1.2,
                     'stroke-dasharray="4 3"'))
    body.append(text(x_of(stage1 / 2), top + 14, "stage 1", 13, COLORS["rl"], "middle"))
    body.append(text(x_of((stage1 + last) / 2), top + 14, "stage 2", 13, COLORS["cold"], "middle"))
    raw = [row["accuracy"] for row in steps]
    at = [x_of(row["step"]) for row in steps]
    body.append(line(list(zip(at, map(y_of, raw))), "#afb8c1", 1))
    body.append(line(list(zip(at, map(y_of, smooth(raw)))), COLORS["data"], 2))
    places = {"cold_start": 0, "rl_stage1": stage1, "rl_stage2": last}
    for variant, step in places.items():
        row = curve["heldout"][variant]
        x, y = x_of(step), y_of(row["accuracy"])
        body.append(line([(x, y_of(row["ci_low"])), (x, y_of(row["ci_high"]))], INK, 1.5))
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{COLORS["eval"]}"/>')
        side = -10 if step == last else 10
        body.append(text(x + side, y - 8, f"{100 * row['accuracy']:.1f}", 13, COLORS["eval"],
                         "end" if step == last else "start", "font-weight='bold'"))
    for step in sorted({0, stage1, last}):
        body.append(text(x_of(step), bottom + 18, str(step), 12, SOFT, "middle"))
    body.append(text((left + right) / 2, bottom + 36, "reinforcement learning step", 12, SOFT,
                     "middle"))
    return card(880, 320, "Learning curve of the default run", body)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
