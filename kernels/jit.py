"""Triton where it is installed; the kernels' files import without it and without a GPU.

A kernel is a function decorated with ``jit``; beside it stands a wrapper that asserts what the kernel assumes and
starts it. Where ``on_gpu`` says no, plain PyTorch runs instead: that of reference.py, or where a derived backward pass
saves time or memory, the ``plain_`` functions beside the kernel. The tests run every kernel in
Triton's interpreter (``TRITON_INTERPRET=1``), and compile each for Hopper without a GPU.
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
    """Is this work for a Triton kernel?"""
    return triton is not None and all(t.is_cuda for t in tensors)


def fits_shared_memory(q: Tensor) -> bool:
    """Do the attention kernels run on this card with heads of this width? They want up to 131 KB of shared memory a
    block: Hopper and A100 have it, smaller cards only for narrow heads."""
    if not q.is_cuda:  # the interpreter
        return True
    room = torch.cuda.get_device_properties(q.device).shared_memory_per_block_optin
    return q.shape[-1] in (16, 32, 64, 128) and room >= (132 if q.shape[-1] == 128 else 70) * 1024


def cdiv(a: int, b: int) -> int:
    """How many blocks of b cover a."""
    return -(-a // b)


def power_of_2(n: int) -> int:
    """The smallest power of two that is at least n: a block's size."""
    return 1 << max(n - 1, 0).bit_length()
