"""The curriculum as plain numbers: what is drawn, in which order, and that nobody starves (trap T42)."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

from minifleming.rlvr import curriculum
from minifleming.rlvr.curriculum import State
from minifleming.rods.item import Item
from minifleming.run.fields import RL, Config, Mining, Stage1, Stage2

TIERS = ("easy", "moderate", "difficult")


def pool(count: int) -> dict[str, Item]:
    return {f"i{n}": Item(f"i{n}", "?", {"A": "a", "B": "b"}, "A", tier=TIERS[n % 3]) for n in range(count)}


def settings(prompts: int = 6, **stage2) -> Config:
    return Config(rl=RL(prompts_per_step=prompts), stage1=Stage1(max_steps=4, min_steps=0, plateau_threshold=0.5, window=2),
                  stage2=Stage2(**({"rounds": 3, "steps_per_round": 2} | stage2)), mining=Mining(samples=4))


FIGURES = {"zero_variance_groups": 0.0, "format": 1.0, "accuracy": 0.5, "eos_rate": 1.0, "prompts": 6, "samples": 8}


def go_through(cfg: Config, items: dict[str, Item], passes) -> list[tuple[str, object]]:
    """Every move of a whole run; ``passes(round)`` gives the mined passes."""
    state, moves = curriculum.begin(cfg, items), []
    while (move := curriculum.next_move(state, cfg)) != "done":
        state = State(**json.loads(json.dumps(dataclasses.asdict(state))))  # a checkpoint loses nothing
        if move == "switch":
            moves.append((move, curriculum.switch(state, cfg)["why"]))
            continue
        if move == "mine":
            moves.append((move, curriculum.next_round(state, cfg, items, passes(state.round + 1))))
        moves.append(("step", curriculum.sample_prompts(state, cfg, items)))
        curriculum.after_step(state, cfg, FIGURES)
    return moves


def test_the_moves_come_in_the_order_of_the_paper():
    items, cfg = pool(30), settings()
    moves = [move for move, _ in go_through(cfg, items, lambda number: dict.fromkeys(items, 0))]
    assert moves == ["step"] * 4 + ["switch"] + ["mine", "step", "step"] * 3


def test_the_switch_says_why():
    cfg, items = settings(), pool(9)
    state = curriculum.begin(cfg, items)
    for sparsity in (0.4, 0.7):
        assert curriculum.next_move(state, cfg) == "step"
        curriculum.after_step(state, cfg, FIGURES | {"zero_variance_groups": sparsity})
    assert curriculum.next_move(state, cfg) == "switch"
    said = curriculum.switch(state, cfg)
    assert said["why"] == "sparsity" and abs(said["mean_zero_variance"] - 0.55) < 1e-12 and said["step"] == 2


def passes_of(items, right, wrong, middle=()):
    kinds = dict.fromkeys(right, 4) | dict.fromkeys(wrong, 0) | dict.fromkeys(middle, 2)
    return {name: kinds[name] for name in items if name in kinds}


def first_draw(items, cfg, passes):
    state = State(stage="rl_stage2", stage1_end=0)
    curriculum.next_round(state, cfg, items, passes)
    return state, curriculum.sample_prompts(state, cfg, items)


def test_among_the_wrong_the_difficult_come_first():
    items = pool(60)
    names = list(items)
    state, drawn = first_draw(items, settings(12), passes_of(items, names[:30], names[30:]))
    wrong = [item for item, why in drawn if why == "wrong"]
    assert len(wrong) == 8 and {item.tier for item in wrong} == {"difficult"}
    state.step += 1
    later = [item.tier for item, why in curriculum.sample_prompts(state, settings(12), items) if why == "wrong"]
    assert later == ["difficult"] * 2 + ["moderate"] * 6, "ten difficult ones, then the next tier"


def test_T42_one_to_two_holds_for_small_classes_as_long_as_the_middle_can_fill():
    items = pool(40)
    names = list(items)
    _, drawn = first_draw(items, settings(12), passes_of(items, names[:20], names[20:23], names[23:]))
    assert Counter(why for _, why in drawn) == {"right": 4, "wrong": 3, "middle": 5}
    _, drawn = first_draw(items, settings(12), passes_of(items, names[:1], names[20:], names[1:20]))
    assert Counter(why for _, why in drawn) == {"right": 1, "wrong": 8, "middle": 3}
    _, drawn = first_draw(items, settings(12), passes_of(items, names[:2], names[2:5]))
    assert Counter(why for _, why in drawn) == {"right": 2, "wrong": 3}, "five items make no batch of twelve"
    _, drawn = first_draw(items, settings(3), passes_of(items, names[:1], names[1:3]))
    assert Counter(why for _, why in drawn) == {"right": 1, "wrong": 2}


def test_T42_nobody_starves_over_the_rounds_and_no_batch_holds_an_item_twice():
    """Forty wrong items, four a step: the rounds go on where the earlier ones stopped, the easy ones come too."""
    items, cfg = pool(60), settings(6, rounds=10, steps_per_round=2)
    cfg.mining.quarantine_after = 99
    names = list(items)
    moves = go_through(cfg, items, lambda number: passes_of(items, names[:20], names[20:]))
    draws = [drawn for move, drawn in moves if move == "step"][4:]
    assert all(len({item.id for item, _ in drawn}) == 6 for drawn in draws)
    counts = Counter(item.id for drawn in draws for item, why in drawn if why == "wrong")
    assert set(counts) == set(names[20:]) and max(counts.values()) - min(counts.values()) <= 1


def test_label_suspects_are_never_drawn_and_come_back():
    items, cfg = pool(30), settings(6, rounds=3, steps_per_round=4)
    names = list(items)

    def passes(number):
        found = passes_of(items, names[:10], names[10:])
        return found | ({name: 4 for name in names[10:]} if number == 3 else {})

    moves = go_through(cfg, items, passes)
    ledger = [entries for move, entries in moves if move == "mine"]
    suspects = {e["item"] for e in ledger[1] if e["now"] == "quarantine"}
    assert len(suspects) == 10, "at most half of the wrong ones"
    assert all("no correct sample in 2 rounds" in e["why"] for e in ledger[1] if e["now"] == "quarantine")
    second = [drawn for move, drawn in moves if move == "step"][8:12]
    assert not {item.id for drawn in second for item, _ in drawn} & suspects
    assert {e["now"] for e in ledger[2] if e["before"] == "quarantine"} == {"right"}


def test_draws_depend_on_the_seed_and_on_nothing_else():
    items = pool(60)
    passes = {name: n % 5 for n, name in enumerate(items)}
    cfg = settings()

    def ids(cfg):
        return [[item.id for item, _ in drawn] for move, drawn in go_through(cfg, items, lambda _: passes)
                if move == "step"]

    assert ids(cfg) == ids(cfg)
    other = dataclasses.replace(cfg, run=dataclasses.replace(cfg.run, seed=1))
    assert ids(cfg) != ids(other)
