"""Tests for extras/teachers/record.py and trace_card.py: killed runs resume, and the tables add up."""

from __future__ import annotations

import re

import pytest

from minifleming.cold_start.checks import Checks
from minifleming.cold_start.refine import collect_traces
from minifleming.extras.teachers.record import read_record, run_teacher, to_line
from minifleming.extras.teachers.trace_card import failure_table, trace_card, yield_table
from minifleming.rods.item import TIERS
from minifleming.rods.readers import load_graph
from minifleming.run.errors import BadInput
from tests.cold_start.faulty import FaultyOracle
from tests.rods.items import synthesize


@pytest.fixture(scope="module")
def items():
    return synthesize(load_graph("embedded"), 30, [1, 2, 3], seed=1)


@pytest.fixture(scope="module")
def tell():
    graph = load_graph("embedded")
    return lambda part: collect_traces(part, [FaultyOracle(graph, 0.3, seed=1, error_rate=0.6)], Checks(graph), samples=2, rounds=1)


def test_a_record_reads_back_as_it_was_told(items, tell, tmp_path):
    told = tell(items)
    assert any(one.kept is None for one in told) and any(one.hard for one in told)
    (tmp_path / "r").write_text("".join(map(to_line, told)))
    again = read_record(tmp_path / "r", items)
    assert again == told
    assert all(one.kept is None or any(one.kept is t for t in one.proposals) for one in again)


@pytest.mark.parametrize("cut", [0, 1, 200, 5000, -1])
def test_a_killed_run_goes_on_and_asks_nothing_twice(items, tell, tmp_path, cut):
    """Cut the record at any byte: whole lines stay, the rest is collected again, the result is equal."""
    path = tmp_path / "r"
    whole = run_teacher(items, tell, path, {"seed": 1}, 7)
    text = path.read_bytes()
    path.write_bytes(text[:cut])
    asked = []
    again = run_teacher(items, lambda part: asked.extend(part) or tell(part), path, {"seed": 1}, 4)
    assert again == whole and path.read_bytes() == text
    assert asked == items[text[:cut].count(b"\n") :]


def test_a_record_that_keeps_what_failed_a_check_is_refused(items, tell, tmp_path):
    told = next(one for one in tell(items) if not one.proposals[0].verified)
    told.kept = told.proposals[0]
    (tmp_path / "r").write_text(to_line(told))
    with pytest.raises(BadInput, match="r:1: is not the record"):
        read_record(tmp_path / "r", [told.item])


def test_another_run_is_refused_and_nothing_is_lost(items, tell, tmp_path):
    path = tmp_path / "r"
    run_teacher(items, tell, path, {"seed": 1}, 100)
    before = path.read_bytes()
    with pytest.raises(BadInput, match=r"other settings \(seed\)"):
        run_teacher(items, tell, path, {"seed": 2}, 100)
    with pytest.raises(BadInput, match="r:1: is not the record of these items"):
        run_teacher(items[1:], tell, path, {"seed": 1}, 100)
    with pytest.raises(BadInput, match="r:30: is not the record"):
        run_teacher(items[:29], tell, path, {"seed": 1}, 100)
    assert path.read_bytes() == before
    path.write_bytes(before.replace(b'"hard"', b'"hart"', 1))
    with pytest.raises(BadInput, match="r:1: "):
        run_teacher(items, tell, path, {"seed": 1}, 100)


def rows(table: str) -> list[dict[str, str]]:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


def test_the_tables_add_up(items, tell):
    told = tell(items)
    table = rows(yield_table(told))
    assert sum(int(r["proposed"]) for r in table) == sum(len(one.proposals) for one in told)
    assert sum(int(r["verified"]) for r in table) == sum(t.verified for one in told for t in one.proposals)
    assert sum(int(r["kept"]) for r in table) == sum(one.kept is not None for one in told)
    for tier in TIERS:
        kept = sum(one.kept is not None and one.item.tier == tier for one in told)
        assert sum(int(line[tier]) for line in table) == kept
    blind = next(r for r in table if r["strategy"] == "conditioned")
    assert int(blind["items"]) == sum(one.hard for one in told)
    failures = {r["check"]: (int(r["applied"]), int(r["failed"])) for r in rows(failure_table(told))}
    proposals = [t for one in told for t in one.proposals]
    assert failures == {name: (sum(name in t.checks for t in proposals),
                               sum(t.checks.get(name) is False for t in proposals)) for name in failures}
    assert set(failures) == {name for t in proposals for name in t.checks} and failures["answer"][1] > 0


def test_the_card_is_the_same_bytes_and_says_what_it_is(items, tell):
    first = trace_card("x.jsonl", tell(items), {"seed": "1", "a|b": "c"})
    assert first == trace_card("x.jsonl", tell(items), {"a|b": "c", "seed": "1"})
    assert "not for clinical use" in first and "a\\|b" in first


def test_two_runs_at_one_time_do_not_share_a_record(items, tell, tmp_path):
    def other(part):
        with pytest.raises(BadInput, match="another run is writing it"):
            run_teacher(items[:2], tell, tmp_path / "r", {"seed": 1}, 2)
        return tell(part)

    assert run_teacher(items[:4], other, tmp_path / "r", {"seed": 1}, 2) == tell(items[:4])


def test_an_empty_record_takes_new_settings(items, tell, tmp_path):
    """A run that failed before its first item, a wrong address say, leaves one."""
    def fails(part):
        raise OSError("no server")

    with pytest.raises(OSError):
        run_teacher(items[:2], fails, tmp_path / "r", {"seed": 1}, 2)
    assert (tmp_path / "r").read_bytes() == b""
    assert run_teacher(items[:2], tell, tmp_path / "r", {"seed": 2}, 2) == tell(items[:2])
    with pytest.raises(BadInput, match=r"\(seed\).*remove it and r.settings.json"):
        run_teacher(items[:2], tell, tmp_path / "r", {"seed": 1}, 2)
