"""The reference of every fused operation against its formula in fp64, and the place where kernels
live."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from minifleming.kernels import reference

ROOT = Path(__file__).resolve().parents[1]


def noise(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def run(code: str, path: list[Path]) -> str:
    """The output of a fresh interpreter that finds modules on ``path`` before all else."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# The place


def test_kernels_is_a_folder_and_no_package():
    """No __init__.py, so that an installed distribution of this name wins; a relative link puts it
    in the package."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    link = ROOT / "minifleming" / "kernels"
    assert link.is_symlink() and os.readlink(link) == "../kernels"
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert "minifleming.kernels" in packages and "kernels" not in packages


@pytest.mark.slow
def test_an_installed_distribution_named_kernels_is_not_shadowed(tmp_path):
    """With the checkout before it on the path, ``import kernels`` still finds the installed regular
    package."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("installed = True\n")
    code = "import kernels, minifleming.kernels.reference as r; print(kernels.installed, r.__name__)"
    assert run(code, [ROOT, tmp_path]) == "True minifleming.kernels.reference"


@pytest.mark.slow
def test_every_room_imports_without_triton_and_without_a_gpu():
    """Every room imports with triton and transformers blocked; of the kernels, the reference alone
    must."""
    files = [p.relative_to(ROOT) for p in (ROOT / "minifleming").glob("*/*.py") if p.parent.name != "kernels"]
    modules = [".".join(p.with_suffix("").parts).removesuffix(".__init__") for p in files]
    assert "minifleming.lm.sampler" in modules
    modules.append("minifleming.kernels.reference")
    code = ("import sys, importlib\nsys.modules.update(triton=None, transformers=None)\n"
            f"for name in {modules}: importlib.import_module(name)\n"
            "import minifleming; print(minifleming.__version__)")
    assert run(code, [ROOT])


@pytest.mark.parametrize("room, allowed", [("kernels", set()), ("minifleming/lm", {"lm", "kernels", "run"})])
def test_arrows_point_one_way(room, allowed):
    """The kernels know nothing of ours; the language model knows the kernels and ``run``; nobody
    reads pickles."""
    for path in (ROOT / room).rglob("*.py"):
        if path.name == "gguf.py":  # forwards a stable command to extras
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                parts = name.split(".")
                assert parts[0] != "pickle", path
                if parts[0] == "minifleming":
                    own = room == "kernels" and parts[1:2] == ["kernels"]
                    assert own or (len(parts) > 1 and parts[1] in allowed), (path.name, name)


# The operations


@pytest.mark.parametrize("shape", [(5,), (3, 7), (2, 3, 4, 33)])
def test_rms_norm(shape):
    """x / sqrt(mean(x²) + eps) · w in fp64; unit mean square for w = 1; the scale of x drops
    out."""
    x, w = noise(*shape, scale=3), noise(shape[-1], seed=1)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * w.double()
    torch.testing.assert_close(reference.rms_norm(x, w, 1e-5).double(), wanted, atol=1e-6, rtol=1e-5)
    unit = reference.rms_norm(x, torch.ones_like(w), 0.0)
    torch.testing.assert_close(unit.square().mean(-1), torch.ones(shape[:-1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(reference.rms_norm(x * 64, w, 0.0), reference.rms_norm(x, w, 0.0))
    assert reference.rms_norm(torch.zeros(shape), w, 1e-5).abs().max() == 0


def test_T32_rms_norm_sums_in_fp32():
    """A bf16 row whose squares do not fit a bf16 sum: the result is the fp32 one, rounded once."""
    x = (noise(4, 4096, scale=2) + 100).bfloat16()
    wanted = reference.rms_norm(x.float(), torch.ones(4096), 1e-6).bfloat16()
    found = reference.rms_norm(x, torch.ones(4096, dtype=torch.bfloat16), 1e-6)
    assert found.dtype == torch.bfloat16 and torch.equal(found, wanted)


def rope(positions, D, theta=1e4):
    angle = torch.tensor(positions).double()[:, None] * theta ** (-torch.arange(0, D, 2).double() / D)
    angle = torch.cat((angle, angle), -1)[None, None].float()
    return angle.cos(), angle.sin()


def test_rotary():
    """Turns the pair (i, i + D/2) as a complex number; keeps norms; scores depend on the distance
    alone."""
    D, T = 12, 9
    x, y = noise(2, 3, T, D), noise(2, 3, T, D, seed=1)
    cos, sin = rope(range(T), D)
    turned = torch.complex(x[..., :6], x[..., 6:]) * torch.complex(cos[..., :6], sin[..., :6])
    torch.testing.assert_close(reference.rotary(x, cos, sin), torch.cat((turned.real, turned.imag), -1))
    torch.testing.assert_close(reference.rotary(x, cos, sin).norm(dim=-1), x.norm(dim=-1))
    near = reference.rotary(x, cos, sin) @ reference.rotary(y, cos, sin).transpose(-1, -2)
    far = [reference.rotary(z, *rope(range(50, 50 + T), D)) for z in (x, y)]
    torch.testing.assert_close(far[0] @ far[1].transpose(-1, -2), near, atol=1e-4, rtol=1e-4)
    assert torch.equal(reference.rotary(x, *rope([0] * T, D)), x)


def test_swiglu():
    gate, up = noise(5, 33, scale=4), noise(5, 33, seed=1)
    wanted = gate.double() / (1 + (-gate.double()).exp()) * up.double()
    torch.testing.assert_close(reference.swiglu(gate, up).double(), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.1, 3.0])
def test_T14_T32_token_logprobs(temperature):
    """log softmax(logits / T) in fp64; sums to 1 over the vocabulary; never above 0; no
    overflow."""
    logits = noise(6, 37, scale=5)
    logits[1] += 3e4
    logits[2, 5] = 1e4
    ids = torch.arange(37)
    for row in logits:
        found = reference.token_logprobs(row.expand(37, 37), ids, temperature)
        wanted = (row.double() / temperature).log_softmax(-1)
        torch.testing.assert_close(found.double(), wanted, atol=1e-5 * max(1, row.abs().max() / temperature), rtol=1e-6)
        assert found.max() <= 0 and found.isfinite().all()
    calm = reference.token_logprobs(logits[:1].expand(37, 37), ids, temperature)
    assert calm.exp().sum().item() == pytest.approx(1, abs=1e-5)
    narrow = reference.token_logprobs(logits[:1].bfloat16().expand(37, 37), ids, temperature)
    assert narrow.dtype == torch.float32 and narrow.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_T33_token_logprobs_keeps_its_input_and_its_gradient():
    """The logits are not written to; the gradient is (one-hot - p) / T."""
    logits, ids = noise(4, 11, scale=2).requires_grad_(), torch.tensor([3, 0, 10, 3])
    before = logits.detach().clone()
    reference.token_logprobs(logits, ids, 0.7).sum().backward()
    assert torch.equal(logits.detach(), before)
    wanted = (torch.nn.functional.one_hot(ids, 11) - (before / 0.7).softmax(-1)) / 0.7
    torch.testing.assert_close(logits.grad, wanted, atol=1e-6, rtol=1e-5)
