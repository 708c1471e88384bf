"""Every kernel on the device against fp64, forward and gradients, at odd and at real sizes: ‖out - ref‖ / ‖ref‖.

Bounds: 1e-5 in fp32 (a product in tf32 misses it by far), 1e-2 in bf16 (its steps are 2^-8; sums and weights are
rounded once or twice on the way), 5e-2 for plain PyTorch in bf16, which rounds after every operation. The largest error
of all outputs and gradients is the row's. "mixed" is what training has: bf16 activations, fp32 residuals and weights.

Memory that ``torch.empty`` gives out is NaN here, and so are outputs handed in: what is not written, shows. Every
kernel runs twice and must give the same bits. Without CUDA the plain paths run, or with TRITON_INTERPRET=1 the kernels.
"""

from __future__ import annotations

import os

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # which deterministic mode, the source of the NaN, asks for

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bench.gpu.common import Bench, answers, main, said
from minifleming.kernels import (
    attention,
    decode_attention,
    gumbel,
    head,
    norm,
    reference,
    rotary,
    swiglu,
)
from minifleming.kernels.segments import Segments
from minifleming.run.errors import run_cli

EPS = 1e-6
KERNELS = (attention, decode_attention, head, norm, rotary, gumbel, swiglu)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" and not torch.cuda.is_available()
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "mixed": torch.bfloat16}
NAN = float("nan")
#        rows  C     I      H   K  D    vocabulary  tokens of the head
SIZES = {"odd": (33, 65, 1029, 6, 2, 16, 4099, 37), "odd, one row": (1, 7, 33, 1, 1, 32, 33, 1),
         "0.5B": (4099, 896, 4864, 14, 2, 64, 151936, 1000), "7B": (2050, 3584, 18944, 28, 4, 128, 151936, 300)}
TREES = {"odd": ([7, 33, 1, 20, 19], [-1, 0, 0, -1, 3]), "odd, one row": ([1], [-1]),
         "0.5B": ([257, 300, 511, 64, 129, 333], [-1, 0, 0, 0, -1, -1]), "7B": ([256, 129, 400, 65], [-1, 0, 0, -1])}


def noise(b: Bench, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
    return (torch.randn(shape, device=b.device) * scale).to(dtype)


def graded(f: Callable, above: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Outputs, then the inputs' gradients."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outs = f(*leaves)
    outs = list(outs) if isinstance(outs, tuple) else [outs]
    grads = torch.autograd.grad(outs, leaves, [a.to(out.dtype) for a, out in zip(above, outs)])
    return [*(x.detach() for x in outs), *grads]


def both(mine: Callable, exact: Callable, above: list[Tensor], inputs: list[Tensor], names: str) -> dict:
    """Each output and gradient by its name: (found, wanted in fp64)."""
    found, again = graded(mine, above, inputs), graded(mine, above, inputs)
    wanted = graded(exact, [x.double() for x in above], [x.double() for x in inputs])
    assert all(x.isfinite().all() for x in found), "not finite, or not written"
    assert all(torch.equal(x, y) for x, y in zip(found, again)), "a second run gives other bits"
    return dict(zip(names.split(), zip(found, wanted, strict=True), strict=True))


def relative(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape, (found.shape, wanted.shape)
    assert found.isfinite().all(), "not finite, or not written"
    size = wanted.double().norm()
    return ((found.double() - wanted.double()).norm() / (size if size > 0 else 1)).item()


# The cases: (bench, size, dtype) -> (shape in words, {name: (found, wanted)})


def swiglu_case(b: Bench, size: str, dtype: str):
    N, _, inner, *_ = SIZES[size]
    inputs = noise(b, N, 2 * inner, dtype=DTYPES[dtype], scale=2).chunk(2, -1)
    above = [noise(b, N, inner, dtype=DTYPES[dtype])]
    return f"[{N}, {inner}]", both(swiglu.swiglu, lambda g, u: g * g.sigmoid() * u, above, inputs, "y dg du")


def exact_norm(x: Tensor, w: Tensor) -> Tensor:
    return w * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def norm_case(b: Bench, size: str, dtype: str):
    (N, C, *_), kind = SIZES[size], DTYPES[dtype]
    wide = torch.float32 if dtype == "mixed" else kind
    inputs = [noise(b, N, C, dtype=wide, scale=2), noise(b, C, dtype=wide)]
    return f"[{N}, {C}]", both(lambda x, w: norm.rms_norm(x, w, EPS), exact_norm, [noise(b, N, C, dtype=wide)], inputs,
                               "y dx dw")


def add_norm_case(b: Bench, size: str, dtype: str):
    (N, C, *_), kind = SIZES[size], DTYPES[dtype]
    wide = torch.float32 if dtype == "mixed" else kind
    inputs = [noise(b, N, C, dtype=kind), noise(b, N, C, dtype=wide), noise(b, C, dtype=wide)]
    above = [noise(b, N, C, dtype=wide) for _ in range(2)]
    found = both(lambda x, r, w: norm.add_rms_norm(x, r, w, EPS), lambda x, r, w: (exact_norm(x + r, w), x + r), above,
                 inputs, "y s dx dresidual dw")
    x, residual, w = (t.clone() for t in inputs)
    y = torch.full_like(residual, NAN)
    norm.add_rms_norm_into(x, residual, w, EPS, y)
    return f"[{N}, {C}]", found | {"y in place": (y, found["y"][1]), "s in place": (residual, found["s"][1])}


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [N, heads, D]; cos, sin [N, D/2]"""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos[:, None] - b * sin[:, None], b * cos[:, None] + a * sin[:, None]), -1)


def angles(b: Bench, count: int, D: int) -> tuple[Tensor, Tensor]:
    angle = torch.arange(count, device=b.device).double()[:, None] * 1e4 ** (
        -torch.arange(0, D, 2, device=b.device).double() / D)
    return angle.cos().float(), angle.sin().float()


def rotary_case(b: Bench, size: str, dtype: str):
    (N, _, _, H, K, D, *_), kind = SIZES[size], DTYPES[dtype]
    cos, sin = angles(b, N, D)
    inputs, above = ([noise(b, N, heads, D, dtype=kind) for heads in (H, K)] for _ in range(2))
    return f"[{N}, {H} and {K}, {D}]", both(
        lambda q, k: rotary.rotary_qk(q, k, torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)),
        lambda q, k: tuple(turned(x, cos.double(), sin.double()) for x in (q, k)), above, inputs, "q k dq dk")


def cache_case(b: Bench, size: str, dtype: str):
    """Rows idle, at the last place, and full; the rest of the cache stays NaN. Without and with norms of the heads."""
    (N, _, _, H, K, D, *_), kind, T, found = SIZES[size], DTYPES[dtype], 9, {}
    n = min(N, 64)
    qkv, (cos, sin) = noise(b, n, (H + 2 * K) * D, dtype=kind), angles(b, 100, D)
    lengths = ((torch.arange(n, device=b.device) + 4 * (n == 1)) % (T + 2) - 1).int()
    positions, idle = lengths + 40, (lengths < 0)[:, None, None]
    at = [x[positions.long()].double() for x in (cos, sin)]
    there = ((lengths >= 0) & (lengths < T)).nonzero()[:, 0]
    place = lengths[there].long()
    for normed in (False, True):
        weights = [noise(b, D, dtype=kind) for _ in range(2)] if normed else [None, None]
        q_out = torch.full((n, H, D), NAN, dtype=kind, device=b.device)
        keys, values = (torch.full((n + 1, K, T, D), NAN, dtype=kind, device=b.device) for _ in range(2))
        rotary.rotary_and_cache(qkv, positions, lengths, cos, sin, keys, values, q_out, *weights, EPS)
        assert keys.isfinite().sum() == values.isfinite().sum() == len(there) * K * D, "places written"
        q, k, v = qkv.double().unflatten(1, (-1, D)).split([H, K, K], dim=1)
        q, k = (x if w is None else exact_norm(x, w.double()) for x, w in zip((q, k), weights))
        pairs = {"q": (q_out, turned(q, *at).masked_fill(idle, 0.0)),
                 "k": (keys[there, :, place], turned(k, *at)[there]), "v": (values[there, :, place], v[there])}
        found |= {name + " normed" * normed: pair for name, pair in pairs.items()}
    return f"{n} rows, {H} and {K} of {D}", found


def attention_case(b: Bench, size: str, dtype: str):
    (_, _, _, H, K, D, *_), segments, kind = SIZES[size], Segments(*TREES[size]), DTYPES[dtype]
    N = segments.tokens
    qkv = [noise(b, N, heads, D, dtype=kind) for heads in (H, K, K)]
    return f"{N} tokens, {len(segments)} segments, {H} on {K} of {D}", both(
        lambda q, k, v: attention.attention(q, k, v, segments),
        lambda q, k, v: reference.segment_attention(q, k, v, segments), [noise(b, N, H, D, dtype=kind)], qkv,
        "o dq dk dv")


def decode_case(b: Bench, size: str, dtype: str):
    (_, _, _, H, K, D, *_), kind = SIZES[size], DTYPES[dtype]
    n, G, R, T, L = {"odd": (7, 3, 4, 70, 67), "odd, one row": (1, 1, 1, 1, 1)}.get(size, (67, 9, 8, 700, 261))
    lengths = torch.randint(1, T + 1, (n,), device=b.device).int()
    prompt_lengths = torch.randint(1, L + 1, (G,), device=b.device).int()
    if n > 1:
        lengths[3], lengths[0], prompt_lengths[1] = 0, T, L
    groups = torch.full((G, R), -1, dtype=torch.int32, device=b.device)
    groups.view(-1)[: max(n - 3, 1)] = torch.randperm(n, device=b.device)[: max(n - 3, 1)].int()
    caches = []
    for many, room, filled in ((n, T, lengths), (G, L, prompt_lengths)):
        for _ in range(2):
            cache = noise(b, many, K, room, D, dtype=kind)
            beyond = torch.arange(room, device=b.device) >= filled[:, None]
            caches.append(cache.masked_fill_(beyond[:, None, :, None], NAN))
    q = noise(b, n, H, D, dtype=kind)
    keys, values, prompt_keys, prompt_values = caches
    given = keys, values, lengths, prompt_keys, prompt_values, prompt_lengths, groups
    outs = []
    for _ in range(2):
        space = decode_attention.workspace(q, keys, prompt_keys, groups)
        outs.append(decode_attention.decode_attention(q, *given, space, torch.full_like(q, NAN)))
    assert torch.equal(*outs), "a second run gives other bits"
    exact = reference.decode_attention(*(x.double() if x.is_floating_point() else x for x in (q, *given)))
    return f"{n} rows of up to {T}, {G} prompts of up to {L}, {H} on {K} of {D}", {"o": (outs[0], exact)}


def sampler_case(b: Bench, size: str, dtype: str):
    (*_, V, _), n, found = SIZES[size], 5 if size.startswith("odd") else 64, {}
    logits = noise(b, n, V, dtype=DTYPES[dtype], scale=3)
    rng_keys = torch.randint(-(2**63), 2**63 - 1, (n,), device=b.device)
    positions = torch.arange(n, device=b.device).int() * 7
    for temperature in (1.0, 0.7, 0.0):
        ids, logprobs = torch.full((n,), -7, device=b.device), torch.full((n,), NAN, device=b.device)
        gumbel.sample_tokens(logits, rng_keys, positions, temperature, ids, logprobs)
        wanted = reference.gumbel_sample(logits, rng_keys, positions, temperature)[0]
        differ = int((ids != wanted).sum())
        assert differ <= (n // 50 if temperature else 0), f"{differ} of {n} tokens differ at temperature {temperature}"
        exact = (logits.double() / (temperature or 1)).log_softmax(-1).gather(1, ids[:, None])[:, 0]
        found[f"log π at {temperature}"] = logprobs, exact
    return f"[{n}, {V}]", found


def head_inputs(b: Bench, size: str, dtype: str):
    _, C, *_, V, N = SIZES[size]
    hidden = noise(b, N, C, dtype=DTYPES[dtype])
    weight = noise(b, V, C, dtype=torch.float32 if dtype == "mixed" else DTYPES[dtype], scale=0.6 * C**-0.5)
    return f"{N} tokens, {V} x {C}", hidden, weight, torch.randint(V, (N,), device=b.device)


def logprobs_of(h: Tensor, w: Tensor, ids: Tensor) -> Tensor:
    return (h @ w.T / 0.7).log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def head_case(kind: str):
    def case(b: Bench, size: str, dtype: str):
        """Ratios on both sides of the bounds and within, none near them: bf16 logits would decide otherwise."""
        shape, hidden, weight, ids = head_inputs(b, size, dtype)
        if kind == "logprobs":
            return shape, both(lambda h, w: head.linear_logprobs(h, w, ids, 0.7), lambda h, w: logprobs_of(h, w, ids),
                               [noise(b, len(ids))], [hidden, weight], "logprob dh dw")
        at, share = torch.arange(len(ids), device=b.device), torch.rand(len(ids), device=b.device) + 0.1
        with torch.no_grad():
            away = torch.tensor([-0.6, -0.1, 0.0, 0.1, 0.6], device=b.device).double()[at % 5]
            old = (logprobs_of(hidden.double(), weight.double(), ids) - away).float()
        A = torch.tensor([1.5, -0.7, 0.4], device=b.device)[at % 3]
        policy = head.TokenLoss(kind, share, *(() if kind == "weighted" else (A, old, 0.2, 0.28)))

        def exact(h: Tensor, w: Tensor):
            l = logprobs_of(h, w, ids)
            if kind == "weighted":
                return (l * share).sum()
            ratio = (l - old.double()).exp()
            bounded = ratio.clamp(0.8, 1.28)
            terms = torch.minimum(ratio * A, bounded * A) if kind == "token" else bounded.detach() * A * l
            return -(terms * share).sum()

        found = both(lambda h, w: head.linear_policy_loss(h, w, ids, policy, 0.7)[0], exact,
                     [torch.ones((), device=b.device)], [hidden, weight], "loss dh dw")
        if kind != "weighted":
            del found["loss"]  # of terms of both signs: next to nothing may be left
        return shape, found
    return case


# The rows


def all_of(case: Callable, dtypes: str):
    """A measurement: one kernel at every size, in every dtype."""
    def measure(b: Bench) -> None:
        sizes = [s for s in SIZES if s.startswith("odd") or not b.toy]
        for size in sizes:
            for dtype in dtypes.split():
                if INTERPRETED and case in (attention_case, decode_case) and dtype != "fp32":
                    continue  # the interpreter multiplies the bits of bf16 as integers
                one(b, case, size, dtype)
    return measure


def one(b: Bench, case: Callable, size: str, dtype: str) -> None:
    bound = 1e-5 if dtype == "fp32" else 1e-2 if b.cuda or INTERPRETED else 5e-2
    try:
        shape, found = case(b, size, dtype)
        errors = {name: relative(*pair) for name, pair in found.items()}
    except Exception as error:
        if not answers():
            raise  # nothing will work from here on
        b.row(b.measurement, f"{size}, {dtype}", error=said(error))
        return
    worst = max(errors, key=errors.get)
    b.row(b.measurement, f"{shape}, {dtype}", errors[worst], "", aim={"most": bound}, must=True,
          note=f"worst: {worst}")


MEASUREMENTS = {
    "swiglu": all_of(swiglu_case, "fp32 bf16"), "rms_norm": all_of(norm_case, "fp32 bf16"),
    "add_rms_norm": all_of(add_norm_case, "fp32 bf16 mixed"), "rotary_qk": all_of(rotary_case, "fp32 bf16"),
    "rotary_and_cache": all_of(cache_case, "fp32 bf16"), "attention": all_of(attention_case, "fp32 bf16"),
    "decode_attention": all_of(decode_case, "fp32 bf16"), "sample_tokens": all_of(sampler_case, "fp32 bf16"),
    "linear_logprobs": all_of(head_case("logprobs"), "fp32 bf16 mixed"),
    **{f"linear_policy_loss, {kind}": all_of(head_case(kind), dtypes) for kind, dtypes in
       (("weighted", "fp32 bf16 mixed"), ("token", "fp32 bf16"), ("cispo_weight", "fp32 bf16"))},
}

if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.simplefilter("ignore")
    if INTERPRETED:
        for module in KERNELS:
            module.on_gpu = lambda *tensors: True
    raise SystemExit(run_cli(lambda argv: main("correctness", MEASUREMENTS, argv)))
