"""Words, grams and what counts as the same text."""

import pytest
from bank import item

from minifleming.extras.curate.text import (
    answer_key,
    character_grams,
    cut,
    exact_key,
    grams,
    ideograph,
    mask_numbers,
    plain,
    words,
)


@pytest.mark.parametrize("text, found", [
    ("Na+ is 140 mEq/L, T-cells", ["na", "+", "is", "140", "meq", "l", "t", "cells"]),
    ("血压高 120/80", ["血", "压", "高", "120", "80"]),
    ("１２％ ﬁbre", ["12", "%", "fibre"]),
    ("1.5 mg, 1,000 IU.", ["1.5", "mg", "1,000", "iu"]),
    ("Which is true:-", ["which", "is", "true"]),
    ("", []), (" ., ;", []),
])
def test_words(text, found):
    assert words(text) == found


@pytest.mark.parametrize("a, b", [("Rh+", "Rh-"), ("1.5", "15"), ("< 5", "> 5"), ("-5", "5"), ("ER+/PR-", "ER+/PR+"),
                                  ("↑ K", "↓ K"), ("10%", "10"), ("1,2", "12")])
def test_signs_with_a_meaning_keep_options_apart(a, b):
    assert plain(a) != plain(b)


@pytest.mark.parametrize("a, b", [("Aspirin", "aspirin."), ("T-cell", "T cell"), ("vitamin  C\n", "Vitamin C"),
                                  ("（甲）", "(甲)"), ("Which is true -", "which is true:")])
def test_spelling_without_a_meaning_does_not(a, b):
    assert plain(a) == plain(b)


def test_grams_and_their_number():
    assert grams(list("abcd"), 3) == [("a", "b", "c"), ("b", "c", "d")] and grams(["a"], 2) == []
    assert character_grams(["ab", "c"], 5) == {" ab c", "ab c "} and character_grams(["a"], 5) == {" a "}


def test_numbers_are_masked_and_words_with_digits_are_not():
    assert mask_numbers(["45", "1.5", "cd4", "b12", "4th"]) == ["0", "0", "cd4", "b12", "0th"]


def test_the_key_knows_question_options_and_answer():
    a = item(options=("Iron", "Zinc", "Tin"), answer="A")
    assert exact_key(a) == exact_key(item(options=("zinc.", "TIN", "iron"), answer="C"))
    assert answer_key(a) == answer_key(item(options=("zinc.", "TIN", "iron"), answer="C"))
    assert exact_key(a) != exact_key(item(options=("Iron", "Zinc", "Lead"), answer="A"))
    assert exact_key(a) != exact_key(item(question="Which metal?", options=("Iron", "Zinc", "Tin")))


def test_a_cut_text_is_one_line_of_at_most_so_many_characters():
    assert cut("a\nb") == "a b" and len(cut("x" * 500)) == 120 and cut("x" * 120) == "x" * 120


def test_an_ideograph_is_one_character():
    assert [ideograph(word) for word in words("血压 high 5 +")] == [True, True, False, False, False]
