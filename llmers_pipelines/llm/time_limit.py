"""A time limit that holds for a whole exchange over the network, however slowly bytes trickle.

A socket's own timeout begins anew with each byte that comes, in a header as in a body. Here a
watchdog shuts every socket that the exchange uses once its time is over, so that whatever is being
read or written ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from types import TracebackType

_here = threading.local()


class TimeLimit:
    """``seconds`` for everything that this thread does inside of ``with``, in all."""

    def __init__(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.over = False
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    @property
    def left(self) -> float:
        """Seconds that are left; 0 or less once it is over."""
        return 0.0 if self.over else self.until - time.monotonic()

    def watch(self, line: socket.socket) -> None:
        """Shut ``line`` when the time is over; at once if it is.

        A copy of its handle is watched: TLS puts another object in the place of the socket, and an
        HTTP connection lets go of it while its answer is still read.
        """
        with contextlib.suppress(OSError):
            own = socket.socket(fileno=os.dup(line.fileno()))
            with self._lock:
                self._lines.append(own)
                if self.over:
                    _shut(own)

    def _end(self) -> None:
        with self._lock:
            self.over = True
            for line in self._lines:
                _shut(line)

    def __enter__(self) -> TimeLimit:
        _here.limit = self
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        _here.limit = None
        self._timer.cancel()
        with self._lock:
            for line in self._lines:
                line.close()
            self._lines.clear()


def watch(line: socket.socket | None) -> None:
    """Let the limit that this thread is under, if any, watch ``line``."""
    limit: TimeLimit | None = getattr(_here, "limit", None)
    if limit is not None and line is not None:
        limit.watch(line)


def _shut(line: socket.socket) -> None:
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
