"""Alarms: what a run stops for, and what it says aloud and goes on. Pure functions of a step's figures.

Silent failure is the usual one: nearly all completions truncated, or every group of constant reward, and the run
"succeeds". Nothing here touches reward or loss. What is not finite is refused in update.py, before it gets anywhere.
"""

from __future__ import annotations

from minifleming.run.fields import RL, Alarms


def evidence(ended: list[list[int]], figures: dict, cfg: Alarms) -> list[list[int]]:
    """(samples with an end token, samples) of the last steps, this one among them: as many steps as ``cfg.samples``
    samples take, or all there are."""
    count = figures["prompts"] * figures["samples"]
    ended = [*ended, [round(figures["finished"] * count), count]]
    while sum(n for _, n in ended[1:]) >= cfg.samples:
        ended = ended[1:]
    return ended


def stops(ended: list[list[int]], cfg: Alarms, rl: RL) -> str | None:
    """Why the newest step must not be trained on, or None. Fewer than ``cfg.samples`` samples stop nothing."""
    finished, count = (sum(column) for column in zip(*ended))
    if count < cfg.samples or (count - finished) / count < cfg.truncated:
        return None
    if finished == 0:
        return (f"no end token in any of {count} samples: the model never ends its turn, or rl.max_new_tokens "
                f"{rl.max_new_tokens} is too short for it")
    return (f"{100 * (count - finished) / count:.0f} % of {count} samples are truncated at rl.max_new_tokens "
            f"{rl.max_new_tokens} (alarms.truncated {cfg.truncated})")


def warnings(figures: dict, gold: list[str], history: list[list[float]], cfg: Alarms) -> dict[str, str]:
    """Alarm -> what is wrong. ``gold``: the right label of each prompt; ``history``: (format, accuracy) of the last
    steps of this stage or round (the items of another are easier or harder), this one the last."""
    found = {}
    if figures["sparsity"] >= cfg.max_zero_variance:
        found["constant_groups"] = (f"{100 * figures['sparsity']:.0f} % of the groups have constant reward and teach "
                                    f"nothing (all right {figures['all_right']:.2f}, all wrong "
                                    f"{figures['all_wrong']:.2f})")
    answered = sum(figures["letters"].values())
    for letter, count in figures["letters"].items():
        right = sum(label == letter for label in gold) / len(gold)
        if count / answered >= cfg.max_label_share > right:
            found["one_letter"] = (f"{100 * count / answered:.0f} % of the answers are {letter}, which is right for "
                                   f"{100 * right:.0f} % of the questions")
    if len(history) == cfg.window:
        kept = sum(step[0] for step in history) / cfg.window
        early, late = (_mean(half) for half in (history[: cfg.window // 2], history[cfg.window // 2 :]))
        if kept >= cfg.format > late and late - early < cfg.min_gain:
            found["flat"] = (f"the format is kept ({kept:.2f}) and accuracy is flat: {early:.2f}, then {late:.2f}, in "
                             f"the halves of the last {cfg.window} steps")
    return found


def _mean(history: list[list[float]]) -> float:
    return sum(accuracy for _, accuracy in history) / len(history)
