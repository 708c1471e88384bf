"""Tests with rows more than 2^31 elements apart, where 32-bit offsets would wrap around and crash.

Memory is reserved sparsely: the rows of a tensor are 2^30 elements apart and only they are touched.
Each case runs in a child process, since a wrong offset ends the process.

    python tests/kernels/test_far_offsets.py CASE
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FAR = 2**30  # elements between two rows: row 2 starts at 2^31
ROWS = 4


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def far(x: torch.Tensor, stride: int = FAR) -> torch.Tensor:
    """A copy of x whose rows are ``stride`` elements apart."""
    memory = torch.empty((len(x) - 1) * stride + x[0].numel(), dtype=x.dtype)
    y = memory.as_strided(x.shape, (stride, *x[0].contiguous().stride()))
    return y.copy_(x)


def assert_close(*pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    for found, wanted in pairs:
        torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=1e-5)


def case_loss_rows() -> None:
    from minifleming.kernels import loss_rows, reference

    logits, ids, factor = noise(ROWS, 333), torch.tensor([1, 332, 7, 0]), noise(ROWS, seed=1)
    wanted, found = ([torch.empty(ROWS) for _ in range(4)] for _ in range(2))
    distant = far(logits)
    reference.logprob_loss_rows(logits, ids, wanted, factor, None, "weighted", 0.0, 0.0, 0.7)
    loss_rows.fused_logprob_loss_rows(distant, ids, found, factor, None, "weighted", 0.0, 0.0, 0.7)
    assert_close(*zip(found, wanted), (distant, logits))


def case_norm() -> None:
    from minifleming.kernels import norm, reference

    x, residual, w, dy = noise(ROWS, 96), noise(ROWS, 96, seed=1), noise(96, seed=2), noise(ROWS, 96, seed=3)
    distant, y, r = far(x), torch.empty(ROWS, 96), torch.empty(ROWS)
    norm.launch_forward(distant, None, distant, w, y, r, 1e-6)
    leaves = [x.double().requires_grad_(), w.double().requires_grad_()]
    exact = leaves[1] * leaves[0] / (leaves[0].square().mean(-1, keepdim=True) + 1e-6).sqrt()
    gradients = torch.autograd.grad(exact, leaves, dy.double())
    assert_close((y, exact.detach()), *zip(norm.launch_backward(far(dy), None, distant, w, r), gradients))
    added = far(residual)
    norm.launch_forward(distant, added, added, w, y, None, 1e-6)
    assert_close(*zip((y, added), reference.add_rms_norm(x, residual, w, 1e-6)))


def case_swiglu() -> None:
    from minifleming.kernels import reference, swiglu

    gate, up, dy = noise(ROWS, 130), noise(ROWS, 130, seed=1), noise(ROWS, 130, seed=2)
    leaves = [gate.double().requires_grad_(), up.double().requires_grad_()]
    gradients = torch.autograd.grad(reference.swiglu(*leaves), leaves, dy.double())
    distant = far(gate), far(up)
    assert_close((swiglu.launch_forward(*distant), reference.swiglu(gate, up)),
                 *zip(swiglu.launch_backward(far(dy), *distant), gradients))


def case_rotary() -> None:
    from minifleming.kernels import reference, rotary

    q, k, angle = noise(ROWS, 3, 16), noise(ROWS, 1, 16, seed=1), torch.rand(ROWS, 8)
    cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
    found = rotary.launch_rotary((far(q), far(k)), far(cos), far(sin), 1.0)
    for x, y in zip((q, k), found):
        assert_close((y, reference.rotary(x, cos[:, None], sin[:, None])))


def case_rotary_and_cache() -> None:
    from minifleming.kernels import reference, rotary

    H, K, D, T = 3, 1, 16, 5
    qkv = noise(ROWS, (H + 2 * K) * D)
    positions = torch.tensor([3, 1, 0, 7], dtype=torch.int32)
    lengths = torch.tensor([0, 4, -1, 2], dtype=torch.int32)
    tables = torch.rand(10, 8).cos(), torch.rand(10, 8).sin()
    near = [torch.zeros(ROWS, K, T, D), torch.zeros(ROWS, K, T, D), torch.empty(ROWS, H, D)]
    distant = [far(near[0]), far(near[1]), torch.empty(ROWS, H, D)]
    reference.rotary_and_cache(qkv, positions, lengths, *tables, *near, None, None, 1e-6)
    rotary.launch_cache(far(qkv), positions, lengths, *tables, *distant, None, None, 1e-6)
    assert_close(*zip(distant, near))


def case_gumbel() -> None:
    from minifleming.kernels import gumbel, reference

    logits, positions = noise(ROWS, 700) * 3, torch.tensor([0, 3, 1, 9])
    keys = torch.tensor([5, -9, 2**40, 77])
    ids, logprobs = torch.empty(ROWS, dtype=torch.int64), torch.empty(ROWS)
    gumbel.gumbel_argmax(far(logits), keys, positions, 1.0, ids, logprobs)
    wanted_ids, wanted = reference.gumbel_sample(logits, keys, positions, 1.0)
    assert torch.equal(ids, wanted_ids)
    assert_close((logprobs, wanted))


def case_decode_attention() -> None:
    from minifleming.kernels import decode_attention, reference

    H, K, D, T, L = 6, 2, 16, 40, 37
    q, keys, values = noise(ROWS, H, D), noise(ROWS, K, T, D, seed=1), noise(ROWS, K, T, D, seed=2)
    prompt_keys, prompt_values = noise(4, K, L, D, seed=3), noise(4, K, L, D, seed=4)
    lengths = torch.tensor([40, 3, 0, 17], dtype=torch.int32)
    prompt_lengths = torch.tensor([37, 1, 5, 20], dtype=torch.int32)
    groups = torch.tensor([[-1, -1], [0, 2], [1, -1], [3, -1]], dtype=torch.int32)
    wanted = reference.decode_attention(q, keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups)
    given = (far(q), far(keys), far(values), lengths, far(prompt_keys), far(prompt_values), prompt_lengths, groups)
    space, out = decode_attention.workspace(given[0], given[1], given[4], groups), far(torch.zeros(ROWS, H, D))
    decode_attention.attend_and_combine(*given, space, out)
    assert_close((out, wanted))


def case_attention() -> None:
    from minifleming.kernels import attention, reference
    from minifleming.kernels.segments import Segments

    segments, stride = Segments([300, 200, 130, 100], [-1, 0, 0, -1]), 2**22
    N = segments.tokens
    assert (N - 1) * stride > 2**31
    q, k, v, do = noise(N, 2, 16), noise(N, 1, 16, seed=1), noise(N, 1, 16, seed=2), noise(N, 2, 16, seed=3)
    distant = [far(x, stride) for x in (q, k, v)]
    o, stats = attention.launch_forward(*distant, segments)
    found = attention.launch_backward(*distant, o, do, stats, segments)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    exact = reference.segment_attention(*leaves, segments)
    assert_close((o, exact.detach()), *zip(found, torch.autograd.grad(exact, leaves, do.double())))


CASES = {name.removeprefix("case_"): function for name, function in list(globals().items()) if name.startswith("case_")}


def run_case(name: str, root: Path) -> int:
    """Exit status of one case in a fresh interpreter that imports the package from ``root``."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-P", __file__, name], env=environment, cwd=root, capture_output=True).returncode


@pytest.mark.slow
def test_offsets_beyond_32_bits():
    assert [name for name in CASES if run_case(name, ROOT) != 0] == []


@pytest.mark.slow
def test_a_32_bit_offset_crashes(tmp_path):
    """The control: without one conversion to 64 bits the same case ends its process."""
    shutil.copytree(ROOT / "minifleming", tmp_path / "minifleming", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    assert run_case("loss_rows", tmp_path) == 0
    kernel = tmp_path / "minifleming" / "kernels" / "loss_rows.py"
    source = kernel.read_text()
    assert source.count(".to(tl.int64)") == 1
    kernel.write_text(source.replace(".to(tl.int64)", ""))
    assert run_case("loss_rows", tmp_path) != 0


if __name__ == "__main__":
    from tests.kernels.check import mend_interpreter

    with pytest.MonkeyPatch.context() as monkeypatch:
        mend_interpreter(monkeypatch)
        CASES[sys.argv[1]]()
