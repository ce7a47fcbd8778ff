"""Roots of covariances, some of whose directions may have no noise."""

from __future__ import annotations

import torch
from torch import Tensor

from bayeswm.base.laws import Law, MultivariateGaussian


def root_of(law: Law) -> Tensor:
    """Return the root of a Gaussian law's covariance, shape (..., S, S)."""
    if isinstance(law, MultivariateGaussian):
        return law.scale_tril.expand(*law.mean.shape, -1)
    return torch.diag_embed(law.variance.sqrt())


def triangular(root: Tensor) -> Tensor:
    """Return the lower-triangular factor of ``root root'``, with a column of zeros for each direction without noise.

    By Gram-Schmidt on the rows: unlike a factorisation without pivots it leaves out what is already determined.
    """
    rows: list[Tensor] = []
    directions: list[Tensor] = []
    for row in root.unbind(-2):
        rest, entries = row, list[Tensor]()
        for direction in directions:
            entry = (rest * direction).sum(-1)
            entries.append(entry)
            rest = rest - entry[..., None] * direction
        norm = rest.square().sum(-1).sqrt()
        silent = norm <= 64 * torch.finfo(root.dtype).eps * row.square().sum(-1).sqrt()
        directions.append(torch.where(silent[..., None], 0.0, rest / torch.where(silent, 1.0, norm)[..., None]))
        entries.append(torch.where(silent, 0.0, norm))
        entries += [torch.zeros_like(norm)] * (root.shape[-2] - len(entries))
        rows.append(torch.stack(entries, -1))
    return torch.stack(rows, -2)
