"""Tiny models, a model with known probabilities, and a tokenizer folder.

The models are far from their initialisation on purpose: near it every logit is about 0, the distribution is
about uniform, and a wrong attention, shift or temperature would pass within any tolerance.
"""

from __future__ import annotations

import json

import pytest
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.pack import Example, Group, as_group, build_pack, packed_logprobs

KINDS = ("qwen2", "qwen3", "llama")
SPECIAL = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<answer>", "</answer>", "</s>")


def row_sums(values: torch.Tensor, rows: torch.Tensor, count: int) -> torch.Tensor:
    """Sum the values of each row: log π(y|x) of its tokens' log-probabilities. [N], [N] -> [count]"""
    return values.new_zeros(count).index_add(0, rows, values)


def sequence_ids(given: list[Group] | list[Example]) -> torch.Tensor:
    """For each learned token of these groups in one pack, the number of its completion. -> [M]"""
    completions = [c for group in map(as_group, given) for c in group.completions]
    return torch.tensor([i for i, completion in enumerate(completions) for _ in completion])


def group_logprobs(model: LanguageModel, prompts: list[list[int]], owner: list[int], completions: list[list[int]],
                   temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """log π of every token, completion b behind ``prompts[owner[b]]``, all in one pack that holds each prompt once.

    -> [M], [M]: completion after completion in the order given, and the completion of each.
    """
    used = sorted(set(owner))
    groups = [Group(prompts[p], [c for c, o in zip(completions, owner) if o == p]) for p in used]
    made = build_pack(groups, used)
    values = packed_logprobs(model, made, temperature)
    rows = sequence_ids(groups)
    order = sorted(range(len(owner)), key=lambda b: owner[b])  # as they stand in the pack
    back = torch.cat([(rows == order.index(b)).nonzero()[:, 0] for b in range(len(owner))])
    return values.index_select(0, back), torch.tensor([b for b, c in enumerate(completions) for _ in c])


def tiny_model(kind: str = "qwen3", seed: int = 0, **changes) -> LanguageModel:
    """Two layers, width 24, four query heads on two key/value heads; random weights that make sharp logits."""
    fields = dict(model_type=kind, vocab_size=41, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, rope_theta=1e4,
                  tie_word_embeddings=False, max_position_embeddings=128) | changes
    model = LanguageModel(ModelConfig(**fields)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 2:
                p.copy_(noise * (1.5 / p.shape[1] ** 0.5))
            else:
                p.copy_(noise * 0.3 + (0.0 if name.endswith("bias") else 1.0))
    return model


def chain_model(table: torch.Tensor) -> LanguageModel:
    """A decoder whose next token depends on the last one alone: logits after token i are ``table[i]``. [V, V]

    One-hot embeddings and zero output projections leave √V · one-hot after the last norm.
    """
    V = len(table)
    model = tiny_model(vocab_size=V, hidden_size=V, head_dim=4, num_attention_heads=1, num_key_value_heads=1)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight.copy_(torch.eye(V) * 10)
        model.lm_head.weight.copy_(table.T / V**0.5)
    return model


def write_tokenizer(folder, **changes) -> None:
    """Bytes, one merge (a + b = ab) and the control tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*letters, "ab"])}
    backend = Backend(models.BPE(vocab=vocab, merges=[("a", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"} | changes
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="session")
def tiny():
    return tiny_model


@pytest.fixture(scope="session")
def chain():
    return chain_model


@pytest.fixture(scope="session")
def tokenizer_writer():
    return write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The sums of a matrix product must not depend on the machine."""
    torch.set_num_threads(1)
