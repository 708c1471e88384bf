"""The curriculum (arXiv:2509.15279 §3.3): what is done next, and on which items, as a function of plain numbers.

    stage 1   moderate : easy = 1 : 1 until reward sparsity says that progress has plateaued
    stage 2   rounds of: mine the whole pool; then steps with Right : Wrong = 1 : 2 and more samples per prompt

No model in here: ``State`` is JSON, saved with every checkpoint. A run, its resumption on any rank, and the audit that
goes through the log afterwards call the same functions and come to the same decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from minifleming.rlvr import alarms
from minifleming.rlvr.mining import (
    CLASSES,
    Deck,
    difficult_first,
    mine,
    parts,
    plateau,
    reason,
    tier_pools,
)
from minifleming.rods.item import Item
from minifleming.run.fields import Config, Stage1, Stage2


@dataclass
class State:
    step: int = 0  # optimizer steps taken, over both stages
    stage: str = "rl_stage1"  # rl_stage1, rl_stage2, done
    stage1_end: int = -1
    why: str = ""  # stage 1 ended
    round: int = 0  # mining rounds done
    sparsity: list[float] = field(default_factory=list)
    pools: dict[str, list[str]] = field(default_factory=dict)
    streaks: dict[str, int] = field(default_factory=dict)  # item -> mining rounds in a row without a right sample
    dealt: dict[str, int] = field(default_factory=dict)  # cards dealt by each deck of the present pools
    trained: dict[str, int] = field(default_factory=dict)  # item -> times drawn in stage 2
    ranks: dict[str, int] = field(default_factory=dict)  # item -> its place among the wrong ones of this round
    history: list[list[float]] = field(default_factory=list)  # (format, accuracy) of the last steps of this stage
    best: list[float] = field(default_factory=list)  # [step, mean accuracy] of this round's best checkpoint
    ended: list[list[int]] = field(default_factory=list)  # (with an end token, samples) of the last steps, likewise
    chain: str = ""  # hash of the newest record (record.py)


def begin(cfg: Config, items: dict[str, Item]) -> State:
    return State(pools=tier_pools(list(items.values()), cfg.stage1.mix))


def next_move(state: State, cfg: Config) -> str:
    """step, switch (to stage 2), mine or done."""
    if state.stage == "done":
        return "done"
    if state.stage == "rl_stage1":
        return "step" if plateaued(state, cfg.stage1) is None else "switch"
    into = state.step - state.stage1_end
    if into == cfg.stage2.rounds * cfg.stage2.steps_per_round:
        return "done"
    return "mine" if into == state.round * cfg.stage2.steps_per_round else "step"


def plateaued(state: State, cfg: Stage1) -> str | None:
    return plateau(state.sparsity, state.step, min_steps=cfg.min_steps, max_steps=cfg.max_steps,
                   threshold=cfg.plateau_threshold, window=cfg.window)


def stage_of(state: State, cfg: Config) -> Stage1 | Stage2:
    return cfg.stage1 if state.stage == "rl_stage1" else cfg.stage2


def switch(state: State, cfg: Config) -> dict:
    """To stage 2. Returns what the log says of it."""
    state.stage, state.stage1_end, state.why = "rl_stage2", state.step, plateaued(state, cfg.stage1) or ""
    recent, state.history, state.best = state.sparsity[-cfg.stage1.window :], [], []
    return {"stage": "switch", "step": state.step, "round": 0, "why": state.why,
            "mean_sparsity": sum(recent) / max(len(recent), 1), "threshold": cfg.stage1.plateau_threshold}


def draw(state: State, cfg: Config, items: dict[str, Item]) -> list[tuple[Item, str]]:
    """The prompts of the next step with the class that each is drawn from; the decks move on."""
    pools = {name: state.pools[name] for name in sorted(state.pools) if state.pools[name] and name != "quarantine"}
    if state.stage == "rl_stage1" or "pool" in pools:
        weights, since = {name: 1 for name in pools}, state.step
    else:
        weights = {"right": cfg.stage2.mastered_parts, "wrong": cfg.stage2.failed_parts}
        since = (state.step - state.stage1_end) % cfg.stage2.steps_per_round
    counts = parts(cfg.rl.prompts_per_step, weights, {name: len(ids) for name, ids in pools.items()}, since)
    drawn = []
    for name, count in counts.items():
        key = [cfg.run.seed, 0xDEC, state.round, sorted(pools).index(name)]
        deck = Deck(pools[name], key, state.dealt.get(name, 0), state.ranks if name == "wrong" else {})
        drawn += [(items[card], name) for card in deck.deal(count)]
        state.dealt[name] = deck.dealt
    if state.stage == "rl_stage2":
        for item, _ in drawn:
            state.trained[item.id] = state.trained.get(item.id, 0) + 1
    return drawn


def stepped(state: State, cfg: Config, figures: dict) -> None:
    """A step has been taken; ``figures`` are its metrics."""
    state.step += 1
    state.ended = alarms.evidence(state.ended, figures, cfg.alarms)
    state.sparsity = [*state.sparsity, figures["sparsity"]][-cfg.stage1.window :]
    state.history = [*state.history, [figures["format"], figures["accuracy"]]][-cfg.alarms.window :]
    if state.step % cfg.run.checkpoint_every == 0:
        note_best(state)


def note_best(state: State) -> None:
    """A checkpoint is written: is it the best of this round, by the accuracy of its last steps?"""
    accuracy = sum(accuracy for _, accuracy in state.history) / max(len(state.history), 1)
    if state.history and (not state.best or accuracy > state.best[1]):
        state.best = [state.step, accuracy]


def next_round(state: State, cfg: Config, items: dict[str, Item], passes: dict[str, int] | None) -> list[dict]:
    """A round of stage 2 begins, with the passes of every item; or, for the control, with None: the pool as it is.

    Returns the ledger's entries: of each item its passes, its class before and now, and why.
    """
    before = {name: kind for kind, ids in state.pools.items() for name in ids}
    state.round, state.dealt, state.ranks, state.history, state.best = state.round + 1, {}, {}, [], []
    if passes is None:
        state.pools = {"pool": list(items)}
        return []
    state.pools, state.streaks = mine(passes, state.streaks, cfg.mining)
    state.ranks = difficult_first(state.pools["wrong"], items, state.trained)
    return [{"event": "mined", "round": state.round, "step": state.step, "item": name, "passes": passes[name],
             "samples": cfg.mining.samples, "now": kind, "before": before.get(name, ""),
             "why": reason(kind, passes[name], state.streaks.get(name, 0), cfg.mining)}
            for kind in CLASSES for name in state.pools[kind]]


def entered(state: State) -> list[dict]:
    """The ledger's entries for the pools of stage 1."""
    return [{"event": "entered", "round": 0, "step": state.step, "item": name, "now": kind, "before": "",
             "why": f"tier {kind}"} for kind, ids in sorted(state.pools.items()) for name in ids]
