"""Answers in a file: whole, resumable, the same whatever interrupted them, and never another run's."""

from __future__ import annotations

import json

import pytest

from minifleming.extras.chat import answers
from minifleming.extras.chat.answers import answer_all, resume
from minifleming.lm.sampler import SamplingParams
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.errors import BadInput

PROMPTS = {"b": [70, 71, 72], "a": [80], "c": [90, 91, 92, 93, 94]}
MADE = {"temperature": 1.0, "seed": 3}


@pytest.fixture
def write(tiny, tokenizer_folder, tmp_path):
    """(settings) -> the rows of the file after a run."""
    tokenizer = Tokenizer(tokenizer_folder)
    model = tiny(vocab_size=tokenizer.backend.get_vocab_size())

    def run(out=tmp_path / "answers.jsonl", prompts=PROMPTS, samples=3, made=MADE, done=lambda n: None):
        kept = resume(out, prompts, samples, made)
        params = SamplingParams(9, list(range(25)), samples=samples, seed=3, max_num_seqs=3)
        count = answer_all(model, tokenizer, prompts, out, params, kept, done)
        rows = [json.loads(line) for line in out.read_text().split("\n")[:-1]]
        assert count == len(rows)
        return rows

    return run


def test_the_file_holds_every_completion_in_order(write, tokenizer_folder):
    ended = []
    rows = write(done=ended.append)
    assert [(r["id"], r["sample"]) for r in rows] == [(name, s) for name in PROMPTS for s in range(3)]
    assert sum(ended) == 9
    for r in rows:
        assert set(r) == {"id", "sample", "prompt_ids", "completion_ids", "text", "logprobs", "finish_reason"}
        assert r["prompt_ids"] == PROMPTS[r["id"]] and len(r["logprobs"]) == len(r["completion_ids"]) <= 9
        assert r["text"] == Tokenizer(tokenizer_folder).decode(r["completion_ids"])
        assert r["finish_reason"] == ("stop" if r["completion_ids"][-1] < 25 else "length")
    assert {r["finish_reason"] for r in rows} == {"stop", "length"}


@pytest.mark.parametrize("lines, torn", [(0, ""), (1, ""), (4, '{"id": "b", "sam'), (9, "")])
def test_an_interrupted_run_goes_on(write, tmp_path, lines, torn):
    """Some lines are there, perhaps half of one more: what is missing is sampled, and the file is the same."""
    whole = write()
    out = tmp_path / "answers.jsonl"
    text = out.read_text().splitlines(keepends=True)
    out.write_text("".join(text[::-1][:lines]) + torn)
    assert write() == whole


def test_a_torn_line_is_gone_before_the_next_one_is_written(write, tmp_path):
    """Otherwise the next completion would be glued to half of another, and lost by a second kill."""
    write()
    out = tmp_path / "answers.jsonl"
    whole = out.read_bytes()
    out.write_bytes(whole + b'{"id": "b", "sam')
    assert len(resume(out, PROMPTS, 3, MADE)) == 9 and out.read_bytes() == whole


def test_a_killed_run_loses_no_finished_line(write, tmp_path, monkeypatch):
    plain = answers.generate_stream

    def killed(*args):
        for i, rows in enumerate(plain(*args)):
            yield rows
            if i == 9:
                raise KeyboardInterrupt

    whole, out = write(tmp_path / "whole.jsonl"), tmp_path / "answers.jsonl"
    monkeypatch.setattr(answers, "generate_stream", killed)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert 0 < len(out.read_text().splitlines()) < 9
    monkeypatch.undo()
    assert write() == whole


@pytest.mark.parametrize("change, word", [
    ({"made": MADE | {"seed": 4}}, "settings (seed)"),
    ({"prompts": PROMPTS | {"b": [1, 2]}}, ":1: is not a completion of these prompts"),
    ({"prompts": {"a": PROMPTS["a"]}}, ":1: is not a completion of these prompts"),
    ({"samples": 2}, ":3: is not a completion"),
])
def test_another_run_s_file_is_refused_and_kept(write, tmp_path, change, word):
    write()
    before = (tmp_path / "answers.jsonl").read_bytes()
    with pytest.raises(BadInput) as caught:
        write(**change)
    assert word in str(caught.value) and (tmp_path / "answers.jsonl").read_bytes() == before


def test_line_separators_inside_a_text_are_not_ends_of_lines(write, tmp_path):
    """U+2028, U+2029 and U+0085 stand in JSON as they are; only a line feed ends a line of the file."""
    prompts = {"x\u2028y\u2029z\u0085": [70, 71]}
    assert write(prompts=prompts) == write(prompts=prompts)


def test_settings_of_another_run_are_not_overwritten(write, tmp_path):
    (tmp_path / "answers.jsonl.settings.json").write_text('{"mine": 1}')
    with pytest.raises(BadInput, match="made with other settings"):
        write()
    assert (tmp_path / "answers.jsonl.settings.json").read_text() == '{"mine": 1}'


def test_a_file_of_someone_else_is_refused(write, tmp_path):
    (tmp_path / "answers.jsonl").write_text("my thesis\n")
    with pytest.raises(BadInput, match="not from a run of this command"):
        write()
    assert (tmp_path / "answers.jsonl").read_text() == "my thesis\n"
