"""Tests for kernels/swiglu.py: values, gradients, odd sizes, halves of one product, machine code."""

from __future__ import annotations

import pytest
import torch

from minifleming.kernels import reference
from minifleming.kernels.swiglu import SwiGLUFunction, swiglu
from tests.kernels.check import close, gradients, noise
from tests.kernels.hopper import compiled, ops, sound


def kernel(gate, up):
    return SwiGLUFunction.apply(gate, up, True)


@pytest.mark.parametrize("way", [kernel, swiglu], ids=["kernel", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 33), (4, 1024), (3, 1025), (2, 2500)])
def test_values_and_gradients(shape, dtype, way):
    gate, up, above = (noise(*shape, seed=s, scale=3, dtype=dtype) for s in range(3))
    found = gradients(way, above, gate, up)
    wanted = gradients(reference.swiglu, above, gate.double(), up.double())
    for mine, theirs in zip(found, wanted):
        assert mine.dtype == dtype
        close(mine, theirs, dtype)


def test_the_two_halves_of_one_product():
    """Strided rows: gate and up need not be contiguous, and nothing outside them is read or written."""
    both = noise(5, 74)
    gate, up = both.chunk(2, dim=-1)
    assert not gate.is_contiguous()
    assert torch.equal(kernel(gate, up), kernel(gate.contiguous(), up.contiguous()))


def test_large_gates_neither_overflow_nor_vanish():
    gate = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]])
    ones = torch.ones(1, 5)
    wanted = gradients(reference.swiglu, ones, gate.double(), ones.double())
    for mine, theirs in zip(gradients(kernel, ones, gate, ones), wanted):
        close(mine, theirs, torch.float32)


@pytest.mark.slow
def test_machine_code():
    """No spills; loads and stores of 16 bytes in bf16 (8 elements per thread)."""
    forward = {"g": "*bf16", "u": "*bf16", "y": "*bf16", "columns": "i32", "g_row": "i32", "u_row": "i32",
               "y_row": "i32", "BLOCK": "constexpr"}
    backward = {"dy": "*bf16", "g": "*bf16", "u": "*bf16", "dg": "*bf16", "du": "*bf16", "columns": "i32",
                "dy_row": "i32", "g_row": "i32", "u_row": "i32", "d_row": "i32", "BLOCK": "constexpr"}
    one, two = compiled({"kernel": "swiglu.forward_kernel", "types": forward, "constants": {"BLOCK": 1024}},
                        {"kernel": "swiglu.backward_kernel", "types": backward, "constants": {"BLOCK": 1024}})
    sound(one), sound(two)
    assert ops(one, "LDG.E.128") == 2 and ops(one, "STG.E.128") == 1
    assert ops(two, "LDG.E.128") == 3 and ops(two, "STG.E.128") == 2
