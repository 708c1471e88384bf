"""Tests for lm/model.py and lm/config.py: a naive oracle, causality, padding, tying, numerics, bad configurations."""

from __future__ import annotations

import json
import math

import pytest
import torch

from minifleming.lm.batch_invariant import make_batch_invariant
from minifleming.lm.model import LanguageModel, ModelConfig
from minifleming.lm.pack import Example
from minifleming.run.errors import BadInput
from tests.padded import collate, completion_logprobs


def logits_of(model, ids):
    """[B, T] -> [B, T, V]"""
    with torch.no_grad():
        return model.logits(model(torch.as_tensor(ids)))


def naive_logits(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """The decoder written a second time: fp64, one row, one head and one position at a time. -> [T, V]"""
    c, w = model.config, {name: p.detach().double() for name, p in model.named_parameters()}
    T, D, group = len(ids), c.head_dim, c.num_attention_heads // c.num_key_value_heads

    def norm(x, name):
        return x / (x.pow(2).mean() + c.rms_norm_eps).sqrt() * w[name]

    def linear(x, name):
        return w[f"{name}.weight"] @ x + w.get(f"{name}.bias", 0.0)

    def turn(x, position):
        out = x.clone()
        for i in range(D // 2):
            angle = position * c.rope_theta ** (-2 * i / D)
            a, b = x[i], x[i + D // 2]
            out[i] = a * math.cos(angle) - b * math.sin(angle)
            out[i + D // 2] = b * math.cos(angle) + a * math.sin(angle)
        return out

    x = [w["model.embed_tokens.weight"][i] for i in ids]
    for layer in range(c.num_hidden_layers):
        at = f"model.layers.{layer}"
        normed = [norm(h, f"{at}.input_layernorm.weight") for h in x]

        def heads(name, t, count, at=at, normed=normed):
            parts = linear(normed[t], f"{at}.self_attn.{name}_proj").view(count, D)
            if name != "v" and c.model_type == "qwen3":
                parts = torch.stack([norm(part, f"{at}.self_attn.{name}_norm.weight") for part in parts])
            return parts if name == "v" else torch.stack([turn(part, t) for part in parts])

        q = [heads("q", t, c.num_attention_heads) for t in range(T)]
        k = [heads("k", t, c.num_key_value_heads) for t in range(T)]
        v = [heads("v", t, c.num_key_value_heads) for t in range(T)]
        for t in range(T):
            out = []
            for h in range(c.num_attention_heads):
                scores = torch.stack([q[t][h] @ k[s][h // group] for s in range(t + 1)]) / D**0.5
                out.append(sum(p * v[s][h // group] for s, p in enumerate(scores.softmax(0))))
            x[t] = x[t] + linear(torch.cat(out), f"{at}.self_attn.o_proj")
        for t in range(T):
            h = norm(x[t], f"{at}.post_attention_layernorm.weight")
            gate, up = linear(h, f"{at}.mlp.gate_proj"), linear(h, f"{at}.mlp.up_proj")
            x[t] = x[t] + linear(gate / (1 + (-gate).exp()) * up, f"{at}.mlp.down_proj")
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return torch.stack([head @ norm(h, "model.norm.weight") for h in x])


@pytest.mark.parametrize("heads, kv_heads", [(4, 4), (4, 2), (6, 2), (4, 1)])
def test_logits_equal_a_naive_oracle(tiny, kind, heads, kv_heads):
    """Every family, with and without shared key/value heads, equals a plain fp64 loop over positions."""
    model = tiny(kind, num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=heads == 6)
    ids = [3, 17, 40, 0, 3, 9, 22]
    torch.testing.assert_close(logits_of(model, [ids])[0].double(), naive_logits(model, ids), atol=3e-5, rtol=1e-5)


def test_families_differ_where_they_should(tiny):
    """Biases on q, k, v for qwen2 alone; norms on q and k for qwen3 alone; nothing else has a bias."""
    names = {kind: {n for n, _ in tiny(kind).named_parameters()} for kind in ("qwen2", "qwen3", "llama")}
    assert not {n for n in names["llama"] if "bias" in n or "q_norm" in n or "k_norm" in n}
    extra = {kind: {n.split("self_attn.")[1] for n in names[kind] - names["llama"]} for kind in ("qwen2", "qwen3")}
    assert extra == {"qwen2": {"q_proj.bias", "k_proj.bias", "v_proj.bias"},
                     "qwen3": {"q_norm.weight", "k_norm.weight"}}
    assert all(names["llama"] < names[kind] for kind in extra)


def test_every_parameter_moves_the_logits(tiny, kind):
    """No weight is loaded and then left out: the gradient of a mixed sum of logits reaches each one.

    A bias on the keys is the exception: it adds the same score at every position where rotary does not turn it,
    so its gradient may be small; it must still not be zero.
    """
    model = tiny(kind)
    ids = torch.randint(0, 41, (2, 9), generator=torch.Generator().manual_seed(3))
    logits = model.logits(model(ids))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(4))).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4] == []


def test_causal(tiny, kind):
    """A token changes the outputs at its own position and after it, and none before it."""
    model = tiny(kind)
    ids = torch.randint(0, 41, (1, 12), generator=torch.Generator().manual_seed(5))
    for t in (0, 5, 11):
        other = ids.clone()
        other[0, t] = (other[0, t] + 1) % 41
        gap = (logits_of(model, ids) - logits_of(model, other))[0].abs().amax(-1)
        assert gap[:t].max() < 1e-6 if t else True
        assert gap[t:].min() > 1e-4


def test_T18_contents_of_right_padding_change_nothing(tiny, kind):
    """A row's outputs are the same alone and beside a longer row, whatever stands behind its end."""
    model = tiny(kind)
    row = torch.tensor([7, 3, 30, 12])
    alone = logits_of(model, row[None])[0]
    for seed in range(3):
        batch = torch.randint(0, 41, (3, 11), generator=torch.Generator().manual_seed(seed))
        batch[1, :4] = row
        torch.testing.assert_close(logits_of(model, batch)[1, :4], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("poison", [1e3, -1e15])
def test_T18_poisoned_padding(tiny, kind, poison):
    """Padding is id 0: a poisoned embedding of id 0 reaches no row, in value or gradient.

    The poison is finite: the fused causal attention multiplies masked values by an exact 0, and 0 · NaN is NaN.
    """
    model, batch = tiny(kind), collate([Example([3, 4], [5, 1]), Example([9, 8, 7, 6, 5, 4], [2, 3, 1])])
    before, _ = completion_logprobs(model, batch)
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = poison
    after, _ = completion_logprobs(model, batch)
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    after.sum().backward()
    assert model.model.embed_tokens.weight.grad[0].abs().max() == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_rotary_depends_on_relative_positions_only(tiny, kind):
    """Shifting all positions leaves the outputs alone; other gaps between them do not."""
    model = tiny(kind)
    ids = torch.randint(0, 41, (1, 8), generator=torch.Generator().manual_seed(6))
    default, at = model(ids), torch.arange(8)[None]
    torch.testing.assert_close(model(ids, at), default, atol=0, rtol=0)
    torch.testing.assert_close(model(ids, at + 13), default, atol=1e-4, rtol=0)
    assert (model(ids, at * 2) - default).abs().max() > 1e-2


@pytest.mark.parametrize("deterministic", [False, True])
def test_wanted_states_are_those_of_the_whole_pass(tiny, kind, deterministic):
    """Values and every gradient in fp64; a place may be asked for twice, and in any order."""
    model, wanted = tiny(kind).double(), torch.tensor([3, 11, 11, 0, 7])
    if deterministic:
        make_batch_invariant(model)
    ids, found = torch.randint(0, 41, (2, 6), generator=torch.Generator().manual_seed(6)), []
    for hidden in (model(ids).flatten(0, 1)[wanted], model(ids, output_positions=wanted)):
        model.zero_grad()
        (hidden * torch.arange(hidden.numel(), dtype=torch.float64).view(hidden.shape)).sum().backward()
        found.append([hidden, *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) > 10
    for whole, part in zip(*found):
        torch.testing.assert_close(part, whole, atol=1e-9, rtol=1e-9)


def test_T24_training_mode_changes_nothing(tiny, kind):
    """There is no dropout: train() and eval() agree bit for bit, and twice in a row."""
    model = tiny(kind)
    ids = torch.arange(10)[None]
    evaluated = model.eval()(ids)
    assert torch.equal(model.train()(ids), evaluated) and torch.equal(model(ids), evaluated)


def test_T30_tied_gradient_is_the_sum_of_both_halves(tiny, kind):
    """With tied embeddings the gradient is that of the embedding plus that of the head of an untied twin."""
    tied, untied = tiny(kind, tie_word_embeddings=True), tiny(kind)
    untied.load_state_dict(tied.state_dict() | {"lm_head.weight": tied.model.embed_tokens.weight})
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert "lm_head.weight" not in dict(tied.named_parameters())
    ids = torch.tensor([[1, 2, 3, 4, 5]])
    for model in (tied, untied):
        model.logits(model(ids)).logsumexp(-1).sum().backward()
    halves = untied.model.embed_tokens.weight.grad, untied.lm_head.weight.grad
    assert all(half.abs().max() > 1e-3 for half in halves)
    torch.testing.assert_close(tied.model.embed_tokens.weight.grad, sum(halves), atol=1e-5, rtol=1e-5)


def test_T30_tied_weights_stay_tied_when_cast(tiny):
    model = tiny(tie_word_embeddings=True).to(torch.bfloat16)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_T32_bfloat16_stays_near(tiny, kind):
    """bf16 weights give finite bf16 states, near those of the same weights in fp32."""
    wide, narrow = tiny(kind), tiny(kind).to(torch.bfloat16)
    wide.load_state_dict({n: p.float() for n, p in narrow.state_dict().items()})
    ids = torch.arange(12)[None]
    states = narrow(ids)
    assert states.dtype == torch.bfloat16 and states.isfinite().all()
    assert (states.float() - wide(ids)).abs().mean() < 0.1


def test_init_weights_depends_on_the_seed_only(tiny, kind):
    """Same seed, same weights, whatever the global generator; the deviations are those the docstring gives."""
    first, second = tiny(kind, hidden_size=64), tiny(kind, seed=9, hidden_size=64)
    first.init_weights(5)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    second.init_weights(5)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b in zip(first.named_parameters(), second.parameters()):
        assert torch.equal(a, b), name
        wanted = 0.01 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
        if a.dim() == 2:
            assert abs(a.std().item() / wanted - 1) < 0.15, name
        else:
            assert (a == (0.0 if name.endswith("bias") else 1.0)).all(), name
    second.init_weights(6)
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)


GOOD = {"model_type": "qwen3", "vocab_size": 41, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-6, "rope_theta": 5e4}


def read(tmp_path, change) -> ModelConfig:
    raw = {key: value for key, value in (GOOD | change).items() if value != "absent"}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return ModelConfig.read(tmp_path / "config.json")


def test_config_reads_both_generations(tmp_path):
    """rope_theta at the top or in rope_parameters; missing head widths and key/value heads follow from the rest."""
    assert read(tmp_path, {}).rope_theta == 5e4
    new = {"rope_theta": "absent", "rope_parameters": {"rope_type": "default", "rope_theta": 7e4}}
    assert read(tmp_path, new).rope_theta == 7e4
    assert read(tmp_path, {"head_dim": "absent"}).head_dim == 6
    assert read(tmp_path, {"num_key_value_heads": None}).num_key_value_heads == 4
    assert read(tmp_path, {"rope_scaling": None, "hidden_act": "silu"}) == read(tmp_path, {})


REFUSED = [
    ({"model_type": "mamba"}, "mamba"),
    ({"num_key_value_heads": 3}, "multiple"),
    ({"hidden_size": 0}, "hidden_size"),
    ({"hidden_size": "24"}, "hidden_size"),
    ({"num_hidden_layers": True}, "num_hidden_layers"),
    ({"vocab_size": "absent"}, "vocab_size"),
    ({"num_attention_heads": "absent"}, "num_attention_heads"),
    ({"num_attention_heads": 0, "head_dim": "absent"}, "type"),
    ({"rope_theta": [1]}, "type"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "dynamic"),
    ({"rope_scaling": {"type": "longrope", "factor": 4.0}}, "longrope"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "factor"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}}, "mscale"),
    ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ({"rope_parameters": [1]}, "type"),
    ({"attention_bias": True}, "attention_bias"),
    ({"mlp_bias": True}, "mlp_bias"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
    ({"max_position_embeddings": 0}, "max_position_embeddings"),
    ({"head_dim": 7}, "head_dim"),
    ({"rms_norm_eps": "tiny"}, "type"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"use_sliding_window": True, "sliding_window": 16}, "sliding"),
]


def test_config_refuses_what_it_would_compute_wrongly(tmp_path):
    """A wrong value, or one that this decoder would silently ignore, gives one line that names it."""
    wrong = []
    for change, word in REFUSED:
        try:
            read(tmp_path, change)
            wrong.append((change, "accepted"))
        except BadInput as error:
            if word not in str(error) or "\n" in str(error):
                wrong.append((change, str(error)))
    assert wrong == []


# Published configurations (name: the fields of config.json, parameters of the published checkpoint)
PUBLISHED = {
    "SmolLM2-135M": ("llama", 49152, 576, 1536, 30, 9, 3, 64, True, 134_515_008),
    "Qwen2.5-0.5B": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64, True, 494_032_768),
    "Qwen2.5-7B": ("qwen2", 152064, 3584, 18944, 28, 28, 4, 128, False, 7_615_616_512),
    "Llama-3.1-8B": ("llama", 128256, 4096, 14336, 32, 32, 8, 128, False, 8_030_261_248),
    "Qwen3-0.6B": ("qwen3", 151936, 1024, 3072, 28, 16, 8, 128, True, 596_049_920),
    "Qwen3-32B": ("qwen3", 151936, 5120, 25600, 64, 64, 8, 128, False, 32_762_123_264),
}


def test_published_sizes_from_the_configuration():
    """Without weights or memory: parameter counts of published checkpoints, 135 M to 32 B."""
    for name, (kind, vocab, hidden, inter, layers, heads, kv, D, tied, wanted) in PUBLISHED.items():
        with torch.device("meta"):
            model = LanguageModel(ModelConfig(kind, vocab, hidden, inter, layers, heads, kv, D, 1e-6, 1e6, tied))
        assert sum(p.numel() for p in model.parameters()) == wanted, name


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_config_refuses_damaged_files(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(BadInput, match="config.json"):
        ModelConfig.read(tmp_path / "config.json")
