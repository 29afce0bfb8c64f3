"""What a number of users can show at all, and when two models may be called equal."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri, stdtr

POWER, LEVEL = 0.8, 0.05
MARGIN = 0.05  # of the base's value: differences below it count as none


def share_error(share: float, users: int) -> float:
    """Return the standard error of a share over ``users``, such as HR@10 of one target each."""
    return float(np.sqrt(share * (1 - share) / users))


def detectable(sd: float, users: int, power: float = POWER, level: float = LEVEL) -> float | None:
    """Return the mean paired difference that a two-sided test finds with probability ``power``.

    ``sd``: standard deviation of the differences over users. For hits it is nearly the root of the
    share of users with different outcomes. None without users.
    """
    if users < 1:
        return None
    return float((ndtri(1 - level / 2) + ndtri(power)) * sd / np.sqrt(users))


def equivalence(differences: np.ndarray, margin: float) -> float | None:
    """Return the p of two one-sided t-tests (Schuirmann, 1987): is the mean within +- ``margin``?

    A small p says so; a large p of a usual test does not. None with less than two users.
    """
    n = len(differences)
    if n < 2:
        return None
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / np.sqrt(n)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    below, above = (mean + margin) / error, (margin - mean) / error
    return float(max(stdtr(n - 1, -below), stdtr(n - 1, -above)))
