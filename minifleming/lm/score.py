"""Log-probabilities of completions under a model: the one definition that training shares with the sampler.

B rows, T tokens, N learned tokens of a batch.
"""

from __future__ import annotations

from torch import Tensor

from minifleming.kernels.reference import token_logprobs
from minifleming.lm.batch import Batch
from minifleming.lm.model import LanguageModel


def completion_logprobs(model: LanguageModel, batch: Batch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log π(token | what stands before it) of every target, and the batch row that each belongs to.

    The head runs on the targets only: neither prompts nor padding reach the vocabulary. -> [N], [N]
    """
    ids, targets = batch.ids.to(model.device), batch.targets.to(model.device)
    hidden = model(ids[:, :-1])  # the last token predicts nothing
    rows, columns = targets[:, :-1].nonzero(as_tuple=True)
    logits = model.logits(hidden[rows, columns])  # [N, V]
    return token_logprobs(logits, ids[rows, columns + 1], temperature), rows


def row_sums(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum the values of each row: log π(y|x) = Σ_t log π(y_t | x, y_<t). [N], [N] -> [count]"""
    return values.new_zeros(count).index_add(0, rows, values)
