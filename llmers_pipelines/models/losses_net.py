"""Losses over a whole catalog or over sampled items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

KINDS = ("ce", "ssm", "in_batch", "bce", "bpr")
POWER = 0.75  # of an item's training count, when negatives are drawn
CHUNK_FLOATS = 1 << 20  # logits that are in work together: 4 MiB, so they stay in the cache
MIN_ROWS = 32
ALIGNED = 16  # floats in a line of the cache


class _FullSoftmax(torch.autograd.Function):
    """Cross-entropy over all items that never holds more than one chunk of logits.

    The gradient of each chunk is taken in the same pass, while its logits are in the cache. Where
    ``half``, products read and give bfloat16; logits are compared and sums are made in float32.
    """

    @staticmethod
    def forward(ctx, states: Tensor, table: Tensor, targets: Tensor, half: bool) -> Tensor:
        ctx.given = states.dtype, table.dtype
        if half:
            with torch.autocast(states.device.type, enabled=False):
                loss, *gradients = _half_softmax(states, table, targets, ctx.needs_input_grad)
            ctx.save_for_backward(*gradients)
            return loss
        rows, n = len(states), len(table)
        step = rows if states.is_cuda else max(MIN_ROWS, CHUNK_FLOATS // n)
        train = any(ctx.needs_input_grad[:2])
        d_states = torch.empty_like(states) if train else None
        d_table = torch.zeros_like(table) if train else None
        # Rows of a multiple of 64 bytes: products write them a tenth faster.
        buffer = states.new_empty(min(step, rows), -(-n // ALIGNED) * ALIGNED)[:, :n]
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
                out.div_(total).sub_(table.index_select(0, t))
                d_table.addmm_(z.T, h / total)
        if train:
            d_table.index_add_(0, targets, states, alpha=-1)
            ctx.save_for_backward(d_states.div_(rows), d_table.div_(rows))
        return loss / rows

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        both = zip(ctx.saved_tensors, ctx.given, ctx.needs_input_grad, strict=False)
        return *((d * grad).to(dtype) if need else None for d, dtype, need in both), None, None


def _half_softmax(
    states: Tensor, table: Tensor, targets: Tensor, needed: Sequence[bool]
) -> list[Tensor]:
    """Return [loss, its gradients by states and table in float32, where any is needed]."""
    rows, n = len(states), len(table)
    step = min(rows, rows if states.is_cuda else max(MIN_ROWS, CHUNK_FLOATS // n))
    train = any(needed[:2])
    inner, items = states.bfloat16(), table.bfloat16()
    exact = table.float()
    d_states, d_table = torch.empty_like(states, dtype=torch.float32), torch.zeros_like(exact)
    low, buffer = inner.new_empty(step, n), exact.new_empty(step, n)
    loss = exact.new_zeros(())
    for at in range(0, rows, step):
        h, t = inner[at : at + step], targets[at : at + step]
        short = low[: len(h)]
        z = buffer[: len(h)].copy_(torch.mm(h, items.T, out=short))
        z[:, 0] = -torch.inf
        top = z.amax(1, keepdim=True)
        aim = z.gather(1, t[:, None])
        z.sub_(top).exp_()
        total = z.sum(1, keepdim=True)
        loss += (top + total.log() - aim).sum()
        if train:
            short.copy_(z)
            torch.div(torch.mm(short, items), total, out=d_states[at : at + step])
            d_table += torch.mm(short.T, (h / total).bfloat16())
    if not train:
        return [loss / rows]
    d_states.sub_(exact.index_select(0, targets))
    d_table.index_add_(0, targets, states.float(), alpha=-1)
    return [loss / rows, d_states.div_(rows), d_table.div_(rows)]


def full_cross_entropy(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of ``-s_t + logsumexp_{j >= 1} s_j`` with ``s = states @ table.T``.

    states (M, D), table (N + 1, D) whose row 0 is padding and takes no part, targets (M,) in 1..N.
    Under autocast to bfloat16 the products are made in it, as autocast would.
    """
    kind = states.device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.bfloat16
    return _FullSoftmax.apply(states, table, targets, half)


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean of ``-log sigmoid(s+ - s-)``; positive (B,), negative (B, K)."""
    return F.softplus(negative - positive[:, None]).mean()


def bce(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mean of ``-log sigmoid(s+) - mean_k log sigmoid(-s-_k)``; (B,) and (B, K)."""
    return F.softplus(-positive).mean() + F.softplus(negative).mean()


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


def log_share(counts: Any, power: float = 1.0, more: float = 0.0) -> Tensor:
    """Return float32 (N + 1,): log q with ``q_j ~ max(count_j + more, 1)^power``, q_0 = 0."""
    weight = (torch.as_tensor(counts, dtype=torch.float64) + more).clamp(min=1).pow(power)
    weight[0] = 0
    return (weight / weight.sum()).log().float()


def in_batch_others(targets: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """Return (ids (U,), log weights (U,)): the batch's targets as negatives of each other.

    Each of the other M - 1 targets is a draw from q, so it weighs ``1 / ((M - 1) q_j)``: the sum of
    weighted ``exp s_j`` is then an unbiased estimate of the sum over the catalog.
    """
    ids, counts = targets.unique(return_counts=True)
    others = max(len(targets) - 1, 1)
    return ids, counts.to(log_q.dtype).log() - math.log(others) - log_q[ids]


class ItemLoss(nn.Module):
    """The loss of states against the items that followed them, in five kinds.

    "ce": cross-entropy over all items. "ssm": softmax over the target and ``negatives`` items
    shared by the batch, drawn with q_j ~ (count_j + 1)^0.75, each with ``s_j - log(K q_j)``; the
    target itself is always there and is not corrected (importance sampling: Bengio and Senecal,
    2008). "in_batch": the same with the batch's own targets, q_j being the training share. "bce"
    and "bpr": one negative per state that the user never met, given by the loader.
    """

    log_q: Tensor

    def __init__(self, kind: str = "ce", negatives: int = 256, counts: Any = None) -> None:
        """``counts`` int64[N + 1]: training interactions per item, for "ssm" and "in_batch"."""
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"unknown loss {kind!r}: use one of {KINDS}")
        self.kind, self.negatives = kind, negatives
        if kind not in ("ssm", "in_batch"):
            return
        log_q = log_share(counts, POWER, 1.0) if kind == "ssm" else log_share(counts)
        self.register_buffer("log_q", log_q, persistent=False)

    def forward(
        self, states: Tensor, table: Tensor, targets: Tensor, negative: Tensor | None = None,
        scores: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the mean over states (M, D) with targets (M,) in 1..N and table (N + 1, D).

        negative (M,) for "bce" and "bpr". ``scores`` (M, N + 1), where given, count instead of the
        dot products.
        """
        if self.kind == "ce":
            if scores is None:
                return full_cross_entropy(states, table, targets)
            none = torch.full_like(scores[:, :1], -torch.inf)
            return F.cross_entropy(torch.cat([none, scores[:, 1:]], 1), targets)
        if self.kind in ("bce", "bpr"):
            if negative is None:
                raise ValueError(f"the loss {self.kind!r} needs batches with negatives")
            loss = bce if self.kind == "bce" else bpr
            positive, other = (_picked(states, table, scores, i) for i in (targets, negative))
            return loss(positive, other[:, None])
        ids, log_weight = self.drawn(targets)
        same = ids == targets[:, None]
        if scores is None:
            return corrected_softmax(states, table[targets], table[ids], log_weight, same)
        other = (scores[:, ids] + log_weight).masked_fill(same, -torch.inf)
        return sampled_softmax(scores.gather(1, targets[:, None])[:, 0], other)

    def drawn(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (ids (K,), log weights (K,)) of the shared negatives of one batch."""
        if self.kind == "in_batch":
            return in_batch_others(targets, self.log_q)
        ids = torch.multinomial(self.log_q.exp(), self.negatives, replacement=True)
        return ids, -math.log(self.negatives) - self.log_q[ids]


def _picked(states: Tensor, table: Tensor, scores: Tensor | None, ids: Tensor) -> Tensor:
    if scores is None:
        return (states * table[ids]).sum(-1)
    return scores.gather(1, ids[:, None])[:, 0]


def corrected_softmax(
    states: Tensor, positive: Tensor, others: Tensor, log_weight: Tensor, same: Tensor
) -> Tensor:
    """Return the mean of ``-s+ + log(exp s+ + sum_k w_k exp s_k)``.

    states, positive (M, D), others (K, D), log_weight (K,); same (M, K) marks what does not count.
    """
    other = torch.addmm(log_weight.to(states.dtype), states, others.T).masked_fill(same, -torch.inf)
    return sampled_softmax((states * positive).sum(1), other)
