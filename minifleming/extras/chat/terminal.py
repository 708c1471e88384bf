"""A conversation at the terminal: the answer appears as it is sampled, the reasoning apart from it.

Research software. Not for clinical use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from tokenizers.decoders import DecodeStream

from minifleming.extras.chat.styles import Message, conversation
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import Completion, SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.errors import BadInput

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
SECTIONS = {"<think>": "reasoning", "</think>": "answer", "<answer>": "answer", "</answer>": "answer"}


class Display:
    """Text into sections, piece by piece: what may be the beginning of a tag waits for what follows."""

    def __init__(self, write: Callable[[str], object], colour: bool):
        self.write, self.colour = write, colour
        self.waiting, self.section, self.empty = "", "answer", True
        self.begun = False

    def feed(self, piece: str) -> None:
        self.waiting += piece
        while True:
            found = min(((self.waiting.find(tag), tag) for tag in SECTIONS if tag in self.waiting), default=None)
            if found is None:
                break
            self._show(self.waiting[: found[0]])
            self.waiting = self.waiting[found[0] + len(found[1]) :]
            self._enter(SECTIONS[found[1]])
        held = max((n for tag in SECTIONS for n in range(1, len(tag)) if self.waiting.endswith(tag[:n])), default=0)
        cut = len(self.waiting) - held
        self._show(self.waiting[:cut])
        self.waiting = self.waiting[cut:]

    def close(self, reason: str = "") -> None:
        self._show(self.waiting)
        self.write((PLAIN if self.colour else "") + (f" [{reason}]" if reason else "") + "\n")

    def _enter(self, section: str) -> None:
        if section != self.section:
            self.section, self.empty = section, True

    def _show(self, text: str) -> None:
        if self.empty:
            text = text.lstrip()
        if not text:
            return
        if self.empty:
            colour = (DIM if self.section == "reasoning" else PLAIN) if self.colour else ""
            self.write(("\n" if self.begun else "") + colour + f"{self.section}: ")
            self.empty, self.begun = False, True
        self.write(text)


def talk(model: LanguageModel, tokenizer: Tokenizer, params: SamplingParams, *, system: str, history: bool,
         thinking: bool) -> int:
    """Read a line, answer it; an empty line or the end of input ends. "\\n" in a line is a line break.

    Every line is a question of its own, as in training; with ``history`` it goes on with the conversation. Ctrl-C
    stops the answer that is being written; at the prompt it ends the program.
    """
    print("Research software, not for clinical use. An empty line ends.")
    past: list[Message] = []
    asked = 0
    while True:
        try:
            line = input("> ").strip().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except EOFError:
            line = ""
        asked += 1
        if not line:
            return 0
        opening = [("system", system)] if system else []
        messages = [*opening, *(past if history else []), ("user", line.replace("\\n", "\n"))]
        prompt = tokenizer.encode(conversation(tokenizer, messages, thinking))
        try:
            said = answer(model, tokenizer, prompt, f"{asked}\x1f{line}", params)
        except BadInput as error:  # a question too long for the model is no reason to end the conversation
            print(f"{error}; what was said before is forgotten" if history and past else error, file=sys.stderr)
            past.clear()
            continue
        past += [messages[-1], ("assistant", said)]


def answer(model: LanguageModel, tokenizer: Tokenizer, prompt: list[int], key: str,
           params: SamplingParams) -> str:
    """Sample one completion and show it as it comes. -> its text, without the end token"""
    stream, shown = DecodeStream(skip_special_tokens=False), ""
    display = Display(lambda text: print(text, end="", flush=True), sys.stdout.isatty())
    row = Completion(0, 0)
    try:
        seen = 0
        for (row,) in generate_stream(model, [prompt], [key], replace(params, sync_every=1)):
            for token in row.ids[seen : len(row.ids) - row.finished]:
                piece = stream.step(tokenizer.backend, token) or ""
                shown += piece
                display.feed(piece)
            seen = len(row.ids)
        text = _text(tokenizer, row)
        display.feed(text[len(shown) :] if text.startswith(shown) else "")  # bytes that became no letter
        display.close("stopped at the longest length" if row.truncated else "")
    except KeyboardInterrupt:
        display.close("stopped")
    return _text(tokenizer, row)


def _text(tokenizer: Tokenizer, row: Completion) -> str:
    return tokenizer.decode(row.ids[: len(row.ids) - row.finished])
