"""Rollouts: k completions of each prompt, judged, rewarded, and compared within their group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import sample
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.objective import advantages
from minifleming.rlvr.reward import reward
from minifleming.rods.answer import Verdict, parse_strict
from minifleming.rods.item import Item
from minifleming.run import parallel
from minifleming.run.fields import RL


@dataclass(slots=True)
class Rollout:
    """One completion y_i of a prompt x and everything that its weight in the loss follows from."""

    item: Item
    why: str  # drawn because of this tier or mining class
    sample: int
    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]
    finished: bool
    verdict: Verdict
    reward: float
    mean: float = 0.0
    advantage: float = 0.0

    @property
    def right(self) -> bool:
        return self.verdict.label == self.item.answer


def roll_out(model: LanguageModel, tokenizer: Tokenizer, drawn: list[tuple[Item, str]], cfg: RL, *, samples: int,
             seed: int, step: int, done: Callable[[int], None] = lambda n: None) -> list[list[Rollout]]:
    """This rank's share of the groups: ``samples`` rollouts of each drawn (item, why), with their advantages."""
    mine = parallel.share(drawn)
    prompts = [tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item, _ in mine]
    completions = sample(model, prompts, [item.id for item, _ in mine], samples=samples, temperature=cfg.temperature,
                         max_new_tokens=cfg.max_new_tokens, end_ids=tokenizer.end_ids, seed=seed, step=step,
                         slots=cfg.rollout_slots, done=done)
    groups = [[] for _ in mine]
    for c in completions:
        item, why = mine[c.prompt]
        text = tokenizer.decode(c.ids[:-1] if c.finished else c.ids)
        verdict = parse_strict(text, item.labels, c.finished)
        groups[c.prompt].append(Rollout(item, why, c.sample, prompts[c.prompt], c.ids, c.logprobs, c.finished,
                                        verdict, reward(verdict, item.answer, cfg)))
    for group in groups:
        values = [rollout.reward for rollout in group]
        for rollout, advantage in zip(group, advantages(values)):
            rollout.mean, rollout.advantage = sum(values) / len(values), advantage
    return groups
