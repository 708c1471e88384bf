"""Tests for words, grams, edit distance and what counts as the same text."""

import random

from bank import item

from minifleming.extras.curate.text import (
    answer_key,
    character_grams,
    distance,
    exact_key,
    grams,
    ideograph,
    longest_run,
    mask_numbers,
    plain,
    words,
)


def test_words():
    for text, found in (
            ("Na+ is 140 mEq/L, T-cells", ["na", "+", "is", "140", "meq", "l", "t", "cells"]),
            ("血压高 120/80", ["血", "压", "高", "120", "80"]), ("１２％ ﬁbre", ["12", "%", "fibre"]),
            ("1.5 mg, 1,000 IU.", ["1.5", "mg", "1,000", "iu"]), (" ., ;", []), ("", []),
            ("Which is true:-", ["which", "is", "true"])):
        assert words(text) == found


def test_signs_with_a_meaning_make_texts_different():
    for a, b in (("Rh+", "Rh-"), ("1.5", "15"), ("< 5", "> 5"), ("-5", "5"), ("1,2", "12"),
                 ("ER+/PR-", "ER+/PR+"), ("↑ K", "↓ K"), ("10%", "10")):
        assert plain(a) != plain(b)


def test_case_punctuation_and_spaces_have_no_effect():
    for a, b in (("Aspirin", "aspirin."), ("T-cell", "T cell"), ("vitamin  C\n", "Vitamin C"),
                 ("（甲）", "(甲)"), ("Which is true -", "which is true:")):
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


def test_an_ideograph_is_one_character():
    assert [ideograph(word) for word in words("血压 high 5 +")] == [True, True, False, False, False]


def test_distance():
    for a, b, limit, found in (("abc", "abc", 0, 0), ("abc", "abd", 1, 1), ("abc", "ab", 1, 1),
                               ("abc", "xbcd", 2, 2), ("abc", "cba", 1, 2), ("", "abc", 5, 3),
                               ("abcdef", "a", 2, 3), ("abc", "xabc", 0, 1)):
        assert distance(list(a), list(b), limit) == found


def test_distance_against_the_whole_table():
    rng = random.Random(0)
    for _ in range(300):
        a, b = ([rng.choice("ab") for _ in range(rng.randint(0, 8))] for _ in range(2))
        table = {(i, j): i + j for i in range(9) for j in range(9)}
        for i, x in enumerate(a, 1):
            for j, y in enumerate(b, 1):
                table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (x != y))
        for limit in range(9):
            assert distance(a, b, limit) == min(table[len(a), len(b)], limit + 1)


def test_the_longest_run():
    assert longest_run([1, 2, 5, 6, 7, 9]) == [5, 6, 7] and longest_run([4]) == [4] and longest_run([1, 3]) == [1]
