"""The strict parser, row by row, and pass@k against enumeration."""

import itertools
import time

import pytest

from minifleming.rods.answer import parse_strict, pass_at_k, reasoning_of

T = "<think>fever points to lupus</think>"
C = "<answer>C</answer>"

# (text, rule); the label is C where the rule is ok. Labels of the item: A B C D.
TABLE = [
    # right
    (f"{T}{C}", "ok"),
    (f" {T}{C}", "ok"),
    (f"\n\n{T}\n\n{C}\n", "ok"),
    (f"{T} \t\r\n\f\v{C}", "ok"),
    (f"{T}{C} ", "ok"),
    (f"{T}<answer> C </answer>", "ok"),
    (f"{T}<answer>\nC\n</answer>", "ok"),
    (f"{T}<answer>\t C\r\n</answer>", "ok"),
    (f"<think>A or B? not A. (D)</think>{C}", "ok"),
    (f"<think>.</think>{C}", "ok"),
    (f"<think>\nmany\n\nlines\n</think>\n{C}", "ok"),
    (f"<think>a < b and b > c </ think> < /think></think>{C}", "ok"),
    (f"<think>the answer is A</think>{C}", "ok"),
    (f"<think>answer>A</answer</think>{C}", "ok"),
    (f"<think>\u4e2d\u6587 \u0639\u0631\u0628\u064a</think>{C}", "ok"),
    (f"<think><b>bold</b></think>{C}", "ok"),
    # think: not exactly one block
    ("", "think"),
    (" ", "think"),
    ("C", "think"),
    (C, "think"),
    (f"fever points to lupus</think>{C}", "think"),
    (f"<think>fever points to lupus{C}", "think"),
    (f"{T}{T}{C}", "think"),
    (f"<think>{T}{C}", "think"),
    (f"<think>{T}</think>{C}", "think"),
    (f"{T}</think>{C}", "think"),
    (f"{T}{C}{T}", "think"),
    (f"<think>a</think>{C}<think>", "think"),
    (f"<Think>a</Think>{C}", "think"),
    (f"<THINK>a</THINK>{C}", "think"),
    (f"< think>a</think>{C}", "think"),
    (f"<think >a</think>{C}", "think"),
    (f"<think>a</ think>{C}", "think"),
    (f"<think/>{C}", "think"),
    (f"<thinking>a</thinking>{C}", "think"),
    (f"\uff1cthink\uff1ea\uff1c/think\uff1e{C}", "think"),
    (f"<th\u200bink>a</think>{C}", "think"),
    (f"<th\u0456nk>a</th\u0456nk>{C}", "think"),
    (f"[think]a[/think]{C}", "think"),
    (f"&lt;think&gt;a&lt;/think&gt;{C}", "think"),
    # answer: not exactly one block
    (T, "answer"),
    (f"{T}C", "answer"),
    (f"{T}<answer>C", "answer"),
    (f"{T}C</answer>", "answer"),
    (f"{T}{C}{C}", "answer"),
    (f"{T}{C}<answer>A</answer>", "answer"),
    (f"{T}<answer>A</answer>{C}", "answer"),
    (f"<think>first <answer>A</answer></think>{C}", "answer"),
    (f"<think>write <answer> here</think>{C}", "answer"),
    (f"<think>then </answer></think>{C}", "answer"),
    (f"{T}<answer>{C}</answer>", "answer"),
    (f"{T}<answer><answer>C</answer>", "answer"),
    (f"{T}<answer>C</answer></answer>", "answer"),
    (f"{T}<Answer>C</Answer>", "answer"),
    (f"{T}<ANSWER>C</ANSWER>", "answer"),
    (f"{T}<answer >C</answer>", "answer"),
    (f"{T}<answer>C<answer>", "answer"),
    (f"{T}<answer>C</answer", "answer"),
    (f"{T}<ans\u200bwer>C</answer>", "answer"),
    (f"{T}<\u0430nswer>C</\u0430nswer>", "answer"),
    (f"{T}\\boxed{{C}}", "answer"),
    (f"{T}Answer: C", "answer"),
    # order
    (f"{C}{T}", "order"),
    (f"<think>fever{C}</think>", "order"),
    (f"<answer>C{T}</answer>", "order"),
    ("</think>a<think><answer>C</answer>", "order"),
    (f"{T}</answer>C<answer>", "order"),
    ("<think>a<answer></think>C</answer>", "order"),
    ("<answer><think>a</think>C</answer>", "order"),
    # outside: anything but ASCII white space around the blocks
    (f"Sure. {T}{C}", "outside"),
    (f"{T} so {C}", "outside"),
    (f"{T}.{C}", "outside"),
    (f"{T}{C}.", "outside"),
    (f"{T}{C} I am certain.", "outside"),
    (f"{T}{C}<|im_end|>", "outside"),
    (f"{T}{C}</s>", "outside"),
    (f"<|im_start|>{T}{C}", "outside"),
    (f"{T}A{C}", "outside"),
    (f"{T}\u00a0{C}", "outside"),
    (f"{T}{C}\u200b", "outside"),
    (f"\ufeff{T}{C}", "outside"),
    (f"{T}\u3000{C}", "outside"),
    (f"{T}\u2028{C}", "outside"),
    (f"{T}{C}\x00", "outside"),
    (f"{T}\x1c{C}", "outside"),
    # empty think
    (f"<think></think>{C}", "empty_think"),
    (f"<think> </think>{C}", "empty_think"),
    (f"<think>\n\t\r\n</think>{C}", "empty_think"),
    (f"<think>\u00a0\u3000\u2028</think>{C}", "empty_think"),
    # label: not exactly one label of this item
    (f"{T}<answer></answer>", "label"),
    (f"{T}<answer> </answer>", "label"),
    (f"{T}<answer>c</answer>", "label"),
    (f"{T}<answer>E</answer>", "label"),
    (f"{T}<answer>Z</answer>", "label"),
    (f"{T}<answer>CC</answer>", "label"),
    (f"{T}<answer>AB</answer>", "label"),
    (f"{T}<answer>ABCD</answer>", "label"),
    (f"{T}<answer>A B</answer>", "label"),
    (f"{T}<answer>A or B</answer>", "label"),
    (f"{T}<answer>B, C</answer>", "label"),
    (f"{T}<answer>not C</answer>", "label"),
    (f"{T}<answer>C.</answer>", "label"),
    (f"{T}<answer>C)</answer>", "label"),
    (f"{T}<answer>(C)</answer>", "label"),
    (f"{T}<answer>C: prednisone</answer>", "label"),
    (f"{T}<answer>prednisone</answer>", "label"),
    (f"{T}<answer>option C</answer>", "label"),
    (f"{T}<answer>**C**</answer>", "label"),
    (f"{T}<answer>3</answer>", "label"),
    (f"{T}<answer>\uff23</answer>", "label"),
    (f"{T}<answer>\u0421</answer>", "label"),
    (f"{T}<answer>\u03f9</answer>", "label"),
    (f"{T}<answer>\u212d</answer>", "label"),
    (f"{T}<answer>C\u200b</answer>", "label"),
    (f"{T}<answer>\u200bC</answer>", "label"),
    (f"{T}<answer>\u00a0C</answer>", "label"),
    (f"{T}<answer>C\u0301</answer>", "label"),
    (f"{T}<answer>\u202eC</answer>", "label"),
    (f"{T}<answer>C\x00</answer>", "label"),
    (f"{T}<answer><b>C</b></answer>", "label"),
]


def test_the_table_has_at_least_80_different_rows():
    assert len({text for text, _ in TABLE}) == len(TABLE) >= 80


@pytest.mark.parametrize("text, rule", TABLE, ids=[f"{i}-{rule}" for i, (_, rule) in enumerate(TABLE)])
def test_the_verdict(text, rule):
    verdict = parse_strict(text, "ABCD")
    assert verdict.rule == rule
    assert verdict.label == ("C" if rule == "ok" else None) and verdict.formatted == (rule == "ok")


@pytest.mark.parametrize("text", [text for text, rule in TABLE if rule == "ok"])
def test_the_span_is_where_the_label_stands(text):
    start, end = parse_strict(text, "ABCD").span
    assert text[start:end] == "C" and text[:start].rstrip().endswith("<answer>")


@pytest.mark.parametrize("text", [text for text, _ in TABLE])
def test_what_has_no_end_token_is_truncated_whatever_it_says(text):
    verdict = parse_strict(text, "ABCD", finished=False)
    assert (verdict.label, verdict.rule, verdict.formatted) == (None, "truncated", False)


@pytest.mark.parametrize("labels", ["AB", "ABCD", "ABCDEFGHIJ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"])
def test_only_labels_of_this_item_count(labels):
    """Over every label and every item size, and over every pair of labels that stand together in the item's."""
    for label in "ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        assert parse_strict(f"{T}<answer>{label}</answer>", labels).label == (label if label in labels else None)
    for pair in itertools.pairwise(labels):
        assert parse_strict(f"{T}<answer>{''.join(pair)}</answer>", labels).rule == "label"


def test_removing_any_one_character_of_a_tag_is_seen():
    """Every single deletion outside the reasoning and outside white space changes the verdict."""
    text = f"{T}{C}"
    reasoning = range(len("<think>"), text.index("</think>"))
    for i in (i for i in range(len(text)) if i not in reasoning):
        assert not parse_strict(text[:i] + text[i + 1 :], "ABCD").formatted, i


MEGABYTE = 1_000_000
LONG = {
    "letters": "a" * MEGABYTE, "spaces": " " * MEGABYTE, "less": "<" * MEGABYTE,
    "open": "<think>" * (MEGABYTE // 7), "close": "</answer>" * (MEGABYTE // 9),
    "answers": C * (MEGABYTE // len(C)), "long think": f"<think>{'a ' * (MEGABYTE // 2)}</think>{C}",
    "long answer": f"{T}<answer>{' C' * (MEGABYTE // 2)}</answer>",
    "long gap": f"{T}{' ' * MEGABYTE}{C}{' ' * MEGABYTE}.", "half tags": "<answer" * (MEGABYTE // 7),
    "blank think": f"<think>{' ' * MEGABYTE}</think>{C}",
}


@pytest.mark.parametrize("text", LONG.values(), ids=list(LONG))
def test_a_megabyte_takes_less_than_50_ms(text):
    """Processor time, the best of three: other work on the machine does not count."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        parse_strict(text, "ABCD")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.05


@pytest.mark.parametrize("text, reasoning", [
    ("", ""), ("<think>a", ""), ("a</think>", ""), ("</think>a<think>", ""), ("<think></think>", ""),
    ("<think>a b</think>", "a b"), ("x<think> a\n</think>y", " a\n"), ("<think>a</think><think>b</think>", "a"),
    ("<think>a<think>b</think>c</think>", "a<think>b"), (f"{T}{C}", "fever points to lupus"),
])
def test_reasoning_is_what_stands_in_the_first_block(text, reasoning):
    assert reasoning_of(text) == reasoning


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    """Every subset of k of the n samples, counted, for every number of right ones."""
    for right in range(n + 1):
        samples = [True] * right + [False] * (n - right)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(samples, k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


def test_pass_at_k_at_its_ends_and_for_many_samples():
    assert pass_at_k(10_000, 0, 5000) == 0.0 and pass_at_k(10_000, 10_000, 1) == 1.0
    assert pass_at_k(10_000, 1, 2500) == pytest.approx(0.25, abs=1e-12)
    assert pass_at_k(8, 3, 1) == 0.375 and pass_at_k(8, 1, 8) == 1.0


@pytest.mark.parametrize("n, right, k", [(0, 0, 1), (4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5), (-1, 0, 1)])
def test_pass_at_k_refuses_what_makes_no_sense(n, right, k):
    with pytest.raises(ValueError, match="pass_at_k needs"):
        pass_at_k(n, right, k)
