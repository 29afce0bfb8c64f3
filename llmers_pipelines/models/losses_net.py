"""Losses over a whole catalog or over sampled items."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK_FLOATS = 1 << 20  # logits that are in work together: 4 MiB, so they stay in the cache
MIN_ROWS = 32


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy over all items that never holds more than one chunk of logits.

    The gradient of each chunk is taken in the same pass, while its logits are in the cache.
    """

    @staticmethod
    def forward(ctx, states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
        rows, n = len(states), len(table)
        step = rows if states.is_cuda else max(MIN_ROWS, CHUNK_FLOATS // n)
        train = any(ctx.needs_input_grad[:2])
        d_states = torch.empty_like(states) if train else None
        d_table = torch.zeros_like(table) if train else None
        buffer = states.new_empty(min(step, rows), n)
        loss = states.new_zeros(())
        columns = table.T
        for at in range(0, rows, step):
            h, t = states[at : at + step], targets[at : at + step]
            z = torch.mm(h, columns, out=buffer[: len(h)])
            z[:, 0] = -torch.inf
            top = z.amax(1, keepdim=True)
            aim = z.gather(1, t[:, None])
            z.sub_(top).exp_()
            total = z.sum(1, keepdim=True)
            loss += (top + total.log() - aim).sum()
            if train:
                out = d_states[at : at + step]
                torch.mm(z, table, out=out)
                out.div_(total).sub_(table[t])
                d_table.addmm_(z.T, h / total)
        if train:
            d_table.index_add_(0, targets, states, alpha=-1)
            ctx.save_for_backward(d_states.div_(rows), d_table.div_(rows))
        return loss / rows

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        d_states, d_table = ctx.saved_tensors
        return (
            d_states * grad if ctx.needs_input_grad[0] else None,
            d_table * grad if ctx.needs_input_grad[1] else None,
            None,
        )


def full_cross_entropy(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of ``-s_t + logsumexp_{j >= 1} s_j`` with ``s = states @ table.T``.

    states (M, D), table (N + 1, D) whose row 0 is padding and takes no part, targets (M,) in 1..N.
    """
    return _FullSoftmax.apply(states, table, targets)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean of ``-log sigmoid(s+ - s-)``; positive (B,), negative (B, K)."""
    return F.softplus(negative - positive[:, None]).mean()


def kept_places(losses: Tensor, drop: float, keep: str = "easiest") -> Tensor:
    """Return where the losses (n,) are that stay when floor(drop n) of them are dropped by size.

    ``easiest`` keeps the smallest (the largest are taken for noise), ``hardest`` the largest. At
    least one stays.
    """
    if keep not in ("easiest", "hardest"):
        raise ValueError(f"keep is {keep!r}; use 'easiest' or 'hardest'")
    stay = max(1, len(losses) - int(drop * len(losses))) if len(losses) else 0
    return losses.detach().topk(stay, largest=keep == "hardest").indices


def pruned(losses: Tensor, drop: float, keep: str = "easiest") -> Tensor:
    """Return the losses that stay, see ``kept_places``; no gradient flows through the choice."""
    return losses[kept_places(losses, drop, keep)] if drop else losses


def masked_restoration(restored: Tensor, original: Tensor, gamma: float) -> Tensor:
    """Return the mean of ``(1 - cos(restored, original))^gamma`` over masked rows (M, E).

    The masked-autoencoder loss of LLMRec (arXiv:2311.00423); 0 where no row is masked.
    """
    if not len(restored):
        return restored.sum()
    # Rounding may put a cosine above 1, and a power of a negative number is not one.
    distance = (1 - F.cosine_similarity(restored, original, dim=-1)).clamp(min=0)
    return distance.pow(gamma).mean()


class _SharedSoftmax(torch.autograd.Function):
    """Softmax over each row's positive and shared negatives, gradient in the same pass."""

    @staticmethod
    def forward(ctx, states: Tensor, positive: Tensor, shared: Tensor, same: Tensor) -> Tensor:
        aim = (states * positive).sum(1, keepdim=True)
        z = torch.mm(states, shared.T).masked_fill_(same, -torch.inf)
        top = torch.maximum(z.amax(1, keepdim=True), aim)
        z.sub_(top).exp_()
        own = (aim - top).exp()
        total = z.sum(1, keepdim=True) + own
        loss = (top + total.log() - aim).mean()
        if any(ctx.needs_input_grad[:3]):
            rest = (own / total - 1) / len(states)
            scaled = 1 / (total * len(states))
            ctx.save_for_backward(
                torch.mm(z, shared).mul_(scaled).addcmul_(rest, positive),
                rest * states,
                torch.mm(z.T, states * scaled),
            )
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        needed = zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        return *(d * grad if need else None for d, need in needed), None


def shared_softmax(states: Tensor, positive: Tensor, shared: Tensor, same: Tensor) -> Tensor:
    """Return ``sampled_softmax`` of ``<states, positive>`` and ``<states, shared>``.

    states, positive (B, D), shared (K, D); same (B, K) marks a shared item that is the row's
    positive and does not count.
    """
    return _SharedSoftmax.apply(states, positive, shared, same)


def sampled_softmax(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean of ``-s+ + log(exp s+ + sum_k exp s-_k)``; positive (B,), negative (B, K)."""
    return (torch.logsumexp(torch.cat([positive[:, None], negative], 1), 1) - positive).mean()
