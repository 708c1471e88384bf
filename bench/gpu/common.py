"""What all parts of the GPU suite share: shapes, random models, rows, and the loop over a part's measurements.

    python -P -m bench.gpu.decode --out DIR [--toy] [--seconds S] [--model FOLDER] [--after NAME] [--worker 1/8]
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.gpu import card, limits, rows
from minifleming.extras.plan.model_shapes import shape_of
from minifleming.lm.config import ModelConfig
from minifleming.lm.engines import cuda_graph
from minifleming.lm.model import LanguageModel
from minifleming.run.errors import BadInput, Parser

BROKEN = 3  # exit status: the device is of no more use to this process; a fresh one goes on behind this measurement
FAILED = 4  # exit status: some rows are errors, or beyond a bound
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}
TOY = ModelConfig("qwen2", 1000, 64, 176, 2, 4, 2, 16, 1e-6, 1e6, True, 4096)


@dataclass
class Bench:
    """One part at work."""

    part: str
    out: Path
    toy: bool
    device: torch.device
    model: Path | None
    until: float  # time.monotonic() at its end
    machine: limits.Machine | None = None
    measurement: str = ""
    worker: str = ""  # which share of the part's measurements this process has, as "1/8"
    failed: bool = False

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def shape(self, name: str) -> ModelConfig:
        return TOY if self.toy else shape_of(name)

    def size(self, real, toy):
        return toy if self.toy else real

    def left(self) -> float:
        return self.until - time.monotonic()

    def row(self, what: str, shape: str = "", measured: float | str | None = None, unit: str = "", **more) -> dict:
        """limit, aim, peer, peer_name, note, must (a missed aim fails the part), error; see rows.judged."""
        row = rows.judged({"part": self.part, "measurement": self.measurement, "what": what, "shape": shape,
                           "measured": measured, "unit": unit, "toy": self.toy,
                           "command": rows.command(self.part, self.toy, self.model),
                           **{key: value for key, value in more.items() if value is not None}})
        self.failed |= rows.bad(row)
        rows.append(self.out, row)
        print(" ".join(filter(None, rows.cells(row)[:-1])), flush=True)
        return row

    def peers(self, programs: dict[str, Callable[[], float]], unit: str = "s", tokens: int = 0) -> dict:
        """The fastest of some peers, each a function that gives seconds, as arguments of ``row`` in its unit (of
        tokens/s: so many). One that is not installed or fails is named in the note."""
        found, notes = {}, []
        for name, run in programs.items():
            try:
                found[name] = run()
            except ImportError as error:
                notes.append(f"{name}: {error.name or error} is not installed")
            except Exception as error:  # whatever it is, it is the peer's
                notes.append(f"{name}: {said(error)}")
            free()
        if not found:
            return {"note": "; ".join(notes)}
        values = {name: tokens / took if tokens else took * UNITS[unit] for name, took in found.items()}
        best = min(found, key=found.get)
        notes += [f"{name}: {rows.amount(value, unit)}" for name, value in values.items() if name != best]
        return {"peer": values[best], "peer_name": best, "note": "; ".join(notes)}


def main(part: str, measurements: dict[str, Callable[[Bench], None]], argv: list[str] | None = None) -> int:
    """All measurements of a part, one after the other; one that fails is a row, and the next is taken up."""
    parser = Parser(prog=f"{part}.py", description=sys.modules["__main__"].__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--toy", action="store_true", help="toy sizes; the only ones without CUDA")
    parser.add_argument("--seconds", type=float, default=600.0, help="no measurement is begun when these are over")
    parser.add_argument("--until", type=float, help="the same as a reading of this machine's monotonic clock")
    parser.add_argument("--model", type=Path, help="a model folder (SmolLM2), for the parts that can use one")
    parser.add_argument("--after", choices=list(measurements), help="go on behind this measurement")
    parser.add_argument("--worker", default="0/1", metavar="I/N", help="every Nth measurement alone, from the Ith on")
    args = parser.parse_args(argv)
    if args.model and not (args.model / "config.json").exists():
        raise BadInput("--model: no model folder", args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    bench = begin(part, args)
    number, of = map(int, args.worker.split("/"))
    names = list(measurements)[number::of]
    for name in names[names.index(args.after) + 1 if args.after else 0 :]:
        bench.measurement = name
        if not attempt(bench, name, measurements[name]):
            return BROKEN
    return FAILED if bench.failed else 0


def begin(part: str, args) -> Bench:
    until = args.until or time.monotonic() + args.seconds
    torch.manual_seed(0)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    toy = args.toy or device.type == "cpu"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:  # the GPU's sampler, one operation after the other
        cuda_graph.is_supported = lambda model: True
    bench = Bench(part, args.out, toy, device, args.model, until, worker=args.worker)
    bench.machine = card.ceilings(card.facts(args.out, device, toy))
    return bench


def attempt(bench: Bench, name: str, measure: Callable[[Bench], None]) -> bool:
    """False where the device does not answer any more."""
    rows.append(bench.out, {"begin": name, "part": bench.part, "worker": bench.worker})
    if bench.left() < 2:
        bench.row(name, error="not measured: no time was left")
        return True
    try:
        measure(bench)
    except Exception as error:  # one row says so; the other measurements are worth as much as before
        bench.row(name, error=said(error))
    return answers()


def answers() -> bool:
    """After an illegal address, say, every call on the device fails."""
    try:
        free()
    except Exception:
        return False
    return True


def said(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) < 300 else text[:297] + "..."


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


# Models


@torch.no_grad()
def random_model(c: ModelConfig, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """As ``LanguageModel.initialise``, with the device's random numbers."""
    with torch.device("meta"):
        model = LanguageModel(c).to(dtype)
    model.to_empty(device=device).tie_weights()
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        back = name.endswith(("o_proj.weight", "down_proj.weight"))
        parameter.normal_(0.0, 0.02 / (2 * c.num_hidden_layers) ** 0.5 if back else 0.02)
    return model.train(False)


def theirs(c: ModelConfig, device: torch.device, dtype: torch.dtype):
    """transformers' Qwen2 of the same shape, random weights."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads, max_position_embeddings=c.max_position_embeddings,
        tie_word_embeddings=c.tie_word_embeddings, bos_token_id=None, eos_token_id=None)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return Qwen2ForCausalLM(config).train(False)
    finally:
        torch.set_default_dtype(before)
