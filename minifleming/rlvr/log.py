"""The log: one line per sample with everything needed to recompute its contribution to the loss.

    rollouts/step_000012.jsonl.gz

    step, sample, item_id, item_sha256,        the item and where it comes from
    source, tier, labels, answer
    pool                                       the tier or mined class it was drawn from
    key                                        [seed, step - 1, item id, sample] of its draws
    prompt_ids, completion_ids, finished
    logprobs                                   natural, as the sampler recorded them
    verdict {label, rule, span}                of the strict parser; span in characters
    reward_terms {correct, format}, reward     Eq. 2-3
    group_mean, advantage
    denominator, coefficient                   dL/dlogπ of its tokens: one number, or a list where
                                               they differ; of the first of several updates
    trained_logprobs                           the trainer's, before the step; [] if not scored
    reference_logprobs                         only with a KL term
    updates [{update, logprobs, denominator,   only with several updates a step
              coefficient, clipped}]
    hash                                       sha256 of the previous hash and of this line

The ledger (mining.jsonl) and the metrics of reinforcement learning are links of the same hash
chain, in chronological order. Its first link, the genesis record, identifies configuration, items
and weights.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import math
import os
from collections import Counter
from pathlib import Path

import torch

from minifleming.lm.model import LanguageModel
from minifleming.lm.weights import weights_checksum
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.rollout import Groups, Rollout
from minifleming.rods.item import Item
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.run_folder import Journal

FORMAT = 2  # of the log; the audit refuses others


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def item_sha256(item: Item) -> str:
    return sha256_text(json.dumps(dataclasses.asdict(item), sort_keys=True))


def genesis_record(cfg: Config, items: dict[str, Item], model: LanguageModel, step: int,
                   chain: str) -> dict:
    """Returns the first record of a run: hashes of its configuration, items and weights.

    ``step``, ``chain``: of the checkpoint that it continues from; 0 and "" for a new run.
    """
    listed = json.dumps([dataclasses.asdict(item) for item in items.values()], sort_keys=True)
    return {
        "event": "begun", "format": FORMAT, "round": 0, "step": step, "from": chain,
        "items": sha256_text(listed), "config": sha256_text(configuration.to_toml(cfg)),
        "weights": weights_checksum(model),
    }


def record(r: Rollout, seed: int, step: int, item_hash: str) -> dict:
    """Returns the record of a sample of step ``step`` (from 1), without its hash."""
    fields = {
        "step": step, "sample": r.sample, "item_id": r.item.id, "item_sha256": item_hash,
        "source": r.item.source, "tier": r.item.tier, "labels": r.item.labels,
        "answer": r.item.answer, "pool": r.pool, "key": [seed, step - 1, r.item.id, r.sample],
        "prompt_ids": r.prompt_ids, "completion_ids": r.completion_ids, "finished": r.finished,
        "logprobs": r.logprobs,
        "verdict": {"label": r.verdict.label, "rule": r.verdict.rule, "span": list(r.verdict.span)},
        "reward_terms": r.reward_terms, "reward": r.reward, "group_mean": r.group_mean,
        "advantage": r.advantage, "denominator": r.denominator, "coefficient": r.coefficient,
        "trained_logprobs": r.trained_logprobs,
    }
    if r.reference_logprobs:
        fields["reference_logprobs"] = r.reference_logprobs
    if r.updates:
        fields["updates"] = r.updates
    return fields


def gather_records(groups: Groups, seed: int, step: int,
                   item_hashes: dict[str, str], device: torch.device) -> list[dict]:
    """Returns the records of all ranks' samples of a step, in order."""
    records = []
    for group in groups:
        item_hash = item_hashes[group[0].item.id]
        records.append([record(r, seed, step, item_hash) for r in group])
    return sum(distributed.all_gather(records, device), [])


def summary(r: Rollout) -> dict:
    """Returns the few numbers of a sample that the metrics of its step are computed from."""
    return {
        "tier": r.item.tier, "label": r.verdict.label, "rule": r.verdict.rule, "correct": r.correct,
        "reward": r.reward, "finished": r.finished, "tokens": len(r.completion_ids),
        "surprise": -math.fsum(r.logprobs),
    }


def summaries(groups: Groups) -> list[list[dict]]:
    """Returns the summaries of all samples, by group."""
    found = []
    for group in groups:
        found.append([summary(r) for r in group])
    return found


def step_metrics(groups: list[list[dict]]) -> dict:
    """Returns the metrics of a step from the summaries of its groups.

    Means are over samples or groups. Sums are exact, so the order of samples and ranks is
    irrelevant.
    """
    samples = sum(groups, [])
    n = len(samples)
    tokens = column(samples, "tokens")
    rules = Counter(column(samples, "rule"))
    labels = Counter(filter(None, column(samples, "label")))
    solved = [sum(correctness(group)) for group in groups]
    metrics = {
        "prompts": len(groups),
        "samples": len(groups[0]),
        "zero_variance_groups": sum(map(has_constant_reward, groups)) / len(groups),
        "groups_all_correct": solved.count(len(groups[0])) / len(groups),
        "groups_all_wrong": solved.count(0) / len(groups),
        "reward": math.fsum(column(samples, "reward")) / n,
        "accuracy": sum(solved) / n,
        "format": rules["ok"] / n,
        "eos_rate": sum(column(samples, "finished")) / n,
        "completion_tokens": sum(tokens) / n,
        "completion_tokens_max": max(tokens),
        "sampled_entropy": math.fsum(column(samples, "surprise")) / sum(tokens),
        "parse_outcomes": dict(sorted(rules.items())),
        "answer_labels": dict(sorted(labels.items())),
    }
    for tier in sorted(set(column(samples, "tier")) - {""}):
        part = correctness([s for s in samples if s["tier"] == tier])
        metrics[f"accuracy_{tier}"] = sum(part) / len(part)
    return metrics


def has_constant_reward(group: list[dict]) -> bool:
    return len(set(column(group, "reward"))) == 1


def correctness(samples: list[dict]) -> list[bool]:
    return column(samples, "correct")


def column(samples: list[dict], name: str) -> list:
    return [sample[name] for sample in samples]


def append_hash(entry: dict, chain: str) -> tuple[str, str]:
    """Returns the entry as a line that ends with its hash, and that hash."""
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False)
    link = sha256_text(chain + text)
    return f'{text[:-1]}, "hash": "{link}"}}', link


def step_path(folder: Path, step: int) -> Path:
    return folder / "rollouts" / f"step_{step:06d}.jsonl.gz"


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step_{step:06d}"


def step_of(path: Path) -> int:
    """Returns the step of a log or a checkpoint, by its name."""
    return int(path.name[5:11])


def first_step(folder: Path) -> int:
    """Returns the first step that a run took itself; 1 if it took none yet."""
    return min(map(step_of, (folder / "rollouts").glob("step_*.jsonl.gz")), default=1)


def write_step(path: Path, records: list[dict], chain: str) -> str:
    """Writes the records in order, each a link of the chain. Returns the hash of the last."""
    lines = []
    for entry in records:
        line, chain = append_hash(entry, chain)
        lines.append(line)
    write_lines(path, lines)
    return chain


def write_lines(path: Path, lines: list[str]) -> None:
    """Writes a compressed file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    text = "".join(line + "\n" for line in lines)
    with open(temporary, "wb") as stream:
        stream.write(gzip.compress(text.encode(), 6, mtime=0))
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def truncate(journal: Journal, state: State) -> None:
    """Removes the records that were written after ``state`` was saved."""
    journal.truncate("metrics.jsonl", lambda line: was_written_before(line, state))
    journal.truncate("mining.jsonl",
                     lambda r: r["step"] <= state.step and r["round"] <= state.round)
    journal.truncate("alarms.jsonl", lambda r: r["step"] <= state.step)
    if distributed.rank() == 0:
        for path in (journal.folder / "rollouts").glob("step_*.jsonl.gz"):
            if step_of(path) > state.step:
                path.unlink()


def was_written_before(line: dict, state: State) -> bool:
    """Whether a line of the metrics was written before ``state`` was saved."""
    if line["stage"] == "cold_start" or line["step"] < state.step:
        return True
    if line["step"] > state.step:
        return False
    if line["stage"] == "switch":
        return state.stage != "rl_stage1"
    return line["round"] <= state.round


def check_end(journal: Journal, chain: str, checkpoint: Path) -> None:
    """Raises BadInput unless the log is empty or ends with hash ``chain``."""
    last = journal.read("metrics.jsonl")[-1:] + journal.read("mining.jsonl")[-1:]
    ends = [r["hash"] for r in last if "hash" in r]
    if ends and chain not in ends:
        raise BadInput("the log ends before this checkpoint, or is of another run", checkpoint)
