"""Prompts with images for a vision-language model in Hugging Face form, through its processor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .batching import chat_text
from .pictures import images_in, pixels_of
from .protocol import Message

if TYPE_CHECKING:
    from .hf_decode import Work


class VisionPrompts:
    """The processor of a model folder: chats as text, as token ids, and as input of a batch.

    The chat template writes one placeholder per image; the processor repeats it once per token that
    the image takes. ``short`` are ids before, ``ids`` after that.
    """

    def __init__(self, folder: Path, tokenizer: Any) -> None:
        self.folder = folder
        self.tokenizer = tokenizer

    @cached_property
    def processor(self) -> Any:
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(self.folder, trust_remote_code=False)
        if not self.tokenizer.chat_template:
            self.tokenizer.chat_template = getattr(processor, "chat_template", None)
        processor.tokenizer.pad_token = self.tokenizer.pad_token
        return processor

    def text(self, messages: Sequence[Message]) -> str:
        """Return the chat as the template writes it; ``ValueError`` where there is no template."""
        processor = self.processor
        if not self.tokenizer.chat_template:
            if images_in(messages):
                raise ValueError("the model has no chat template, which says where images go")
            return chat_text(processor.tokenizer, messages)
        return chat_text(self.tokenizer, [_in_parts(m) for m in messages])

    def short(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids of a chat with one placeholder per image."""
        text = self.text(messages)
        return self.tokenizer(text, add_special_tokens=self._plain)["input_ids"]

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the token ids that the model reads; ``ValueError`` where an image is no input."""
        if not (images := images_in(messages)):
            return self.short(messages)
        found = self._inputs([self.text(messages)], [[pixels_of(image) for image in images]])
        return found["input_ids"][0].tolist()

    def batch(self, works: Sequence[Work], images: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the tensors of a batch, left-padded; ``images`` holds each row's pixels."""
        texts = [self.text(work.request.messages) for work in works]
        return dict(self._inputs(texts, [list(row) for row in images]))

    def _inputs(self, texts: list[str], images: list[list[Any]]) -> Any:
        try:
            return self.processor(
                text=texts, images=images, padding=True, padding_side="left",
                add_special_tokens=self._plain, return_tensors="pt",
            )  # fmt: skip
        except Exception as error:  # of many kinds, by model: a picture that it cannot take
            raise ValueError(
                f"the model's processor refuses the prompt ({type(error).__name__}: {error})"
            ) from error

    @property
    def _plain(self) -> bool:
        """A chat template writes its own special tokens; without one the tokenizer adds them."""
        return not self.tokenizer.chat_template


def _in_parts(message: Message) -> dict[str, Any]:
    """Return the message as templates of such models read it: parts, an image as its mark alone."""
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    told = [{"type": "image"} if part.get("type") == "image" else dict(part) for part in parts]
    return {"role": message["role"], "content": told}
