"""Sines and cosines of Gaussian numbers: their moments in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class GaussianMoments(NamedTuple):
    """A mean (*batch, n) and a covariance (*batch, n, n)."""

    mean: Tensor
    covariance: Tensor


def with_waves(mean: Tensor, covariance: Tensor, columns: tuple[int, ...]) -> GaussianMoments:
    r"""Return the moments of Gaussian numbers together with the sines and cosines of some of them.

    With :math:`x \sim N(\mu, \Sigma)`: :math:`E \sin x_i = e^{-\Sigma_{ii} / 2} \sin \mu_i`,
    :math:`\mathrm{Cov}(x_j, \sin x_i) = \Sigma_{ji} e^{-\Sigma_{ii} / 2} \cos \mu_i`, and products of two waves are
    waves of sum and difference. No digits are lost where the variances are small, and nothing overflows where they are
    large.

    Parameters
    ----------
    mean : Tensor, shape (*batch, n)
        Of the numbers, in rad where it matters.
    covariance : Tensor, shape (*batch, n, n)
        Symmetric, of any rank.
    columns : tuple of int
        The k numbers that have waves.

    Returns
    -------
    GaussianMoments
        Of n + 2 k numbers: those given, the sines, the cosines.

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> found = with_waves(0 * one, one.view(1, 1), (0,))
    >>> found.mean.numpy().round(4).tolist()  # exp(-1 / 2)
    [0.0, 0.0, 0.6065]
    >>> round(float(found.covariance[0, 1]), 4)
    0.6065
    """
    if not columns:
        return GaussianMoments(mean, covariance)
    chosen = list(columns)
    at, of_all = mean[..., chosen], covariance[..., chosen]
    among = of_all[..., chosen, :]
    variance = among.diagonal(dim1=-2, dim2=-1)
    fall = (-0.5 * variance).exp()
    sine, cosine = fall * at.sin(), fall * at.cos()
    # e^{-(v_i + v_j) / 2} (e^{+-c_ij} - 1), of the difference and of the sum of two angles
    both = -0.5 * (variance[..., None] + variance[..., None, :])
    apart, together = _growth(both, among), _growth(both, -among)
    difference, total = at[..., None] - at[..., None, :], at[..., None] + at[..., None, :]
    near, far = apart * difference.cos(), together * total.cos()
    of_sines, of_cosines = 0.5 * (near - far), 0.5 * (near + far)
    mixed = 0.5 * (apart * difference.sin() + together * total.sin())
    by_sine, by_cosine = of_all * cosine[..., None, :], -of_all * sine[..., None, :]
    rows = (
        torch.cat((covariance, by_sine, by_cosine), -1),
        torch.cat((by_sine.mT, of_sines, mixed), -1),
        torch.cat((by_cosine.mT, mixed.mT, of_cosines), -1),
    )
    return GaussianMoments(torch.cat((mean, sine, cosine), -1), torch.cat(rows, -2))


def _growth(low: Tensor, c: Tensor) -> Tensor:
    """Return e^low (e^c - 1), where low + c is never large."""
    up = c > 0
    rising, falling = torch.where(up, c, 0.0), torch.where(up, 0.0, c)
    return torch.where(up, -(low + rising).exp() * torch.expm1(-rising), low.exp() * torch.expm1(falling))
