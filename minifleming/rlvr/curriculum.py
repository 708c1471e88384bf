"""The curriculum (arXiv:2509.15279 §3.3): what a run does next, and on which items.

    stage 1   moderate : easy = 1 : 1 until reward sparsity says that progress has plateaued
    stage 2   rounds of: mine the whole pool; then steps with Right : Wrong = 1 : 2 and more samples

Reward sparsity is the share of groups with constant reward. No model is involved: ``State`` is JSON
and is saved with every checkpoint. A run, its resumption on any rank, and the audit that walks
through its log call the same functions and make the same decisions. The last functions are alarms:
conditions that abort a run, and conditions that only print a warning.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from minifleming.rlvr.mining import (
    CLASSES,
    ShuffledCycle,
    apportion_counts,
    difficult_first,
    mine,
    reason,
)
from minifleming.rods.item import Item
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput
from minifleming.run.fields import RL, Alarms, Config, Stage1, Stage2


@dataclass
class State:
    """Everything that the next move depends on."""

    step: int = 0  # optimizer steps taken, over both stages
    stage: str = "rl_stage1"  # rl_stage1, rl_stage2, done
    stage1_end: int = -1  # the last step of stage 1
    plateau: str = ""  # why stage 1 ended
    round: int = 0  # mining rounds done
    zero_variance: list[float] = field(default_factory=list)  # share of groups, in the last steps
    pools: dict[str, list[str]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)  # item -> failed mining rounds in a row
    positions: dict[str, int] = field(default_factory=dict)  # pool -> position of its cycle
    drawn: dict[str, int] = field(default_factory=dict)  # item -> times drawn in stage 2
    priority: dict[str, int] = field(default_factory=dict)  # of the wrong items of this round
    # [format, accuracy] of the last steps of this stage or round
    history: list[list[float]] = field(default_factory=list)
    # [step, accuracy] of this round's best checkpoint
    best: list[float] = field(default_factory=list)
    # [samples with an end token, samples] of the last steps
    eos_counts: list[list[int]] = field(default_factory=list)
    chain: str = ""  # hash of the newest record (log.py)


def begin(cfg: Config, items: dict[str, Item]) -> State:
    """Returns the state before the first step."""
    return State(pools=tier_pools(list(items.values()), cfg.stage1.mix))


def tier_pools(items: list[Item], mix: list[str]) -> dict[str, list[str]]:
    """Returns stage 1's pools, the tiers of ``mix``. ``fig2`` is {moderate, difficult} : {easy}."""
    names = ["moderate+difficult", "easy"] if mix == ["fig2"] else mix
    pools = {}
    for name in names:
        tiers = name.split("+")
        ids = [item.id for item in items if item.tier in tiers]
        if ids:
            pools[name] = ids
    return pools


def read_state(path: Path, items: dict[str, Item]) -> State:
    """Returns the state of a checkpoint. Raises BadInput unless it is one, and of these items."""
    raw = read_json(path)
    expected = dataclasses.asdict(State())
    if raw.keys() != expected.keys():
        raise BadInput("not the state of a run of this version", path)
    for name, value in expected.items():
        if type(raw[name]) is not type(value):
            kind = type(raw[name]).__name__
            raise BadInput(f"not the state of a run: '{name}' is a {kind}", path)
    unknown = set().union(*raw["pools"].values()) - items.keys()
    if unknown:
        raise BadInput(f"made from other items: '{min(unknown)}' is not among this run's", path)
    return State(**raw)


def next_move(state: State, cfg: Config) -> str:
    """Returns step, switch (to stage 2), mine or done."""
    if state.stage == "done":
        return "done"
    if state.stage == "rl_stage1":
        return "step" if plateau_reason(state, cfg.stage1) is None else "switch"
    steps = state.step - state.stage1_end
    if steps == cfg.stage2.rounds * cfg.stage2.steps_per_round:
        return "done"
    return "mine" if steps == state.round * cfg.stage2.steps_per_round else "step"


def plateau_reason(state: State, cfg: Stage1) -> str | None:
    """Returns why stage 1 ends here (step limit, mean sparsity of a window), or None."""
    if state.step >= cfg.max_steps:
        return "max_steps"
    window = state.zero_variance[-cfg.window :]
    if state.step < cfg.min_steps or len(window) < cfg.window:
        return None
    return "sparsity" if sum(window) / cfg.window >= cfg.plateau_threshold else None


def stage_of(state: State, cfg: Config) -> Stage1 | Stage2:
    """Returns the settings of the present stage."""
    return cfg.stage1 if state.stage == "rl_stage1" else cfg.stage2


def switch(state: State, cfg: Config) -> dict:
    """Moves to stage 2. Returns the line of the metrics about it."""
    state.plateau = plateau_reason(state, cfg.stage1) or ""
    state.stage = "rl_stage2"
    state.stage1_end = state.step
    state.history = []
    state.best = []
    window = state.zero_variance[-cfg.stage1.window :]
    return {"stage": "switch", "step": state.step, "round": 0, "why": state.plateau,
            "mean_zero_variance": sum(window) / max(len(window), 1),
            "threshold": cfg.stage1.plateau_threshold}


def sample_prompts(state: State, cfg: Config, items: dict[str, Item]) -> list[tuple[Item, str]]:
    """Returns the items of the next step, each with its pool; the cycles advance."""
    pools = {}
    for name in sorted(state.pools):
        if state.pools[name] and name != "quarantine":
            pools[name] = state.pools[name]
    if state.stage == "rl_stage1" or "pool" in pools:
        weights = dict.fromkeys(pools, 1)
        step = state.step
    else:
        weights = {"right": cfg.stage2.mastered_parts, "wrong": cfg.stage2.failed_parts}
        step = (state.step - state.stage1_end) % cfg.stage2.steps_per_round
    sizes = {name: len(ids) for name, ids in pools.items()}
    counts = apportion_counts(cfg.rl.prompts_per_step, weights, sizes, step)
    drawn = []
    for name, count in counts.items():
        key = [cfg.run.seed, 0xDEC, state.round, sorted(pools).index(name)]
        priority = state.priority if name == "wrong" else {}
        cycle = ShuffledCycle(pools[name], key, state.positions.get(name, 0), priority)
        drawn += [(items[item], name) for item in cycle.next(count)]
        state.positions[name] = cycle.position
    if state.stage == "rl_stage2":
        for item, _ in drawn:
            state.drawn[item.id] = state.drawn.get(item.id, 0) + 1
    return drawn


def after_step(state: State, cfg: Config, metrics: dict) -> None:
    """Advances the state by a training step with these metrics."""
    state.step += 1
    state.eos_counts = recent_truncation(state.eos_counts, metrics, cfg.alarms)
    state.zero_variance.append(metrics["zero_variance_groups"])
    state.zero_variance = state.zero_variance[-cfg.stage1.window :]
    state.history.append([metrics["format"], metrics["accuracy"]])
    state.history = state.history[-cfg.alarms.window :]
    if state.step % cfg.run.checkpoint_every == 0:
        track_best(state)


def track_best(state: State) -> None:
    """Notes a checkpoint if it is this round's best, by the mean accuracy of its last steps."""
    accuracy = mean_accuracy(state.history)
    if state.history and (not state.best or accuracy > state.best[1]):
        state.best = [state.step, accuracy]


def next_round(state: State, cfg: Config, items: dict[str, Item],
               passes: dict[str, int] | None) -> list[dict]:
    """Begins a round of stage 2. Returns the ledger's entries, one per item.

    ``passes``: item id -> correct samples in this round's mining; None for the control without
    mining, which draws from the whole pool.
    """
    before = {}
    for kind, ids in state.pools.items():
        before |= dict.fromkeys(ids, kind)
    state.round += 1
    state.positions = {}
    state.priority = {}
    state.history = []
    state.best = []
    if passes is None:
        state.pools = {"pool": list(items)}
        return []
    state.pools, state.failures = mine(passes, state.failures, cfg.mining)
    state.priority = difficult_first(state.pools["wrong"], items, state.drawn)
    entries = []
    for kind in CLASSES:
        for name in state.pools[kind]:
            why = reason(kind, passes[name], state.failures.get(name, 0), cfg.mining)
            entries.append({
                "event": "mined", "round": state.round, "step": state.step, "item": name,
                "passes": passes[name], "samples": cfg.mining.samples, "now": kind,
                "before": before.get(name, ""), "why": why})
    return entries


def initial_pool_log(state: State) -> list[dict]:
    """Returns the ledger's entries about the pools of stage 1."""
    entries = []
    for tier, ids in sorted(state.pools.items()):
        for name in ids:
            entries.append({"event": "entered", "round": 0, "step": state.step, "item": name,
                            "now": tier, "before": "", "why": f"tier {tier}"})
    return entries


def mining_metrics(state: State) -> dict:
    """Returns the line of the metrics about a mining round: the sizes of its classes."""
    sizes = {kind: len(state.pools[kind]) for kind in CLASSES}
    return {"stage": "mining", "step": state.step, "round": state.round, **sizes}


def training_log(place: dict, drawn: list[tuple[Item, str]], passes: list[int],
                 samples: int) -> list[dict]:
    """Returns the ledger's entries about a step. ``place``: its stage, step and round."""
    entries = []
    for (item, pool), correct in zip(drawn, passes):
        entries.append({"event": "trained", "round": place["round"], "step": place["step"],
                        "item": item.id, "now": pool, "passes": correct, "samples": samples})
    return entries


def recent_truncation(eos_counts: list[list[int]], metrics: dict, cfg: Alarms) -> list[list[int]]:
    """Returns [samples with an end token, samples] of the last steps, the newest step included.

    Keeps as few steps as hold ``cfg.samples`` samples, or all there are.
    """
    samples = metrics["prompts"] * metrics["samples"]
    eos_counts = [*eos_counts, [round(metrics["eos_rate"] * samples), samples]]
    while sum(n for _, n in eos_counts[1:]) >= cfg.samples:
        eos_counts = eos_counts[1:]
    return eos_counts


def should_abort(eos_counts: list[list[int]], cfg: Alarms, rl: RL) -> str | None:
    """Returns the reason not to train on the newest step, or None."""
    finished, samples = (sum(column) for column in zip(*eos_counts))
    truncated = (samples - finished) / samples
    if samples < cfg.samples or truncated < cfg.truncated:
        return None
    if finished == 0:
        return (f"no end token in any of {samples} samples: the model never ends its turn, or "
                f"rl.max_new_tokens {rl.max_new_tokens} is too short for it")
    return (f"{100 * truncated:.0f} % of {samples} samples are truncated at rl.max_new_tokens "
            f"{rl.max_new_tokens} (alarms.truncated {cfg.truncated})")


def warnings(metrics: dict, answers: list[str], history: list[list[float]],
             cfg: Alarms) -> dict[str, str]:
    """Returns the warnings of a step: name -> message.

    Args:
        answers: the correct label of each prompt.
        history: [format, accuracy] of the last steps of this stage or round, the newest last.
    """
    found = {}
    constant = metrics["zero_variance_groups"]
    if constant >= cfg.max_zero_variance:
        found["constant_groups"] = (
            f"{100 * constant:.0f} % of the groups have constant reward and give no gradient "
            f"(all correct {metrics['groups_all_correct']:.2f}, "
            f"all wrong {metrics['groups_all_wrong']:.2f})")
    answered = sum(metrics["answer_labels"].values())
    for label, count in metrics["answer_labels"].items():
        share = count / answered
        correct = answers.count(label) / len(answers)
        if share >= cfg.max_label_share > correct:
            found["one_label"] = (
                f"{100 * share:.0f} % of the answers are {label}, which is correct for "
                f"{100 * correct:.0f} % of the questions")
    if len(history) == cfg.window:
        half = cfg.window // 2
        format_rate = sum(rate for rate, _ in history) / cfg.window
        early = mean_accuracy(history[:half])
        late = mean_accuracy(history[half:])
        if format_rate >= cfg.format > late and late - early < cfg.min_gain:
            found["flat"] = (
                f"the format is kept ({format_rate:.2f}) and accuracy is flat: {early:.2f}, then "
                f"{late:.2f}, in the halves of the last {cfg.window} steps")
    return found


def mean_accuracy(history: list[list[float]]) -> float:
    return sum(accuracy for _, accuracy in history) / max(len(history), 1)
