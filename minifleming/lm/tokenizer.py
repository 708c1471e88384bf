"""Text to ids and back, the chat format as plain Python, and the prompt of a question.

Two things are read from ``tokenizer_config.json``: the end tokens, and ``minifleming`` (optional), the way this
model is asked: {"instruction": ..., "option": "{label}. {text}"}. It travels with the weights, so training,
evaluation and chat always ask alike.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer as Backend

from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

INSTRUCTION = (
    "Answer the multiple-choice question. Reason first inside <think></think>, then give the label of one option "
    "inside <answer></answer>, and nothing else."
)
OPTION = "{label}. {text}"
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
        names = config.get("eos_token")
        names = names if isinstance(names, list) else [names, "<|im_end|>"]
        names = [name.get("content") if isinstance(name, dict) else name for name in names]
        ids = [self.backend.token_to_id(name) for name in names if isinstance(name, str)]
        self.end_ids = list(dict.fromkeys(i for i in ids if i is not None))
        if not self.end_ids:
            raise BadInput("no end token: 'eos_token' is missing or unknown", config_path)
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
        lines = [self._harmless(question)]
        lines += [self.option.format(label=k, text=self._harmless(v)) for k, v in options.items()]
        return chat(self.instruction, "\n".join(lines))

    def _harmless(self, text: str) -> str:
        """No tag of the format, and no control token, can come in through a question: a space breaks them."""
        return self._control.sub(lambda match: match[0] + " ", text)


def chat(system: str, user: str) -> str:
    """One turn of ChatML, as the Qwen templates render it, up to where the assistant begins."""
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def completion(reasoning: str, answer: str) -> str:
    """The format that the strict parser accepts, without the end token."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


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
