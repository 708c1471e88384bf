"""Tests for kernels/norm.py with and without the addition: values, all gradients, bits, machine code.

Triton's interpreter truncates to bf16 where the GPU rounds, so the bf16 tests are coarse; the place of
each rounding is tested in fp16, which the interpreter rounds as the GPU does.
"""

from __future__ import annotations

import pytest
import torch

from minifleming.kernels import norm, reference
from minifleming.kernels.norm import AddRMSNormFunction, RMSNormFunction
from tests.kernels.check import close, gradients, noise
from tests.kernels.hopper import compiled, ops, sound

EPS = 1e-6
SHAPES = [(1, 1), (3, 7), (7,), (2, 5, 33), (4, 896), (3, 1024), (2, 1025), (33, 3, 128), (300, 64), (2, 8192)]


def NORM(x, w, eps, kernel=True):
    return RMSNormFunction.apply(x, w, eps, kernel)


def ADD(x, residual, w, eps, kernel=True):
    return AddRMSNormFunction.apply(x, residual, w, eps, kernel)


def exact(x, w, eps=EPS):
    """In fp64; the reference itself takes its mean in fp32."""
    return w * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def agree(found, wanted, dtype):
    """Tolerance in bf16: two roundings, or sums whose terms are as large as the largest."""
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        close(mine, theirs, dtype, terms=1 if dtype == torch.float32 else max(1, theirs.abs().max().item()))


def side_by_side(x, residual, w, kernel=True):
    """y and s in one tensor, so that one cotangent reaches both."""
    return torch.cat(ADD(x, residual, w, EPS, kernel), -1)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape, dtype, kernel):
    x, w, above = (noise(*s, seed=i, scale=2, dtype=dtype) for i, s in enumerate((shape, shape[-1:], shape)))
    found = gradients(lambda x, w: NORM(x, w, EPS, kernel), above, x, w)
    agree(found, gradients(exact, above, x.double(), w.double()), dtype)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[:-1])
def test_with_the_addition(shape, dtype, kernel):
    """Compared with fp64 of the rounded s that is kept; its own gradient is added to that of the norm."""
    x, residual, w = (noise(*s, seed=i, scale=2, dtype=dtype) for i, s in enumerate((shape, shape, shape[-1:])))
    above = noise(*shape[:-1], 2 * shape[-1], seed=3, dtype=dtype)
    out, dx, dresidual, dw = gradients(lambda *a: side_by_side(*a, kernel), above, x, residual, w)
    s = out.chunk(2, -1)[1]
    assert torch.equal(dx, dresidual)
    agree([s], [x.double() + residual.double()], dtype)
    agree((out, dx, dw), gradients(lambda s, w: torch.cat((exact(s, w), s), -1), above, s.double(), w.double()), dtype)


@pytest.mark.parametrize("at", [0, 1])
def test_a_gradient_into_one_output_alone(at):
    x, residual, w, above = noise(5, 33), noise(5, 33, seed=1), noise(33, seed=2), noise(5, 33, seed=3)
    leaves = [t.requires_grad_() for t in (x, residual, w)]
    ADD(*leaves, EPS)[at].backward(above)
    s = (x + residual).detach()
    _, ds, dw = gradients(exact, above, s.double(), w.detach().double())
    close(x.grad, ds if at == 0 else above.double(), torch.float32)
    assert torch.equal(x.grad, residual.grad)
    close(w.grad, dw, torch.float32) if at == 0 else None
    assert at == 0 or w.grad is None


def test_rounded_where_the_reference_rounds():
    """s, then x̂, then y: nearly all bits equal plain PyTorch's; the rest differ by the order of a sum."""
    shapes = [(20, 333), (20, 333), (333,)]
    x, residual, w = (noise(*shape, seed=i, scale=2, dtype=torch.float16) for i, shape in enumerate(shapes))
    y, s = ADD(x, residual, w, EPS)
    wanted, sums = reference.add_rms_norm(x, residual, w, EPS)
    assert torch.equal(s, sums) and (y == wanted).float().mean() > 0.995
    torch.testing.assert_close(y, wanted, rtol=2**-9, atol=0)


@pytest.mark.parametrize("of_weight", [torch.float32, torch.float16])
@pytest.mark.parametrize("of_residual", [torch.float32, torch.float16])
def test_dtypes_are_those_of_plain_pytorch(of_residual, of_weight):
    """fp32 weights with half-precision rows give fp32 rows; each gradient has the dtype of its input."""
    x, residual, w = noise(3, 20).half(), noise(3, 20, seed=1).to(of_residual), noise(20, seed=2).to(of_weight)
    above, eps = noise(3, 20, seed=3), EPS
    for kernel, plain, inputs in (
            (lambda *a: NORM(*a, eps), lambda *a: reference.rms_norm(*a, eps), (x, w)),
            (lambda *a: ADD(*a, eps)[0], lambda *a: reference.add_rms_norm(*a, eps)[0], (x, residual, w)),
            (lambda *a: ADD(*a, eps)[1], lambda *a: reference.add_rms_norm(*a, eps)[1], (x, residual))):
        inputs = (*inputs, w) if len(inputs) == 2 and inputs[1] is residual else inputs
        leaves = [[t.clone().requires_grad_() for t in inputs] for _ in range(2)]
        found, wanted = kernel(*leaves[0]), plain(*leaves[1])
        found.backward(above.to(found.dtype)), wanted.backward(above.to(wanted.dtype))
        pairs = [(found, wanted), *((a.grad, b.grad) for a, b in zip(*leaves) if b.grad is not None)]
        assert all(a.dtype == b.dtype for a, b in pairs)
        for mine, theirs in pairs:
            torch.testing.assert_close(mine, theirs, rtol=2**-8, atol=2**-8)


def test_strided_rows_and_cotangents():
    """Columns of a wider product, every second row, a transposed cotangent, one expanded value."""
    wide, w = noise(10, 3, 70), noise(33, seed=1)
    x = wide[::2, :, 20:53]
    above = noise(3, 5, 33, seed=2).transpose(0, 1)
    assert not x.is_contiguous() and not above.is_contiguous()
    run = [gradients(lambda x, w: NORM(x, w, EPS), above, x, w),
           gradients(lambda x, w: NORM(x, w, EPS), above.contiguous(), x.contiguous(), w)]
    assert all(torch.equal(a, b) for a, b in zip(*run))
    rows = noise(4, 66).requires_grad_()  # a view under autograd; sum() hands down a cotangent of stride 0
    NORM(rows[:, ::2], w, EPS).sum().backward()
    _, wanted, _ = gradients(exact, torch.ones(4, 33), rows.detach()[:, ::2].double(), w.double())
    close(rows.grad[:, ::2], wanted, torch.float32)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-6, 1e15])
def test_extreme_rows(size):
    """Zeros, rows below ε, and squares up to 1e30: values and gradients are finite."""
    x, w, above = noise(3, 40, scale=size), noise(40, seed=1), noise(3, 40, seed=2)
    y, dx, dw = gradients(lambda x, w: NORM(x, w, EPS), above, x, w)
    wanted = gradients(exact, above, x.double(), w.double())
    assert size or y.abs().max() == 0
    for mine, theirs in zip((y, dx * size, dw), (wanted[0], wanted[1] * size, wanted[2])):
        close(mine, theirs, torch.float32)


def test_no_rows():
    x, w = torch.empty(0, 3, 33), noise(33)
    y, dx, dw = gradients(lambda *a: NORM(*a, EPS), x, x, w)
    assert y.shape == dx.shape == x.shape and torch.equal(dw, torch.zeros(33))
    assert [t.shape for t in ADD(x, x, w, EPS)] == [x.shape, x.shape]
    assert norm.add_rms_norm_into(x, x.clone(), w, EPS, x.clone()) is None


def test_a_row_depends_on_itself_alone_and_all_bits_on_nothing_else():
    """A row and its gradient have the same bits in any batch; a second run gives the same bits of dw."""
    x, residual, w, above = noise(50, 200), noise(50, 200, seed=1), noise(200, seed=2), noise(50, 400, seed=3)
    first, again = (gradients(side_by_side, above, x, residual, w) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    for part in (slice(0, 1), slice(7, 20), slice(49, 50)):
        alone = gradients(side_by_side, above[part], x[part], residual[part], w)
        assert torch.equal(alone[0], first[0][part]) and torch.equal(alone[1], first[1][part])


@pytest.mark.parametrize("programs, columns", [(1, 33), (2, 33), (3, 1500), (7, 5000)])
def test_few_programs_take_many_rows(monkeypatch, programs, columns):
    """Programs take rows in turns, the last turn incomplete: no row is left out or counted twice."""
    monkeypatch.setattr(norm, "PROGRAMS", programs)
    monkeypatch.setattr(norm, "BACKWARD", 64)
    x, w, above = noise(23, columns), noise(columns, seed=1), noise(23, columns, seed=2)
    found = gradients(lambda x, w: NORM(x, w, EPS), above, x, w)
    agree(found, gradients(exact, above, x.double(), w.double()), torch.float32)


@pytest.mark.parametrize("columns", [1, 33, 896, 3584])
def test_in_place(columns):
    """residual and y are buffers: they are written in place, and nothing around them is."""
    x, w = noise(5, columns), noise(columns, seed=1)
    room, out = noise(7, columns + 16, seed=2), torch.full((7, columns + 16), 9.0)
    before, residual, y = room.clone(), room[1:6, :columns], out[1:6, :columns]
    wanted, s = ADD(x, residual.clone(), w, EPS)
    norm.launch_forward(x, residual, residual, w, y, None, EPS)
    assert torch.equal(residual, s) and torch.equal(y, wanted)
    before[1:6, :columns] = s
    assert torch.equal(room, before) and (out == 9).sum() == out.numel() - 5 * columns


def test_without_a_gpu_the_reference_runs():
    x, residual, w, y = noise(3, 20), noise(3, 20, seed=1), noise(20, seed=2), torch.empty(3, 20)
    wanted, s = reference.add_rms_norm(x, residual, w, EPS)
    assert torch.equal(s, x + residual) and torch.equal(wanted, reference.rms_norm(s, w, EPS))
    assert torch.equal(norm.rms_norm(s, w, EPS), wanted)
    assert all(torch.equal(a, b) for a, b in zip(norm.add_rms_norm(x, residual, w, EPS), (wanted, s)))
    norm.add_rms_norm_into(x, residual, w, EPS, y)
    assert torch.equal(y, wanted) and torch.equal(residual, s)


def test_what_the_kernels_assume_is_asserted():
    x, w = noise(3, 20), noise(20)
    for wrong in (lambda: NORM(x, noise(21), EPS), lambda: NORM(noise(1, 8193), noise(8193), EPS),
                  lambda: NORM(x, noise(40)[::2], EPS), lambda: ADD(x, noise(4, 20), w, EPS),
                  lambda: norm.add_rms_norm_into(x, x.half(), w, EPS, x),
                  lambda: norm.launch_forward(x, None, x, w, noise(3, 21), None, EPS)):
        with pytest.raises(AssertionError):
            wrong()


def forward(columns: int, add: bool, dtype: str = "*bf16") -> dict:
    rows, block, warps = norm.tile(columns, norm.FORWARD)
    constants = {"ROWS": rows, "BLOCK": block} | ({} if add else {"residual": None})
    types = dict.fromkeys(("x", "residual", "s", "weight", "y"), dtype) | {"r": "*fp32"}
    types |= dict.fromkeys(("rows", "columns", "x_row", "residual_row", "s_row", "y_row"), "i32") | {"eps": "fp32"}
    return {"kernel": "norm.forward_kernel", "types": types | dict.fromkeys(constants, "constexpr"),
            "constants": constants, "warps": warps, "odd": ["rows"]}


def backward(columns: int, add: bool, dtype: str = "*bf16") -> dict:
    rows, block, warps = norm.tile(columns, norm.BACKWARD)
    constants = {"ROWS": rows, "BLOCK": block, "STAGES": norm.STAGES} | ({} if add else {"ds": None})
    types = dict.fromkeys(("dy", "ds", "s", "weight"), dtype) | {"r": "*fp32", "dx": dtype, "partial": "*fp32"}
    types |= dict.fromkeys(("rows", "columns", "dy_row", "ds_row", "s_row", "dx_row"), "i32")
    return {"kernel": "norm.backward_kernel", "types": types | dict.fromkeys(constants, "constexpr"),
            "constants": constants, "warps": warps, "odd": ["rows"]}


@pytest.mark.slow
def test_machine_code():
    """Loads and stores of 16 bytes, two per thread and tensor. Registers allow 1,280 forward threads on a
    multiprocessor, and two backward programs of 256, which copy the next rows to shared memory meanwhile."""
    cases = [(128, False), (896, True), (3584, True)]  # a head of Qwen3, a row of Qwen2.5-0.5B and of 7B
    answers = compiled(*(forward(*case) for case in cases), *(backward(*case) for case in cases),
                       backward(norm.WIDEST, True, "*fp32"))
    for answer in answers:
        sound(answer)
    for (_, add), one, two in zip(cases, answers, answers[len(cases):]):
        assert ops(one, "LDG.E.128") == (6 if add else 4) and ops(one, "STG.E.128") == (4 if add else 2)
        assert one["registers"] <= 48 and one["shared"] <= 1024
        assert ops(two, "LDGSTS.E.BYPASS.128") == (18 if add else 12)  # two or three tensors, from three places
        assert ops(two, "STG.E.128") >= 2 and two["registers"] <= 128 and two["shared"] <= 64 * 1024
