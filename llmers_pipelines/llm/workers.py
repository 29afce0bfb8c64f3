"""Many requests at once in threads, results in this one, as each is ready."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from .clock import Stop

T = TypeVar("T")
R = TypeVar("R")


def stream(
    work: Callable[[T], R | None],
    items: Iterable[T],
    *,
    workers: int,
    stop: Stop,
    halt: Callable[[], bool] | None = None,
) -> Iterator[R]:
    """Yield what ``work`` returns, without the Nones, in order of completion.

    After ``halt()`` or ``stop`` nothing is begun; what is under way ends and is yielded. So it is
    after an interrupt from the keyboard or a fault in ``work``: these are raised at the end, a
    second interrupt at once.
    """
    done: SimpleQueue[R | BaseException | None] = SimpleQueue()

    def one(item: T) -> None:
        try:
            done.put(work(item))
        except BaseException as error:
            done.put(error)

    waiting = iter(items)
    flying = 0
    more = True
    fault: BaseException | None = None
    with ThreadPoolExecutor(workers, thread_name_prefix="llmers-call") as pool:
        try:
            while True:
                while more and flying < workers:
                    if stop.set or (halt is not None and halt()):
                        more = False
                        break
                    try:
                        pool.submit(one, next(waiting))
                    except StopIteration:
                        more = False
                        break
                    flying += 1
                if not flying:
                    break
                try:
                    result = done.get()
                except KeyboardInterrupt as error:
                    if fault is not None:
                        raise
                    fault = error
                    stop.now("interrupted")
                    continue
                flying -= 1
                if isinstance(result, BaseException):
                    fault = fault or result
                    stop.now("a call failed unexpectedly")
                elif result is not None:
                    yield result
        finally:
            stop.now("closed")  # nobody waits for an allowance any longer
    if fault is not None:
        raise fault
