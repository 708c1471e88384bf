"""Tests of the ablation in evaluation/tables.py: tables are counts of stored records, which give them again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minifleming.evaluation.evaluate import is_correct, read_records, write_records
from minifleming.evaluation.statistics import holm, mcnemar, wilson
from minifleming.evaluation.tables import VARIANTS, ablation, ablation_markdown, adjacent_variant_tests, write_ablation
from minifleming.run.errors import BadInput

REQUIRED = {"variant", "split", "n", "correct", "accuracy", "ci_low", "ci_high"}


def record(number: int, kind: str, **more) -> dict:
    """An item's record of a kind: right, lucky (right, one false hop), wrong, loose (lenient only), cut (truncated)."""
    strict = {"right": "B", "lucky": "B", "wrong": "A"}.get(kind)
    rule = {"loose": "label", "cut": "truncated"}.get(kind, "ok")
    return {"item": f"kg-{number}", "hops": 2, "tier": "moderate", "answer": "B", "strict": strict, "rule": rule,
            "lenient": "B" if kind == "loose" else strict, "options": 4,
            "kind": {"loose": "lenient", "cut": "truncated"}.get(kind, "ok"), "finished": kind != "cut",
            "tokens": 10 + number % 3,
            "support": "false" if kind == "lucky" else "chain", "text": "<think>é 中</think>"} | more


def some(n: int, share: float, seed: int) -> list[dict]:
    rng = np.random.default_rng(seed)
    others = ("lucky", "wrong", "loose", "cut")
    return [record(i, "right" if rng.random() < share else others[rng.integers(4)]) for i in range(n)]


@pytest.fixture
def records() -> dict:
    """All variants, two splits; stage 2 loses on the second split."""
    shares = {("base", 0): 0.1, ("cold_start", 0): 0.4, ("rl_stage1", 0): 0.85, ("rl_stage2", 0): 0.86,
              ("base", 1): 0.1, ("cold_start", 1): 0.5, ("rl_stage1", 1): 0.9, ("rl_stage2", 1): 0.5}
    return {(variant, ("heldout", "longer_hops")[split]): some((200, 130)[split], share, number)
            for number, ((variant, split), share) in enumerate(shares.items())}


def test_counts_sum_to_n_and_every_denominator_is_n(records):
    for row in ablation(records, 0.95):
        found = records[row["variant"], row["split"]]
        n = row["n"]
        assert n == len(found)
        wrong = sum(r["rule"] == "ok" and r["strict"] != r["answer"] for r in found)
        unparsed = sum(r["rule"] not in ("ok", "truncated") for r in found)
        cut = sum(not r["finished"] for r in found)
        assert row["correct"] + wrong + unparsed + cut == n
        assert row["accuracy"] * n == pytest.approx(row["correct"], abs=1e-9)
        assert row["parse_rate"] * n == pytest.approx(n - unparsed - cut, abs=1e-9)
        assert row["truncated"] * n == pytest.approx(cut, abs=1e-9)
        loose = sum(r["rule"] == "label" for r in found)
        assert row["lenient_accuracy"] * n == pytest.approx(row["correct"] + loose, abs=1e-9)
        assert row["tokens"] * n == pytest.approx(sum(r["tokens"] for r in found))


def test_a_row_by_hand():
    kinds = ["right"] * 3 + ["lucky"] * 2 + ["wrong", "loose", "cut"]
    row, = ablation({("base", "heldout"): [record(i, kind) for i, kind in enumerate(kinds)]}, 0.9)
    assert (row["n"], row["correct"], row["accuracy"]) == (8, 5, 5 / 8)
    assert (row["ci_low"], row["ci_high"]) == wilson(5, 8, 0.9)
    assert row["lenient_accuracy"] == 6 / 8
    assert row["parse_rate"] == 6 / 8
    assert row["truncated"] == 1 / 8
    assert row["right_by_a_chain_of_edges"] == 3 / 8 and row["right_with_a_false_hop_or_a_gap"] == 2 / 8


def test_an_empty_or_unparsed_completion_counts_as_wrong_and_stays_in_the_denominator():
    some_records = [record(0, "right"), record(1, "loose", text=""), record(2, "cut"), record(3, "loose", lenient=None)]
    row, = ablation({("base", "heldout"): some_records}, 0.95)
    assert (row["n"], row["correct"], row["accuracy"]) == (4, 1, 0.25)


def test_a_right_answer_without_any_stated_hop_has_no_support():
    found = [record(0, "right", support="unread"), record(1, "right", support="gap"), record(2, "wrong")]
    row, = ablation({("base", "heldout"): found}, 0.95)
    assert (row["right_by_a_chain_of_edges"], row["right_with_a_false_hop_or_a_gap"],
            row["right_and_no_hop_read"]) == (0, 1 / 3, 1 / 3)


def test_strict_and_not_lenient_is_the_headline():
    assert not is_correct(record(0, "loose")) and not is_correct(record(0, "cut")) and is_correct(record(0, "right"))


def test_ablation_json_has_the_required_keys_with_fractions(records, tmp_path):
    write_ablation(tmp_path, records, 0.95)
    rows = json.loads((tmp_path / "ablation.json").read_text())
    assert [(row["variant"], row["split"]) for row in rows] == list(records)
    for row in rows:
        assert REQUIRED <= set(row)
        assert type(row["n"]) is int and type(row["correct"]) is int
        assert 0 <= row["ci_low"] <= row["accuracy"] <= row["ci_high"] <= 1
        assert row["accuracy"] == row["correct"] / row["n"]
        shares = set(row) - {"variant", "split", "n", "correct", "tokens"}
        assert all(0 <= row[key] <= 1 for key in shares)


def test_records_alone_give_the_same_report(records, tmp_path):
    """Written, read back and tabulated again: the same bytes."""
    text = write_ablation(tmp_path / "first", records, 0.95)
    stored = {}
    for (variant, split), found in records.items():
        write_records(tmp_path / f"{variant}.{split}.jsonl", found)
        stored[variant, split] = read_records(tmp_path / f"{variant}.{split}.jsonl")
    assert stored == records
    assert write_ablation(tmp_path / "second", stored, 0.95) == text
    names = [path.name for path in sorted((tmp_path / "first").iterdir())]
    assert {"ablation.json", "ablation.md", "paired.json"} <= set(names)
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_neighbours_are_paired_by_item_and_adjusted_over_all_tests(records):
    tests = adjacent_variant_tests(records)
    assert [(t["split"], t["first"], t["second"]) for t in tests] == [
        (split, a, b) for split in ("heldout", "longer_hops") for a, b in zip(VARIANTS, list(VARIANTS)[1:])]
    for t in tests:
        first, second = records[t["first"], t["split"]], records[t["second"], t["split"]]
        assert t["won"] - t["lost"] == sum(map(is_correct, second)) - sum(map(is_correct, first))
        assert t["difference"] == (t["won"] - t["lost"]) / len(first)
        assert t["p"] == mcnemar(t["lost"], t["won"])
    assert [t["p_holm"] for t in tests] == holm([t["p"] for t in tests])  # over all six, not per split
    assert any(t["p_holm"] > t["p"] for t in tests)


def test_the_order_of_the_records_does_not_matter_to_the_paired_test(records):
    shuffled = {key: [found[i] for i in np.random.default_rng(n).permutation(len(found))]
                for n, (key, found) in enumerate(records.items())}
    assert adjacent_variant_tests(shuffled) == adjacent_variant_tests(records)


def test_variants_of_other_items_are_not_compared(records):
    """A shorter or a different set of items would silently change the denominator."""
    for other in (records["rl_stage1", "heldout"][:-1], [record(i + 1, "right") for i in range(200)]):
        with pytest.raises(BadInput, match="heldout"):
            adjacent_variant_tests(records | {("rl_stage1", "heldout"): other})


def test_a_missing_variant_is_compared_across(records):
    """Without a cold start, stage 1 is compared with the base."""
    del records["cold_start", "heldout"], records["cold_start", "longer_hops"]
    tests = adjacent_variant_tests(records)
    assert [(t["first"], t["second"]) for t in tests] == 2 * [("base", "rl_stage1"), ("rl_stage1", "rl_stage2")]
    assert "cold start" not in ablation_markdown(ablation(records, 0.95), tests, 0.95)


def test_markdown_shows_intervals_negatives_and_what_is_not_significant(records):
    rows, tests = ablation(records, 0.95), adjacent_variant_tests(records)
    lines = ablation_markdown(rows, tests, 0.95).splitlines()
    assert "heldout (n = 200)" in lines[0] and "longer_hops (n = 130)" in lines[0]
    assert len({line.count("|") for line in lines[:2] + lines[2:6]}) == 1
    body = {title: next(line for line in lines if line.startswith(f"| {title} |")) for title in VARIANTS.values()}
    by = {(row["variant"], row["split"]): row for row in rows}
    for (variant, _), row in by.items():
        cell = f"{100 * row['accuracy']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
        assert cell in body[VARIANTS[variant]]
    for test in tests:
        mark = f"({100 * test['difference']:+.1f}{'' if test['p_holm'] < 0.05 else ' n.s.'})"
        assert mark in body[VARIANTS[test["second"]]], test
    last = {test["split"]: test for test in tests if test["second"] == "rl_stage2"}
    assert last["longer_hops"]["difference"] < 0 and last["longer_hops"]["p_holm"] < 0.05
    assert last["heldout"]["p_holm"] >= 0.05
    stage2 = body[VARIANTS["rl_stage2"]].split("|")
    assert " n.s.)" in stage2[2] and "(-" in stage2[3] and "n.s." not in stage2[3]
    assert "(" not in body["Base"]


def test_significance_is_of_the_adjusted_p():
    """p = 0.039 alone, but one of three tests: not significant."""
    def made(right_ones: range) -> list[dict]:
        return [record(i, "right" if i in right_ones else "wrong") for i in range(40)]

    records = {("base", "s"): made(range(0, 10)), ("cold_start", "s"): made(range(1, 18)),
               ("rl_stage1", "s"): made(range(1, 18)), ("rl_stage2", "s"): made(range(1, 18))}
    tests = adjacent_variant_tests(records)
    assert tests[0]["p"] == pytest.approx(2 * 10 / 2**9) and tests[0]["p"] < 0.05 < tests[0]["p_holm"]
    assert "(+17.5 n.s.)" in ablation_markdown(ablation(records, 0.95), tests, 0.95)
