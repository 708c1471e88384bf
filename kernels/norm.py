"""RMSNorm (Zhang & Sennrich 2019), with or without the residual addition before it.

    y = w x̂,  x̂ = x r,  r = 1 / sqrt(mean(x²) + ε)

    forward    s = x + residual               then y = rms_norm(s)
    backward   g = w dy;  ds += r (g - x̂ mean(g x̂))  = w dy r - s r³/C Σ(w dy s)
               dx = dresidual = ds
               dw = Σ over rows of dy x̂

Memory traffic per bf16 element: forward reads x and writes y, 4 B; plain PyTorch moves 36 B in 8
launches. With the addition it is 8 B (x, residual, s, y) instead of 42 in 9. Backward reads dy, x
(and ds) and writes dx, 6 B (8 B); autograd moves 92 (98) in 16 (17). With about ten FLOP per
element, memory traffic is the limit. At 4.3 TB/s, 7B's [8192, 3584] takes 0.03 ms forward and 0.04
ms backward, with the addition 0.055 ms each, instead of 0.25 and 0.6 ms. In decoding, 64 rows are
one launch of about 2 us, which is latency.

A program holds whole rows in registers: a wide one, or many narrow ones (the heads of a q or k
norm). In the backward pass a fixed number of programs take the rows in turn and load the next one
while they compute. Each accumulates dw of its rows in registers and writes it once; one sum over
the programs follows. There are no atomics, so results are bit-identical between runs, and
everything else of a row depends on that row only. Sums are fp32; values are rounded where the
reference rounds: s, x̂, then y.
"""

from __future__ import annotations

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import cdiv, jit, on_gpu, power_of_2, tl

WIDEST = 8192  # columns that fit a program
FORWARD, BACKWARD = 2048, 4096  # elements per program, unless one row has more
PROGRAMS = 264  # of the backward kernel: two for each of Hopper's 132 multiprocessors
STAGES = 3  # rows in flight in each of them


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``reference.rms_norm``, differentiable. x [..., C], weight [C] -> [..., C]"""
    return RMSNormFunction.apply(x, weight, eps, on_gpu(x, weight) and len(weight) <= WIDEST)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(s), s) for s = x + residual, differentiable in both. x, residual [..., C], weight
    [C]"""
    kernel = on_gpu(x, residual, weight) and len(weight) <= WIDEST
    return AddRMSNormFunction.apply(x, residual, weight, eps, kernel)


def add_rms_norm_into(x: Tensor, residual: Tensor, weight: Tensor, eps: float, y: Tensor) -> None:
    """The same in place, for static buffers: residual += x, y = rms_norm(residual). No gradient."""
    assert residual.dtype == torch.promote_types(x.dtype, residual.dtype)
    assert y.shape == x.shape == residual.shape
    if on_gpu(x, residual, weight, y) and len(weight) <= WIDEST:
        launch_forward(x, residual, residual, weight, y, None, eps)
    else:
        for buffer, value in zip((y, residual), reference.add_rms_norm(x, residual, weight, eps)):
            buffer.copy_(value)


@jit
def weight_of_rows(weight, column, columns, ROWS: tl.constexpr):
    """[ROWS, BLOCK], loaded for every row: so each thread holds it just as it holds the rows, and
    nothing is moved."""
    column = tl.zeros([ROWS, 1], tl.int32) + column
    return tl.load(weight + column, mask=column < columns, other=0).to(tl.float32)


@jit
def forward_kernel(x, residual, s, weight, y, r, rows, columns, x_row, residual_row, s_row, y_row,
                   eps, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """s: what is normalised, x itself where residual is None. r may be None."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows)[:, None] & (column < columns)
    wide = tl.load(x + row[:, None] * x_row + column, mask=inside, other=0).to(tl.float32)
    w = weight_of_rows(weight, column, columns, ROWS)
    if residual is not None:
        wide += tl.load(residual + row[:, None] * residual_row + column, mask=inside,
                        other=0).to(tl.float32)
        rounded = wide.to(s.dtype.element_ty)
        tl.store(s + row[:, None] * s_row + column, rounded, mask=inside)
        wide = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 1) / columns + eps)
    normal = (wide * scale[:, None]).to(s.dtype.element_ty).to(tl.float32)
    tl.store(y + row[:, None] * y_row + column, (w * normal).to(y.dtype.element_ty), mask=inside)
    if r is not None:
        tl.store(r + row, scale, mask=row < rows)


@jit
def backward_kernel(dy, ds, s, weight, r, dx, partial, rows, columns, dy_row, ds_row, s_row, dx_row,
                    ROWS: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    """ds may be None. partial [programs, C]: the dw of each program's rows."""
    column = tl.arange(0, BLOCK)[None, :]
    w = weight_of_rows(weight, column, columns, ROWS)
    dw = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in tl.range(tl.program_id(0) * ROWS, rows, tl.num_programs(0) * ROWS,
                          num_stages=STAGES):
        row = tl.arange(0, ROWS).to(tl.int64) + first
        inside = (row < rows)[:, None] & (column < columns)
        above = tl.load(dy + row[:, None] * dy_row + column, mask=inside, other=0).to(tl.float32)
        wide = tl.load(s + row[:, None] * s_row + column, mask=inside, other=0).to(tl.float32)
        scale = tl.load(r + row, mask=row < rows, other=0)[:, None]
        normal = wide * scale
        g = above * w
        along = tl.sum(g * normal, 1) / columns
        d = (g - normal * along[:, None]) * scale
        if ds is not None:
            d += tl.load(ds + row[:, None] * ds_row + column, mask=inside, other=0).to(tl.float32)
        tl.store(dx + row[:, None] * dx_row + column, d.to(dx.dtype.element_ty), mask=inside)
        dw += above * normal
    total = tl.sum(dw, 0)[None, :]
    tl.store(partial + tl.program_id(0).to(tl.int64) * columns + column, total,
             mask=column < columns)


def tile(columns: int, least: int) -> tuple[int, int, int]:
    """(ROWS, BLOCK, warps): at least so many elements, 16 of them a thread: two loads of 16 bytes
    in bf16."""
    assert 0 < columns <= WIDEST
    block = power_of_2(columns)
    rows = max(1, least // block)
    return rows, block, rows * block // 512


def as_rows(x: Tensor) -> Tensor:
    """[..., C] -> [N, C], the columns contiguous; a copy only where no stride does it."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()


def launch_forward(x, residual, s, weight, y, r, eps: float) -> None:
    """All [..., C], weight [C], r [N] in fp32 or None; without residual, s is x. Writes s, y and
    r."""
    flat, into, out = as_rows(x), s.view(-1, s.shape[-1]), y.view(-1, y.shape[-1])
    more = None if residual is None else into if residual is s else as_rows(residual)
    rows, columns = flat.shape
    assert s.shape == y.shape == x.shape and weight.shape == (columns,) and weight.is_contiguous()
    assert into.stride(1) == out.stride(1) == 1
    assert (r is None or (r.shape == (rows,) and r.is_contiguous()))
    ROWS, BLOCK, warps = tile(columns, FORWARD)
    if rows:
        forward_kernel[cdiv(rows, ROWS),](flat, more, into, weight, out, r, rows, columns,
                                          flat.stride(0), 0 if more is None else more.stride(0),
                                          into.stride(0), out.stride(0), eps, ROWS=ROWS,
                                          BLOCK=BLOCK, num_warps=warps)


def launch_backward(dy: Tensor, ds: Tensor | None, s: Tensor, weight: Tensor,
                    r: Tensor) -> tuple[Tensor, Tensor]:
    """All [..., C]; r [N] -> the gradient of s, of its dtype, and that of the weight"""
    above, more, flat = as_rows(dy), None if ds is None else as_rows(ds), as_rows(s)
    rows, columns = flat.shape
    assert above.shape == flat.shape and (more is None or more.shape == flat.shape)
    ROWS, BLOCK, warps = tile(columns, BACKWARD)
    programs = min(PROGRAMS, cdiv(rows, ROWS))
    dx = torch.empty_like(flat, memory_format=torch.contiguous_format)
    partial = r.new_empty(programs, columns)
    if rows:
        backward_kernel[programs,](above, more, flat, weight, r, dx, partial, rows, columns,
                                   above.stride(0), 0 if more is None else more.stride(0),
                                   flat.stride(0), dx.stride(0), ROWS=ROWS, BLOCK=BLOCK,
                                   STAGES=STAGES, num_warps=warps)
    return dx.view(s.shape), partial.sum(0).to(weight.dtype)


def plain_forward(s: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """In as few passes of PyTorch as there are. -> y [..., C], r [..., 1]"""
    r = torch.linalg.vector_norm(s, dim=-1, keepdim=True,
                                 dtype=torch.promote_types(s.dtype, torch.float32))
    r = r.square_().div_(s.shape[-1]).add_(eps).rsqrt_()
    return weight * (s * r).to(s.dtype), r


def plain_backward(dy: Tensor, ds: Tensor | None, s: Tensor, weight: Tensor,
                   r: Tensor) -> tuple[Tensor, Tensor]:
    dy, wide, r = as_rows(dy).to(r.dtype), as_rows(s).to(r.dtype), r.view(-1, 1)
    u = dy * wide
    along = (u @ weight.to(r.dtype))[:, None] * r**3 / s.shape[-1]
    d = (dy * weight).mul_(r).addcmul_(wide, along, value=-1)
    if ds is not None:
        d += as_rows(ds)
    return d.to(s.dtype).view(s.shape), (r[:, 0] @ u).to(weight.dtype)


class RMSNormFunction(torch.autograd.Function):
    """Saves only x and r, on a GPU (``kernel``) and on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, kernel: bool) -> Tensor:
        ctx.kernel = kernel
        if not kernel:
            y, r = plain_forward(x, weight, eps)
            ctx.save_for_backward(x, weight, r)
            return y
        x = as_rows(x).view(x.shape)
        y = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, weight.dtype), device=x.device)
        r = torch.empty(x.shape[:-1].numel(), dtype=torch.float32, device=x.device)
        launch_forward(x, None, x, weight, y, r, eps)
        ctx.save_for_backward(x, weight, r)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight, r = ctx.saved_tensors
        backward = launch_backward if ctx.kernel else plain_backward
        return *backward(dy, None, x, weight, r), None, None


class AddRMSNormFunction(torch.autograd.Function):
    """x and residual share one gradient; s is an output, so its own gradient joins it."""

    @staticmethod
    def forward(ctx, x: Tensor, residual: Tensor, weight: Tensor, eps: float,
                kernel: bool) -> tuple[Tensor, Tensor]:
        assert x.shape == residual.shape
        ctx.set_materialize_grads(False)
        ctx.dtypes, ctx.kernel = (x.dtype, residual.dtype), kernel
        if kernel:
            s = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, residual.dtype),
                            device=x.device)
            y = torch.empty(x.shape, dtype=torch.promote_types(s.dtype, weight.dtype),
                            device=x.device)
            r = torch.empty(x.shape[:-1].numel(), dtype=torch.float32, device=x.device)
            launch_forward(x, residual, s, weight, y, r, eps)
        else:
            s = x + residual
            y, r = plain_forward(s, weight, eps)
        ctx.save_for_backward(s, weight, r)
        return y, s

    @staticmethod
    def backward(ctx, dy: Tensor | None, ds: Tensor | None):
        s, weight, r = ctx.saved_tensors
        back = launch_backward if ctx.kernel else plain_backward
        d, dw = (ds, None) if dy is None else back(dy, ds, s, weight, r)
        return *(d.to(dtype) for dtype in ctx.dtypes), dw, None, None
