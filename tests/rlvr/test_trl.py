"""Gradients side by side with TRL: its ``GRPOTrainer`` and ours, one set of rollouts, equal weights, fp32.

Theirs is a trainer built as a user builds one. It is given the completions (``rollout_func``) and does the rest itself:
rewards, advantages, the reference's and the old policy's log-probabilities, one micro-batch per group, the loss.

    ours     TRL
    paper    luspo, importance sampling by token, scale_rewards none; on-policy, where ρ A has the gradient of A log π
    dr_grpo  dr_grpo, scale_rewards none
    grpo     grpo
    dapo     dapo, epsilon_high 0.28
    gspo     grpo, importance sampling by sequence
    cispo    cispo; epsilon_high is the bound itself, 1 + high, and there is no lower one

Largest difference seen: 2.3e-6 of the largest entry of a parameter's gradient (a key bias, whose terms nearly cancel),
7e-7 of the largest entry of all. Not shared: TRL weighs the KL term of gspo by the ratio of the sequence, we by that of
the token. Skipped where TRL is not installed (`pip install -e '.[trl]'`).
"""

from __future__ import annotations

import pytest
import torch

from minifleming.lm.weights import load_model
from minifleming.rlvr import update as update_module
from minifleming.rlvr.objective import GlobalCounts, kl
from minifleming.rlvr.rollout import Rollout, set_advantages
from minifleming.rlvr.update import backward, score, update
from minifleming.rods.answer import Verdict
from minifleming.rods.item import Item
from minifleming.run.fields import RL

transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
TOLERANCE = 1e-5  # of the largest entry of a parameter's gradient
VOCAB, PAD, END, LONGEST, K = 80, 0, 1, 9, 4
PROMPTS = [[5, 9, 30, 2, 7], [11, 60], [3, 3, 42, 79, 8, 15, 21], [70, 4, 4]]
LENGTHS = [[9, 1, 4, 9], [6, 3, 9, 2], [9, 5, 8, 2], [3, 9, 7, 1]]  # those of LONGEST are truncated
REWARDS = [[1.1, 0.1, 0.0, 0.0], [0.1, 0.1, 0.1, 0.1], [0.0, 1.1, 1.1, 0.1], [1.1, 0.0, 0.0, 0.1]]
THEIRS = {
    "paper": dict(loss_type="luspo", scale_rewards="none"),
    "dr_grpo": dict(loss_type="dr_grpo", scale_rewards="none", epsilon=0.2),
    "grpo": dict(loss_type="grpo", scale_rewards="group", epsilon=0.2),
    "dapo": dict(loss_type="dapo", scale_rewards="group", epsilon=0.2, epsilon_high=0.28),
    "gspo": dict(loss_type="grpo", scale_rewards="group", importance_sampling_level="sequence", epsilon=3e-4,
                 epsilon_high=4e-4),
    "cispo": dict(loss_type="cispo", scale_rewards="group", epsilon_high=5.0),
}
DRIFT = {"gspo": 5e-3, "cispo": 0.3}  # how far the old policy's weights are from the policy's; 0.1 for the others
REFERENCE = 0.2  # how far those of the reference are
CASES = [(name, drift, beta, weighted)
         for name in THEIRS for drift in (0.0, DRIFT.get(name, 0.1))
         for beta, weighted in ((0.0, True), (0.1, False), (0.1, True))
         if not (name == "paper" and drift) and not (name == "gspo" and beta and weighted)]


def weights(config, drift: float = 0.0) -> dict:
    """Sharp random weights and a walk away from them by ``drift`` of their size, under transformers' names."""
    found = {}
    shapes = transformers.Qwen2ForCausalLM(config).state_dict()
    start, away = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    for name, old in shapes.items():
        size = old.shape[1] ** -0.5 if old.dim() == 2 else 0.3
        noise = torch.randn(old.shape, generator=start) + drift * torch.randn(old.shape, generator=away)
        found[name] = noise * size + (1.0 if "norm" in name else 0.0)
    return found


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """drift -> (the weights, a folder of transformers' with them)."""
    torch.set_num_threads(1)
    config = transformers.Qwen2Config(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=PAD,
        bos_token_id=None, eos_token_id=END)
    made = {}

    def member(drift: float):
        if drift not in made:
            model, folder = transformers.Qwen2ForCausalLM(config), tmp_path_factory.mktemp("model")
            model.load_state_dict(weights(config, drift))
            model.save_pretrained(folder)
            made[drift] = model.state_dict(), folder
        return made[drift]

    return member


def completions() -> list[list[list[int]]]:
    generator = torch.Generator().manual_seed(2)
    return [[torch.randint(2, VOCAB, (n,), generator=generator)[: n - (n < LONGEST)].tolist() + [END] * (n < LONGEST)
             for n in group] for group in LENGTHS]


def rollouts() -> list[list[Rollout]]:
    item = Item("i", "q", {"A": "a", "B": "b"}, "A")
    return [[Rollout(item, "", s, prompt, ids, [], ids[-1] == END, Verdict(None, "label"), {}, reward)
             for s, (ids, reward) in enumerate(zip(group, paid))]
            for prompt, group, paid in zip(PROMPTS, completions(), REWARDS)]


def settings(name: str, beta: float, weighted: bool, **others) -> RL:
    return RL(objective=name, kl_coef=beta, kl_importance_weighted=weighted, max_new_tokens=LONGEST, micro_batch_tokens=100,
              max_grad_norm=1e9, **others)


def ours(family, cfg: RL, drift: float):
    """(loss, gradients by name, tokens clipped below and above)"""
    model, reference, groups = load_model(family(0.0)[1]), load_model(family(REFERENCE)[1]), rollouts()
    set_advantages(groups, cfg, model.device)
    score(model, groups, cfg, "logprobs")
    if drift:
        score(load_model(family(drift)[1]), groups, cfg, "trained_logprobs")
        score(reference, groups, cfg, "reference_logprobs")
        counts = GlobalCounts(K * len(groups), sum(map(sum, LENGTHS)), LONGEST)
        loss, low, high, _ = backward(model, groups, cfg, counts, 0)
    else:
        figures = update(model, torch.optim.SGD(model.parameters(), lr=0.0), groups, cfg, samples=K,
                         prompts=len(groups), reference=reference)
        loss, low, high = figures["loss"], figures.get("clipped_tokens_low", 0), figures.get("clipped_tokens_high", 0)
    return loss, {name: p.grad for name, p in model.named_parameters()}, (low, high)


def trainer_of(folder, out, **chosen):
    """TRL's trainer of the model in ``folder``, which is the reference too; it gets our completions and rewards."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({str(i): i for i in range(VOCAB)}, unk_token=str(PAD)))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=str(END), pad_token=str(PAD))

    def given(prompts, trainer):
        return {"prompt_ids": [ids for ids in PROMPTS for _ in range(K)], "logprobs": None,
                "completion_ids": [ids for group in completions() for ids in group]}

    def paid(**_):
        return [reward for group in REWARDS for reward in group]

    args = trl.GRPOConfig(
        output_dir=str(out), per_device_train_batch_size=K, gradient_accumulation_steps=len(PROMPTS),
        num_generations=K, max_completion_length=LONGEST, bf16=False, use_cpu=True, report_to="none",
        gradient_checkpointing=False, **chosen)
    rows = Dataset.from_list([{"prompt": " ".join(map(str, ids))} for ids in PROMPTS])
    trainer = trl.GRPOTrainer(str(folder), paid, args, rows, processing_class=tokenizer, rollout_func=given)
    trainer.current_gradient_accumulation_steps = len(PROMPTS)  # set by ``train``
    trainer.model.train()
    return trainer, [row for row in rows for _ in range(K)]


def theirs(family, out, name: str, beta: float, weighted: bool, drift: float):
    """(loss, gradients by name); off-policy the old log-probabilities are from its own pass with the old weights."""
    trainer, rows = trainer_of(family(REFERENCE)[1], out, beta=beta, use_bias_correction_kl=weighted,
                               num_iterations=2 if drift else 1, **THEIRS[name])
    trainer.model.load_state_dict(family(drift)[0])
    batch = trainer._generate_and_score_completions(rows)
    assert ("old_per_token_logps" in batch) == bool(drift) and ("ref_per_token_logps" in batch) == bool(beta)
    trainer.model.load_state_dict(family(0.0)[0])
    total = 0.0
    for i in range(len(PROMPTS)):
        part = {key: value[i * K : (i + 1) * K] if value.dim() else value for key, value in batch.items()}
        loss = trainer._compute_loss(trainer.model, part)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in trainer.model.named_parameters()}


def difference(a: dict, b: dict) -> float:
    """The largest over the parameters, each relative to the largest entry of its gradient."""
    assert a.keys() == b.keys()
    return max(((a[name] - b[name]).abs().max() / b[name].abs().max()).item() for name in b)


@pytest.mark.parametrize("name, drift, beta, weighted", CASES)
def test_gradient_is_that_of_trl(family, tmp_path, name, drift, beta, weighted):
    loss, grads, (low, high) = ours(family, settings(name, beta, weighted), drift)
    their_loss, their_grads = theirs(family, tmp_path, name, beta, weighted, drift)
    if drift:  # the clip acts, in both directions where there are two
        assert high > 0 and (low > 0 or name == "cispo")
        assert low + high < sum(map(sum, LENGTHS)) / 2
    assert difference(grads, their_grads) <= TOLERANCE
    if name != "paper":  # its value is -A log π, luspo's -A ρ
        assert abs(loss - their_loss) <= TOLERANCE * max(1.0, abs(their_loss))


@pytest.mark.parametrize("scale", ["none", "group", "batch"])
def test_advantages_are_those_of_trl(family, tmp_path, scale):
    trainer, rows = trainer_of(family(REFERENCE)[1], tmp_path, scale_rewards=scale)
    wanted = trainer._generate_and_score_completions(rows)["advantages"]
    groups = rollouts()
    set_advantages(groups, settings("paper", 0.0, True, advantage="mean_baseline" if scale == "none" else scale), "cpu")
    found = torch.tensor([r.advantage for group in groups for r in group])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert found.abs().max() > 0.5 and found[K : 2 * K].eq(0).all()


@pytest.mark.parametrize("drift", [0.0, DRIFT["gspo"]])
def test_the_kl_weight_of_gspo_is_the_one_difference(family, tmp_path, monkeypatch, drift):
    """Weighted by the ratio of the sequence, as TRL does, our gradient is TRL's here too."""
    def by_sequence(logprobs, reference, old, estimator, weighted):
        mean = (logprobs - old).sum(-1, keepdim=True) / (old != 0).sum(-1, keepdim=True)  # padding holds zeros
        return kl(logprobs, reference, old, estimator, False) * mean.exp()

    _, their_grads = theirs(family, tmp_path, "gspo", 0.1, True, drift)
    cfg = settings("gspo", 0.1, True)
    assert difference(ours(family, cfg, drift)[1], their_grads) > 1e-2
    monkeypatch.setattr(update_module, "kl", by_sequence)
    assert difference(ours(family, cfg, drift)[1], their_grads) <= TOLERANCE
