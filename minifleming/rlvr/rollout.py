"""Rollouts: k completions of each prompt, verified, rewarded and compared within their group.

The second half of the file packs rollouts into micro-batches and lays their numbers out as rows.
Shapes: B completions, T tokens of the longest, M tokens in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import Group, Pack, pack_groups
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.rlvr.objective import advantages, objective_of, sample_std
from minifleming.rlvr.reward import reward_terms, verify_answer
from minifleming.rods.answer import Verdict
from minifleming.rods.item import Item
from minifleming.run import distributed
from minifleming.run.fields import RL


@dataclass(slots=True)
class Rollout:
    """One completion y_i of a prompt x, with everything needed to compute its part of the loss."""

    item: Item
    pool: str  # the tier or mined class that the item was drawn from
    sample: int
    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]  # of the sampler
    finished: bool
    verdict: Verdict
    reward_terms: dict[str, float]
    reward: float
    group_mean: float = 0.0
    advantage: float = 0.0
    denominator: int = 0
    coefficient: float | list[float] = 0.0  # dL/dlogπ of each token, in the first update
    trained_logprobs: list[float] = field(default_factory=list)  # of the trainer, before the step
    reference_logprobs: list[float] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        return self.verdict.label == self.item.answer


Groups = list[list[Rollout]]


def roll_out(model: LanguageModel, tokenizer: Tokenizer, drawn: list[tuple[Item, str]], cfg: RL, *,
             samples: int, seed: int, step: int) -> Groups:
    """Returns this rank's groups: ``samples`` rollouts of each item, with their advantages.

    Args:
        drawn: the items of all ranks, each with the pool that it was drawn from.
        seed, step: key the random numbers, together with the item id and the sample index.
    """
    mine = distributed.shard_list(drawn)
    prompts = [tokenizer.encode(tokenizer.prompt(item.question, item.options)) for item, _ in mine]
    groups: Groups = [[] for _ in mine]
    with distributed.raise_on_all_ranks(model.device):
        params = SamplingParams(cfg.max_new_tokens, tokenizer.end_ids, samples=samples,
                                temperature=cfg.temperature, seed=seed, step=step,
                                max_num_seqs=cfg.max_num_seqs)
        completions = generate(model, prompts, [item.id for item, _ in mine], params)
        for c in completions:
            item, pool = mine[c.prompt]
            verdict = verify_answer(tokenizer, c.ids, c.finished, item.labels)
            terms = reward_terms(verdict, item.answer, cfg)
            groups[c.prompt].append(Rollout(
                item, pool, c.sample, prompts[c.prompt], c.ids, round_to_9_digits(c.logprobs),
                c.finished, verdict, terms, sum(terms.values())))
    set_advantages(groups, cfg, model.device)
    return groups


def set_advantages(groups: Groups, cfg: RL, device: torch.device | str) -> None:
    """Sets the mean reward and the advantages of every group."""
    scale = objective_of(cfg).advantage
    batch_std = 0.0
    if scale == "batch":
        rewards = []
        for group in groups:
            rewards.append([r.reward for r in group])
        batch_std = sample_std(sum(distributed.all_gather(rewards, device), []))
    for group in groups:
        values = [r.reward for r in group]
        for rollout, advantage in zip(group, advantages(values, scale, batch_std)):
            rollout.group_mean = sum(values) / len(values)
            rollout.advantage = advantage


def round_to_9_digits(logprobs: list[float]) -> list[float]:
    """Returns fp32 numbers as the nine digits that identify them, so that the log is exact."""
    return [float(f"{p:.9g}") for p in logprobs]


def flatten(groups: Groups) -> list[Rollout]:
    return sum(groups, [])


def micro_batches(groups: Groups, tokens: int) -> list[tuple[Pack, list[Rollout]]]:
    """Returns packs of at most ``tokens`` tokens (or one completion), and their rollouts."""
    parts: Groups = []
    sequences = []
    for group in groups:
        for part in split_group(group, tokens):
            parts.append(part)
            sequences.append(Group(part[0].prompt_ids, [r.completion_ids for r in part]))
    made = []
    for pack in pack_groups(sequences, tokens):
        made.append((pack, flatten(map(parts.__getitem__, pack.group_ids))))
    return made


def split_group(group: list[Rollout], tokens: int) -> Groups:
    """Splits a group into parts of at most ``tokens`` tokens, or one completion."""
    parts: Groups = []
    room = 0
    for r in group:
        if not parts or room < len(r.completion_ids) - 1:
            parts.append([])
            room = tokens - len(r.prompt_ids)
        parts[-1].append(r)
        room -= len(r.completion_ids) - 1
    return parts


def pad_to_rows(rollouts: list[Rollout], flat: Tensor) -> tuple[Tensor, Tensor]:
    """Returns one row per completion, and the mask of its tokens. flat [M] -> [B, T], [B, T]"""
    lengths = torch.tensor([len(r.completion_ids) for r in rollouts], device=flat.device)
    mask = torch.arange(int(lengths.max()), device=flat.device) < lengths[:, None]
    rows = torch.zeros(mask.shape, dtype=torch.float64, device=flat.device)
    rows[mask] = flat
    return rows, mask


def stored_rows(rollouts: list[Rollout], field: str, device: torch.device) -> Tensor:
    """Returns stored log-probabilities as rows. [B, T]"""
    flat = []
    for r in rollouts:
        flat += getattr(r, field)
    return pad_to_rows(rollouts, torch.tensor(flat, dtype=torch.float64, device=device))[0]


def set_logprobs(rollouts: list[Rollout], flat: list[float], field: str) -> None:
    start = 0
    for r in rollouts:
        stop = start + len(r.completion_ids)
        setattr(r, field, flat[start:stop])
        start = stop
