"""Tests of evaluation/evaluate.py: every item has a record, a killed run loses none, other runs' files stay."""

from __future__ import annotations

import dataclasses
import json

import pytest

from minifleming.evaluation import evaluate as evaluation
from minifleming.evaluation.evaluate import Decoding, evaluate, evaluate_into, read_records, run_fingerprint
from minifleming.evaluation.grade import grade
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, model_folder
from minifleming.rods.readers import load_graph
from minifleming.run.config import Config
from minifleming.run.errors import BadInput
from tests.rods.items import synthesize

GRAPH = load_graph("embedded")


@pytest.fixture(scope="module")
def items():
    return synthesize(GRAPH, 12, [1, 2], seed=2)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(model_folder("tiny"))


@pytest.fixture(scope="module")
def model():
    return load_model(model_folder("tiny"), "float32", "cpu", True)


@pytest.fixture
def cfg():
    cfg = Config()
    cfg.eval.max_new_tokens, cfg.rl.max_num_seqs = 8, 4
    return cfg


def test_a_record_an_item_in_the_order_of_the_items(model, tokenizer, items, cfg):
    records = evaluate(model, tokenizer, items, cfg, name="x", graph=GRAPH)
    assert [record["item"] for record in records] == [item.id for item in items]
    for record, item in zip(records, items):
        found = grade(record["text"], item, record["finished"])
        assert (record["strict"], record["lenient"], record["kind"]) == (found.strict, found.lenient, found.kind)
        assert (record["answer"], record["options"], record["hops"]) == (item.answer, len(item.options), item.hops)
        assert 0 < record["tokens"] <= 8 and record["source"] == item.source and record["rarity"] == item.rarity
    backwards = evaluate(model, tokenizer, items[::-1], cfg, name="x", graph=GRAPH)
    assert backwards[::-1] == records


def test_a_prompt_without_room_counts_as_truncated_and_the_others_are_asked(model, tokenizer, items, cfg):
    long = dataclasses.replace(items[0], id="long", question="fever and rash " * 2000)
    records = evaluate(model, tokenizer, [items[0], long, items[1]], cfg, name="x")
    assert [record["item"] for record in records] == [items[0].id, "long", items[1].id]
    assert (records[1]["kind"], records[1]["strict"], records[1]["tokens"]) == ("truncated", None, 0)
    assert records[::2] == evaluate(model, tokenizer, items[:2], cfg, name="x")


@pytest.mark.parametrize("kept", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 11))])
def test_a_killed_run_goes_on_and_asks_only_what_is_missing(model, tokenizer, items, cfg, tmp_path, kept, monkeypatch):
    """What another rank had ended counts too; the torn last line is asked again."""
    identity = run_fingerprint(items, tokenizer, cfg, "x", "tiny", "0")
    whole = evaluate_into(tmp_path / "a.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint=identity)
    assert read_records(tmp_path / "a.jsonl") == whole and not list(tmp_path.glob("*.part*"))
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b.jsonl.settings.json").write_text((tmp_path / "a.jsonl.settings.json").read_text())
    (tmp_path / "b.jsonl.part0").write_text("".join(lines[: kept // 2]) + lines[-1][:20])
    (tmp_path / "b.jsonl.part3").write_text("".join(lines[kept // 2 : kept]))
    asked = []
    plain = evaluation.generate_stream
    monkeypatch.setattr(evaluation, "generate_stream", lambda model, prompts, keys, params: asked.extend(keys) or plain(
        model, prompts, keys, params))
    again = evaluate_into(tmp_path / "b.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint=identity)
    assert again == whole and (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert asked == [item.id for item in items[kept:]] and not list(tmp_path.glob("*.part*"))
    asked.clear()
    assert evaluate_into(tmp_path / "b.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint=identity) == whole
    assert asked == [], "what is there is read"


def test_other_items_prompts_weights_or_decoding_are_another_run(model, tokenizer, items, cfg, tmp_path):
    first = run_fingerprint(items, tokenizer, cfg, "x", "tiny", "0")
    evaluate_into(tmp_path / "a.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint=first)
    before = (tmp_path / "a.jsonl").read_bytes()
    longer = dataclasses.replace(cfg, eval=dataclasses.replace(cfg.eval, max_new_tokens=9))
    moved = [dataclasses.replace(items[0], answer="B" if items[0].answer == "A" else "A"), *items[1:]]
    for other, field in [(run_fingerprint(items, tokenizer, longer, "x", "tiny", "0"), "max_new_tokens"),
                         (run_fingerprint(items, tokenizer, cfg, "x", "tiny", "1"), "weights_sha256"),
                         (run_fingerprint(moved, tokenizer, cfg, "x", "tiny", "0"), "items_sha256")]:
        assert [name for name in first if first[name] != other[name]] == [field]
        with pytest.raises(BadInput, match=field):
            evaluate_into(tmp_path / "a.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint=other)
    assert (tmp_path / "a.jsonl").read_bytes() == before
    assert first["chance"] == pytest.approx(1 / 4) and first["n"] == 12


def test_a_damaged_part_is_refused(model, tokenizer, items, cfg, tmp_path):
    (tmp_path / "a.jsonl.part0").write_text('{"no": "item"}\n')
    with pytest.raises(BadInput, match="part0:1: no evaluation record"):
        evaluate_into(tmp_path / "a.jsonl", model, tokenizer, items, cfg, name="x", run_fingerprint={"a": 1})
    assert json.loads((tmp_path / "a.jsonl.part0").read_text()) == {"no": "item"}


def test_samples_are_in_a_row_and_a_half_sampled_item_is_asked_again(model, tokenizer, items, cfg, tmp_path):
    how = {"name": "x", "run_fingerprint": {"samples": 3}, "decoding": Decoding(3, 1.0)}
    whole = evaluate_into(tmp_path / "a.jsonl", model, tokenizer, items[:4], cfg, **how)
    assert [(r["item"], r["sample"]) for r in whole] == [(item.id, s) for item in items[:4] for s in range(3)]
    assert len({r["text"] for r in whole if r["item"] == items[0].id}) > 1
    lines = (tmp_path / "a.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b.jsonl.part0").write_text("".join(lines[:5]))
    again = evaluate_into(tmp_path / "b.jsonl", model, tokenizer, items[:4], cfg, **how)
    assert again == whole
