"""Helpers of the kernel tests: inputs, gradients and tolerances.

fp32 kernels are compared with fp64. A bf16 kernel computes in fp32 and rounds its outputs once, so
it is within half a unit in the last place (2^-8 relative) of the fp64 result for the same bf16
inputs; Triton's interpreter truncates instead, which is a whole unit. ``close`` allows 2^-7 of the
value, plus a term for sums whose terms are larger than the sum.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from triton.runtime import interpreter

FP32 = {"rtol": 1e-5, "atol": 1e-5}


def noise(*shape: int, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype, terms: float = 1.0) -> None:
    """``wanted``: the fp64 result for the kernel's own inputs; ``terms``: size of the terms of its sum."""
    assert found.shape == wanted.shape and found.isfinite().all()
    if dtype == torch.float32:
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * max(1.0, terms))
    else:
        torch.testing.assert_close(found.double(), wanted, rtol=2**-7, atol=2**-8 * terms)


def gradients(f, above: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """(f of the inputs, gradient of each input for the cotangent ``above``)."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = f(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, above.to(out.dtype)))


def mend_interpreter(monkeypatch) -> None:
    """Work around two faults of Triton: its interpreter multiplies the bits of bf16 as integers, and that of
    3.6 converts an array of one element to int, which NumPy 2.4 refuses."""
    dot, tensor = interpreter.InterpreterBuilder.create_dot, interpreter._patch_lang_tensor

    def widened(x):
        if x.dtype.name != "bf16":
            return x
        return interpreter.TensorHandle((x.data.astype(np.uint32) << 16).view(np.float32), interpreter.tl.float32)

    def patched(kind, *scope):
        tensor(kind, *scope)
        kind.__index__ = lambda self: int(self.handle.data.squeeze())

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot",
                        lambda self, a, b, *rest: dot(self, widened(a), widened(b), *rest))
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)
