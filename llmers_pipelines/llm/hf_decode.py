"""Decoding of one batch, where each row draws, stops and is bound on its own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList, StoppingCriteriaList

from .pictures import image_sha256, pixels_of
from .protocol import GenRequest, GenResult
from .structured import Grammars, SchemaError


@dataclass(frozen=True)
class Work:
    """One request with its prompt's token ids and its place in the caller's list.

    ``short``: the ids with one placeholder per image, where there are images.
    """

    place: int
    request: GenRequest
    prompt: list[int]
    images: tuple[Any, ...] = ()  # image parts, in order
    short: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.prompt) + self.request.max_tokens

    @property
    def drawn_from(self) -> list[Any]:
        """What a row's noise depends on, beside its seed: prompts alike may show other images."""
        return [*self.prompt, *map(image_sha256, self.images)]


def decode(
    model: Any, tokenizer: Any, grammars: Grammars, batch: list[Work], vision: Any = None
) -> list[GenResult]:
    """Return the results of ``batch``; rows whose schema cannot be enforced are errors.

    All rows hold images (then ``vision`` makes the input), or none does.
    """
    refused = {w.request.row_id: reason for w in batch if (reason := _refusal(grammars, w))}
    results = [GenResult.failed(row_id, reason) for row_id, reason in refused.items()]
    batch = [work for work in batch if work.request.row_id not in refused]
    pixels, lost = loaded(batch)
    results += lost
    batch = [work for work in batch if work.place in pixels]
    if not batch:
        return results
    requests = [work.request for work in batch]
    if any(work.images for work in batch):
        inputs = vision.batch(batch, [pixels[work.place] for work in batch])
    else:
        inputs = _padded(tokenizer, batch)
    width = inputs["input_ids"].shape[1]
    processors: list[Any] = [RowSampler(requests, [work.drawn_from for work in batch])]
    if any(r.schema for r in requests):
        processors.insert(0, grammars.rows([r.schema for r in requests], width))
    with torch.inference_mode():
        out = model.generate(
            **{name: _on(model, value) for name, value in inputs.items()},
            max_new_tokens=max(r.max_tokens for r in requests),
            do_sample=False,
            logits_processor=LogitsProcessorList(processors),
            stopping_criteria=StoppingCriteriaList([RowLimits(requests, width, tokenizer)]),
        )[:, width:]
    ends = model.generation_config.eos_token_id
    answers = zip(batch, out.tolist(), strict=True)
    return results + [result_of(tokenizer, ends, work, tokens) for work, tokens in answers]


def _padded(tokenizer: Any, batch: list[Work]) -> dict[str, torch.Tensor]:
    width = max(len(work.prompt) for work in batch)
    ids = torch.full((len(batch), width), tokenizer.pad_token_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, work in enumerate(batch):  # left padding: all rows continue at one position
        ids[row, width - len(work.prompt) :] = torch.tensor(work.prompt)
        mask[row, width - len(work.prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _on(model: Any, value: Any) -> Any:
    """Return a tensor on the model's device; pixels in its precision."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(model.device, model.dtype if value.is_floating_point() else value.dtype)


def loaded(batch: Sequence[Work]) -> tuple[dict[int, list[Any]], list[GenResult]]:
    """Return the pixels of each work by its place, and failures where they cannot be read again."""
    pixels: dict[int, list[Any]] = {}
    lost = []
    for work in batch:
        try:
            pixels[work.place] = [pixels_of(image) for image in work.images]
        except ValueError as error:
            lost.append(GenResult.failed(work.request.row_id, str(error)))
    return pixels, lost


def _refusal(grammars: Grammars, work: Work) -> str:
    try:
        if work.request.schema:
            grammars.matcher(work.request.schema)
    except SchemaError as error:
        return str(error)
    return ""


def result_of(tokenizer: Any, ends: Sequence[int], work: Work, tokens: list[int]) -> GenResult:
    """Return the answer that ``tokens`` spell: up to an end token or a stop string."""
    tokens = tokens[: work.request.max_tokens]
    end = next((at for at, token in enumerate(tokens) if token in ends), None)
    text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
    text, stopped = cut_at_stop(text, work.request.stop)
    return GenResult(
        work.request.row_id,
        text,
        "stop" if stopped or end is not None else "length",
        tokens_in=len(work.prompt),
        tokens_out=len(tokens) if end is None else end + 1,
    )


class RowSampler:
    """Turns a greedy search into sampling, row by row (Gumbel-max trick).

    argmax(logits / T + g) with g standard Gumbel noise is a draw from softmax(logits / T). Each row
    has a generator seeded by its own seed and prompt, so its answer does not depend on the batch.
    Rows of temperature 0 stay greedy.
    """

    def __init__(self, requests: Sequence[GenRequest], prompts: Sequence[Sequence[Any]]) -> None:
        self._rows = [
            (row, r.temperature, r.top_p, _generator(r.seed, prompts[row]))
            for row, r in enumerate(requests)
            if r.temperature > 0
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return ``scores`` (B, V) whose argmax is the drawn token."""
        for row, temperature, top_p, generator in self._rows:
            scaled = scores[row].float() / temperature
            if top_p < 1:
                scaled = _nucleus(scaled, top_p)
            noise = torch.rand(scaled.shape, generator=generator).clamp_(min=1e-20)
            scores[row] = (scaled - torch.log(-torch.log(noise)).to(scaled.device)).to(scores.dtype)
        return scores


def _generator(seed: int, prompt: Sequence[Any]) -> torch.Generator:
    return torch.Generator().manual_seed(row_seed(seed, prompt))


def row_seed(seed: int, prompt: Sequence[Any]) -> int:
    """Return a seed of one row's own: under a shared one, all rows would draw the same noise."""
    digest = hashlib.sha256(f"{seed}:{list(prompt)}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return ``logits`` (V,) with tokens outside the smallest set of mass ``top_p`` at -inf."""
    ordered, index = logits.sort(descending=True)
    mass = ordered.softmax(-1).cumsum(-1)
    outside = torch.roll(mass >= top_p, 1)
    outside[0] = False
    return logits.masked_fill(outside[torch.argsort(index)], float("-inf"))


class RowLimits:
    """Stops each row at its own token bound or stop string."""

    def __init__(
        self, requests: Sequence[GenRequest], prompt_length: int, tokenizer: Any
    ) -> None:
        self._bounds = torch.tensor([r.max_tokens for r in requests])
        self._stops = [(row, r.stop) for row, r in enumerate(requests) if r.stop]
        self._prompt_length = prompt_length
        self._tokenizer = tokenizer

    def __call__(self, input_ids: torch.Tensor, scores: Any, **unused: Any) -> torch.Tensor:
        """Return bool (B,): True where the row is done."""
        done = (input_ids.shape[1] - self._prompt_length) >= self._bounds
        for row, stops in self._stops:
            tail = input_ids[row, max(self._prompt_length, input_ids.shape[1] - 32) :]
            text = self._tokenizer.decode(tail)
            done[row] |= any(stop in text for stop in stops)
        return done.to(input_ids.device)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return ``text`` before the first stop string, and whether there was one."""
    places = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)
