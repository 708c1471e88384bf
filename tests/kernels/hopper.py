"""Compiles a kernel for Hopper without a GPU and counts its machine instructions.

    python tests/kernels/hopper.py < requests.json > answers.json

``compiled`` starts a fresh interpreter, since the tests' own process runs every kernel in Triton's
interpreter. A request: {"kernel": "swiglu.forward_kernel", "types": {"g": "*bf16", "columns":
"i32", ...}, "constants": {"BLOCK": 1024}, "warps": 4, "stages": 3}. Pointers and integers count as
divisible by 16 unless they are named in "odd". "types" lists all parameters in order; the type of a
constant is "constexpr".
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED_LIMIT = 227 * 1024  # bytes of shared memory that a block may have on Hopper
REGISTERS = 255  # of a thread


def compiled(*requests: dict) -> list[dict]:
    """-> for each request {registers, spilled (bytes of local memory or stack), shared, instructions}

    ``instructions`` maps names to counts; a name is the opcode with modifiers: LDG.E.128,
    HGMMA.64x64x16.F32.BF16, ...
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run([sys.executable, __file__], input=json.dumps(requests), capture_output=True, text=True,
                              env=environment | {"TRITON_CACHE_DIR": cache})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def ops(answer: dict, start: str) -> int:
    """Number of instructions whose names begin so: ``ops(a, "LDG.E.128")``, ``ops(a, "HGMMA")``."""
    return sum(count for name, count in answer["instructions"].items() if name.startswith(start))


def sound(answer: dict) -> None:
    """Limits of all our kernels: no spills, and shared memory and registers that Hopper has."""
    assert answer["spilled"] == 0 and ops(answer, "LDL") == ops(answer, "STL") == 0, answer
    assert answer["shared"] <= SHARED_LIMIT and answer["registers"] <= REGISTERS, answer


def build(request: dict) -> dict:
    """Runs in the fresh interpreter: compile, disassemble, count."""
    import importlib

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    module, name = request["kernel"].rsplit(".", 1)
    kernel = getattr(importlib.import_module(f"minifleming.kernels.{module}"), name)
    types, constants = request["types"], request["constants"]
    assert list(types) == kernel.arg_names, (list(types), kernel.arg_names)
    even = [(i,) for i, (k, t) in enumerate(types.items())
            if t != "constexpr" and (t.startswith("*") or t in ("i32", "i64")) and k not in request.get("odd", [])]
    source = ASTSource(fn=kernel, signature=types, constexprs=constants,
                       attrs={at: [["tt.divisibility", 16]] for at in even})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                          options={"num_warps": request.get("warps", 4), "num_stages": request.get("stages", 3)})
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        usage, code = (subprocess.run([str(tools / "cuobjdump"), flag, file.name], capture_output=True, text=True,
                                      check=True).stdout for flag in ("--dump-resource-usage", "-sass"))
    found = {key: int(n) for key, n in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    instructions: dict[str, int] = {}
    for op in re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", code, re.M):
        instructions[op] = instructions.get(op, 0) + 1
    return {"registers": found["REG"], "spilled": found["STACK"] + found["LOCAL"], "shared": made.metadata.shared,
            "instructions": instructions}


if __name__ == "__main__":
    print(json.dumps([build(request) for request in json.load(sys.stdin)]))
