"""Fail unless a run has learned: held-out accuracy rises from the base model, and ends above chance."""

import json
import sys
from pathlib import Path

rows = json.loads((Path(sys.argv[1]) / "report" / "ablation.json").read_text())
found = {row["variant"]: row["accuracy"] for row in rows if row["split"] == "heldout"}
first, last = found["base"], found["rl_stage2"]
print(f"held-out accuracy: {first:.3f} of the base model, {last:.3f} at the end")
if not last > max(first, 1 / 8):
    sys.exit("the main job has not learned")
