"""Each kernel's time at real shapes, against the bytes or operations it cannot do without, plain PyTorch and Liger.

Training kernels run forward and backward over 65,536 tokens, more than the L2 cache holds. Those of a decode step are
replayed as a graph, over inputs that rotate; they are so short that their launch counts, so their shares are small.
Bytes: of every element in bf16, what the kernel's own docstring counts. Operations of attention: 4 H D a pair of query
and key forward, 12 with the backward pass (what is computed twice counts once).

Training attention has PyTorch's ways beside it, so that the fastest can be chosen: flash attention with a batch
dimension where all documents are equally long, its form for packed rows (varlen), and where a prompt is shared that one
in two parts, merged as kernels/flash_merge.py does on a CPU; or every answer with a prompt of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.gpu import limits
from bench.gpu.clock import replayed, seconds
from bench.gpu.common import Bench, main
from bench.gpu.flash import merged, varlen
from minifleming.kernels import reference
from minifleming.kernels.attention import attention
from minifleming.kernels.decode_attention import decode_attention, workspace
from minifleming.kernels.gumbel import sample_tokens
from minifleming.kernels.norm import add_rms_norm, add_rms_norm_into, rms_norm
from minifleming.kernels.rotary import rotary_and_cache, rotary_qk
from minifleming.kernels.segments import Segments
from minifleming.kernels.swiglu import swiglu
from minifleming.run.errors import run_cli

EPS = 1e-6
#         width inner  H   K  D
SHAPES = {"0.5B": (896, 4864, 14, 2, 64), "7B": (3584, 18944, 28, 4, 128)}
TOY = (64, 176, 4, 2, 16)


def noise(b: Bench, *shape: int) -> Tensor:
    return torch.randn(shape, device=b.device, dtype=torch.bfloat16)


def learned(f: Callable, inputs: list[Tensor]) -> Callable[[], None]:
    """Forward and backward, for the same cotangents every time."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    first = f(*leaves)
    above = [torch.randn_like(x) for x in (first if isinstance(first, tuple) else (first,))]

    def run() -> None:
        outs = f(*leaves)
        torch.autograd.grad(outs if isinstance(outs, tuple) else (outs,), leaves, above)
    return run


def trained(b: Bench, what: str, shape: str, moved: float, ours: Callable, plain: Callable, liger: Callable,
            inputs: list[Tensor]) -> None:
    """A row of a training kernel; ``moved``: bytes forward and backward."""
    programs = {"plain PyTorch": lambda: seconds([learned(plain, inputs)] * 4)}
    if b.cuda:
        programs["Liger"] = lambda: seconds([learned(liger(), inputs)] * 4)
    took, peer = seconds([learned(ours, inputs)] * 4), b.peers(programs, "ms")
    b.row(f"{what}, forward and backward", shape, 1e3 * took, "ms", limit=1e3 * moved / b.machine.bandwidth, **peer)


def elementwise(name: str) -> Callable[[Bench], None]:
    def measure(b: Bench) -> None:
        (C, inner, H, K, D), N = b.size(SHAPES[name], TOY), b.size(65536 if name == "0.5B" else 16384, 128)
        w = noise(b, C)
        trained(b, "rms_norm", f"[{N}, {C}]", 10 * N * C, lambda x, w: rms_norm(x, w, EPS),
                lambda x, w: F.rms_norm(x, (C,), w, EPS), liger_norm, [noise(b, N, C), w])
        trained(b, "add_rms_norm", f"[{N}, {C}]", 16 * N * C, lambda x, r, w: add_rms_norm(x, r, w, EPS),
                lambda x, r, w: (F.rms_norm(x + r, (C,), w, EPS), x + r), liger_add_norm,
                [noise(b, N, C), noise(b, N, C), w])
        trained(b, "swiglu", f"[{N}, {inner}]", 16 * N * inner, swiglu, reference.swiglu, liger_swiglu,
                [noise(b, N, inner), noise(b, N, inner)])
        angle = torch.rand(N, D, device=b.device)
        cos, sin = angle.cos(), angle.sin()
        trained(b, "rotary_qk", f"[{N}, {H} and {K}, {D}]", 8 * N * (H + K) * D, lambda q, k: rotary_qk(q, k, cos, sin),
                lambda q, k: tuple(turned(x, cos, sin) for x in (q, k)), lambda: liger_rope(cos, sin),
                [noise(b, N, H, D), noise(b, N, K, D)])
    return measure


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return reference.rotary(x, *(t[:, None].to(x.dtype) for t in (cos, sin)))


def liger_norm() -> Callable:
    from liger_kernel.transformers.functional import liger_rms_norm
    return lambda x, w: liger_rms_norm(x, w, EPS, in_place=False)


def liger_add_norm() -> Callable:
    from liger_kernel.transformers.functional import liger_fused_add_rms_norm
    return lambda x, r, w: tuple(liger_fused_add_rms_norm(x, r, w, EPS, in_place=False))


def liger_swiglu() -> Callable:
    from liger_kernel.transformers.functional import liger_swiglu as fused
    return fused


def liger_rope(cos: Tensor, sin: Tensor) -> Callable:
    from liger_kernel.transformers.functional import liger_rope as fused
    return lambda q, k: tuple(fused(*(x.transpose(0, 1)[None] for x in (q, k)), cos[None], sin[None]))


# A decode step


def short(b: Bench, what: str, shape: str, moved: float, runs: list[Callable], peer: dict | None = None) -> None:
    b.row(f"{what}, decoding", shape, 1e6 * replayed(runs), "us", limit=1e6 * moved / b.machine.bandwidth,
          **(peer or {}))


@torch.inference_mode()
def decoding(b: Bench) -> None:
    (C, inner, H, K, D), n, T = b.size(SHAPES["0.5B"], TOY), b.size(64, 3), b.size(512, 20)
    x, residual, w, y = noise(b, n, C), noise(b, n, C), noise(b, C), noise(b, n, C)
    short(b, "add_rms_norm_into", f"[{n}, {C}]", 8 * n * C, [lambda: add_rms_norm_into(x, residual, w, EPS, y)])
    gate, up = noise(b, n, 2 * inner).chunk(2, -1)
    short(b, "swiglu", f"[{n}, {inner}]", 6 * n * inner, [lambda: swiglu(gate, up)])
    qkv, places = noise(b, n, (H + 2 * K) * D), torch.arange(n, device=b.device).int()
    keys, values = noise(b, n, K, T, D), noise(b, n, K, T, D)
    q, (cos, sin) = noise(b, n, H, D), torch.rand(2, T, D // 2, device=b.device)
    lengths = places % T
    short(b, "rotary_and_cache", f"{n} rows, {H} and {K} of {D}", 4 * n * (H + 2 * K) * D,
          [lambda: rotary_and_cache(qkv, places, lengths, cos, sin, keys, values, q)])
    for rows in b.size((64, 512), (3,)):
        sampling(b, rows, b.size(151936, 1000))


def sampling(b: Bench, n: int, vocabulary: int) -> None:
    logits = [noise(b, n, vocabulary) for _ in range(b.size(6 if n < 100 else 2, 1))]
    rng_keys, positions = (torch.arange(n, device=b.device) for _ in range(2))
    ids, found = torch.empty_like(rng_keys), torch.empty(n, device=b.device)

    def plain(z: Tensor) -> None:
        p = z.float().softmax(-1)
        p.gather(1, torch.multinomial(p, 1)).log()

    peer = b.peers({"softmax and multinomial": lambda: seconds([lambda z=z: plain(z) for z in logits])}, "us")
    short(b, "sample_tokens", f"[{n}, {vocabulary}]", 2 * n * vocabulary,
          [lambda z=z: sample_tokens(z, rng_keys, positions, 1.0, ids, found) for z in logits], peer)


def cached(name: str, prompts: int, samples: int, own: int, prompt: int) -> Callable[[Bench], None]:
    """decode_attention; the peer is PyTorch's attention over caches in which every row has its prompt's copy."""
    @torch.inference_mode()
    def measure(b: Bench) -> None:
        _, _, H, K, D = b.size(SHAPES[name], TOY)
        G, R, T, L = b.size((prompts, samples, own, prompt), (2, 2, 20, 9))
        n, room = (G * R, max(L, 1))
        moved = 4 * K * D * (n * T + (G * L if R > 1 or L else 0))
        sets = range(b.size(max(1, int(2.5e8 / moved)), 1))
        caches = [[noise(b, many, K, size, D) for many, size in ((n, T), (n, T), (G, room), (G, room))] for _ in sets]
        q, out = noise(b, n, H, D), noise(b, n, H, D)
        lengths, prompt_lengths = (torch.full((m,), size, device=b.device).int() for m, size in ((n, T), (G, L)))
        groups = torch.arange(n, device=b.device).int().view(G, R)
        space = workspace(q, caches[0][0], caches[0][2], groups)
        runs = [lambda c=c: decode_attention(q, c[0], c[1], lengths, c[2], c[3], prompt_lengths, groups, space, out)
                for c in caches]
        whole = [[torch.cat((c[2 + i][:, :, :L].repeat_interleave(R, 0), c[i]), 2) for i in (0, 1)] for c in caches]
        peer = b.peers({"scaled_dot_product_attention": lambda: replayed(
            [lambda k=k, v=v: F.scaled_dot_product_attention(q[:, :, None], k, v, enable_gqa=True) for k, v in whole])},
            "us")
        shared = f", prompt {L} shared by {R}" if L else ""
        short(b, "decode_attention", f"{b.size(name, 'toy')}: {n} rows of {T}{shared}, {H} on {K} of {D}", moved, runs,
              peer)
    return measure


# Training attention


def packed(name: str, groups: int, prompt: int, answers: int, length: int) -> Callable[[Bench], None]:
    """answers = 0: ``groups`` documents of ``length`` that share nothing."""
    def measure(b: Bench) -> None:
        _, _, H, K, D = b.size(SHAPES[name], TOY)
        many, p, n = b.size((groups, prompt, length), (2, 9, 20))
        segments = trees(many, p, answers, n)
        qkv = [noise(b, segments.tokens, heads, D) for heads in (H, K, K)]
        flop = 4.0 * H * D * limits.pairs(segments.table().tolist())
        each = f"({p} + {answers} x {n})" if answers else n
        shape = f"{b.size(name, 'toy')}: {segments.tokens} tokens, {many} x {each}"

        def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(q, k, v, segments)

        programs = ways(b, segments, ours, qkv, many, p, answers, n)
        for what, products, run in (("forward", 1, no_grad), ("forward and backward", 3, learned)):
            peer = b.peers({way: lambda f=f, x=x, run=run: seconds([run(f, x)] * 8)
                            for way, (f, x) in programs.items()}, "ms")
            b.row(f"training attention, {what}", shape, 1e3 * seconds([run(ours, qkv)] * 8), "ms",
                  limit=1e3 * products * flop / b.machine.rate, **peer)
    return measure


def trees(groups: int, prompt: int, answers: int, length: int) -> Segments:
    lengths, reads = ([prompt, *[length] * answers], [-1, *[0] * answers]) if answers else ([length], [-1])
    return Segments(lengths * groups, [r if r < 0 else r + i * len(lengths) for i in range(groups) for r in reads])


def no_grad(f: Callable, inputs: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        with torch.no_grad():
            f(*inputs)
    return run


def batched(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def ways(b: Bench, segments: Segments, ours: Callable, qkv: list[Tensor], groups: int, p: int, answers: int,
         n: int) -> dict[str, tuple[Callable, list[Tensor]]]:
    """Peers by name: (function, inputs)."""
    rows, long = (groups * answers, p + n) if answers else (groups, n)
    apart = [noise(b, rows, x.shape[1], long, x.shape[2]) for x in qkv]
    found = {"flash attention, a batch" + ", prompts copied" * bool(answers): (batched, apart)}
    if b.cuda:
        way = merged if answers else varlen
        found[f"flash attention, {'two parts merged' if answers else 'varlen'}"] = (
            alike(lambda q, k, v: way(q, k, v, segments), ours), qkv)
    return found


def alike(theirs: Callable, ours: Callable) -> Callable:
    """``theirs``, which at its first call must give what ``ours`` gives."""
    checked = []

    def f(*inputs: Tensor) -> Tensor:
        if not checked:
            with torch.no_grad():
                a, b = theirs(*inputs).float(), ours(*inputs).float()
            assert (a - b).norm() < 0.02 * b.norm(), "its output is not ours"
            checked.append(True)
        return theirs(*inputs)
    return f


MEASUREMENTS = {
    "attention, 0.5B, groups": packed("0.5B", 4, 256, 8, 1024), "attention, 0.5B": packed("0.5B", 32, 0, 0, 1024),
    "attention, 7B, groups": packed("7B", 2, 256, 8, 1024), "attention, 7B": packed("7B", 16, 0, 0, 1024),
    "decode_attention, 0.5B": cached("0.5B", 64, 1, 512, 0), "decode_attention, 7B": cached("7B", 64, 1, 512, 0),
    "decode_attention, 0.5B, groups": cached("0.5B", 32, 8, 768, 256),
    "decode_attention, 7B, groups": cached("7B", 32, 8, 768, 256),
    "a decode step's others": decoding, "elementwise, 0.5B": elementwise("0.5B"), "elementwise, 7B": elementwise("7B"),
}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("kernels", MEASUREMENTS, argv)))
