"""Text to ids and back, the end tokens, and the prompt of a question.

From ``tokenizer_config.json`` come the style of the chat format (chat.py) and ``minifleming`` (optional), the way this
model is asked: {"instruction": ..., "option": "{label}. {text}"}. It travels with the weights, so training,
evaluation and chat always ask alike. A model has one end token or several: those that ``tokenizer_config.json``,
``generation_config.json`` and ``config.json`` name, the one that ends a turn of the chat first. Nothing is ever
inferred from a padding id: batches carry lengths.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer as Backend

from minifleming.lm.chat import Message, detect_style, render_chat, single_turn
from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

INSTRUCTION = (
    "Answer the multiple-choice question. Reason first inside <think></think>, then give the label of one option "
    "inside <answer></answer>, and nothing else."
)
OPTION = "{label}. {text}"
TURN_END = "<|im_end|>"
TAG = re.compile(r"<(?=/?(?:think|answer)\b|\|)", re.IGNORECASE)


class Tokenizer:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        path = self.folder / "tokenizer.json"
        if not path.is_file():
            raise BadInput("no such file", path)
        try:
            self.backend = Backend.from_file(str(path))
        except Exception as error:  # the tokenizers package raises bare Exception
            raise BadInput(f"not a readable tokenizer: {error}", path) from None
        config_path = self.folder / "tokenizer_config.json"
        config = read_json(config_path) if config_path.exists() else {}
        if not isinstance(config, dict):
            raise BadInput("not a JSON object", config_path)
        self.instruction, self.option = _asking(config.get("minifleming", {}), config_path)
        self.end_ids = self._ends(config.get("eos_token"))
        if not self.end_ids:
            raise BadInput("no end token: 'eos_token' is missing or unknown", config_path)
        template = config.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = next((t.get("template") for t in template if isinstance(t, dict)), "")
        self.style = detect_style(template if isinstance(template, str) else "")
        special = [token.content for token in self.backend.get_added_tokens_decoder().values() if token.special]
        others = [f"{re.escape(s[0])}(?={re.escape(s[1:])})" for s in special if not TAG.match(s)]
        self._control = re.compile("|".join([TAG.pattern, *others]), re.IGNORECASE)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Special tokens are kept: the verdict on a completion must see them."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def prompt(self, question: str, options: dict[str, str]) -> str:
        """A question as the model is asked it. Tags inside question and options are made harmless."""
        self._chatml()
        lines = [self._harmless(question)]
        lines += [self.option.format(label=k, text=self._harmless(v)) for k, v in options.items()]
        return single_turn(self.instruction, "\n".join(lines))

    def conversation(self, messages: list[Message], thinking: bool = True) -> str:
        """A chat in the style of this folder's template, up to where the assistant's next turn begins."""
        self._chatml()
        return render_chat(messages, self.style, thinking)

    def _chatml(self) -> None:
        if self.backend.token_to_id("<|im_start|>") is None:
            raise BadInput("the tokenizer has no <|im_start|>: it is not one of a ChatML model", self.folder)

    def _ends(self, named) -> list[int]:
        """End tokens as ids: the end of a turn, then what the folder's three configurations name."""
        names = named if isinstance(named, list) else [TURN_END, named]
        names = [name.get("content") if isinstance(name, dict) else name for name in names]
        ids = [self.backend.token_to_id(name) for name in names if isinstance(name, str)]
        for file in ("generation_config.json", "config.json"):
            path = self.folder / file
            raw = read_json(path) if path.exists() else {}
            given = raw.get("eos_token_id") if isinstance(raw, dict) else None
            ids += given if isinstance(given, list) else [given]
        size = self.backend.get_vocab_size()
        return list(dict.fromkeys(i for i in ids if type(i) is int and 0 <= i < size))

    def _harmless(self, text: str) -> str:
        """No tag of the format, and no control token, can come in through a question: a space breaks them."""
        return self._control.sub(lambda match: match[0] + " ", text)


def _asking(ask: dict, path: Path) -> tuple[str, str]:
    """The instruction, and the line of an option, which must show its label and its text."""
    try:
        instruction, option = ask.get("instruction", INSTRUCTION), ask.get("option", OPTION)
        line = option.format(label="\1", text="\2")
        if isinstance(instruction, str) and "\1" in line and "\2" in line:
            return instruction, option
    except (AttributeError, LookupError, TypeError, ValueError):
        pass
    raise BadInput("'minifleming' needs an 'instruction' and an 'option' with {label} and {text}", path)
