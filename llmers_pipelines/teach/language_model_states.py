"""A tuned language model as teacher: its hidden states after training positions (SLMRec)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..plan import PlanError
from .teacher import Taught, Teacher, pairs_shown, positions_of, prefixes, states_table

if TYPE_CHECKING:
    from ..data.training import TrainingData
    from ..data.vectors import VectorTable


@dataclass(frozen=True)
class LanguageModelStates(Teacher):
    """The last token's states of a language model that was tuned to tell the next item.

    Sources: the ``Tune`` (of ``ItemPrompt``) and the item vectors that it reads. The states of the
    ends of ``blocks`` equal blocks of layers are kept (``block_layers``), as float16. Only the
    ``newest`` positions of each user are taught, because each costs a pass through the model.
    """

    exports: ClassVar[str] = "states"

    blocks: int = 4
    newest: int = 1
    BATCH: ClassVar[int] = 64  # positions per pass, and per part that is stored

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blocks < 1:
            raise PlanError(f"LanguageModelStates: blocks is {self.blocks}; at least 1")

    def teach(
        self, data: TrainingData, vectors: VectorTable, model: Callable[[], Any], most: int,
        parts: Path, name: str,
    ) -> Taught:  # fmt: skip
        """Return the states; what a killed run had passed through the model is read from ``parts``.

        ``model`` loads the ``SoftPrompt``, and is called where something is missing.
        """
        from .language_model_states_net import states_of

        user, position = positions_of(data, self.newest)
        histories = [h[-most:] for h in prefixes(data, user, position)]
        table, mask = vectors.aligned(data.items)
        there = np.array([vectors_of(h, mask).any() for h in histories], bool)
        user, position = user[there], position[there]
        kept = [h[vectors_of(h, mask)] for h, t in zip(histories, there, strict=True) if t]
        layers, states, passed = states_of(kept, table, model, self, parts)
        return Taught(
            states_table(data, user, position, layers, states),
            name,
            counts={
                "positions": len(user), "without_vectors": int((~there).sum()),
                "passes": passed, "read_back": len(user) - passed, "width": int(states.shape[2]),
            },
            shown=pairs_shown(data, user, position),
        )  # fmt: skip


def vectors_of(history: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return which items of ``history`` have a vector."""
    return mask[history]
