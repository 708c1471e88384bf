"""The least time that a machine allows, by arithmetic alone: what the shares of the table are shares of.

    W       bytes a second, read and written        P     bf16 operations a second
    body    weights between table and head          head  those of the head, V·C
    kv      bytes of keys and values a token: 4 · layers · key/value heads · head width, in bf16

A decode step reads all weights once and every key and value that counts once, a prompt once for its group:

    max(2 (body + head) / W, 2 (body + head) B / P) + kv (B own + B / G prompt) / W

A token trained costs 6 operations a weight that it meets, and 6 · layers · H · D · s in attention over documents of s
tokens (causal, forward and backward; what is computed twice counts once). The head costs 6 T V C forward and backward.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    bandwidth: float  # bytes a second of a copy, read and written
    rate: float  # operations a second of a bf16 product of 8192 x 8192 x 8192 on random data


H200 = Machine(4.3e12, 788e12)


def body(c) -> int:
    """Weights of all layers' products: what each token meets below the head. c: a ModelConfig"""
    heads = c.head_dim * (2 * c.num_attention_heads + 2 * c.num_key_value_heads)
    return c.num_hidden_layers * c.hidden_size * (heads + 3 * c.intermediate_size)


def head(c) -> int:
    return c.vocab_size * c.hidden_size


def kv_bytes(c, itemsize: int = 2) -> int:
    """Of the keys and values of one token."""
    return 2 * itemsize * c.num_hidden_layers * c.num_key_value_heads * c.head_dim


def decode_seconds(c, m: Machine, rows: int, own: float, prompt: float = 0.0, group: int = 1) -> float:
    """Of one step of ``rows`` rows, each with ``own`` tokens behind a prompt that ``group`` rows share."""
    weights = 2 * (body(c) + head(c))
    products = max(weights / m.bandwidth, weights * rows / m.rate)
    return products + kv_bytes(c) * (rows * own + rows / group * prompt) / m.bandwidth


def rollout_seconds(c, m: Machine, rows: int, new: int, prompt: int, group: int) -> float:
    """Of all decode steps of ``rows`` completions of ``new`` tokens; the prefill is left out."""
    return new * decode_seconds(c, m, rows, new / 2, prompt, group)


def attention_flop(c, tokens: int, length: float) -> float:
    """Forward and backward, causal, over documents of ``length``."""
    return 6.0 * c.num_hidden_layers * c.num_attention_heads * c.head_dim * length * tokens


def training_flop(c, tokens: int, learned: int, length: float) -> float:
    """Of a forward and backward pass over ``tokens``, of which the head sees ``learned``."""
    return 6.0 * (body(c) * tokens + head(c) * learned) + attention_flop(c, tokens, length)


def update_seconds(c, m: Machine, rows: int, new: int, prompt: int, group: int) -> float:
    """Of a GRPO update: each prompt once for its group, the head on completions alone."""
    tokens = rows * new + rows // group * prompt
    return training_flop(c, tokens, rows * new, prompt + new) / m.rate


def head_seconds(m: Machine, tokens: int, vocabulary: int, width: int, products: int = 3) -> float:
    """Products of the head: 3 forward and backward, 1 to score."""
    return 2.0 * products * tokens * vocabulary * width / m.rate


def head_bytes(tokens: int, vocabulary: int, width: int) -> int:
    """What forward and backward cannot do without, beside their inputs: dh in bf16, dW in fp32, 8 bytes a token."""
    return 2 * tokens * width + 4 * vocabulary * width + 8 * tokens


def pairs(table: list[list[int]]) -> int:
    """(query, key) pairs of attention over segments; rows of ``Segments.table()``."""
    return sum(n * (n + 1) // 2 + n * read for _, n, _, read, _, _ in table)
