"""Trains the tiny base model. `python -m minifleming.cold_start.base --out DIR`

A Qwen3-style decoder of about a million parameters. In its tokenizer every name of the graph is
one token that includes the space before it. The trained model is in ``minifleming/assets/tiny``.
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
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.optimizer import set_lr
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
SHAPE = (128, 384, 3, 4, 2, 32, 1e-6, 10000.0, True, 512)  # fields of ModelConfig, in order
ROWS, WIDTH = 48, 42  # texts of a batch, tokens of a text
READING = ["look_ups", "recitals"]  # kinds of text that alternate in a batch
FACTS = ["statements", "statements", "links", "findings"]
FEW = 16.0  # names at the start
MANY, UNLEARNED = 64.0, 1.0  # above this many names the look-up loss must be below 1 nat


def build_tokenizer(graph: Graph, folder: Path) -> Tokenizer:
    """Return a byte-level BPE of the template words; tags, marks and names are one token each."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1000, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator(template_text(graph, Walker(graph)), trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in CONTROL])
    words = [MARK.format(label=label) for label in LABELS] + [f" {name}" for name in graph.names]
    backend.add_tokens([AddedToken(word, normalized=False) for word in words])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>",
              "pad_token": "<|im_end|>", "clean_up_tokenization_spaces": False,
              "minifleming": {"instruction": "", "option": OPTION}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return Tokenizer(folder)


def encode(tokenizer: Tokenizer, texts: list[list[Segment]], width: int) -> tuple:
    """Return token ids [B, width] and which of them are learned [B, width]; long texts are cut."""
    ids = torch.full((len(texts), width), PAD)
    learned = torch.zeros(len(texts), width, dtype=torch.bool)
    for row, text in enumerate(texts):
        parts = tokenizer.backend.encode_batch([part for part, _ in text], add_special_tokens=False)
        at = 0
        for (_, learn), part in zip(text, parts):
            part = part.ids[: width - at]
            ids[row, at : at + len(part)] = torch.tensor(part, dtype=torch.int64)
            learned[row, at : at + len(part)] = learn
            at += len(part)
    return ids, learned


def make_optimizers(model: LanguageModel) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for everything else."""
    matrices = [p for p in model.model.layers.parameters() if p.dim() == 2]
    inner = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inner]
    adamw = torch.optim.AdamW(others, lr=0.003, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [Muon(matrices, lr=0.02), adamw]


def losses_by_kind(model: LanguageModel, tokenizer: Tokenizer, kinds: list[str],
                   texts: list[list[Segment]]) -> dict[str, torch.Tensor]:
    """Return for each kind of text the mean loss over its learned tokens; row i has kinds[i]."""
    ids, learned = encode(tokenizer, texts, WIDTH)
    targets, mask = ids[:, 1:], learned[:, 1:]
    logits = model.logits(model(ids[:, :-1])[mask])
    losses = F.cross_entropy(logits, targets[mask], reduction="none")
    rows = mask.nonzero()[:, 0].tolist()
    means = {}
    for kind in dict.fromkeys(kinds):
        means[kind] = losses[[kinds[row] == kind for row in rows]].mean()
    return means


def train(model: LanguageModel, tokenizer: Tokenizer, corpus: Corpus, steps: int, seed: int):
    """Train with warm-up, a plateau and linear decay; print the losses every hundred steps.

    The loss is the sum of the kinds' means. Look-ups and recitals come first, over a few names and
    then more and more. When all names are in use, two thirds of each batch state facts.
    """
    rng = np.random.default_rng([seed, 0xBA5E])
    optimizers = make_optimizers(model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    known = FEW
    for step in bar(range(1, steps + 1), desc="tiny base"):
        factor = min(1.0, step / 100) * min(1.0, 0.02 + 1.4 * (1 - (step - 1) / steps))
        for optimizer, peak in zip(optimizers, peaks):
            set_lr(optimizer, peak * factor)
        cycle = READING if known < len(corpus.order) else READING + FACTS
        kinds = [cycle[row % len(cycle)] for row in range(ROWS)]
        texts = [corpus.text(kind, WIDTH, int(known), rng) for kind in kinds]
        losses = losses_by_kind(model, tokenizer, kinds, texts)
        model.zero_grad(set_to_none=True)
        sum(losses.values()).backward()
        for optimizer in optimizers:
            optimizer.step()
        known = more_names(known, losses["look_ups"].item())
        if step % 100 == 0 or step == steps:
            record = {kind: round(loss.item(), 4) for kind, loss in losses.items()}
            print(json.dumps({"step": step, **record}), flush=True)


def more_names(known: float, loss: float) -> float:
    """Return ``known`` after a step: it doubles in 150 steps; failed look-ups reset it to ``FEW``."""
    return FEW if known > MANY and loss > UNLEARNED else known * 2 ** (1 / 150)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="base", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    if args.steps < 1:
        raise BadInput("--steps: must be positive")
    if args.out.exists():
        raise BadInput("exists already; nothing is overwritten", args.out)
    graph = load_graph("embedded")
    with TemporaryDirectory() as staging:
        tokenizer = build_tokenizer(graph, Path(staging))
        vocabulary = tokenizer.backend.get_vocab_size()
        model = LanguageModel(ModelConfig("qwen3", vocabulary, *SHAPE))
        model.init_weights(args.seed)
        print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {vocabulary} tokens")
        train(model, tokenizer, Corpus(graph), args.steps, args.seed)
        write_folder(args.out, lambda folder: save_model(model, tokenizer, folder, torch.bfloat16))
    print(f"sha256 {sha256(args.out / 'model.safetensors')}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
