"""Tests for lm/pack.py: each group is packed once and whole, documents are isolated, and the log-probabilities and
gradients are those of separate rows."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from minifleming.kernels import head as heads
from minifleming.kernels.head import TokenLoss
from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.fsdp import activation_checkpointing
from minifleming.lm.pack import (
    Example,
    Group,
    Pack,
    build_pack,
    pack_groups,
    packed_logprobs,
    packed_loss,
)
from tests.lm.conftest import row_sums, sequence_ids, tiny_model
from tests.padded import collate

END = 1


def examples(seed: int, count: int, vocab: int = 41) -> list[Example]:
    """Prompts of 1..9 tokens, completions of 1..12 whose last token is the end token."""
    rng = random.Random(seed)
    return [Example([rng.randrange(vocab) for _ in range(rng.randint(1, 9))],
                    [rng.randrange(vocab) for _ in range(rng.randint(0, 11))] + [END]) for _ in range(count)]


def groups(seed: int, count: int, most: int = 6) -> list[Group]:
    """The same with 1..most completions of each prompt."""
    rng = random.Random(seed)

    def tokens(least: int, limit: int) -> list[int]:
        return [rng.randrange(41) for _ in range(rng.randint(least, limit))]

    return [Group(tokens(1, 9), [tokens(0, 11) + [END] for _ in range(rng.randint(1, most))]) for _ in range(count)]


def one_pack(given: list) -> Pack:
    return build_pack(given, list(range(len(given))))


def score(model, example: Example, temperature: float = 1.0) -> list[float]:
    """A second way: one prefix at a time, fp64 softmax."""
    ids, out = example.prompt + example.completion, []
    with torch.no_grad():
        for t in range(len(example.prompt), len(ids)):
            logits = model.logits(model(torch.tensor([ids[:t]])))[0, -1].double() / temperature
            out.append(logits.log_softmax(-1)[ids[t]].item())
    return out


def check_pack(pack, given: list[Group]) -> None:
    """Read back from the row: prompts, completions without their last tokens, positions, what predicts what."""
    ids, positions, learned, at = pack.ids[0].tolist(), pack.positions[0].tolist(), [], 0
    for group in given:
        end = at + len(group.prompt)
        assert ids[at:end] == group.prompt and positions[at:end] == list(range(len(group.prompt)))
        last, at = end - 1, end
        for completion in group.completions:
            end = at + len(completion) - 1
            assert ids[at:end] == completion[:-1]
            assert positions[at:end] == [len(group.prompt) + t for t in range(len(completion) - 1)]
            learned += zip([last, *range(at, end)], completion)
            at = end
    assert at == len(ids) == pack.segments.tokens
    assert learned == list(zip(pack.logit_positions.tolist(), pack.labels.tolist()))


def test_T17_T19_every_group_is_packed_once_and_whole():
    """Labels are the completion with its end token, and nothing else; end and padding ids within it are no exception.
    """
    for seed, max_tokens in ((0, 1), (1, 21), (2, 64), (3, 100), (4, 10**6)):
        given = groups(seed, 23) + [Group([5], [[END]]), Group([END, END, 0], [[END, 0, 0, END], [0]])]
        packs = pack_groups(given, max_tokens)
        assert Counter(i for pack in packs for i in pack.group_ids) == Counter(range(25))
        for pack in packs:
            assert pack.ids.shape == pack.positions.shape
            assert pack.segments.tokens == sum(len(given[i]) for i in pack.group_ids)
            assert pack.segments.tokens <= max_tokens or len(pack.group_ids) == 1
            check_pack(pack, [given[i] for i in pack.group_ids])
        assert pack_groups([], max_tokens) == []


def test_packs_are_full():
    """First fit: no group of a later pack would have fitted into an earlier one."""
    given, max_tokens = groups(5, 60, most=1), 64
    packs = pack_groups(given, max_tokens)
    for earlier, pack in enumerate(packs):
        room = max_tokens - pack.segments.tokens
        assert all(len(given[i]) > room for later in packs[earlier + 1 :] for i in later.group_ids)
    assert len(packs) <= -(-sum(map(len, given)) // max_tokens) + 1


def test_T14_T19_log_probabilities_by_a_second_way(kind):
    """Each document scores as by itself, one prefix at a time; the temperature divides the logits."""
    model, given = tiny_model(kind), examples(8, 6)
    for temperature in (0.7, 1.6):
        with torch.no_grad():
            logprobs = packed_logprobs(model, one_pack(given), temperature)
        wanted = [p for example in given for p in score(model, example, temperature)]
        torch.testing.assert_close(logprobs, torch.tensor(wanted), atol=2e-5, rtol=1e-5)


def test_T19_log_probabilities_of_a_known_chain(chain):
    """Where each token depends on the last one only, the values are the table's."""
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(0)) * 2
    model, given = chain(table), examples(9, 12, vocab=7)
    values, rows = packed_logprobs(model, one_pack(given)), sequence_ids(given)
    ids = [e.prompt[-1:] + e.completion for e in given]
    wanted = torch.tensor([table.log_softmax(-1)[a, b] for row in ids for a, b in zip(row, row[1:])])
    torch.testing.assert_close(values, wanted, atol=1e-5, rtol=1e-5)
    per_row = row_sums(values, rows, 12)
    torch.testing.assert_close(per_row, torch.stack([wanted[rows == r].sum() for r in range(12)]), atol=1e-4, rtol=0)


def test_T3_T18_a_document_does_not_depend_on_its_pack(kind):
    """Alone, in one pack, in packs of two sizes and in another order: the same log-probabilities in fp32."""
    model, given = tiny_model(kind), examples(10, 11)

    @torch.no_grad()
    def scored(max_tokens: int, order: list[int]) -> dict:
        out = {}
        for pack in pack_groups([given[i] for i in order], max_tokens):
            values = packed_logprobs(model, pack, 0.7)
            rows = sequence_ids([given[order[i]] for i in pack.group_ids])
            out |= {order[i]: values[rows == r] for r, i in enumerate(pack.group_ids)}
        return out

    separate = scored(1, list(range(11)))
    for max_tokens, order in ((40, list(range(11))), (10**6, list(range(11))), (80, random.Random(0).sample(range(11), 11))):
        other = scored(max_tokens, order)
        for i in range(11):
            torch.testing.assert_close(other[i], separate[i], atol=2e-5, rtol=0)


def check_against_padded(kind: str, dtype: torch.dtype) -> None:
    """Loss and gradient of one padded row per completion, from all logits at once.

    In fp64 the same function. In fp32 the two differ by 2e-6 of the gradient's norm; with weights as sharp as these the
    padded one is itself 1e-6 to 4e-6 from fp64.
    """
    model, given = tiny_model(kind).to(dtype), groups(1, 9)
    rows = [Example(g.prompt, c) for g in given for c in g.completions]
    pack, batch = one_pack(given), collate(rows)
    weight = torch.randn(len(rows), generator=torch.Generator().manual_seed(0)) / len(rows)
    row, column = batch.targets[:, :-1].nonzero(as_tuple=True)
    logits = model.logits(model(batch.ids[:, :-1]))[row, column]
    padded = logits.log_softmax(-1).gather(-1, batch.ids[row, column + 1, None])[:, 0]
    wanted = (weight[row].to(dtype) * padded).sum()
    theirs = torch.cat([g.flatten() for g in torch.autograd.grad(wanted, list(model.parameters()))])
    assert torch.equal(row, sequence_ids(given))
    logprobs = packed_logprobs(model, pack)
    near = 1e-12 if dtype == torch.float64 else 2e-6
    for loss, found in (((weight[row].to(dtype) * logprobs).sum(), logprobs),
                        packed_loss(model, pack, TokenLoss("weighted", weight[row]))):
        torch.testing.assert_close(found, padded, rtol=near, atol=10 * near)
        assert loss.item() == pytest.approx(wanted.item(), abs=near * padded.abs().sum().item())
        ours = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        assert (ours - theirs).norm() <= near * theirs.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_loss_and_gradient_are_those_of_the_padded_computation(kind, dtype):
    check_against_padded(kind, dtype)


def test_loss_and_gradient_with_one_row_of_logits_at_a_time(monkeypatch):
    for name, value in (("CPU_LOGITS", 1), ("CPU_ROWS", 1), ("ONE_CHUNK", 0)):
        monkeypatch.setattr(heads, name, value)
    check_against_padded("qwen3", torch.float64)


def test_T9_micro_batches_do_not_change_the_gradient(kind):
    """A weighted sum over sequences has the same gradient with any number of packs."""
    given, weights = examples(11, 10), torch.randn(10, generator=torch.Generator().manual_seed(2))

    def gradient(max_tokens: int) -> torch.Tensor:
        model = tiny_model(kind)
        for pack in pack_groups(given, max_tokens):
            values = packed_logprobs(model, pack, 0.7)
            rows = sequence_ids([given[i] for i in pack.group_ids])
            (row_sums(values, rows, len(pack.group_ids)) * weights[pack.group_ids]).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    whole = gradient(10**6)
    for max_tokens in (1, 33, 70):
        torch.testing.assert_close(gradient(max_tokens), whole, atol=2e-6 * whole.abs().max().item(), rtol=1e-4)


@pytest.mark.slow
def test_the_gradient_has_the_same_bits_every_time():
    """Many completions add into one prompt; a sum whose order the threads decide would differ between runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model, rng = tiny_model(), random.Random(2)
        given = [Group([rng.randrange(41) for _ in range(n)], [[rng.randrange(41) for _ in range(rng.randint(1, 4))]
                 for _ in range(600)]) for n in (3, 9, 1)]
        found = []
        for _ in range(6):
            logprobs = packed_logprobs(model, one_pack(given))
            found.append(torch.autograd.grad(logprobs.sum(), list(model.parameters())))
        for other in found[1:]:
            assert all(map(torch.equal, found[0], other))
    finally:
        torch.set_num_threads(threads)


def check_isolation(kind: str, invariant: bool) -> None:
    model = tiny_model(kind)
    if invariant:
        make_batch_invariant(model)
    given = sorted(examples(7, 12), key=len, reverse=True)
    given[4] = Example(given[3].prompt[:], given[3].completion[:])  # two of one length, in one call of attention
    given.sort(key=len, reverse=True)
    before, rows = packed_logprobs(model, one_pack(given)), sequence_ids(given)
    for changed in range(12):
        other = given[:]
        other[changed] = Example([(t + 3) % 41 for t in given[changed].prompt], given[changed].completion[:-1] + [END])
        after = packed_logprobs(model, one_pack(other))
        assert torch.equal(after[rows != changed], before[rows != changed])
        assert not torch.equal(after[rows == changed], before[rows == changed])


def test_T20_changing_one_document_leaves_the_bits_of_the_others():
    check_isolation("qwen3", invariant=False)


@pytest.mark.slow
def test_T20_every_family_and_the_batch_invariant_mode_isolate_documents(kind):
    check_isolation(kind, invariant=False)
    check_isolation(kind, invariant=True)


def test_T20_no_gradient_crosses_from_one_document_to_another():
    """The gradient of one document's loss at another's embeddings is exactly zero."""
    given = [Example([3, 4, 5], [6, 7, END]), Example([8, 9], [10, END]), Example([11, 12], [13, END])]
    model, reached = tiny_model("qwen3"), []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, __, out: reached.append(out) or out.retain_grad())
    logprobs, rows = packed_logprobs(model, one_pack(given)), sequence_ids(given)
    hook.remove()
    logprobs[rows == 1].sum().backward()
    touched = reached[0].grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [False] * 5 + [True] * 3 + [False] * 3


def test_completions_of_one_prompt_do_not_see_each_other():
    """One completion changed: the bits of the others stay."""
    model, given = tiny_model("llama"), groups(9, 3, most=5)
    before = packed_logprobs(model, one_pack(given))
    number = 0
    for group in given:
        for i, completion in enumerate(group.completions):
            kept = group.completions[i]
            group.completions[i] = [(t + 5) % 41 for t in completion[:-1]] + [END]
            after, rows = packed_logprobs(model, one_pack(given)), sequence_ids(given)
            assert torch.equal(after[rows != number], before[rows != number])
            assert len(completion) == 1 or not torch.equal(after[rows == number], before[rows == number])
            group.completions[i] = kept
            number += 1


def test_T17_the_end_token_is_learned():
    """Its log-probability has a gradient, and training on it alone raises it."""
    model, pack = tiny_model(), one_pack([Example([3, 4], [END])])
    values = packed_logprobs(model, pack)
    assert len(values) == 1
    values.sum().backward()
    assert model.lm_head.weight.grad[END].abs().max() > 1e-3
    with torch.no_grad():
        for p in model.parameters():
            p += 1e-3 * p.grad
    assert packed_logprobs(model, pack).item() > values.item()


def test_T32_log_probabilities_of_a_bfloat16_model_are_fp32():
    """fp32 log-softmax over bf16 logits: never above 0, and probabilities that sum to 1."""
    model = tiny_model().to(torch.bfloat16)
    values = packed_logprobs(model, one_pack([Group([3, 4], [[t] for t in range(41)])]))
    assert values.dtype == torch.float32 and values.max() <= 0
    assert abs(values.exp().sum().item() - 1) < 1e-5


def test_activation_checkpointing_keeps_the_bits_and_saves_memory():
    """Values and gradients equal; fewer bytes are kept for the backward pass; afterwards the model is as before."""
    model, pack = tiny_model("qwen2"), one_pack(examples(8, 9))

    def once(enabled: bool) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        model.zero_grad()
        kept: dict[int, int] = {}

        def note(x):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with activation_checkpointing(model, enabled), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            logprobs = packed_logprobs(model, pack)
            bytes_kept = sum(kept.values())
            logprobs.sum().backward()
        return logprobs.detach(), [p.grad.clone() for p in model.parameters()], bytes_kept

    plain, checkpointed = once(False), once(True)
    assert torch.equal(plain[0], checkpointed[0]) and all(map(torch.equal, plain[1], checkpointed[1]))
    assert checkpointed[2] < 0.6 * plain[2]
    assert all("forward" not in vars(block) for block in model.model.layers)


def test_bf16_products_with_fp32_weights(kind):
    """As in a run on a GPU: loss and gradient of fp32 up to bf16's rounding, and fp32 gradients."""
    given, found = groups(3, 6), []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(kind)
        model.compute_dtype = dtype
        pack = one_pack(given)
        loss, logprobs = packed_loss(model, pack, TokenLoss("weighted", torch.full((len(pack.labels),), -1 / 100)))
        loss.backward()
        assert logprobs.dtype == torch.float32 and all(p.grad.dtype == torch.float32 for p in model.parameters())
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    (loss, gradient), (near, narrow) = found
    assert near == pytest.approx(loss, rel=0.02) and (narrow - gradient).norm() < 0.1 * gradient.norm()
