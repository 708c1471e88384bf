"""Laws of lm/pack.py: every document once, none cut, and none of them sees another."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from minifleming.lm.batch import Example
from minifleming.lm.checkpointing import activation_checkpointing
from minifleming.lm.pack import pack, packed_logprobs, packs
from tests.lm.conftest import KINDS, tiny_model
from tests.lm.test_batch_and_score import END, examples, score


@pytest.mark.parametrize("seed, tokens", [(0, 1), (1, 21), (2, 64), (3, 100), (4, 10**6)])
def test_every_document_stands_once_and_whole(seed, tokens):
    given = examples(seed, 37)
    made = packs(given, tokens)
    assert Counter(i for p in made for i in p.rows) == Counter(range(37))
    for p in made:
        assert p.ids.shape == p.positions.shape == p.targets.shape == (1, sum(p.lengths))
        assert sum(p.lengths) <= tokens or len(p.rows) == 1
        at = 0
        for i, length in zip(p.rows, p.lengths, strict=True):
            example, here = given[i], slice(at, at + length)
            assert p.ids[0, here].tolist() == example.prompt + example.completion
            assert p.positions[0, here].tolist() == list(range(length))
            assert p.targets[0, here].sum() == len(example.completion)
            assert p.targets[0, here].nonzero()[:, 0].tolist() == list(range(len(example.prompt) - 1, length - 1))
            at += length
    assert packs([], tokens) == []


def test_packs_are_full():
    """First fit: no document of a later pack would have found room in an earlier one."""
    given, tokens = examples(5, 60), 64
    made = packs(given, tokens)
    for earlier in range(len(made)):
        room = tokens - sum(made[earlier].lengths)
        assert all(length > room for later in made[earlier + 1 :] for length in later.lengths)
    least = -(-sum(map(len, given)) // tokens)
    assert len(made) <= least + 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_document_scores_as_if_it_stood_alone(kind):
    """Second way: one prefix at a time, fp64 softmax."""
    given, model = examples(6, 14), tiny_model(kind)
    made = pack(given, list(range(14)))
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
    before, owner = packed_logprobs(model, pack(given, list(range(12))))
    for changed in range(12):
        other = given[:]
        other[changed] = Example([(t + 3) % 41 for t in given[changed].prompt], given[changed].completion[:-1] + [END])
        after, _ = packed_logprobs(model, pack(other, list(range(12))))
        assert torch.equal(after[owner != changed], before[owner != changed])
        assert not torch.equal(after[owner == changed], before[owner == changed])


def test_no_gradient_crosses_from_one_document_to_another():
    """The gradient of one document's loss at another's embeddings is exactly zero."""
    model, given = tiny_model("qwen3"), [Example([3, 4, 5], [6, 7, END]), Example([8, 9], [10, END]),
                                     Example([11, 12], [13, END])]
    reached = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, __, out: reached.append(out) or out.retain_grad())
    logprobs, owner = packed_logprobs(model, pack(given, [0, 1, 2]))
    hook.remove()
    logprobs[owner == 1].sum().backward()
    touched = reached[0].grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 6 + [True] * 3 + [False] + [False] * 4


def test_activation_checkpointing_keeps_the_bits_and_frees_the_blocks():
    """Values and gradients equal; fewer bytes are saved for the way back; outside of it the model is as it was."""
    model, made = tiny_model("qwen2"), pack(examples(8, 9), list(range(9)))

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
