"""Conversations as the chat templates of our model families render them, in plain Python.

For conversations without tools the templates differ in two things, which a ``ChatStyle`` holds. No
template engine runs. A message is (role, text), the role being system, user or assistant.
"""

from __future__ import annotations

from dataclasses import dataclass

from minifleming.lm.tokenizer import ASSISTANT, Tokenizer, format_turn, read_json_if_any

Message = tuple[str, str]


@dataclass(frozen=True)
class ChatStyle:
    default_system: str = ""  # system text of a conversation without one; empty: no system turn
    drops_old_reasoning: bool = False  # from answers before the last question
    marker: str = ""  # text that occurs only in this family's chat template


QWEN2_SYSTEM = "You are a helpful assistant."
QWEN25_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
STYLES = {
    "qwen3": ChatStyle(drops_old_reasoning=True, marker="enable_thinking"),
    "qwen2.5": ChatStyle(QWEN25_SYSTEM, marker=QWEN25_SYSTEM),
    "qwen2": ChatStyle(QWEN2_SYSTEM, marker=f"system\\n{QWEN2_SYSTEM}"),
    "smollm2": ChatStyle(SMOLLM2_SYSTEM, marker="named SmolLM"),
    "plain": ChatStyle(),
}


def conversation(tokenizer: Tokenizer, messages: list[Message], thinking: bool = True) -> str:
    """A chat in the model's style, up to where the assistant's next turn begins.

    Raises BadInput if the tokenizer is not one of a ChatML model.
    """
    tokenizer.require_chatml()
    return render_chat(messages, style_of(tokenizer), thinking)


def style_of(tokenizer: Tokenizer) -> str:
    """The style of the chat template in ``tokenizer_config.json``."""
    config = read_json_if_any(tokenizer.folder / "tokenizer_config.json")
    return detect_style(str(config.get("chat_template", "")))


def detect_style(template: str) -> str:
    """The style whose marker occurs in a chat template, else "plain"."""
    for name, style in STYLES.items():
        if style.marker and style.marker in template:
            return name
    return "plain"


def render_chat(messages: list[Message], style: str = "plain", thinking: bool = True) -> str:
    """A conversation up to where the assistant's next turn begins.

    ``thinking`` False opens that turn with an empty reasoning, like Qwen3's template: the model
    answers at once.
    """
    chat_style = STYLES[style]
    roles = [role for role, _ in messages]
    if chat_style.default_system and roles[:1] != ["system"]:
        return render_chat([("system", chat_style.default_system), *messages], style, thinking)
    last_question = len(roles) - 1 - roles[::-1].index("user") if "user" in roles else -1
    text = ""
    for i, (role, content) in enumerate(messages):
        if role == "assistant" and chat_style.drops_old_reasoning:
            content = qwen3_answer(content, keep_reasoning=i > last_question)
        text += format_turn(role, content)
    return text + ASSISTANT + ("" if thinking else "<think>\n\n</think>\n\n")


def qwen3_answer(text: str, keep_reasoning: bool) -> str:
    """An assistant turn as Qwen3's template renders it; kept reasoning gets lines of its own."""
    before, closing_tag, after = text.rpartition("</think>")
    answer = after.lstrip("\n") if closing_tag else text
    if not keep_reasoning:
        return answer
    reasoning = before.partition("</think>")[0].rstrip("\n").rpartition("<think>")[2]
    return "<think>\n" + reasoning.strip("\n") + "\n</think>\n\n" + answer.lstrip("\n")
