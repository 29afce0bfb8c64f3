"""Peak memory of this process alone; no imports beyond the standard library."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mb() -> float:
    """Return the peak resident memory of this process in MiB.

    On Linux ``getrusage`` counts as well what the parent had held until it started this process.
    """
    if not _STATUS.is_file():  # macOS, which counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
