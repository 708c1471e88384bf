"""Tests for kernels/rotary.py: values, gradients, strides, the cache of a decoded token, machine code.

Triton's interpreter truncates to bf16 where the GPU rounds; the place of each rounding is tested in
fp16.
"""

from __future__ import annotations

import pytest
import torch

from minifleming.kernels import reference, rotary
from minifleming.kernels.jit import power_of_2
from minifleming.kernels.rotary import RotaryFunction, launch_cache
from tests.kernels.check import close, gradients, noise
from tests.kernels.hopper import compiled, ops, sound

SHAPES = [(1, 1, 1, 2), (3, 5, 1, 6), (7, 14, 2, 64), (9, 4, 4, 80), (33, 3, 1, 128)]  # N, H, K, D


def tables(positions, D, dtype=torch.float32):
    """cos and sin [N, D], with equal halves."""
    angle = torch.tensor(positions).double()[:, None] * 1e4 ** (-torch.arange(0, D, 2).double() / D)
    return [torch.cat((f(angle), f(angle)), -1).to(dtype) for f in (torch.cos, torch.sin)]


def turned(x, cos, sin):
    """Each pair as a complex number. x [N, heads, D]"""
    half = x.shape[-1] // 2
    z = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos[..., :half], sin[..., :half])[:, None]
    return torch.cat((z.real, z.imag), -1)


# Training


def turn(cos, sin, *heads, kernel=True):
    return RotaryFunction.apply(cos, sin, kernel, *heads)


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("N, H, K, D", SHAPES)
def test_values_and_gradients(N, H, K, D, dtype, kernel):
    q, k, dq, dk = (noise(N, heads, D, seed=i, scale=3, dtype=dtype) for i, heads in enumerate((H, K, H, K)))
    cos, sin = tables(range(3, N + 3), D)  # fp32, as the model has them
    leaves = [x.clone().requires_grad_() for x in (q, k)]
    outs = turn(cos, sin, *leaves, kernel=kernel)
    grads = torch.autograd.grad(outs, leaves, (dq, dk))
    for x, dx, y, g in zip((q, k), (dq, dk), outs, grads):
        wide = (cos.double(), sin.double())
        wanted, slope = gradients(lambda x: turned(x, *wide), dx.double(), x.double())  # noqa: B023
        torch.testing.assert_close(wanted, reference.rotary(x.double(), *(t[:, None] for t in wide)))
        for mine, theirs in ((y, wanted), (g, slope)):
            assert mine.dtype == dtype and mine.is_contiguous()
            close(mine, theirs, dtype, terms=x.abs().max().item() if dtype == torch.bfloat16 else 1)


def test_one_tensor_alone_and_one_gradient_alone():
    q, k, above = noise(7, 6, 16), noise(7, 2, 16, seed=1), noise(7, 2, 16, seed=2)
    cos, sin = tables(range(7), 16)
    both, alone = turn(cos, sin, q, k), [turn(cos, sin, x)[0] for x in (q, k)]
    assert all(torch.equal(a, b) for a, b in zip(both, alone))
    _, dq, dk = gradients(lambda q, k: turn(cos, sin, q, k)[1], above, q, k)
    assert dq.abs().max() == 0 and torch.equal(dk, gradients(lambda k: turn(cos, sin, k)[0], above, k)[1])


def test_a_rotation():
    """Norms are kept; the gradient rotates back; position 0 changes nothing; scores depend on distances only."""
    x, y = noise(5, 3, 20), noise(5, 3, 20, seed=1)
    at = [tables(range(start, start + 5), 20) for start in (0, 100)]
    near, far = ([turn(*t, z)[0] for z in (x, y)] for t in at)
    torch.testing.assert_close(near[0].norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary.launch_rotary((near[0],), *at[0], -1.0)[0], x)
    assert torch.equal(near[0][0], x[0])
    scores = [torch.einsum("nhd,mhd->hnm", *pair) for pair in (near, far)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)


def test_strided_queries_keys_and_cotangents():
    """Slices of one product; heads before tokens; a last dimension that is not contiguous."""
    cos, sin = tables(range(9), 32)
    product = noise(9, 7 * 32 + 16)
    q, k = product[:, : 4 * 32].unflatten(1, (4, 32)), product[:, 4 * 32 : 6 * 32].unflatten(1, (2, 32))
    heads_first = noise(4, 9, 32, seed=1).transpose(0, 1)
    odd = noise(9, 32, 4, seed=2).transpose(1, 2)
    for x in (q, k, heads_first, odd):
        assert not x.is_contiguous()
        assert torch.equal(turn(cos, sin, x)[0], turn(cos, sin, x.contiguous())[0])
    for above in (heads_first, odd, torch.ones(()).expand(9, 4, 32)):
        run = [gradients(lambda q: turn(cos, sin, q)[0], a, q)[1] for a in (above, above.contiguous())]
        assert torch.equal(*run)
    wide = torch.cat((cos, cos), 1)[:, :32], torch.cat((sin, sin), 1)[:, :32]
    assert not wide[0].is_contiguous() and torch.equal(turn(*wide, q)[0], turn(cos, sin, q)[0])


def test_no_tokens_and_large_values():
    cos, sin = tables([], 8)
    assert turn(cos, sin, torch.empty(0, 3, 8))[0].shape == (0, 3, 8)
    x = torch.tensor([1e30, -1e30, 1e-30, 0.0]).expand(2, 1, 4).contiguous()
    cos, sin = tables([1, 2], 4)
    torch.testing.assert_close(turn(cos, sin, x)[0].double(), turned(x.double(), cos.double(), sin.double()))


def test_without_a_gpu_plain_pytorch_runs():
    q, k, (cos, sin) = noise(5, 3, 8), noise(5, 1, 8, seed=1), tables(range(5), 8)
    wanted = [reference.rotary(x, cos[:, None], sin[:, None]) for x in (q, k)]
    for found, value in zip(rotary.rotary_qk(q, k, cos, sin), wanted):
        torch.testing.assert_close(found, value)


def test_what_the_kernel_assumes_is_asserted():
    x, (cos, sin) = noise(3, 2, 8), tables(range(3), 8)
    for wrong in ((cos[:2], sin, x), (cos, sin[:, :4], x), (cos, sin, x, noise(4, 2, 8)), (cos, sin, noise(3, 2, 6)),
                  (cos.double(), sin, x), (cos, sin, x, x.half())):
        with pytest.raises(AssertionError):
            turn(*wrong)


# One decoded token a row


class Cache:
    """Static buffers of n rows, with more slots and places than are used, all filled with 9."""

    def __init__(self, n, H, K, D, T, dtype=torch.float32, norms=False, longest=50):
        self.n, self.H, self.K, self.D, self.T = n, H, K, D, T
        self.qkv = noise(n, (H + 2 * K) * D + 16, scale=2, dtype=dtype)[:, : (H + 2 * K) * D]
        self.positions = torch.arange(n, dtype=torch.int32) * 7 % longest
        self.lengths = torch.arange(n, dtype=torch.int32) * 3 % T
        self.tables = [t[:, : D // 2].contiguous() for t in tables(range(longest), D)]
        self.both = torch.full((2, n + 1, K, T, D), 9.0, dtype=dtype)  # two views of the same strides
        self.q_out = torch.full((n, H, D), 9.0, dtype=dtype)
        self.norms = [noise(D, seed=s, dtype=dtype) if norms else None for s in (1, 2)]

    def run(self, function):
        """-> q_out and the cache, of copies"""
        both, q_out = self.both.clone(), self.q_out.clone()
        function(self.qkv, self.positions, self.lengths, *self.tables, *both, q_out, *self.norms, 1e-6)
        return q_out, both

    def wanted(self):
        """The formulas in fp64, row by row."""
        q, k, v = self.qkv.double().unflatten(1, (-1, self.D)).split([self.H, self.K, self.K], dim=1)
        q_out, both = self.q_out.double(), self.both.double()
        for row in range(self.n):
            at = int(self.positions[row].clamp(0, len(self.tables[0]) - 1))
            cos, sin = (table[at].double().repeat(2)[None] for table in self.tables)
            x, y = (self.normal(t[row], w)[None] for t, w in zip((q, k), self.norms))
            own = int(self.lengths[row])
            q_out[row] = turned(x, cos, sin)[0] if own >= 0 else 0
            if 0 <= own < self.T:
                both[0, row, :, own], both[1, row, :, own] = turned(y, cos, sin)[0], v[row]
        return q_out, both

    @staticmethod
    def normal(x, w):
        return x if w is None else w.double() * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("norms", [False, True], ids=["plain", "norms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n, H, K, D, T", [(1, 1, 1, 2, 1), (3, 5, 1, 6, 4), (4, 14, 2, 64, 7), (5, 4, 4, 80, 3),
                                           (3, 28, 4, 128, 33)])
def test_rotary_and_cache(n, H, K, D, T, dtype, norms):
    cache = Cache(n, H, K, D, T, dtype, norms)
    for mine, theirs in zip(cache.run(launch_cache), cache.wanted()):
        assert mine.dtype == dtype
        if dtype == torch.bfloat16 and norms:  # cut off three times, twice of it before the turn adds
            torch.testing.assert_close(mine.double(), theirs, rtol=2**-6, atol=2**-6 * theirs.abs().max().item())
        else:
            close(mine, theirs, dtype, terms=6 if dtype == torch.bfloat16 else 1)


def test_idle_rows_full_slots_and_positions_outside_the_tables():
    """Negative lengths: nothing is written, and q is 0 even for NaN; a full slot keeps its contents."""
    cache = Cache(6, 4, 2, 8, 5, longest=50)
    cache.lengths = torch.tensor([-1, 0, 4, 5, 2**31 - 1, -(2**31)], dtype=torch.int32)
    cache.positions = torch.tensor([-1, 49, 50, 2**31 - 1, 3, -7], dtype=torch.int32)
    q_out, both = cache.run(launch_cache)
    for mine, theirs in zip((q_out, both), cache.wanted()):
        close(mine, theirs, torch.float32)
    assert (both[:, [0, 3, 4, 5, 6]] == 9).all() and q_out[[0, 5]].abs().max() == 0 and (both != 9).sum() == 2 * 2 * 16
    cache.qkv[0] = float("nan")
    cache.norms = [noise(8), noise(8)]
    assert cache.run(launch_cache)[0].isfinite().all()


@pytest.mark.parametrize("norms", [False, True], ids=["plain", "norms"])
def test_the_reference_says_the_same_and_rounds_where_the_kernel_does(norms):
    """In fp16 nearly every bit is equal, also for idle rows and full slots; the rest is the order of a sum."""
    cache = Cache(9, 6, 2, 32, 4, torch.float16, norms)
    cache.lengths[3], cache.lengths[4], cache.positions[5] = -2, 4, 77
    for mine, theirs in zip(cache.run(launch_cache), cache.run(reference.rotary_and_cache)):
        assert (mine == theirs).float().mean() > 0.995
        torch.testing.assert_close(mine, theirs, rtol=2**-9, atol=2**-9)
    for mine, theirs in zip(cache.run(rotary.rotary_and_cache), cache.run(reference.rotary_and_cache)):
        assert torch.equal(mine, theirs)  # without a GPU


def test_a_row_depends_on_itself_alone():
    cache = Cache(8, 6, 2, 32, 4, norms=True)
    q_out, both = cache.run(launch_cache)
    one = Cache(1, 6, 2, 32, 4, norms=True)
    one.qkv, one.positions, one.lengths = cache.qkv[5:6], cache.positions[5:6].clone(), cache.lengths[5:6].clone()
    alone, slot = one.run(launch_cache)
    assert torch.equal(alone[0], q_out[5]) and torch.equal(slot[:, 0], both[:, 5])


def test_decoding_token_by_token_fills_the_cache_that_training_computes():
    """Keys rotated for a whole row equal those of one token after the other; scores agree."""
    T, H, K, D = 6, 4, 2, 16
    cache, steps = Cache(1, H, K, D, T), noise(T, (H + 2 * K) * D, seed=3)
    q, k, v = steps.unflatten(1, (-1, D)).split([H, K, K], dim=1)
    whole_q, whole_k = turn(*tables(range(10, 10 + T), D), q, k)
    for at in range(T):
        cache.qkv, cache.lengths[0], cache.positions[0] = steps[at : at + 1], at, 10 + at
        q_out, cache.both = cache.run(launch_cache)
        torch.testing.assert_close(q_out[0], whole_q[at])
    torch.testing.assert_close(cache.both[0, 0].transpose(0, 1), whole_k)
    assert torch.equal(cache.both[1, 0].transpose(0, 1), v)


def test_what_the_cache_kernel_assumes_is_asserted():
    def broken(**changed):
        cache = Cache(3, 4, 2, 8, 5)
        for name, value in changed.items():
            setattr(cache, name, value)
        return cache

    for cache in (broken(qkv=noise(3, 63)), broken(positions=torch.zeros(2)), broken(both=torch.zeros(2, 2, 2, 5, 8)),
                  broken(norms=[noise(7), None]), broken(norms=[None, noise(8).half()]),
                  broken(q_out=noise(3, 8, 4).transpose(1, 2)), broken(tables=[noise(50, 8)[:, :4]] * 2),
                  broken(both=[torch.zeros(3, 2, 5, 8), torch.zeros(3, 5, 2, 8).transpose(1, 2)])):
        if isinstance(cache.both, list):
            with pytest.raises(AssertionError):
                launch_cache(cache.qkv, cache.positions, cache.lengths, *cache.tables, *cache.both, cache.q_out, None,
                             None, 1e-6)
            continue
        with pytest.raises(AssertionError):
            cache.run(launch_cache)


# The machine code


def turning(H: int, K: int, D: int, sign: float) -> dict:
    width = power_of_2(D // 2)
    constants = {"H": H, "K": K, "HALF": D // 2, "ROWS": rotary.PAIRS // width, "WIDTH": width, "SIGN": sign}
    types = dict.fromkeys(("q", "k", "q_out", "k_out"), "*bf16") | {"cos": "*fp32", "sin": "*fp32"}
    types |= dict.fromkeys(("tokens", "q_blocks", "q_row", "q_head", "k_row", "k_head", "cos_row", "sin_row"), "i32")
    return {"kernel": "rotary.rotary_kernel", "types": types | dict.fromkeys(constants, "constexpr"),
            "constants": constants, "odd": ["tokens", "q_blocks"]}


def caching(H: int, K: int, D: int, norms: bool) -> dict:
    constants = {"H": H, "K": K, "HALF": D // 2, "H_ROWS": power_of_2(H), "K_ROWS": power_of_2(K),
                 "WIDTH": power_of_2(D // 2)} | ({} if norms else {"q_norm": None, "k_norm": None})
    types = {"qkv": "*bf16", "positions": "*i32", "lengths": "*i32", "cos_table": "*fp32", "sin_table": "*fp32"}
    types |= dict.fromkeys(("keys", "values", "q_out", "q_norm", "k_norm"), "*bf16")
    types |= dict.fromkeys(("longest", "places", "qkv_row", "to_slot", "to_head", "to_place"), "i32") | {"eps": "fp32"}
    return {"kernel": "rotary.cache_kernel", "types": types | dict.fromkeys(constants, "constexpr"),
            "constants": constants, "odd": ["longest", "places"]}


@pytest.mark.slow
def test_machine_code():
    """Training: loads and stores of 16 bytes for both halves, cos and sin, for q and k, and at least 1,536 threads on
    a multiprocessor. Decoding: the same for q; k and v are too few for 16 bytes per thread."""
    *trained, small, large = compiled(turning(14, 2, 64, 1.0), turning(28, 4, 128, -1.0), caching(14, 2, 64, False),
                                      caching(32, 8, 128, True))
    for answer in (*trained, small, large):
        sound(answer)
    for answer in trained:
        assert ops(answer, "LDG.E.128") == 12 and ops(answer, "STG.E.128") == 4 and answer["registers"] <= 40
        assert ops(answer, "LDG") == 12 and ops(answer, "STG") == 4 and answer["shared"] == 0
    for answer, wide in ((small, 2), (large, 4)):
        assert ops(answer, "LDG.E.128") >= wide and ops(answer, "STG.E.128") + ops(answer, "STG.E.64") >= wide
        assert ops(answer, "BAR") == 0 and answer["registers"] <= 64
