"""What a reply of an endpoint means: an answer, a wait, another attempt, or the end of a row."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .chat_form import Completion, Form, read_completion
from .openai_http import Http, Reply, error_of
from .protocol import GenRequest
from .rate import retry_after
from .token_use import usage_of

_LATER = (408, 409, 425)  # and everything from 500 on
# Where no model ran: a conflict, too early, not offered, and a gateway that reached no server.
_NEVER_RAN = (409, 425, 501, 505, 511, 521, 522, 523, 525, 526)
_BUSY = (503, 529)  # with Retry-After: turned away before a model ran
_NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
_TOO_LONG = re.compile(r"context.{0,20}length|context.{0,10}window|too long|too many tokens")


@dataclass(frozen=True)
class Verdict:
    """``kind``: answer | throttled | again | row | stop | form.

    "again" uses up an attempt, "throttled" does not; "row" ends this row with an error, "stop" the
    run; "form" asks once more in the form of ``form``. ``billed``: the model may have run.
    ``completion`` of another kind than "answer" has no text: it is the use that the body states.
    """

    kind: str
    reason: str = ""
    wait: float | None = None  # seconds that the endpoint asked for
    completion: Completion | None = None
    document: Any = None  # the body that the completion was read from
    form: Form | None = None
    billed: bool = False
    healthy: bool = True  # the endpoint itself works; False counts for the circuit breaker


def judge(
    reply: Reply,
    request: GenRequest,
    form: Form,
    http: Http,
    wall: float,
    read: Callable[[Any], Completion] = read_completion,
) -> Verdict:
    """Return what to do about ``reply``; ``wall`` is the time since 1970, for HTTP dates.

    ``read`` takes the body of a good reply and raises ``ValueError`` where it is none. A use that
    the body of a refusal or a fault states is believed.
    """
    verdict = _judge(reply, request, form, http, wall, read)
    if verdict.completion is not None or (used := usage_of(reply.document, text="")) is None:
        return verdict
    stated = Completion("", "error", *used, known=True)
    return replace(verdict, completion=stated, billed=any(used))


def _judge(
    reply: Reply,
    request: GenRequest,
    form: Form,
    http: Http,
    wall: float,
    read: Callable[[Any], Completion],
) -> Verdict:
    status = _status(reply)
    said = http.message(reply) if status != 200 else ""
    wait = retry_after(reply.headers, wall)
    told = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status == 0:
        return Verdict("again", reply.fault, billed=reply.reached, healthy=False)
    if status == 200:
        return _read(reply, read)
    if status == 429:
        if _code(reply) in _NO_MONEY:
            return Verdict("stop", f"the provider's quota is used up ({told})")
        return Verdict("throttled", told, wait)
    if status in _LATER or status >= 500:
        return Verdict("again", told, wait, billed=_may_have_run(status, wait),
                       healthy=status in _LATER)  # fmt: skip
    if status in (400, 422):
        return _refused(reply, request, form, said, told)
    if status == 413:
        return Verdict("row", told)
    return Verdict("stop", _final(status, told, http.host))


def _may_have_run(status: int, wait: float | None) -> bool:
    """Say whether a model may have worked before a fault that passes: then it may be billed.

    A gateway that gave up waiting (408, 502, 504, 524) and a server that broke (500) do not say
    how far the model came.
    """
    return status not in _NEVER_RAN and not (status in _BUSY and wait is not None)


def _status(reply: Reply) -> int:
    """Return the status; some gateways answer 200 with an error object in the body."""
    if reply.status == 200 and isinstance(reply.document, dict) and "choices" not in reply.document:
        code = error_of(reply.document).get("code")
        if isinstance(code, int) and 400 <= code < 600:
            return code
    return reply.status


def _code(reply: Reply) -> str:
    error = error_of(reply.document)
    return str(error.get("code") or error.get("type") or "")


def _read(reply: Reply, read: Callable[[Any], Completion]) -> Verdict:
    if reply.document is None:
        return Verdict("again", f"the response is {reply.fault}", billed=True, healthy=False)
    try:
        completion = read(reply.document)
    except ValueError as error:
        return Verdict("again", f"not an answer: {error}", billed=True, healthy=False)
    return Verdict("answer", completion=completion, document=reply.document, billed=True)


def _refused(reply: Reply, request: GenRequest, form: Form, said: str, told: str) -> Verdict:
    """Return what a refused request means: too long, a field that is not known, or its schema."""
    error = error_of(reply.document)
    field = str(error.get("param") or "")
    if _code(reply) == "context_length_exceeded" or _TOO_LONG.search(said.lower()):
        return Verdict("row", told)
    if form.limit == "max_tokens" and "max_completion_tokens" in said:
        return Verdict("form", told, form=replace(form, limit="max_completion_tokens"))
    if field in ("temperature", "top_p"):
        value = getattr(request, field)
        mend = " (set llm.temperature to one that it takes)" if field == "temperature" else ""
        return Verdict("stop", f"the model does not take {field} = {value:g}{mend}: {told}")
    if form.seed and (field == "seed" or re.search(r"\bseed\b", said)):
        return Verdict("form", told, form=replace(form, seed=False))
    if request.schema is not None and form.schema != "none":
        lower = "lean" if form.schema == "full" else "none"
        return Verdict("form", told, form=replace(form, schema=lower))
    return Verdict("row", told)


def _final(status: int, told: str, host: str) -> str:
    if status in (401, 403):
        return (
            f"{host} refuses the key ({told}); set the variable that llm.api_key_env names, "
            "and check what the key may use"
        )
    if status == 402:
        return f"{host} wants to be paid first ({told})"
    if status in (404, 405):
        return (
            f"{host} knows no such path or model ({told}); check llm.endpoint (it usually ends "
            "in /v1) and llm.model"
        )
    if 300 <= status < 400:
        return f"{host} redirects ({told}); set llm.endpoint to where it leads"
    return f"{host} refuses the request ({told})"
