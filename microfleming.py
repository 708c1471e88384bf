"""The Fleming-R1 recipe (arXiv:2509.15279, Fig. 2) in one file: one graph and one tiny base model.

    python microfleming.py            # about two minutes on two cores
    python microfleming.py --seed 1

Read it from top to bottom:

    1 graph   2 walks   3 items   4 traces                      data (§3.1, §3.2)
    5 decoder   6 sampler                                       the language model
    7 reward   8 objective   9 log-probabilities                what training is made of
    10 cold start   11 curriculum   12 reinforcement learning   training (§3.2, §3.3)
    13 evaluation   14 the whole recipe                         Table 4 and Fig. 2

A question lists findings. They determine a disease, and edges of a knowledge graph lead from the
disease to the answer. The base model knows the edges and can look up an option, but it cannot
reason from a question to its answer: that is what it learns here. The package `minifleming` is the
same recipe at full size; tests/test_microfleming.py checks that the two agree.

Shapes: B sequences, T new tokens of each, S old and new tokens of each, N tokens without padding,
C width, H query heads, K key/value heads, D head width, V vocabulary.
"""

import argparse
import hashlib
import itertools
import json
import re
from collections import Counter, defaultdict, namedtuple
from pathlib import Path
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tqdm import tqdm

ASSETS = Path(__file__).parent / "minifleming" / "assets"


def digest(*key):
    return hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()


def keyed(*key):
    """A random generator that depends on the key only."""
    return np.random.default_rng(int.from_bytes(digest(*key)[:8], "little"))


def shuffled(values, rng):
    return [values[i] for i in rng.permutation(len(values))]


# ---- 1. The knowledge graph (§3.1) --------------------------------------------------------------

# 203 diseases with their findings, tests, drugs, genes and mechanisms: 6,685 edges. Relations in
# PHRASES are walked, in either direction; has_symptom and the like lead to the visible findings.

EVIDENCE = ("has_symptom", "has_lab_finding", "has_imaging_finding")  # disease -> finding
PHRASES = {}  # relation -> words for "HEAD ... TAIL", "TAIL ... HEAD", "the TAIL of", "the HEAD of"
for line in """\
acts_on | acts on | is acted on by | molecular target | action on that target
adverse_effect | may cause | is an adverse effect of | adverse effect | drug that may cause it
affects | affects | is affected by | affected organ | disease that affects it
caused_by | is caused by | causes | cause | disease that it causes
confirmed_by | is confirmed by | confirms | confirmatory test | disease that it confirms
contraindicated_in | is contraindicated in | forbids | contraindication | drug it forbids
detects | detects | is detected by | detected finding | test that detects it
drug_mechanism | works by | is the action of | action | drug with that action
encodes | encodes | is encoded by | encoded protein | gene that encodes it
explains | explains | is explained by | explained finding | mechanism behind it
first_line_treatment | is treated with | treats | first-line treatment | disease that it treats
has_mechanism | arises from | underlies | mechanism | disease with that mechanism
transmitted_by | spreads by | spreads | route of transmission | pathogen that it spreads
""".splitlines():
    relation, *phrases = line.split(" | ")
    PHRASES[relation] = phrases


class Graph:
    """Nodes with a type, and edges (head, relation, tail), in the order of the file."""

    def __init__(self, path, diseases):
        """`diseases`: how many of them questions ask about, chosen by a hash of their names."""
        self.type = {}  # node -> type
        self.edges = {}  # edge -> None: an ordered set
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            head, head_type, relation, tail, tail_type, _ = line.split("\t")
            self.type[head] = head_type
            self.type[tail] = tail_type
            self.edges[head, relation, tail] = None
        order = {node: i for i, node in enumerate(self.type)}
        self.ends = defaultdict(list)  # (node, relation, forward) -> nodes at the other end
        self.slots = defaultdict(set)  # (relation, forward) -> all nodes at that end of its edges
        self.neighbors = defaultdict(set)
        degree = Counter()
        for head, relation, tail in self.edges:
            for node, end, forward in ((head, tail, True), (tail, head, False)):
                self.ends[node, relation, forward].append(end)
                self.slots[relation, forward].add(end)
                self.neighbors[node].add(end)
                degree[node] += 1
        for nodes in self.ends.values():
            nodes.sort(key=order.get)
        self.weight = {node: (1.0 + degree[node]) ** -0.5 for node in self.type}
        for disease in self.ends["rare disease", "has_prevalence", False]:
            self.weight[disease] *= 2.0
        roots = {head for head, relation, _ in self.edges if relation in EVIDENCE}
        by_hash = sorted(roots, key=digest)
        self.diseases = sorted(by_hash[:diseases], key=order.get)

    def bearers(self, edge):
        """All diseases with the finding of an edge (disease, relation, finding)."""
        return self.ends[edge[2], edge[1], False]

    def draw(self, nodes, rng):
        """The index of one of the nodes; rare and poorly connected ones are more likely."""
        weight = np.array([self.weight[node] for node in nodes])
        return rng.choice(len(nodes), p=weight / weight.sum())


# ---- 2. Topological multi-hop sampling (§3.1) ---------------------------------------------------
#
#     findings                          disease    a chain of hops - 1 edges
#     fever, malar rash, proteinuria -> lupus   -> hydroxychloroquine -> receptor inhibition
#
# A walk has `findings`: edges from the disease to findings that together no other disease has;
# `nodes`: the disease, the nodes of the chain, the last of them the answer; and `chain`: the edges
# between these nodes, each walked in either direction. Only edges that leave no choice are walked,
# so that the findings determine the answer.

Walk = namedtuple("Walk", "findings nodes chain")


def draw_walk(graph, hops, rng):
    """A walk of `hops` edges, or None at a dead end. Rare diseases and drugs are more likely."""
    nodes = [graph.diseases[graph.draw(graph.diseases, rng)]]
    chain = []
    for _ in range(hops - 1):
        steps = functional_edges(graph, nodes)
        if not steps:
            return None
        edge, end = steps[graph.draw([end for _, end in steps], rng)]
        chain.append(edge)
        nodes.append(end)
    findings = draw_findings(graph, nodes, rng)
    return Walk(findings, nodes, chain) if findings else None


def functional_edges(graph, nodes):
    """(edge, other end) of each edge of the last node that leaves no choice: the node has exactly
    one neighbor by this relation in this direction."""
    node = nodes[-1]
    steps = []
    for relation in PHRASES:
        for forward in (True, False):
            ends = graph.ends[node, relation, forward]
            if len(ends) == 1 and ends[0] not in nodes:
                edge = (node, relation, ends[0]) if forward else (ends[0], relation, node)
                steps.append((edge, ends[0]))
    return steps


def draw_findings(graph, nodes, rng):
    """The first two to four edges of a random order that single out the disease, or []."""
    edges = []
    for relation in EVIDENCE:
        for finding in graph.ends[nodes[0], relation, True]:
            if finding not in nodes:
                edges.append((nodes[0], relation, finding))
    edges = shuffled(edges, rng)
    for count in range(2, min(4, len(edges)) + 1):
        bearers = [set(graph.bearers(edge)) for edge in edges[:count]]
        if len(set.intersection(*bearers)) == 1:
            return edges[:count]
    return []


def is_held_out(walk):
    """Is this combination of findings never trained on? A hash selects a quarter of them."""
    return digest(walk.nodes[0], *sorted(finding for _, _, finding in walk.findings))[0] < 64


# ---- 3. Items with a proof (§3.1; §1, item 1) ---------------------------------------------------
#
# The question states the findings and the relations of the chain. All nodes of the walk are masked,
# and the last one is the answer. Distractors are made by relation-preserving perturbation: the same
# chain is followed from a competing disease, which shares a finding and lacks another. As a proof,
# the item records for each distractor a visible edge that does not hold with it as the answer.


def make_item(walk, graph, options, rng, deficit):
    """The item of a walk, in the package's format, or None if there are too few distractors."""
    answer = walk.nodes[-1]
    lacks = find_distractors(walk, graph, options - 1, rng, deficit)
    if len(lacks) < options - 1:
        return None
    names = shuffled([answer, *list(lacks)[: options - 1]], rng)
    labeled = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", names))
    question = question_of(walk)
    return {
        "id": f"{len(walk.nodes)}-{digest(question, *names).hex()[:12]}",
        "question": question,
        "options": labeled,
        "answer": next(label for label, name in labeled.items() if name == answer),
        "tier": tier_of(walk, graph),
        "hops": len(walk.nodes),
        "path": walk.findings[:1] + walk.chain,
        "visible": walk.findings + walk.chain,
        "masked": answer,
        "discriminating": {label: lacks[n] for label, n in labeled.items() if n != answer},
        "provenance": {"root": walk.nodes[0], "hidden": walk.nodes[:-1]},
    }


def question_of(walk):
    asked = "this disease"
    for node, (head, relation, _) in zip(walk.nodes, walk.chain):
        asked = f"the {PHRASES[relation][2 if head == node else 3]} of {asked}"
    ask = f"What is {asked}" if walk.chain else "Which disease is it"
    return f"A patient has {listing(walk.findings)} . {ask} ?"


def listing(findings):
    names = [name for _, _, name in findings]
    return " , ".join(names[:-1]) + " and " + names[-1]


def find_distractors(walk, graph, count, rng, deficit):
    """Distractor -> the visible edge that it lacks, the best first; `count` or more if possible.

    `deficit`: how often a name should still be a distractor, to make up for the times it was the
    answer. Names with the largest deficit come first, so that options do not reveal the answer.
    """
    shared = Counter()
    for edge in walk.findings:
        shared.update(graph.bearers(edge))
    rivals = sorted(d for d in graph.diseases if 0 < shared[d] < len(walk.findings))
    found = {}
    for rival in sorted(shuffled(rivals, rng), key=lambda rival: -shared[rival]):
        for end in ends_of(rival, walk, graph):
            edge = lacked_edge(walk, graph, end)
            if edge and end not in found:
                found[end] = edge
                break
    found = dict(sorted(found.items(), key=lambda pair: -deficit[pair[0]]))
    if walk.chain and len(found) < count:  # fill up with other ends of the last relation
        head, relation, _ = walk.chain[-1]
        others = shuffled(sorted(graph.slots[relation, head == walk.nodes[-2]]), rng)
        for end in sorted(others, key=lambda name: -deficit[name]):
            edge = lacked_edge(walk, graph, end)
            if edge and len(found) < count:
                found.setdefault(end, edge)
    return found


def ends_of(node, walk, graph):
    """The nodes that the relations of the walk's chain lead to from `node`."""
    ends = [node]
    for start, (head, relation, _) in zip(walk.nodes, walk.chain):
        further = []
        for near in ends:
            further += graph.ends[near, relation, head == start]
        ends = further
    return ends


def lacked_edge(walk, graph, candidate):
    """The visible edge that does not hold with `candidate` as the answer, or None if it might hold.

    The graph is incomplete: a node with any edge to the node before the answer might be right too.
    """
    answer = walk.nodes[-1]
    if candidate == answer or graph.type[candidate] != graph.type[answer]:
        return None
    if not walk.chain:
        return next((e for e in walk.findings if (candidate, *e[1:]) not in graph.edges), None)
    before = walk.nodes[-2]
    possible = {walk.nodes[0], before, *graph.neighbors[before]}
    return None if candidate in possible else walk.chain[-1]


def tier_of(walk, graph):
    """Difficulty: the length of the chain plus the ambiguity of the most specific finding."""
    fewest = min(len(graph.bearers(edge)) for edge in walk.findings)
    ambiguity = 0 if fewest == 1 else 1 if fewest <= 4 else 2
    return ("easy", "easy", "moderate", "difficult")[min(len(walk.chain) + ambiguity, 3)]


def make_items(graph, cfg, count, held_out, taken=()):
    """`count` different items, 1, 2 and 3 hops equally often, without the option sets `taken`."""
    rng = np.random.default_rng([10 * cfg.seed + held_out, 0x5EED])
    deficit = Counter()
    items = {}  # what makes an item different from the others -> item
    while len(items) < count:
        walk = draw_walk(graph, 1 + len(items) % 3, rng)
        if walk is None or is_held_out(walk) != held_out:
            continue
        item = make_item(walk, graph, cfg.options, rng, deficit)
        if item is None or option_set(item) in taken or item["masked"] in item["question"]:
            continue
        key = (frozenset(walk.findings), *walk.chain, option_set(item))
        if key not in items:
            items[key] = item
            deficit.subtract(name for name in option_set(item) if name != item["masked"])
            deficit[item["masked"]] += cfg.options - 1
    return list(items.values())


def option_set(item):
    return frozenset(item["options"].values())


# ---- 4. Reasoning traces (§3.2) -----------------------------------------------------------------
#
# The graph is the teacher: it writes an item's path out as reasoning. 15 % of the traces first rule
# out a competing disease: they backtrack, explore another path or correct themselves.

DETOURS = (
    " {shared} points to {rival} . {rival} lacks {lacked} . back .",
    " consider {rival} : {shared} points to {rival} . {rival} lacks {lacked} .",
    " {shared} points to {rival} . wait , {rival} lacks {lacked} .",
)


def write_trace(item, graph, seed):
    """A completion that reasons from the question to the answer; all that it states are edges."""
    rng = keyed(seed, item["id"])
    text = write_detour(item, graph, rng) if rng.random() < 0.15 else ""
    node = item["provenance"]["root"]
    text += f" {listing(findings_of(item))} point to {node} ."
    for head, relation, tail in item["path"][1:]:
        forward, backward = PHRASES[relation][:2]
        text += f" {head} {forward} {tail} ." if head == node else f" {tail} {backward} {head} ."
        node = tail if head == node else head
    return f"<think>{text} so {node} ({item['answer']})</think><answer>{item['answer']}</answer>"


def findings_of(item):
    """The visible edges without those of the chain."""
    return item["visible"][: len(item["visible"]) - len(item["path"]) + 1]


def write_detour(item, graph, rng):
    for rival in shuffled(graph.diseases, rng):
        findings = findings_of(item)
        shared = [f for _, relation, f in findings if (rival, relation, f) in graph.edges]
        lacked = [f for _, _, f in findings if f not in shared]
        if shared and lacked:
            detour = DETOURS[rng.integers(len(DETOURS))]
            return detour.format(rival=rival, shared=shared[0], lacked=lacked[0])
    return ""


# ---- 5. The decoder: the architecture of Qwen3, with one million parameters --------------------
#
# RMSNorm before each part, rotary positions, grouped-query attention, SwiGLU. Attention works on
# padded rows [B, T]; everything else works on the N tokens that are not padding.


class Model:
    """Weights under the names of the Hugging Face layout, and their tokenizer."""

    def __init__(self, folder):
        c = json.loads((folder / "config.json").read_text())
        self.layers = c["num_hidden_layers"]
        self.D = c["head_dim"]
        self.end = c["eos_token_id"]
        pairs = torch.arange(0, self.D, 2) / self.D
        self.frequencies = 1.0 / c["rope_theta"] ** pairs  # [D / 2]
        weights = load_file(folder / "model.safetensors")
        self.weights = {name: w.float().requires_grad_() for name, w in weights.items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"])

    def norm(self, name, x):
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], 1e-6)

    def __call__(self, ids, real, past=None):
        """Hidden states of the new tokens, and a cache of the keys and values of all tokens.

        ids [B, T]; real [B, S]: which of the old and new tokens are not padding; past: the cache of
        the old tokens -> [B, T, C]; a list with (keys, values) [B, K, S, D] of each layer
        """
        T, S = ids.shape[1], real.shape[1]
        new = real[:, S - T :]  # [B, T], N of them are true
        causal = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        mask = causal & (real[:, None] | ~new[:, :, None])  # [B, T, S]; no row may be empty
        position = real.cumsum(1)[:, S - T :][new] - 1  # [N]
        angles = (position[:, None] * self.frequencies).repeat(1, 2)[:, None]  # [N, 1, D]
        rope = (angles.cos(), angles.sin())
        x = F.embedding(ids[new], self.weights["model.embed_tokens.weight"])  # [N, C]
        cache = []
        for i in range(self.layers):
            name = f"model.layers.{i}"
            h = self.norm(f"{name}.input_layernorm", x)
            y, both = self.attention(f"{name}.self_attn", h, rope, new, mask, past and past[i])
            cache.append(both)
            x = x + y
            h = self.norm(f"{name}.post_attention_layernorm", x)
            gate = F.silu(self.linear(f"{name}.mlp.gate_proj", h))
            h = gate * self.linear(f"{name}.mlp.up_proj", h)
            x = x + self.linear(f"{name}.mlp.down_proj", h)
        return spread(self.norm("model.norm", x), new), cache

    def attention(self, name, x, rope, new, mask, past):
        """x [N, C]; new [B, T]; mask [B, T, S] -> [N, C], (keys, values) [B, K, S, D]"""
        q, k, v = (self.linear(f"{name}.{p}_proj", x).unflatten(-1, (-1, self.D)) for p in "qkv")
        q = rotate(self.norm(f"{name}.q_norm", q), *rope)
        k = rotate(self.norm(f"{name}.k_norm", k), *rope)
        q, k, v = (spread(heads, new).transpose(1, 2) for heads in (q, k, v))  # [B, heads, T, D]
        if past:
            k = torch.cat((past[0], k), dim=2)
            v = torch.cat((past[1], v), dim=2)
        group = q.shape[1] // k.shape[1]  # query heads of one key head become rows of one head
        q = q.unflatten(1, (-1, group)).flatten(2, 3)  # [B, K, group · T, D]
        y = F.scaled_dot_product_attention(q, k, v, mask.repeat(1, group, 1)[:, None])
        y = y.unflatten(2, (group, -1)).flatten(1, 2).transpose(1, 2)[new]  # [N, H, D]
        return self.linear(f"{name}.o_proj", y.flatten(1)), (k, v)

    def logits(self, hidden):
        """[..., C] -> [..., V]: the head shares the embedding's weights."""
        return self.linear("model.embed_tokens", hidden)


def rotate(x, cos, sin):
    """Rotary position embedding. x [N, heads, D]; cos, sin [N, 1, D]"""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def spread(x, real):
    """Puts N tokens at the true places of `real`, zeros elsewhere. [N, ...] -> [B, T, ...]"""
    return x.new_zeros(*real.shape, *x.shape[1:]).index_put((real,), x)


def prompt_text(item):
    """A question with its options, up to where the model begins."""
    options = [f" {name} ({label})" for label, name in item["options"].items()]
    user = "\n".join([item["question"], *options])
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def pad(sequences, side):
    """Pads on the "left" or "right": ids, and which of them are not padding. -> [B, T], [B, T]"""
    ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sequences], True, -1, side)
    return ids.clamp(min=0), ids >= 0


# ---- 6. The sampler, with a cache of keys and values --------------------------------------------
#
# A completion has `ids`, the end token included; `logprobs`: log π of each, under the policy that
# sampled it, at temperature 1; and `finished`: false if it was truncated before an end token.

MAX_NEW_TOKENS = 48
Completion = namedtuple("Completion", "ids logprobs finished")


def sample(model, items, k=1, key=None):
    """A list of `k` completions for each item; greedy ones without a key."""
    groups = []
    at_once = 256 // k  # prompts decoded together
    for start in range(0, len(items), at_once):
        rows = decode(model, items[start : start + at_once], k, key)
        groups += [rows[i : i + k] for i in range(0, len(rows), k)]
    return groups


@torch.no_grad()
def decode(model, items, k, key):
    """The same for one batch, as one list of B = k · items completions.

    Each token's random number depends on (key, item, sample, position), not on the batch.
    """
    owners = [(item["id"], i) for item in items for i in range(k)]
    uniform = [keyed(*(key or ()), *owner).random(MAX_NEW_TOKENS) for owner in owners]
    uniform = torch.tensor(np.array(uniform))  # [B, MAX_NEW_TOKENS]
    ids, real = pad([model.encode(prompt_text(item)) for item in items], "left")
    hidden, cache = model(ids, real)  # each prompt runs once for all its samples
    rows = torch.arange(len(owners))  # the completions that are still sampled
    tokens = torch.full((len(rows), MAX_NEW_TOKENS), model.end)
    logprobs = torch.zeros(len(rows), MAX_NEW_TOKENS)
    ended = torch.zeros(len(rows), dtype=torch.bool)
    hidden, real, cache = take(rows // k, hidden[:, -1:], real, cache)
    for t in range(MAX_NEW_TOKENS):
        u = uniform[rows, t] if key else None
        tokens[rows, t], logprobs[rows, t] = draw_tokens(model.logits(hidden[:, 0]), u)
        ended[rows] |= tokens[rows, t] == model.end
        going = (~ended[rows]).nonzero()[:, 0]
        if len(going) == 0:
            break
        if len(going) < 0.8 * len(rows):  # drop finished rows; what they added is cut off below
            rows = rows[going]
            hidden, real, cache = take(going, hidden, real, cache)
        real = F.pad(real, (0, 1), value=True)
        hidden, cache = model(tokens[rows, t : t + 1], real, cache)
    found = []
    for ids, logps in zip(tokens.tolist(), logprobs.tolist()):
        length = ids.index(model.end) + 1 if model.end in ids else len(ids)
        found.append(Completion(ids[:length], logps[:length], model.end in ids))
    return found


def take(rows, hidden, real, cache):
    """Selects rows of the batch."""
    return hidden[rows], real[rows], [(keys[rows], values[rows]) for keys, values in cache]


def draw_tokens(logits, u):
    """A token of each row and its log π. logits [B, V], u [B] in [0, 1) or None -> [B], [B]

    The token is the first whose cumulative probability exceeds u, or the most likely one.
    """
    if u is None:
        ids = logits.argmax(-1)
    else:
        below = logits.softmax(-1).cumsum(-1, dtype=torch.float64)  # [B, V]
        target = u[:, None] * below[:, -1:] * (1 - 1e-12)
        ids = torch.searchsorted(below, target, right=True)[:, 0]
    return ids, -F.cross_entropy(logits, ids, reduction="none")


# ---- 7. The verifier and the reward (§3.3) ------------------------------------------------------

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FORMAT = "_<think>(.*)</think>_<answer>_([A-Z])_</answer>_".replace("_", r"[ \t\r\n\f\v]*")


def parse_answer(text, item):
    """The label in the answer block, or None if the format is broken: each tag exactly once, in
    this order, some reasoning, one label of this item, and nothing outside the blocks."""
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    found = re.fullmatch(FORMAT, text, re.DOTALL)
    valid = found and found[1].strip() and found[2] in item["options"]
    return found[2] if valid else None


def reward_of(text, finished, item):
    """1.0 for the right answer + 0.1 for the format; 0 if truncated. Nothing rewards length."""
    label = parse_answer(text, item) if finished else None
    return 1.0 * (label == item["answer"]) + 0.1 * (label is not None)


def judge(model, completion, item):
    """The reward of a completion."""
    ids = completion.ids[:-1] if completion.finished else completion.ids
    return reward_of(model.decode(ids), completion.finished, item)


# ---- 8. The objective (§3.3, Eq. 1-3) -----------------------------------------------------------
#
# The samples come from the policy that is trained, so there is no ratio to clip. There is no KL
# term and no division by the deviation of the rewards or by the length.


def advantages(rewards):
    """Eq. 2 and 3: A(x, y_i) = r(x, y_i) - mean_j r(x, y_j); exactly 0 in a constant group."""
    if max(rewards) == min(rewards):
        return [0.0] * len(rewards)
    baseline = sum(rewards) / len(rewards)
    return [reward - baseline for reward in rewards]


def policy_loss(logprobs, advantage, sequences):
    """Eq. 1: L = -(1 / (k · prompts)) Σ_i A_i log π(y_i | x). Nothing else divides.

    logprobs [B, T], 0 at padding: log π(y_i | x) is their sum; advantage [B]; sequences:
    k · prompts of the whole step, constant groups included.
    """
    return -(logprobs.sum(-1) * advantage).sum() / sequences


# ---- 9. Log-probabilities of completions --------------------------------------------------------


def completion_logprobs(model, prompts, groups):
    """log π of each token of the completions, where a group of them shares a prompt. -> [B, T]

    As in the sampler, each prompt runs once and its group attends to its keys and values; here
    gradients flow back through them. The prompt's last token predicts a completion's first token.
    """
    owner = torch.tensor([i for i, group in enumerate(groups) for _ in group])
    targets, kept = pad(sum(groups, []), "right")  # [B, T]
    ids, real = pad(prompts, "left")
    hidden, cache = model(ids, real)
    first, real, cache = take(owner, hidden[:, -1:], real, cache)
    later, _ = model(targets[:, :-1], torch.cat((real, kept[:, 1:]), dim=1), cache)
    hidden = torch.cat((first, later), dim=1)[kept]  # [N, C]: neither prompts nor padding
    found = -F.cross_entropy(model.logits(hidden), targets[kept], reduction="none")
    return spread(found, kept)


def optimizer_step(model, optimizer):
    torch.nn.utils.clip_grad_norm_(model.weights.values(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


# ---- 10. Cold start: supervised fine-tuning on the traces (§3.2) --------------------------------


def cold_start(model, items, graph, seed, epochs=3, batch=16, peak=5e-3):
    """Minimizes -log π of the traces' tokens, on average over the tokens of a batch."""
    pairs = []
    for item in items:
        trace = write_trace(item, graph, seed)
        if parse_answer(trace, item) == item["answer"]:  # only verified traces are used
            pairs.append((model.encode(prompt_text(item)), model.encode(trace) + [model.end]))
    optimizer = torch.optim.AdamW(model.weights.values(), peak, (0.9, 0.95), weight_decay=0.0)
    cycle = shuffled_cycle(pairs, keyed(seed, "cold start"))
    steps = epochs * len(pairs) // batch
    for step in tqdm(range(steps), desc="cold start"):
        optimizer.param_groups[0]["lr"] = peak * min(1, (step + 1) / 5) * (1 - step / steps)
        prompts, targets = zip(*itertools.islice(cycle, batch))
        logprobs = completion_logprobs(model, prompts, [[ids] for ids in targets])
        (-logprobs.sum() / sum(map(len, targets))).backward()
        optimizer_step(model, optimizer)


def shuffled_cycle(values, rng):
    """The values in random order, all of them once before any comes again, without end."""
    while True:
        yield from shuffled(values, rng)


# ---- 11. The curriculum (§3.3, Fig. 2) ----------------------------------------------------------
#
# A pool is (weight, items); a step draws items from the pools in proportion to their weights.


def tier_pools(items):
    """Stage 1: hard : simple = 1 : 1 (Fig. 2; §3.3 has moderate : easy, and so leaves out the items
    with long chains)."""
    return [(1, [item for item in items if item["tier"] != "easy"]),
            (1, [item for item in items if item["tier"] == "easy"])]


def mine(model, items, key):
    """Stage 2: right : wrong = 1 : 2. An item is right if both of two new samples of it are; all
    training items are sampled."""
    right = []
    wrong = []
    for item, group in zip(items, sample(model, items, 2, key)):
        passed = all(judge(model, completion, item) > 1 for completion in group)
        (right if passed else wrong).append(item)
    tqdm.write(f"mined: {len(right)} items right, {len(wrong)} wrong")
    return [(1, right), (2, wrong)]


def plateaued(constant, window=10, min_steps=15, threshold=0.5):
    """Has stage 1 plateaued, by reward sparsity: are most groups all right or all wrong?"""
    return len(constant) >= min_steps and mean(constant[-window:]) >= threshold


# ---- 12. Reinforcement learning with verifiable rewards (§3.3) ----------------------------------


def train_step(model, optimizer, items, k, key):
    """A step of Eq. 1 on `k` samples of each item -> accuracy, share of zero-variance groups."""
    right = 0
    trained = []
    for item, group in zip(items, sample(model, items, k, key)):
        rewards = [judge(model, completion, item) for completion in group]
        right += sum(reward > 1 for reward in rewards)
        if max(rewards) > min(rewards):  # otherwise all advantages are zero
            ids = [completion.ids for completion in group]
            trained.append((model.encode(prompt_text(item)), ids, advantages(rewards)))
    for start in range(0, len(trained), 8):  # micro-batches: their gradients add up
        prompts, ids, advantage = zip(*trained[start : start + 8])
        logprobs = completion_logprobs(model, prompts, ids)
        policy_loss(logprobs, torch.tensor(sum(advantage, [])), k * len(items)).backward()
    if trained:
        optimizer_step(model, optimizer)
    return right / (k * len(items)), 1 - len(trained) / len(items)


def reinforce(model, optimizer, pools, cfg, stage, k, steps):
    """Trains for `steps` steps on the pools; stage 1 ends earlier if it plateaus."""
    total = sum(weight for weight, pool in pools if pool)
    cycles = [(round(cfg.prompts * weight / total), shuffled_cycle(pool, keyed(cfg.seed, stage)))
              for weight, pool in pools if pool]
    constant = []
    bar = tqdm(range(steps), desc=stage)
    for step in bar:
        items = []
        for count, cycle in cycles:
            items += itertools.islice(cycle, count)
        accuracy, part = train_step(model, optimizer, items, k, (cfg.seed, stage, step))
        constant.append(part)
        bar.set_postfix_str(f"accuracy {accuracy:.2f}, zero-variance groups {part:.2f}")
        if stage == "stage 1" and plateaued(constant):
            break


# ---- 13. Evaluation (§4, Table 4) ---------------------------------------------------------------


def evaluate(model, items):
    """For each item: is the greedy completion right, in the strict format?"""
    return [judge(model, c, item) > 1 for item, (c,) in zip(items, sample(model, items))]


def wilson(right, n, z=1.96):
    """The 95 % Wilson score interval of a proportion."""
    p = right / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return center - half, center + half


def blind_rule(train, test):
    """For each test item: is the option right that was the answer most often in training, per time
    it was shown? This rule never reads the question."""
    right = Counter(item["masked"] for item in train)
    shown = Counter(itertools.chain.from_iterable(map(option_set, train)))
    rate = defaultdict(float, {name: right[name] / count for name, count in shown.items()})
    return [max(item["options"].values(), key=rate.__getitem__) == item["masked"] for item in test]


def print_table(results, items):
    """Prints the accuracy of each variant in %, by hops and overall, in the shape of Table 4."""
    print(f"| {len(items)} held-out items | 1 hop | 2 hops | 3 hops | all [95 % interval] |")
    print("|---|---|---|---|---|")
    for name, right in results.items():
        cells = [name]
        for hops in (1, 2, 3):
            part = [r for r, item in zip(right, items) if item["hops"] == hops]
            cells.append(f"{100 * mean(part):.1f}")
        low, high = wilson(sum(right), len(right))
        cells.append(f"{100 * mean(right):.1f} [{100 * low:.1f}, {100 * high:.1f}]")
        print("| " + " | ".join(cells) + " |")


# ---- 14. The whole recipe (Fig. 2) --------------------------------------------------------------


def run(cfg):
    """Runs all stages in order. Returns variant -> for each held-out item: is it right?"""
    graph = Graph(ASSETS / "graph.tsv", cfg.diseases)
    train = make_items(graph, cfg, cfg.train, False)
    held_out = make_items(graph, cfg, cfg.held_out, True, {option_set(item) for item in train})
    model = Model(ASSETS / "tiny")
    results = {"Blind rule": blind_rule(train, held_out), "Base": evaluate(model, held_out)}
    cold_start(model, train[: cfg.traces], graph, cfg.seed)
    results["+ CoT cold start"] = evaluate(model, held_out)
    optimizer = torch.optim.AdamW(model.weights.values(), 8e-4, (0.9, 0.95), weight_decay=0.0)
    reinforce(model, optimizer, tier_pools(train), cfg, "stage 1", 8, cfg.max_steps)
    results["+ RL stage 1"] = evaluate(model, held_out)
    optimizer.param_groups[0]["lr"] = 4e-4
    for stage in ("stage 2, round 1", "stage 2, round 2"):
        pools = mine(model, train, (cfg.seed, stage, "mining"))
        reinforce(model, optimizer, pools, cfg, stage, 16, cfg.round_steps)
    results["+ RL stage 2"] = evaluate(model, held_out)
    print_table(results, held_out)
    print(f"Chance is {100 / cfg.options:.1f} %.\n")
    item = held_out[-1]  # one question, the model's completion, the right answer and the reward
    completion = sample(model, [item])[0][0]
    print(prompt_text(item) + model.decode(completion.ids))
    print(f"The answer is {item['answer']}. Reward: {judge(model, completion, item):.1f}")
    return results


def arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="seed of items, order and sampling")
    parser.add_argument("--diseases", type=int, default=50, help="diseases asked about")
    parser.add_argument("--options", type=int, default=6, help="options of each question")
    parser.add_argument("--train", type=int, default=600, help="training items")
    parser.add_argument("--held-out", type=int, default=450, help="held-out items")
    parser.add_argument("--traces", type=int, default=500, help="traces of the cold start")
    parser.add_argument("--prompts", type=int, default=16, help="prompts of an RL step")
    parser.add_argument("--max-steps", type=int, default=24, help="most steps of RL stage 1")
    parser.add_argument("--round-steps", type=int, default=18, help="steps of a round of stage 2")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(arguments())
    print("Research software, not for clinical use.")
