"""A request in the form of the chat-completions interface, and an answer read back from it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .pictures import images_in, png_of
from .protocol import GenRequest, Message
from .token_use import believable, usage_of

CHAT = "/v1/chat/completions"  # as batch files name it
_DATA_URL = "data:image/png;base64,"
SCHEMAS = ("full", "lean", "none")
LIMITS = ("max_tokens", "max_completion_tokens")
_STRUCTURE = ("type", "properties", "required", "additionalProperties", "items", "enum", "const",
              "anyOf")  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What of a request an endpoint understands. It is no part of the answer's key.

    ``schema``: the whole schema, its structure without limits of length and range (some providers
    refuse these), or none. ``limit``: the field that bounds an answer's tokens.
    """

    schema: str = "full"
    limit: str = "max_tokens"
    seed: bool = True
    images: bool = False


def chat_body(model: str, request: GenRequest, form: Form) -> dict[str, Any]:
    """Return the body of a chat completion, images as data URLs of PNG files.

    Raises ``ValueError`` where a message holds an image and the endpoint's model reads none, or
    where the image cannot be read.
    """
    if not form.images and images_in(request.messages):
        raise ValueError(
            "this engine sends text only; the request holds an image. Where the endpoint's model "
            "reads images, set llm.images = true"
        )
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(m) for m in request.messages],
        form.limit: request.max_tokens,
        "temperature": request.temperature,
    }
    if request.top_p != 1.0:
        body["top_p"] = request.top_p
    if form.seed:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    if (schema := sent_schema(request, form)) is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": schema},
        }
    return body


def _message(message: Message) -> dict[str, Any]:
    content = message["content"]
    parts = content if isinstance(content, str) else [_part(part) for part in content]
    return {"role": message["role"], "content": parts}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if part.get("type") != "image":
        return dict(part)
    data = base64.b64encode(png_of(part["image"])).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"{_DATA_URL}{data}"}}


def sent_schema(request: GenRequest, form: Form) -> Mapping[str, Any] | None:
    """Return the schema that is sent with ``request``: what the answer must obey."""
    if request.schema is None or form.schema == "none":
        return None
    return request.schema if form.schema == "full" else lean(request.schema)


def lean(schema: Any) -> Any:
    """Return ``schema`` without limits of length and range."""
    if not isinstance(schema, Mapping):
        return schema
    out = {name: schema[name] for name in _STRUCTURE if name in schema}
    if "properties" in out:
        out["properties"] = {name: lean(inner) for name, inner in out["properties"].items()}
    if "items" in out:
        out["items"] = lean(out["items"])
    if "anyOf" in out:
        out["anyOf"] = [lean(inner) for inner in out["anyOf"]]
    return out


def most_tokens(body: Mapping[str, Any], image_tokens: int = 0) -> int:
    """Return a bound that the prompt's tokens do not exceed: no token is shorter than a byte.

    The JSON around the texts is longer than the marks that a chat template puts there. An image
    counts ``image_tokens``, whatever its bytes.
    """
    images = 0

    def counted(value: Any) -> Any:
        nonlocal images
        if isinstance(value, dict) and value.get("type") == "image_url":
            images += 1
            return "image"
        if isinstance(value, dict):
            return {name: counted(inner) for name, inner in value.items()}
        return [counted(inner) for inner in value] if isinstance(value, list) else value

    seen = counted([body.get(name) for name in ("messages", "input")])
    text = json.dumps([*seen, body.get("response_format")], ensure_ascii=False)
    return len(text.encode("utf-8", "replace")) + 64 + images * image_tokens


@dataclass(frozen=True)
class Completion:
    """What came back. ``known``: the endpoint said how many tokens it used."""

    text: str
    finish_reason: str
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    known: bool = False
    served: str = ""

    def within(self, most: tuple[int, int]) -> Completion:
        """Return this with its counts, or without them where no call can have used so much."""
        if not self.known or believable(self.tokens_in, self.tokens_out, most):
            return self
        return replace(self, tokens_in=0, tokens_out=0, cached=0, known=False)


def read_completion(document: Any) -> Completion:
    """Return the answer in a response body; ``ValueError`` says what such a body lacks."""
    if not isinstance(document, Mapping):
        raise ValueError("the body is no JSON object")
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise ValueError("the body holds no choices")
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        raise ValueError("the first choice holds no message")
    text = _text(message.get("content"))
    reason = choices[0].get("finish_reason") or "stop"
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        text, reason = refusal, "refusal"
    elif reason not in ("length", "content_filter", "refusal"):
        reason = "length" if reason in ("max_tokens", "max_length") else "stop"
    counted = usage_of(document, text=text)
    served = document.get("model")
    return Completion(
        text, reason, *(counted or (0, 0, 0)), known=counted is not None,
        served=served if isinstance(served, str) else "",
    )  # fmt: skip


def _text(content: Any) -> str:
    """Return a message's text: a string, null, or a list of parts."""
    if isinstance(content, list):
        parts = (p.get("text") for p in content if isinstance(p, Mapping))
        return "".join(p for p in parts if isinstance(p, str))
    if content is not None and not isinstance(content, str):
        raise ValueError(f"the message's content is {type(content).__name__}, not text")
    return content or ""


def same_model(asked: str, served: str) -> bool:
    """Say whether ``served`` may be the model ``asked`` for: equal, or with a version behind it."""
    if not served or served.casefold() == asked.casefold():
        return True
    name = re.escape(asked.casefold())
    return re.fullmatch(rf"{name}[-@:.]v?\d[\d.-]*", served.casefold()) is not None
