"""Do sampler and trainer agree in bf16? The captured sampler's log-probabilities against the trainer's, token by token.

    as in a run       fp32 weights, products in bf16 (autocast); the copy that samples has bf16 weights
    the same, qwen3   with norms on the heads of q and k
    bf16 weights      one model for both

The bound on the largest |difference| is that of a run (rl.max_logprob_diff: 3 in bf16). Greedy tokens of the captured
sampler are compared with those of the plain one: equal up to the first place where two logits are as good as equal. So
the tokens are also forced through the model: how far is the one taken below the largest logit?

Random weights of the 0.5B shape, or those of --model with prompts in words.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from unittest import mock

import torch

from bench.gpu.common import Bench, main, random_model
from minifleming.lm.engines import cuda_graph
from minifleming.lm.fsdp import gathered_copy
from minifleming.lm.model import LanguageModel
from minifleming.lm.pack import Group, pack_groups, packed_logprobs
from minifleming.lm.sampler import Completion, SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model
from minifleming.run.errors import run_cli

LIMIT = 3.0  # rl.max_logprob_diff in bf16
GAP = 0.25  # between logits that bf16 cannot tell apart
TOKENS = 16384  # of a pack
QUESTION = "A patient has fever, cough and a rash on the trunk. Which disease explains all of them, and why?"


def model_of(b: Bench, dtype: torch.dtype, family: str = "") -> LanguageModel:
    if family:
        return random_model(replace(b.shape("Qwen2.5-0.5B"), model_type=family), b.device, dtype)
    if b.model:
        return load_model(b.model, str(dtype).removeprefix("torch."), b.device)
    return random_model(b.shape("Qwen2.5-0.5B"), b.device, dtype)


def prompts_of(b: Bench, model: LanguageModel, count: int, words: bool) -> list[list[int]]:
    if words:
        tokenizer = Tokenizer(b.model)
        return [tokenizer.encode(f"{i} other patients were well. {QUESTION}") for i in range(count)]
    lengths = torch.randint(b.size(64, 3), b.size(200, 12), (count,)).tolist()
    return [torch.randint(model.config.vocab_size, (n,)).tolist() for n in lengths]


def drawn(b: Bench, model: LanguageModel, prompts: list[list[int]], **settings) -> list[Completion]:
    params = SamplingParams(b.size(256, 12), [], max_num_seqs=b.size(64, 8), **settings)
    return generate(model, prompts, [str(i) for i in range(len(prompts))], params)


def differences(b: Bench, trainer: LanguageModel, sampler: LanguageModel, what: str, words: bool) -> None:
    prompts = prompts_of(b, sampler, b.size(8, 3), words)
    found = drawn(b, sampler, prompts, samples=b.size(8, 3))
    groups = [Group(p, [c.ids for c in found if c.prompt == i]) for i, p in enumerate(prompts)]
    recorded = [[c.logprobs for c in found if c.prompt == i] for i in range(len(prompts))]
    gaps: list[float] = []
    for pack in pack_groups(groups, TOKENS):
        with torch.no_grad():
            scored = packed_logprobs(trainer, pack).tolist()
        sampled = [p for i in pack.group_ids for logprobs in recorded[i] for p in logprobs]
        gaps += [abs(x - y) for x, y in zip(scored, sampled, strict=True)]
    shape = f"{name_of(b, words)}, {what}, {len(gaps)} tokens"
    b.row("sampler and trainer, largest |difference| of log π", shape, max(gaps), "", aim={"most": LIMIT}, must=True)
    b.row("sampler and trainer, mean |difference| of log π", shape, statistics.fmean(gaps), "")


def name_of(b: Bench, words: bool) -> str:
    return b.model.name if words else "toy" if b.toy else "0.5B, random"


def as_in_a_run(b: Bench, family: str = "") -> None:
    trainer = model_of(b, torch.float32, family)
    trainer.compute_dtype = torch.bfloat16
    with gathered_copy(trainer) as copy:
        differences(b, trainer, copy, f"{family} fp32 weights".strip(), bool(b.model and not family))


def normed_heads(b: Bench) -> None:
    as_in_a_run(b, "qwen3")


def bf16_weights(b: Bench) -> None:
    model = model_of(b, torch.bfloat16)
    differences(b, model, model, "bf16 weights", bool(b.model))


@torch.no_grad()
def greedy(b: Bench) -> None:
    model = model_of(b, torch.bfloat16)
    prompts = prompts_of(b, model, b.size(8, 3), bool(b.model))
    fast = drawn(b, model, prompts, temperature=0.0)
    with mock.patch.object(cuda_graph, "is_supported", lambda model: False):
        plain = drawn(b, model, prompts, temperature=0.0)
    equal = sum(next((i for i, (x, y) in enumerate(zip(one.ids, two.ids)) if x != y), len(one.ids))
                for one, two in zip(fast, plain))
    total, gap, same = sum(len(c.ids) for c in fast), 0.0, 0
    for c in fast:
        ids = torch.tensor([prompts[c.prompt] + c.ids[:-1]], device=b.device)
        logits = model.logits(model(ids)[0, len(prompts[c.prompt]) - 1 :]).float()
        taken = logits.gather(1, torch.tensor(c.ids, device=b.device)[:, None])[:, 0]
        gap = max(gap, (logits.amax(1) - taken).max().item())
        same += int((logits.argmax(1) == torch.tensor(c.ids, device=b.device)).sum())
    shape = f"{name_of(b, bool(b.model))}, {len(fast)} rows, {total} tokens"
    b.row("greedy tokens equal up to the first difference, captured and plain", shape, 100 * equal / total, "%")
    b.row("greedy tokens that are the plain model's arg-max behind the same tokens", shape, 100 * same / total, "%")
    b.row("how far a greedy token is below the largest logit", shape, gap, "", aim={"most": GAP}, must=True)


MEASUREMENTS = {"as in a run": as_in_a_run, "as in a run, qwen3": normed_heads, "bf16 weights": bf16_weights,
                "greedy": greedy}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("agreement", MEASUREMENTS, argv)))
