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
        ask = config.get("minifleming", {})
        self.instruction = ask.get("instruction", INSTRUCTION)
        self.option = ask.get("option", OPTION)
        names = config.get("eos_token")
        names = names if isinstance(names, list) else [names, "<|im_end|>"]
        names = [name["content"] if isinstance(name, dict) else name for name in names]
        ids = [self.backend.token_to_id(name) for name in names if name]
        self.end_ids = list(dict.fromkeys(i for i in ids if i is not None))
        if not self.end_ids:
            raise BadInput("no end token: 'eos_token' is missing or unknown", config_path)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Special tokens are kept: the verdict on a completion must see them."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def prompt(self, question: str, options: dict[str, str]) -> str:
        """A question as the model is asked it. Tags inside question and options are made harmless."""
        lines = [_harmless(question)]
        lines += [self.option.format(label=k, text=_harmless(v)) for k, v in options.items()]
        return chat(self.instruction, "\n".join(lines))


def chat(system: str, user: str) -> str:
    """One turn of ChatML, as the Qwen templates render it, up to where the assistant begins."""
    head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    return f"{head}<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def completion(reasoning: str, answer: str) -> str:
    """The format that the strict parser accepts, without the end token."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def _harmless(text: str) -> str:
    """No tag of the format, and no control token, can come in through a question."""
    return TAG.sub("< ", text)
