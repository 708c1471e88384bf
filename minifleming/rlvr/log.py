"""The log: one line a sample, everything that its weight in the loss follows from, chained by hashes.

    rollouts/step_000012.jsonl.gz

    step, sample, item_id, item_sha256, source, tier, labels, answer    the item and where it comes from
    drawn_because                                                       the tier or mining class it was drawn from
    key                                                                 [seed, step - 1, item id, sample] of its draws
    prompt_ids, completion_ids, finished, logprobs                      logprobs: natural, as recorded by the sampler
    verdict {label, rule, span}                                         of the strict parser; span in characters
    reward_terms {correct, format}, reward, group_mean, advantage       Eq. 2-3
    denominator, coefficient                                            dL/dlogπ of its tokens: one number, or a list
                                                                        where they differ (a KL term, a ratio); where a
                                                                        step has several updates, of the first of them
    trained_logprobs                                                    the trainer's, before the step; [] if not scored
    reference_logprobs                                                  only with rl.kl_coef > 0
    updates [{update, logprobs, denominator, coefficient, clipped}]     only with several updates a step
    hash                                                                sha256 of the hash before it and of this line

Lines of the ledger and the metrics of reinforcement learning are links of the same chain, in the order of time.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
import re
import zlib
from collections import Counter
from pathlib import Path

from minifleming.rlvr.rollout import Rollout
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, RunFailed

SEAL = re.compile(r'^(.*), "hash": "([0-9a-f]{64})"\}$', re.DOTALL)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def item_sha256(item: Item) -> str:
    return sha256_text(json.dumps(dataclasses.asdict(item), sort_keys=True))


def record(r: Rollout, seed: int, step: int) -> dict:
    """A sample of step ``step`` (from 1), without its hash."""
    kept = {
        "step": step, "sample": r.sample, "item_id": r.item.id, "item_sha256": item_sha256(r.item),
        "source": r.item.source, "tier": r.item.tier, "labels": r.item.labels, "answer": r.item.answer,
        "drawn_because": r.why, "key": [seed, step - 1, r.item.id, r.sample],
        "prompt_ids": r.prompt_ids, "completion_ids": r.ids, "finished": r.finished, "logprobs": r.logprobs,
        "verdict": {"label": r.verdict.label, "rule": r.verdict.rule, "span": list(r.verdict.span)},
        "reward_terms": r.terms, "reward": r.reward, "group_mean": r.mean, "advantage": r.advantage,
        "denominator": r.denominator, "coefficient": r.coefficient, "trained_logprobs": r.trained,
    }
    if r.reference:
        kept["reference_logprobs"] = r.reference
    if r.updates:
        kept["updates"] = r.updates
    return kept


def brief(record: dict) -> dict:
    """What the figures of a step are made from: a few numbers of each record."""
    verdict = record["verdict"]
    return {"item": record["item_id"], "tier": record["tier"], "answer": record["answer"], "label": verdict["label"],
            "rule": verdict["rule"], "finished": record["finished"], "tokens": len(record["completion_ids"]),
            "surprise": -math.fsum(record["logprobs"]), "reward": record["reward"]}


def figures(briefs: list[dict], samples: int) -> dict:
    """A step in numbers: means over its samples, shares of its groups. Sums are exact, so no order or rank matters."""
    groups = [briefs[at : at + samples] for at in range(0, len(briefs), samples)]
    n, tokens = len(briefs), sum(b["tokens"] for b in briefs)
    right = [b["label"] == b["answer"] for b in briefs]
    all_right = sum(all(b["label"] == b["answer"] for b in g) for g in groups)
    all_wrong = sum(not any(b["label"] == b["answer"] for b in g) for g in groups)
    found = {
        "prompts": len(groups), "samples": samples,
        "sparsity": sum(len({b["reward"] for b in g}) == 1 for g in groups) / len(groups),
        "all_right": all_right / len(groups), "all_wrong": all_wrong / len(groups),
        "reward": math.fsum(b["reward"] for b in briefs) / n, "accuracy": sum(right) / n,
        "format": sum(b["rule"] == "ok" for b in briefs) / n, "finished": sum(b["finished"] for b in briefs) / n,
        "length": tokens / n, "length_max": max(b["tokens"] for b in briefs),
        "entropy": math.fsum(b["surprise"] for b in briefs) / tokens,
        "rules": dict(sorted(Counter(b["rule"] for b in briefs).items())),
        "letters": dict(sorted(Counter(b["label"] for b in briefs if b["label"]).items())),
    }
    for tier in sorted({b["tier"] for b in briefs} - {""}):
        mine = [b["label"] == b["answer"] for b in briefs if b["tier"] == tier]
        found[f"accuracy_{tier}"] = sum(mine) / len(mine)
    return found


def seal(entry: dict, chain: str) -> tuple[str, str]:
    """The entry as a line that ends with its hash, and that hash: the next link's ``chain``."""
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
    link = hashlib.sha256((chain + text).encode()).hexdigest()
    return f'{text[:-1]}, "hash": "{link}"}}', link


def unseal(line: str, chain: str, path: Path, number: int) -> tuple[dict, str]:
    """The entry of a line, and its hash. Raises RunFailed where a byte is not what was written after ``chain``."""
    match = SEAL.match(line)
    if not match or hashlib.sha256(f"{chain}{match[1]}}}".encode()).hexdigest() != match[2]:
        raise RunFailed(f"{path}:{number}: its hash does not fit: this line, or the one before it, is not as it was "
                        "written")
    return json.loads(f"{match[1]}}}"), match[2]


def step_path(folder: Path, step: int) -> Path:
    return folder / "rollouts" / f"step_{step:06d}.jsonl.gz"


def first_step(folder: Path) -> int:
    """The first step that a run took itself, by its log; 1 for a run that has none yet."""
    return min((int(path.name[5:11]) for path in (folder / "rollouts").glob("step_*.jsonl.gz")), default=1)


def write_step(path: Path, records: list[dict], chain: str) -> str:
    """The records in the order of the batch, each a link of the chain. Returns the hash of the last."""
    lines = []
    for entry in records:
        line, chain = seal(entry, chain)
        lines.append(line)
    write_lines(path, lines)
    return chain


def write_lines(path: Path, lines: list[str]) -> None:
    """A compressed file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    with open(temporary, "wb") as stream:
        stream.write(gzip.compress("".join(line + "\n" for line in lines).encode(), 6, mtime=0))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_lines(path: Path) -> list[str]:
    """The lines of a log, split at newlines alone. Raises BadInput if there is none, RunFailed if it is damaged."""
    if not path.is_file():
        raise BadInput("no such file", path)
    raw = path.read_bytes()
    try:
        *lines, rest = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode().split("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise RunFailed(f"{path}: damaged: {error}") from None
    if rest and path.suffix == ".gz":  # the others may end in a line that a killed run left half written
        raise RunFailed(f"{path}: damaged: its last line has no end")
    return lines


def read_step(folder: Path, step: int) -> list[dict]:
    """The records of a step, unchecked."""
    return [json.loads(line) for line in read_lines(step_path(folder, step))]
