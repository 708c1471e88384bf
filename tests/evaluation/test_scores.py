"""Tests of the scores in evaluation/tables.py and of the comparison and page made from the same records."""

from __future__ import annotations

import numpy as np
import pytest

from minifleming.evaluation.benchmarks import BENCHMARKS
from minifleming.evaluation.grade import KINDS
from minifleming.evaluation.statistics import holm, mcnemar, wilson
from minifleming.evaluation.tables import SUPPORT, macro, micro, score_markdown, score_rows
from minifleming.extras.analysis.compare import compared, paired_markdown, side_by_side, table3
from minifleming.extras.analysis.paper import SIZES, differences
from minifleming.extras.reports.page import evaluation_page
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
    for row, (name, records) in zip(score_rows(sets, 0.95), sets.items()):
        n, correct = len(records), sum(r["strict"] == "B" for r in records)
        assert (row["benchmark"], row["n"], row["correct"], row["accuracy"]) == (name, n, correct, correct / n)
        assert (row["ci_low"], row["ci_high"]) == wilson(correct, n)
        assert row["lenient"] == sum(r["lenient"] == "B" for r in records) / n
        kinds = [row["lenient_only" if kind == "lenient" else kind] for kind in KINDS]
        assert sum(kinds) == pytest.approx(1, abs=1e-12)
        assert kinds == [sum(r["kind"] == kind for r in records) / n for kind in KINDS]
    assert score_rows(sets, 0.95)[1]["chance"] == pytest.approx(1 / 3)
    mixed = [record(0, "ok", 2), record(1, "ok", 4)]
    assert score_rows({"x": mixed}, 0.95)[0]["chance"] == 0.375


def test_a_wrong_label_is_no_right_answer_and_an_unread_one_is_none():
    sets = {"x": [record(0, "ok", label="A"), record(1, "ok"), record(2, "lenient"), record(3, "empty")]}
    row, = score_rows(sets, 0.95)
    assert (row["accuracy"], row["lenient"], row["empty"]) == (0.25, 0.5, 0.25)


def test_the_comparison_is_item_by_item_and_turns_round():
    first, second = some(300, 2), some(300, 3)
    row, = compared({"a": {"x": first}, "b": {"x": second, "y": first}}, 0.95)
    won = sum(b["strict"] == "B" and a["strict"] != "B" for a, b in zip(first, second))
    lost = sum(a["strict"] == "B" and b["strict"] != "B" for a, b in zip(first, second))
    assert (row["won"], row["lost"], row["p"]) == (won, lost, mcnemar(lost, won))
    assert row["difference"] == pytest.approx((won - lost) / 300) == pytest.approx(row["second"] - row["first"])
    assert row["ci_low"] <= row["difference"] <= row["ci_high"]
    back, = compared({"b": {"x": second}, "a": {"x": first[::-1]}}, 0.95)
    assert (back["won"], back["lost"], back["difference"]) == (lost, won, -row["difference"])
    both = compared({"a": {"x": first, "y": first}, "b": {"x": second, "y": second}}, 0.95)
    assert [r["p_holm"] for r in both] == pytest.approx([min(1, 2 * row["p"])] * 2)


@pytest.mark.parametrize("change", [lambda r: r | {"item": "other"}, lambda r: r | {"answer": "A"}])
def test_other_items_are_not_compared(change):
    first = some(20, 4)
    with pytest.raises(BadInput, match="x: the records of a and b are not of the same items"):
        compared({"a": {"x": first}, "b": {"x": [change(first[0]), *first[1:]]}}, 0.95)
    with pytest.raises(BadInput, match="no benchmark in common"):
        compared({"a": {"x": first}, "b": {"y": first}}, 0.95)


def test_the_tables_say_what_the_rows_say():
    sets = {"medqa": some(200, 0), "pubmedqa": some(5, 1)}
    rows, average = score_rows(sets, 0.95), macro(sets, 0.95)
    averages = {"macro": average, "micro": micro(sets, 0.95)}
    text = score_markdown(rows, averages, 0.95)
    assert f"| medqa | 200 | {100 * rows[0]['accuracy']:.1f} [" in text
    assert "| macro average |" in text and "| micro average |" in text
    assert average[0] == pytest.approx(np.mean([row["accuracy"] for row in rows]))
    lines = text.split("\n\n")[0].splitlines()
    assert len({line.count("|") for line in lines}) == 1, "as many cells in each line"
    pairs = compared({"a": sets, "b": {"medqa": some(200, 9), "pubmedqa": sets["pubmedqa"]}}, 0.95)
    said = paired_markdown(pairs, 0.95)
    assert "| pubmedqa | 5 |" in said and "+0.0 [+0.0, +0.0] n.s. | 0, 0 | 1 |" in said
    assert "| macro average" not in score_markdown(rows[:1], averages, 0.95)


def test_the_page_stands_alone_escapes_and_shows_each_set():
    sets = {"medqa": [r | {"support": "chain", "tokens": i, "tier": "easy" if i % 2 else "<b>"}
                      for i, r in enumerate(some(200, 0))], "kg": [r | {"support": ""} for r in some(40, 1)]}
    rows = score_rows(sets, 0.95)
    text = evaluation_page("a < b", sets, rows, 0.95,
                {"T < U": "| h |\n|---|\n| **c** |\n\nAll <i>."}, {"medqa.x": "<svg id=one>", "y": "<svg id=two>"})
    assert "<title>a &lt; b</title>" in text and "&lt;b&gt;" in text and "<b>" not in text
    assert all(word not in text for word in ("http", "src=", "<script", "@import", "url("))
    assert text.count("<h2>") == 3 and text.count("What the right answers rest on") == 1 and "not for clinical" in text
    assert f"{100 * rows[0]['accuracy']:.1f} [" in text and "200" in text
    assert "<h2>T &lt; U</h2><table><tr><th>h</th></tr><tr><td>c</td></tr></table><p>All &lt;i&gt;.</p>" in text
    assert text.index("id=two") < text.index("<h2>medqa") < text.index("id=one") < text.index("<h2>kg")


def test_table_3_has_a_line_a_model_and_the_best_in_bold():
    models = {"small": {"medqa": some(200, 0), "kg": some(90, 1)}, "large": {"kg": some(90, 2), "medqa": some(200, 3),
                                                                           "other": some(9, 1)}}
    rows = side_by_side(models, 0.95)
    assert [(r["model"], r["benchmark"]) for r in rows] == [
        (m, b) for m in models for b in ("medqa", "kg", "macro average")], "what both have, in the order of the first"
    for row in rows:
        if "n" in row:
            assert row == {"model": row["model"]} | score_rows({row["benchmark"]: models[row["model"]][row["benchmark"]]},
                                                           0.95)[0]
    lines = table3(rows, 0.95).splitlines()
    assert lines[0] == "| model | medqa (n = 200) | kg (n = 90) | macro average |"
    for column, name in enumerate(("medqa", "kg", "macro average"), 2):
        shares = [next(r["accuracy"] for r in rows if (r["model"], r["benchmark"]) == (m, name)) for m in models]
        cells = [line.split("|")[column] for line in lines[2:4]]
        assert [cell.strip().startswith("**") for cell in cells] == [share == max(shares) for share in shares]
        assert [float(cell.strip(" *").split()[0]) for cell in cells] == [round(100 * s, 1) for s in shares]


def test_each_other_model_is_held_against_the_first_and_holm_counts_them_all():
    models = {name: {"x": some(300, seed)} for seed, name in enumerate("abc")}
    both = compared(models, 0.95)
    assert [(r["against"], r["model"]) for r in both] == [("a", "b"), ("a", "c")]
    alone = [compared({"a": models["a"], name: models[name]}, 0.95)[0]["p"] for name in "bc"]
    assert [r["p"] for r in both] == alone and [r["p_holm"] for r in both] == holm(alone)


def test_a_public_set_of_another_size_than_the_papers_is_called_so():
    rows = score_rows({"pubmedqa": some(1000, 0, 3), "medqa": some(1273, 1), "jmed": some(10, 2), "mine": some(5, 3)}, 0.95)
    said = score_markdown(rows, {}, 0.95, differences({row["benchmark"]: row["n"] for row in rows}))
    assert "pubmedqa has 1,000 items here and 500 in the paper: all labelled questions are read" in said
    assert "jmed has 10 items here and 1,000 in the paper: a part of it." in said
    assert "medqa has 1,273" not in said and "mine has" not in said and set(SIZES) <= set(BENCHMARKS)


def test_right_answers_are_parted_by_what_carries_them():
    kinds = ["chain", "false", "gap", "unread", "chain"]
    found = [record(i, "ok") | {"support": kind} for i, kind in enumerate(kinds)] + [
        record(9, "ok", label="A") | {"support": "chain"}]
    row, plain = score_rows({"kg": found, "medqa": some(9, 0)}, 0.95)
    assert [row[k] for k in SUPPORT] == [2 / 6, 2 / 6, 1 / 6]
    assert sum(row[k] for k in SUPPORT) == pytest.approx(row["accuracy"], abs=1e-12)
    assert [plain[k] for k in SUPPORT] == [None] * 3
    text = score_markdown([row, plain], {}, 0.95)
    assert "| right for the wrong reason |" in text and text.splitlines()[3].endswith("|  |  |  |")
    assert "a stated hop is no edge" in text and "wrong reason" not in score_markdown([plain], {}, 0.95)
