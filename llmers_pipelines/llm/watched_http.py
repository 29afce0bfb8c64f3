"""Connections of ``requests`` whose sockets the thread's time limit watches."""

from __future__ import annotations

import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager

from .time_limit import watch


class _Plain(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        line = super()._new_conn()
        watch(line)
        return line

    def request(self, *args: Any, **more: Any) -> None:
        watch(self.sock)  # one that an earlier call left open
        super().request(*args, **more)


class _Secure(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        line = super()._new_conn()
        watch(line)  # before TLS: its handshake may trickle as well
        return line

    def request(self, *args: Any, **more: Any) -> None:
        watch(self.sock)
        super().request(*args, **more)


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain  # type: ignore[assignment]


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure  # type: ignore[assignment]


class WatchedAdapter(HTTPAdapter):
    """As its parent; a SOCKS proxy has connections of its own, which stay as they are."""

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more)
        _watched(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **more)
        if not proxy.lower().startswith("socks"):
            _watched(manager)
        return manager


def _watched(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}
