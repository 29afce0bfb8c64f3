"""Text joined to ids over a whole history, by its spectrum (TedRec, CIKM 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..models.seams import Enhancement
from ..plan import Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData


@dataclass(frozen=True)
class SpectralFusion(Enhancement):
    """The history that the encoder reads is a product of id and text spectra.

    With X the id vectors of a history (oldest first, ``max_len`` rows, zero behind the newest) and
    Y its adapted text vectors: ``C1 = irFFT(rFFT(X) Wc)``, ``C2 = irFFT(rFFT(X) rFFT(Y))``, both
    along the positions with the "ortho" norm, and the encoder reads
    ``2 (C1 sigmoid(g1 C1) + C2 sigmoid(g2 C2))``. ``Y_t = sum_g a_g(z) W_g (z - b_gt)`` is a
    mixture of ``experts`` whose offsets b differ by position t (``PositionwiseExperts``).

    A circular convolution mixes all positions, later ones too: ``mixes_positions``. It is always
    taken over ``max_len`` rows, so a history's state is the same in any batch. The text of an item
    without a vector is zero; ids reach the encoder by C1 all the same. What is served are tables:
    the text of each item without its position, its gates, and the offsets of the positions.

    Starting values are ours: Wc starts near the identity (1 + normal(0, ``filter_std``)) and Y with
    standard deviation ``std``, because much smaller values vanish in the norm behind the fusion.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"history", "item_table"})
    mixes_positions: ClassVar[bool] = True

    source: Node | None = None
    experts: int = 8
    dropout: float = 0.2  # of the text vectors, before the experts
    noise: bool = True  # noisy gates while training
    std: float = 1.0
    filter_std: float = 0.02

    def __post_init__(self) -> None:
        if self.source is None:
            raise PlanError("SpectralFusion needs `source`, a node of item vectors")
        if self.experts < 1:
            raise PlanError(f"SpectralFusion: experts is {self.experts}; at least 1")

    def inert(self) -> None:
        """Return None: the fusion takes the place of the id vectors and has no weight."""

    def attach(self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int) -> Any:
        from .spectral_fusion_net import SpectralFusionHook
        from .tables_net import item_vectors

        vectors = item_vectors(inputs[self.source], data.items, self.source.name, missing="zero")
        hook = SpectralFusionHook(
            vectors, model.item_table.weight.shape[1], model.max_len, experts=self.experts,
            dropout=self.dropout, noise=self.noise, filter_std=self.filter_std,
        )  # fmt: skip
        hook.experts.start_at(vectors, self.std)
        return hook
