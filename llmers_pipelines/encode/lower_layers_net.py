"""The lower layers of a transformer alone: states below a layer, and nothing above is computed."""

from __future__ import annotations

from typing import Any, NoReturn

from torch import Tensor, nn


class _Reached(Exception):
    """Carries the states (B, L, E) that enter a layer out of the forward pass."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("the layer was reached")
        self.states = states


class LowerLayers:
    """``hidden_states[layer]`` of a model whose layers above ``layer`` are dropped for good.

    What enters layer k + 1 is what transformers lists as ``hidden_states[k]``, whatever the
    architecture adds after its last layer. The pass ends there; the layer at which it ends stays
    in memory, unused, since some models read its settings before they call it.
    """

    def __init__(self, model: Any, layer: int) -> None:
        """Raise ``ValueError`` for a layer that the model does not have."""
        self.model = model
        self.stack = stack_of(model)
        total = None if self.stack is None else len(self.stack)
        self.layer = layer if layer >= 0 or total is None else total + 1 + layer
        if total is not None and not 0 <= self.layer <= total:
            raise ValueError(f"layer {layer} of a model with {total} layers; choose 0 to {total}")
        # Nothing lies above the last layer but its norm, which belongs to its states.
        self.cut = self.stack is not None and self.layer < len(self.stack)
        if self.cut and self.stack is not None:
            del self.stack[self.layer + 1 :]
            self.stack[self.layer].register_forward_pre_hook(_stop, with_kwargs=True)

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, L, E) of tokens (B, L)."""
        if not self.cut:
            out = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            return out.hidden_states[self.layer]
        try:
            self.model(input_ids=ids, attention_mask=mask)
        except _Reached as reached:
            return reached.states
        raise RuntimeError(f"{type(self.model).__name__} never came to its layer {self.layer + 1}")


def stack_of(model: Any) -> nn.ModuleList | None:
    """Return the one list of the model's layers; None where its form is another one."""
    total = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    return lists[0] if len(lists) == 1 else None


def _stop(layer: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> NoReturn:
    raise _Reached(args[0] if args else given["hidden_states"])
