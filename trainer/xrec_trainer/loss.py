"""What is minimised: cross entropy over the catalogue, in full or over a shared sample of it, or gBCE over a sample."""

# T tokens (positions with a target), N items, D width, S sampled negatives

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_TOKENS = 64


class _FullCrossEntropy(torch.autograd.Function):
    """Computes the loss and both gradients chunk by chunk, so that only (CHUNK_TOKENS, N) logits exist at a time."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, table: Tensor, places: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """(U, D), (N, D), (T,), (T,), (T,) -> the weighted mean loss."""
        loss = users.new_zeros(())
        users_grad, table_grad = torch.empty_like(users), torch.zeros_like(table)
        bounds = [0, *torch.cumsum(torch.bincount(places, minlength=len(users)), 0).tolist()]
        weight_of_user = users.new_zeros(len(users)).index_add_(0, places, weights)
        buffer = users.new_empty(CHUNK_TOKENS, len(table))  # stays in the processor's cache
        for start in range(0, len(users), CHUNK_TOKENS):
            end = min(start + CHUNK_TOKENS, len(users))
            part, asked = users[start:end], slice(bounds[start], bounds[end])
            wanted = places[asked] - start, targets[asked]
            logits = torch.mm(part, table.T, out=buffer[: end - start])
            logits -= logits.amax(dim=1, keepdim=True)
            right = logits[wanted]
            probabilities = logits.exp_()
            total = probabilities.sum(dim=1, keepdim=True)
            loss += ((total.log()[wanted[0], 0] - right) * weights[asked]).sum()
            probabilities *= weight_of_user[start:end, None] / total
            probabilities.index_put_(wanted, -weights[asked], accumulate=True)
            users_grad[start:end] = probabilities @ table
            table_grad.addmm_(probabilities.T, part)
        ctx.save_for_backward(users_grad / weights.sum(), table_grad / weights.sum())
        return loss / weights.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        """Scale the gradients that ``forward`` computed."""
        users_grad, table_grad = ctx.saved_tensors
        return users_grad * grads[0], table_grad * grads[0], None, None, None


def full_cross_entropy(users: Tensor, table: Tensor, places: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the mean softmax cross entropy over all items of T targets, weighted by ``weights`` (T,).

    ``users`` is (U, D), ``table`` (N, D), ``targets`` (T,) int64, and ``places`` (T,) int64, ascending, names the user
    vector of each target; one user vector may have several targets.
    """
    loss: Tensor = _FullCrossEntropy.apply(users, table, places, targets, weights)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(
    users: Tensor, table: Tensor, places: Tensor, targets: Tensor, weights: Tensor, sampled: Tensor, log_q: Tensor
) -> Tensor:
    """Return softmax cross entropy over the target and a shared sample (S,), each logit less its log-probability.

    The first five are as in ``full_cross_entropy``; ``log_q`` is (N,).

    The correction makes the sampled softmax an estimate of the full one (Bengio and Senecal, 2008; Yi et al., RecSys
    2019). A negative that is the target of its position is masked.
    """
    right, others = _against_sample(users, table, places, targets, sampled)
    positive = right - log_q[targets]
    logits = torch.cat([positive[:, None], others - log_q[sampled]], dim=1)
    return _mean(torch.logsumexp(logits, dim=1) - positive, weights)


def smoothing(users: Tensor, table: Tensor, places: Tensor, targets: Tensor, weights: Tensor, share: float) -> Tensor:
    """Return what label smoothing adds to the softmax cross entropy of the same five, full or sampled.

    With ``share`` of each target given to all items evenly (Szegedy et al., CVPR 2016, section 7) the loss gains
    ``share * (score of the target - mean score of all items)``, in which the softmax's denominator has no part.
    """
    difference = functional.embedding(targets, table) - table.mean(dim=0)
    return share * _mean((users[places] * difference).sum(dim=1), weights)


def gbce(
    users: Tensor, table: Tensor, places: Tensor, targets: Tensor, weights: Tensor, sampled: Tensor, calibration: float
) -> Tensor:
    """Return the generalised binary cross entropy over the target and an even shared sample (S,).

    The first five are as in ``full_cross_entropy``. The positive's probability is raised to a power that undoes the
    overconfidence that sampling brings, wholly at ``calibration`` 1 and not at 0 (Petrov and Macdonald, "gSASRec",
    RecSys 2023, section 5).
    """
    right, others = _against_sample(users, table, places, targets, sampled)
    rate = min(1.0, len(sampled) / (len(table) - 1))
    power = rate * (calibration * (1 - 1 / rate) + 1 / rate)
    return _mean(-power * functional.logsigmoid(right) + functional.softplus(others).sum(dim=1), weights)


def _against_sample(
    users: Tensor, table: Tensor, places: Tensor, targets: Tensor, sampled: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the scores of the targets (T,) and of the sample (T, S), -inf where a sampled item is the target."""
    users = users[places]  # (U, D) -> (T, D)
    right = (users * functional.embedding(targets, table)).sum(dim=1)
    others = users @ functional.embedding(sampled, table).T
    return right, others.masked_fill(sampled[None, :] == targets[:, None], float("-inf"))


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / weights.sum()
