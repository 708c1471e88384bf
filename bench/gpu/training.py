"""Forward and backward over packed documents of 1,024 tokens: tokens a second and MFU, the share of their limit.

    0.5B    as in a run: fp32 weights, products in bf16; documents that share nothing, and GRPO's groups of 8
    7B      forward and backward alone, bf16 weights and gradients: with moments it would not fit
    clip and AdamW, fp32: the least it moves is gradients twice, and weights and two moments read and written

Every token is learned, so the head sees all of them. The peer is transformers' Qwen2 under autocast with its own loss,
and the same with Liger's kernels put in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.gpu import limits
from bench.gpu.clock import seconds
from bench.gpu.common import Bench, free, main, random_model, theirs
from minifleming.kernels.head import TokenLoss
from minifleming.lm.model import LanguageModel
from minifleming.lm.optimizer import adamw
from minifleming.lm.pack import Group, Pack, build_pack, packed_loss
from minifleming.run.errors import run_cli

SMALL, LARGE = "Qwen2.5-0.5B", "Qwen2.5-7B"


def ids(c, count: int) -> list[int]:
    return torch.randint(c.vocab_size, (count,)).tolist()


def documents(c, count: int, length: int) -> Pack:
    """A prompt of one token each, so that all others are learned, and one more that nothing follows."""
    return build_pack([Group(ids(c, 1), [ids(c, length)]) for _ in range(count)], list(range(count)))


def groups(c, count: int, prompt: int, new: int) -> Pack:
    return build_pack([Group(ids(c, prompt), [ids(c, new) for _ in range(8)]) for _ in range(count)], list(range(count)))


def pass_of(model: LanguageModel, batch: Pack) -> Callable[[], None]:
    policy = TokenLoss("weighted", torch.full((len(batch.labels),), -1 / len(batch.labels), device=model.device))

    def run() -> None:
        model.zero_grad(set_to_none=True)
        packed_loss(model, batch, policy)[0].backward()
    return run


def measured(b: Bench, model: LanguageModel, batches: list[Pack], name: str, length: int, aim: float | None,
             peer: Callable[[Pack], dict] = lambda batch: {}) -> None:
    """Of the largest of these packs that the card has room for."""
    c = model.config
    for batch in batches:
        try:
            if b.cuda:
                torch.cuda.reset_peak_memory_stats()
            took = seconds([pass_of(model, batch)], budget=2.0)
            break
        except torch.cuda.OutOfMemoryError:
            if batch is batches[-1]:
                raise
            model.zero_grad(set_to_none=True)
            free()
    N, M = batch.ids.shape[1], len(batch.labels)
    memory = f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if b.cuda else ""
    model.zero_grad(set_to_none=True)
    more = peer(batch)
    note = "; ".join(filter(None, (f"{took * 1e3:.4g} ms", memory, more.pop("note", ""))))
    b.row("forward and backward, packed", f"{name}, {N} tokens, {len(batch.segments)} segments", N / took, "tokens/s",
          limit=N * b.machine.rate / limits.training_flop(c, N, M, length), aim=aim and {"share": aim}, note=note,
          **more)


def as_in_a_run(b: Bench) -> LanguageModel:
    model = random_model(b.shape(SMALL), b.device, torch.float32)
    model.compute_dtype = torch.bfloat16
    return model


def small(b: Bench) -> None:
    model, length = as_in_a_run(b), b.size(1024, 24)
    batches = [documents(model.config, n, length) for n in b.size((16, 8), (3,))]
    measured(b, model, batches, b.size("0.5B", "toy"), length, 0.45,
             lambda batch: b.peers(peers(b, len(batch.group_ids), length), "tokens/s", len(batch.group_ids) * length))


def peers(b: Bench, count: int, length: int) -> dict[str, Callable[[], float]]:
    def plain() -> float:
        model = theirs(b.shape(SMALL), b.device, torch.float32).train()
        rows = torch.randint(model.config.vocab_size, (count, length), device=b.device)

        def run() -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(b.device.type, torch.bfloat16):
                loss = model(input_ids=rows, labels=rows, use_cache=False).loss
            loss.backward()
        return seconds([run], budget=2.0)

    def liger() -> float:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen2

        apply_liger_kernel_to_qwen2()
        return plain()

    return {"transformers": plain} | ({"transformers with Liger": liger} if b.cuda else {})


def shared(b: Bench) -> None:
    model = as_in_a_run(b)
    prompt, new = b.size((256, 1024), (9, 12))
    batches = [groups(model.config, n, prompt, new) for n in b.size((2, 1), (2,))]
    measured(b, model, batches, f"{b.size('0.5B', 'toy')}, prompt {prompt} shared by 8", prompt + new, 0.45)


def large(b: Bench) -> None:
    model, length = random_model(b.shape(LARGE), b.device, torch.bfloat16), b.size(1024, 24)
    batches = [documents(model.config, n, length) for n in b.size((8, 4, 2), (2,))]
    measured(b, model, batches, b.size("7B", "toy"), length, 0.57)


def optimizer(b: Bench) -> None:
    model = as_in_a_run(b)
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    made = adamw(model, 1e-6, (0.9, 0.95), 0.0)

    def run() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        made.step()

    count = sum(p.numel() for p in parameters)
    b.row("clip and AdamW", f"{b.size('0.5B', 'toy')}, {count:,} parameters in fp32", 1e3 * seconds([run]), "ms",
          limit=1e3 * 32 * count / b.machine.bandwidth)


MEASUREMENTS = {"0.5B": small, "7B": large, "groups": shared, "optimizer": optimizer}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("training", MEASUREMENTS, argv)))
