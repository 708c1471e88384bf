"""What this ran on, and its ceilings: a copy, and a product of 8192 x 8192 x 8192 in bf16 on random data.

Measured once, before all else, by a process that is alone; DIR/machine.json keeps it for the others. Limits take the
ceilings of limits.H200 where the card is one, so that shares are comparable; elsewhere those measured here.
"""

from __future__ import annotations

import json
import platform
import subprocess
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from bench.gpu.clock import seconds
from bench.gpu.limits import H200, Machine

ROOT = Path(__file__).resolve().parents[2]


def facts(out: Path, device: torch.device, toy: bool) -> dict:
    """From DIR/machine.json; whoever finds none measures, and writes it."""
    path = out / "machine.json"
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor() or platform.machine()
    try:
        found = json.loads(path.read_text())
        assert found["name"] == name
    except (OSError, ValueError, KeyError, AssertionError):
        found = {"kind": "gpu" if device.type == "cuda" else "cpu", "name": name, **versions(), "toy": toy,
                 "copy_bytes_per_s": copy_rate(device, toy), "flop_per_s": product_rate(device, toy)}
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def ceilings(found: dict) -> Machine:
    return H200 if "H200" in found["name"] else Machine(found["copy_bytes_per_s"], found["flop_per_s"])


def versions() -> dict:
    changed = told("git", "-C", str(ROOT), "status", "--porcelain")
    found = {"driver": told("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
             "python": platform.python_version(), "cuda": torch.version.cuda, "date": date.today().isoformat(),
             "commit": told("git", "-C", str(ROOT), "rev-parse", "HEAD"),
             "changed_files": len((changed or "").splitlines()) or None}
    for name in ("triton", "transformers", "trl", "liger-kernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {"torch": torch.__version__}


def told(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def copy_rate(device: torch.device, toy: bool) -> float:
    """Bytes read and written a second."""
    a, b = (torch.randn(2**22 if toy else 2**28, device=device) for _ in range(2))
    return 2 * a.numel() * 4 / seconds([lambda: b.copy_(a)] * 4)


def product_rate(device: torch.device, toy: bool) -> float:
    """In bf16; on a CPU in fp32, which it is made for."""
    n, dtype = 512 if toy else 8192, torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / seconds([lambda: torch.mm(a, b)] * 4)
