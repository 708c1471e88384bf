"""Tests for guideline snippets: required words, forbidden phrases, and bad files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from minifleming.extras.numbers.guidelines import Snippet, agrees, read_guidelines
from minifleming.run.errors import BadInput

CASES = json.loads((Path(__file__).parents[2] / "data" / "guidelines.json").read_text("utf-8"))
HEADER = "id\twhen\tsay\tnever\n"
ROW = "w\tWarfarin; pregnan\tavoid; contraindicated\twarfarin is safe; start  warfarin\n"
NEVER = Snippet("n", ("warfarin",), (), ("start warfarin", "warfarin is safe"))
SAY = Snippet("s", ("warfarin", "pregnan"), ("avoid", "contraindicated"), ())
CHINESE = Snippet("c", ("华法林", "妊娠"), ("禁用", "肝素"), ("使用华法林",))


@pytest.fixture
def file(tmp_path):
    def write(text: str | bytes):
        path = tmp_path / "guidelines.tsv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
    return write


def test_a_file_is_read_with_any_line_ends(file):
    text = HEADER + ROW + "\n" + "x\ta\t\tb \"c\n"
    expected = (Snippet("w", ("warfarin", "pregnan"), ("avoid", "contraindicated"),
                        ("warfarin is safe", "start warfarin")),
                Snippet("x", ("a",), (), ('b "c',)))
    for mark in ("", "\ufeff"):
        for end in ("\n", "\r\n"):
            assert read_guidelines(file(mark + text.replace("\n", end))) == expected


def test_a_bad_row_is_refused_with_its_line(file):
    wrong = []
    for text, line, reason in (
            ("", 1, "the header must be"), ("id,when,say,never\n", 1, "the header must be"),
            (HEADER, None, "no snippets"), (HEADER + "\n \t \n", None, "no snippets"),
            (HEADER + ROW + "x\ta\tb\n", 3, "3 cells, not 4"),
            (HEADER + "\n" + ROW.replace("\n", "\tmore\n"), 3, "5 cells, not 4"),
            (HEADER + "x\t ; \tb\tc\n", 2, "must not be empty"),
            (HEADER + "x\ta\t\t;\n", 2, "must not be empty"),
            (HEADER + "\ta\tb\tc\n", 2, "must not be empty"),
            (HEADER + ROW + ROW, 3, "is on an earlier line"),
            (HEADER.encode() + b"x\ta\t\xff\t\n", None, "not UTF-8")):
        path = file(text)
        with pytest.raises(BadInput) as error:
            read_guidelines(path)
        place = f"{path}:{line}: " if line else f"{path}: "
        if not str(error.value).startswith(place) or reason not in str(error.value):
            wrong.append((text, str(error.value)))
    assert not wrong


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput):
        read_guidelines(tmp_path / "none.tsv")
    with pytest.raises(BadInput):
        read_guidelines(tmp_path)


def test_phrases_that_must_not_be_said():
    """(reasoning, expected verdict)"""
    wrong = [text for text, fine in CASES["never"] if agrees(text, "warfarin?", [NEVER]) is not fine]
    assert not wrong


def test_words_that_must_be_said():
    """(reasoning, question, expected verdict)"""
    wrong = []
    for text, known, fine in CASES["say"]:
        if agrees(text, known, [SAY]) is not fine:
            wrong.append((text, known))
    assert not wrong


def test_chinese_words_are_found_without_spaces():
    wrong = []
    for text, fine in CASES["chinese"]:
        if agrees(text, "妊娠患者能否用华法林", [CHINESE]) is not fine:
            wrong.append(text)
    assert not wrong


def test_each_snippet_that_applies_must_be_kept_and_the_others_do_not_matter():
    other = Snippet("o", ("insulin",), ("glucose",), ())
    assert agrees("avoid it", "warfarin, pregnancy", [NEVER, SAY, other]) is True
    assert agrees("avoid; start warfarin", "warfarin, pregnancy", [SAY, NEVER]) is False
    assert agrees("rest", "insulin, warfarin", [NEVER, other]) is False
    assert agrees("rest", "insulin, warfarin", []) is None


def test_words_are_no_patterns():
    assert agrees("a.c (d", "x+y", [Snippet("p", ("x+y",), ("(d",), ("abc",))]) is True
    assert agrees("anything", "xxy", [Snippet("p", ("x+y",), ("(d",), ())]) is None


@pytest.mark.slow
def test_a_megabyte_is_read_in_linear_time():
    for unit in ("start warfarin ", "not start warfarin ", "not ", ",", "start",
                 "not start warfarin,"):
        text = "warfarin pregnan " + unit * (1_000_000 // len(unit))
        start = time.process_time()
        agrees(text, text, [NEVER, SAY])
        assert time.process_time() - start < 2
