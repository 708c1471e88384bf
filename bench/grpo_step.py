"""One GRPO step, rollout and update, against TRL's `GRPOTrainer`: `python bench/grpo_step.py --json F`.

Same random weights, prompts, lengths and reward, 8 prompts with 8 samples each, one thread, fp32, AdamW; both set to
Dr. GRPO (advantages over the mean, one constant denominator, no KL). The workloads are those of bench/rollout.py:

    prompt_64    prompt 64, 128 new tokens, no end token
    prompt_256   the same with prompts of 256
    ragged       prompt 64, up to 256 new tokens; one token in 64 ends a completion

The reward is the mean of a completion's token ids over the vocabulary: no group is constant, every sample is trained.
The learning rate is 0: the optimizer does all its work and the weights stay, so that our sampler, whose random numbers
are keyed, draws the same tokens at every step. In `ragged` the peer's sampler is made to end its rows where ours did.

The peer is one call of `train` for one step: its own generation, rewards, loss, backward passes, clipping, optimizer;
without gradient checkpointing, with a static cache. Both sizes of its micro-batches are timed in every round.
Ours are of at most 2,048 tokens. The differences are of one set of rollouts given to both, on-policy and off it: of
the gradients relative to the largest entry, of the losses to the loss off-policy (on-policy it is -Σ A |y|, often 0).
The GEMM limit counts the matrix products below and in the head four times (sampling, forward, backward at the price of
two): each prompt once, no padding, no attention.

Needs TRL (`pip install -e '.[trl]'`).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import functools
import statistics
import tempfile
import time
from argparse import RawDescriptionHelpFormatter
from importlib.metadata import version
from pathlib import Path

import torch
from rollout import GROUPS, SAMPLES, WORKLOADS, Workload, models
from side_by_side import against, alone_and_quiet, cpu_seconds, gemm_rate, needed, rounds, write
from torch.nn.utils.rnn import pad_sequence
from words import Words, backend, text

from minifleming.lm.model import LanguageModel
from minifleming.lm.optimizer import adamw
from minifleming.rlvr.objective import GlobalCounts
from minifleming.rlvr.rollout import Rollout, roll_out, set_advantages
from minifleming.rlvr.update import backward, update
from minifleming.rods.item import Item
from minifleming.run.errors import BadInput, Parser, RunFailed, run_cli
from minifleming.run.fields import RL

AIMS = {"prompt_64": 2.0, "prompt_256": 3.5, "ragged": 6.0}
MICRO = (8, 16)  # sequences in a micro-batch of the peer; 64 was never the faster one
TOKENS = 2048  # in a micro-batch of ours
BETAS = (0.9, 0.95)
ROWS = GROUPS * SAMPLES
END = 0  # what ends and pads the peer's rows in ``ragged``; our end tokens are there 0..31, and no prompt has one


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="grpo_step.py", description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="F", help="write the results to this file")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; the figure is their median")
    parser.add_argument("--workloads", nargs="+", default=list(AIMS), choices=list(AIMS),
                        help="default: all of them")
    parser.add_argument("--micro", nargs="+", type=int, default=list(MICRO), choices=[8, 16, 64])
    parser.add_argument("--cache", choices=["static", "dynamic"], default="static",
                        help="of the peer; the static one was the faster")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        raise BadInput("--rounds: must be positive")
    needed("trl", "transformers", "trl", "datasets")
    alone_and_quiet()
    results = []
    for name in args.workloads:
        cache = None if args.cache == "dynamic" else args.cache  # transformers' default
        found = measure(WORKLOADS[name], args.rounds, args.micro, cache)
        results.append({"workload": name, "aim": AIMS[name]} | found)
        print(line(results[-1]), flush=True)
    write(args.json, results)
    return 0


def line(r: dict) -> str:
    return (f"{r['workload']:11s} {r['ratio']:.2f}x [{r['ratio_low']:.2f}, {r['ratio_high']:.2f}] of TRL, aim "
            f"{r['aim']}; {r['ours']:.2f} s (rollout {r['ours_rollout']:.2f}), {r['peer_name']} {r['peer']:.2f} s "
            f"(rollout {r['peer_rollout']:.2f}); {100 * r['share_of_limit']:.0f} % of the GEMM limit (peer "
            f"{100 * r['peer_share_of_limit']:.0f} %); gradient differs by {r['gradient_difference']:.1e}, loss by "
            f"{r['loss_difference']:.1e}")


def measure(w: Workload, count: int, sizes: list[int], cache: str | None) -> dict:
    with tempfile.TemporaryDirectory() as out:
        ours = Ours(w)
        lengths = [len(r.completion_ids) for group in ours.sampled() for r in group]
        peers = {f"micro {n}": Theirs(w, n, out, lengths, cache) for n in sizes}
        ours.step()
        next(iter(peers.values())).step()
        tried = {name: gemm_rate() * cpu_seconds(peer.step) for name, peer in peers.items()}  # in GEMM operations
        chosen = sorted(tried, key=tried.get)[:2]
        times = rounds({"ours": ours.step} | {name: peers[name].step for name in chosen}, count, warm=False)
        found = against(times, chosen, flop(w, lengths))
        best = peers[found["peer_name"]]
        if best.seen() != (sorted(prompts(w) * SAMPLES), sorted(lengths)) or ours.figures["samples_with_gradient"] != ROWS:
            raise RunFailed("the two programs did not train on the same prompts and lengths, or not on all samples")
        return found | differences(w, out) | {
            "ours_rollout": statistics.median(ours.clock[-count:]),
            "peer_rollout": statistics.median(best.clock[-count:]),
            "tried": {name: cost / min(tried.values()) for name, cost in tried.items()},
            "lengths": {"mean": sum(lengths) / ROWS, "longest": max(lengths), "limit": w.new}, "trl": version("trl")}


def flop(w: Workload, lengths: list[int]) -> float:
    """Of the matrix products of a step: sampling, forward, and backward at the price of two."""
    return 4 * (w.flop * (GROUPS * w.prompt + sum(lengths)) + 2 * w.hidden * w.vocab * sum(lengths))


def paid(w: Workload, ids: list[int]) -> float:
    """The reward: the mean of the token ids over the vocabulary."""
    return sum(ids) / len(ids) / w.vocab


def prompts(w: Workload) -> list[list[int]]:
    return torch.randint(max(w.ends, 1), w.vocab, (GROUPS, w.prompt),
                         generator=torch.Generator().manual_seed(1)).tolist()


class Ours:
    """``roll_out`` and ``update`` on one model; ``clock`` has the CPU seconds of every rollout."""

    def __init__(self, w: Workload):
        self.w, self.clock, self.words = w, [], Words(w.vocab, list(range(w.ends)))
        self.model: LanguageModel = models(w)[1]
        self.cfg = RL(objective="dr_grpo", max_new_tokens=w.new, max_num_seqs=ROWS, lr=0.0, micro_batch_tokens=TOKENS)
        self.optimizer = adamw(self.model, self.cfg.lr, BETAS, 0.0)
        self.drawn = [(Item(str(i), text(ids), {"A": "a", "B": "b"}, "A"), "") for i, ids in enumerate(prompts(w))]

    def sampled(self) -> list[list[Rollout]]:
        start = time.process_time()
        groups = roll_out(self.model, self.words, self.drawn, self.cfg, samples=SAMPLES, seed=0, step=0)
        for r in (r for group in groups for r in group):
            r.reward = paid(self.w, r.completion_ids)
        set_advantages(groups, self.cfg, self.model.device)
        self.clock.append(time.process_time() - start)
        return groups

    def step(self) -> None:
        self.figures = update(self.model, self.optimizer, self.sampled(), self.cfg, fused=True)

    def gradient(self, groups: list[list[Rollout]], old: list[list[float]] | None) -> tuple[float, dict]:
        """(loss, gradients by name) before clipping; ``old`` log-probabilities of every token make it off-policy."""
        rollouts = [r for group in groups for r in group]
        for r, logprobs in zip(rollouts, old or []):
            r.trained_logprobs = logprobs
        counts = GlobalCounts(ROWS, sum(len(r.completion_ids) for r in rollouts), self.w.new)
        self.model.zero_grad()
        loss = backward(self.model, groups, self.cfg, counts, 0 if old else None, fused=True)[0]
        return loss, {name: p.grad.clone() for name, p in self.model.named_parameters()}


class Theirs:
    """TRL's trainer with micro-batches of ``size`` rows, whose completions have the given lengths."""

    def __init__(self, w: Workload, size: int, out: str, lengths: list[int], cache: str | None = None,
                 given: list[list[int]] | None = None):
        import transformers
        import trl
        from datasets import Dataset

        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend(w.vocab), eos_token=text([END if w.ends else w.vocab]), pad_token=text([END]))
        args = trl.GRPOConfig(
            output_dir=out, per_device_train_batch_size=size, gradient_accumulation_steps=ROWS // size,
            num_generations=SAMPLES, max_completion_length=w.new, loss_type="dr_grpo", scale_rewards="none", beta=0.0,
            learning_rate=0.0, adam_beta1=BETAS[0], adam_beta2=BETAS[1], weight_decay=0.0, max_grad_norm=1.0,
            max_steps=1, bf16=False, use_cpu=True, gradient_checkpointing=False, shuffle_dataset=False,
            save_strategy="no", report_to="none", disable_tqdm=True, log_level="error",
            cache_implementation=cache)
        self.rows = Dataset.from_list([{"prompt": text(ids)} for ids in prompts(w)])
        self.clock: list[float] = []

        def rewards(completion_ids, **_):
            return [paid(w, ids) for ids in completion_ids]

        def handed_over(texts, trainer):
            return {"prompt_ids": [ids for ids in prompts(w) for _ in range(SAMPLES)], "completion_ids": given,
                    "logprobs": None}

        self.trainer = trl.GRPOTrainer(models(w)[0], rewards, args, self.rows, processing_class=tokenizer,
                                       rollout_func=handed_over if given else None)
        self.trainer.remove_callback(transformers.PrinterCallback)
        extra = {"logits_processor": ending(torch.tensor(lengths), w.prompt)} if w.ends else {}
        self.trainer.model.generate = self._timed(functools.partial(self.trainer.model.generate, **extra))

    def _timed(self, run):
        def timed(*args, **settings):
            start = time.process_time()
            found = run(*args, **settings)
            self.clock.append(time.process_time() - start)
            return found
        return timed

    def step(self) -> None:
        self.trainer.train()  # one step

    def seen(self) -> tuple[list[list[int]], list[int]]:
        """The prompts of the newest step and the lengths of its completions, both sorted."""
        parts = self.trainer._buffered_inputs
        return (sorted(ids for part in parts for ids in part["prompt_ids"].tolist()),
                sorted(n for part in parts for n in part["completion_mask"].sum(-1).tolist()))

    def gradient(self, old: list[list[float]] | None) -> tuple[float, dict]:
        """(loss, gradients by name) of the completions given, as ``train`` computes them, before clipping."""
        trainer, size = self.trainer, self.trainer.args.per_device_train_batch_size
        trainer.current_gradient_accumulation_steps = ROWS // size
        trainer.model.train()
        trainer.model.zero_grad()
        batch = trainer._generate_and_score_completions([row for row in self.rows for _ in range(SAMPLES)])
        if old:
            batch["old_per_token_logps"] = pad_sequence([torch.tensor(logprobs) for logprobs in old], batch_first=True)
        total = 0.0
        for i in range(0, ROWS, size):
            part = {key: value[i : i + size] if value.dim() else value for key, value in batch.items()}
            loss = trainer._compute_loss(trainer.model, part)
            loss.backward()
            total += loss.item()
        return total, {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def ending(lengths: torch.Tensor, prompt: int):
    """The end token at each row's length and not before. lengths [rows]"""
    from transformers import LogitsProcessor, LogitsProcessorList

    class AtLength(LogitsProcessor):
        def __call__(self, input_ids, scores):
            last = lengths == input_ids.shape[1] - prompt + 1
            scores[:, END] = -torch.inf
            if last.any():
                scores[last] = -torch.inf
                scores[last, END] = 0.0
            return scores

    return LogitsProcessorList([AtLength()])


def differences(w: Workload, out: str) -> dict:
    """The largest differences in gradient and loss on one set of rollouts: on-policy, and with other old policies."""
    ours = Ours(w)
    groups = ours.sampled()
    rollouts = [r for group in groups for r in group]
    peer = Theirs(w, 16, out, [], given=[r.completion_ids for r in rollouts])
    generator = torch.Generator().manual_seed(3)
    away = [(torch.tensor(r.logprobs) + 0.2 * torch.randn(len(r.completion_ids), generator=generator)).tolist() for r in rollouts]
    in_gradient, in_loss = [], []
    for old in (None, away):
        (loss, mine), (their_loss, theirs) = ours.gradient(groups, old), peer.gradient(old)
        largest = max(g.abs().max().item() for g in theirs.values())
        in_gradient.append(max((mine[name] - theirs[name]).abs().max().item() for name in mine | theirs) / largest)
        in_loss.append(abs(loss - their_loss))
    return {"gradient_difference": max(in_gradient), "loss_difference": max(in_loss) / abs(loss)}


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
