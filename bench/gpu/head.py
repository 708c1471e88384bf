"""The head with its loss, 65,536 tokens x 151,936 words: memory above what it cannot do without, and time.

Memory is the peak, by torch's own count and cuBLAS's workspace in it, above what was there before (hidden states,
weights, ids), dh, and dW in fp32: while the loss and all gradients are made, and of the backward pass too, which hands
them out. bf16 weights get theirs in bf16 besides, fp32 weights are copied in bf16 for the products: both are counted,
and named in the note.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.gpu import limits
from bench.gpu.clock import seconds
from bench.gpu.common import Bench, free, main
from minifleming.kernels.head import TokenLoss, linear_logprobs, linear_policy_loss
from minifleming.run.errors import run_cli

VOCABULARY = 151936
AIMS = {896: 0.60, 3584: 0.72}


class Inputs:
    def __init__(self, b: Bench, tokens: int, width: int, of_weight: torch.dtype):
        tokens, width, self.vocabulary = b.size((tokens, width, VOCABULARY), (300, 64, 1000))
        self.hidden = torch.randn(tokens, width, device=b.device).bfloat16().requires_grad_()
        self.weight = (torch.randn(self.vocabulary, width, device=b.device) * 0.02).to(of_weight).requires_grad_()
        self.ids = torch.randint(self.vocabulary, (tokens,), device=b.device)
        self.policy = TokenLoss("weighted", torch.randn(tokens, device=b.device) / tokens)
        self.shape = f"{tokens} tokens, {self.vocabulary} x {width}, {str(of_weight).removeprefix('torch.')} weights"

    def forget(self) -> None:
        self.hidden.grad = self.weight.grad = None

    def loss(self) -> torch.Tensor:
        self.forget()
        return linear_policy_loss(self.hidden, self.weight, self.ids, self.policy)[0]

    def ours(self) -> None:
        self.loss().backward()

    def plain(self) -> None:
        self.forget()
        logits = F.linear(self.hidden, self.weight.to(self.hidden.dtype)).float()
        (F.cross_entropy(logits, self.ids, reduction="none") * self.policy.weight).sum().backward()

    def liger(self) -> None:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

        self.forget()
        liger_fused_linear_cross_entropy(self.hidden, self.weight, self.ids).backward()


def peak(b: Bench, inputs: Inputs, run: Callable[[], None]) -> float:
    """Bytes above the inputs; cuBLAS's workspace, which stays between calls, is asked for again within."""
    run()
    inputs.forget()
    free()
    torch._C._cuda_clearCublasWorkspaces()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def memory(width: int, of_weight: torch.dtype) -> Callable[[Bench], None]:
    def measure(b: Bench) -> None:
        inputs = Inputs(b, 65536, width, of_weight)
        (T, C), V = inputs.hidden.shape, inputs.vocabulary
        if not b.cuda:
            inputs.ours()
            b.row("head: memory above dh, dW and inputs", inputs.shape, None, "MiB", note="counted on a GPU only")
            return
        other = "dW in bf16" if of_weight == torch.bfloat16 else "the weights in bf16"
        for what, run in (("while gradients are made", inputs.loss), ("forward and backward", inputs.ours)):
            above = peak(b, inputs, run) - 2 * T * C - 4 * V * C
            b.row(f"head: memory above dh, dW and inputs, {what}", inputs.shape, above / 2**20, "MiB",
                  aim={"most": 256.0}, limit=8 * T / 2**20, note=f"{other}: {2 * V * C / 2**20:.0f} MiB")
    return measure


def time_of(width: int) -> Callable[[Bench], None]:
    def measure(b: Bench) -> None:
        inputs = Inputs(b, 65536, width, torch.bfloat16)
        T, C = inputs.hidden.shape
        b.row("head: forward and backward", inputs.shape, 1e3 * seconds([inputs.ours]), "ms",
              limit=1e3 * limits.head_seconds(b.machine, T, inputs.vocabulary, C), aim={"share": AIMS[width]})
        with torch.no_grad():
            took = seconds([lambda: linear_logprobs(inputs.hidden, inputs.weight, inputs.ids)])
        b.row("head: log-probabilities alone", inputs.shape, 1e3 * took, "ms",
              limit=1e3 * limits.head_seconds(b.machine, T, inputs.vocabulary, C, products=1))
    return measure


def against(width: int) -> Callable[[Bench], None]:
    """At 8,192 tokens, where the plain way fits."""
    def measure(b: Bench) -> None:
        inputs = Inputs(b, 8192, width, torch.bfloat16)
        T, C = inputs.hidden.shape
        peers = {"plain PyTorch": lambda: seconds([inputs.plain])}
        if b.cuda:
            peers["Liger"] = lambda: seconds([inputs.liger])
        peer = b.peers(peers, "ms")
        inputs.forget()
        free()
        b.row("head: forward and backward", inputs.shape, 1e3 * seconds([inputs.ours]), "ms",
              limit=1e3 * limits.head_seconds(b.machine, T, inputs.vocabulary, C), **peer)
        for name in b.cuda * ["ours", "plain"]:
            b.row(f"head: peak memory above inputs, {name}", inputs.shape,
                  peak(b, inputs, getattr(inputs, name)) / 2**30, "GiB",
                  limit=limits.head_bytes(T, inputs.vocabulary, C) / 2**30)
    return measure


MEASUREMENTS = {f"{what}, {width}": make(width) for width in AIMS for what, make in (
    ("time", time_of), ("memory, bf16", lambda width: memory(width, torch.bfloat16)),
    ("memory, fp32", lambda width: memory(width, torch.float32)), ("against", against))}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("head", MEASUREMENTS, argv)))
