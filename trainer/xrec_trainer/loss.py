"""Cross entropy over the catalogue: in full without holding all logits, or over a shared sample of it."""

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
    def forward(ctx: Any, users: Tensor, table: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """(U, D), (N, D), (T,), (T,) -> the mean loss."""
        loss = users.new_zeros(())
        users_grad, table_grad = torch.empty_like(users), torch.zeros_like(table)
        counts = torch.bincount(places, minlength=len(users))
        bounds = [0, *torch.cumsum(counts, 0).tolist()]
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
            loss += (total.log()[wanted[0], 0] - right).sum()
            probabilities *= counts[start:end, None] / total
            probabilities.index_put_(wanted, -torch.ones_like(right), accumulate=True)
            users_grad[start:end] = probabilities @ table
            table_grad.addmm_(probabilities.T, part)
        ctx.save_for_backward(users_grad / len(targets), table_grad / len(targets))
        return loss / len(targets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Scale the gradients that ``forward`` computed."""
        users_grad, table_grad = ctx.saved_tensors
        return users_grad * grads[0], table_grad * grads[0], None, None


def full_cross_entropy(users: Tensor, table: Tensor, places: Tensor, targets: Tensor) -> Tensor:
    """Return the mean softmax cross entropy over all items of T targets.

    ``users`` is (U, D), ``table`` (N, D), ``targets`` (T,) int64, and ``places`` (T,) int64, ascending, names the user
    vector of each target; one user vector may have several targets.
    """
    loss: Tensor = _FullCrossEntropy.apply(users, table, places, targets)  # type: ignore[no-untyped-call]
    return loss


def sampled_cross_entropy(
    users: Tensor, table: Tensor, places: Tensor, targets: Tensor, sampled: Tensor, log_q: Tensor
) -> Tensor:
    """Return softmax cross entropy over the target and a shared sample (S,), each logit less its log-probability.

    The first four are as in ``full_cross_entropy``; ``log_q`` is (N,).

    The correction makes the sampled softmax an estimate of the full one (Bengio and Senecal, 2008; Yi et al., RecSys
    2019). A negative that is the target of its position is masked.
    """
    users = users[places]  # (U, D) -> (T, D)
    positive = (users * functional.embedding(targets, table)).sum(dim=1) - log_q[targets]
    negative = users @ functional.embedding(sampled, table).T - log_q[sampled]
    negative = negative.masked_fill(sampled[None, :] == targets[:, None], float("-inf"))
    logits = torch.cat([positive[:, None], negative], dim=1)
    return (torch.logsumexp(logits, dim=1) - positive).mean()
