"""Two stored versions of an asset beside each other: rows, vectors, metrics, weights."""

from .compare import diff_versions, resolve
from .form import VersionDiff

__all__ = ["VersionDiff", "diff_versions", "resolve"]
