"""The audit log: one file a step, one line a sample, everything that its weight in the loss follows from.

    rollouts/step_000012.jsonl.gz

``coefficient`` is dL/dlogπ of every token of the sample: -A / (k · prompts).
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from minifleming.rlvr.rollout import Rollout
from minifleming.run import parallel


def write_step(folder: Path, step: int, groups: list[list[Rollout]], *, seed: int, samples: int, prompts: int,
               device) -> None:
    """Gather the ranks' samples and write them on rank 0, in the order of the batch."""
    records = [[_record(r, seed, step, samples, prompts) for r in group] for group in groups]
    records = parallel.all_gather(records, device)
    if parallel.rank() != 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for group in records for record in group)
    path = folder / f"step_{step:06d}.jsonl.gz"
    temporary = path.with_suffix(".partial")
    temporary.write_bytes(gzip.compress(text.encode(), 6, mtime=0))
    temporary.replace(path)


def _record(r: Rollout, seed: int, step: int, samples: int, prompts: int) -> dict:
    return {
        "item_id": r.item.id,
        "drawn_because": r.why,
        "key": [seed, step, r.item.id, r.sample],
        "prompt_ids": r.prompt_ids,
        "completion_ids": r.ids,
        "logprobs": [round(p, 7) for p in r.logprobs],
        "finished": r.finished,
        "verdict": {"label": r.verdict.label, "rule": r.verdict.rule, "span": list(r.verdict.span)},
        "answer": r.item.answer,
        "reward": r.reward,
        "group_mean": r.mean,
        "advantage": r.advantage,
        "denominator": samples * prompts,
        "coefficient": -r.advantage / (samples * prompts),
    }
