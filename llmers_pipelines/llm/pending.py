"""What a run would ask now: requests without a stored answer, second ones for refused answers."""

from __future__ import annotations

from ..prompts.task import Context, PromptTask
from ..store.responses import ResponseStore
from .asking import Ask, from_store, keyed
from .protocol import EngineInfo, Sampling
from .runner import Rows, by_id, judge_result, render, repair_request, told_context


def pending(
    task: PromptTask,
    rows: Rows,
    info: EngineInfo,
    store: ResponseStore,
    *,
    sampling: Sampling,
    context: Context = None,
) -> list[Ask]:
    """Return the missing requests, each key once, as ``run_task`` would render them.

    A stored answer that the task refuses makes its repair request missing, unless that is stored.
    """
    context = told_context(context, info)
    asks = [
        keyed(row, render(task, row_id, row, sampling, context), info)
        for row_id, row in by_id(rows, task).items()
        if not task.unaskable(row, context)
    ]
    found = store.lookup(ask.key for ask in asks)
    wanted = {ask.key: ask for ask in reversed(asks) if ask.key not in found}
    again = []
    for ask in asks:
        if ask.key in found:
            first = from_store(found[ask.key])
            refused = judge_result(task, ask, first)
            if second := repair_request(task, ask, first, refused):
                again.append(keyed(ask.row, second, info))
    known = store.known(ask.key for ask in again)
    wanted |= {ask.key: ask for ask in reversed(again) if ask.key not in known}
    first_rows = {id(ask): n for n, ask in enumerate([*asks, *again])}
    return sorted(wanted.values(), key=lambda ask: first_rows[id(ask)])
