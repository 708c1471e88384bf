"""Alarms: conditions that abort a run, and conditions that only print a warning.

Runs usually fail silently: nearly all completions are truncated, or every group has constant
reward, and the run "succeeds". All functions are pure functions of a step's metrics; none touches
reward or loss. Numbers that are not finite are refused in update.py.
"""

from __future__ import annotations

from minifleming.run.fields import RL, Alarms


def recent_truncation(eos_counts: list[list[int]], metrics: dict, cfg: Alarms) -> list[list[int]]:
    """Returns [samples with an end token, samples] of the last steps, the newest step included.

    Keeps as few steps as hold ``cfg.samples`` samples, or all there are.
    """
    samples = metrics["prompts"] * metrics["samples"]
    eos_counts = [*eos_counts, [round(metrics["eos_rate"] * samples), samples]]
    while sum(n for _, n in eos_counts[1:]) >= cfg.samples:
        eos_counts = eos_counts[1:]
    return eos_counts


def should_abort(eos_counts: list[list[int]], cfg: Alarms, rl: RL) -> str | None:
    """Returns the reason not to train on the newest step, or None."""
    finished, samples = (sum(column) for column in zip(*eos_counts))
    truncated = (samples - finished) / samples
    if samples < cfg.samples or truncated < cfg.truncated:
        return None
    if finished == 0:
        return (f"no end token in any of {samples} samples: the model never ends its turn, or "
                f"rl.max_new_tokens {rl.max_new_tokens} is too short for it")
    return (f"{100 * truncated:.0f} % of {samples} samples are truncated at rl.max_new_tokens "
            f"{rl.max_new_tokens} (alarms.truncated {cfg.truncated})")


def warnings(metrics: dict, answers: list[str], history: list[list[float]],
             cfg: Alarms) -> dict[str, str]:
    """Returns the warnings of a step: name -> message.

    Args:
        answers: the correct label of each prompt.
        history: [format, accuracy] of the last steps of this stage or round, the newest last.
    """
    found = {}
    constant = metrics["zero_variance_groups"]
    if constant >= cfg.max_zero_variance:
        found["constant_groups"] = (
            f"{100 * constant:.0f} % of the groups have constant reward and give no gradient "
            f"(all correct {metrics['groups_all_correct']:.2f}, "
            f"all wrong {metrics['groups_all_wrong']:.2f})")
    answered = sum(metrics["answer_labels"].values())
    for label, count in metrics["answer_labels"].items():
        share = count / answered
        correct = answers.count(label) / len(answers)
        if share >= cfg.max_label_share > correct:
            found["one_label"] = (
                f"{100 * share:.0f} % of the answers are {label}, which is correct for "
                f"{100 * correct:.0f} % of the questions")
    if len(history) == cfg.window:
        half = cfg.window // 2
        format_rate = sum(rate for rate, _ in history) / cfg.window
        early = mean_accuracy(history[:half])
        late = mean_accuracy(history[half:])
        if format_rate >= cfg.format > late and late - early < cfg.min_gain:
            found["flat"] = (
                f"the format is kept ({format_rate:.2f}) and accuracy is flat: {early:.2f}, then "
                f"{late:.2f}, in the halves of the last {cfg.window} steps")
    return found


def mean_accuracy(history: list[list[float]]) -> float:
    return sum(accuracy for _, accuracy in history) / max(len(history), 1)
