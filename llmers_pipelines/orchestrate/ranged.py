"""Numbers of a run config with a range, as types of Dagster's form.

The form shows the type's name, which tells the range, and checks the kind of number while somebody
types: more of a schema does not reach Dagster's web server. Whoever launches has the whole config
read by the code location, and what is out of range is refused there: no run is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from dagster._config import ConfigScalar, ConfigScalarKind
from dagster._config.errors import PostProcessingError

_KINDS = {int: ConfigScalarKind.INT, float: ConfigScalarKind.FLOAT}


class Ranged(ConfigScalar):
    """A number from ``low`` to ``high``; ``unset``: or 0, which leaves the setting as it is."""

    def __init__(self, kind: type, low: float, high: float, unset: bool) -> None:
        self.number, self.low, self.high, self.unset = kind, low, high, unset
        name = f"{kind.__name__.title()}_{_told(low)}_to_{_told(high)}{'_or_0' if unset else ''}"
        super().__init__(key=name, given_name=name, scalar_kind=_KINDS[kind])

    def post_process(self, value: Any) -> Any:
        if self.low <= value <= self.high or (self.unset and value == 0):
            return self.number(value)
        unset = ", or 0 for as configured" if self.unset else ""
        raise PostProcessingError(
            f"{value} is out of range: {_told(self.low)} to {_told(self.high)}{unset}"
        )


@cache
def ranged(kind: type, low: float, high: float, *, unset: bool = False) -> Ranged:
    """Return the type of a number from ``low`` to ``high``; equal ones are one object."""
    return Ranged(kind, low, high, unset)


def _told(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:g}"


class Named(ConfigScalar):
    """A name that ``check`` may refuse with ``ValueError``."""

    def __init__(self, name: str, check: Callable[[str], None]) -> None:
        self.check = check
        super().__init__(key=name, given_name=name, scalar_kind=ConfigScalarKind.STRING)

    def post_process(self, value: Any) -> Any:
        try:
            self.check(value)
        except ValueError as error:
            raise PostProcessingError(str(error)) from error
        return value
