"""Networks with a logit per scenario (torch). B rows, S scenarios, G groups."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .click_net import FieldNet
from .ctr_net import Dropout, activation
from .hooks_net import extra_losses
from .seams import through

if TYPE_CHECKING:
    from .batches import CtrBatch


class Grouped(nn.Module):
    """One linear layer per group: (B, G, a) -> (B, G, b). Starts as ``nn.Linear`` does."""

    def __init__(self, groups: int, a: int, b: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(groups, a, b).uniform_(-(a**-0.5), a**-0.5))
        self.bias = nn.Parameter(torch.empty(groups, b).uniform_(-(a**-0.5), a**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bga,gac->bgc", x, self.weight) + self.bias


class GroupedMLP(nn.Module):
    """An MLP per group after its input: layers of ``widths``, with a last linear one of ``out``."""

    def __init__(
        self, groups: int, widths: Sequence[int], act: str, p: float, out: int | None = None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [Grouped(groups, a, b), _Each(activation(act, groups * b)), Dropout(p)]
        if out is not None:
            layers.append(Grouped(groups, widths[-1], out))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, G, last width) of x (B, G, first width)."""
        return self.layers(x)


class _Each(nn.Module):
    """An activation with weights of its own for each unit of each group."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x.flatten(1)).view_as(x)


class Experts(nn.Module):
    """E MLPs over one input. ``first`` holds their first layers side by side."""

    def __init__(self, width: int, experts: int, layers: Sequence[int], act: str, p: float) -> None:
        super().__init__()
        self.experts = experts
        self.first = nn.Linear(width, experts * layers[0])
        self.act = activation(act, experts * layers[0])
        self.drop = Dropout(p)
        self.rest = GroupedMLP(experts, layers, act, p)

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """Return (B, E, out) of x (B, width); ``added`` (B, E * layers[0]) is a summand of h."""
        h = self.first(x)
        if added is not None:
            h = h + added
        return self.rest(self.drop(self.act(h)).unflatten(1, (self.experts, -1)))


def gate(scores: Tensor, p: float, training: bool, seen: Tensor | None = None) -> Tensor:
    """Return the softmax of scores (..., E); in training each expert is left out with chance ``p``.

    At least one stays. Left out at random, experts cannot leave all work to one of them. Where
    ``seen`` (bool, broadcast to scores) is False an expert has weight 0.
    """
    hidden = torch.zeros_like(scores, dtype=torch.bool) if seen is None else ~seen
    if training and p:
        out = hidden | (torch.rand_like(scores) < p)
        hidden = torch.where(out.all(-1, keepdim=True), hidden, out)
    return torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)


class ScenarioNet(FieldNet):
    """``logit = own[scenario]``; a row of an unknown scenario has the mean by training shares.

    Subclasses give ``scenario_logits`` (B, S). ``balance`` weighs all scenarios of a batch alike in
    the loss, instead of all rows.
    """

    first_order = False

    def __init__(self, shape: Any, *args: Any, **kwargs: Any) -> None:
        if not shape.get("scenarios"):
            raise ValueError(
                f"{self.title} needs a log with scenarios; train it on a multi_scenario split, "
                "whose `scenario` names a column of the interactions"
            )
        if kwargs.get("act") == "dice":
            raise ValueError(
                f"{self.title}: 'dice' would normalise the rows of all scenarios together; use "
                "'relu' or 'prelu'"
            )
        super().__init__(shape, *args, **kwargs)

    def prepare(self) -> None:
        super().prepare()
        shares = self._arguments["shape"]["scenarios"]
        self.n_scenarios = len(shares)
        which = torch.cat([torch.tensor([shares]), torch.eye(len(shares))])
        self.register_buffer("which", which, persistent=False)  # (S + 1, S)
        self.width = self.n_fields * self.dim

    def scenarios(self, batch: CtrBatch) -> Tensor:
        """Return the codes (B,), 0 = unknown."""
        return torch.zeros_like(batch.user) if batch.scenario is None else batch.scenario

    def scenario_logits(self, batch: CtrBatch) -> Tensor:
        """Return (B, S), what each row's log-odds would be in each scenario."""
        raise NotImplementedError

    def shared_features(self, batch: CtrBatch) -> Tensor:
        """Return x (B, width), the fields that all scenarios read."""
        return through(self, "shared_features", batch)

    def _shared_features(self, batch: CtrBatch) -> Tensor:
        return self.embeddings(batch).flatten(1)

    def logits(self, batch: CtrBatch) -> Tensor:
        return through(self, "logit", batch)

    def _logit(self, batch: CtrBatch) -> Tensor:
        return (self.scenario_logits(batch) * self.which[self.scenarios(batch)]).sum(1)

    def loss(self, batch: CtrBatch) -> Tensor:
        """Return the mean cross-entropy over rows, or with ``balance`` over scenarios."""
        logits = self.logits(batch)
        if not self._arguments["balance"]:
            loss = F.binary_cross_entropy_with_logits(logits, batch.label)
        else:
            rows = F.binary_cross_entropy_with_logits(logits, batch.label, reduction="none")
            code = self.scenarios(batch)
            count = torch.bincount(code, minlength=self.n_scenarios + 1)
            loss = (rows / count[code]).sum() / (count > 0).sum()
        return loss + extra_losses(self, batch, logits)
