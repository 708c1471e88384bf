"""The numbers in README and docs are those of the result files, to the letter."""

import json
import re
from pathlib import Path

import pytest

from bench import contamination, graph, growth, kills, refined, side_by_side, soak
from bench.tiny_seeds import markdown
from minifleming.evaluation import tables
from minifleming.extras.analysis import compare, paper, robust, votes

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


def newest(pattern: str) -> Path:
    return sorted(RESULTS.glob(pattern))[-1]


def test_the_seeds_tables_of_the_docs_are_those_of_the_newest_measurement():
    result = json.loads(newest("tiny_seeds_*.json").read_text())
    assert markdown(result) in (ROOT / "docs" / "results.md").read_text()
    assert len(result["seeds"]) == 5


def test_the_docs_show_the_table_that_the_default_run_printed():
    assert newest("tiny_run_*.md").read_text() in (ROOT / "docs" / "results.md").read_text()


def test_the_readme_shows_three_columns_of_that_table():
    """Held-out and four-hop accuracy without the change in brackets, and supported reasoning."""
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| (Base|\+ [^|]+) \|(.+)\|$", newest("tiny_run_*.md").read_text(), re.MULTILINE)
    assert len(rows) == 4
    for name, cells in rows:
        cells = [cell.split("(")[0].strip() for cell in cells.split("|")]
        assert f"| {name} | {cells[0]} | {cells[1]} | {cells[4]} |" in readme, name


def test_the_docs_show_what_the_audit_of_that_run_printed():
    assert newest("audit_*.md").read_text() in (ROOT / "docs" / "results.md").read_text()


def test_means_and_differences_follow_from_the_seeds():
    result = json.loads(newest("tiny_seeds_*.json").read_text())
    for key, mean in result["means"].items():
        assert abs(mean - sum(row[key] for row in result["seeds"]) / 5) < 1e-12
    for name, (first, second) in {
            "stage1_minus_cold_start": ("cold_start", "rl_stage1"), "stage2_minus_stage1": ("rl_stage1", "rl_stage2"),
            "mining_minus_control": ("control", "rl_stage2"),
            "mining_minus_control_total": ("control_total", "rl_stage2")}.items():
        found = result[name]["heldout"]
        for row, difference in zip(result["seeds"], found["by_seed"]):
            assert abs(row[f"{second}.heldout"] - row[f"{first}.heldout"] - difference) < 1e-12
        assert found["ci_low"] <= found["mean"] <= found["ci_high"]


def test_the_speed_table_is_that_of_the_newest_measurement():
    """Every ratio of docs/performance.md, and that the outputs compared were equal."""
    results = json.loads(newest("rollout_2*.json").read_text())
    text = (ROOT / "docs" / "performance.md").read_text()
    assert side_by_side.markdown(results) in text and f"{side_by_side.made(results)}, seed 0.\n" in text
    assert [r["workload"] for r in results] == ["prompt_64", "prompt_256", "tiny", "ragged"]
    assert all(r["greedy_identical"] and r["ratio_low"] <= r["ratio"] <= r["ratio_high"] for r in results)
    ragged = results[3]["lengths"]
    assert f"mean {ragged['mean']:.0f} tokens, longest {ragged['longest']}" in text
    assert ragged["mean"] <= 0.3 * ragged["longest"]


def test_the_table_of_whole_steps_is_that_of_the_newest_measurement():
    results = json.loads(newest("grpo_step_*.json").read_text())
    text = (ROOT / "docs" / "performance.md").read_text()
    assert side_by_side.grpo_markdown(results) in text and f"\n{side_by_side.made(results)}.\n" in text
    assert [r["workload"] for r in results] == ["prompt_64", "prompt_256", "ragged"]
    assert all(r["gradient_difference"] < 1e-5 and r["ratio_low"] <= r["ratio"] <= r["ratio_high"] for r in results)


def test_the_first_table_of_performance_is_that_of_the_newest_measurements():
    patterns = {"grpo_step": "grpo_step_*.json", "sft": "sft_*.json", "rollout": "rollout_2*.json"}
    results = {name: json.loads(newest(pattern).read_text()) for name, pattern in patterns.items()}
    assert side_by_side.summary(results) in (ROOT / "docs" / "performance.md").read_text()


def test_the_table_of_growing_work_is_that_of_the_newest_measurement():
    results = json.loads(newest("growth_*.json").read_text())
    text = (ROOT / "docs" / "performance.md").read_text()
    assert growth.markdown(results) in text and f", {results[0]['rounds']} rounds after a first to warm up" in text
    assert [r["line"] for r in results] == list(growth.LINES)


def test_the_table_of_shares_is_that_of_the_newest_measurement():
    results = json.loads(newest("shares_*.json").read_text())
    assert side_by_side.shares_markdown(results) in (ROOT / "docs" / "performance.md").read_text()
    assert all(abs(sum(r[kind] for kind in side_by_side.KINDS) - r["seconds"]) < 1e-9 for r in results)


def test_the_operations_of_growing_work_are_those_of_its_weights_and_pairs():
    """A second way: from the model's own matrices, and every token and key that it reads counted one by one."""
    for work in (growth.Work(), growth.Work(hidden=64, completion=5, samples=3, prompts=2, train=False)):
        model, cfg = growth.Step(work).model, growth.Step(work).model.config
        matrices = sum(p.numel() for p in model.model.layers.parameters() if p.dim() > 1)
        prompts, drawn = work.prompts * growth.PROMPT, work.prompts * work.samples * work.completion
        keys = prompts * growth.PROMPT / 2 + work.prompts * work.samples * sum(
            growth.PROMPT + t + 0.5 for t in range(work.completion))
        heads = cfg.num_hidden_layers * cfg.num_attention_heads * cfg.head_dim
        once = 2 * matrices * (prompts + drawn) + 2 * model.lm_head.weight.numel() * drawn + 4 * heads * keys
        assert work.flop == pytest.approx(once * (4 if work.train else 1), rel=1e-12)


def test_parity_claims_are_those_of_the_result_files():
    text = (ROOT / "docs" / "performance.md").read_text()
    smol = json.loads(newest("smollm2_parity_*.json").read_text())
    assert f"{smol['equal']} of {smol['prompts']} prompts, {smol['new_tokens']} tokens each" in text
    words = json.loads(newest("tokenizer_parity_*.json").read_text())
    assert words["equal_ids"] == words["round_trips"] == words["texts"]
    assert f"{words['texts']:,} of {words['texts']:,} medical texts, {words['chinese']} of them Chinese" in text


def test_every_trap_has_a_test_of_its_number_or_a_reason():
    """docs/traps.md names T1 to T42 in order, and tests that exist; only T31 is a reason without a test."""
    rows = re.findall(r"^\| T(\d+) \| (.+) \| (.+) \|$", (ROOT / "docs" / "traps.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 43))
    there = set(re.findall(r"def (test_\w+)\(", "".join(p.read_text() for p in (ROOT / "tests").rglob("*.py"))))
    for number, _, found in rows:
        named = re.findall(r"`(test_\w+)`", found)
        assert set(named) <= there, set(named) - there
        assert any(f"T{number}_" in name for name in named) or (number == "31" and found.startswith("cannot occur"))


def test_the_table_of_the_large_graph_is_that_of_the_newest_measurement():
    assert graph.markdown(json.loads(newest("graph_*.json").read_text())) in (ROOT / "docs" / "data.md").read_text()


def test_the_table_of_the_extraction_is_that_of_the_newest_measurement():
    text = (ROOT / "docs" / "data.md").read_text()
    for part in json.loads(newest("extract_*.json").read_text()):
        shares = [part[name] for name in ("precision", "recall")]
        cells = [f"{100 * s['rate']:.1f} [{100 * s['low']:.1f}, {100 * s['high']:.1f}] ({s['right']} of {s['n']})"
                 for s in shares]
        assert f"| {part['part']} ({part['pages']}) | {cells[0]} | {cells[1]} |" in text


def test_the_table_of_supervised_steps_is_that_of_the_newest_measurement():
    results = json.loads(newest("sft_*.json").read_text())
    text = (ROOT / "docs" / "performance.md").read_text()
    assert side_by_side.sft_markdown(results) in text and f"\n{side_by_side.made(results)}; TRL" in text
    assert [r["workload"] for r in results] == ["equal", "ragged", "ragged_packed"]
    assert all(r["gradient_difference"] < 1e-5 and r["ratio_low"] <= r["ratio"] <= r["ratio_high"] for r in results)


def test_the_table_of_refined_traces_is_that_of_the_newest_measurement():
    result = json.loads(newest("refined_*.json").read_text())
    assert refined.markdown(result) in (ROOT / "docs" / "cold_start.md").read_text()
    assert result["seeds"] == 3


def test_the_table_of_copies_and_alarms_is_that_of_the_newest_measurement():
    results = json.loads(newest("contamination_*.json").read_text())["results"]
    assert contamination.markdown(results) in (ROOT / "docs" / "data.md").read_text()
    assert all(r["called"] == r["n"] == 100 for r in results if r["what"].startswith("planted"))
    assert results[0]["n"] == 10_000 and results[0]["high"] < 0.01


def test_the_evaluations_tables_are_those_of_the_newest_measurement():
    result, text = json.loads(newest("evaluation_*.json").read_text()), (ROOT / "docs" / "evaluation.md").read_text()
    smollm2 = result["smollm2"]
    notes = paper.differences({row["benchmark"]: row["n"] for row in smollm2["rows"]})
    assert tables.score_markdown(smollm2["rows"], smollm2["averages"], 0.95, notes) in text
    assert compare.table3(result["table3"], 0.95) in text
    assert compare.paired_markdown(result["paired"], 0.95) in text
    assert robust.markdown(result["robust"]) in text and votes.markdown(result["votes"]) in text


def test_the_kills_and_the_soak_are_those_of_the_newest_measurement():
    text = (ROOT / "docs" / "reliability.md").read_text()
    killed, soaked = (json.loads(newest(name).read_text()) for name in ("kills_*.json", "soak_*.json"))
    assert kills.markdown(killed) in text and soak.markdown(soaked) in text
    living = sum(one["stage"] != "after the end" for each in killed["each"] for one in each["kills"])
    assert living >= 200 and killed["in_a_save"] >= 50
    assert killed["not_bit_identical"] == killed["not_ended"] == 0
    assert soaked["steps"] >= 5000 and abs(soaked["growth"]) < 0.05
