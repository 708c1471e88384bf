"""Prompts shared by their group: the plain computation, done once a prompt, and the same bits every time."""

from __future__ import annotations

import random

import torch

from minifleming.lm.batch import Example, collate
from minifleming.lm.score import completion_logprobs
from tests.lm.conftest import group_logprobs, row_sums


def ragged(seed: int, prompts: int, completions: int, longest: int) -> tuple[list, list, list]:
    """Prompts, the owner of each completion, and completions, all of random length."""
    rng = random.Random(seed)
    given = [[rng.randrange(41) for _ in range(rng.randint(1, 9))] for _ in range(prompts)]
    owner = [rng.randrange(prompts) for _ in range(completions)]
    return given, owner, [[rng.randrange(41) for _ in range(rng.randint(1, longest))] for _ in owner]


def gradients(model, loss) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(model.parameters()))


def test_shared_prompts_are_the_plain_computation(tiny, kind):
    """Log-probabilities and the gradient of a weighted sum, in fp64, against one row per completion."""
    model = tiny(kind).double()
    prompts, owner, completions = ragged(1, 4, 13, 7)
    weight = torch.randn(13, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shared, rows = group_logprobs(model, prompts, owner, completions, 0.7)
    batch = collate([Example(prompts[p], c) for p, c in zip(owner, completions)], list(range(13)))
    plain, plain_rows = completion_logprobs(model, batch, 0.7)
    assert torch.equal(rows, plain_rows)
    torch.testing.assert_close(shared, plain, rtol=0, atol=1e-5)  # the rotary angles are fp32
    ours = gradients(model, row_sums(shared, rows, 13) @ weight.float())
    theirs = gradients(model, row_sums(plain, rows, 13) @ weight.float())
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_the_gradient_has_the_same_bits_every_time(tiny):
    """Many completions add into one prompt: a sum whose order the threads decide would differ from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = tiny()
        prompts, owner, completions = ragged(2, 3, 2000, 4)
        found = []
        for _ in range(10):
            logprobs, rows = group_logprobs(model, prompts, owner, completions)
            found.append(gradients(model, row_sums(logprobs, rows, 2000).sum()))
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other))
    finally:
        torch.set_num_threads(threads)
