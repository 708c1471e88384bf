"""Tests for kernels/head.py: values and gradients against fp64 autograd in chunks of any size, with the CPU's
rows and the kernel's; memory; machine code."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from minifleming.kernels import head, loss_rows, reference
from minifleming.kernels.head import TokenLoss, chunk_rows, linear_logprobs, linear_policy_loss
from minifleming.kernels.loss_rows import fused_logprob_loss_rows
from minifleming.rlvr.objective import Objective, policy_loss
from tests.kernels.check import close, noise
from tests.kernels.hopper import compiled, ops, sound

N, V, C = 21, 40, 16
BOUNDS = (0.2, 0.28)
RATIOS = {"weighted": "none", "token": "token", "cispo_weight": "cispo_weight"}  # the names in objective.py
REAL = loss_rows.LANES
ROWS = {"cpu": reference.logprob_loss_rows, "kernel": fused_logprob_loss_rows}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """32 columns in fp32, 64 in bf16: small rows have several blocks, and the interpreter is fast."""
    monkeypatch.setattr(loss_rows, "LANES", 8)


@pytest.fixture(params=ROWS)
def rows(request, monkeypatch):
    """Runs every test of a whole head twice."""
    monkeypatch.setattr(head, "on_gpu", lambda *_: request.param == "kernel")


def inputs(dtype=torch.float32, n=N):
    hidden, weight = noise(n, C, dtype=dtype), noise(V, C, seed=1, scale=0.7, dtype=dtype)
    return hidden, weight, torch.randint(V, (n,), generator=torch.Generator().manual_seed(2))


def logprobs_of(logits, ids, temperature):
    return (logits / temperature).log_softmax(-1).gather(-1, ids[:, None])[:, 0]


def token_loss_of(kind, hidden, weight, ids, temperature):
    """Ratios below, within, above and far from both bounds, and 1 up to rounding; for A of either sign and 0."""
    with torch.no_grad():
        found = logprobs_of(hidden.double() @ weight.double().T, ids, temperature)
    at = torch.arange(len(ids))
    old = found - torch.tensor([-3.0, -0.3, -0.15, 0.0, 0.15, 0.3, 3.0], dtype=torch.float64)[at % 7]
    advantage = torch.tensor([1.5, -0.7, 0.0])[at // 7]
    scale = 0.1 + 0.2 * (at % 3)
    if kind == "weighted":
        return TokenLoss(kind, -advantage * scale)
    return TokenLoss(kind, scale, advantage, old.float(), *BOUNDS)


def plain(policy, hidden, weight, ids, temperature, rounded=None, sign=1.0):
    """(loss, log π, entropy, c, dh, dW) in fp64 by autograd; ``rounded``: dtype that the logits are rounded to."""
    hidden, weight = (x.double().requires_grad_() for x in (hidden, weight))
    logits = hidden @ weight.T
    if rounded is not None:
        logits = logits + (rounded.double() - logits).detach()
    found = logprobs_of(logits, ids, temperature)
    found.retain_grad()
    shares = (logits / temperature).softmax(-1)
    objective = Objective(RATIOS[policy.kind], BOUNDS, "", "")
    if policy.kind == "weighted":
        losses = policy_loss(found[:, None], None, -policy.weight.double(), None, objective)[:, 0]
    else:
        mask = torch.ones(len(ids), 1, dtype=torch.bool)
        losses = policy_loss(found[:, None], policy.old.double()[:, None], policy.advantage.double(), mask, objective)
        losses = losses[:, 0] * policy.weight.double()
    (losses.sum() * sign).backward()
    return (losses.sum().detach(), found.detach(), -torch.special.xlogy(shares, shares).sum(-1).detach(),
            found.grad / sign, hidden.grad, weight.grad)


def mine(policy, hidden, weight, ids, temperature, chunk=None, sign=1.0):
    hidden, weight = (x.clone().requires_grad_() for x in (hidden, weight))
    loss, *others = linear_policy_loss(hidden, weight, ids, policy, temperature, chunk)
    assert not any(x.requires_grad for x in others) and all(x.dtype == torch.float32 for x in (loss, *others))
    (loss * sign).backward()
    return loss.detach(), *others, hidden.grad, weight.grad


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", RATIOS)
def test_loss_and_gradients(kind, temperature, rows):
    hidden, weight, ids = inputs()
    policy = token_loss_of(kind, hidden, weight, ids, temperature)
    wanted = plain(policy, hidden, weight, ids, temperature)
    for chunk in (7 * V + 3,) if head.on_gpu() else (None, 1, 7 * V + 3, N * V):  # the kernel's rows are slow here
        for found, theirs in zip(mine(policy, hidden, weight, ids, temperature, chunk), wanted):
            close(found, theirs, torch.float32)
    assert (wanted[3] == 0).any() and (wanted[3] > 0).any() and (wanted[3] < 0).any()


@pytest.mark.parametrize("kind", RATIOS)
def test_bf16(kind, rows):
    """Through logits in bf16. dz is rounded once more (truncated by Triton's interpreter, twice as far), in sums whose
    terms are as large as c."""
    hidden, weight, ids = inputs(torch.bfloat16)
    policy = token_loss_of(kind, hidden, weight, ids, 1.0)
    wanted = plain(policy, hidden, weight, ids, 1.0, F.linear(hidden, weight))
    found = mine(policy, hidden, weight, ids, 1.0, 5 * V)
    for ours, theirs in zip(found[:4], wanted):
        close(ours, theirs, torch.float32, terms=3)
    for ours, theirs in zip(found[4:], wanted[4:]):
        assert ours.dtype == torch.bfloat16
        close(ours, theirs, torch.bfloat16, terms=2 * wanted[3].abs().max().item())


def test_dw_is_summed_in_fp32_whatever_the_chunk():
    """1,024 equal rows: a sum in bf16 would stop growing after 256."""
    hidden, weight = torch.ones(1024, 8, dtype=torch.bfloat16), torch.zeros(4, 8, dtype=torch.bfloat16)
    policy, ids = TokenLoss("weighted", torch.full((1024,), 1 / 64)), torch.zeros(1024, dtype=torch.long)
    *_, dw = mine(policy, hidden, weight, ids, 1.0, 4)
    assert torch.equal(dw, torch.tensor([12.0, -4, -4, -4])[:, None].expand(4, 8).bfloat16())


def test_the_gradient_of_a_scaled_loss(rows):
    hidden, weight, ids = inputs()
    policy = token_loss_of("token", hidden, weight, ids, 1.0)
    for found, theirs in zip(mine(policy, hidden, weight, ids, 1.0, sign=-3.0),
                             plain(policy, hidden, weight, ids, 1.0, sign=-3.0)):
        close(found, theirs, torch.float32)
    narrow = [x.bfloat16() for x in (hidden, weight)]
    once, third = (mine(policy, *narrow, ids, 1.0, sign=sign)[4] for sign in (1.0, 1 / 3))
    assert torch.equal(third, (once.float() * torch.tensor(1 / 3)).bfloat16())  # a third itself is not rounded to bf16


def test_a_coefficient_of_zero_takes_nothing_from_a_token(rows):
    """Also for large logits: the row of dh is 0, dW is that of the other rows, log π and entropy are present."""
    hidden, weight, ids = inputs()
    hidden[3], hidden[8] = hidden[3] * 1e4, hidden[8] * 1e4
    dead = torch.arange(N) % 5 == 3  # 3, 8, 13, 18
    for kind in ("token",) if head.on_gpu() else RATIOS:
        full = token_loss_of(kind, hidden, weight, ids, 1.0)
        policy = TokenLoss(kind, full.weight.where(~dead, 0.0), full.advantage, full.old, full.low, full.high)
        loss, logprobs, entropy, c, dh, dw = mine(policy, hidden, weight, ids, 1.0)
        assert (dh[dead] == 0).all() and (c[dead] == 0).all() and dw.isfinite().all()
        close(logprobs, plain(policy, hidden, weight, ids, 1.0)[1], torch.float32)
        live = [None if x is None else x[~dead] for x in (policy.weight, policy.advantage, policy.old)]
        others = mine(TokenLoss(kind, *live, policy.low, policy.high), hidden[~dead], weight, ids[~dead], 1.0)
        torch.testing.assert_close(loss, others[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(dw, others[5], rtol=1e-6, atol=1e-6)


def test_a_tie_of_the_minimum_has_the_gradient_of_the_ratio(rows):
    """Within the bounds, and exactly at ρ = 1 + high = 2: one of 2 equal logits, old = log 1/4."""
    hidden, weight, ids = torch.zeros(2, 1), torch.ones(2, 1), torch.zeros(2, dtype=torch.long)
    logprob = linear_logprobs(hidden, weight, ids)[0]
    policy = TokenLoss("token", torch.ones(2), torch.ones(2), torch.stack((logprob, logprob)), 0.0, 0.0)
    assert torch.equal(linear_policy_loss(hidden, weight, ids, policy)[3], -torch.ones(2))


@pytest.mark.parametrize("name, dtype, chunk", [("cpu", torch.float32, None), ("cpu", torch.float32, 7 * V),
                                                ("cpu", torch.bfloat16, None), ("cpu", torch.bfloat16, 7 * V),
                                                ("kernel", torch.float32, None), ("kernel", torch.bfloat16, 7 * V)])
def test_logprobs_kept_or_computed_again(name, dtype, chunk, monkeypatch):
    monkeypatch.setattr(head, "on_gpu", lambda *_: name == "kernel")
    hidden, weight, ids = inputs(dtype)
    above, rounded = noise(N, seed=5), F.linear(hidden, weight)
    wanted = plain(TokenLoss("weighted", above), hidden, weight, ids, 0.7, rounded if dtype == torch.bfloat16 else None)
    leaves = [x.clone().requires_grad_() for x in (hidden, weight)]
    found = linear_logprobs(*leaves, ids, 0.7, chunk)
    close(found.detach(), wanted[1], torch.float32, terms=3)
    first = torch.autograd.grad(found, leaves, above, retain_graph=True)
    for ours, theirs in zip(first, wanted[4:]):
        close(ours, theirs, dtype, terms=2 * above.abs().max().item())
    for ours, theirs in zip(torch.autograd.grad(found, leaves, above), first):
        assert torch.equal(ours, theirs)


def special(rows, columns):
    """Random rows, rows of size 1e4, with -inf, with one value far above all others, and all equal."""
    logits = noise(5, columns, seed=3, scale=3)
    logits[1] *= 1e4 / 3
    logits[2, ::2] = float("-inf")
    logits[3, columns // 2] = 200.0
    logits[4] = 7.0
    return logits[:rows]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [3, 33, 64, 129, 1000, 4097])
@pytest.mark.parametrize("name", ROWS)
def test_rows(name, columns, dtype, monkeypatch):
    """Statistics and dz of given logits against fp64, with strided rows; nothing beyond a row is touched."""
    if columns >= 1000 and loss_rows.LANES < REAL:
        monkeypatch.setattr(loss_rows, "LANES", 128)  # blocks of 512 and 1024
    stored = torch.full((5, columns + 5), 9.0, dtype=dtype)
    logits = stored[:, :columns]
    logits.copy_(special(5, columns))
    ids = torch.tensor([0, columns - 1, 1, columns // 2, columns - 2])
    wide, factor = logits.double().requires_grad_(), torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])
    wanted = logprobs_of(wide, ids, 0.7)
    [dz] = torch.autograd.grad(wanted, wide, factor.double())
    p = (wide.detach() / 0.7).softmax(-1)
    found = [torch.full((5,), float("nan")) for _ in range(4)]
    before = logits.clone()
    ROWS[name](logits, ids, found, None, None, "weighted", 0.0, 0.0, 0.7)
    assert torch.equal(logits, before) and found[2].isnan().all()
    ROWS[name](logits, ids, found, factor, None, "weighted", 0.0, 0.0, 0.7)
    assert (stored[:, columns:] == 9).all()
    for ours, theirs in zip((*found, logits), (wanted.detach(), -torch.special.xlogy(p, p).sum(-1), factor.double(),
                                               wanted.detach() * factor, dz)):
        close(ours, theirs, ours.dtype)


def test_rows_in_blocks_of_the_real_size(monkeypatch):
    monkeypatch.setattr(loss_rows, "LANES", REAL)
    for columns in (33, 8193):
        test_rows("kernel", columns, torch.float32, monkeypatch)


@pytest.mark.parametrize("name", ROWS)
def test_equal_bits_in_any_company(name):
    """A row's results do not depend on the rows next to it."""
    ids, factor = torch.tensor([0, 5, 1, 20, 30]), torch.ones(5)
    whole, found = special(5, 40), [torch.empty(5) for _ in range(4)]
    ROWS[name](whole, ids, found, factor, factor, "token", 0.1, 0.1, 1.0)
    for part in (slice(0, 1), slice(1, 4), slice(4, 5)):
        alone, some = special(5, 40)[part], [torch.empty(len(ids[part])) for _ in range(4)]
        ROWS[name](alone, ids[part], some, factor[part], factor[part], "token", 0.1, 0.1, 1.0)
        assert torch.equal(alone, whole[part]) and all(torch.equal(x, y[part]) for x, y in zip(some, found))


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ROWS)
def test_what_is_no_number_is_seen_unless_its_coefficient_is_zero(name):
    for bad in (float("nan"), float("inf")):
        logits = special(5, 40)[[0, 0, 0]]
        logits[0, 4] = logits[1, 4] = bad
        found = [torch.empty(3) for _ in range(4)]
        factor = torch.tensor([1.0, 0.0, 1.0])
        ROWS[name](logits, torch.tensor([1, 1, 1]), found, factor, None, "weighted", 0.0, 0.0, 1.0)
        assert found[0].isnan().tolist() == [True, True, False] and found[3].isnan().tolist() == [True, False, False]
        assert logits[0].isnan().any() and (logits[1] == 0).all() and logits[2].isfinite().all()


def test_only_what_is_wanted_is_made():
    hidden, weight, ids = inputs()
    policy = token_loss_of("token", hidden, weight, ids, 1.0)
    both = mine(policy, hidden, weight, ids, 1.0)
    for i, (h, w) in enumerate(((hidden.clone().requires_grad_(), weight), (hidden, weight.clone().requires_grad_()))):
        linear_policy_loss(h, w, ids, policy)[0].backward()
        assert torch.equal((h, w)[i].grad, both[4 + i]) and (h, w)[1 - i].grad is None
        linear_logprobs(h, w, ids, chunk=5 * V).sum().backward()
    with torch.no_grad():
        found = linear_policy_loss(hidden.clone().requires_grad_(), weight, ids, policy)
    assert not found[0].requires_grad and all(torch.equal(x, y) for x, y in zip(found, both))
    loss = linear_policy_loss(hidden.clone().requires_grad_(), weight, ids, policy)[0]
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="call it again"):
        loss.backward()


def test_autocast_changes_nothing_and_an_fp32_weight_has_its_gradient_unrounded():
    hidden, weight, ids = inputs()
    policy = token_loss_of("token", hidden, weight, ids, 1.0)
    for h in (hidden, hidden.bfloat16()):
        once = mine(policy, h, weight, ids, 1.0)
        with torch.autocast("cpu", torch.bfloat16):
            again = mine(policy, h, weight, ids, 1.0)
        assert all(torch.equal(x, y) for x, y in zip(once, again)) and once[5].dtype == torch.float32
    narrow = mine(policy, hidden.bfloat16(), weight.bfloat16(), ids, 1.0)
    assert torch.equal(once[5].bfloat16(), narrow[5]) and not torch.equal(once[5], narrow[5].float())


def test_strided_rows_and_no_rows(rows):
    hidden, weight, ids = inputs()
    policy = token_loss_of("cispo_weight", hidden, weight, ids, 1.0)
    wide, columns = torch.cat((hidden, hidden), dim=1)[:, :C], torch.stack((ids, ids), dim=1)[:, 0]
    for ours, theirs in zip(mine(policy, wide, weight, columns, 1.0, 300), mine(policy, hidden, weight, ids, 1.0, 300)):
        assert torch.equal(ours, theirs)
    none = TokenLoss("token", *(torch.empty(0),) * 3, *BOUNDS)
    loss, logprobs, *_, dh, dw = mine(none, hidden[:0], weight, ids[:0], 1.0)
    assert loss == 0 and logprobs.shape == (0,) and dh.shape == (0, C) and (dw == 0).all()
    weight.requires_grad_()
    linear_logprobs(hidden[:0], weight, ids[:0]).sum().backward()
    assert (weight.grad == 0).all()
    linear_logprobs(hidden[:2], weight, ids[:2]).sum().backward()  # a cotangent of stride 0
    assert (weight.grad != 0).any()


class Peak(TorchDispatchMode):
    """The largest number of bytes at any time in storages created inside."""

    def __init__(self):
        super().__init__()
        self.held, self.most = {}, 0

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.held = {key: pair for key, pair in self.held.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.held.values()))
        return out


@pytest.mark.parametrize("chunk_of", [8, 32])
def test_nothing_larger_than_a_chunk_is_held(chunk_of):
    """Besides dh, dW and four numbers per token: a chunk of logits, what the CPU's rows make of it (exponentials, and
    differences if the logits must stay), and a quarter of a chunk for values made row by row."""
    n, v, c = 512, 1000, 16
    hidden, weight = noise(n, c).requires_grad_(), noise(v, c).requires_grad_()
    ids, policy = torch.arange(n), TokenLoss("weighted", torch.ones(n))
    logits, room = chunk_of * v * 4, 4 * (n * c + v * c) + 4 * n * 4
    for f, chunks in ((lambda: linear_policy_loss(hidden, weight, ids, policy, chunk=chunk_of * v)[0], 2),
                      (lambda: linear_logprobs(hidden, weight, ids, chunk=chunk_of * v).sum(), 3)):
        peak = Peak()
        peak.known = {x.untyped_storage()._cdata for x in (hidden, weight, ids, policy.weight)}
        with peak:
            f().backward()
        assert 2 * logits < peak.most < room + (chunks + 0.25) * logits + 24 * n, (peak.most, room, logits)
        hidden.grad = weight.grad = None


def test_rows_of_a_chunk():
    """On a GPU whole tiles fit 224 MiB; with cuBLAS's 32 MiB and four numbers for 65,536 tokens less than 256 MiB."""
    assert 768 * 151936 * 2 + 32 * 2**20 + 16 * 65536 < 256 * 2**20
    assert chunk_rows(151936, 2, True) == 768 and chunk_rows(151936, 4, True) == 384
    for vocabulary in (2048, 49152, 128256, 151936, 152064, 262144):
        for itemsize in (2, 4):
            count = chunk_rows(vocabulary, itemsize, True)
            assert count % 128 == 0 and count * vocabulary * itemsize <= 224 * 2**20
    assert [chunk_rows(vocabulary, 4, False) for vocabulary in (512, 2048, 151936)] == [1024, 256, 256]
    assert chunk_rows(100, 4, True, 1) == 1 and chunk_rows(100, 4, False, 799) == 7


def test_torch_knows_the_product_that_adds_in_fp32():
    """Only CUDA has it (see _add_product); here it must be refused for the device, not for its arguments."""
    total, left, right = torch.zeros(3, 2), torch.ones(3, 4).bfloat16(), torch.ones(4, 2).bfloat16()
    with pytest.raises(NotImplementedError, match="CPU"):
        torch.addmm(total, left, right, beta=1.0, out_dtype=torch.float32, out=total)


@pytest.mark.slow
def test_machine_code(monkeypatch):
    """No spills; loads and stores of 16 bytes, two in flight per thread; with 32 warps a thread has 64 registers."""
    monkeypatch.setattr(loss_rows, "LANES", REAL)
    pointers = {"logits": "*bf16", "ids": "*i64"} | dict.fromkeys(
        ("factor", "old", "logprob", "entropy", "coefficient", "loss"), "*fp32")
    numbers = {"columns": "i32", "stride": "i32", "inverse": "fp32", "low": "fp32", "high": "fp32"}
    types = pointers | numbers | dict.fromkeys(("KIND", "WRITE", "LOW", "BLOCKS", "LANES", "WIDTH"), "constexpr")

    def request(kind, write, dtype, width):
        constants = {"KIND": kind, "WRITE": write, "LOW": loss_rows.LOW, "LANES": loss_rows.LANES, "WIDTH": width,
                     "BLOCKS": loss_rows.cdiv(151936, loss_rows.LANES * width)}
        return {"kernel": "loss_rows.row_kernel", "types": types | {"logits": dtype}, "constants": constants,
                "warps": loss_rows.WARPS}

    requests = [request("token", True, "*bf16", 8), request("weighted", False, "*bf16", 8),
                request("cispo_weight", True, "*fp32", 4)]
    for wanted, answer in zip(requests, compiled(*requests)):
        write = wanted["constants"]["WRITE"]
        sound(answer)
        assert answer["registers"] <= 64
        assert ops(answer, "LDG.E.128") == (4 if write else 2) and ops(answer, "LDG.E.U16") <= 1
        assert ops(answer, "STG.E.128") >= (4 if write else 0) and ops(answer, "STG.E.U16") == 0


@pytest.mark.parametrize("step", [1, 7, 64, 10**6])
def test_narrowed_in_its_own_memory(step):
    x = noise(13, 11)
    wanted, place = x.bfloat16(), x.data_ptr()
    found = head.downcast_in_place(x, torch.bfloat16, step)
    assert torch.equal(found, wanted) and found.data_ptr() == place
    assert head.downcast_in_place(x, torch.float32) is x
