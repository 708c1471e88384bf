"""Text to token ids and back, the end tokens, the prompt of a question and the format of its
completion.

Prompts are ChatML, the chat format of our model families. ``tokenizer_config.json`` may have a key
``minifleming`` with the prompt's wording: {"instruction": ..., "option": "{label}. {text}"}. It is
saved with the weights, so training, evaluation and chat use the same prompt.

A model has one or more end tokens: those that ``tokenizer_config.json``, ``generation_config.json``
and ``config.json`` name, the one that ends a chat turn first. Nothing is inferred from a padding
id; batches carry lengths.
"""

from __future__ import annotations

import re
from pathlib import Path

from tokenizers import Tokenizer as Backend

from minifleming.run.checkpoint import read_json
from minifleming.run.errors import BadInput

INSTRUCTION = (
    "Answer the multiple-choice question. Reason first inside <think></think>, then give the "
    "label of one option inside <answer></answer>, and nothing else."
)
OPTION = "{label}. {text}"
TURN_END = "<|im_end|>"
ASSISTANT = "<|im_start|>assistant\n"
FORMAT_TAG = r"<(?=/?(?:think|answer)\b|\|)"


def single_turn(system: str, user: str) -> str:
    """A prompt up to where the assistant begins; an empty ``system`` gives no system turn."""
    opening = format_turn("system", system) if system else ""
    return opening + format_turn("user", user) + ASSISTANT


def format_turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def format_completion(reasoning: str, answer: str) -> str:
    """The format that the strict parser accepts, without the end token."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


class Tokenizer:
    def __init__(self, folder: Path):
        """Raises BadInput for a missing or unreadable file, and if there is no end token."""
        self.folder = Path(folder)
        path = self.folder / "tokenizer.json"
        try:
            self.backend = Backend.from_file(str(path))
        except Exception as error:  # the tokenizers package raises bare Exception
            raise BadInput(f"not a readable tokenizer: {error}", path) from None
        config_path = self.folder / "tokenizer_config.json"
        config = read_json_if_any(config_path)
        self.instruction, self.option_format = read_wording(config, config_path)
        self.end_ids = self.find_end_ids(config.get("eos_token"))
        if not self.end_ids:
            raise BadInput("no end token: 'eos_token' is missing or unknown", config_path)
        self.control_start = control_pattern(self.backend)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Keeps special tokens, which the answer parser must see."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def prompt(self, question: str, options: dict[str, str]) -> str:
        """The prompt of a question.

        Control tokens in question and options are broken with a space.
        """
        self.require_chatml()
        lines = [self.escape(question)]
        for label, text in options.items():
            lines.append(self.option_format.format(label=label, text=self.escape(text)))
        return single_turn(self.instruction, "\n".join(lines))

    def require_chatml(self) -> None:
        if self.backend.token_to_id("<|im_start|>") is None:
            reason = "the tokenizer has no <|im_start|>: it is not one of a ChatML model"
            raise BadInput(reason, self.folder)

    def escape(self, text: str) -> str:
        return self.control_start.sub(r"\g<0> ", text)

    def find_end_ids(self, eos_token) -> list[int]:
        """The end of a chat turn, then those of the three configurations, without duplicates."""
        candidates = []
        for token in eos_token if isinstance(eos_token, list) else [TURN_END, eos_token]:
            text = token.get("content") if isinstance(token, dict) else token
            if isinstance(text, str):
                candidates.append(self.backend.token_to_id(text))
        for file in ("generation_config.json", "config.json"):
            ids = read_json_if_any(self.folder / file).get("eos_token_id")
            candidates += ids if isinstance(ids, list) else [ids]
        size = self.backend.get_vocab_size()
        valid = [id for id in candidates if type(id) is int and 0 <= id < size]
        return list(dict.fromkeys(valid))


def control_pattern(backend: Backend) -> re.Pattern:
    """Matches the first character of a format tag or of a special token."""
    patterns = [FORMAT_TAG]
    for token in backend.get_added_tokens_decoder().values():
        text = token.content
        if token.special:
            patterns.append(f"{re.escape(text[0])}(?={re.escape(text[1:])})")
    return re.compile("|".join(patterns), re.IGNORECASE)


def read_json_if_any(path: Path) -> dict:
    """The object in a file; {} if there is no file."""
    return read_json(path) if path.exists() else {}


def read_wording(config: dict, path: Path) -> tuple[str, str]:
    """Instruction and option format. Raises BadInput unless the format shows label and text."""
    wording = config.get("minifleming", {})
    try:
        instruction = wording.get("instruction", INSTRUCTION)
        option_format = wording.get("option", OPTION)
        line = option_format.format(label="\1", text="\2")
        if isinstance(instruction, str) and "\1" in line and "\2" in line:
            return instruction, option_format
    except (AttributeError, LookupError, TypeError, ValueError):
        pass
    reason = "'minifleming' needs an 'instruction' and an 'option' with {label} and {text}"
    raise BadInput(reason, path)
