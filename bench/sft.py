"""One supervised step against TRL's `SFTTrainer`: `python bench/sft.py --json F`.

Same random weights and documents, 32 of them a step, one thread, fp32, AdamW, loss on the completions alone; the model
is that of bench/grpo_step.py (hidden 256, four layers, vocabulary 2,048):

    equal    documents of 256 tokens, 64 of them the prompt
    ragged   64 to 256 tokens, drawn evenly; a quarter of each is the prompt

The peer is one call of `train` for one step, without gradient checkpointing, with both losses that it offers
(nll, chunked_nll) and micro-batches of 8, 16 and 32 rows: each is tried once, the two fastest are timed in every round.
`ragged_packed` has the documents of `ragged`, against its packing into rows of 256, 512 and 1,024 tokens. Ours are
packs of at most 2,048 tokens. Loss and gradients are compared in the same run, gradients relative to the largest entry.
The learning rate is 0: the optimizer does all its work and the weights stay.
The GEMM limit counts the matrix products below the head, and in the head for targets alone, three times (forward, and
backward at the price of two): no padding, no attention.

Needs TRL (`pip install -e '.[trl]'`).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tempfile
from argparse import RawDescriptionHelpFormatter
from importlib.metadata import version
from pathlib import Path

import torch
from grpo_step import BETAS
from rollout import Workload, models
from side_by_side import against, alone_and_quiet, cpu_seconds, gemm_rate, needed, rounds, write
from words import backend, text

from minifleming.cold_start.sft import one_step
from minifleming.lm.optimizer import adamw
from minifleming.lm.pack import Example
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli
from minifleming.run.fields import ColdStart

ROWS = 32
TOKENS = 2048  # in a pack of ours
AIMS = {"equal": 1.15, "ragged": 2.0, "ragged_packed": 3.0}
SHAPE = Workload(64, 192)
LOSSES = ("nll", "chunked_nll")


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="sft.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="F", help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=5, help="of timing; the figure is their median")
    parser.add_argument("--workloads", nargs="+", default=list(AIMS), choices=list(AIMS),
                        help="default: all of them")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise BadInput("--rounds: must be positive")
    needed("trl", "transformers", "trl", "datasets")
    alone_and_quiet()
    import datasets

    datasets.disable_progress_bars()
    results = []
    for name in args.workloads:
        results.append({"workload": name, "aim": AIMS[name]} | measure(name, args.rounds))
        print(line(results[-1]), flush=True)
    write(args.json, results)
    return 0


def line(r: dict) -> str:
    return (f"{r['workload']:13s} {r['ratio']:.2f}x [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] of TRL "
            f"({r['peer_name']}), aim {r['aim']}; {r['tokens'] / r['ours']:,.0f} tokens a CPU second, peer "
            f"{r['tokens'] / r['peer']:,.0f}; {100 * r['share_of_limit']:.0f} % of the GEMM limit (peer "
            f"{100 * r['peer_share_of_limit']:.0f} %); gradient differs by {r['gradient_difference']:.1e}, loss by "
            f"{r['loss_difference']:.1e}")


def documents(name: str) -> list[Example]:
    rng = torch.Generator().manual_seed(2)
    lengths = [256] * ROWS if name == "equal" else torch.randint(64, 257, (ROWS,), generator=rng).tolist()
    rows = [torch.randint(1, SHAPE.vocab, (n,), generator=rng).tolist() for n in lengths]
    return [Example(ids[: len(ids) // 4], ids[len(ids) // 4 :]) for ids in rows]


def measure(name: str, count: int) -> dict:
    given = documents(name)
    targets, tokens = sum(len(e.completion) for e in given), sum(map(len, given))
    with tempfile.TemporaryDirectory() as out:
        ours = Ours(given)
        kinds = [(0, size) for size in (8, 16, 32)] if name != "ragged_packed" else [(n, 0) for n in (256, 512, 1024)]
        peers = {f"{loss}, {f'rows of {packed}' if packed else f'micro {size}'}": Theirs(given, out, loss, size, packed)
                 for loss in LOSSES for packed, size in kinds}
        ours.step()
        for peer in peers.values():
            peer.step()
        tried = {kind: gemm_rate() * cpu_seconds(peer.step) for kind, peer in peers.items()}
        chosen = sorted(tried, key=tried.get)[:2]
        flop = 3 * (SHAPE.flop * tokens + 2 * SHAPE.hidden * SHAPE.vocab * targets)
        times = rounds({"ours": ours.step} | {kind: peers[kind].step for kind in chosen}, count, warm=False)
        found = against(times, chosen, flop)
        best = peers[found["peer_name"]]
        same = difference(ours, best)
        if same["gradient_difference"] > 1e-4 or same["loss_difference"] > 1e-4:
            raise RunFailed(f"{name}: the two programs do not train on the same: {same}")
        return found | same | {"tokens": tokens, "targets": targets, "trl": version("trl"),
                               "tried": {kind: cost / min(tried.values()) for kind, cost in tried.items()}}


def difference(ours: Ours, peer: Theirs) -> dict:
    """Loss relative, gradients relative to the largest entry; ours are scaled back from the clipping to norm 1."""
    scale = max(ours.figures["grad_norm"], 1.0)
    mine = {name: p.grad * scale for name, p in ours.model.named_parameters()}
    largest = max(g.abs().max().item() for g in mine.values())
    apart = max((mine[name] - g).abs().max().item() for name, g in peer.gradients.items())
    if set(mine) != set(peer.gradients):
        raise RunFailed("the two models have other parameters")
    return {"gradient_difference": apart / largest,
            "loss_difference": abs(ours.figures["loss"] - peer.loss) / ours.figures["loss"]}


class Ours:
    def __init__(self, given: list[Example]):
        self.given, self.model = given, models(SHAPE)[1]
        self.cfg = ColdStart(lr=0.0, micro_batch_tokens=TOKENS, max_grad_norm=1.0)
        self.optimizer = adamw(self.model, 0.0, BETAS, 0.0)

    def step(self) -> None:
        self.figures = one_step(self.model, self.optimizer, self.given, self.cfg, 0)


class Theirs:
    """TRL's trainer on the same documents: padded micro-batches of ``size`` rows, or ``packed`` into rows."""

    def __init__(self, given: list[Example], out: str, loss: str, size: int, packed: int):
        import transformers
        import trl
        from datasets import Dataset

        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend(SHAPE.vocab), eos_token=text([SHAPE.vocab]), pad_token=text([0]))
        rows = Dataset.from_dict({
            "input_ids": [e.prompt + e.completion for e in given],
            "completion_mask": [[0] * len(e.prompt) + [1] * len(e.completion) for e in given]})
        if packed:
            size = len(trl.pack_dataset(rows, packed, "bfd"))
        args = trl.SFTConfig(
            output_dir=out, per_device_train_batch_size=size, max_length=packed or 1024, packing=bool(packed),
            gradient_accumulation_steps=1 if packed else ROWS // size, loss_type=loss, completion_only_loss=True,
            learning_rate=0.0, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=0.0, max_grad_norm=1.0,
            max_steps=1, bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", report_to="none",
            disable_tqdm=True, log_level="error", logging_steps=1)
        self.trainer = trl.SFTTrainer(models(SHAPE)[0], args, train_dataset=rows, processing_class=tokenizer)
        self.trainer.remove_callback(transformers.PrinterCallback)

        def note(_, args, state, control, model=None, **__):
            self.gradients = {name: p.grad.clone() for name, p in model.named_parameters()} if self.watching else {}

        self.watching = True
        watcher = type("Watcher", (transformers.TrainerCallback,), {"on_pre_optimizer_step": note})
        self.trainer.args.max_grad_norm = 1e9  # its clipping does its work, and changes nothing
        self.trainer.add_callback(watcher)

    def step(self) -> None:
        self.trainer.train()
        self.loss = self.trainer.state.log_history[-1]["train_loss"]
        kept, self.watching = self.gradients or getattr(self, "kept", {}), False
        self.kept = self.gradients = kept


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
