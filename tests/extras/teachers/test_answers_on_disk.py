"""Tests for extras/teachers/answer_cache.py: answers are kept, cut lines dropped, bad lines refused."""

from __future__ import annotations

import json
import os
import threading

import pytest

from minifleming.extras.teachers.answer_cache import Answer, AnswerCache, digest
from minifleming.run.errors import BadInput

KEYS = [digest({"seed": n}) for n in range(40)]
GOOD = {"request": KEYS[0], "content": "a", "reasoning": "b", "finish": "stop", "prompt_tokens": 1,
        "completion_tokens": 2}


def answer(n: int) -> Answer:
    return Answer(f"é 中文 \n line {n} \u2028", f'"{n}"', "stop", n, 2 * n)


def filled(path, count: int) -> AnswerCache:
    answers = AnswerCache(path)
    for n in range(count):
        answers.add(KEYS[n], answer(n))
    return answers


def test_round_trip(tmp_path):
    filled(tmp_path / "folder" / "a", 5)
    again = AnswerCache(tmp_path / "folder" / "a")
    assert [again.get(key) for key in KEYS[:6]] == [*map(answer, range(5)), None]


def test_an_answer_is_on_disk_when_add_returns(tmp_path, monkeypatch):
    answers, synced = AnswerCache(tmp_path / "a"), []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((tmp_path / "a").read_bytes().count(b"\n")))
    for n in range(3):
        answers.add(KEYS[n], answer(n))
    assert synced == [1, 2, 3]


def test_the_digest_is_that_of_the_request_not_of_its_order():
    assert digest({"a": 1, "b": "é"}) == digest({"b": "é", "a": 1}) != digest({"a": 1, "b": "e"})


def test_the_first_of_two_answers_counts(tmp_path):
    answers = filled(tmp_path / "a", 1)
    answers.add(KEYS[0], answer(7))
    assert answers.get(KEYS[0]) == AnswerCache(tmp_path / "a").get(KEYS[0]) == answer(0)


def test_a_torn_last_line_is_cut_wherever_it_was_torn(tmp_path):
    filled(tmp_path / "whole", 3)
    data = (tmp_path / "whole").read_bytes()
    start = data[:-1].rfind(b"\n") + 1
    for end in range(start, len(data)):
        (tmp_path / "a").write_bytes(data[:end])
        answers = AnswerCache(tmp_path / "a")
        assert [answers.get(key) is not None for key in KEYS[:3]] == [True, True, False]
        assert (tmp_path / "a").read_bytes() == data[:start]
    answers.add(KEYS[2], answer(2))
    assert (tmp_path / "a").read_bytes() == data


@pytest.mark.parametrize("other", [b'{"item": "a"}\n{"item": "b"', b"notes", b'[\n{"request": 1}\n]', b'{"request": 3'])
def test_another_file_is_not_touched(other, tmp_path):
    (tmp_path / "a").write_bytes(other)
    with pytest.raises(BadInput):
        AnswerCache(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == other


@pytest.mark.parametrize("line", [
    b"not json", b"[1]", b"\xff", b'{"request": "12', json.dumps(GOOD | {"surplus": 1}).encode(),
    *(json.dumps({k: v for k, v in GOOD.items() if k != name}).encode() for name in GOOD),
    *(json.dumps(GOOD | change).encode() for change in (
        {"request": "12"}, {"request": KEYS[0].upper()}, {"content": None}, {"reasoning": 1}, {"finish": None},
        {"prompt_tokens": "1"}, {"completion_tokens": True}, {"prompt_tokens": 1.0}))])
def test_damage_in_the_middle_is_refused_with_file_and_line(line, tmp_path):
    path = tmp_path / "a"
    good = json.dumps(GOOD).encode() + b"\n"
    path.write_bytes(good + line + b"\n" + good)
    before = path.read_bytes()
    with pytest.raises(BadInput, match=f"{path}:2: "):
        AnswerCache(path)
    assert path.read_bytes() == before


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(BadInput, match="folder"):
        AnswerCache(tmp_path)


def test_threads_do_not_mix_their_lines(tmp_path):
    answers = AnswerCache(tmp_path / "a")
    long = "x" * 100_000
    threads = [threading.Thread(target=lambda k=k: answers.add(KEYS[k], Answer(long, "", "stop"))) for k in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(AnswerCache(tmp_path / "a").answers) == set(KEYS)


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are those of Unix")
def test_where_the_disk_is_full_no_half_line_stays(tmp_path):
    import resource

    answers, old = filled(tmp_path / "a", 2), resource.getrlimit(resource.RLIMIT_FSIZE)
    before = (tmp_path / "a").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, old[1]))
    try:
        with pytest.raises(OSError):
            answers.add(KEYS[2], answer(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert (tmp_path / "a").read_bytes() == before and answers.get(KEYS[2]) is None
    answers.add(KEYS[2], answer(2))
    assert len(AnswerCache(tmp_path / "a").answers) == 3
