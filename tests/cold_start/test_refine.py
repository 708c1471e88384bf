"""Tests for cold_start/refine.py: the order of strategies and teachers, and which trace is kept."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from minifleming.cold_start.refine import collect_traces, select
from minifleming.cold_start.trace import ROUNDS, Trace, new_trace
from minifleming.rods.item import Item


def item(name: str) -> Item:
    return Item(name, f"which {name} ?", {"A": "a", "B": "b"}, "A", "made", tier="easy")


class Scripted:
    """A teacher that is right where ``right(item, strategy, sample)`` holds."""

    def __init__(self, right, name: str = "scripted"):
        self.right, self.name, self.asked = right, name, []

    def propose(self, items, strategy="blind", samples=1, earlier=()):
        self.asked.append((strategy, [i.id for i in items], samples, [t.reasoning for t in earlier]))
        return [[new_trace(i, f" {i.id} {strategy} {s}" + " x" * s, "A" if self.right(i.id, strategy, s) else "B",
                          strategy, self.name) for s in range(samples)] for i in items]

    def resolve(self, items, reasonings):
        return [i.answer for i in items]


def check(items, traces, teacher):
    for i, trace in zip(items, traces, strict=True):
        assert trace.item == i.id
        trace.checks = {"format": True, "answer": trace.answer == i.answer}


def test_an_item_with_a_verified_blind_sample_is_finished():
    teacher = Scripted(lambda name, strategy, sample: sample == 2)
    told = collect_traces([item("u"), item("v")], [teacher], check, samples=4)
    assert teacher.asked == [("blind", ["u", "v"], 4, [])]
    assert [(t.kept.strategy, t.kept.reasoning, t.hard) for t in told] == [
        ("blind", f" {name} blind 2 x x", False) for name in "uv"]
    assert [t.attempts() for t in told] == [{"scripted blind": [4, 1]}] * 2 == [t.kept.attempts for t in told]


def test_the_strategies_come_in_order_and_end_with_the_first_that_works():
    for works in ("conditioned", *ROUNDS, "nothing"):
        for rounds in range(4):
            check_order(works, rounds)


def check_order(works: str, rounds: int) -> None:
    teacher = Scripted(lambda name, strategy, sample: strategy == works or name == "easy")
    hard, easy = collect_traces([item("hard"), item("easy")], [teacher], check, samples=3, rounds=rounds)
    steps = ["conditioned", *ROUNDS[:rounds]]
    asked = steps[: steps.index(works) + 1] if works in steps else steps
    assert [entry[0] for entry in teacher.asked] == ["blind", *asked]
    assert all(names == ["hard"] and samples == 1 for _, names, samples, _ in teacher.asked[1:])
    assert easy.kept.strategy == "blind" and not easy.hard and hard.hard
    assert (hard.kept.strategy if hard.kept else None) == (works if works in steps else None)
    assert len(hard.proposals) == 3 + len(asked), "every proposal is recorded"


def test_each_round_sees_the_failure_before_it():
    teacher = Scripted(lambda *_: False)
    collect_traces([item("u")], [teacher], check, samples=2)
    shown = [entry[3] for entry in teacher.asked]
    assert shown == [[], [], [" u conditioned 0"], [" u backtrack 0"], [" u explore 0"]]


def test_pass_at_k_decides_which_items_are_hard():
    """2 of 4 right: pass@1 = 1/2, pass@2 = 1 - 1/6; the bound itself counts as hard."""
    for pass_k, bound, hard in [(1, 0.0, False), (1, 0.49, False), (1, 0.5, True), (2, 0.5, False), (2, 5 / 6, True),
                                (2, 0.83, False), (1, 1.0, True)]:
        teacher = Scripted(lambda name, strategy, sample: strategy == "blind" and sample < 2)
        told, = collect_traces([item("u")], [teacher], check, samples=4, pass_k=pass_k, hard_at_most=bound)
        assert told.hard is hard and (len(teacher.asked) > 1) is hard
        assert told.kept.strategy == "blind", "the blind trace is kept if refinement fails"
    teacher = Scripted(lambda name, strategy, sample: strategy == "conditioned" or sample < 2)
    told, = collect_traces([item("u")], [teacher], check, samples=4, hard_at_most=0.5)
    assert told.kept.strategy == "conditioned", "a hard item takes the refined trace"
    with pytest.raises(ValueError):
        collect_traces([item("u")], [teacher], check, samples=4, pass_k=5)


def test_the_fallback_gets_only_items_without_a_trace():
    first, second = Scripted(lambda name, *_: name == "u", "first"), Scripted(lambda *_: True, "second")
    told = collect_traces([item(n) for n in "uvw"], [first, second], check, samples=2)
    assert [t.kept.teacher for t in told] == ["first", "second", "second"]
    assert second.asked == [("blind", ["v", "w"], 2, [])]
    assert [t.hard for t in told] == [False, True, True], "hard for the first teacher"
    assert told[1].attempts() == {"first blind": [2, 0], "first conditioned": [1, 0], "second blind": [2, 2]} | {
        f"first {strategy}": [1, 0] for strategy in ROUNDS}


def test_items_do_not_depend_on_their_neighbours():
    def right(name, strategy, sample):
        return sha256(f"{name} {strategy} {sample}".encode()).digest()[0] % 4 == 0

    items = [item(f"i{n}") for n in range(40)]
    whole = collect_traces(items, [Scripted(right)], check, samples=2)
    alone = [collect_traces([i], [Scripted(right)], check, samples=2)[0] for i in items]
    assert whole == alone
    assert collect_traces([], [Scripted(right)], check) == []


def lengths(*sizes, right=True) -> list[Trace]:
    made = [Trace("x", "q", {"A": "a"}, "z" * size, "A", "blind", "t") for size in sizes]
    for trace in made:
        trace.checks = {"answer": right}
    return made


def test_the_shortest_above_the_floor_is_kept():
    """The floor is a quantile of the verified lengths: of 10, 20, ..., 80 the first quarter falls to 20."""
    sizes = [80, 30, 10, 70, 20, 60, 40, 50]
    for floor, kept in [(0.0, 10), (0.25, 20), (0.5, 40), (1.0, 80)]:
        assert len(select(lengths(*sizes), floor).reasoning) == kept
        shuffled = sizes[:]
        random.Random(floor).shuffle(shuffled)
        assert len(select(lengths(*shuffled), floor).reasoning) == kept
    traces = lengths(*sizes)
    traces[1].checks = {"answer": False}
    assert len(select(traces, 0.5).reasoning) == 50, "only verified ones count, for the floor too"
    for few, kept in [((20, 10), 10), ((30, 10, 20), 10), ((40, 10, 30, 20), 10), ((50, 10, 40, 30, 20), 20)]:
        assert len(select(lengths(*few), 0.25).reasoning) == kept, "the shortest, until one is a quarter of them"
    assert select(lengths(5, right=False), 0.0) is None and select([], 0.5) is None
    first, second = lengths(7, 7)
    assert select([first, second], 0.25) is first
