"""Activation checkpointing: keep each block's input alone, and compute the rest again on the way back.

Memory of activations falls from all that plan.layer counts to one tensor of [tokens, width] a layer (and one layer's
whole), for about a third more arithmetic; values and gradients keep their bits. Put on from outside: the model does not
know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.checkpoint import checkpoint

from minifleming.lm.model import LanguageModel


@contextmanager
def activation_checkpointing(model: LanguageModel, enabled: bool = True) -> Iterator[None]:
    """Within it every block recomputes its activations."""
    blocks = list(model.model.layers) if enabled else []
    for block in blocks:
        block.forward = again(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def again(forward):
    def recomputing(*inputs):
        if not torch.is_grad_enabled():
            return forward(*inputs)
        return checkpoint(forward, *inputs, use_reentrant=False)

    return recomputing
