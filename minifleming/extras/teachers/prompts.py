"""What teachers are asked: one file a strategy in prompts/, with places such as {question} and {answer} in it.

    blind           the question as it is
    conditioned     the right option is told; the reasoning must not tell that it was (arXiv:2509.15279 §3.2)
    backtrack       an earlier reasoning is followed to its first wrong step, and left there
    explore         several candidates are compared
    self-correct    the mistake is made, seen and mended
    resolve         a reasoning without its question: where does it lead?
    format          how to end, for teachers that do not have the format from training

A place is filled once: braces inside a question are text.
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
    """The prompt ``name`` with its places filled. Raises KeyError for a place without a value."""
    return PLACE.sub(lambda place: values[place[1]], template(name))


def ask(item: Item, strategy: str, earlier: Trace | None = None) -> str:
    """What stands where a question would; a round of refinement shows the earlier reasoning and what it failed."""
    failed = [name for name, passed in earlier.checks.items() if not passed] if earlier else []
    reasoning = earlier.reasoning.strip() if earlier else ""
    return fill(strategy, question=item.question, answer=item.answer, option=item.options[item.answer],
                reasoning=reasoning, failed=", ".join(failed) or "no reason is known")


def listing(options: dict[str, str]) -> str:
    return "\n".join(f"{label}. {text}" for label, text in options.items())


def read_completion(text: str, labels: str) -> tuple[str, str]:
    """Reasoning and label of what a teacher wrote: in the strict format, or prose that ends in an answer block.

    A label that is none of the item's, or none at all: "". What follows the last answer block is not reasoning.
    """
    found = list(ANSWER.finditer(text))
    label = found[-1][1] if found and found[-1][1] in labels else ""
    before = text[: found[-1].start()] if found else text
    return reasoning_of(before) or before.replace("<think>", " ").replace("</think>", " ").strip(), label
