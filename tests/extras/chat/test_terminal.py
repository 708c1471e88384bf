"""The terminal: sections of a streamed text, and a conversation that can be stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minifleming.extras.chat import terminal
from minifleming.extras.chat.terminal import Display, talk
from minifleming.lm.sampler import SamplingParams
from minifleming.lm.tokenizer import Tokenizer, single_turn


def shown(pieces) -> str:
    out = []
    display = Display(out.append)
    for piece in pieces:
        display.feed(piece)
    display.close()
    return "".join(out)


@pytest.mark.parametrize("text, wanted", [
    ("<think> a so b </think><answer>C</answer>", "reasoning: a so b \nanswer: C\n"),
    ("<think>\n\n</think>\n\nGout.", "answer: Gout.\n"),
    ("no tags at all", "answer: no tags at all\n"),
    ("a < b and <i>c</i> <thin", "answer: a < b and <i>c</i> <thin\n"),
    ("<think>x <answer> y", "reasoning: x \nanswer: y\n"),
    ("", "\n"),
])
def test_sections_do_not_depend_on_the_pieces(text, wanted):
    """Whole, letter by letter, or in any pieces: the same sections, no tag shown, nothing lost."""
    assert shown([text]) == shown(text) == wanted
    for n in (2, 3, 5, 7):
        assert shown([text[i : i + n] for i in range(0, len(text), n)]) == wanted


@pytest.fixture
def speaker(tiny, tokenizer_folder):
    tokenizer = Tokenizer(tokenizer_folder)
    model = tiny(vocab_size=tokenizer.backend.get_vocab_size(), max_position_embeddings=512)
    return model, tokenizer, SamplingParams(12, tokenizer.end_ids, temperature=0.0)


def converse(speaker, monkeypatch, lines, **how) -> list[str]:
    """The prompts that the model was given, as text."""
    model, tokenizer, params = speaker
    given, turns = [], iter(lines)
    monkeypatch.setattr("builtins.input", lambda prompt: next(turns))
    plain = terminal.generate_stream

    def recorded(model, prompts, keys, params):
        given.append(tokenizer.decode(prompts[0]))
        return plain(model, prompts, keys, params)

    monkeypatch.setattr(terminal, "generate_stream", recorded)
    assert talk(model, tokenizer, params, **{"system": "S", "history": False, "thinking": True} | how) == 0
    return given


def test_every_line_is_a_question_of_its_own_unless_there_is_history(speaker, monkeypatch, capsys):
    alone = converse(speaker, monkeypatch, ["one", "two\\nlines", ""])
    assert alone == [single_turn("S", "one"), single_turn("S", "two\nlines")]
    monkeypatch.undo()
    both = converse(speaker, monkeypatch, ["one", "two", ""], history=True, thinking=False)
    assert both[0] == alone[0] + "<think>\n\n</think>\n\n"
    assert both[1].startswith(alone[0]) and both[1].count("<|im_start|>assistant") == 2
    assert "not for clinical use" in capsys.readouterr().out


def test_a_full_conversation_forgets_and_goes_on(speaker, monkeypatch, capsys):
    """After the message, the next question stands alone and is answered."""
    given = converse(speaker, monkeypatch, ["x" * 200, "y" * 200, "z" * 200, "short", ""], history=True)
    assert "forgotten" in capsys.readouterr().err and given[-1] == single_turn("S", "short")


def test_bytes_that_are_no_utf8_are_shown_as_such(speaker, monkeypatch):
    """What a terminal hands over as surrogates does not reach the tokenizer."""
    assert converse(speaker, monkeypatch, ["bad \udcff utf", ""]) == [single_turn("S", "bad \ufffd utf")]


def test_the_end_of_input_ends(speaker, monkeypatch):
    def closed(prompt):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    model, tokenizer, params = speaker
    assert talk(model, tokenizer, params, system="", history=False, thinking=True) == 0


def test_ctrl_c_stops_the_answer_and_not_the_conversation(speaker, monkeypatch, capsys):
    plain = terminal.generate_stream

    def interrupted(*args):
        for i, rows in enumerate(plain(*args)):
            if i == 3:
                raise KeyboardInterrupt
            yield rows

    monkeypatch.setattr(terminal, "generate_stream", interrupted)
    lines = iter(["one", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    model, tokenizer, params = speaker
    assert talk(model, tokenizer, replace(params, end_ids=[]), system="", history=False, thinking=True) == 0
    assert "[stopped]" in capsys.readouterr().out


def test_a_question_too_long_is_said_and_the_conversation_goes_on(speaker, monkeypatch, capsys):
    assert len(converse(speaker, monkeypatch, ["x" * 600, "short", ""])) == 2
    assert "leaves no room" in capsys.readouterr().err
