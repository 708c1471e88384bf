"""A conversation at the terminal; reasoning and answer appear as they are sampled.

Research software. Not for clinical use.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from minifleming.extras.chat.styles import Message, conversation
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate_stream
from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.errors import BadInput

SECTIONS = {"<think>": "reasoning", "</think>": "answer", "<answer>": "answer",
            "</answer>": "answer"}
TAG = re.compile(f"({'|'.join(SECTIONS)})")


class Display:
    """Writes text in labelled sections; the possible beginning of a tag waits for what follows."""

    def __init__(self, write: Callable[[str], object]):
        self.write = write
        self.waiting = ""
        self.section = "answer"
        self.shown = ""  # section whose label was written last

    def feed(self, piece: str) -> None:
        *parts, rest = TAG.split(self.waiting + piece)
        for part in parts:
            if part in SECTIONS:
                self.section = SECTIONS[part]
            else:
                self.show(part)
        start = rest.rfind("<")
        if start < 0 or not any(tag.startswith(rest[start:]) for tag in SECTIONS):
            start = len(rest)
        self.show(rest[:start])
        self.waiting = rest[start:]

    def close(self, reason: str = "") -> None:
        self.show(self.waiting)
        self.write((f" [{reason}]" if reason else "") + "\n")

    def show(self, text: str) -> None:
        if self.shown != self.section:
            text = text.lstrip()
            if not text:
                return
            self.write(("\n" if self.shown else "") + f"{self.section}: ")
            self.shown = self.section
        self.write(text)


def talk(model: LanguageModel, tokenizer: Tokenizer, params: SamplingParams, *, system: str,
         history: bool, thinking: bool) -> int:
    """Reads a line and answers it until an empty line or the end of input.

    Every line is a question of its own, as in training; with ``history`` it continues the
    conversation. "\\n" in a line is a line break. Ctrl-C stops the answer that is being written; at
    the prompt it ends the program.
    """
    print("Research software, not for clinical use. An empty line ends.")
    opening = [("system", system)] if system else []
    past: list[Message] = []
    for number in count(1):
        try:
            line = input("> ").strip().encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except EOFError:
            line = ""
        if not line:
            break
        question = ("user", line.replace("\\n", "\n"))
        prompt = tokenizer.encode(conversation(tokenizer, [*opening, *past, question], thinking))
        try:
            text = answer(model, tokenizer, prompt, f"{number}\x1f{line}", params)
        except BadInput as error:  # the question is too long; the conversation goes on
            print(f"{error}; earlier turns are forgotten" if past else error, file=sys.stderr)
            past.clear()
            continue
        if history:
            past += [question, ("assistant", text)]
    return 0


def answer(model: LanguageModel, tokenizer: Tokenizer, prompt: list[int], key: str,
           params: SamplingParams) -> str:
    """Samples one completion and shows it as it comes. Returns its text without the end token."""
    display = Display(lambda text: print(text, end="", flush=True))
    text, reason, shown = "", "", 0
    try:
        for (row,) in generate_stream(model, [prompt], [key], replace(params, sync_every=1)):
            text = tokenizer.decode(row.ids[: len(row.ids) - row.finished])
            if not text.endswith("\ufffd") or row.ended:  # otherwise a character is incomplete
                display.feed(text[shown:])
                shown = len(text)
            if row.truncated:
                reason = "stopped at the longest length"
    except KeyboardInterrupt:
        reason = "stopped"
    display.close(reason)
    return text
