"""Laws of extras/numbers/guidelines.py: what a snippet asks for, what it forbids, and which files are refused."""

from __future__ import annotations

import time

import pytest

from minifleming.extras.numbers.guidelines import Snippet, agrees, read_guidelines
from minifleming.run.errors import BadInput

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


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_a_file_is_read(file, ends, bom):
    text = bom + HEADER + ROW + "\n" + "x\ta\t\tb \"c\n"
    assert read_guidelines(file(text.replace("\n", ends))) == (
        Snippet("w", ("warfarin", "pregnan"), ("avoid", "contraindicated"), ("warfarin is safe", "start warfarin")),
        Snippet("x", ("a",), (), ('b "c',)))


@pytest.mark.parametrize("text, line, reason", [
    ("", 1, "the header must be"),
    ("id,when,say,never\n", 1, "the header must be"),
    (HEADER, None, "no snippets"),
    (HEADER + "\n \t \n", None, "no snippets"),
    (HEADER + ROW + "x\ta\tb\n", 3, "3 cells, not 4"),
    (HEADER + "\n" + ROW.replace("\n", "\tmore\n"), 3, "5 cells, not 4"),
    (HEADER + "x\t ; \tb\tc\n", 2, "must not be empty"),
    (HEADER + "x\ta\t\t;\n", 2, "must not be empty"),
    (HEADER + "\ta\tb\tc\n", 2, "must not be empty"),
    (HEADER + ROW + ROW, 3, "is on an earlier line"),
    (HEADER.encode() + b"x\ta\t\xff\t\n", None, "not UTF-8"),
])
def test_a_bad_row_is_refused_with_its_line(file, text, line, reason):
    path = file(text)
    with pytest.raises(BadInput) as error:
        read_guidelines(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ") and reason in str(error.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput):
        read_guidelines(tmp_path / "none.tsv")
    with pytest.raises(BadInput):
        read_guidelines(tmp_path)


@pytest.mark.parametrize("text, fine", [
    ("start warfarin", False),
    ("We START\n warfarin", True),  # two lines are two clauses
    ("Start   Warfarin today", False),
    ("restart warfarin", True),
    ("do not start warfarin", True),
    ("don't start warfarin", True),
    ("never start warfarin", True),
    ("avoid heparin, start warfarin", False),
    ("avoid heparin; do not start warfarin", True),
    ("this is not fever but start warfarin", False),
    ("do not start warfarin. Later start warfarin", False),
    ("it is contraindicated to start warfarin", True),
    ("a note: start warfarin", False),
    ("stop heparin and start warfarin", False),
    ("nothing else, so start warfarin", False),
    ("start warfarin without delay", False),
    ("warfarin is safe", False),
    ("warfarin is not safe", True),
])
def test_what_is_never_said(text, fine):
    assert agrees(text, "warfarin?", [NEVER]) is fine


@pytest.mark.parametrize("text, known, fine", [
    ("avoid it", "warfarin in pregnancy", True),
    ("AVOIDED", "Warfarin, pregnant", True),
    ("unavoidable", "warfarin in pregnancy", False),
    ("it is not contraindicated", "warfarin in pregnancy", False),
    ("it isn't contraindicated", "warfarin in pregnancy", False),
    ("it is not rare, and contraindicated", "warfarin in pregnancy", True),
    ("it is not contraindicated here, yet avoid it", "warfarin in pregnancy", True),
    ("nothing", "warfarin in pregnancy", False),
    ("nothing", "warfarin", None),
    ("a pregnant woman", "warfarin", False),
    ("nothing", "impregnant warfarin", None),
    ("avoid", "warfarin", None),
])
def test_what_must_be_said(text, known, fine):
    assert agrees(text, known, [SAY]) is fine


@pytest.mark.parametrize("text, fine", [("应禁用，改肝素", True), ("可使用华法林，而非肝素", False),
                                        ("不使用华法林，用肝素", True), ("应使用华法林和肝素", False), ("休息", False)])
def test_chinese_has_no_blanks_to_mark_where_words_begin(text, fine):
    assert agrees(text, "妊娠患者能否用华法林", [CHINESE]) is fine


def test_each_snippet_that_applies_must_be_kept_and_the_others_do_not_matter():
    other = Snippet("o", ("insulin",), ("glucose",), ())
    assert agrees("avoid it", "warfarin, pregnancy", [NEVER, SAY, other]) is True
    assert agrees("avoid; start warfarin", "warfarin, pregnancy", [SAY, NEVER]) is False
    assert agrees("rest", "insulin, warfarin", [NEVER, other]) is False
    assert agrees("rest", "insulin, warfarin", []) is None


def test_words_are_no_patterns():
    assert agrees("a.c (d", "x+y", [Snippet("p", ("x+y",), ("(d",), ("abc",))]) is True
    assert agrees("anything", "xxy", [Snippet("p", ("x+y",), ("(d",), ())]) is None


@pytest.mark.parametrize("unit", [
    "start warfarin ", "not start warfarin ", "not ", ",", "start", "not start warfarin,",
])
def test_a_megabyte_is_read_in_linear_time(unit):
    text = "warfarin pregnan " + unit * (1_000_000 // len(unit))
    start = time.process_time()
    agrees(text, text, [NEVER, SAY])
    assert time.process_time() - start < 2
