"""Sampling on a GPU: a decode step captured as a CUDA graph over static buffers, several steps between two looks.

A step of a small model is some ten kernels a layer, each a few microseconds: started one by one from Python they would
wait for it. Captured once, they are replayed by one call. So all that changes from step to step is on the device, at
places that stay: tokens, lengths, positions, which rows read which prompt.

    rows       [0, n) are active; the graph is that of the smallest bucket of rows that holds them
    look       after this many steps the host reads the new tokens: rows that ended leave, waiting prompts take their
               places. A row that ended in between runs on, and what it drew is dropped.

The random number behind a token is keyed as everywhere, so a completion does not depend on its batch, up to the
rounding of products and splits of other shapes; it is another number than the CPU's sampler has (kernels/gumbel.py).
Without CUDA nothing is captured, and the same steps run one operation after the other: so the tests see them.

n rows, H query heads, K key/value heads, D head width, T tokens of a row, P tokens of a prompt.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from minifleming.kernels.decode_attention import decode_attention, workspace
from minifleming.kernels.gumbel import sample_tokens
from minifleming.kernels.jit import fits_shared_memory, on_gpu
from minifleming.kernels.norm import add_rms_norm_into, rms_norm
from minifleming.kernels.rotary import rotary_and_cache
from minifleming.kernels.swiglu import swiglu
from minifleming.lm.batch import last_places, padded
from minifleming.lm.engines.fused_cpu import layer_weights
from minifleming.lm.model import LanguageModel, RMSNorm, causal_attention
from minifleming.lm.rope import cos_sin

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
COLUMNS = 256  # tokens that every row has room for at first; more comes by doubling


def bucket(n: int, most: int) -> int:
    """Rows of the graph that decodes n of at most ``most``."""
    return min(next((size for size in BUCKETS if size >= n), -(-n // 512) * 512), most)


class CudaGraphDecoder:
    """The static buffers, and the steps over them."""

    def __init__(self, model: LanguageModel, rows: int, prompts: int, samples: int, prompt_tokens: int, tokens: int,
                 temperature: float, look: int):
        """Room for ``rows`` completions of ``tokens`` tokens and ``prompts`` prompts, ``samples`` rows of each."""
        c, device, dtype = model.config, model.device, model.dtype
        self.model, self.rows, self.samples, self.temperature = model, rows, samples, temperature
        H, K, D, layers = c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.num_hidden_layers
        T = tokens + look  # a row that ended may run on to the next look
        self.most, self.columns = T, 0
        self.keys, self.values = ([torch.zeros(rows, K, 0, D, dtype=dtype, device=device) for _ in range(layers)]
                                  for _ in range(2))
        self.prompt_keys, self.prompt_values = (
            torch.zeros(layers, prompts, K, prompt_tokens, D, dtype=dtype, device=device) for _ in range(2))
        self.prompt_lengths = torch.zeros(prompts, dtype=torch.int32, device=device)
        self.groups = torch.full((prompts, samples), -1, dtype=torch.int32, device=device)
        self.counts = torch.zeros(rows, dtype=torch.int32, device=device)  # own tokens with the newest; 0: idle
        self.positions = torch.zeros(rows, dtype=torch.int32, device=device)  # of the newest token
        self.streams, self.ids = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
        self.logprobs = torch.zeros(rows, dtype=torch.float32, device=device)
        self.drawn = torch.zeros(rows, T + 1, dtype=torch.int64, device=device)  # the newest of each row are valid
        self.drawn_logprobs = torch.zeros(rows, T + 1, dtype=torch.float32, device=device)
        self.layers = [layer_weights(block) for block in model.model.layers]
        positions = torch.arange(prompt_tokens + T, device=device)
        self.cos, self.sin = cos_sin(positions, c.rope_theta, D, c.rope_scaling)
        self.q, self.y = (torch.zeros(rows, H, D, dtype=dtype, device=device) for _ in range(2))
        self.slots: list[int] = []  # the prompt of each active row
        self.lengths: list[int] = []  # and what ``counts`` has of it
        self.free = list(range(prompts))[::-1]
        self.captures = device.type == "cuda"
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.places: dict[int, object] = {}  # of each bucket: the partials of its attention
        self.reserve(min(T, COLUMNS))

    def reserve(self, columns: int) -> None:
        """Room for at least so many tokens of every row, layer by layer; what is captured holds the old places."""
        if columns <= self.columns:
            return
        for buffers in (self.keys, self.values):
            for i, old in enumerate(buffers):
                buffers[i] = torch.zeros(*old.shape[:2], columns, old.shape[3], dtype=old.dtype, device=old.device)
                buffers[i][:, :, : old.shape[2]] = old
        self.columns = columns
        self.graphs.clear()
        self.places.clear()

    def __len__(self) -> int:
        """Active rows."""
        return len(self.slots)

    # One step

    def step(self, n: int) -> None:
        """The newest token of rows [0, n) through all layers, and the next one drawn. Nothing here asks the device."""
        model, eps = self.model, self.model.config.rms_norm_eps
        counts, positions, q, y = self.counts[:n], self.positions[:n], self.q[:n], self.y[:n]
        lengths = counts - 1  # own tokens in the cache; idle rows are at -1
        norms = [block.input_layernorm.weight for block in model.model.layers] + [model.model.norm.weight]
        x = F.embedding(self.ids[:n], model.model.embed_tokens.weight)
        h = rms_norm(x, norms[0], eps)
        for i, (block, layer) in enumerate(zip(model.model.layers, self.layers)):
            attn = block.self_attn
            qkv = torch.mm(h, layer.qkv) if layer.bias is None else torch.addmm(layer.bias, h, layer.qkv)
            q_norm, k_norm = (norm.weight if isinstance(norm, RMSNorm) else None for norm in (attn.q_norm, attn.k_norm))
            rotary_and_cache(qkv, positions, lengths, self.cos, self.sin, self.keys[i], self.values[i], q, q_norm,
                             k_norm, eps)
            decode_attention(q, self.keys[i], self.values[i], counts, self.prompt_keys[i], self.prompt_values[i],
                             self.prompt_lengths, self.groups, self._workspace(n), y)
            add_rms_norm_into(torch.mm(y.flatten(1), layer.out), x, block.post_attention_layernorm.weight, eps, h)
            gate, up = torch.mm(h, layer.gate_up).chunk(2, dim=-1)
            add_rms_norm_into(torch.mm(swiglu(gate, up), layer.down), x, norms[i + 1], eps, h)
        sample_tokens(F.linear(h, model.lm_head.weight), self.streams[:n], counts, self.temperature, self.ids[:n],
                      self.logprobs[:n])
        at = counts[:, None].long()  # the tokens drawn before; row 0 of an idle row takes what nobody reads
        self.drawn[:n].scatter_(1, at, self.ids[:n, None])
        self.drawn_logprobs[:n].scatter_(1, at, self.logprobs[:n, None])
        active = (counts > 0).int()
        counts += active
        positions += active

    def _workspace(self, n: int):
        if n not in self.places:
            self.places[n] = workspace(self.q[:n], self.keys[0], self.prompt_keys[0], self.groups)
        return self.places[n]

    def run(self, steps: int) -> None:
        """``steps`` steps of all active rows. The first of a bucket runs as it is, which compiles its kernels."""
        n = bucket(len(self), self.rows)
        needed = max(self.lengths) + steps
        if needed > self.columns:
            self.reserve(min(self.most, max(needed, 2 * self.columns)))
        self.lengths = [length + steps for length in self.lengths]
        if self.captures and n not in self.graphs:
            self.step(n)
            steps -= 1
            self.graphs[n] = self.capture(n)
        for _ in range(steps):
            self.graphs[n].replay() if self.captures else self.step(n)

    def capture(self, n: int) -> torch.cuda.CUDAGraph:
        """The graph of one step of n rows; all share one pool of memory, since one runs at a time."""
        torch.cuda.synchronize()
        graph, pool = torch.cuda.CUDAGraph(), next((other.pool() for other in self.graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            self.step(n)
        return graph

    # Rows come and go

    def admit(self, prompts: list[list[int]], streams: list[int]) -> None:
        """Prefill the prompts once, and give each ``samples`` rows behind the active ones, with their first tokens.

        ``streams``: of every new row, as lm/categorical.py has them.
        """
        first, k = len(self), self.samples
        slots = [self.free.pop() for _ in prompts]
        ids, lengths = padded(prompts, self.model.device)
        hidden = self.model(ids, cache=Prefill(self, torch.tensor(slots, device=ids.device)),
                            output_positions=last_places(ids, lengths))
        self.prompt_lengths[slots] = lengths.int()
        self.slots += [slot for slot in slots for _ in range(k)]
        self.lengths += [1] * (len(self) - first)
        new = slice(first, len(self))
        self.streams[new] = torch.tensor(as_int64(streams), device=ids.device)
        logits = self.model.logits(hidden).repeat_interleave(k, 0)
        sample_tokens(logits, self.streams[new], torch.zeros_like(self.counts[new]), self.temperature, self.ids[new],
                      self.logprobs[new])
        self.drawn[new, 0], self.drawn_logprobs[new, 0] = self.ids[new], self.logprobs[new]
        self.counts[new] = 1
        self.positions[new] = lengths.int().repeat_interleave(k)
        self._arrange()

    def newest(self, many: int) -> tuple[Tensor, Tensor]:
        """The last ``many`` tokens of every active row and their log-probabilities. -> [n, many] each, on the CPU"""
        n = len(self)
        at = self.counts[:n, None] - many + torch.arange(many, device=self.counts.device)
        return self.drawn[:n].gather(1, at).cpu(), self.drawn_logprobs[:n].gather(1, at).cpu()

    def release(self, finished: list[int]) -> list[int]:
        """Free these rows; the last ones move into their places. -> for each row still active, its number before"""
        before, order = len(self), list(range(len(self)))
        for row in sorted(finished, reverse=True):
            order[row] = order[-1]
            order.pop()
        moved = [(new, old) for new, old in enumerate(order) if new != old]
        if moved:
            new, old = (torch.tensor(x, device=self.counts.device) for x in zip(*moved))
            for layer in (*self.keys, *self.values):  # one by one: what moves is copied on the way
                layer[new] = layer[old]
            for column in (self.counts, self.positions, self.streams, self.ids):
                column[new] = column[old]
        self.counts[len(order) : before] = 0
        gone = set(self.slots)
        self.slots, self.lengths = [self.slots[i] for i in order], [self.lengths[i] for i in order]
        self.free += sorted(gone - set(self.slots), reverse=True)
        self._arrange()
        return order

    def _arrange(self) -> None:
        """The rows of each prompt."""
        table: list[list[int]] = [[] for _ in range(len(self.groups))]
        for row, slot in enumerate(self.slots):
            table[slot].append(row)
        self.groups.copy_(torch.tensor([rows + [-1] * (self.samples - len(rows)) for rows in table]))


class Prefill:
    """What the model is given instead of a cache while it reads prompts (see model.KeysAndValues)."""

    def __init__(self, to: CudaGraphDecoder, slots: Tensor):
        self.to, self.slots = to, slots

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for kept, new in ((self.to.prompt_keys, k), (self.to.prompt_values, v)):
            kept[layer][self.slots, :, : new.shape[2]] = new.to(kept.dtype)
        return causal_attention(q, k, v)


def as_int64(streams: list[int]) -> list[int]:
    """64 unsigned bits as torch holds them."""
    return [s - 2**64 if s >= 2**63 else s for s in streams]


def is_supported(model: LanguageModel, truncated: bool) -> bool:
    """Is this the way to sample from ``model``? On a GPU whose memory the kernels fit, all weights here, from the whole
    distribution, in no fixed order of additions."""
    c, table = model.config, model.model.embed_tokens.weight
    if not on_gpu(table) or model.deterministic or model.sharded or truncated:
        return False
    together = c.num_attention_heads // c.num_key_value_heads
    return fits_shared_memory(table.new_empty(0, c.head_dim)) and together <= (16 if table.dtype == torch.float32 else 32)
