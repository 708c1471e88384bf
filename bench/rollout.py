"""Our sampler against transformers' `generate`, side by side: `python bench/rollout.py --json F`.

Same random weights (seed 0, Qwen2 shape), prompts, batch (64 rows: 8 prompts, 8 samples each), lengths, one thread:

    prompt_64    hidden 256, 4 layers, 4/2 heads, vocabulary 2,048; prompt 64, 128 new tokens
    prompt_256   the same with prompts of 256
    tiny         hidden 64, 2 layers, vocabulary 512; prompt 64, 128 new
    ragged       as prompt_64, up to 256 new tokens; one token in 64 ends a completion, so few reach the limit

The ratio is timed while sampling at temperature 1, as reinforcement learning does; `greedy` is the same at temperature
0, where our output must be the peer's, token for token. In `ragged` the peer is stopped at our completions' lengths,
row by row. Peers: a dynamic and a static cache; with --continuous one round of continuous batching too. `memory` is the
peak of resident memory during a rollout over its floor: weights, and the keys and values of live tokens.

Needs transformers (`pip install -e '.[parity]'`).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from argparse import RawDescriptionHelpFormatter
from dataclasses import dataclass
from pathlib import Path

import torch
from side_by_side import against, alone_and_quiet, needed, rounds, write

from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate_stream
from minifleming.lm.sampler import generate as sample
from minifleming.lm.weights import load_model
from minifleming.run.errors import BadInput, Parser, run_cli

GROUPS, SAMPLES = 8, 8


@dataclass(frozen=True)
class Workload:
    prompt: int
    new: int
    hidden: int = 256
    layers: int = 4
    intermediate: int = 704
    vocab: int = 2048
    ends: int = 0  # token ids that end a completion

    @property
    def flop(self) -> float:
        """Of the matrix products of a token, below the head; and of the head."""
        h, kv = self.hidden, self.hidden // 2
        return 2 * self.layers * (2 * h * h + 2 * h * kv + 3 * h * self.intermediate)


WORKLOADS = {
    "prompt_64": Workload(64, 128),
    "prompt_256": Workload(256, 128),
    "tiny": Workload(64, 128, hidden=64, layers=2, intermediate=176, vocab=512),
    "ragged": Workload(64, 256, ends=32),
}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="rollout.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="F", help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; the figure is their median")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS),
                        help="default: all of them")
    parser.add_argument("--continuous", action="store_true", help="time transformers' continuous batching once too")
    parser.add_argument("--memory-of", choices=list(WORKLOADS), help="measure this workload's memory, and nothing else")
    args = parser.parse_args(argv)
    needed("parity", "transformers")
    alone_and_quiet()
    if args.memory_of:
        print(json.dumps(memory(WORKLOADS[args.memory_of])))
        return 0
    if args.rounds < 1:
        raise BadInput("--rounds: must be positive")
    results = []
    for name in args.workloads:
        result = {"workload": name} | measure(WORKLOADS[name], args.rounds, args.continuous)
        alone = [sys.executable, __file__, "--memory-of", name]
        done = subprocess.run(alone, capture_output=True, text=True, check=True)
        result["memory"] = json.loads(done.stdout.splitlines()[-1])
        results.append(result)
        print(line(result), flush=True)
    write(args.json, results)
    return 0


def line(r: dict) -> str:
    return (f"{r['workload']:11s} {r['ratio']:.2f}x [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] of {r['peer_name']}; "
            f"greedy {r['greedy']['ratio']:.2f}x [{r['greedy']['ratio_low']:.2f}, {r['greedy']['ratio_high']:.2f}], "
            f"equal output: {r['greedy_identical']}; {r['ours']:.2f} s, {100 * r['share_of_limit']:.0f} % of the GEMM "
            f"limit (peer {100 * r['peer_share_of_limit']:.0f} %); memory {r['memory']['ratio']:.2f} of the floor")


def measure(w: Workload, count: int, continuous: bool) -> dict:
    theirs, ours = models(w)
    ids = torch.randint(w.ends, w.vocab, (GROUPS, w.prompt), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([len(c.ids) for c in rollout(ours, w, ids, 1.0)])
    flop = w.flop * (ids.numel() + int(lengths.sum())) + 2 * w.hidden * w.vocab * int(lengths.sum())
    result = {"lengths": {"mean": lengths.float().mean().item(), "longest": int(lengths.max())}}
    for temperature, into in ((0.0, "greedy"), (1.0, "")):
        programs = {"ours": lambda t=temperature: rollout(ours, w, ids, t)}
        stop = lengths if w.ends and temperature else None
        for cache in ("dynamic", "static"):
            programs[cache] = lambda c=cache, t=temperature, s=stop: generate(theirs, w, ids, t, c, s)
        if temperature == 0:
            mine = [c.ids for c in rollout(ours, w, ids, 0.0)]
            result["greedy_identical"] = all(mine == cut(generate(theirs, w, ids, 0.0, cache), w)
                                             for cache in ("dynamic", "static"))
        found = against(rounds(programs, count), ["dynamic", "static"], flop)
        result |= {into: found} if into else found  # sampled is the headline
    if continuous:
        result["continuous_seconds"] = continuous_batching(theirs, w, ids)
    return result


def models(w: Workload):
    """The peer's model with random weights, and ours loaded from the folder it saves."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    theirs = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=w.vocab, hidden_size=w.hidden, intermediate_size=w.intermediate, num_hidden_layers=w.layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None)).train(False)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load_model(Path(folder))


def rollout(model: LanguageModel, w: Workload, ids: torch.Tensor, temperature: float):
    return sample(model, ids.tolist(), [str(i) for i in range(GROUPS)], sampling(w, w.new, temperature))


def sampling(w: Workload, new: int, temperature: float = 1.0) -> SamplingParams:
    return SamplingParams(new, list(range(w.ends)), samples=SAMPLES, temperature=temperature,
                          max_num_seqs=GROUPS * SAMPLES)


@torch.no_grad()
def generate(model, w: Workload, ids: torch.Tensor, temperature: float, cache: str,
             lengths: torch.Tensor | None = None) -> torch.Tensor:
    """transformers' own loop over the same batch; -> the new tokens [rows, longest]"""
    from transformers import StoppingCriteria, StoppingCriteriaList

    class AtLength(StoppingCriteria):
        def __call__(self, input_ids, scores, **_):
            return input_ids.shape[1] - w.prompt >= lengths

    rows = ids.repeat_interleave(SAMPLES, 0)
    sampling = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
    stop = {} if lengths is None else {"stopping_criteria": StoppingCriteriaList([AtLength()])}
    # with lengths given, end tokens must not stop a row; an end id that is no token lets rows finish
    ends = [w.vocab] if lengths is not None else list(range(w.ends)) or None
    whole = model.generate(rows, attention_mask=torch.ones_like(rows), max_new_tokens=w.new, pad_token_id=0,
                           eos_token_id=ends, cache_implementation=cache, disable_compile=True, **sampling, **stop)
    return whole[:, w.prompt :]


def cut(rows: torch.Tensor, w: Workload) -> list[list[int]]:
    """Each row up to its end token."""
    out = []
    for row in rows.tolist():
        end = next((i for i, token in enumerate(row) if token < w.ends), len(row) - 1)
        out.append(row[: end + 1])
    return out


def continuous_batching(model, w: Workload, ids: torch.Tensor) -> float | str:
    """Seconds of one greedy run through ``generate_batch``, or why it did not run."""
    from side_by_side import cpu_seconds
    from transformers import GenerationConfig

    rows = ids.repeat_interleave(SAMPLES, 0).tolist()
    config = GenerationConfig(max_new_tokens=w.new, do_sample=False, eos_token_id=None, pad_token_id=0)
    try:
        return cpu_seconds(lambda: model.generate_batch(inputs=rows, generation_config=config, progress_bar=False))
    except Exception as error:  # whatever it is, it is the peer's, and the result says so
        return f"{type(error).__name__}: {error}"[:200]


def memory(w: Workload) -> dict:
    """Peak resident bytes of a rollout above those before the model was there, and their floor (Linux)."""
    theirs, ours = models(w)
    del theirs
    c, weights = ours.config, sum(p.numel() * 4 for p in ours.parameters())
    token = 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * 4
    ids = torch.randint(w.ends, w.vocab, (GROUPS, w.prompt), generator=torch.Generator().manual_seed(1)).tolist()
    keys = [str(i) for i in range(GROUPS)]
    for _ in generate_stream(ours, ids, keys, sampling(w, 2)):
        pass
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, so that the rollout has to ask for all that it needs
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    live = 0
    for rows in generate_stream(ours, ids, keys, sampling(w, w.new)):
        prompts = len({row.prompt for row in rows})
        live = max(live, token * (prompts * w.prompt + sum(len(row.ids) for row in rows)))
    peak, floor = status("VmHWM") - before + weights, weights + live
    return {"peak": peak, "floor": floor, "ratio": peak / floor}


def status(name: str) -> int:
    for row in Path("/proc/self/status").read_text().splitlines():
        if row.startswith(name + ":"):
            return int(row.split()[1]) * 1024
    raise OSError(f"no {name} in /proc/self/status")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
