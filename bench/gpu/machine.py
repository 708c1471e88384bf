"""The first part of the suite: what this runs on, and the ceilings that every share refers to (card.py)."""

from __future__ import annotations

from bench.gpu.card import facts
from bench.gpu.common import Bench, main
from minifleming.run.errors import run_cli


def rates(b: Bench) -> None:
    """Measured when ``b`` was made."""
    found, dtype = facts(b.out, b.device, b.toy), "bf16" if b.cuda else "fp32"
    b.row("a copy on the device, bytes read and written", found["name"], found["copy_bytes_per_s"] / 1e12, "TB/s",
          limit=b.machine.bandwidth / 1e12)
    b.row(f"a large {dtype} product on random data", found["name"], found["flop_per_s"] / 1e12, "TFLOP/s",
          limit=b.machine.rate / 1e12)


MEASUREMENTS = {"rates": rates}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("machine", MEASUREMENTS, argv)))
