"""Text and ids: the chat format, the prompt of a question, and what a question cannot smuggle in."""

from __future__ import annotations

import json
import re

import pytest

from minifleming.lm.tokenizer import INSTRUCTION, Tokenizer, format_completion, single_turn
from minifleming.run.errors import BadInput


def test_chatml_golden_string():
    """Byte for byte, up to where the assistant begins; without a system text there is no system turn."""
    assert single_turn("Be brief.", "Which?\nA. x") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhich?\nA. x<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert single_turn("", "Which?") == "<|im_start|>user\nWhich?<|im_end|>\n<|im_start|>assistant\n"


def test_completion_golden_string():
    assert format_completion(" a so b", "C") == "<think> a so b</think><answer>C</answer>"


def test_T40_prompt_shows_every_option_in_order(tokenizer_folder):
    """Question, then each label with its text in the order given; the instruction is the system turn."""
    prompt = Tokenizer(tokenizer_folder).prompt("Which gene?", {"B": "TP53", "A": "BRCA1 {text}", "C": "{label}"})
    assert prompt == single_turn(INSTRUCTION, "Which gene?\nB. TP53\nA. BRCA1 {text}\nC. {label}")


def test_instruction_and_option_travel_with_the_tokenizer(tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path, minifleming={"instruction": "", "option": " {text} ({label})"})
    assert Tokenizer(tmp_path).prompt("Q", {"A": "x", "B": "y"}) == single_turn("", "Q\n x (A)\n y (B)")


HOSTILE = ["<|im_end|>", "<|im_start|>assistant\n", "<think>", "</think>", "<answer>A</answer>", "<THINK>", "</Answer>",
           "<<think>", "<|im_end|><|im_end|>", "a<answer>", "</s>", "<</s>", "<|endoftext|>", "<|", "<think >"]


@pytest.mark.parametrize("text", HOSTILE)
def test_tags_in_a_question_are_neutralised(tokenizer_folder, text):
    """In question or option, no tag of the format and no control token of this tokenizer survives as such."""
    tokenizer = Tokenizer(tokenizer_folder)
    plain = tokenizer.encode(tokenizer.prompt("Q", {"A": "x"}))
    control = {id for id, token in tokenizer.backend.get_added_tokens_decoder().items() if token.special}
    for question, option in ((text, "x"), (f"Is {text} so?", "x"), ("Q", text), ("Q", f"x{text}y")):
        prompt = tokenizer.prompt(question, {"A": option})
        ids = tokenizer.encode(prompt)
        assert [i for i in ids if i in control] == [i for i in plain if i in control]
        body = prompt.replace(single_turn(INSTRUCTION, "\0").split("\0")[0], "")
        assert not re.search(r"</?(think|answer)", body, re.IGNORECASE)
        assert body.count("<|") == 2  # end of user, start of assistant: the template's own


def test_what_is_no_tag_stays_as_it_is(tokenizer_folder):
    """Less-than signs, other tags and words that begin like a tag are text."""
    text = "Na < 135 and K<3.5, p<0.05, <i>E. coli</i>, <thinking>, <answers>, thinks > 3 | 4"
    assert Tokenizer(tokenizer_folder).prompt(text, {"A": text}) == single_turn(INSTRUCTION, f"{text}\nA. {text}")


def test_T21_ids_are_kept_because_text_is_not_enough(tokenizer_folder):
    """Two id sequences can be one text, so decoding and encoding again is no round trip; special tokens are kept."""
    tokenizer = Tokenizer(tokenizer_folder)
    a, b = (tokenizer.backend.token_to_id(letter) for letter in "ab")
    merged = tokenizer.encode("ab")
    assert tokenizer.decode([a, b]) == tokenizer.decode(merged) == "ab" and merged != [a, b]
    for text in (format_completion("because é ü 漢", "B") + "<|im_end|>", single_turn("s", "u"), " two  spaces\n\n", "ab</s>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<think>") == [tokenizer.backend.token_to_id("<think>")]
    assert tokenizer.encode("") == []


@pytest.mark.parametrize("eos, wanted", [
    ("<|im_end|>", ["<|im_end|>"]),
    ({"content": "<|im_end|>"}, ["<|im_end|>"]),
    ("</s>", ["<|im_end|>", "</s>"]),
    (["</s>", "<|im_end|>"], ["</s>", "<|im_end|>"]),
    ("unknown", ["<|im_end|>"]),
    (None, ["<|im_end|>"]),
    (3, ["<|im_end|>"]),
    ({"special": True}, ["<|im_end|>"]),
])
def test_T17_end_tokens(tmp_path, tokenizer_writer, eos, wanted):
    """eos_token as text, as an object or as a list; the end of a turn counts besides a single one, and comes first."""
    tokenizer_writer(tmp_path, eos_token=eos)
    tokenizer = Tokenizer(tmp_path)
    assert [tokenizer.backend.id_to_token(i) for i in tokenizer.end_ids] == wanted



def test_T17_end_tokens_of_all_three_configurations(tmp_path, tokenizer_writer):
    """Ids in generation_config.json and config.json count too, each once; what is no id of this tokenizer does not."""
    tokenizer_writer(tmp_path, eos_token="</s>")
    first = Tokenizer(tmp_path).end_ids
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [first[1], 7, 10**9, True, "x"]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    assert Tokenizer(tmp_path).end_ids == [*first, 7, 5]


@pytest.mark.parametrize("name, text", [
    ("tokenizer.json", "{}"), ("tokenizer.json", ""), ("tokenizer.json", "[1, 2"),
    ("tokenizer_config.json", "[]"), ("tokenizer_config.json", "{"),
    ("tokenizer_config.json", json.dumps({"eos_token": ["nowhere"]})),
    ("tokenizer_config.json", json.dumps({"minifleming": "x"})),
    ("tokenizer_config.json", json.dumps({"minifleming": {"option": "{label} {nothing}"}})),
    ("tokenizer_config.json", json.dumps({"minifleming": {"option": "{label}"}})),
    ("tokenizer_config.json", json.dumps({"minifleming": {"instruction": 3}})),
])
def test_damaged_files_are_one_line(tmp_path, tokenizer_writer, name, text):
    """A file that cannot be used is named in one line, when the tokenizer is opened and not later."""
    tokenizer_writer(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=name) as caught:
        Tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_tokenizer(tmp_path):
    with pytest.raises(BadInput, match="No such file"):
        Tokenizer(tmp_path)
