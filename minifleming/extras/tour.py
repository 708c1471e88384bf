"""One real item through the ten files of the tour: `python -m minifleming.tour`.

Prints what each file makes of the item: triples, walk, question, distractors with proofs, trace,
completions as text, verdicts, rewards, advantages, coefficients, loss, pass rate and pool. Without
`--model` it first trains a short cold start on 600 traces, which takes about ten seconds.
"""

from __future__ import annotations

import math
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch

from minifleming.cold_start import sft
from minifleming.cold_start.oracle import Oracle
from minifleming.lm.model import LanguageModel
from minifleming.lm.optimizer import adamw
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_training, model_folder
from minifleming.rlvr.mining import CLASSES, apportion_counts, mine
from minifleming.rlvr.rollout import Rollout, roll_out
from minifleming.rlvr.update import update
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item
from minifleming.rods.proof import Facts, find_fault
from minifleming.rods.question import ItemBuilder
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import Split, item_builder, synthesize
from minifleming.run.errors import BadInput, Parser, run_cli
from minifleming.run.fields import Config
from minifleming.run.run_folder import Journal

TRACES = 600
SAMPLES = 8  # completions of the item, k
CANDIDATES = 40  # items that are sampled until one has correct and wrong completions
TOP = 3


@dataclass
class Tour:
    """What the stops share."""

    cfg: Config
    graph: Graph
    builder: ItemBuilder
    items: list[Item]
    tokenizer: Tokenizer
    model: LanguageModel


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tour", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", help="tiny or a model folder; without it: a short cold start")
    parser.add_argument("--seed", type=int, default=0, help="seed of items, training and samples")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise BadInput("--seed: must not be negative")
    tour = prepare(tour_config(args.seed), args.model)
    group = mixed_group(tour)
    item = group[0].item
    show_recipe(tour)
    show_walk(tour, item)
    show_question(tour, item)
    show_trace(tour, item)
    show_model(tour, item)
    show_completions(tour, group)
    show_rewards(group)
    show_advantages(group)
    show_update(tour, group)
    show_mining(tour, group)
    print("\nResearch software, not for clinical use.")
    return 0


def tour_config(seed: int) -> Config:
    """Returns the settings of the tour, close to those of recipes/tiny.toml."""
    cfg = Config()
    cfg.run.seed = seed
    cfg.data.num_diseases = 80
    cfg.data.options = 8
    cfg.data.exclude_variants = False
    cfg.cold_start.lr = 5e-3
    cfg.cold_start.max_tokens = 256
    cfg.cold_start.micro_batch_tokens = 2048
    cfg.cold_start.detour_fraction = 0.15
    cfg.rl.lr = 8e-4
    cfg.rl.prompts_per_step = 1
    cfg.rl.max_new_tokens = 64
    cfg.rl.micro_batch_tokens = 3072
    cfg.stage1.samples_per_prompt = SAMPLES
    cfg.mining.samples = SAMPLES
    cfg.mining.failed_below = 0.5
    cfg.mining.mastered_above = 0.9
    return cfg


def prepare(cfg: Config, model: str | None) -> Tour:
    """Returns graph, items and a model; trains a cold start if no model is given."""
    folder = model_folder(model or "tiny")
    graph = load_graph("embedded")
    builder = item_builder(cfg.data, graph)
    items = synthesize(builder, TRACES, cfg.data.hops, seed=cfg.run.seed,
                       split=Split("train", held_out=False))
    tokenizer = Tokenizer(folder)
    policy = load_for_training(folder, cfg, torch.device("cpu"))
    tour = Tour(cfg, graph, builder, items, tokenizer, policy)
    if model is None:
        cold_start(tour)
    return tour


def cold_start(tour: Tour) -> None:
    """Fine-tunes the model on the oracle's traces of all items."""
    cfg = tour.cfg
    oracle = Oracle(tour.graph, cfg.cold_start.detour_fraction, seed=cfg.run.seed)
    traces = [proposals[0] for proposals in oracle.propose(tour.items)]
    _, examples = sft.examples_of(traces, tour.tokenizer, cfg.cold_start.max_tokens)
    with tempfile.TemporaryDirectory() as folder:
        sft.train(tour.model, examples, cfg.cold_start, seed=cfg.run.seed,
                  journal=Journal(Path(folder)))


def mixed_group(tour: Tour) -> list[Rollout]:
    """Returns the first group with correct and wrong completions, else the last one sampled.

    Two-hop items come first: they have a chain, and the short cold start can follow it.
    """
    cfg = tour.cfg
    candidates = sorted(tour.items, key=lambda item: abs(item.hops - 2))[:CANDIDATES]
    for item in candidates:
        [group] = roll_out(tour.model, tour.tokenizer, [(item, item.tier)], cfg.rl,
                           samples=SAMPLES, seed=cfg.run.seed, step=1)
        num_correct = sum(rollout.correct for rollout in group)
        if 0 < num_correct < len(group):
            break
    return group


def heading(number: int, file: str, what: str) -> None:
    print(f"\n[{number}/10] {file}: {what}")


def say(text: str) -> None:
    print(textwrap.fill(text, 98, initial_indent="  ", subsequent_indent="    "))


def show_recipe(tour: Tour) -> None:
    heading(1, "recipe.py", "the stages of Fig. 2")
    say("graph -> items -> traces -> cold start -> RL stage 1 -> mining -> RL stage 2 "
        "-> evaluation")
    say(f"graph: {len(tour.graph.names)} nodes, {len(tour.graph)} triples; {len(tour.items)} items")


def show_walk(tour: Tour, item: Item) -> None:
    heading(2, "rods/walk.py", "a disease, its findings and a chain of edges")
    root = item.provenance["root"]
    walker = tour.builder.walker
    weight = walker.weight[tour.graph.node_id[root]]
    say(f"root: {root}, weight {weight:.3f}, drawn with probability "
        f"{weight / walker.weight[walker.roots].sum():.4f}")
    for triple in item.evidence:
        say(f"evidence  ({', '.join(triple)})")
    for triple in item.path[1:]:
        say(f"chain     ({', '.join(triple)})")


def show_question(tour: Tour, item: Item) -> None:
    heading(3, "rods/question.py", "mask the answer, word the rest, add distractors with proofs")
    say(item.question)
    for label, text in item.options.items():
        if label == item.answer:
            say(f"({label}) {text}: the masked node")
            continue
        diagnosis = item.provenance["rivals"].get(label)
        origin = f", from {diagnosis}" if diagnosis else ""
        say(f"({label}) {text}{origin}; with it this edge is missing: "
            f"({', '.join(item.discriminating[label])})")
    fault = find_fault(item, Facts(tour.graph))
    say(f"checked again by rods/proof.py: {fault or 'the proof holds'}; tier {item.tier}")


def show_trace(tour: Tour, item: Item) -> None:
    heading(4, "cold_start/oracle.py", "the path written out as reasoning")
    oracle = Oracle(tour.graph, detour_fraction=0.0, seed=tour.cfg.run.seed)
    say(oracle.make_trace(item, "blind", 0).completion)


def show_model(tour: Tour, item: Item) -> None:
    heading(5, "lm/model.py", "from token ids to the probabilities of the next token")
    model, tokenizer = tour.model, tour.tokenizer
    trace = Oracle(tour.graph, detour_fraction=0.0).make_trace(item, "blind", 0).completion
    before, pointer, _ = trace.partition(" to ")
    started = before + pointer.rstrip()
    ids = tokenizer.encode(tokenizer.prompt(item.question, item.options))
    ids += tokenizer.encode(started)
    with torch.no_grad():
        hidden = model(torch.tensor([ids]))[0, -1]
        logits = model.logits(hidden)
    probabilities, best = logits.softmax(-1).topk(TOP)
    parameters = sum(p.numel() for p in model.parameters())
    say(f"{parameters:,} parameters; {len(ids)} tokens: the prompt, then {started!r}")
    for token, probability in zip(best.tolist(), probabilities.tolist()):
        say(f"next token {tokenizer.decode([token])!r} with probability {probability:.3f}")


def show_completions(tour: Tour, group: list[Rollout]) -> None:
    heading(6, "lm/sampler.py", f"{len(group)} completions at temperature 1")
    for rollout in group:
        text = tour.tokenizer.decode(rollout.completion_ids)
        say(f"y_{rollout.sample + 1}  log pi = {sum(rollout.logprobs):.2f}, "
            f"{len(rollout.completion_ids)} tokens: {text}")


def show_rewards(group: list[Rollout]) -> None:
    heading(7, "rlvr/reward.py", f"the answer is {group[0].item.answer}; correct + format")
    for rollout in group:
        terms = rollout.reward_terms
        say(f"y_{rollout.sample + 1}  verdict: label {rollout.verdict.label}, rule "
            f"{rollout.verdict.rule}; r = {terms['correct']:g} + {terms['format']:g} "
            f"= {rollout.reward:g}")


def show_advantages(group: list[Rollout]) -> None:
    heading(8, "rlvr/objective.py", "Eq. 2 and 3: A = r - mean of the group")
    for r in group:
        say(f"A_{r.sample + 1} = {r.reward:.4f} - {r.group_mean:.4f} = {r.advantage:+.4f}")


def show_update(tour: Tour, group: list[Rollout]) -> None:
    heading(9, "rlvr/update.py", "Eq. 1: the loss, its coefficients, one AdamW step")
    rl = tour.cfg.rl
    optimizer = adamw(tour.model, rl.lr, tuple(rl.betas), rl.weight_decay)
    metrics = update(tour.model, optimizer, [group], rl)
    say(f"loss = -(1/k) sum_i A_i log pi(y_i|x) = {metrics['loss']:.4f}, "
        f"gradient norm {metrics['grad_norm']:.3f}; k * prompts = {len(group)}")
    for r in group:
        say(f"y_{r.sample + 1}  coefficient of each token: -A / {len(group)} = "
            f"{r.coefficient:+.5f}; A log pi = {r.advantage * math.fsum(r.logprobs):+.4f}")


def show_mining(tour: Tour, group: list[Rollout]) -> None:
    heading(10, "rlvr/mining.py", "pass rate, class, and how stage 2 draws from the classes")
    cfg = tour.cfg
    num_correct = sum(rollout.correct for rollout in group)
    pools, _ = mine({group[0].item.id: num_correct}, {}, cfg.mining)
    kind = next(kind for kind in CLASSES if pools[kind])
    say(f"pass rate {num_correct}/{len(group)}: this item goes to the pool '{kind}'")
    weights = {"right": cfg.stage2.mastered_parts, "wrong": cfg.stage2.failed_parts}
    sizes = {"right": 100, "middle": 100, "wrong": 100}
    say(f"a batch of 30 with right : wrong = 1 : 2 takes {apportion_counts(30, weights, sizes, 0)}")


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
