"""Laws of lm/pack.py: every group once, none cut, no document sees another, and the plain computation's gradient."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from minifleming.kernels import head as heads
from minifleming.kernels.head import TokenLoss
from minifleming.lm.batch import Example, collate
from minifleming.lm.fsdp import activation_checkpointing
from minifleming.lm.pack import Group, build_pack, pack_groups, packed_logprobs, packed_loss
from tests.lm.conftest import KINDS, tiny_model
from tests.lm.test_batch_and_score import END, examples, score


def groups(seed: int, count: int, most: int = 6) -> list[Group]:
    """Prompts of 1..9 tokens with 1..most completions of 1..12, whose last token is the end token."""
    rng = random.Random(seed)

    def tokens(least: int, limit: int) -> list[int]:
        return [rng.randrange(41) for _ in range(rng.randint(least, limit))]

    return [Group(tokens(1, 9), [tokens(0, 11) + [END] for _ in range(rng.randint(1, most))]) for _ in range(count)]


@pytest.mark.parametrize("seed, tokens", [(0, 1), (1, 21), (2, 64), (3, 100), (4, 10**6)])
def test_every_group_stands_once_and_whole(seed, tokens):
    """Read back from the row: prompts, completions without their last tokens, positions, what predicts what."""
    given = groups(seed, 23)
    made = pack_groups(given, tokens)
    assert Counter(i for p in made for i in p.group_ids) == Counter(range(23))
    for p in made:
        assert p.ids.shape == p.positions.shape == (1, p.segments.tokens)
        assert p.segments.tokens == sum(len(given[i]) for i in p.group_ids) and (p.segments.tokens <= tokens or
                                                                            len(p.group_ids) == 1)
        ids, positions, learned, at, number = p.ids[0].tolist(), p.positions[0].tolist(), [], 0, 0
        for group in (given[i] for i in p.group_ids):
            end = at + len(group.prompt)
            assert ids[at:end] == group.prompt and positions[at:end] == list(range(len(group.prompt)))
            last, at = end - 1, end
            for completion in group.completions:
                end = at + len(completion) - 1
                assert ids[at:end] == completion[:-1]
                assert positions[at:end] == [len(group.prompt) + t for t in range(len(completion) - 1)]
                learned += zip([last, *range(at, end)], completion, [number] * len(completion))
                at, number = end, number + 1
        assert at == len(ids)
        assert learned == list(zip(p.logit_positions.tolist(), p.labels.tolist(), p.sequence_ids.tolist()))
    assert pack_groups([], tokens) == []


def test_packs_are_full():
    """First fit: no group of a later pack would have found room in an earlier one."""
    given, tokens = groups(5, 60, most=1), 64
    made = pack_groups(given, tokens)
    for earlier in range(len(made)):
        room = tokens - made[earlier].segments.tokens
        assert all(len(given[i]) > room for later in made[earlier + 1 :] for i in later.group_ids)
    assert len(made) <= -(-sum(map(len, given)) // tokens) + 1


@pytest.mark.parametrize("rows", [1, None], ids=["a row of logits at a time", ""])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_are_those_of_the_plain_padded_computation(kind, dtype, rows, monkeypatch):
    """One row a completion, padded, all logits at once: in fp64 the same function. In fp32 the two differ by 2e-6 of
    the gradient's norm; with weights that are as sharp as these the plain one is itself 1e-6 to 4e-6 from fp64."""
    model, given = tiny_model(kind).to(dtype), groups(1, 9)
    if rows:
        monkeypatch.setattr(heads, "CPU_LOGITS", 1), monkeypatch.setattr(heads, "CPU_ROWS", rows)
        monkeypatch.setattr(heads, "ONE_CHUNK", 0)
    examples = [Example(g.prompt, c) for g in given for c in g.completions]
    made = build_pack(given, list(range(9)))
    weight = torch.randn(len(examples), generator=torch.Generator().manual_seed(0)) / len(examples)
    batch = collate(examples, list(range(len(examples))))
    rows, columns = batch.targets[:, :-1].nonzero(as_tuple=True)
    logits = model.logits(model(batch.ids[:, :-1]))[rows, columns]
    plain = logits.log_softmax(-1).gather(-1, batch.ids[rows, columns + 1, None])[:, 0]
    wanted = (weight[rows].to(dtype) * plain).sum()
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(wanted, list(model.parameters()))])
    assert torch.equal(rows, made.sequence_ids)
    logprobs, _ = packed_logprobs(model, made)
    near = 1e-12 if dtype == torch.float64 else 2e-6
    for loss, found in (((weight[rows].to(dtype) * logprobs).sum(), logprobs),
                        packed_loss(model, made, TokenLoss("weighted", weight[rows]))):
        torch.testing.assert_close(found, plain, rtol=near, atol=10 * near)
        assert loss.item() == pytest.approx(wanted.item(), abs=near * plain.abs().sum().item())
        ours = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        assert (ours - theirs).norm() <= near * theirs.norm()


def test_the_gradient_has_the_same_bits_every_time():
    """Many completions add into one prompt: a sum whose order the threads decide would differ from run to run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model, rng = tiny_model(), random.Random(2)
        given = [Group([rng.randrange(41) for _ in range(n)], [[rng.randrange(41) for _ in range(rng.randint(1, 4))]
                 for _ in range(600)]) for n in (3, 9, 1)]
        found = []
        for _ in range(6):
            logprobs, _ = packed_logprobs(model, build_pack(given, [0, 1, 2]))
            found.append(torch.autograd.grad(logprobs.sum(), list(model.parameters())))
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("kind", KINDS)
def test_each_document_scores_as_if_it_stood_alone(kind):
    """Second way: one prefix at a time, fp64 softmax."""
    given, model = examples(6, 14), tiny_model(kind)
    made = build_pack(given, list(range(14)))
    logprobs, owner = packed_logprobs(model, made)
    for row, example in enumerate(given):
        assert logprobs[owner == row].tolist() == pytest.approx(score(model, example), abs=2e-5)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_T20_perturbing_one_document_leaves_the_others_bits(kind, deterministic):
    model = tiny_model(kind)
    model.deterministic = deterministic
    given = sorted(examples(7, 12), key=len, reverse=True)
    given[4] = Example(given[3].prompt[:], given[3].completion[:])  # two of one length, in one call of attention
    given.sort(key=len, reverse=True)
    before, owner = packed_logprobs(model, build_pack(given, list(range(12))))
    for changed in range(12):
        other = given[:]
        other[changed] = Example([(t + 3) % 41 for t in given[changed].prompt], given[changed].completion[:-1] + [END])
        after, _ = packed_logprobs(model, build_pack(other, list(range(12))))
        assert torch.equal(after[owner != changed], before[owner != changed])
        assert not torch.equal(after[owner == changed], before[owner == changed])


def test_no_gradient_crosses_from_one_document_to_another():
    """The gradient of one document's loss at another's embeddings is exactly zero."""
    model, given = tiny_model("qwen3"), [Example([3, 4, 5], [6, 7, END]), Example([8, 9], [10, END]),
                                     Example([11, 12], [13, END])]
    reached = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, __, out: reached.append(out) or out.retain_grad())
    logprobs, owner = packed_logprobs(model, build_pack(given, [0, 1, 2]))
    hook.remove()
    logprobs[owner == 1].sum().backward()
    touched = reached[0].grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 5 + [True] * 3 + [False] * 3


def test_completions_of_one_prompt_do_not_see_each_other():
    """One completion changed: the others' bits stay."""
    model, given = tiny_model("llama"), groups(9, 3, most=5)
    before = packed_logprobs(model, build_pack(given, [0, 1, 2]))[0]
    number = 0
    for group in given:
        for i, completion in enumerate(group.completions):
            kept = group.completions[i]
            group.completions[i] = [(t + 5) % 41 for t in completion[:-1]] + [END]
            after, owner = packed_logprobs(model, build_pack(given, [0, 1, 2]))
            assert torch.equal(after[owner != number], before[owner != number])
            assert len(completion) == 1 or not torch.equal(after[owner == number], before[owner == number])
            group.completions[i] = kept
            number += 1


def test_activation_checkpointing_keeps_the_bits_and_frees_the_blocks():
    """Values and gradients equal; fewer bytes are saved for the way back; outside of it the model is as it was."""
    model, made = tiny_model("qwen2"), build_pack(examples(8, 9), list(range(9)))

    def once(enabled: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        model.zero_grad()
        kept: dict[int, int] = {}

        def note(x):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with activation_checkpointing(model, enabled), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            logprobs, _ = packed_logprobs(model, made)
            bytes_kept = sum(kept.values())
            logprobs.sum().backward()
        return logprobs.detach(), [p.grad.clone() for p in model.parameters()], bytes_kept

    plain, checkpointed = once(False), once(True)
    assert torch.equal(plain[0], checkpointed[0]) and all(map(torch.equal, plain[1], checkpointed[1]))
    assert checkpointed[2] < 0.6 * plain[2]
    assert all("forward" not in vars(block) for block in model.model.layers)


def test_products_in_bf16_over_fp32_weights_train_every_family(kind):
    """As a run on a GPU does: the loss and gradient of fp32 up to bf16's rounding, the gradients in fp32."""
    given, found = groups(3, 6), []
    for compute in (torch.float32, torch.bfloat16):
        model = tiny_model(kind)
        model.compute_dtype = compute
        made = build_pack(given, list(range(6)))
        loss, logprobs = packed_loss(model, made, TokenLoss("weighted", torch.full((len(made.labels),), -1 / 100)))
        loss.backward()
        assert logprobs.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (loss, gradient), (near, narrow) = found
    assert near == pytest.approx(loss, rel=0.02) and (narrow - gradient).norm() < 0.1 * gradient.norm()
