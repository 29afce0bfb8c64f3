"""Answers through vLLM: how a request is sampled, and what its output says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from .hf_decode import Work, loaded, result_of, row_seed
from .pictures import image_sha256
from .protocol import GenResult, Halt
from .structured import grammar_text
from .vllm_machine import stream


def answers(
    machine: Any,
    tokenizer: Any,
    works: Iterable[Work | GenResult],
    *,
    adapter: str = "",
    halt: Halt | None = None,
) -> Iterator[GenResult]:
    """Yield the result of each work as it is finished, and failures as they are met."""
    failed: list[GenResult] = []

    def jobs() -> Iterator[tuple[Work, dict[str, Any], Any]]:
        for work in works:
            if isinstance(work, GenResult):
                failed.append(work)
                continue
            prompt: dict[str, Any] = {"prompt_token_ids": work.prompt}
            if work.images:  # vLLM itself repeats the placeholders
                pixels, lost = loaded([work])
                if lost:
                    failed.extend(lost)
                    continue
                prompt = {
                    "prompt_token_ids": list(work.short),
                    "multi_modal_data": {"image": pixels[work.place]},
                    "multi_modal_uuids": {"image": [image_sha256(i) for i in work.images]},
                }
            yield work, prompt, partial(sampling, work)

    for work, output in stream(machine, jobs(), adapter=adapter, halt=halt):
        yield from failed
        failed.clear()
        yield _result(tokenizer, work, output)
    yield from failed


def sampling(work: Work) -> Any:
    """Return vLLM's sampling of one request; raises where it cannot be had.

    Everything is said, since the model's own sampling defaults are in no key. The seed is the
    row's own. Text is made here from tokens, as the transformers engine makes it; vLLM needs it
    only to look for stop strings.
    """
    from vllm import SamplingParams  # pyright: ignore

    request = work.request
    draws = request.temperature > 0
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p if draws else 1.0,
        seed=row_seed(request.seed, work.drawn_from) if draws else None,
        stop=list(request.stop) or None,
        detokenize=bool(request.stop),
        structured_outputs=_bound(request.schema) if request.schema else None,
    )


def _bound(schema: Any) -> Any:
    """Return the schema as a grammar.

    vLLM's own reading of a schema lets any amount of white space in between, or none; a grammar
    keeps the one layout that the transformers engine has as well.
    """
    from vllm.sampling_params import (  # pyright: ignore
        StructuredOutputsParams,
    )

    return StructuredOutputsParams(grammar=grammar_text(schema))


def _result(tokenizer: Any, work: Work, output: Any) -> GenResult:
    row_id = work.request.row_id
    if isinstance(output, str):
        return GenResult.failed(row_id, output)
    answer = output.outputs[0]
    if answer.finish_reason not in ("stop", "length"):
        return GenResult.failed(
            row_id,
            f"vLLM ended the request: {answer.finish_reason}",
            tokens_in=len(work.prompt),
            tokens_out=len(answer.token_ids),
        )
    tokens = list(answer.token_ids)
    # A stop string is found again in the text; else the last token is what ended the answer.
    ended = answer.finish_reason == "stop" and not isinstance(answer.stop_reason, str)
    return result_of(tokenizer, tokens[-1:] if ended else (), work, tokens)
