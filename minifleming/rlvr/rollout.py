"""Rollouts: k completions of each prompt, judged, rewarded, and compared within their group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.objective import advantages, deviation, objective_of
from minifleming.rlvr.reward import terms
from minifleming.rods.answer import Verdict, parse_strict
from minifleming.rods.item import Item
from minifleming.run import distributed
from minifleming.run.fields import RL


@dataclass(slots=True)
class Rollout:
    """One completion y_i of a prompt x and everything that its weight in the loss follows from."""

    item: Item
    why: str  # drawn because of this tier or mining class
    sample: int
    prompt_ids: list[int]
    ids: list[int]
    logprobs: list[float]  # of the sampler
    finished: bool
    verdict: Verdict
    terms: dict[str, float]
    reward: float
    mean: float = 0.0
    advantage: float = 0.0
    denominator: int = 0
    coefficient: float | list[float] = 0.0  # dL/dlogπ of each token, where it is first trained on
    trained: list[float] = field(default_factory=list)  # the trainer's log-probabilities before the step
    reference: list[float] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)

    @property
    def right(self) -> bool:
        return self.verdict.label == self.item.answer


def roll_out(model: LanguageModel, tokenizer: Tokenizer, drawn: list[tuple[Item, str]], cfg: RL, *, samples: int,
             seed: int, step: int, done: Callable[[int], None] = lambda n: None) -> list[list[Rollout]]:
    """This rank's share of the groups: ``samples`` rollouts of each drawn (item, why), with their advantages."""
    mine = distributed.shard_list(drawn)
    prompts = [tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item, _ in mine]
    groups: list[list[Rollout]] = [[] for _ in mine]
    with distributed.raise_on_all_ranks(model.device):
        params = SamplingParams(cfg.max_new_tokens, tokenizer.end_ids, samples=samples, temperature=cfg.temperature,
                                seed=seed, step=step, max_num_seqs=cfg.max_num_seqs)
        completions = generate(model, prompts, [item.id for item, _ in mine], params, done)
        for c in completions:
            item, why = mine[c.prompt]
            verdict = judge(tokenizer, c.ids, c.finished, item.labels)
            paid = terms(verdict, item.answer, cfg)
            groups[c.prompt].append(Rollout(item, why, c.sample, prompts[c.prompt], c.ids, short(c.logprobs),
                                            c.finished, verdict, paid, sum(paid.values())))
    compare(groups, cfg, model.device)
    return groups


def judge(tokenizer: Tokenizer, ids: list[int], finished: bool, labels: str) -> Verdict:
    """The strict verdict on the sampled ids before the end token."""
    return parse_strict(tokenizer.decode(ids[:-1] if finished else ids), labels, finished)


def compare(groups: list[list[Rollout]], cfg: RL, device) -> None:
    """Set every group's mean and advantages."""
    scale, batch = objective_of(cfg).advantage, 0.0
    if scale == "batch":
        everyone = distributed.all_gather([[r.reward for r in group] for group in groups], device)
        batch = deviation([reward for group in everyone for reward in group])
    for group in groups:
        values = [rollout.reward for rollout in group]
        for rollout, advantage in zip(group, advantages(values, scale, batch)):
            rollout.mean, rollout.advantage = sum(values) / len(values), advantage


def short(logprobs: list[float]) -> list[float]:
    """fp32 numbers by the nine digits that name them: what is logged is what was computed."""
    return [float(f"{p:.9g}") for p in logprobs]
