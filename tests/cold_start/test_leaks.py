"""Tests for cold_start/leaks.txt: phrases of a teacher that was given the answer are found, a
clinician's sentences are not."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from minifleming.cold_start.checks import LEAKS, leaks

DATA = Path(__file__).parents[1] / "data" / "leaks.tsv"


def sentences(*kinds: str) -> list[str]:
    rows = [line.split("\t") for line in DATA.read_text(encoding="utf-8").splitlines()[1:]]
    return [text for kind, text in rows if kind in kinds]


def patterns() -> list[str]:
    lines = LEAKS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_leaks_are_found():
    """A sentence that admits the answer was given: on its own, in a paragraph, in lower case."""
    given = sentences("given")
    assert len(given) >= 30
    missed = [text for text in given if not leaks(text)]
    missed += [text for text in given if not leaks(f"Fever is seen. {text} So it is lupus.")]
    missed += [text for text in given if not leaks(text.lower())]
    missed += [text for text in sentences("labelled") if not leaks(text)]
    assert missed == []


def test_clinical_sentences_are_no_leaks():
    """One by one, and joined: no pattern may match across two of them."""
    clinical = sentences("clinical")
    assert len(clinical) >= 30
    assert [text for text in clinical if leaks(text)] == []
    assert not leaks("\n".join(clinical)) and not leaks(" ".join(clinical))


def test_every_pattern_is_needed_and_has_no_unbounded_repetition():
    faults = []
    texts = sentences("given", "labelled")
    for pattern in patterns():
        others = "|".join(other for other in patterns() if other != pattern)
        if all(re.search(others, text, re.IGNORECASE) for text in texts):
            faults.append(f"no sentence needs {pattern}")
        if re.search(r"(?<!\\)[*+](?!\?)", pattern):
            faults.append(f"unbounded repetition in {pattern}")
    assert faults == []


@pytest.mark.slow
@pytest.mark.parametrize("unit", [
    "the given correct ", "answer is already ", "as ", "told that ", "we ", "the prompt ", "a", " ",
    "given to me ", "答案已", "已知的", "i was told ", "the ", "not to "])
def test_leaks_are_searched_in_linear_time(unit):
    leaks(unit)
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    leaks(text)
    assert time.process_time() - start < 1
