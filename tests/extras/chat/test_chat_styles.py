"""Tests for extras/chat/styles.py: golden strings, and the real tokenizer's template where it is available."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from minifleming.extras.chat.styles import STYLES, conversation, detect_style, render_chat, style_of
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.errors import BadInput

QWEN3 = Path(os.environ.get("MINIFLEMING_DATA", "nowhere")) / "tokenizers" / "qwen3"


TALK = [("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello"), ("user", "Why?")]


@pytest.mark.parametrize("style, opening, answer", [
    ("plain", "", "<think>\nhm\n</think>\n\nHello"),
    ("qwen2", "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", "<think>\nhm\n</think>\n\nHello"),
    ("qwen2.5", "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n",
     "<think>\nhm\n</think>\n\nHello"),
    ("smollm2", "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n",
     "<think>\nhm\n</think>\n\nHello"),
    ("qwen3", "", "Hello"),
])
def test_styles_golden_strings(style, opening, answer):
    """The default system text, and whether earlier reasoning is kept."""
    assert render_chat(TALK, style) == (
        f"{opening}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")
    own = [("system", "S"), *TALK]
    assert render_chat(own, style).startswith("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi")
    assert render_chat(TALK, style, thinking=False) == render_chat(TALK, style) + "<think>\n\n</think>\n\n"


def test_styles_are_detected_from_their_templates():
    assert detect_style("") == detect_style("{% for message in messages %}") == "plain"
    for name, style in STYLES.items():
        assert detect_style(f"{{{{ x }}}} {style.marker} {{{{ y }}}}") == name


def test_a_tokenizer_without_chatml_does_not_chat(tmp_path, tokenizer_writer):
    tokenizer_writer(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text().replace("<|im_start|>", "<|start_header_id|>")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(BadInput, match="no <|im_start|>".replace("|", "[|]")):
        conversation(Tokenizer(tmp_path), [("user", "Hi")])


@pytest.mark.skipif(not QWEN3.is_dir(), reason="MINIFLEMING_DATA does not hold tokenizers/qwen3")
def test_qwen3_conversations_equal_its_own_template():
    """Conversations of up to five turns, with and without system text, reasoning and thinking."""
    theirs = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(QWEN3)
    ours = Tokenizer(QWEN3)
    assert style_of(ours) == "qwen3" and ours.end_ids == [theirs.convert_tokens_to_ids("<|im_end|>")]
    answers = ["Gout.", "<think>\nuric acid\n</think>\n\nGout.", "<think>a</think><answer>B</answer>", "</think>x",
               "<think>one</think> two <think>three</think>\n\nfour", ""]
    count = 0
    for system, first, second, third in itertools.product(["", "Be brief."], answers, answers, [None, "Why?"]):
        talk = [("user", "Q1"), ("assistant", first), ("user", "Q2\n\n"), ("assistant", second)]
        talk = [("system", system)] * bool(system) + talk + [("user", third)] * bool(third)
        messages = [{"role": role, "content": text} for role, text in talk]
        for thinking in (True, False):
            wanted = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True,
                                                enable_thinking=thinking)
            assert conversation(ours, talk, thinking) == wanted, talk
            count += 1
    assert count == 288
