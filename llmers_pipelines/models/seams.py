"""The named seams where enhancements meet a backbone, without torch.

A backbone is a ``Component`` with ``seams`` (those it offers), ``tasks`` and ``build``. An
enhancement is a ``Component`` with ``needs`` and ``attach``. ``check_seams`` compares the two when
definitions load.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..plan import Component, Node, PlanError

if TYPE_CHECKING:
    from ..data.training import TrainingData

SEAMS = {
    "item_input": "item vector as part of the history",
    "item_output": "item vector as target",
    "history": "item vectors of a whole history, before the encoder (sequence models)",
    "hidden_states": "states of every position (sequence models)",
    "layer_states": "states of every position after each layer (transformers)",
    "user_state": "user vector before scoring",
    "score": "scoring of candidates",
    "feature_columns": "extra dense CTR fields",
    "shared_features": "the joined features that all scenarios read (multi-scenario models)",
    "logit": "log-odds of a click (multi-scenario models)",
    "extra_loss": "auxiliary terms",
    "pair_loss": "the loss of a batch of observed pairs (pair models)",
    "item_table": "initial item weights",
    "user_table": "initial user weights",
    "trunk": "all weights below the last linear layers (models of feature interaction)",
    "graph_input": "vectors of users and items before they are propagated (graph models)",
    "points": "users and items as points of a hyperboloid (hyperbolic models)",
}


class Backbone(Component):
    """Settings of a conventional recommender.

    ``build`` returns the untrained model: an ``nn.Module`` with the seam methods, or, where
    ``closed_form`` is set, an object with ``fit(data, inputs)``.
    """

    seams: ClassVar[frozenset[str]] = frozenset()
    tasks: ClassVar[frozenset[str]] = frozenset()
    closed_form: ClassVar[bool] = False

    @property
    def trains_last_only(self) -> bool:
        """Whether the loss reads the state after the newest item alone (``supervise="last"``)."""
        return getattr(self, "supervise", "all") == "last"

    def caution(self, data: TrainingData) -> str:
        """Return what a reader of results on this log must know of these settings, "" for none."""
        return ""

    def build(self, data: TrainingData, seed: int) -> Any:
        raise NotImplementedError


class Enhancement(Component):
    """Settings of one part attached to a backbone.

    ``attach(model, data, inputs, seed)`` runs once before step 0. An initializer writes weights and
    returns None; a fusion or auxiliary loss returns an ``nn.Module`` hook that the model keeps.
    ``inputs`` maps each node of the component to its loaded artifact.

    ``mixes_positions`` says that the part lets earlier positions of a history read later ones.
    Where every position is trained to tell the next item, that item would be read; so only a
    backbone that trains the newest position alone may have such a part.
    """

    mixes_positions: ClassVar[bool] = False

    def attach(
        self, model: Any, data: TrainingData, inputs: Mapping[Node, Any], seed: int
    ) -> Any:
        raise NotImplementedError

    def edited(
        self, data: TrainingData, inputs: Mapping[Node, Any], seed: int
    ) -> TrainingData:
        """Return the log to train on; validation, test and what is served keep ``data``."""
        return data

    def misfit(self, backbone: Backbone) -> str:
        """Return why settings of ``backbone`` do not suit this part, "" where they do."""
        return ""

    def inert(self) -> Enhancement | None:
        """Return these settings with a weight or gate of 0, so that the backbone trains as alone.

        None where the method has no such setting.
        """
        return None


class Hook(Protocol):
    """A part that a model keeps. Every method is optional and is one seam as middleware.

    ``item_input(model, nxt, ids)``, ``item_output(model, nxt, ids)``,
    ``history(model, nxt, batch)``, ``hidden_states(model, nxt, batch)``,
    ``user_state(model, nxt, batch)``, ``score(model, nxt, state, ids)``,
    ``feature_columns(model, nxt, batch)``, ``shared_features(model, nxt, batch)``,
    ``logit(model, nxt, batch)``, ``pair_loss(model, nxt, batch, states)``,
    ``graph_input(model, nxt)``: ``nxt`` is what the model would do without the hook.
    ``extra_loss(model, batch, states)`` returns a scalar; in a training over histories a mean over
    targets goes through ``batch.counted``, one over windows does not. ``fold(model)`` freezes what
    depends on an entity alone into plain tables for serving.
    """


def through(model: Any, seam: str, *args: Any) -> Any:
    """Call ``model._<seam>`` through the hooks that override the seam, outermost last attached."""
    call = getattr(model, f"_{seam}")
    for hook in model.hooks:
        method = getattr(hook, seam, None)
        if method is not None:
            call = _bind(method, model, call)
    return call(*args)


def _bind(method: Any, model: Any, nxt: Any) -> Any:
    return lambda *args: method(model, nxt, *args)


def check_seams(backbone: Backbone, parts: Iterable[Component], owner: str) -> None:
    """Raise ``PlanError`` for a part that needs a seam which ``backbone`` does not offer, and for
    one that would read the targets of a backbone that trains every position.
    """
    for part in parts:
        if getattr(part, "mixes_positions", False) and not backbone.trains_last_only:
            name = type(backbone).__name__
            can = hasattr(backbone, "supervise")
            mend = (
                'set backbone_settings = { supervise = "last" }' if can
                else 'choose a backbone with the setting supervise = "last"'
            )
            raise PlanError(
                f"{owner}: {type(part).__name__} mixes all positions of a history, and {name} "
                "trains every position on the item that follows, so the targets would be read; "
                f"{mend}, or leave the part out"
            )
        missing = sorted(part.needs - backbone.seams)
        if missing:
            seam = missing[0]
            raise PlanError(
                f"{owner}: {type(part).__name__} needs the seam {seam!r} ({SEAMS[seam]}), which "
                f"{type(backbone).__name__} does not offer; choose a backbone that does, or leave "
                "the part out"
            )


def check_settings(backbone: Backbone, parts: Iterable[Any], owner: str) -> None:
    """Raise ``PlanError`` for a part that says that settings of ``backbone`` do not suit it."""
    for part in parts:
        if isinstance(part, Enhancement) and (why := part.misfit(backbone)):
            raise PlanError(f"{owner}: {type(part).__name__}: {why}")
