"""Prompts for teachers: one file per strategy in prompts/, with places such as {question}.

    blind           the question as it is
    conditioned     with the right option; the reasoning must not mention it (arXiv:2509.15279 §3.2)
    backtrack       follow an earlier reasoning to its first wrong step, and leave it there
    explore         compare several candidates
    self-correct    make the mistake, notice it and correct it
    resolve         a reasoning without its question: which option does it lead to?
    format          how to end, for teachers that were not trained on the format

Places are filled once: braces inside a question are plain text.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from minifleming.cold_start.trace import Trace
from minifleming.rods.answer import reasoning_of
from minifleming.rods.item import Item

FOLDER = Path(__file__).parent / "prompts"
PLACE = re.compile(r"\{([a-z]+)\}")
ANSWER = re.compile(r"<answer>\s*(\S)\s*</answer>")


@cache
def template(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8").strip()


def fill(name: str, **values: str) -> str:
    """Returns the prompt ``name`` with its places filled. Raises KeyError for a missing value."""
    return PLACE.sub(lambda place: values[place[1]], template(name))


def ask(item: Item, strategy: str, earlier: Trace | None = None) -> str:
    """Returns the text in the question's place; a refinement round shows the earlier failure."""
    failed = []
    reasoning = ""
    if earlier:
        failed = [name for name, passed in earlier.checks.items() if not passed]
        reasoning = earlier.reasoning.strip()
    reasons = ", ".join(failed) or "no reason is known"
    option = item.options[item.answer]
    return fill(strategy, question=item.question, answer=item.answer, option=option,
                reasoning=reasoning, failed=reasons)


def listing(options: dict[str, str]) -> str:
    return "\n".join(f"{label}. {text}" for label, text in options.items())


def read_completion(text: str, labels: str) -> tuple[str, str]:
    """Returns reasoning and label of a teacher's text: strict format, or prose and answer block.

    The label is "" if there is none or it is not the item's. Text after the last answer block is
    no reasoning.
    """
    blocks = list(ANSWER.finditer(text))
    label = ""
    if blocks:
        if blocks[-1][1] in labels:
            label = blocks[-1][1]
        text = text[: blocks[-1].start()]
    prose = text.replace("<think>", " ").replace("</think>", " ").strip()
    return reasoning_of(text) or prose, label
