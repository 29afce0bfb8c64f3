"""One POST to an OpenAI-compatible endpoint. The key goes into a header and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import NewConnectionError

from .key_scrub import without_key
from .time_limit import TimeLimit
from .watched_http import WatchedAdapter

LARGEST = 64 * 2**20  # bytes of a response
_SHOWN = 300  # characters of an endpoint's message


@dataclass(frozen=True)
class Reply:
    """What came back. ``status`` 0: no response. ``fault``: why it cannot be read, or what failed.

    ``reached``: the request may have arrived, so that it may have been billed.
    """

    status: int
    document: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""
    reached: bool = True


class _Bearer(AuthBase):
    """Sets the header itself, so that no ``.netrc`` of the machine takes its place."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: Any) -> Any:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def __repr__(self) -> str:
        return "_Bearer()"


class Http:
    """Keeps connections open for ``connections`` workers. Retries and redirects are not its own."""

    def __init__(self, endpoint: str, key: str, *, timeout: float, connections: int) -> None:
        self.endpoint = endpoint
        self.host = host_of(endpoint)
        self._key = key
        self._timeout = timeout
        self._session = requests.Session()
        self._session.auth = _Bearer(key)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = WatchedAdapter(pool_connections=1, pool_maxsize=connections, max_retries=0)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def post(self, path: str, body: Mapping[str, Any]) -> Reply:
        """Send ``body`` and return the reply; what fails on the way is a reply as well.

        The time limit holds for all of it, the connection, the head and the body together.
        """
        data = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        late = f"no answer within {self._timeout:g} s"
        with TimeLimit(self._timeout) as limit:
            try:
                with self._session.post(
                    self.endpoint + path,
                    data=data,
                    headers={"Content-Type": "application/json"},
                    timeout=(min(self._timeout, 30.0), self._timeout),
                    allow_redirects=False,
                    stream=True,
                ) as response:
                    status = response.status_code
                    headers = {name.lower(): value for name, value in response.headers.items()}
                    raw = _read(response)
            except requests.exceptions.ConnectTimeout:
                return Reply(0, fault="no connection within the time limit", reached=False)
            except (requests.exceptions.Timeout, TimeoutError):
                return Reply(0, fault=late)
            except requests.exceptions.RequestException as error:
                fault = late if limit.over else self._said(error)
                return Reply(0, fault=fault, reached=limit.over or not _unconnected(error))
            if limit.over:  # what was read ends where the line was cut, even within a header
                return Reply(0, fault=late)
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            text = raw.decode("utf-8", "replace")  # whole: a cut could leave half of the key
            return Reply(status, None, headers, self.scrub(f"not JSON: {text}", always=True))
        return Reply(status, document, headers)

    def _said(self, error: Exception) -> str:
        inner: BaseException = error
        while inner.args and isinstance(inner.args[-1], BaseException):
            inner = inner.args[-1]
        reason = getattr(inner, "reason", None) or inner
        return self.scrub(f"{type(error).__name__}: {reason}", always=True)

    def message(self, reply: Reply) -> str:
        """Return what the endpoint says of its refusal, short and without the key."""
        error = error_of(reply.document)
        said = error.get("message") or reply.fault or reply.document or ""
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        return self.scrub(text, always=True)

    def scrub(self, text: str, *, always: bool = False) -> str:
        """Return ``text`` without the key; ``always``: a message, shortened, and any key at all."""
        text = without_key(text, self._key, always=always)
        return " ".join(text.split())[:_SHOWN] if always else text

    def close(self) -> None:
        self._session.close()


def _read(response: requests.Response) -> bytes:
    parts, size = [], 0
    for part in response.iter_content(1 << 16):
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise requests.exceptions.ContentDecodingError("the response is too large")
    return b"".join(parts)


def host_of(endpoint: str) -> str:
    """Return how messages name an endpoint: a path may hold what nobody should read."""
    return urlsplit(endpoint).netloc


def error_of(document: Any) -> Mapping[str, Any]:
    """Return the ``error`` object of a body, or of the body itself where it is one; else {}."""
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, Mapping):
        return {}
    error = document.get("error")
    if isinstance(error, Mapping):
        inner = error.get("error")  # batch outputs of vLLM wrap it twice
        return inner if isinstance(inner, Mapping) else error
    if isinstance(error, str):
        return {"message": error}
    if document.get("object") == "error" or ("message" in document and "choices" not in document):
        return document
    if isinstance(document.get("detail"), str):
        return {"message": document["detail"]}
    return {}


def _unconnected(error: Exception) -> bool:
    inner = error.args[0] if error.args else None
    reason = getattr(inner, "reason", inner)
    return isinstance(error, requests.exceptions.SSLError) or isinstance(reason, NewConnectionError)
