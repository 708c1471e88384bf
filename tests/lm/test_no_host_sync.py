"""A decode step of the CUDA graph engine never reads a value from the device, which would break a
capture."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime import interpreter

from minifleming.kernels import decode_attention, gumbel, norm, rotary, swiglu
from minifleming.lm.engines.cuda_graph import CudaGraphDecoder
from minifleming.lm.kv_cache import Capacity
from tests.kernels.check import mend_interpreter

pytestmark = pytest.mark.slow

HOST_READS = ("_local_scalar_dense", "item", "nonzero", "equal.default", "_to_copy")


class OperationLog(TorchDispatchMode):
    """Counts the ATen operations that run below Python."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[str(operation)] += 1
        return operation(*args, **(kwargs or {}))

    def host_reads(self) -> list[str]:
        return [name for name in self.counts if any(word in name for word in HOST_READS)]


@pytest.fixture
def launches(monkeypatch) -> Counter:
    """Runs every kernel in Triton's interpreter, outside the operation log, and counts its
    launches."""
    mend_interpreter(monkeypatch)
    counts = Counter()
    launch = interpreter.GridExecutor.__call__

    def counted(self, *args, **kwargs):
        counts[f"{self.fn.__module__.split('.')[-1]}.{self.fn.__name__}"] += 1
        with _disable_current_modes():
            return launch(self, *args, **kwargs)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    for module in (decode_attention, gumbel, norm, rotary, swiglu):
        monkeypatch.setattr(module, "on_gpu", lambda *tensors: True)
    return counts


@torch.inference_mode()
def engine_after_one_step(model) -> CudaGraphDecoder:
    engine = CudaGraphDecoder(model, Capacity(4, 2, 6, 20), samples=2, temperature=1.0, sync_every=4)
    engine.prefill([[1, 2, 3], [4, 5]], [1, 2, 3, 4])
    engine.step(4)
    return engine


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_decode_step_never_synchronizes_with_the_host(tiny, kind, launches):
    engine = engine_after_one_step(tiny(kind, head_dim=16))
    launches.clear()
    with torch.inference_mode(), OperationLog() as log:
        engine.step(4)
    assert log.host_reads() == []
    layers = len(engine.layers)
    assert launches == {
        "norm.forward_kernel": 1 + 2 * layers,
        "rotary.cache_kernel": layers,
        "decode_attention.attend_kernel": layers,
        "decode_attention.combine_kernel": layers,
        "swiglu.forward_kernel": layers,
        "gumbel.block_kernel": 1,
        "gumbel.row_kernel": 1,
    }


def test_the_log_sees_a_host_read(tiny, launches):
    """The control: a step that reads one number of the device is caught."""
    engine = engine_after_one_step(tiny("qwen2", head_dim=16))
    with torch.inference_mode(), OperationLog() as log:
        engine.step(4)
        engine.counts.max().item()
    assert log.host_reads()
