"""Votes: what a completion says, and what follows from five of them."""

import copy
import json

import pytest
from bank import item

from minifleming.extras.curate.labels import labels_step, read_votes, vote, without_end
from minifleming.run.errors import BadInput

RIGHT = "<think>because</think><answer>A</answer>"


def line(name="a", sample=0, text=RIGHT + "<|im_end|>", finish="stop", **more) -> str:
    return json.dumps({"id": name, "sample": sample, "text": text, "finish_reason": finish, "prompt_ids": [],
                       "completion_ids": [], "logprobs": [], **more}) + "\n"


@pytest.mark.parametrize("text, finish, letter", [
    (RIGHT + "<|im_end|>", "stop", "A"), (RIGHT + "</s>", "stop", "A"), (RIGHT, "stop", "A"),
    (RIGHT + "<|end_of_text|>", "stop", "A"), (RIGHT + "\n<eos>", "stop", "A"), (RIGHT, "length", "-"),
    (RIGHT + "<|im_end|>", "length", "-"), (RIGHT + " because<|im_end|>", "stop", "-"), (RIGHT + "!", "stop", "-"),
    (RIGHT + "<|im_end|><|im_end|>", "stop", "-"), (RIGHT + "<a b>", "stop", "-"),
    (RIGHT.replace("A", "E"), "stop", "-"),
    ("<answer>A</answer><|im_end|>", "stop", "-"), ("", "stop", "-"), (RIGHT + RIGHT + "<|im_end|>", "stop", "-"),
    (RIGHT + "<x> y <z>", "stop", "-"),
])
def test_a_vote_is_a_strictly_parsed_letter(text, finish, letter):
    assert vote(text, finish, "ABCD") == letter


def test_the_end_token_of_our_tokenizer_is_taken_off():
    from pathlib import Path

    import minifleming
    from minifleming.lm.tokenizer import Tokenizer
    tokenizer = Tokenizer(Path(minifleming.__file__).parent / "assets" / "tiny")
    ids = [*tokenizer.encode(RIGHT), tokenizer.end_ids[0]]
    text = tokenizer.decode(ids)
    assert text != tokenizer.decode(ids[:-1]) and without_end(text) == tokenizer.decode(ids[:-1])
    assert vote(text, "stop", "ABCD") == "A"


def test_votes_are_read_by_item_in_the_order_of_the_samples(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text(line("a", 1, RIGHT.replace("A", "B")) + line("other") + line("a", 0) + line("a", 2, "?"))
    assert read_votes(path, [item("a"), item("b")]) == {"a": ["A", "B", "-"]}


def test_votes_on_other_items_are_refused(tmp_path):
    path = tmp_path / "votes.jsonl"
    path.write_text(line("other") + line("third"))
    with pytest.raises(BadInput, match="no vote is on any of the 2 items; the first is on 'other'"):
        read_votes(path, [item("a"), item("b")])


@pytest.mark.parametrize("text, reason", [
    ("{}\n", "'id' must be str"), (line(sample="0"), "'sample' must be int"), (line(sample=True), "'sample'"),
    (line() + line(), "twice"), (line(text=None), "'text'"), (line(finish=1), "'finish_reason'"), ("", "no votes"),
    ("[]\n", "not a JSON object"), ("{\n", "not valid JSON"),
])
def test_bad_votes_are_refused(tmp_path, text, reason):
    path = tmp_path / "votes.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=reason):
        read_votes(path, [item("a")])


def test_none_of_five_goes_to_quarantine_with_the_letters():
    items = [item("none"), item("one"), item("four"), item("few"), item("unasked")]
    votes = {"none": list("BBC-B"), "one": list("BBABB"), "four": list("AAAAB"), "few": list("BBBB")}
    before = copy.deepcopy((items, votes))
    kept, left = labels_step(items, votes)
    assert (items, votes) == before and [i.id for i in kept] == ["one", "four", "few", "unasked"]
    [d] = left
    assert d.quarantined and d.item.id == "none" and d.evidence == {"label": "A", "chosen": {"-": 1, "B": 3, "C": 1}}
    facts = {i.id: i.provenance["lineage"][-1] for i in kept}
    assert facts["one"] == {"step": "labels", "verified": True, "right": 1, "votes": 5}
    assert facts["few"] == {"step": "labels", "verified": False, "votes": 4} and not facts["unasked"]["verified"]


@pytest.mark.parametrize("samples, least, kept", [(5, 1, True), (5, 2, True), (5, 3, False), (6, 3, True),
                                                  (2, 3, False)])
def test_the_counts_are_arguments(samples, least, kept):
    assert bool(labels_step([item("a")], {"a": list("AABBB")}, samples=samples, least=least)[0]) is kept
