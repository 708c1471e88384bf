"""SwiGLU (Shazeer 2020, arXiv:2002.05202): y = silu(g) · u, silu(g) = g σ(g), σ(g) = 1 / (1 +
exp(-g))

    forward    y = g σ(g) u
    backward   du = dy g σ(g)
               dg = dy u σ(g) (1 + g (1 - σ(g)))

Memory traffic: forward reads g and u and writes y, 3 n elements; plain PyTorch writes silu(g) and
reads it again, 5 n. Backward reads dy, g, u and writes dg, du, 5 n; autograd keeps silu(g) and
moves 8 n. Memory traffic is the limit: at 4.3 TB/s, 7B's [8192, 18944] in bf16 takes 0.22 ms
instead of 0.36 ms.

Arithmetic is fp32 with one rounding at the end, for any dtype of the tensors. g and u may be the
two halves of one product: rows are strided, the columns of a row contiguous.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, tl

BLOCK = 1024
silu_backward = torch.ops.aten.silu_backward


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, differentiable. Both [..., I] -> [..., I]"""
    return SwiGLUFunction.apply(gate, up, on_gpu(gate, up))


@jit
def forward_kernel(g, u, y, columns, g_row, u_row, y_row, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    gate = tl.load(g + row * g_row + at, mask=inside).to(tl.float32)
    up = tl.load(u + row * u_row + at, mask=inside).to(tl.float32)
    tl.store(y + row * y_row + at, (gate * tl.sigmoid(gate) * up).to(y.dtype.element_ty),
             mask=inside)


@jit
def backward_kernel(dy, g, u, dg, du, columns, dy_row, g_row, u_row, d_row, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < columns
    above = tl.load(dy + row * dy_row + at, mask=inside).to(tl.float32)
    gate = tl.load(g + row * g_row + at, mask=inside).to(tl.float32)
    up = tl.load(u + row * u_row + at, mask=inside).to(tl.float32)
    sigma = tl.sigmoid(gate)
    slope = sigma * (1 + gate * (1 - sigma))
    tl.store(dg + row * d_row + at, (above * up * slope).to(dg.dtype.element_ty), mask=inside)
    tl.store(du + row * d_row + at, (above * gate * sigma).to(du.dtype.element_ty), mask=inside)


class SwiGLUFunction(torch.autograd.Function):
    """Saves only g and u. Both [..., I], rows strided, columns contiguous,
    of one dtype."""

    @staticmethod
    def forward(ctx, gate: Tensor, up: Tensor, kernel: bool) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.kernel = kernel
        return launch_forward(gate, up) if kernel else reference.swiglu(gate, up)

    @staticmethod
    def backward(ctx, above: Tensor):
        gate, up = ctx.saved_tensors
        if ctx.kernel:
            return *launch_backward(above, gate, up), None
        return silu_backward(above * up, gate), F.silu(gate).mul_(above), None


def launch_forward(gate: Tensor, up: Tensor) -> Tensor:
    assert gate.shape == up.shape and gate.dtype == up.dtype
    assert gate.stride(-1) == up.stride(-1) == 1
    g, u = gate.flatten(0, -2), up.flatten(0, -2)  # [N, I]
    y = torch.empty(g.shape, dtype=g.dtype, device=g.device)
    if y.numel():
        forward_kernel[len(g), cdiv(g.shape[1], BLOCK)](
            g, u, y, g.shape[1], g.stride(0), u.stride(0), y.stride(0), BLOCK=BLOCK)
    return y.view(gate.shape)


def launch_backward(above: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    g, u = gate.flatten(0, -2), up.flatten(0, -2)
    dy = above.reshape(g.shape)
    dy = dy if dy.stride(-1) == 1 else dy.contiguous()
    dg, du = (torch.empty(g.shape, dtype=g.dtype, device=g.device) for _ in range(2))
    if g.numel():
        backward_kernel[len(g), cdiv(g.shape[1], BLOCK)](
            dy, g, u, dg, du, g.shape[1], dy.stride(0), g.stride(0), u.stride(0), dg.stride(0),
            BLOCK=BLOCK)
    return dg.view(gate.shape), du.view(gate.shape)
