"""A trained model in the form in which it is served: one network and plain arrays, no LLM."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .product_net import Product

FORMAT = 1
ITEM_SEAMS = ("item_input", "item_output")
STATE_SEAMS = ("history", "hidden_states", "user_state", "score", "feature_columns",
               "shared_features", "logit")  # fmt: skip


def fold(model: Any) -> Any:
    """Return a copy of ``model`` in evaluation in which all that depends on an entity is a table.

    A hook with ``fold(model)`` is replaced by what that returns (None: the hook serves training
    alone); a hook that changes nothing but item vectors or the loss is dropped, because the
    model's ``folded()`` reads its tables through the seams. Raises TypeError for a hook that
    changes item vectors and states but cannot fold.
    """
    import torch

    model.eval()
    with torch.no_grad():
        hooks = [_folded_hook(hook, model) for hook in model.hooks]
        served = model.folded() if hasattr(model, "folded") else copy.deepcopy(model)
    served.hooks = torch.nn.ModuleList(h for h in hooks if h is not None)
    return served.eval().requires_grad_(False)


def _folded_hook(hook: Any, model: Any) -> Any:
    if hasattr(hook, "fold"):
        return hook.fold(model)
    if not any(hasattr(hook, seam) for seam in STATE_SEAMS):
        return None
    if any(hasattr(hook, seam) for seam in ITEM_SEAMS):
        raise TypeError(
            f"{type(hook).__name__} changes item vectors and states; give it fold(model) that "
            "returns a hook with the states alone (item vectors are folded into tables)"
        )
    return copy.deepcopy(hook)


def _describe(module: Any) -> dict[str, Any]:
    kind = type(module)
    if not hasattr(module, "config"):
        raise TypeError(
            f"{kind.__name__} has no `config`: keep the arguments of __init__ there as plain "
            "values, so that it can be rebuilt when it is served"
        )
    return {"net": f"{kind.__module__}:{kind.__qualname__}", "config": module.config}


def export(net: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return (config, arrays) of a folded network; ``load_served`` turns them back."""
    config = {"format": FORMAT, **_describe(net), "hooks": [_describe(h) for h in net.hooks]}
    arrays = {k: v.detach().cpu().contiguous().numpy() for k, v in net.state_dict().items()}
    return config, arrays


def rebuild(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the network of ``config`` with the weights ``arrays``, in evaluation.

    Raises ValueError when the bundle has another format or other arrays than its network.
    """
    import torch

    if config.get("format") != FORMAT:
        raise ValueError(
            f"model bundle of format {config.get('format')!r}, this version reads {FORMAT}; "
            "train and register the model again"
        )
    with torch.random.fork_rng():  # the initial weights are drawn, then overwritten
        net = _build(config)
        net.hooks = torch.nn.ModuleList(_build(h) for h in config["hooks"])
    expected, found = set(net.state_dict()), set(arrays)
    if expected != found:
        raise ValueError(
            f"model bundle of {config['net']}: missing arrays {sorted(expected - found)}, "
            f"unexpected {sorted(found - expected)}; the bundle is damaged"
        )
    net.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    return net.eval().requires_grad_(False)


PACKAGE = __name__.partition(".")[0]
PLUGINS = "llmers.recipes"  # entry points whose packages may bring networks


def _build(config: Mapping[str, Any]) -> Any:
    """Return the network that ``config`` names by import path.

    A config may come from elsewhere: only our own networks and those of installed plug-ins are
    built, and only ``nn.Module`` classes. Raises ValueError for anything else.
    """
    import torch

    module, _, name = str(config["net"]).partition(":")
    ours = module.startswith((f"{PACKAGE}.models.", f"{PACKAGE}.enhance."))
    if not ours and module.partition(".")[0] not in _plugin_packages():
        raise ValueError(
            f"the model names the network {config['net']!r}; only those of {PACKAGE} and of "
            f"plug-ins (entry point {PLUGINS}) are built"
        )
    kind = getattr(importlib.import_module(module), name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise ValueError(f"{config['net']!r} is no network class; the model file is damaged")
    return kind(**config["config"])


def _plugin_packages() -> set[str]:
    from importlib.metadata import entry_points

    return {e.module.partition(".")[0] for e in entry_points(group=PLUGINS)} - {PACKAGE}


@dataclass
class Served:
    """A network that scores users from their positions and histories alone."""

    net: Any

    @property
    def reads_times(self) -> bool:
        """Whether ``scores`` is to be given the times of histories."""
        return getattr(self.net, "reads_times", False)

    def scores(
        self,
        users: Sequence[int] | np.ndarray,
        histories: Sequence[np.ndarray],
        times: Sequence[np.ndarray] | None = None,
    ) -> np.ndarray:
        """Return float32[B, N + 1]; column 0 (padding) is -inf. Seen items are not masked.

        ``users`` are positions, 0 for an unknown user; ``histories`` item positions, oldest first,
        and ``times`` their moments for a network that reads them.
        """
        import torch

        with torch.no_grad():
            scores = self.net.score(self._states(users, histories, times)).float()
        scores[:, 0] = -torch.inf
        return scores.cpu().numpy()

    def product(
        self,
        users: Sequence[int] | np.ndarray,
        histories: Sequence[np.ndarray],
        times: Sequence[np.ndarray] | None = None,
    ) -> Product | None:
        """Return the factors of what ``scores`` gives, column 0 aside; None where it has none."""
        import torch

        if not hasattr(self.net, "as_product"):
            return None
        with torch.no_grad():
            return self.net.as_product(self._states(users, histories, times))

    def _states(self, users: Any, histories: Any, times: Any) -> Any:
        from .ranking_net import device_of, scoring_batch

        net = self.net
        batch = scoring_batch(
            np.asarray(users, np.int64), list(histories), getattr(net, "max_len", None),
            device_of(net), None if times is None else list(times),
        )  # fmt: skip
        if not getattr(net, "is_kept", True):
            net.keep()  # weights are final, so the item outputs are computed once for all
        return net.user_state(batch)

    def item_vectors(self) -> np.ndarray:
        """Return float32[N + 1, D]: items as targets. TypeError where the network has no such."""
        import torch

        if not hasattr(self.net, "item_output"):
            raise TypeError(f"{type(self.net).__name__} scores items without vectors of them")
        with torch.no_grad():
            return self.net.item_output(None).float().cpu().numpy()

    def states(
        self, users: Sequence[int] | np.ndarray, histories: Sequence[np.ndarray]
    ) -> np.ndarray:
        """Return float32[B, D]: users as they are scored. TypeError where there is no such."""
        import torch

        from .ranking_net import device_of, scoring_batch

        net = self.net
        if not hasattr(net, "user_state"):
            raise TypeError(f"{type(net).__name__} scores users without vectors of them")
        batch = scoring_batch(
            np.asarray(users, np.int64), list(histories), getattr(net, "max_len", None),
            device_of(net),
        )  # fmt: skip
        with torch.no_grad():
            return net.user_state(batch).float().cpu().numpy()

    def predict(
        self,
        users: Sequence[int] | np.ndarray,
        items: Sequence[int] | np.ndarray,
        histories: Sequence[np.ndarray],
        ratings: Sequence[np.ndarray] | None = None,
        scenarios: Sequence[int] | np.ndarray | None = None,
    ) -> np.ndarray:
        """Return float32[B]: the click probability of each (user, item) after its history, or its
        rating where the network predicts ratings.

        ``ratings`` are those of the history rows; the network itself knows the entities' fields.
        ``scenarios`` are codes, 0 = unknown, which is also what None says.
        """
        import torch

        from .batches import CtrBatch, left_pad
        from .ranking_net import device_of

        net = self.net
        max_len = getattr(net, "max_len", None)
        user, item = np.asarray(users, np.int64), np.asarray(items, np.int64)
        rating = None if ratings is None else left_pad(ratings, max_len, np.float32)

        batch = CtrBatch(
            user=torch.from_numpy(user), item=torch.from_numpy(item),
            history=torch.from_numpy(left_pad(histories, max_len)),
            history_rating=None if rating is None else torch.from_numpy(rating),
            label=None, rows=None,
            scenario=None if scenarios is None else torch.from_numpy(
                np.asarray(scenarios, np.int64)
            ),
        ).to(device_of(net))  # fmt: skip
        with torch.no_grad():
            return predictions(net, batch).cpu().numpy()


def predictions(net: Any, batch: Any) -> Any:
    """Return float32 (B,): a rating where ``net`` predicts ratings, else a click's probability."""
    import torch

    if hasattr(net, "ratings"):
        return net.ratings(batch).float()
    return torch.sigmoid(net.logits(batch)).float()


def load_served(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Served:
    """Return the served model of an export; needs numpy and torch alone."""
    return Served(rebuild(config, arrays))
