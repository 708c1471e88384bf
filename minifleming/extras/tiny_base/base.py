"""The tiny base: its tokenizer and its training. `python -m minifleming.cold_start.base --out DIR`

A Qwen3-style decoder of about a million parameters, in which every name of the graph is one token that absorbs
the space before it. It is shipped under ``minifleming/assets/tiny`` with its hash; this command rebuilds it.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from minifleming.extras.tiny_base.corpus import MARK, OPTION, Corpus, Segment, template_text
from minifleming.extras.tiny_base.muon import Muon
from minifleming.lm import optimizer as optim
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import save_model
from minifleming.rods.graph import Graph
from minifleming.rods.item import LABELS
from minifleming.rods.readers import load_graph
from minifleming.rods.walk import Walker
from minifleming.run.checkpoint import sha256, write_folder
from minifleming.run.errors import BadInput, Parser, run_cli
from minifleming.run.run_folder import bar

CONTROL = ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<answer>", "</answer>"]
PAD = 0
READING = ("look_ups", "recitals")  # kinds of text that take turns in a batch
FACTS = ("statements", "statements", "links", "findings")
FEW, MANY, UNLEARNT = 16.0, 64.0, 1.0  # names at the start, names by which look-ups must do better than this loss


def build_tokenizer(graph: Graph, folder: Path) -> Tokenizer:
    """Byte-level BPE over the template words, plus one token for each control tag and each name."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    backend.train_from_iterator(template_text(graph, Walker(graph)), trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL])
    backend.add_tokens([AddedToken(MARK.format(label=label), normalized=False) for label in LABELS])
    backend.add_tokens([AddedToken(f" {name}", normalized=False) for name in graph.names])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
              "clean_up_tokenization_spaces": False, "minifleming": {"instruction": "", "option": OPTION}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Tokenizer(folder)


def tiny_config(vocab_size: int, width: int = 128, layers: int = 3) -> ModelConfig:
    return ModelConfig("qwen3", vocab_size, width, 3 * width, layers, 4, 2, width // 4, 1e-6, 10000.0, True, 512)


def encode(tokenizer: Tokenizer, texts: list[list[Segment]], width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of exactly ``width`` tokens: ids [B, width] and which of them are learned [B, width]."""
    flat = [segment for text in texts for segment in text]
    encoded = iter(tokenizer.backend.encode_batch([text for text, _ in flat], add_special_tokens=False))
    ids = torch.full((len(texts), width), PAD)
    learned = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        at = 0
        for _, learn in text:
            part = next(encoded).ids[: width - at]
            ids[row, at : at + len(part)] = torch.tensor(part, dtype=torch.int64)
            learned[row, at : at + len(part)] = learn
            at += len(part)
    return ids, learned


def train(model: LanguageModel, tokenizer: Tokenizer, corpus: Corpus, *, steps: int, rows: int, width: int,
          seed: int, watch=lambda step, record: None) -> None:
    """Muon and AdamW; warm-up, a plateau, linear decay. The loss is the sum over the kinds of text of the mean over
    their learned tokens.

    First reading alone: look-ups and recitals over a few names and then ever more. When all names are known, two
    thirds of each batch state facts and findings.
    """
    rng = np.random.default_rng([seed, 0xBA5E])
    hidden = [p for p in model.model.layers.parameters() if p.dim() == 2]
    inner = {id(p) for p in hidden}
    optimizers = [Muon(hidden, lr=0.02), torch.optim.AdamW(
        [p for p in model.parameters() if id(p) not in inner], lr=0.003, betas=(0.9, 0.98), weight_decay=0.0,
        fused=True)]
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    known = FEW
    for step in bar(range(steps), desc="tiny base"):
        factor = min(1.0, (step + 1) / 100) * min(1.0, 0.02 + 1.4 * (1 - step / steps))
        for optimizer, peak in zip(optimizers, peaks):
            optim.set_lr(optimizer, peak * factor)
        kinds = READING if known < len(corpus.order) else READING + FACTS
        kinds = [kinds[i % len(kinds)] for i in range(rows)]
        texts = [corpus.text(kind, width, int(known), rng) for kind in kinds]
        ids, learned = encode(tokenizer, texts, width)
        goal, mask = ids[:, 1:], learned[:, 1:]
        logits = model.logits(model(ids[:, :-1])[mask])
        losses = F.cross_entropy(logits, goal[mask], reduction="none")
        row_of = mask.nonzero()[:, 0].tolist()
        losses = {kind: losses[[kinds[row] == kind for row in row_of]].mean() for kind in dict.fromkeys(kinds)}
        loss = sum(losses.values())
        model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        known = more_names(known, losses["look_ups"].item())
        if step % 100 == 99 or step == steps - 1:
            watch(step + 1, {name: value.item() for name, value in losses.items()})
    model.train(False)


def more_names(known: float, loss: float) -> float:
    """Twice as many names every 150 steps; back to a few if the look-ups are not learned by ``MANY``."""
    return FEW if known > MANY and loss > UNLEARNT else known * 2 ** (1 / 150)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="base", description=__doc__, allow_abbrev=False)
    parser.add_argument("--graph", default="embedded")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=42)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    for name in ("steps", "rows", "tokens", "width", "layers"):
        if getattr(args, name) < 1:
            raise BadInput(f"--{name}: must be positive")
    if args.width % 8:
        raise BadInput("--width: must be a multiple of 8: four heads of an even width")
    if args.out.exists():
        raise BadInput("exists already; nothing is overwritten", args.out)
    with TemporaryDirectory() as staging:
        build(args, Path(staging))
    print(f"sha256 {sha256(args.out / 'model.safetensors')}")
    return 0


def build(args, staging: Path) -> None:
    """Tokenizer, model and training; the folder is written every thousand steps and at the end."""
    graph = load_graph(args.graph)

    def save(step: int, record: dict) -> None:
        print(json.dumps({"step": step, **{k: round(v, 4) for k, v in record.items()}}), flush=True)
        if step % 1000 == 0 or step == args.steps:
            write_folder(args.out, lambda folder: save_model(model, tokenizer, folder, torch.bfloat16))

    tokenizer = build_tokenizer(graph, staging)
    model = LanguageModel(tiny_config(tokenizer.backend.get_vocab_size(), args.width, args.layers))
    model.init_weights(args.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {model.config.vocab_size} tokens")
    train(model, tokenizer, Corpus(graph), steps=args.steps, rows=args.rows, width=args.tokens,
          seed=args.seed, watch=save)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
