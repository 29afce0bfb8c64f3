"""Row lineage: one row of an asset back to the catalog, and on to what was made from it."""

from .form import Way
from .row import trace_row
from .stored import Stored

__all__ = ["Stored", "Way", "trace_row"]
