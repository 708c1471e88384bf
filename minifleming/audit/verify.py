"""Verifies a run from its log: recomputes everything that follows from the samples.

Taken from the log: the sampled ids, their log-probabilities under sampler and trainer, the passes
of mining, the gradient norms and the checksums of the weights. ``replay`` computes these again.

Recomputed: the genesis record (configuration, items, first weights), which items were drawn and
from which pool, prompts, verdicts, rewards, means, advantages, denominators, coefficients, the loss
and all other metrics, the plateau, the mined classes, the ledger, the state in every checkpoint
(except what only the alarms use), and the hash chain over all of it. Sums and products of many
numbers may differ by 1e-12; everything else must be equal.

Not checked: the cold start, evaluation records, reports, the manifest, optimizer states and
timings.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.audit.reader import LogReader
from minifleming.audit.recompute import recompute_update
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, weights_checksum
from minifleming.rlvr import curriculum, log
from minifleming.rlvr.curriculum import State
from minifleming.rlvr.reward import reward_terms, verify_answer
from minifleming.rlvr.rollout import Rollout, set_advantages
from minifleming.rods.item import Item, read_items
from minifleming.run import config as configuration
from minifleming.run.checkpoint import checkpoints, verify_folder
from minifleming.run.errors import RunFailed

ROUNDING = 1e-12
ROUNDED = {"coefficient", "updates", "loss", "logprob_diff_mean", "kl", "clipped_tokens_low",
           "clipped_tokens_high"}
NOT_RECOMPUTED = {"grad_norm", "weights_checksum"}
ONLY_FOR_ALARMS = ("history", "eos_counts", "best")  # alarms.* may change when a run is resumed


@dataclass
class Findings:
    """What was checked, and every difference."""

    steps: int = 0
    samples: int = 0
    rounds: int = 0
    checkpoints: int = 0
    unfinished: bool = False
    differences: list[str] = field(default_factory=list)

    def expect(self, found, expected, what: str, place: str | Path) -> None:
        equal = close(found, expected) if what in ROUNDED else found == expected
        if not equal:
            self.differences.append(
                f"{place}: {what} is {shortened(found)}, recomputed {shortened(expected)}")

    def compare(self, entry: dict, expected: dict, place: str) -> None:
        for name in entry.keys() | expected.keys():
            if name not in NOT_RECOMPUTED:
                self.expect(entry.get(name), expected.get(name), name, place)

    def __str__(self) -> str:
        return (f"{self.steps} steps, {self.samples} samples, {self.rounds} mining rounds, "
                f"{self.checkpoints} checkpoints: {len(self.differences)} differences"
                + (" (the run has not ended)" if self.unfinished else ""))


class Verifier:
    """A run folder: its log, the state recomputed so far, and the findings."""

    def __init__(self, folder: Path):
        self.log = LogReader(folder)
        self.cfg = configuration.load(folder / "config.toml")
        listed = read_items(folder / "items" / "train.jsonl")
        self.items = {item.id: item for item in listed}
        self.item_hashes = {item.id: log.item_sha256(item) for item in listed}
        self.checkpoints = checkpoints(folder / "checkpoints")
        first_step = log.first_step(folder)
        self.first = log.checkpoint_path(folder, first_step - 1)
        if self.first not in self.checkpoints:
            raise RunFailed(f"{self.first}: is missing: the run began there")
        self.tokenizer = Tokenizer(self.first / "model")
        self.model = load_model(self.first / "model", self.cfg.model.dtype, "cpu")
        self.state = curriculum.begin(self.cfg, self.items)
        if first_step > 1:
            self.state = curriculum.read_state(self.first / "state.json", self.items)
        self.findings = Findings()
        self.states: dict[int, list[dict]] = {}  # step -> states that a checkpoint of it may hold
        self.weights: dict[int, str] = {}  # step -> logged checksum after it

    def run(self) -> Findings:
        cfg, state = self.cfg, self.state
        genesis = log.genesis_record(cfg, self.items, self.model, state.step, self.log.start)
        self.check_ledger([genesis])
        if state.step == 0:
            self.check_ledger(curriculum.initial_pool_log(state))
        self.remember_state()
        move = curriculum.next_move(state, cfg)
        while move != "done" and self.log.more("metrics.jsonl"):
            if move == "switch":
                self.check_metrics(curriculum.switch(state, cfg))
            if move == "mine":
                self.check_round()
            if move in ("mine", "step"):
                self.check_step()
            self.remember_state()
            move = curriculum.next_move(state, cfg)
        self.findings.unfinished = move != "done"
        if move == "done":
            state.stage = "done"
            self.remember_state()
            self.log.check_end(state.step)
            self.check_kept({state.stage1_end, state.step})
        for path in self.checkpoints:
            if path >= self.first:
                self.check_checkpoint(path)
        return self.findings

    def check_step(self) -> None:
        """Checks a step: its samples, its lines of the ledger, its line of the metrics."""
        cfg, state = self.cfg, self.state
        step = state.step + 1
        place_in_run = {"stage": state.stage, "step": step, "round": state.round}
        k = curriculum.stage_of(state, cfg).samples_per_prompt
        drawn = curriculum.sample_prompts(state, cfg, self.items)
        records = self.log.samples(step)
        if len(records) != len(drawn) * k:
            raise RunFailed(f"{log.step_path(self.log.folder, step)}: {len(records)} samples, "
                            f"recomputed {len(drawn)} prompts of {k}")
        groups: list[list[Rollout]] = [[] for _ in drawn]
        logged: list[list[dict]] = [[] for _ in drawn]
        for i, (entry, place) in enumerate(records):
            item, pool = drawn[i // k]
            logged[i // k].append(entry)
            groups[i // k].append(self.read_rollout(entry, place, item, pool, i % k))
        set_advantages(groups, cfg.rl, "cpu")
        rollouts = sum(groups, [])
        for r, (entry, place) in zip(rollouts, records):
            self.check_scores(r, entry, place)
        result = recompute_update(groups, logged, cfg.rl, (cfg.run.seed, state.step))
        for r, (entry, place) in zip(rollouts, records):
            expected = log.record(r, cfg.run.seed, step, self.item_hashes[r.item.id])
            self.findings.compare(entry, expected, place)
            self.check_length(r, place)

        summaries = log.summaries(groups)
        metrics = log.step_metrics(summaries)
        curriculum.after_step(state, cfg, metrics)
        passes = [sum(log.correctness(group)) for group in summaries]
        self.check_ledger(curriculum.training_log(place_in_run, drawn, passes, k))
        line = self.check_metrics(place_in_run | metrics | result)
        self.weights[step] = line.get("weights_checksum", "")
        self.findings.steps += 1
        self.findings.samples += len(records)

    def read_rollout(self, entry: dict, place: str, item: Item, pool: str, sample: int) -> Rollout:
        """Returns the rollout of a record, verified and rewarded anew."""
        ids = entry.get("completion_ids")
        vocabulary = range(self.model.config.vocab_size)
        if not isinstance(ids, list) or not ids or not all(
                type(i) is int and i in vocabulary for i in ids):
            raise RunFailed(f"{place}: completion_ids are not token ids")
        logprobs = logprobs_of(entry, "logprobs", len(ids), place)
        finished = ids[-1] in self.tokenizer.end_ids
        verdict = verify_answer(self.tokenizer, ids, finished, item.labels)
        terms = reward_terms(verdict, item.answer, self.cfg.rl)
        prompt = self.tokenizer.encode(self.tokenizer.prompt(item.question, item.options))
        return Rollout(item, pool, sample, prompt, ids, logprobs, finished, verdict, terms,
                       sum(terms.values()))

    def check_scores(self, r: Rollout, entry: dict, place: str) -> None:
        """Reads the log-probabilities that a sample's coefficients are recomputed from."""
        rl, n = self.cfg.rl, len(r.completion_ids)
        trained = r.advantage != 0.0 or rl.kl_coef > 0
        if trained or entry.get("trained_logprobs"):
            r.trained_logprobs = logprobs_of(entry, "trained_logprobs", n, place)
        if rl.kl_coef > 0:
            r.reference_logprobs = logprobs_of(entry, "reference_logprobs", n, place)
        if trained and rl.num_iterations * rl.minibatches > 1:
            updates = entry.get("updates")
            if not isinstance(updates, list) or len(updates) != rl.num_iterations:
                raise RunFailed(f"{place}: updates are not those of {rl.num_iterations} epochs")
            for part in updates:
                logprobs_of(part, "logprobs", n, place)

    def check_length(self, r: Rollout, place: str) -> None:
        """Checks that a completion ends at its first end token, or is truncated at the limit."""
        inner = [i for i in r.completion_ids[:-1] if i in self.tokenizer.end_ids]
        self.findings.expect(inner, [], "end tokens inside a completion", place)
        room = self.model.config.max_position_embeddings - len(r.prompt_ids)
        limit = min(self.cfg.rl.max_new_tokens, room)
        n = len(r.completion_ids)
        self.findings.expect(n <= limit if r.finished else n == limit, True,
                             f"{n} tokens of {limit}", place)

    def check_round(self) -> None:
        """Checks a mining round: the passes are the ledger's, the classes follow from them."""
        state, cfg = self.state, self.cfg
        if cfg.stage2.sampling == "uniform":
            curriculum.next_round(state, cfg, self.items, None)
            return
        lines = [self.log.next("mining.jsonl") for _ in self.items]
        logged = {}
        for entry, place in lines:
            passes = entry.get("passes")
            if type(passes) is not int or entry.get("item") not in self.items:
                raise RunFailed(f"{place}: not the passes of an item")
            logged[entry["item"]] = passes
        if logged.keys() != self.items.keys():
            raise RunFailed(f"{lines[0][1]}: round {state.round + 1} does not name every item once")
        passes = {name: logged[name] for name in self.items}
        expected = curriculum.next_round(state, cfg, self.items, passes)
        for (entry, place), value in zip(lines, expected):
            self.findings.compare(entry, value, place)
        self.check_metrics(curriculum.mining_metrics(state))
        self.findings.rounds += 1

    def check_ledger(self, expected: list[dict]) -> None:
        for value in expected:
            entry, place = self.log.next("mining.jsonl")
            self.findings.compare(entry, value, place)

    def check_metrics(self, expected: dict) -> dict:
        entry, place = self.log.next("metrics.jsonl")
        self.findings.compare(entry, expected, place)
        return entry

    def remember_state(self) -> None:
        """Notes the state as a checkpoint would hold it here."""
        self.state.chain = self.log.chain
        self.states.setdefault(self.state.step, []).append(comparable(self.state))

    def check_kept(self, steps: set[int]) -> None:
        """Raises RunFailed if a checkpoint is missing that no run deletes."""
        for step in sorted(steps):
            path = log.checkpoint_path(self.log.folder, step)
            if path not in self.checkpoints:
                raise RunFailed(f"{path}: is missing: it is never deleted")

    def check_checkpoint(self, path: Path) -> None:
        """Checks files, state and weights of a checkpoint."""
        self.findings.checkpoints += 1
        reason = verify_folder(path)
        for name in ("state.json", "optimizer*.safetensors", "model"):
            if reason is None and not any(path.glob(name)):
                reason = f"{name} is missing"
        if reason:
            self.findings.differences.append(f"{path}: {reason}")
            return
        step = log.step_of(path)
        state = curriculum.read_state(path / "state.json", self.items)
        if comparable(state) not in self.states.get(step, []):
            self.findings.differences.append(f"{path / 'state.json'}: not a state of this log")
        if step in self.weights:
            checksum = weights_checksum(load_model(path / "model", self.cfg.model.dtype, "cpu"))
            self.findings.expect(
                checksum, self.weights[step], "the checksum of the weights", path / "model")


def verify(folder: Path) -> Findings:
    """Verifies a run folder. Raises RunFailed where the log is broken."""
    return Verifier(folder).run()


def logprobs_of(entry: dict, name: str, count: int, place: str) -> list[float]:
    """Returns the field of a record that must be ``count`` log-probabilities."""
    found = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(found, list) or len(found) != count or not all(
            type(p) is float and -700 < p < 1 for p in found):  # exp() of a difference is finite
        raise RunFailed(f"{place}: {name} are not one log-probability per token")
    return found


def comparable(state: State) -> dict:
    """Returns the state as plain JSON, without what only the alarms use."""
    plain = json.loads(json.dumps(dataclasses.asdict(state)))
    return {name: value for name, value in plain.items() if name not in ONLY_FOR_ALARMS}


def close(a, b) -> bool:
    """Whether two logged values are equal up to rounding. A single number equals a list of it."""
    if isinstance(b, list) and isinstance(a, float):
        a = [a] * len(b)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= ROUNDING * max(1.0, abs(a))
    return a == b


def shortened(value) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
