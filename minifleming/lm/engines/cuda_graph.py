"""CUDA graph decoding: one decode step is captured once per batch size and replayed from static
buffers.

A step of a small model is about ten kernels per layer of a few microseconds each; launching them
from Python would take longer than running them. So everything that changes between steps (tokens,
lengths, positions, which rows read which prompt) is kept in device memory at fixed addresses, and
one call replays the whole step.

    rows         [0, n) are active; the graph is that of the smallest of BATCH_SIZES that holds them
    sync_every   steps between two reads of the new tokens by the host. Rows that finish in between
                 keep decoding; their extra tokens are discarded.

Random numbers are keyed as in the plain engine, so a completion does not depend on its batch up to
rounding, but the tokens are other samples of the same distribution (kernels/gumbel.py). Without
CUDA nothing is captured and the same steps run one operation at a time, which is what the tests do.

n rows, H query heads, D head width, N tokens drawn per row.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.decode_attention import Workspace, decode_attention, workspace
from minifleming.kernels.gumbel import sample_tokens
from minifleming.kernels.jit import fits_shared_memory, on_gpu
from minifleming.kernels.norm import add_rms_norm_into, rms_norm
from minifleming.kernels.rotary import rotary_and_cache
from minifleming.kernels.swiglu import swiglu
from minifleming.lm.categorical import check_finite
from minifleming.lm.engines.fused_cpu import FusedLayer, project
from minifleming.lm.kv_cache import Capacity, KVCache
from minifleming.lm.model import Block, LanguageModel, RMSNorm
from minifleming.lm.rope import cos_sin

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)  # then: all rows


def batch_size(n: int, most: int) -> int:
    """Rows of the graph that decodes n of at most ``most`` rows."""
    larger = [size for size in BATCH_SIZES if size >= n]
    return min(larger[0] if larger else most, most)


class CudaGraphDecoder(KVCache):
    """The static buffers and the steps over them."""

    def __init__(self, model: LanguageModel, capacity: Capacity, samples: int, temperature: float,
                 sync_every: int):
        # a finished row may keep decoding until the next sync
        super().__init__(model, replace(capacity, new_tokens=capacity.new_tokens + sync_every))
        self.samples, self.temperature, self.sync_every = samples, temperature, sync_every
        self.num_new = 0  # rows added since the last ``sample``
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.workspaces: dict[int, Workspace] = {}
        self.captures = model.device.type == "cuda"
        self.pool = torch.cuda.graph_pool_handle() if self.captures else None
        c, device = model.config, model.device
        rows, tokens = self.capacity.rows, self.capacity.new_tokens
        self.layers = [FusedLayer(block) for block in model.model.layers]
        positions = torch.arange(capacity.prompt_tokens + tokens, device=device)
        self.cos, self.sin = cos_sin(positions, c.rope_theta, self.D, c.rope_scaling)
        self.q = self.zeros(rows, c.num_attention_heads, self.D)
        self.y = torch.zeros_like(self.q)

        def integers(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.slot_len = integers(capacity.prompts)
        self.groups = integers(capacity.prompts, samples) - 1  # rows of each slot, -1: none
        self.counts = integers(rows)  # sampled tokens with the newest; 0: an idle row
        self.positions = integers(rows)  # of the newest token
        self.rng_keys = integers(rows, dtype=torch.int64)
        self.ids = integers(rows, dtype=torch.int64)  # the newest token
        self.logprobs = torch.zeros(rows, device=device)
        self.drawn = integers(rows, tokens + 1, dtype=torch.int64)  # [rows, N]
        self.drawn_logprobs = torch.zeros(rows, tokens + 1, device=device)

    # One step

    def step(self, n: int) -> None:
        """Feed the newest token of rows [0, n) and draw the next one, without synchronizing with
        the host."""
        model = self.model.model
        counts, ids, logprobs = self.counts[:n], self.ids[:n], self.logprobs[:n]
        eps = self.model.config.rms_norm_eps
        x = F.embedding(ids, model.embed_tokens.weight)
        h = rms_norm(x, model.layers[0].input_layernorm.weight, eps)
        next_norms = [block.input_layernorm for block in model.layers[1:]] + [model.norm]
        for i, (block, layer, next_norm) in enumerate(zip(model.layers, self.layers, next_norms)):
            y = self.attention(i, block, layer, h)
            post_norm = block.post_attention_layernorm.weight
            add_rms_norm_into(torch.mm(y, layer.out), x, post_norm, eps, h)
            gate, up = torch.mm(h, layer.gate_up).chunk(2, dim=-1)
            add_rms_norm_into(torch.mm(swiglu(gate, up), layer.down), x, next_norm.weight, eps, h)
        logits = F.linear(h, self.model.lm_head.weight)
        sample_tokens(logits, self.rng_keys[:n], counts, self.temperature, ids, logprobs)
        # tokens drawn before; idle rows overwrite column 0, which is not read
        column = counts[:, None].long()
        self.drawn[:n].scatter_(1, column, ids[:, None])
        self.drawn_logprobs[:n].scatter_(1, column, logprobs[:, None])
        active = (counts > 0).int()
        counts += active
        self.positions[:n] += active

    def attention(self, i: int, block: Block, layer: FusedLayer, h: Tensor) -> Tensor:
        """Attention of layer i for normalized states h [n, C], before the projection. -> [n, H ·
        D]"""
        n, attn = len(h), block.self_attn
        q, y, counts = self.q[:n], self.y[:n], self.counts[:n]
        q_norm = attn.q_norm.weight if isinstance(attn.q_norm, RMSNorm) else None
        k_norm = attn.k_norm.weight if isinstance(attn.k_norm, RMSNorm) else None
        qkv = project(h, layer.qkv, layer.bias)
        rotary_and_cache(qkv, self.positions[:n], counts - 1, self.cos, self.sin, self.keys[i],
                         self.values[i], q, q_norm, k_norm, self.model.config.rms_norm_eps)
        if n not in self.workspaces:
            self.workspaces[n] = workspace(q, self.keys[0], self.prompts[0][0], self.groups)
        decode_attention(q, self.keys[i], self.values[i], counts, *self.prompts[i],
                         self.slot_len, self.groups, self.workspaces[n], y)
        return y.flatten(1)

    def run(self, steps: int) -> None:
        """Decode all active rows. The first step of a batch size runs eagerly, which compiles its
        kernels."""
        n = batch_size(len(self.slots), self.capacity.rows)
        self.lengths = [length + steps for length in self.lengths]
        for _ in range(steps):
            if n in self.graphs:
                self.graphs[n].replay()
                continue
            self.step(n)
            if self.captures:
                self.graphs[n] = self.capture(n)

    def capture(self, n: int) -> torch.cuda.CUDAGraph:
        """The graph of one step of n rows. All graphs share a memory pool, since one runs at a
        time."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            self.step(n)
        return graph

    # The engine's interface, see sampler.py

    def prefill(self, prompts: list[list[int]], rng_keys: list[int]) -> None:
        """Read the prompts and draw the first token of each of their rows."""
        new = slice(len(self.slots), len(self.slots) + len(rng_keys))
        hidden = self.forward_prompts(prompts, self.samples)
        self.num_new += len(rng_keys)
        self.lengths[new] = [1] * len(rng_keys)
        self.rng_keys[new] = torch.from_numpy(np.array(rng_keys, np.uint64).view(np.int64))
        logits = self.model.logits(hidden).repeat_interleave(self.samples, 0)
        sample_tokens(logits, self.rng_keys[new], torch.zeros_like(self.counts[new]),
                      self.temperature, self.ids[new], self.logprobs[new])
        self.drawn[new, 0] = self.ids[new]
        self.drawn_logprobs[new, 0] = self.logprobs[new]
        self.counts[new] = 1
        self.positions[new] = self.prompt_len[new].int()

    def decode(self) -> None:
        """Does nothing: ``sample`` replays whole steps."""

    def sample(self) -> list[list[tuple[int, float]]]:
        """Decode ``sync_every`` steps. Returns the new (token, log-probability) pairs of each
        row."""
        self.run(self.sync_every)
        n, num_newest = len(self.slots), self.sync_every + 1
        newest = torch.arange(num_newest, device=self.counts.device)
        column = self.counts[:n, None] - num_newest + newest
        ids = self.drawn[:n].gather(1, column).tolist()
        logprobs = check_finite(self.drawn_logprobs[:n].gather(1, column)).tolist()
        pairs = [list(zip(*row)) for row in zip(ids, logprobs)]
        for pair in pairs[: n - self.num_new]:
            del pair[0]  # only a new row also has the token that ``prefill`` drew
        self.num_new = 0
        return pairs

    def release(self, finished: list[int]) -> list[int]:
        kept = super().release(finished)
        self.counts[len(kept) :] = 0
        return kept

    def row_tensors(self) -> list[Tensor]:
        state = [self.counts, self.positions, self.rng_keys, self.ids]
        return [*self.keys, *self.values, *state]

    def arrange(self) -> None:
        super().arrange()
        groups = self.rows_by_slot(len(self.groups))
        table = [rows + [-1] * (self.samples - len(rows)) for rows in groups]
        self.groups.copy_(torch.tensor(table))
        self.slot_len.copy_(torch.tensor(self.prompt_lengths))


def is_supported(model: LanguageModel) -> bool:
    """Whether this engine can sample from ``model``: on a GPU whose shared memory fits the kernels,
    and not in batch-invariant mode."""
    c, table = model.config, model.model.embed_tokens.weight
    most = 16 if table.dtype == torch.float32 else 32
    few_queries = c.num_attention_heads // c.num_key_value_heads <= most
    on_right_device = on_gpu(table) and fits_shared_memory(table.new_empty(0, c.head_dim))
    return on_right_device and few_queries and not model.batch_invariant
