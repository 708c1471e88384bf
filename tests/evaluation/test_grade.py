"""Tests of evaluation/grade.py: a table of completions with both readings, and invariances.

A row is (text, strict, lenient); the item of a table is its last argument. "." stands for "no label".
"""

from __future__ import annotations

import random
import time

import pytest

from minifleming.evaluation.grade import KINDS, Grade, grade, parse_lenient
from minifleming.rods.item import LABELS, Item


def item_of(*options: str) -> Item:
    return Item("i", "Which ?", dict(zip(LABELS, options)), "A")


DRUGS = item_of("aspirin", "Benign paroxysmal vertigo", "ibuprofen", "none of the above")
TEN = item_of(*(f"finding {n}" for n in "one two three four five six seven eight nine ten".split()))
JMED = item_of(*(f"选择{i}" for i in range(21)))
GERMS = item_of("S. aureus", "E. coli", "A. baumannii", "C. difficile", "B. cereus")
VITAMINS = item_of("vitamin C", "vitamin A", "vitamin D", "vitamin C and vitamin D")
TWINS = item_of("aspirin", "heparin", "Aspirin ", "warfarin")
PUBMED = item_of("yes", "no", "maybe")
NESTED = item_of("aspirin", "aspirin; heparin", "not enough data", "enough data")
NUMBERS = item_of("5", "-10", ".5", "10")
SIGNS = item_of("+", ")", "-", "iron (Fe)")
BLOOD = item_of("O", "A", "B", "AB")
WIDE = item_of("Ｔ３", "T4", "β-blocker", "HLA-B*57:01")

T = "<think>because</think>"

STRICT = [
    (f"{T}<answer>C</answer>", "C", "C"),
    (f"{T}<answer> C\n</answer>", "C", "C"),
    (f"\n{T}\n<answer>A</answer>\n", "A", "A"),
    (f"{T}<answer>c</answer>", ".", "C"),
    (f"{T}<answer>Ｃ</answer>", ".", "C"),  # full-width
    (f"{T}<answer>C.</answer>", ".", "C"),
    (f"{T}<answer>(C)</answer>", ".", "C"),
    (f"{T}<answer>( C )</answer>", ".", "C"),
    (f"{T}<answer>[C]</answer>", ".", "C"),
    (f"{T}<answer>**C**</answer>", ".", "C"),
    (f"{T}<answer>`C`</answer>", ".", "C"),
    (f"{T}<answer>'C'</answer>", ".", "C"),
    (f"{T}<answer>$C$</answer>", ".", "C"),
    (f"{T}<answer>\\boxed{{C}}</answer>", ".", "C"),
    (f"{T}<answer>Option C</answer>", ".", "C"),
    (f"{T}<answer>C. ibuprofen</answer>", ".", "C"),
    (f"{T}<answer>C: Ibuprofen.</answer>", ".", "C"),
    (f"{T}<answer>C) ibuprofen</answer>", ".", "C"),
    (f"{T}<answer>(C) ibuprofen</answer>", ".", "C"),
    (f"{T}<answer>C (ibuprofen)</answer>", ".", "C"),
    (f"{T}<answer>ibuprofen</answer>", ".", "C"),
    (f"{T}<answer>The answer is C</answer>", ".", "C"),
    (f"{T}<answer>C\u200b</answer>", ".", "C"),  # zero-width space
    (f"{T}<ANSWER>C</ANSWER>", ".", "C"),
    (f"{T}<answer>C. aspirin</answer>", ".", "."),  # the label of one option, the text of another
    (f"{T}<answer>A or B</answer>", ".", "."),
    (f"{T}<answer>A, B</answer>", ".", "."),
    (f"{T}<answer>A/B</answer>", ".", "."),
    (f"{T}<answer>AB</answer>", ".", "."),
    (f"{T}<answer>ABCD</answer>", ".", "."),
    (f"{T}<answer>A B C D</answer>", ".", "."),
    (f"{T}<answer>not C</answer>", ".", "."),
    (f"{T}<answer>E</answer>", ".", "."),  # no option of this item
    (f"{T}<answer>А</answer>", ".", "."),  # Cyrillic
    (f"{T}<answer></answer>", ".", "."),
    (f"{T}<answer> </answer>", ".", "."),
    (f"{T}<answer>?</answer>", ".", "."),
    (f"{T}<answer>I don't know</answer>", ".", "."),
    (f"{T}<answer>ibuprofe</answer>", ".", "."),  # never fuzzy
    (f"{T}<answer>ibuprofen aspirin</answer>", ".", "."),
    (f"{T}<answer>A</answer><answer>C</answer>", ".", "C"),  # two answers: strict none, lenient the last
    (f"{T}<answer>C</answer><answer>neither</answer>", ".", "."),
    (f"{T}<answer>C</answer> The answer is A.", ".", "C"),  # a block goes before cues
    (f"The answer is A. {T}<answer>C</answer>", ".", "C"),
    (f"{T}<answer>C", ".", "."),
    (f"{T}C</answer>", ".", "."),
    (f"{T}<answer>C<answer></answer>", ".", "."),
    ("<answer>C</answer>", ".", "C"),
    ("<think></think><answer>C</answer>", ".", "C"),
    ("<think> </think><answer>C</answer>", ".", "C"),
]

INSIDE = [  # an answer inside the reasoning never counts
    ("<think><answer>B</answer></think>", ".", "."),
    ("<think>The answer is B.</think>", ".", "."),
    ("<think>Final answer: A? no.</think><answer>C</answer>", "C", "C"),
    ("<think>\\boxed{B}</think><answer>C</answer>", "C", "C"),
    ("<think><answer>B</answer></think><answer>C</answer>", ".", "C"),
    ("<think>The answer is B", ".", "."),
    ("<think><answer>B</answer>", ".", "."),
    ("<think>B</think>", ".", "."),
    ("<think>a</think>Answer: C<think>The answer is B", ".", "C"),
    ("<think>a</think><think>the answer is B</think>", ".", "."),
    ("<THINK>The answer is B.</THINK>", ".", "."),
    ("＜think＞The answer is B.＜/think＞", ".", "."),
    ("the answer is B.</think>", ".", "."),
    ("<think>answer: A</think>The answer is C.", ".", "C"),
]

CUES = [
    ("The answer is C", ".", "C"),
    ("The answer is C.", ".", "C"),
    ("the answer is c.", ".", "C"),
    ("The answer is **C**", ".", "C"),
    ("The answer is **C**.", ".", "C"),
    ("**Answer:** C", ".", "C"),
    ("**Answer**: C", ".", "C"),
    ("Answer: **C. ibuprofen**", ".", "C"),
    ("### Answer\nC", ".", "C"),
    ("Answer:\n\nC", ".", "C"),
    ("Answer: b", ".", "B"),
    ("ANSWER: B", ".", "B"),
    ("answer = C", ".", "C"),
    ("Answer - C", ".", "C"),
    ("The answer is: (C)", ".", "C"),
    ("The answer is (C) ibuprofen.", ".", "C"),
    ('The answer is "C".', ".", "C"),
    ("The correct answer is option C.", ".", "C"),
    ("The best option is C.", ".", "C"),
    ("The answer to this question is C.", ".", "C"),
    ("The answer should be C.", ".", "C"),
    ("The answer is clearly C.", ".", "C"),
    ("The answer is most likely C.", ".", "C"),
    ("The answer is therefore C.", ".", "C"),
    ("The answer is C because it blocks COX.", ".", "C"),
    ("The answer is C, not A.", ".", "C"),
    ("The answer is C; the others are wrong.", ".", "C"),
    ("The answer is C - it blocks COX.", ".", "C"),
    ("The answer is C\nIt blocks COX.", ".", "C"),
    ("There is no fever, so the answer is C.", ".", "C"),
    ("The answer is ibuprofen.", ".", "C"),
    ("The answer is Ibuprofen because it blocks COX.", ".", "C"),
    ("The answer is none of the above.", ".", "D"),
    ("The answer is benign paroxysmal vertigo.", ".", "B"),
    ("\\boxed{C}", ".", "C"),
    ("So \\boxed{\\text{C}} it is", ".", "C"),
    ("\\boxed{C} or \\boxed{D}", ".", "D"),
    ("So: $\\boxed{\\text{C}}$.", ".", "C"),
    ("\\(\\boxed{\\mathbf{C}}\\)", ".", "C"),
    ("Therefore the answer is \\boxed{C}.", ".", "C"),
    ("Therefore the answer is \\boxed{C. ibuprofen}.", ".", "C"),
    ("答案：C", ".", "C"),
    ("答案是Ｃ。", ".", "C"),
    ("答案为 C", ".", "C"),
    ("答案是C选项", ".", "C"),
    ("The answer is A. No: the answer is C.", ".", "C"),  # the last cue
    ("Answer: A\nAnswer: C", ".", "C"),
    ("Answer: Answer: C", ".", "C"),
    ("Answer: C. The answer is based on guidelines.", ".", "C"),
    ("The answer is B. The answer is based on guidelines.", ".", "B"),  # the second says no label, so withdraws none
    ("The answer is C. The answer is clear.", ".", "C"),
    ("İİ. The answer is ibuprofen.", ".", "C"),  # a letter that is longer in lower case
    ("C", ".", "C"), ("c", ".", "C"), ("C.", ".", "C"), ("(C)", ".", "C"), ("**C**", ".", "C"), ("Ｃ", ".", "C"),
    ("C. ibuprofen", ".", "C"), ("ibuprofen", ".", "C"), (" IBUPROFEN. ", ".", "C"), ("Option C", ".", "C"),
]

NOT_SETTLED = [
    "", " ", "\n", ".", "None", "not C", "The answer is", "Answer:", "answer", "answer: ", "I cannot answer.",
    "The answer is not C", "The answer is not C.", "The answer is **not** C", "The answer isn't C.",
    "The answer is not ibuprofen.", "The answer is definitely not C.", "The answer cannot be C.",
    "I don't think the answer is C.", "I do not believe that the answer is C.", "It is wrong that the answer is C.",
    "The answer is not \\boxed{C}.", "答案不是C", "A common wrong answer is C.", "If the answer is C, then why?",
    "The answer is C. No: the answer is not C.", "The answer is C. Sorry, the answer isn't C.",
    "The answer is A or B", "The answer is A or B.", "The answer is either A or B.", "The answer is A and B.",
    "The answer is A/B.", "The answer is A, B.", "The answer is A & B", "The answer is A (or B).", "答案是A或B",
    "The answers are A and C.", "The answer is neither A nor B.", "A or B", "A, B", "A and C",
    "The answer is C. Then again, the answer is A or B.",
    "The answer is Not clear", "The answer is not clear.", "Answer is Benign…, so C",
    "The answer is Benign positional vertigo", "The answer is Basically unclear", "The answer is based on guidelines.",
    "Answer: cannot", "Answer: cannot be determined", "ANSWER: I don't know", "Answer: a drug", "the answer is a drug.",
    "the answer is a, b", "the answer is a (new) drug",
    "The answer is A drug.", "The answer is C-reactive protein", "The answer is B12", "The answer is D-dimer.",
    "The answer is C. coli", "The answer is C (aspirin).", "The answer is C: aspirin", "C. aspirin",
    "Is the answer C? No.", "Final answer: A? no.", "Antwort: Antwort: C", "\\boxed{\\Delta E}", "\\boxed{}",
    "\\boxed{42}", "Because I considered C", "Considering all options, C is plausible", "aspirin or ibuprofen",
    "aspirin, Benign paroxysmal vertigo, ibuprofen, none of the above", "ibuprofe", "an ibuprofen",
    "A. aspirin\nB. Benign paroxysmal vertigo\nC. ibuprofen\nD. none of the above",
    "Choose the answer:\nA. aspirin\nB. Benign paroxysmal vertigo\nC. ibuprofen",
    "Answer A: this is wrong. Answer B: this too.", "The answer is E.", "The answer is Z", "answers: C, D",
    "A patient has fever. I cannot answer. A doctor is needed.",
]

OTHERS = [
    ("Because I considered C", ".", TEN), ("ANSWER: I don't know", ".", TEN), ("I think it is C", ".", TEN),
    ("The answer is I think unclear", ".", TEN), ("Answer: I'd say so", ".", TEN), ("Answer: I", "I", TEN),
    ("The answer is J.", "J", TEN), ("The answer is finding nine", "I", TEN), ("The answer is finding", ".", TEN),
    ("The answer is E. coli.", "B", GERMS), ("The answer is A. baumannii", "C", GERMS), ("C. difficile", "D", GERMS),
    ("The answer is B. cereus.", "E", GERMS), ("Answer: E", "E", GERMS), ("Answer: B. E. coli", "B", GERMS),
    ("Answer: E. E. coli", ".", GERMS), ("The answer is E. histolytica", ".", GERMS),
    ("The answer is vitamin C.", "A", VITAMINS), ("vitamin C", "A", VITAMINS), ("vitamin", ".", VITAMINS),
    ("The answer is vitamin C and vitamin D.", "D", VITAMINS), ("The answer is vitamin C and zinc.", ".", VITAMINS),
    ("The answer is vitamin B", ".", VITAMINS),
    ("aspirin", ".", TWINS), ("The answer is aspirin.", ".", TWINS), ("The answer is C.", "C", TWINS),
    ("The answer is C, aspirin.", "C", TWINS), ("The answer is A. aspirin.", "A", TWINS), ("heparin", "B", TWINS),
    ("<think>x</think><answer>aspirin</answer>", ".", TWINS),
    ("yes", "A", PUBMED), ("No.", "B", PUBMED), ("The answer is no.", "B", PUBMED), ("Answer: maybe", "C", PUBMED),
    ("The answer is not yes.", ".", PUBMED), ("The answer is not known.", ".", PUBMED), ("yes and no", ".", PUBMED),
    ("yes, no, maybe", ".", PUBMED), ("Nothing", ".", PUBMED), ("the answer is yes or no", ".", PUBMED),
    ("The answer is aspirin; heparin.", "B", NESTED), ("The answer is aspirin.", "A", NESTED),
    ("The answer is not enough data.", "C", NESTED), ("The answer is enough data.", "D", NESTED),
    ("5", "A", NUMBERS), ("-5", ".", NUMBERS), (".5", "C", NUMBERS), ("10.", "D", NUMBERS), ("-10", "B", NUMBERS),
    ("The answer is 5.", "A", NUMBERS), ("Answer: -5", ".", NUMBERS), ("Answer -5", ".", NUMBERS),
    ("Answer: -10", "B", NUMBERS),
    ("Answer: .5", "C", NUMBERS), ("Answer - 10", "D", NUMBERS), ("The answer is 5 mg.", ".", NUMBERS),
    ("The answer is 5.5.", ".", NUMBERS), ("The answer is 5-10.", ".", NUMBERS), ("Answer: D. -10", ".", NUMBERS),
    ("Answer: B. -10", "B", NUMBERS), ("D. -10", ".", NUMBERS), ("B. -10", "B", NUMBERS),
    ("", ".", SIGNS), (".", ".", SIGNS), (")", ".", SIGNS), ("The answer is", ".", SIGNS), ("+", "A", SIGNS),
    ("-", "C", SIGNS), ("The answer is iron (Fe).", "D", SIGNS), ("D. iron (Fe)", "D", SIGNS), ("iron", ".", SIGNS),
    ("AB", "D", BLOOD), ("The answer is AB.", "D", BLOOD), ("O", "A", BLOOD), ("The answer is O.", "A", BLOOD),
    ("The answer is B.", "B", BLOOD),  # a label before the text of another option
    ("T3", "A", WIDE), ("Ｔ４", "B", WIDE), ("Answer: T3", "A", WIDE), ("the answer is β-blocker", "C", WIDE),
    ("**HLA-B*57:01**", "D", WIDE), ("Answer: HLA-B57", ".", WIDE),
    ("The answer is U.", "U", JMED), ("Answer: O", "O", JMED), ("Answer: T cells", ".", JMED), ("答案：Ｕ", "U", JMED),
    ("The answer is Not clear", ".", JMED), ("None", ".", JMED), ("The answer is V.", ".", JMED),
]

ROWS = [(*row, DRUGS) for row in STRICT + INSIDE + CUES]
ROWS += [(text, ".", ".", DRUGS) for text in NOT_SETTLED]
ROWS += [(text, ".", lenient, item) for text, lenient, item in OTHERS]


def test_both_readings():
    failed = []
    for text, strict, lenient, item in ROWS:
        found = grade(text, item, finished=True)
        if (found.strict or ".", found.lenient or ".") != (strict, lenient) or (found.rule == "ok") != (strict != "."):
            failed.append((text, found))
    assert failed == []


def test_the_table_is_large_enough():
    assert len({(text, id(item)) for text, _, _, item in ROWS}) == len(ROWS) >= 200


def test_every_label_up_to_z_is_read_and_only_where_the_item_has_it():
    every, fewer = item_of(*(f"thing {i}" for i in range(26))), item_of("left", "right")
    for label in LABELS:
        for text in (f"The answer is {label}.", f"Answer: ({label})", f"\\boxed{{{label}}}", label, f"**{label}**"):
            assert parse_lenient(text, every) == label
            assert parse_lenient(text, fewer) == (label if label in "AB" else None)
        found = grade(f"{T}<answer>{label}</answer>", every, True)
        assert (found.strict, found.rule, found.lenient) == (label, "ok", label)
        assert parse_lenient(f"The answer is not {label}.", every) is None


def test_a_truncated_completion_is_never_strictly_right_and_its_last_word_is_not_complete():
    whole = f"{T}<answer>C</answer>"
    assert grade(whole, DRUGS, False) == Grade(None, "truncated", "C", "truncated")
    for text in (f"{T}The answer is C", f"{T}C", f"{T}<answer>C", f"{T}The answer is ibuprofen", f"{T}ibuprofen"):
        assert grade(text, DRUGS, False).lenient is None, text


def test_strict_right_is_lenient_right():
    for text, _, _, item in ROWS:
        found = grade(text, item, True)
        assert found.strict in (None, found.lenient)


def test_permuting_the_options_moves_the_answer_along():
    """An option's text, said or written, is graded as that option wherever it stands."""
    texts = ["aspirin", "heparin", "E. coli", "vitamin C", "none of the above"]
    shuffler = random.Random(0)
    for _ in range(40):
        shuffler.shuffle(texts)
        item = item_of(*texts)
        for label, text in item.options.items():
            for said in (text, f"The answer is {text}.", f"<answer>{label}. {text}</answer>", f"Answer: {label}"):
                assert parse_lenient(said, item) == label


def test_what_stands_inside_the_reasoning_never_changes_the_grade():
    for inside in ("The answer is A.", "\\boxed{A}", "Answer: A", "A", "aspirin", "x" * 30_000):
        for after in ("<answer>C</answer>", "The answer is C.", "", "nothing", "A or B"):
            text = f"<think>{{}}</think>{after}"
            first, second = (grade(text.format(part), DRUGS, True) for part in ("because", inside))
            assert first == second
        for unclosed in ("The answer is A.", "\\boxed{A}"):
            assert grade(f"<think>{inside}. {unclosed}", DRUGS, False).lenient is None


def test_unsettled_text_is_no_guess():
    """Random words without a cue or an answer block never get a label."""
    words = "a A i I the patient B c has no C , . because considered D or option maybe \n is drug ( )".split(" ")
    source = random.Random(1)
    for _ in range(2000):
        text = " ".join(source.choices(words, k=source.randrange(4, 12))) + " patient"
        assert parse_lenient(text, TEN) is None, text


OUTCOMES = [
    (f"{T}<answer>C</answer>", "ok"), (f"{T}<answer>C.</answer>", "lenient"), ("The answer is C.", "lenient"),
    ("", "empty"), (" \n", "empty"), (T, "empty"), (f"{T}\u200b \u3000", "empty"), ("<think></think>", "empty"),
    ("<think>The answer is B", "empty"), (f"{T}**", "empty"),
    (f"{T}<answer>A</answer><answer>C</answer>", "multiple"), (f"{T}<answer>A or B</answer>", "multiple"),
    (f"{T}<answer>A, B</answer>", "multiple"), (f"{T}<answer>ABCD</answer>", "multiple"),
    (f"{T}<answer>A B C D</answer>", "multiple"), ("The answer is A or B.", "multiple"), ("A/B", "multiple"),
    ("The answer is either A or B.", "unparsed"), (f"{T}<answer>C</answer><answer>neither</answer>", "multiple"),
    (f"{T}<answer>C</answer><answer>(C)</answer>", "lenient"), (f"{T}<answer></answer>", "unparsed"),
    ("The answer is C. Then again, the answer is A or B.", "multiple"), ("I don't know", "unparsed"),
    (f"{T}<answer>E</answer>", "unparsed"), ("The answer is not C.", "unparsed"),
    (f"{T}<answer>AE</answer>", "unparsed"),
    ("The answer is A. No: the answer is C.", "lenient"),
    ("If the answer is A, rest helps; if the answer is B, tea.", "multiple"),
    ("If the answer is A, rest helps.", "unparsed"),
]


def test_the_kind_of_a_text():
    for text, kind in OUTCOMES:
        assert grade(text, DRUGS, True).kind == kind, text
        assert grade(text, DRUGS, False).kind == "truncated", text


def test_the_kinds_part_all_texts_and_agree_with_the_readings():
    for text, _, _, item in ROWS:
        found = grade(text, item, True)
        assert found.kind in KINDS
        assert (found.kind == "ok") == (found.strict is not None)
        assert found.lenient is None or found.kind in ("ok", "lenient", "multiple")
        assert found.kind != "lenient" or found.lenient is not None


SIZE = 1 << 20
PIECES = ["a", " ", "\n", "(", "<", "C", "<answer>", "</answer>", "<think>", "</think>", "<answer>C</answer>",
          "answer ", "answer is ", "answer: (", "answer to x ", "The answer is C. ", "the answer is not C. ",
          "\\boxed{", "{", "*", "answer is C or ", "n't ", "likely ", "answer is likely ", "ly ", "\u0301\u0323",
          "Ａ", "ﷺ", "\u200b", "\x00", "aspirin ", "answer is aspirin ", "答案是", "İ", "\u2028", ". ", "- ",
          "answer--", "答案：Ｃ。", "or "]


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_a_megabyte_is_read_in_under_50_ms(piece):
    """Best of three in processor time, so that a busy machine does not count."""
    much = piece * (SIZE // len(piece))
    for text in (much, f"<think>{much}</think><answer>C</answer>", T + much, f"{T}answer{much}", f"{T}<answer>{much}"):
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            grade(text, JMED, True)
            best = min(best, time.process_time() - start)
            if best < 0.05:
                break
        assert best < 0.05


def test_random_pieces_raise_nothing_and_give_only_labels_of_the_item():
    source = random.Random(2)
    for _ in range(3000):
        text = "".join(source.choices(PIECES, k=source.randrange(1, 12)))
        found = grade(text, DRUGS, source.random() < 0.5)
        assert found.strict in (None, *"ABCD") and found.lenient in (None, *"ABCD")
