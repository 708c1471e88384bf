"""Tests for model votes: reading completions, verifying labels and assigning tiers."""

import copy
import json
from pathlib import Path

import pytest
from bank import item

import minifleming
from minifleming.extras.curate.votes import (
    by_pass_rate,
    labels_step,
    read_votes,
    tiers_step,
    vote,
    without_end,
)
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rods.item import TIERS
from minifleming.run.errors import BadInput

E, M, D = TIERS
RIGHT = "<think>because</think><answer>A</answer>"


def line(name="a", sample=0, text=RIGHT + "<|im_end|>", finish="stop") -> str:
    record = {"id": name, "sample": sample, "text": text, "finish_reason": finish}
    return json.dumps({**record, "prompt_ids": [], "completion_ids": [], "logprobs": []}) + "\n"


def test_a_vote_is_a_strictly_parsed_letter():
    wrong = []
    for text, finish, letter in (
            (RIGHT + "<|im_end|>", "stop", "A"), (RIGHT + "</s>", "stop", "A"),
            (RIGHT, "stop", "A"), (RIGHT + "<|end_of_text|>", "stop", "A"),
            (RIGHT + "\n<eos>", "stop", "A"), (RIGHT, "length", "-"),
            (RIGHT + "<|im_end|>", "length", "-"), (RIGHT + " because<|im_end|>", "stop", "-"),
            (RIGHT + "!", "stop", "-"), (RIGHT + "<|im_end|><|im_end|>", "stop", "-"),
            (RIGHT + "<a b>", "stop", "-"), (RIGHT.replace("A", "E"), "stop", "-"),
            ("<answer>A</answer><|im_end|>", "stop", "-"), ("", "stop", "-"),
            (RIGHT + RIGHT + "<|im_end|>", "stop", "-"), (RIGHT + "<x> y <z>", "stop", "-")):
        if vote(text, finish, "ABCD") != letter:
            wrong.append((text, finish))
    assert not wrong


def test_the_end_token_of_the_tiny_tokenizer_is_removed():
    tokenizer = Tokenizer(Path(minifleming.__file__).parent / "assets" / "tiny")
    ids = [*tokenizer.encode(RIGHT), tokenizer.end_ids[0]]
    text = tokenizer.decode(ids)
    assert text != tokenizer.decode(ids[:-1])
    assert without_end(text) == tokenizer.decode(ids[:-1])
    assert vote(text, "stop", "ABCD") == "A"


def test_votes_are_sorted_by_sample(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text(line("a", 1, RIGHT.replace("A", "B")) + line("other") + line("a", 0)
                    + line("a", 2, "?"))
    assert read_votes(path, [item("a"), item("b")]) == {"a": ["A", "B", "-"]}


def test_bad_votes_are_refused(tmp_path):
    path = tmp_path / "votes.jsonl"
    for text, reason in (("{}\n", "'id' must be str"), (line(sample="0"), "'sample' must be int"),
                         (line(sample=True), "'sample'"), (line() + line(), "twice"),
                         (line(text=None), "'text'"), (line(finish=1), "'finish_reason'"),
                         ("", "no vote is on any of the 1 items"), ("[]\n", "not a JSON object"),
                         (line("other") + line("third"), "no vote is on any of the 1 items"),
                         ("{\n", "not valid JSON")):
        path.write_text(text)
        with pytest.raises(BadInput, match=reason):
            read_votes(path, [item("a")])


def test_an_item_without_a_right_answer_in_five_goes_to_quarantine():
    items = [item("none"), item("one"), item("four"), item("few"), item("unasked")]
    votes = {"none": list("BBC-B"), "one": list("BBABB"), "four": list("AAAAB"),
             "few": list("BBBB")}
    before = copy.deepcopy((items, votes))
    kept, [dropped] = labels_step(items, votes)
    assert (items, votes) == before
    assert [i.id for i in kept] == ["one", "four", "few", "unasked"]
    assert dropped.quarantined and dropped.item.id == "none"
    assert dropped.evidence == {"label": "A", "chosen": {"-": 1, "B": 3, "C": 1}}
    facts = {i.id: i.provenance["lineage"][-1] for i in kept}
    assert facts["one"] == {"step": "labels", "verified": True, "right": 1, "votes": 5}
    assert facts["few"] == {"step": "labels", "verified": False, "votes": 4}
    assert not facts["unasked"]["verified"]


def test_the_number_of_samples_is_an_argument():
    for samples, kept in ((5, False), (4, False), (6, True)):
        found, _ = labels_step([item("a")], {"a": list("BBBBB")}, samples)
        assert bool(found) is kept


def test_pass_rates_at_the_thresholds():
    for rate, tier in ((1, E), (0.75, E), (0.7499, M), (0.2501, M), (0.25, D), (0, D)):
        assert by_pass_rate(rate) == tier


def test_the_pass_rate_precedes_the_structure_and_both_are_kept():
    items = [item("rate", tier=D), item("structure", tier=D), item("none"), item("new")]
    votes = {"rate": list("AAAAB"), "structure": [], "new": list("AABB")}
    before = copy.deepcopy((items, votes))
    kept, left = tiers_step(items, votes)
    assert (items, votes) == before and left == []
    assert [i.tier for i in kept] == [E, D, "", M]
    assert [i.provenance["tiers"] for i in kept] == [
        {"pass rate": E, "structure": D}, {"structure": D}, {}, {"pass rate": M}]
    assert [i.provenance["lineage"][-1]["by"] for i in kept] == [
        "pass rate", "structure", "", "pass rate"]


def test_a_second_pass_does_not_take_an_assigned_tier_for_structure():
    once, _ = tiers_step([item("a")], {"a": list("AAAA")})
    twice, _ = tiers_step(once, {"a": list("BBBB")})
    assert twice[0].provenance["tiers"] == {"pass rate": D} and twice[0].tier == D
    again, _ = tiers_step(once, {})
    assert again[0].tier == E and again[0].provenance["tiers"] == {"pass rate": E}
