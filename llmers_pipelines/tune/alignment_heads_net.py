"""Heads of a joint pretraining of texts and tables (FLIP, arXiv:2310.19453).

Shapes: B rows, L tokens, E width of the language model, R width of the recommender's state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Projection(nn.Module):
    """``LayerNorm(p + dropout(W gelu(p)))`` with ``p = W_0 x``: a view to be compared."""

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, out), nn.Linear(out, out)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        p = self.first(x)
        return self.norm(p + self.dropout(self.second(F.gelu(p))))


class MaskedTokens(nn.Module):
    """``vocabulary(dropout(tanh(W [T_t ; r] + b)))``: a token from its place and the row's state.

    With r = 0 it is an ordinary masked-token head over T_t.
    """

    def __init__(self, width: int, state: int, vocabulary: int, dropout: float) -> None:
        super().__init__()
        self.mix, self.out = nn.Linear(width + state, width), nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, state: Tensor) -> Tensor:
        """Return (M, vocabulary) of token states (M, E) and the states (M, R) of their rows."""
        return self.out(self.dropout(torch.tanh(self.mix(torch.cat([tokens, state], 1)))))

    def loss(self, tokens: Tensor, state: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy over labels (B, L) that are not -100; 0 without any.

        ``tokens`` (B, L, E), ``state`` (B, R). Other tokens add exactly nothing.
        """
        row, place = (labels != -100).nonzero(as_tuple=True)
        if not len(row):
            return tokens.sum() * 0
        return F.cross_entropy(self(tokens[row, place], state[row]), labels[row, place])


class CrossAttention(nn.Module):
    """``sum_t softmax_t(<LayerNorm(W r), T_t>) T_t`` over the real tokens alone (not scaled)."""

    def __init__(self, state: int, width: int) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(state, width), nn.LayerNorm(width))

    def forward(self, state: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return (B, E) of states (B, R), tokens (B, L, E) and mask (B, L), 0 = padding."""
        scores = (tokens @ self.query(state).unsqueeze(2)).squeeze(2)
        weights = torch.softmax(scores.masked_fill(mask == 0, -torch.inf), 1)
        return (weights.unsqueeze(1) @ tokens).squeeze(1)


class MaskedFields(nn.Module):
    """The value of a masked field by noise contrastive estimation over that field's values.

    ``s_f(v) = <h_f, w_fv> + b_fv`` with h_f one head of ``width`` per field. Loss of a value v with
    k noise values u drawn by frequency q: ``-log sig(s(v) - log k q(v)) - sum_u log(1 - sig(s(u) -
    log k q(u)))`` (Gutmann and Hyvarinen, 2010; normalizer 1). b starts at log q.

    ``counts`` maps a field to how often each of its values occurs, int (V_f,).
    """

    def __init__(self, inputs: int, counts: Mapping[str, np.ndarray], width: int, k: int) -> None:
        super().__init__()
        self.fields, self.k = tuple(counts), k
        self.heads = nn.Linear(inputs, len(counts) * width)
        tables = [nn.Embedding(len(c), width) for c in counts.values()]
        self.values = nn.ModuleList(tables)
        self.log_q, self.bias, self._upto = [], nn.ParameterList(), []
        for table, count in zip(tables, counts.values(), strict=True):
            nn.init.normal_(table.weight, std=width**-0.5)
            share = count / max(1, count.sum())
            log_q = torch.from_numpy(np.log(np.maximum(share, 1e-10))).float()
            self.log_q.append(log_q)
            self.bias.append(nn.Parameter(log_q.clone()))
            self._upto.append(np.cumsum(share))

    def noise(self, field: int, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return int64 (n, k): values of a field, drawn by their frequency."""
        upto = self._upto[field]
        drawn = np.searchsorted(upto, rng.random((n, self.k)) * upto[-1], side="right")
        return np.minimum(drawn, len(upto) - 1)

    def scores(self, field: int, states: Tensor, values: Tensor) -> Tensor:
        """Return (n, m): s_f of the values (n, m) given what the heads read, states (n, inputs)."""
        width = self.heads.out_features // len(self.fields)
        part = slice(field * width, (field + 1) * width)
        h = F.linear(states, self.heads.weight[part], self.heads.bias[part])
        return (self.values[field](values) @ h.unsqueeze(2)).squeeze(2) + self.bias[field][values]

    def loss(
        self, states: Tensor, targets: Sequence[tuple[int, np.ndarray, np.ndarray]],
        rng: np.random.Generator,
    ) -> tuple[Tensor, float]:  # fmt: skip
        """Return the mean loss over all masked values, and how often the true one leads its noise.

        ``states`` (B, inputs); ``targets`` has (field, rows (n,), values (n,)) of what is masked.
        Without any target both are 0.
        """
        total, right, n = states.sum() * 0, 0, 0
        for field, rows, values in targets:
            drawn = np.concatenate([values[:, None], self.noise(field, len(rows), rng)], 1)
            chosen = torch.from_numpy(drawn).to(states.device)
            at = torch.from_numpy(rows).to(states.device)
            own = self.scores(field, states[at], chosen)
            q = self.log_q[field].to(states.device)[chosen]
            total = total + nce(own, q).sum()
            right += int((own[:, :1] >= own).all(1).sum())
            n += len(rows)
        return total / max(1, n), right / max(1, n)


def nce(scores: Tensor, log_q: Tensor) -> Tensor:
    """Return (n,): noise contrastive loss of scores (n, 1 + k), the true value first.

    ``log_q`` (n, 1 + k) are the log-frequencies of the values in the noise.
    """
    own = scores - log_q - np.log(scores.shape[1] - 1)
    return -F.logsigmoid(own[:, 0]) - F.logsigmoid(-own[:, 1:]).sum(1)
