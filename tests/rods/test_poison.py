"""The strict parser, the reward, the lenient grader and the prompt against the corpus of poison.py.

The second way to a verdict is one regular expression, written from the law and not from the parser.
"""

import functools
import json
import random
import re
import time
from pathlib import Path

import pytest
from poison import FOUR, HUGE, LETTERS, ROWS, RULES, TAGS, UNSAID, options_of

import minifleming
from minifleming.evaluation.grade import grade
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.reward import reward
from minifleming.rods.answer import parse_strict
from minifleming.rods.item import Item
from minifleming.run.fields import RL

TINY = Path(minifleming.__file__).parent / "assets" / "tiny"
FAMILIES = list(dict.fromkeys(row.family for row in ROWS))


@functools.cache
def law(labels: str) -> re.Pattern:
    """The format as one pattern. Repeats that can match in one way only are possessive, so none is tried again."""
    white, thought = r"[ \t\r\n\f\v]*+", r"[^<]*+(?:<(?!/?(?:think|answer)>)[^<]*+)*+"
    return re.compile(rf"{white}<think>(?!\s*+</think>){thought}</think>{white}"
                      rf"<answer>{white}([{labels}]){white}</answer>{white}")


def second_way(text: str, labels: str) -> str | None:
    found = law(labels).fullmatch(text)
    return found[1] if found else None


def item_of(row) -> Item:
    return Item("i", "Which ?", options_of(row.labels), "A")


def test_the_corpus_is_large_and_no_two_rows_contradict_each_other():
    assert len({row.text for row in ROWS}) >= 1500 and len(FAMILIES) >= 50
    assert len({row.text for row in ROWS if row.strict}) >= 180  # a parser that always says no is wrong, too
    assert {row.strict for row in ROWS} == {None, *LETTERS} and {len(row.labels) for row in ROWS} >= {2, 4, 10, 21, 26}
    assert len({row[1:4] for row in ROWS}) == len({row[1:3] for row in ROWS})


@pytest.mark.parametrize("family", FAMILIES)
def test_T39_verdicts_of_the_poison_corpus(family):
    """Each row as stated, by the parser and by the second way, and the span is where the label stands."""
    wrong = []
    for row in (row for row in ROWS if row.family == family):
        verdict = parse_strict(row.text, row.labels)
        seen = verdict.label, second_way(row.text, row.labels), verdict.formatted, row.text[slice(*verdict.span)]
        if seen != (row.strict, row.strict, row.strict is not None, row.strict or ""):
            wrong.append((seen, row.strict, row.text[:200]))
    assert wrong == []


@pytest.mark.parametrize("family", RULES)
def test_T39_the_rule_that_decides(family):
    assert {parse_strict(row.text, row.labels).rule for row in ROWS if row.family == family} == {RULES[family]}


def process_seconds(text: str, labels: str) -> float:
    """Processor time, the best of three; measured again only where the first was slow."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        parse_strict(text, labels)
        best = min(best, time.process_time() - start)
        if best < 0.05:
            break
    return best


def test_T39_no_row_takes_50_ms():
    assert [row.family for row in ROWS if process_seconds(row.text, row.labels) >= 0.05] == []


@pytest.mark.parametrize("name", HUGE)
def test_T39_a_megabyte_has_its_verdict_in_less_than_50_ms(name):
    build, strict = HUGE[name]
    text = build()
    assert len(text) > 990_000
    assert parse_strict(text, FOUR).label == second_way(text, FOUR) == strict
    assert process_seconds(text, FOUR) < 0.05


def test_T41_the_reward_never_raises_and_is_one_of_three_values():
    """For every row and every label of its item as the right one: 1.1, 0.1 for another label, 0 for no answer."""
    paid = {0.0: 0, 0.1: 0, 1.1: 0}
    for row in ROWS:
        verdict = parse_strict(row.text, row.labels)
        for answer in row.labels:
            due = 0.0 if row.strict is None else 1.1 if row.strict == answer else 0.1
            assert reward(verdict, answer, RL()) == due <= 1.1, row
            paid[due] += 1
    assert min(paid.values()) >= 200


def test_T41_nothing_is_paid_without_an_end_token():
    for row in ROWS:
        verdict = parse_strict(row.text, row.labels, finished=False)
        assert (verdict.label, verdict.rule, verdict.formatted) == (None, "truncated", False), row
        assert {reward(verdict, answer, RL()) for answer in row.labels} == {0.0}, row
        assert grade(row.text, item_of(row), finished=False).strict is None, row


PIECES = [*TAGS, *TAGS, *(tag[:-1] for tag in TAGS), *(tag[1:] for tag in TAGS), *(tag.upper() for tag in TAGS),
          "< think>", "</ answer>", "<", ">", "/", "think", "answer", *"ABCDEJUZ", "c", "(C)", "C.", "A or B",
          "aspirin", " ", "\n", "\t", "\r\n", "\v\f", "\xa0", "\u3000", "\u2028", "\x1c", "\x85", "\x00", "\u200b",
          "\ufeff", "\u202e", "\u0301", "\uff23", "\u0421", "\u212d", "\U0001d402", "\ud800", "<|im_end|>", "</s>",
          "&lt;", "\\boxed{C}", "\u7b54\u6848", "\u062c", "because", ".", "1", ""]
SIZES = [LETTERS[:n] for n in (2, 3, 4, 10, 21, 26)]


def glued(source: random.Random, labels: str) -> str:
    """Pieces at random, or a right completion in which up to three parts are changed, dropped, doubled or swapped."""
    if source.random() < 0.3:
        return "".join(source.choices(PIECES, k=source.randrange(20)))
    white = ["", "", " ", "\n", "\t\r\n"]
    parts = [source.choice(white), "<think>", *source.choices(PIECES[8:], k=source.randrange(4)), "</think>",
             source.choice(white), "<answer>", source.choice(white), source.choice(labels + "E"), source.choice(white),
             "</answer>", source.choice(white)]
    for _ in range(source.choice((0, 1, 1, 2, 3))):
        i, j = source.randrange(len(parts)), source.randrange(len(parts))
        change = source.randrange(4)
        if change == 0:
            parts[i] = source.choice(PIECES)
        elif change == 1:
            parts[i] = ""
        elif change == 2:
            parts.insert(j, parts[i])
        else:
            parts[i], parts[j] = parts[j], parts[i]
    return "".join(parts)


def test_T39_T41_both_ways_agree_on_20000_random_strings():
    source, right = random.Random(39), 0
    for _ in range(20_000):
        labels = source.choice(SIZES)
        text = glued(source, labels)
        verdict = parse_strict(text, labels)
        assert verdict.label == second_way(text, labels), (text, labels)
        assert reward(verdict, source.choice(labels), RL()) in ((0.1, 1.1) if verdict.formatted else (0.0,))
        right += verdict.formatted
    assert 3000 <= right <= 15_000, right


@pytest.mark.parametrize("family", [f for f in FAMILIES if any(r.family == f and r.lenient != UNSAID for r in ROWS)])
def test_lenient_reads_what_the_corpus_says(family):
    """Among these every right row: what is right in strict is right in lenient."""
    wrong = []
    for row in (row for row in ROWS if row.family == family and row.lenient != UNSAID):
        found = grade(row.text, item_of(row), finished=True)
        if (found.strict, found.lenient) != (row.strict, row.lenient):
            wrong.append((found, row.lenient, row.text[:200]))
    assert wrong == []


def test_lenient_is_a_label_of_the_item_or_none_for_every_row():
    assert sum(row.lenient not in (UNSAID, row.strict) for row in ROWS) >= 200  # more than strict, and stated
    for row in ROWS:
        assert grade(row.text, item_of(row), finished=True).lenient in (None, *row.labels), row


def without_tags(folder: Path) -> Path:
    """The shipped tokenizer as most models have it: the tags are text to it, so no control token stands for them."""
    backend = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    backend["added_tokens"] = [token for token in backend["added_tokens"] if token["content"] not in TAGS]
    (folder / "tokenizer.json").write_text(json.dumps(backend), encoding="utf-8")
    (folder / "tokenizer_config.json").write_bytes((TINY / "tokenizer_config.json").read_bytes())
    return folder


@pytest.mark.parametrize("shipped", [True, False])
def test_the_prompt_takes_no_tag_and_no_control_token_from_a_question_or_an_option(shipped, tmp_path):
    """Half a character is left out: no file of items can hold it (rods/item.py), and no tokenizer encodes it."""
    tokenizer = Tokenizer(TINY if shipped else without_tags(tmp_path))
    added = tokenizer.backend.get_added_tokens_decoder()
    control = sorted(i for i, token in added.items() if token.special)
    assert {added[i].content for i in control} == {*TAGS * shipped, "<|im_start|>", "<|im_end|>"}

    def counted(question: str, option: str) -> list[int]:
        item = Item("i", question, {"A": option, "B": "aspirin"}, "A")
        prompt = tokenizer.prompt(item.question, item.options)
        ids = tokenizer.encode(prompt)
        return [prompt.lower().count(tag) for tag in (*TAGS, "<|")] + [ids.count(i) for i in control]

    source, wrong = random.Random(41), []
    plain, texts = counted("Which drug?", "prednisone"), [row.text for row in ROWS]
    for text in texts + [glued(source, FOUR) for _ in range(500)]:
        if re.search("[\ud800-\udfff]", text):
            continue
        bare = text if text.strip() else f"{text}."  # an item's texts are never blank
        for question, option in ((f"Which {text}", "prednisone"), ("Which drug?", f"{text} x"), (bare, bare)):
            if counted(question, option) != plain:
                wrong.append((question[:200], option[:200]))
    assert wrong == []
