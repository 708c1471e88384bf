"""One decode step of the captured sampler: milliseconds, tokens a second, share of the limit; what the sampler takes.

The caches are filled with random numbers, the lengths set so that a row has as many own tokens as the row says on the
average over the steps timed, 32 at a time, as between two looks. Weights are random, of the real shapes, in bf16.
The peer is transformers' ``generate`` on the same shape, batch and context: a dynamic cache, a static one, and a static
one compiled, where time is left; its prefill is subtracted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from bench.gpu import limits
from bench.gpu.clock import replayed, span
from bench.gpu.common import Bench, free, main, random_model, theirs
from minifleming.kernels.gumbel import sample_tokens
from minifleming.lm.engines.cuda_graph import CudaGraphDecoder
from minifleming.lm.kv_cache import Capacity
from minifleming.lm.model import LanguageModel
from minifleming.run.errors import run_cli

SMALL, LARGE = "Qwen2.5-0.5B", "Qwen2.5-7B"
COMPILATION = 60.0  # seconds that transformers' compiled cache may take


@torch.inference_mode()
def step_seconds(b: Bench, model: LanguageModel, prompts: int, samples: int, prompt: int, own: int) -> float:
    steps, rows = b.size(32, 4), prompts * samples
    engine = CudaGraphDecoder(model, Capacity(rows, prompts, prompt, own + 2 * steps), samples, 1.0, steps)
    for at in range(0, prompts, 8):
        some = torch.randint(model.config.vocab_size, (min(8, prompts - at), prompt)).tolist()
        engine.prefill(some, torch.randint(2**62, (len(some) * samples,)).tolist())
    for layer in (*engine.keys, *engine.values):
        layer.normal_()

    def reset() -> None:
        engine.counts[:rows] = own - steps // 2
        engine.positions[:rows] = prompt + own - steps // 2 - 1

    reset()
    engine.run(2)  # compiles, and captures the graph
    times = []
    for _ in range(b.size(7, 3)):
        reset()
        times.append(span(lambda: engine.run(steps)) / steps)
    return statistics.median(times)


def step_row(b: Bench, model: LanguageModel, name: str, prompts: int, samples: int, prompt: int, own: int,
             aim: float | None = None, peer: dict | None = None) -> float:
    if b.toy:
        name, prompts, prompt, own = "toy", 2, 9, 17
    took, rows = step_seconds(b, model, prompts, samples, prompt, own), prompts * samples
    limit = limits.decode_seconds(model.config, b.machine, rows, own, prompt, samples)
    shared = f", prompt {prompt} shared by {samples}" if samples > 1 else ""
    more = dict(peer or {})
    notes = [f"{rows / took:,.0f} tokens/s, the limit {rows / limit:,.0f}", more.pop("note", "")]
    b.row("a decode step", f"{name}, batch {rows}, context {prompt + own}{shared}", took * 1e3, "ms",
          limit=limit * 1e3, aim=aim and {"share": aim}, note="; ".join(filter(None, notes)), **more)
    return took


def small(b: Bench) -> None:
    model = random_model(b.shape(SMALL), b.device, torch.bfloat16)
    took = step_row(b, model, "0.5B", 64, 1, 256, 256, 0.5)
    sampler_row(b, model.config.vocab_size, b.size(64, 2), took)
    step_row(b, model, "0.5B", 32, 8, 256, 768, 0.6)
    step_row(b, model, "0.5B", 64, 8, 256, 512)
    step_row(b, model, "0.5B", 1, 1, 256, 256)


def sampler_row(b: Bench, vocabulary: int, rows: int, step: float) -> None:
    logits = [torch.randn(rows, vocabulary, device=b.device).bfloat16() for _ in range(b.size(6, 1))]
    rng_keys = torch.randint(2**62, (rows,), device=b.device)
    positions = torch.arange(rows, device=b.device).int()
    ids, found = torch.empty_like(rng_keys), torch.empty(rows, device=b.device)
    took = replayed([lambda z=z: sample_tokens(z, rng_keys, positions, 1.0, ids, found) for z in logits])
    b.row("the sampler's share of a decode step", f"batch {rows}, vocabulary {vocabulary}", 100 * took / step, "%",
          aim={"most": 3.0}, note=f"{1e6 * took:.3g} us")


def large(b: Bench) -> None:
    model = random_model(b.shape(LARGE), b.device, torch.bfloat16)
    step_row(b, model, "7B", 64, 1, 256, 256, 0.75)
    step_row(b, model, "7B", 32, 8, 256, 768)


def against(b: Bench) -> None:
    """0.5B, batch 64, context 512 again, beside the peer."""
    model = random_model(b.shape(SMALL), b.device, torch.bfloat16)
    rows = b.size(64, 2)
    peer = b.peers(generating(b, rows), "ms")
    free()
    step_row(b, model, "0.5B", 64, 1, 256, 256, peer=peer)


def generating(b: Bench, rows: int) -> dict[str, Callable[[], float]]:
    """Seconds of a step at a context of 512 on the average, by kind of cache."""
    new = b.size(33, 5)
    prompt = b.size(512 - 16, 9)
    held: dict = {}

    def once(cache: str | None, tokens: int, compiled: bool = False) -> float:
        if "model" not in held:
            held["model"] = theirs(b.shape(SMALL), b.device, torch.bfloat16)
        ids = torch.randint(b.shape(SMALL).vocab_size, (rows, prompt), device=b.device)
        with torch.no_grad():
            return span(lambda: held["model"].generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True,
                temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0, eos_token_id=None, cache_implementation=cache,
                disable_compile=not compiled))

    def steps(cache: str | None, compiled: bool = False) -> float:
        if compiled and (b.left() < COMPILATION or not b.cuda):
            raise TimeoutError("no time was left to compile" if b.cuda else "on a GPU only")
        prefill = min(once(cache, 1) for _ in range(2))
        once(cache, new, compiled)
        return statistics.median(once(cache, new, compiled) - prefill for _ in range(3)) / (new - 1)

    return {"generate, dynamic cache": lambda: steps(None), "generate, static cache": lambda: steps("static"),
            "generate, static cache, compiled": lambda: steps("static", True)}


MEASUREMENTS = {"0.5B": small, "7B": large, "against generate": against}

if __name__ == "__main__":
    raise SystemExit(run_cli(lambda argv: main("decode", MEASUREMENTS, argv)))
