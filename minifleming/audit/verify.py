"""Verify a run from its log: go through the curriculum again, and recompute whatever follows from what was sampled.

Taken from the log: the sampled ids, their log-probabilities under the sampler and the trainer, the passes of mining,
the gradient norms and the checksums of the weights: what ``replay`` makes again. Recomputed: what the run is made from
(configuration, items, first weights), which items were drawn and why, prompts, verdicts, rewards, means, advantages,
denominators, coefficients, the loss and every other figure of the metrics, the plateau, the mined classes, the ledger,
the state in every checkpoint (but for what the alarms remember); and the chain of hashes over all of it. What the log
holds as a sum or a product of many may differ by 1e-12; all else must be equal. Not looked at: the cold start before
it, evaluation records, reports, manifest, optimizer states and timings.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.audit.recompute import weigh
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, weights_checksum
from minifleming.rlvr import curriculum
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.log import (
    brief,
    figures,
    first_step,
    read_lines,
    record,
    step_path,
    unseal,
)
from minifleming.rlvr.mining import CLASSES
from minifleming.rlvr.reward import terms
from minifleming.rlvr.rollout import Rollout, compare, judge
from minifleming.rlvr.saves import facts, read_state
from minifleming.rods.item import Item, read_items
from minifleming.run import config as configuration
from minifleming.run.checkpoint import checkpoints, verify_folder
from minifleming.run.errors import RunFailed
from minifleming.run.fields import Config

ROUNDING = 1e-12
CLOSE = {"coefficient", "updates", "loss", "mismatch_mean", "kl", "clipped_low", "clipped_high"}
REPLAYED = ("grad_norm", "weights")  # figures that do not follow from the log


@dataclass
class Findings:
    """What was gone through, and where it was not as recomputed."""

    positions: int = 0  # of the model
    steps: int = 0
    samples: int = 0
    rounds: int = 0
    checkpoints: int = 0
    unfinished: bool = False
    differences: list[str] = field(default_factory=list)

    def expect(self, found, expected, what: str, path: Path, line: int = 0) -> None:
        if not (close(found, expected) if what in CLOSE else found == expected):
            place = f"{path}:{line}" if line else str(path)
            self.differences.append(f"{place}: {what} is {_show(found)}, recomputed {_show(expected)}")


class Log:
    """The lines of metrics and ledger in order, each checked to be the next link of the chain."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines = {name: self._read(folder / name) for name in ("metrics.jsonl", "mining.jsonl")}
        self.at = dict.fromkeys(self.lines, 0)
        if not self.more("mining.jsonl"):
            raise RunFailed(f"{folder / 'mining.jsonl'}: has no first record")
        self.chain = self.begun = json.loads(self.lines["mining.jsonl"][0][1])["from"]

    def _read(self, path: Path) -> list[tuple[int, str]]:
        """The lines with their numbers; those of the cold start, before all others, are no links."""
        lines = list(enumerate(read_lines(path) if path.exists() else [], 1))
        while lines and '"stage": "cold_start"' in lines[0][1]:
            lines.pop(0)
        return lines

    def more(self, name: str) -> bool:
        return self.at[name] < len(self.lines[name])

    def next(self, name: str) -> tuple[dict, int]:
        path = self.folder / name
        if not self.more(name):
            raise RunFailed(f"{path}: ends too early")
        number, line = self.lines[name][self.at[name]]
        self.at[name] += 1
        entry, self.chain = unseal(line, self.chain, path, number)
        return entry, number

    def samples(self, step: int) -> list[dict]:
        path, found = step_path(self.folder, step), []
        if not path.exists():
            raise RunFailed(f"{path}: is missing")
        for number, line in enumerate(read_lines(path), 1):
            entry, self.chain = unseal(line, self.chain, path, number)
            found.append(entry)
        return found


def verify(folder: Path) -> Findings:
    """Go through a run folder. Raises RunFailed where that cannot go on: a broken chain, a record that is none."""
    try:
        return _verify(folder)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise RunFailed(f"{folder}: its log cannot be gone through: {type(error).__name__}: {error}") from None


def _verify(folder: Path) -> Findings:
    cfg = configuration.load(folder / "config.toml")
    items = {item.id: item for item in read_items(folder / "items" / "train.jsonl")}
    kept = checkpoints(folder / "checkpoints")
    first = folder / "checkpoints" / f"step_{first_step(folder) - 1:06d}"
    if first not in kept:
        raise RunFailed(f"{first}: is missing: the run began there")
    tokenizer, model = Tokenizer(first / "model"), load_model(first / "model", cfg.model.dtype, "cpu")
    state = curriculum.begin(cfg, items) if first_step(folder) == 1 else read_state(first / "state.json", items)
    findings, log = Findings(positions=model.config.max_position_embeddings), Log(folder)
    _ledger(findings, log, [facts(cfg, items, model, state.step, log.begun)])
    if state.step == 0:
        _ledger(findings, log, curriculum.entered(state))
    seen = {state.step: [_now(state, log)]}
    weights: dict[int, str] = {}
    while (move := curriculum.next_move(state, cfg)) != "done" and log.more("metrics.jsonl"):
        if move == "switch":
            expected = curriculum.switch(state, cfg)
            _metrics(findings, log, expected)
        if move == "mine":
            _round(findings, log, state, cfg, items)
        if move in ("mine", "step"):
            logged = _step(findings, log, state, cfg, items, tokenizer)
            weights[state.step] = logged
        seen.setdefault(state.step, []).append(_now(state, log))
    findings.unfinished = move != "done"
    if move == "done":
        state.stage = "done"
        seen[state.step].append(_now(state, log))
        for name in log.lines:
            if log.more(name):
                raise RunFailed(f"{folder / name}:{log.lines[name][log.at[name]][0]}: after the end of the run")
        if step_path(folder, state.step + 1).exists():
            raise RunFailed(f"{step_path(folder, state.step + 1)}: after the end of the run")
        for step in {state.stage1_end, state.step} - {int(path.name[5:]) for path in kept}:
            raise RunFailed(f"{folder / 'checkpoints' / f'step_{step:06d}'}: is missing: it is never deleted")
    for path in (path for path in kept if path >= first):
        _checkpoint(findings, path, seen, weights, cfg)
    return findings


def _step(findings: Findings, log: Log, state: State, cfg: Config, items: dict[str, Item],
          tokenizer: Tokenizer) -> str:
    """One step: its samples, its lines of the ledger, its metrics. Returns the hash of the weights that it logged."""
    k, step = curriculum.stage_of(state, cfg).samples_per_prompt, state.step + 1
    drawn = curriculum.draw(state, cfg, items)
    records, path = log.samples(step), step_path(log.folder, step)
    if len(records) != len(drawn) * k:
        raise RunFailed(f"{path}: {len(records)} samples, recomputed {len(drawn)} prompts of {k}")
    logged = [records[i : i + k] for i in range(0, len(records), k)]
    groups = [[_judged(entry, item, why, s, tokenizer, cfg) for s, entry in enumerate(group)]
              for (item, why), group in zip(drawn, logged)]
    compare(groups, cfg.rl, "cpu")
    result = weigh(groups, logged, cfg.rl, (cfg.run.seed, state.step))
    for number, (entry, r) in enumerate(zip(records, (r for group in groups for r in group)), 1):
        for name, value in record(r, cfg.run.seed, step).items():
            findings.expect(entry.get(name), value, name, path, number)
    for number, entry in enumerate(records, 1):
        ids, n = entry["completion_ids"], len(entry["completion_ids"])
        findings.expect(sum(i in tokenizer.end_ids for i in ids[:-1]), 0, "end tokens within", path, number)
        most = min(cfg.rl.max_new_tokens, findings.positions - len(entry["prompt_ids"]))
        findings.expect(n == most if not entry["finished"] else n <= most, True, f"{n} tokens of {most}", path, number)
        findings.expect(len(entry["logprobs"]), n, "the number of logprobs", path, number)
        findings.expect(len(entry["trained_logprobs"]) in (0, n), True, "one trained_logprob a token", path, number)
    briefs = [brief(record(r, cfg.run.seed, step)) for group in groups for r in group]
    found = figures(briefs, k)
    stage, number = state.stage, state.round
    curriculum.stepped(state, cfg, found)
    right = [sum(r.right for r in group) for group in groups]
    _ledger(findings, log, [{"event": "trained", "round": number, "step": step, "item": item.id, "now": why,
                             "passes": passes, "samples": k} for (item, why), passes in zip(drawn, right)])
    line = _metrics(findings, log, {"stage": stage, "step": step, "round": number, **found, **result})
    findings.steps, findings.samples = findings.steps + 1, findings.samples + len(records)
    return line.get("weights", "")


def _judged(entry: dict, item: Item, why: str, sample: int, tokenizer: Tokenizer, cfg: Config) -> Rollout:
    """The rollout of a record, judged and rewarded anew."""
    ids, finished = entry["completion_ids"], entry["completion_ids"][-1] in tokenizer.end_ids
    verdict = judge(tokenizer, ids, finished, item.labels)
    paid = terms(verdict, item.answer, cfg.rl)
    prompt = tokenizer.encode(tokenizer.prompt(item.question, item.options))
    return Rollout(item, why, sample, prompt, ids, entry["logprobs"], finished, verdict, paid, sum(paid.values()),
                   trained=entry["trained_logprobs"], reference=entry.get("reference_logprobs", []))


def _round(findings: Findings, log: Log, state: State, cfg: Config, items: dict[str, Item]) -> None:
    """A mining round: the passes are the ledger's, the classes follow."""
    if cfg.stage2.sampling == "uniform":
        curriculum.next_round(state, cfg, items, None)
        return
    lines = [log.next("mining.jsonl") for _ in items]
    passes = {entry.get("item"): entry.get("passes") for entry, _ in lines}
    path = log.folder / "mining.jsonl"
    if passes.keys() != items.keys():
        raise RunFailed(f"{path}:{lines[0][1]}: round {state.round + 1} does not name every item once")
    expected = curriculum.next_round(state, cfg, items, {name: passes[name] for name in items})
    for (entry, number), value in zip(lines, expected):
        for name in entry.keys() | value.keys():
            findings.expect(entry.get(name), value.get(name), name, path, number)
    _metrics(findings, log, {"stage": "mining", "step": state.step, "round": state.round,
                             **{kind: len(state.pools[kind]) for kind in CLASSES}})
    findings.rounds += 1


def _ledger(findings: Findings, log: Log, expected: list[dict]) -> None:
    for value in expected:
        entry, number = log.next("mining.jsonl")
        for name in entry.keys() | value.keys():
            findings.expect(entry.get(name), value.get(name), name, log.folder / "mining.jsonl", number)


def _metrics(findings: Findings, log: Log, expected: dict) -> dict:
    entry, number = log.next("metrics.jsonl")
    for name in (entry.keys() | expected.keys()) - set(REPLAYED):
        findings.expect(entry.get(name), expected.get(name), name, log.folder / "metrics.jsonl", number)
    return entry


def _checkpoint(findings: Findings, path: Path, seen: dict[int, list[dict]], weights: dict[int, str],
                cfg: Config) -> None:
    """A checkpoint is whole, its state is one that the log came through, its weights those that the log names."""
    findings.checkpoints += 1
    missing = [name for name in ("state.json", "optimizer*.safetensors", "model") if not any(path.glob(name))]
    if reason := verify_folder(path) or (f"{missing[0]} is missing" if missing else None):
        findings.differences.append(f"{path}: {reason}")
        return
    step = int(path.name[5:])
    if _plain(json.loads((path / "state.json").read_text())) not in seen.get(step, []):
        findings.differences.append(f"{path / 'state.json'}: is no state that the log comes through")
    if step in weights:
        found = weights_checksum(load_model(path / "model", cfg.model.dtype, "cpu"))
        findings.expect(found, weights[step], "the checksum of the weights", path / "model")


def _now(state: State, log: Log) -> dict:
    """The state as a checkpoint would hold it here, as plain JSON."""
    state.chain = log.chain
    return _plain(json.loads(json.dumps(dataclasses.asdict(state))))


def _plain(state: dict) -> dict:
    """Without what follows from the alarms' settings, which may change from one part of a run to the next."""
    return {name: value for name, value in state.items() if name not in ("history", "ended", "best")}


def close(a, b) -> bool:
    """Equal up to rounding; one number stands for a list of nothing else."""
    if isinstance(b, list) and isinstance(a, float):
        a = [a] * len(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= ROUNDING * max(1.0, abs(a))
    return a == b


def _show(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lines_of(findings: Findings) -> Iterator[str]:
    yield (f"{findings.steps} steps, {findings.samples} samples, {findings.rounds} mining rounds, "
           f"{findings.checkpoints} checkpoints: {len(findings.differences)} differences"
           + (" (the run has not ended)" if findings.unfinished else ""))
