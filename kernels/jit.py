"""Imports Triton if it is installed; the kernels' modules import without it and without a GPU.

A kernel is a function decorated with ``jit``; a wrapper next to it asserts its assumptions and
launches it. If ``on_gpu`` is false, plain PyTorch runs instead: reference.py, or the ``plain_``
functions next to the kernel, whose derived backward pass saves time or memory. The tests run every
kernel in Triton's interpreter (``TRITON_INTERPRET=1``) and compile each for Hopper without a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:  # not Linux, or not installed: the references run
    triton = tl = None

    def jit(kernel):
        return kernel


def on_gpu(*tensors: Tensor) -> bool:
    """Whether a Triton kernel can run on these tensors."""
    return triton is not None and all(t.is_cuda for t in tensors)


def fits_shared_memory(q: Tensor) -> bool:
    """Whether the attention kernels fit this GPU's shared memory for this head width.

    They take up to 131 KB per block, which Hopper and A100 have; smaller GPUs only fit narrow
    heads.
    """
    if not q.is_cuda:  # the interpreter
        return True
    room = torch.cuda.get_device_properties(q.device).shared_memory_per_block_optin
    return q.shape[-1] in (16, 32, 64, 128) and room >= (132 if q.shape[-1] == 128 else 70) * 1024


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two that is at least n: a block's size."""
    return 1 << max(n - 1, 0).bit_length()
