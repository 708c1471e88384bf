"""Fused head: logits, log-probability and entropy of one token per row, and its loss, chunk by
chunk.

    z = h Wᵀ, p = softmax(z / τ)                 h [N, C], W [V, C], ids y [N], temperature τ
    l = (z_y - m) / τ - log S                    log π(y) [N]; m = max z, S = Σ_v exp((z_v - m) / τ)
    H = log S - Σ_v p_v (z_v - m) / τ            entropy [N]
    L = Σ_i loss(l_i), c = dL/dl                 see ``TokenLoss``
    dz = c (1_y - p) / τ       dh = dz W         dW = dzᵀ h

Memory: plain PyTorch reads or writes N·V logits about ten times in fp32 and keeps about 12 bytes
per logit for the backward pass. Here a chunk of rows is written once, read for m, S and H, read
again and replaced by dz, and read by two products: 10 bytes moved per logit in bf16 (12 if the
second read misses the cache). Only dh, dW and 16 bytes per token are kept. Since dz is computed
while the logits are in memory, the work is three products, 6 N·V·C FLOP; this requires that c
depends on one token only. ``linear_logprobs`` is for losses that need all l first: 8 N·V·C.

The limit is the products at C = 3584, and memory traffic as well at C = 896. dW is summed over the
chunks in fp32: it is read and written once per chunk, 8 VC bytes for a product of 2 R V C FLOP. On
H200 (4.3 TB/s, 788 TFLOP/s) both take the same time at R = 733 rows, for any C. So the chunk is the
largest that 256 MiB allow: 224 MiB of logits and 32 MiB for cuBLAS, in whole tiles of 128 rows. For
V = 151,936 in bf16, R = 768, 222.6 MiB. A chunk that stays in 50 MB of L2 (164 rows) would save at
most 10 bytes per logit, 0.35 µs per row, and cost 1.2 µs (C = 896) for dW. In microseconds per row,
if the products hide their reads and writes of logits behind their arithmetic:

                                                             C = 896      C = 3584
    three products, 6VC / 788 TFLOP/s                        1.04         4.15
    row kernel, 4 to 6 V bytes                               0.14-0.21    0.14-0.21
    dW's bytes, 8VC / R: hidden behind the product, or not   0.05-0.33    0.01-1.32
    the share of 6VC / 788 TFLOP/s                           84-66 %      96-73 %
    8192 tokens                                              10.1-12.9    35.2-46.5 ms

In bf16 the sum is ``torch.addmm(..., out_dtype=torch.float32, out=dW)`` (CUDA only): cuBLAS adds in
the epilogue without a second [V, C]. Plain ``addmm`` on bf16 would round the sum once per chunk.
The CPU converts both factors to fp32 instead. backward() scales the precomputed dh and dW in place,
in fp32, and returns them; it may be called only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from minifleming.kernels import reference
from minifleming.kernels.jit import on_gpu
from minifleming.kernels.loss_rows import fused_logprob_loss_rows

# up to so many logits are kept by ``linear_logprobs`` for its backward pass; more are recomputed
ONE_CHUNK = 2**26
GPU_BYTES = 224 * 2**20  # of a chunk of logits
# a chunk that fits the cache (2 MiB), but has enough rows for the products
CPU_LOGITS = 2**19
CPU_ROWS = 256


@dataclass(frozen=True)
class TokenLoss:
    """The loss of a token from its l = log π(token). All tensors [N], in fp32, without gradient.

    weighted       L = weight · l, for Eq. 1 and every on-policy step
    token          L = - min(ρ A, clamp(ρ, 1 - low, 1 + high) A) · weight
    cispo_weight   L = - clamp(ρ, 1 - low, 1 + high) A l · weight, the clamp a constant

    ρ = exp(l - old), A is the advantage. ``weight`` is c itself for the first kind; otherwise it is
    one over a denominator, not negative. If ``weight`` or A is 0, the token adds exactly 0 to the
    loss and the gradients, whatever its logits are.
    """

    kind: str
    weight: Tensor
    advantage: Tensor | None = None
    old: Tensor | None = None
    low: float = 0.0
    high: float = 0.0

    def __post_init__(self):
        assert self.kind in ("weighted", "token", "cispo_weight"), self.kind
        assert self.kind == "weighted" or (self.advantage is not None and self.old is not None)

    def factor(self) -> Tensor:
        """The constant factor of each token's loss: c, or A over the denominator."""
        factor = self.weight if self.kind == "weighted" else self.weight * self.advantage
        return factor.detach().float().contiguous()


def linear_policy_loss(hidden: Tensor, weight: Tensor, ids: Tensor, policy: TokenLoss,
                       temperature: float = 1.0,
                       chunk: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-> (loss, log π(ids) [N], entropy [N], dL/dlog π [N]), all fp32; only the loss is
    differentiable, once.

    hidden [N, C], weight [V, C] of one dtype, or an fp32 weight of a bf16 ``hidden``: the products
    have the dtype of ``hidden``, the gradients those of the two. ``chunk``: logits held at a
    time."""
    rows = chunk_rows(len(weight), hidden.itemsize, hidden.is_cuda, chunk)
    return _LinearTokenLoss.apply(hidden, weight, ids, policy, temperature, rows,
                                  _wanted(hidden, weight))


def linear_logprobs(hidden: Tensor, weight: Tensor, ids: Tensor, temperature: float = 1.0,
                    chunk: int | None = None) -> Tensor:
    """log softmax(hidden Wᵀ / temperature) at ``ids``, in fp32, differentiable. Arguments as above
    -> [N]

    Up to ``chunk`` (or ``ONE_CHUNK``) logits in all are kept for the backward pass; more are
    computed there again.
    """
    most = ONE_CHUNK if chunk is None else chunk
    keep = any(_wanted(hidden, weight)) and len(hidden) * len(weight) <= most
    rows = chunk_rows(len(weight), hidden.itemsize, hidden.is_cuda, chunk)
    return _Logprobs.apply(hidden, weight, ids, temperature, rows, keep)


def chunk_rows(vocabulary: int, itemsize: int, cuda: bool, chunk: int | None = None) -> int:
    """Rows of logits held at a time."""
    if chunk is not None:
        return max(1, chunk // vocabulary)
    if cuda:
        return max(128, GPU_BYTES // (vocabulary * itemsize) // 128 * 128)
    return max(CPU_ROWS, CPU_LOGITS // vocabulary)


class _LinearTokenLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass; the backward pass scales and returns them."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, ids: Tensor, policy: TokenLoss,
                temperature: float, rows: int, wanted: tuple[bool, bool]):
        head = _Head(hidden, weight, ids, temperature, rows)
        ctx.sums = _Gradients(hidden, weight, wanted)
        factor, found = policy.factor(), head.columns()
        old = factor if policy.old is None else policy.old.detach().float().contiguous()
        for part, logits in head.chunks():
            head.read(part, logits, found, factor, old, policy.kind, policy.low, policy.high)
            ctx.sums.add(part, logits, hidden, head.weight)
        *others, losses = found
        ctx.mark_non_differentiable(*others)
        return losses.sum(), *others

    @staticmethod
    def backward(ctx, g: Tensor, *_):
        sums, ctx.sums = ctx.sums, None
        assert sums is not None, "linear_policy_loss has handed out its gradients: call it again"
        return *sums.times(g), None, None, None, None, None


class _Logprobs(torch.autograd.Function):
    """One number a row is kept, or all logits where they are few; dz is made on the way back."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, ids: Tensor, temperature: float, rows: int,
                keep: bool) -> Tensor:
        head = _Head(hidden, weight, ids, temperature, rows)
        found, ctx.kept = head.columns(), head.space(len(hidden)) if keep else None
        for part, logits in head.chunks(ctx.kept):
            head.read(part, logits, found, None)
        ctx.save_for_backward(hidden, weight, ids)
        ctx.temperature, ctx.rows = temperature, rows
        return found[0]

    @staticmethod
    def backward(ctx, g: Tensor):
        hidden, weight, ids = ctx.saved_tensors
        head = _Head(hidden, weight, ids, ctx.temperature, ctx.rows)
        sums = _Gradients(hidden, weight, ctx.needs_input_grad)
        # lost below: a second backward pass computes the logits again
        kept = ctx.kept
        ctx.kept = None
        factor, found = g.contiguous(), head.columns()
        for part, logits in head.chunks(kept, computed=kept is not None):
            head.read(part, logits, found, factor)
            sums.add(part, logits, hidden, head.weight)
        return *sums.times(None), None, None, None, None


class _Head:
    """Computes the logits and what follows from them, one chunk of rows at a time."""

    def __init__(self, hidden: Tensor, weight: Tensor, ids: Tensor, temperature: float, rows: int):
        assert hidden.dtype != torch.float16, "in fp16 a coefficient of 1e-5 times p is 0"
        assert weight.dtype in (hidden.dtype, torch.float32)
        assert ids.shape == (len(hidden),) and hidden.shape[1] == weight.shape[1]
        self.hidden, self.weight, self.ids = hidden, weight.to(hidden.dtype), ids.contiguous()
        self.temperature, self.rows = temperature, rows

    def columns(self) -> list[Tensor]:
        """For log π, entropy, c, loss."""
        dtype = torch.promote_types(self.hidden.dtype, torch.float32)  # fp64 on a CPU, for tests
        return [torch.empty(len(self.hidden), dtype=dtype,
                            device=self.hidden.device) for _ in range(4)]

    def space(self, rows: int) -> Tensor:
        return torch.empty(rows, len(self.weight), dtype=self.hidden.dtype,
                           device=self.hidden.device)

    def chunks(self, kept: Tensor | None = None,
               computed: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """The logits of some rows, in ``kept`` [N, V] or in one space for all; ``computed``: they
        are in there."""
        N = len(self.hidden)
        space = self.space(min(self.rows, N)) if kept is None else None
        for at in range(0, N, self.rows):
            part = slice(at, min(at + self.rows, N))
            logits = space[: part.stop - at] if kept is None else kept[part]
            if not computed:  # out= also keeps autocast away
                torch.mm(self.hidden[part], self.weight.t(), out=logits)
            yield part, logits

    def read(self, part: slice, logits: Tensor, found: list[Tensor], factor: Tensor | None,
             old: Tensor | None = None, kind: str = "weighted", low: float = 0.0,
             high: float = 0.0) -> None:
        """Fill ``found``; where there is a ``factor``, also its loss, and leave dz where the logits
        were."""
        rows = fused_logprob_loss_rows if on_gpu(logits) else reference.logprob_loss_rows
        rows(logits, self.ids[part], [x[part] for x in found],
             None if factor is None else factor[part], None if old is None else old[part], kind,
             low, high, self.temperature)


class _Gradients:
    """dh, dW or None where nobody wants them; dW in fp32."""

    def __init__(self, hidden: Tensor, weight: Tensor, wanted: tuple[bool, ...]):
        self.dtype = weight.dtype
        self.dh = torch.empty(hidden.shape, dtype=hidden.dtype,
                              device=hidden.device) if wanted[0] else None
        make = torch.empty if len(hidden) else torch.zeros  # the first chunk writes, the others add
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.dw = make(weight.shape, dtype=wide, device=weight.device) if wanted[1] else None

    def add(self, part: slice, dz: Tensor, hidden: Tensor, weight: Tensor) -> None:
        if self.dh is not None:
            torch.mm(dz, weight, out=self.dh[part])
        if self.dw is not None:
            _add_product(self.dw, dz.t(), hidden[part], beta=float(part.start > 0))

    def times(self, g: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Both times a scalar, in place: of two dimensions, or beside a bf16 tensor it may be
        rounded to bf16."""
        for x in (self.dh, self.dw):
            if x is not None and g is not None:
                x.mul_(g.view(1, 1))
        return self.dh, None if self.dw is None else downcast_in_place(self.dw, self.dtype)


def downcast_in_place(x: Tensor, dtype: torch.dtype, step: int = 2**22) -> Tensor:
    """x in a dtype of half the width, in the front half of its own memory: nothing as large is made
    beside it."""
    if x.dtype == dtype:
        return x
    wide = x.view(-1)
    narrow = wide.view(dtype)[: wide.numel()]
    for at in range(0, wide.numel(), step):  # what is overwritten has been read
        narrow[at : at + step] = wide[at : at + step].to(dtype)
    return narrow.view(x.shape)


def _add_product(total: Tensor, left: Tensor, right: Tensor, beta: float) -> None:
    """total = beta · total + left right, the total in fp32; beta = 0: whatever stood there is not
    read."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=beta)
    elif left.is_cuda:
        torch.addmm(total, left, right, beta=beta, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.float(), right.float(), beta=beta)


def _wanted(*inputs: Tensor) -> tuple[bool, ...]:
    return tuple(torch.is_grad_enabled() and x.requires_grad for x in inputs)
