"""Pictures from the web: bounded in size and time, and never from this machine or its network.

Each hop is resolved here, every address that its name has is looked at, and the connection goes to
the address that was looked at, so that a name cannot mean another machine a moment later. Proxies
of the environment are not used: they would resolve names behind our back.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from ..images import ImageSettings
from .time_limit import TimeLimit, watch

_BLOCK = 65_536
_REDIRECTS = (301, 302, 303, 307, 308)
_PLAIN = ("application/octet-stream", "binary/octet-stream", "")  # types that say nothing
Resolve = Callable[[str, int], Sequence[str]]


class FetchError(ValueError):
    """An address gave no picture; the message says why."""


@dataclass(frozen=True)
class Fetched:
    """The bytes of an address; None where they are those of the ETag that was sent."""

    data: bytes | None
    etag: str = ""


def resolve(host: str, port: int) -> Sequence[str]:
    """Return every address of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def fetch(
    url: str, settings: ImageSettings, *, etag: str = "", resolve: Resolve = resolve
) -> Fetched:
    """Return what ``url`` holds; ``FetchError`` with the reason.

    With ``etag`` the server may say that nothing changed.
    """
    with TimeLimit(settings.timeout_seconds) as limit:
        for _ in range(settings.redirects + 1):
            try:
                found = _hop(url, settings, etag, resolve, limit)
            except FetchError:
                raise
            except (OSError, ssl.SSLError, http.client.HTTPException, ValueError) as error:
                raise FetchError(f"{type(error).__name__}: {error}") from error
            if isinstance(found, Fetched):
                return found
            url = urljoin(url, found)
    raise FetchError(f"more than images.redirects = {settings.redirects} redirects")


def checked(url: str) -> SplitResult:
    """Return the parts of a web address; ``FetchError`` for others, and for one with a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here: a port that is no number raises only when it is asked for
    except ValueError:  # its words may repeat a password that is taken for a port
        raise FetchError("it is no web address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("it is no http or https address")
    if parts.username or parts.password:
        raise FetchError("the address holds a user or a password")
    return parts


def public(address: str) -> bool:
    """Say whether an IP address is one of the public internet."""
    ip = ipaddress.ip_address(address.split("%")[0])
    inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    if inner is not None and not public(str(inner)):
        return False
    if (teredo := getattr(ip, "teredo", None)) is not None and not public(str(teredo[1])):
        return False
    if ip.version == 6 and ip in _NAT64 and not public(str(ipaddress.ip_address(int(ip) % 2**32))):
        return False
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _hop(
    url: str, settings: ImageSettings, etag: str, resolve: Resolve, limit: TimeLimit
) -> Fetched | str:
    """Return the bytes of ``url``, or where it redirects to."""
    parts = checked(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = list(resolve(host, port))
    if not addresses:
        raise FetchError(f"the name {host} has no address")
    private = [a for a in addresses if not public(a)]
    if private and not settings.private_addresses:
        raise FetchError(
            f"{host} is {private[0]}, an address of this machine or a local network; where that is "
            "meant, set images.private_addresses = true"
        )
    connection = _Pinned(parts.scheme, host, port, addresses[0], _left(limit))
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "llmers"}
        connection.request("GET", path, headers=headers | (
            {"If-None-Match": etag} if etag else {}
        ))  # fmt: skip
        response = connection.getresponse()
        if response.status in _REDIRECTS:
            if not (place := response.getheader("Location")):
                raise FetchError(f"it answers {response.status} without a place to go")
            return place
        if response.status == 304 and etag:
            return Fetched(None, etag)
        if response.status != 200:
            raise FetchError(f"it answers {response.status} {response.reason}")
        return Fetched(_body(response, settings, limit),
                       response.getheader("ETag") or "")  # fmt: skip
    except (OSError, http.client.HTTPException, ValueError):
        _left(limit)
        raise
    finally:
        connection.close()


def _body(response: Any, settings: ImageSettings, limit: TimeLimit) -> bytes:
    kind = (response.getheader("Content-Type") or "").split(";")[0].strip().lower()
    allowed = {f"image/{t}" for t in settings.types} | {*_PLAIN}
    if "jpeg" in settings.types:
        allowed.add("image/jpg")
    if kind not in allowed:
        raise FetchError(f"it is {kind}, not a picture of type {', '.join(settings.types)}")
    most = int(settings.max_megabytes * 1_000_000)
    too_large = f"it is larger than images.max_megabytes = {settings.max_megabytes:g}"
    length = response.getheader("Content-Length") or ""
    if length.isdigit() and int(length) > most:
        raise FetchError(too_large)
    data = bytearray()
    while True:
        _left(limit)
        block = response.read1(_BLOCK)
        if not block:
            break
        data += block
        if len(data) > most:
            raise FetchError(too_large)
    _left(limit)  # a line that was cut ends like one that is done
    if length.isdigit() and len(data) < int(length):
        raise FetchError(f"it broke off after {len(data)} of {length} bytes")
    return bytes(data)


def _left(limit: TimeLimit) -> float:
    if (left := limit.left) <= 0:
        raise FetchError("it took longer than images.timeout_seconds")
    return left


class _Pinned(http.client.HTTPConnection):
    """A connection to one address, which is asked (and shows its certificate) as ``host``."""

    def __init__(self, scheme: str, host: str, port: int, address: str, timeout: float) -> None:
        usual = 443 if scheme == "https" else 80
        self.default_port = usual  # so that the Host header leaves a usual port out
        super().__init__(host, port, timeout=timeout)
        self._address = address
        self._secure = scheme == "https"

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        watch(self.sock)
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
