"""Laws of evaluation/scores.py: counts of records, shares that sum to one, and pairs that are pairs."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from minifleming.evaluation.grade import KINDS
from minifleming.evaluation.page import page
from minifleming.evaluation.scores import compared, macro, markdown, paired_markdown, scores, to_csv
from minifleming.evaluation.statistics import mcnemar, wilson
from minifleming.run.errors import BadInput


def record(number: int, kind: str, options: int = 4, label: str = "B") -> dict:
    strict = label if kind == "ok" else None
    lenient = label if kind in ("ok", "lenient") else None
    return {"item": f"i{number}", "answer": "B", "strict": strict, "lenient": lenient, "kind": kind, "options": options}


def some(n: int, seed: int, options: int = 4) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [record(i, KINDS[rng.integers(len(KINDS))], options, "AB"[rng.integers(2)]) for i in range(n)]


def test_every_figure_is_a_count_over_n():
    sets = {"medqa": some(200, 0), "pubmedqa": some(90, 1, options=3)}
    for row, (name, records) in zip(scores(sets, 0.95), sets.items()):
        n, correct = len(records), sum(r["strict"] == "B" for r in records)
        assert (row["benchmark"], row["n"], row["correct"], row["accuracy"]) == (name, n, correct, correct / n)
        assert (row["ci_low"], row["ci_high"]) == wilson(correct, n)
        assert row["lenient"] == sum(r["lenient"] == "B" for r in records) / n
        kinds = [row["lenient_only" if kind == "lenient" else kind] for kind in KINDS]
        assert sum(kinds) == pytest.approx(1, abs=1e-12)
        assert kinds == [sum(r["kind"] == kind for r in records) / n for kind in KINDS]
    assert scores(sets, 0.95)[1]["chance"] == pytest.approx(1 / 3)
    mixed = [record(0, "ok", 2), record(1, "ok", 4)]
    assert scores({"x": mixed}, 0.95)[0]["chance"] == 0.375


def test_a_wrong_label_is_no_right_answer_and_an_unread_one_is_none():
    sets = {"x": [record(0, "ok", label="A"), record(1, "ok"), record(2, "lenient"), record(3, "empty")]}
    row, = scores(sets, 0.95)
    assert (row["accuracy"], row["lenient"], row["empty"]) == (0.25, 0.5, 0.25)


def test_the_comparison_is_item_by_item_and_turns_round():
    first, second = some(300, 2), some(300, 3)
    row, = compared({"x": first}, {"x": second, "y": first}, 0.95)
    won = sum(b["strict"] == "B" and a["strict"] != "B" for a, b in zip(first, second))
    lost = sum(a["strict"] == "B" and b["strict"] != "B" for a, b in zip(first, second))
    assert (row["won"], row["lost"], row["p"]) == (won, lost, mcnemar(lost, won))
    assert row["difference"] == pytest.approx((won - lost) / 300) == pytest.approx(row["second"] - row["first"])
    assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    back, = compared({"x": second}, {"x": first[::-1]}, 0.95)
    assert (back["won"], back["lost"], back["difference"]) == (lost, won, -row["difference"])
    both = compared({"x": first, "y": first}, {"x": second, "y": second}, 0.95)
    assert [r["p_holm"] for r in both] == pytest.approx([min(1, 2 * row["p"])] * 2)


@pytest.mark.parametrize("change", [lambda r: r | {"item": "other"}, lambda r: r | {"answer": "A"}])
def test_other_items_are_not_compared(change):
    first = some(20, 4)
    with pytest.raises(BadInput, match="x: the records of the two are not of the same items"):
        compared({"x": first}, {"x": [change(first[0]), *first[1:]]}, 0.95)
    with pytest.raises(BadInput, match="no benchmark in common"):
        compared({"x": first}, {"y": first}, 0.95)


def test_the_tables_say_what_the_rows_say():
    sets = {"medqa": some(200, 0), "pubmedqa": some(5, 1)}
    rows, average = scores(sets, 0.95), macro(sets, 0.95)
    text = markdown(rows, average, 0.95)
    assert f"| medqa | 200 | {100 * rows[0]['accuracy']:.1f} [" in text and "| macro average |" in text
    assert "medqa 8.8" in text and "pubmedqa none" in text, "five items can show no difference"
    assert average[0] == pytest.approx(np.mean([row["accuracy"] for row in rows]))
    lines = text.split("\n\n")[0].splitlines()
    assert len({line.count("|") for line in lines}) == 1, "as many cells in each line"
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(row["accuracy"]) for row in read] == [row["accuracy"] for row in rows]
    pairs = compared(sets, {"medqa": some(200, 9), "pubmedqa": sets["pubmedqa"]}, 0.95)
    said = paired_markdown(pairs, ("a", "b"), 0.95)
    assert "| pubmedqa | 5 |" in said and "+0.0 [+0.0, +0.0] n.s. | 0, 0 | 1 |" in said
    assert "| macro average" not in markdown(rows[:1], average, 0.95)


def test_the_page_stands_alone_escapes_and_shows_each_set():
    sets = {"medqa": [r | {"support": "chain", "tokens": i, "tier": "easy" if i % 2 else "<b>"}
                      for i, r in enumerate(some(200, 0))], "kg": [r | {"support": ""} for r in some(40, 1)]}
    rows = scores(sets, 0.95)
    text = page("a < b", sets, rows, 0.95)
    assert "<title>a &lt; b</title>" in text and "&lt;b&gt;" in text and "<b>" not in text
    assert all(word not in text for word in ("http", "src=", "<script", "@import", "url("))
    assert text.count("<h2>") == 2 and text.count("What the right answers rest on") == 1 and "not for clinical" in text
    assert f"{100 * rows[0]['accuracy']:.1f} [" in text and "200" in text
