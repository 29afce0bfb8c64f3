"""Sparse matrices from compressed rows."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def csr(start: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the CSR tensor of the arrays; they are wrapped, not copied, so a call costs nothing.

    torch marks CSR as beta in a warning; the products used here are checked against dense ones
    in the tests.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Ss]parse.*", category=UserWarning)
        return torch.sparse_csr_tensor(start, column, value, shape, check_invariants=False)
