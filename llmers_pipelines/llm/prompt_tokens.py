"""How many tokens a prompt has: counted where the tokenizer is here, else approximated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..store.responses import ResponseStore
from .history import characters_per_token, costs
from .pictures import images_in, texts_of

ASSUMED_CHARACTERS = 4.0  # per token, where no answer of the model tells
Counter = Callable[[Sequence[Any]], float]  # messages -> prompt tokens


def prompt_counter(settings: Any, info: Any, store: ResponseStore) -> tuple[Counter, str, int]:
    """Return (counts the tokens of messages, how, most tokens that the model reads; 0 = unknown).

    A local model's own tokenizer and chat template where it has them, else characters divided by
    those per token of the model's stored answers, else by four.
    """
    if info.tokenizer_sha256:
        from .hf_tokens import context_of, load_tokenizer, prompt_ids
        from .hf_vision import VisionPrompts
        from .identity import model_folder

        folder = model_folder(settings.model, settings.model_revision)
        tokenizer = load_tokenizer(folder)
        vision = VisionPrompts(folder, tokenizer) if info.image_processor else None

        def exact(messages: Sequence[Any]) -> float:
            try:
                return len(vision.ids(messages) if vision else prompt_ids(tokenizer, messages))
            except ValueError:  # an image: the engine refuses the row and nothing is paid
                return 0

        return exact, "the model's own tokenizer and chat template", context_of(folder)
    earlier = costs(store, identity=info.identity)
    ratio = characters_per_token(earlier)
    how = f"{ratio:.2f} characters per token, from {len(earlier):,} earlier answers of the model"
    if not ratio:
        ratio = ASSUMED_CHARACTERS
        how = f"{ratio:g} characters per token assumed: no answer of the model is stored yet"

    def approximate(messages: Sequence[Any]) -> float:
        texts = sum(len(texts_of(m)) for m in messages) / ratio
        images = len(images_in(messages))
        return texts + (images * settings.image_tokens if images else 0)

    return approximate, how, 0


def text_counter(settings: Any, info: Any, store: ResponseStore) -> Callable[[str], float]:
    """Return what counts the tokens of a text without a chat around it, as ``prompt_counter``."""
    if info.tokenizer_sha256:
        from .hf_tokens import load_tokenizer
        from .identity import model_folder

        tokenizer = load_tokenizer(model_folder(settings.model, settings.model_revision))
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
    ratio = characters_per_token(costs(store, identity=info.identity)) or ASSUMED_CHARACTERS
    return lambda text: len(text) / ratio
