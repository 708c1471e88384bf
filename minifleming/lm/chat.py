"""The chat format: ChatML as the templates of our families render it, in plain Python (no template engine runs).

A message is (role, text); roles are system, user and assistant. A *style* is what the families' templates differ in
for conversations without tools: the system text that stands in when none is given, and whether the reasoning of
earlier answers is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

Message = tuple[str, str]


@dataclass(frozen=True)
class Style:
    system: str = ""  # the system turn of a conversation that brings none; empty: no such turn
    forgets: bool = False  # reasoning of answers before the last question is left out
    mark: str = ""  # words that only this family's chat template has


STYLES = {
    "qwen3": Style(forgets=True, mark="enable_thinking"),
    "qwen2.5": Style("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
                     mark="You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
    "qwen2": Style("You are a helpful assistant.", mark="system\\nYou are a helpful assistant."),
    "smollm2": Style("You are a helpful AI assistant named SmolLM, trained by Hugging Face", mark="named SmolLM"),
    "plain": Style(),
}


def detect_style(template: str) -> str:
    """The style whose mark a folder's chat template bears; plain ChatML where none does."""
    return next((name for name, style in STYLES.items() if style.mark and style.mark in template), "plain")


def single_turn(system: str, user: str) -> str:
    """One question as it is trained: up to where the assistant begins. An empty system text gives no system turn."""
    return render_chat([("system", system)] * bool(system) + [("user", user)])


def render_chat(messages: list[Message], style: str = "plain", thinking: bool = True) -> str:
    """A conversation up to where the assistant's next turn begins.

    ``thinking`` = False opens that turn with an empty reasoning, as Qwen3's template does: the model answers at once.
    """
    kind = STYLES[style]
    if kind.system and (not messages or messages[0][0] != "system"):
        messages = [("system", kind.system), *messages]
    last = max((i for i, (role, _) in enumerate(messages) if role == "user"), default=-1)
    turns = [turn(role, _shown(role, text, kind, i > last)) for i, (role, text) in enumerate(messages)]
    return "".join(turns) + "<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n")


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def format_completion(reasoning: str, answer: str) -> str:
    """The format that the strict parser accepts, without the end token."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def _shown(role: str, text: str, style: Style, after_the_last_question: bool) -> str:
    """An answer as later turns see it. Qwen3's template sets the reasoning of a last answer in lines of its own."""
    if role != "assistant" or not style.forgets:
        return text
    head, closed, tail = text.rpartition("</think>")
    answer = tail.lstrip("\n") if closed else text
    if not after_the_last_question:
        return answer
    reasoning = head.partition("</think>")[0].rstrip("\n").rpartition("<think>")[2].lstrip("\n") if closed else ""
    return "<think>\n" + reasoning.strip("\n") + "\n</think>\n\n" + answer.lstrip("\n")
