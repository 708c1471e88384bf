"""Alarms: what a run stops for, and what it says aloud and goes on. Pure functions of a step's figures.

Silent failure is the usual one: nearly all completions truncated, or every group of constant reward, and the run
"succeeds". Nothing here touches reward or loss. What is not finite is refused in update.py, before it gets anywhere.
"""

from __future__ import annotations

from minifleming.run.fields import RL, Alarms


def stops(figures: dict, cfg: Alarms, rl: RL) -> str | None:
    """Why this step must not be trained on, or None."""
    if figures["finished"] == 0:
        return (f"no end token in any of {figures['prompts'] * figures['samples']} samples: the model never ends its "
                f"turn, or rl.max_new_tokens {rl.max_new_tokens} is too short for it")
    if 1 - figures["finished"] >= cfg.truncated:
        return (f"{100 * (1 - figures['finished']):.0f} % of the samples are truncated at rl.max_new_tokens "
                f"{rl.max_new_tokens} (alarms.truncated {cfg.truncated})")
    return None


def warnings(figures: dict, gold: list[str], history: list[list[float]], cfg: Alarms) -> dict[str, str]:
    """Alarm -> what is wrong. ``gold``: the right label of each prompt; ``history``: (format, accuracy) of the last
    steps, this one the last."""
    found = {}
    if figures["sparsity"] >= cfg.constant:
        found["constant_groups"] = (f"{100 * figures['sparsity']:.0f} % of the groups have constant reward and teach "
                                    f"nothing (all right {figures['all_right']:.2f}, all wrong "
                                    f"{figures['all_wrong']:.2f})")
    answered = sum(figures["letters"].values())
    for letter, count in figures["letters"].items():
        right = sum(label == letter for label in gold) / len(gold)
        if count / answered >= cfg.letter > right:
            found["one_letter"] = (f"{100 * count / answered:.0f} % of the answers are {letter}, which is right for "
                                   f"{100 * right:.0f} % of the questions")
    if len(history) == cfg.window and figures["format"] >= cfg.format and _flat(history, cfg):
        found["flat"] = (f"the format is kept ({figures['format']:.2f}) and accuracy is flat at "
                         f"{figures['accuracy']:.2f} over {cfg.window} steps")
    return found


def _flat(history: list[list[float]], cfg: Alarms) -> bool:
    """Accuracy below certainty, and no better in the later half of the window than in the earlier one."""
    accuracy = [step[1] for step in history]
    half = len(accuracy) // 2
    early, late = sum(accuracy[:half]) / half, sum(accuracy[half:]) / (len(accuracy) - half)
    return late < cfg.format and late - early < cfg.flat
