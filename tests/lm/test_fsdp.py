"""Tests for lm/fsdp.py: a sharded model has the weights, gradients, steps, checkpoints and samples of one rank."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from minifleming.lm import optimizer as optim
from minifleming.lm import tensor_files
from minifleming.lm.fsdp import (
    activation_checkpointing,
    apply_fsdp,
    full_tensor,
    gathered_copy,
    local_row_range,
    pad_batches_across_ranks,
    to_local,
)
from minifleming.lm.pack import dummy_forward
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_model, save_model, weights_checksum
from minifleming.run import distributed
from minifleming.run.errors import BadInput
from tests.lm.conftest import group_logprobs
from tests.ranks import on_ranks

pytestmark = pytest.mark.slow  # several processes each

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [9, 8], [3, 3, 3, 3], [11]]
OWNERS = [0, 0, 1, 2, 2, 2, 3]
COMPLETIONS = [[1, 2], [4, 5, 6, 7], [2], [8], [8, 9, 10], [11, 12], [13, 1, 2]]
LAYOUTS = [(2, 0), (4, 0), (4, 2)]  # ranks, ranks a copy of the model is spread over


def batches() -> list[tuple]:
    """One a prompt: four, which three ranks or two do not share evenly."""
    return [([prompt], [0] * OWNERS.count(i), [c for c, o in zip(COMPLETIONS, OWNERS) if o == i])
            for i, prompt in enumerate(PROMPTS)]


def train(model, steps: int, mine: list[tuple], recompute: bool = False):
    """AdamW on -Σ log π; -> (gradients of the first step, optimizer)"""
    optimizer, first = optim.adamw(model, 1e-2, (0.9, 0.95), 0.1), None
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        with activation_checkpointing(model, recompute):
            for batch in pad_batches_across_ranks(mine, model):
                loss = -group_logprobs(model, *batch)[0].sum() / 17 if batch else dummy_forward(model).sum() * 0
                loss.backward()
        if not model.sharded:
            distributed.sum_gradients(list(model.parameters()))
        first = first or {n: full_tensor(p.grad.detach()).clone() for n, p in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    return first, optimizer


@pytest.fixture
def toy_tokenizer(tokenizer_folder) -> Tokenizer:
    return Tokenizer(tokenizer_folder)


def sharded_run(rank: int, folder, tokenizer, size: int, recompute: bool) -> None:
    model = load_model(folder / "model", device=CPU, shard=lambda m: apply_fsdp(m, size, torch.float32, CPU))
    for name, parameter in model.named_parameters():
        rows = local_row_range(parameter)
        assert torch.equal(to_local(parameter), full_tensor(parameter)[rows]), name
    before = weights_checksum(model)
    if model.config.tie_word_embeddings:
        assert model.lm_head.weight is model.model.embed_tokens.weight
    gradient, optimizer = train(model, 2, distributed.shard_list(batches()), recompute)
    home = folder / "out" if rank == 0 else None
    save_model(model, tokenizer, home)
    tensor_files.MAX_FILE_BYTES = 20_000  # this process ends with the run
    optim.save_optimizer(optimizer, model, home)
    after = weights_checksum(model)
    distributed.barrier()
    with gathered_copy(model) as copy:
        assert weights_checksum(copy) == after
    again = load_model(folder / "out", device=CPU, shard=lambda m: apply_fsdp(m, size, torch.float32, CPU))
    resumed = optim.adamw(again, 1e-2, (0.9, 0.95), 0.1)
    optim.load_optimizer(resumed, again, folder / "out")
    for a, b in zip(model.parameters(), again.parameters()):
        assert torch.equal(to_local(a), to_local(b))
        for what, value in optimizer.state[a].items():
            assert torch.equal(to_local(value), to_local(resumed.state[b][what])), what
    for which, its in ((model, optimizer), (again, resumed)):  # and on they go alike
        its.zero_grad(set_to_none=True)
        group_logprobs(which, *batches()[0])[0].sum().backward()
        its.step()
    assert all(torch.equal(to_local(a), to_local(b)) for a, b in zip(model.parameters(), again.parameters()))
    save_file(gradient, folder / f"gradient.{rank}.safetensors")
    (folder / f"{rank}.json").write_text(json.dumps([before, after]))


def bf16_gradients(rank: int, folder) -> None:
    """Of a model that gathers its weights in bf16, as the large recipes do: as it is, and recomputed."""
    for recompute in (False, True):
        model = load_model(folder / "model", device=CPU, shard=lambda m: apply_fsdp(m, 0, torch.bfloat16, CPU))
        gradient, _ = train(model, 1, distributed.shard_list(batches()[:2]), recompute)  # one each
        save_file(gradient, folder / f"{rank}.{recompute}.safetensors")


def test_sharded_in_bf16_the_gradient_is_near_and_fp32(tiny, kind, toy_tokenizer, tmp_path):
    alone = tiny(kind)
    save_model(alone, toy_tokenizer, tmp_path / "model")
    wanted, _ = train(alone, 1, batches()[:2])
    assert on_ranks(2, bf16_gradients, tmp_path) == [0, 0]
    found = [load_file(tmp_path / f"{rank}.{recompute}.safetensors") for rank in (0, 1) for recompute in (False, True)]
    for other in found[1:]:
        assert all(torch.equal(found[0][name], other[name]) for name in wanted)
    sums = torch.cat([g.flatten() for g in found[0].values()])
    assert sums.dtype == torch.float32 and (sums != sums.bfloat16()).float().mean() > 0.3, "added over ranks in fp32"
    far = torch.cat([(found[0][name] - wanted[name]).flatten() for name in wanted]).norm()
    assert 1e-3 < far / torch.cat([g.flatten() for g in wanted.values()]).norm() < 0.1  # bf16 keeps 3 digits of each


@pytest.mark.parametrize("recompute", [False, True], ids=["", "recomputed"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("ranks", "size"), LAYOUTS)
def test_T30_a_sharded_model_takes_the_steps_of_one_rank(tiny, toy_tokenizer, tmp_path, ranks, size, tied,
                                                     recompute):
    """Vocabulary and widths that the ranks do not divide, a tied head, ranks with fewer batches than others."""
    alone = tiny("qwen3", tie_word_embeddings=tied)
    save_model(alone, toy_tokenizer, tmp_path / "model")
    before = weights_checksum(alone)
    assert on_ranks(ranks, sharded_run, tmp_path, toy_tokenizer, size, recompute) == [0] * ranks
    gradient, optimizer = train(alone, 2, batches())
    for rank in range(ranks):
        found = load_file(tmp_path / f"gradient.{rank}.safetensors")
        assert found.keys() == gradient.keys()
        for name, g in gradient.items():
            assert (found[name] - g).abs().max() <= 1e-6, name
        assert json.loads((tmp_path / f"{rank}.json").read_text())[0] == before
    there = load_model(tmp_path / "out")  # what several ranks wrote, one rank reads
    assert weights_checksum(there) == json.loads((tmp_path / "0.json").read_text())[1]
    for a, b in zip(alone.parameters(), there.parameters()):
        assert (a - b).abs().max() <= 1e-5
    assert len(tensor_files.weight_files(tmp_path / "out", "optimizer")) > 1
    resumed = optim.adamw(there, 1e-2, (0.9, 0.95), 0.1)
    optim.load_optimizer(resumed, there, tmp_path / "out")
    for a, b in zip(alone.parameters(), there.parameters()):
        for what, value in optimizer.state[a].items():
            assert (value - resumed.state[b][what]).abs().max() <= 1e-5


def sharded_samples(rank: int, folder, size: int) -> None:
    model = load_model(folder / "model", device=CPU, shard=lambda m: apply_fsdp(m, size, torch.float32, CPU))
    mine = PROMPTS[: rank + 1] if rank != 1 else []  # one rank has nothing at all to do
    params = SamplingParams(6 + 5 * rank, [0], samples=3, seed=1, max_num_seqs=4)
    keys = [str(i) for i in range(len(mine))]
    with gathered_copy(model) as copy:
        gathered = generate(copy, mine, keys, params)
    train(model, 1, distributed.shard_list(batches()))  # gathering for the copy does not disturb training
    (folder / f"{rank}.json").write_text(json.dumps([c.ids for c in gathered]))


@pytest.mark.parametrize(("ranks", "size"), LAYOUTS)
def test_T27_ranks_sample_unequal_prompts_from_gathered_copies(tiny, toy_tokenizer, tmp_path, ranks, size):
    alone = tiny("qwen2")
    save_model(alone, toy_tokenizer, tmp_path / "model")
    assert on_ranks(ranks, sharded_samples, tmp_path, size) == [0] * ranks
    for rank in (r for r in range(ranks) if r != 1):
        params = SamplingParams(6 + 5 * rank, [0], samples=3, seed=1, max_num_seqs=4)
        expected = generate(alone, PROMPTS[: rank + 1], [str(i) for i in range(rank + 1)], params)
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [c.ids for c in expected]


def odd_groups(rank: int, folder) -> None:
    try:
        load_model(folder / "model", device=CPU, shard=lambda m: apply_fsdp(m, 3, torch.float32, CPU))
    except BadInput as error:
        (folder / str(rank)).write_text(str(error))


def test_groups_that_do_not_divide_the_ranks_are_refused(tiny, toy_tokenizer, tmp_path):
    save_model(tiny("qwen2"), toy_tokenizer, tmp_path / "model")
    assert on_ranks(2, odd_groups, tmp_path) == [0, 0]
    assert (tmp_path / "1").read_text() == "run.fsdp_size: 2 ranks are no whole number of groups of 3"
