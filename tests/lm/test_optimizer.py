"""Tests for lm/optimizer.py: AdamW by its formula, its schedule, and a state that resumes bit for bit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from minifleming.lm.optimizer import adamw, cosine_schedule, load_optimizer, save_optimizer, set_lr
from minifleming.run.errors import BadInput

SETTINGS = dict(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)


def step(model, optimizer, seed: int) -> None:
    ids = torch.randint(0, 41, (2, 7), generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad(set_to_none=True)
    model.logits(model(ids)).log_softmax(-1)[..., 0].sum().backward()
    optimizer.step()


@pytest.mark.parametrize("tied", [False, True])
def test_decay_on_matrices_only(tiny, kind, tied):
    """Every parameter is held once, tied ones too; norms and biases are not decayed."""
    model = tiny(kind, tie_word_embeddings=tied)
    groups = adamw(model, **SETTINGS).param_groups
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters()) and len(set(held)) == len(held)
    for group in groups:
        assert all((p.dim() == 2) == (group["weight_decay"] == 0.1) for p in group["params"])


def test_steps_follow_the_formula(tiny):
    """Three steps equal Loshchilov and Hutter's AdamW, written out in fp64 and fed the same gradients."""
    model = tiny()
    optimizer = adamw(model, **SETTINGS)
    ours = {n: (p.detach().double().clone(), 0.0, 0.0) for n, p in model.named_parameters()}
    for t in (1, 2, 3):
        set_lr(optimizer, 1e-2 / t)
        step(model, optimizer, t)
        for name, p in model.named_parameters():
            w, m, v = ours[name]
            g = p.grad.double()
            m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
            w = w * (1 - 1e-2 / t * (0.1 if p.dim() > 1 else 0.0))
            w = w - 1e-2 / t * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
            ours[name] = w, m, v
            torch.testing.assert_close(p.detach().double(), w, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_T34_resumed_equals_uninterrupted(tmp_path, tiny, kind, tied):
    """Two steps, save, load into a fresh optimizer, two more: bit for bit four steps in one go."""
    first = tiny(kind, tie_word_embeddings=tied)
    optimizer = adamw(first, **SETTINGS)
    for seed in range(2):
        step(first, optimizer, seed)
    save_optimizer(optimizer, first, tmp_path)
    second = tiny(kind, seed=9, tie_word_embeddings=tied)
    second.load_state_dict(first.state_dict())
    resumed = adamw(second, **SETTINGS)
    load_optimizer(resumed, second, tmp_path)
    for seed in range(2, 4):
        step(first, optimizer, seed)
        step(second, resumed, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    forgetful = adamw(second, **SETTINGS)  # the test would see moments that are left out
    step(first, optimizer, 5)
    step(second, forgetful, 5)
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))


def test_T34_a_state_before_the_first_step(tmp_path, tiny):
    """An optimizer that has not stepped saves nothing and resumes as new."""
    model = tiny()
    optimizer = adamw(model, **SETTINGS)
    save_optimizer(optimizer, model, tmp_path)
    load_optimizer(optimizer, model, tmp_path)
    assert not optimizer.state
    step(model, optimizer, 0)
    assert all(state["step"] == 1 for state in optimizer.state.values())


def change(tensors, name):
    """A damaged copy of a state."""
    some = "model.layers.1.mlp.up_proj.weight"
    if name == "shape":
        return tensors | {f"{some}|exp_avg": torch.zeros(3)}
    if name == "second shape":
        return tensors | {f"{some}|exp_avg_sq": torch.zeros(3)}
    if name == "key":
        return {k: v for k, v in tensors.items() if k != f"{some}|exp_avg_sq"}
    if name == "parameter":
        return {k: v for k, v in tensors.items() if not k.startswith(some)}
    return tensors | {"model.layers.9.mlp.up_proj.weight|exp_avg": torch.zeros(3)}


@pytest.mark.parametrize("name", ["shape", "second shape", "key", "parameter", "unknown"])
def test_a_state_of_another_model_is_refused(tmp_path, tiny, name):
    """Another shape, a missing moment, a missing or an unknown parameter: one line, and no half-loaded state."""
    model = tiny()
    optimizer = adamw(model, **SETTINGS)
    step(model, optimizer, 0)
    path = tmp_path / "optimizer.safetensors"
    save_optimizer(optimizer, model, tmp_path)
    save_file(change(load_file(path), name), path)
    fresh = adamw(model, **SETTINGS)
    with pytest.raises(BadInput, match="model.layers.") as caught:
        load_optimizer(fresh, model, tmp_path)
    assert "\n" not in str(caught.value) and not fresh.state


@pytest.mark.parametrize("data", [None, b"", b"nothing"])
def test_an_unreadable_state_is_one_line(tmp_path, tiny, data):
    model, path = tiny(), tmp_path / "optimizer.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(BadInput, match="optimizer.safetensors"):
        load_optimizer(adamw(model, **SETTINGS), model, tmp_path)


@pytest.mark.parametrize("steps, warmup", [(1, 0.0), (1, 0.5), (10, 0.1), (100, 0.05), (250, 0.0), (30, 1.0)])
def test_T35_cosine(steps, warmup):
    """Rises in equal parts, never above 1, then falls without a jump towards the floor; never 0."""
    values = [cosine_schedule(i, steps, warmup) for i in range(steps)]
    assert all(0 < value <= 1 for value in values)
    rising = [value for i, value in enumerate(values) if i < warmup * steps]
    gaps = [b - a for a, b in zip(rising, rising[1:])]
    assert all(gap == pytest.approx(rising[0]) for gap in gaps)
    falling = values[len(rising):]
    assert falling == sorted(falling, reverse=True) and all(value >= 0.1 for value in falling)
    if falling:
        assert max(values) > 0.99 and (steps < 100 or falling[-1] < 0.101)
        middle = cosine_schedule((steps + warmup * steps) / 2, steps, warmup)
        assert middle == pytest.approx(0.55)
    if steps > 1 and warmup < 1:
        assert cosine_schedule(steps, steps, warmup, floor=0.0) == pytest.approx(0.0)


def test_set_lr_reaches_every_group(tiny):
    optimizer = adamw(tiny(), **SETTINGS)
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def test_T32_training_in_16_bits_is_refused(tiny):
    with pytest.raises(BadInput, match="needs float32 weights"):
        adamw(tiny().to(torch.bfloat16), **SETTINGS)
