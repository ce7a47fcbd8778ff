"""The continuous ranked probability score of laws of which the distribution function is known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.laws import Law

_PANELS, _NODES = 32, 6
_REACH = 10.0  # standard deviations, beyond which there is nothing to integrate


def crps_of_cdf(law: Law, observed: Tensor, *, weight: Tensor, fair: bool = False) -> Tensor:
    r"""Return the score of a mixture of laws by quadrature; lower is better.

    .. math:: \int (F(x) - 1\{x \ge y\})^2 \, dx, \quad F = \sum_w p_w F_w

    For laws that are no Gaussians and were not sampled, such as one step of a structural model.

    Parameters
    ----------
    law : Law
        Of one particle in each world, with means (W, 1, *batch, S).
    observed : Tensor, shape (*batch, S)
        What came.
    weight : Tensor, shape (W,)
        Weights of the worlds, normalised.
    fair : bool
        Worlds are draws, and pairs of one with itself are left out: see
        :func:`bayeswm.diagnostics.univariate_scores.crps_mixture`.

    Returns
    -------
    Tensor, shape (*batch, S)
        NaN where a mean is not finite.

    References
    ----------
    Matheson and Winkler (1976), Scoring rules for continuous probability distributions.

    Examples
    --------
    >>> from bayeswm.base.laws import Gaussian
    >>> law = Gaussian(torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64))
    >>> crps_of_cdf(law, torch.zeros(1, dtype=torch.float64), weight=torch.ones(1)).numpy().round(6).tolist()
    [0.233695]
    """
    mean, scale = law.mean[:, 0].double(), law.variance[:, 0].double().sqrt()
    p = weight.double().view(-1, *(1,) * (mean.ndim - 1))
    low = torch.minimum((mean - _REACH * scale).amin(0), observed)
    high = torch.maximum((mean + _REACH * scale).amax(0), observed)
    nodes, widths = (torch.as_tensor(v).to(observed) for v in np.polynomial.legendre.leggauss(_NODES))
    own = p.expand_as(mean).square().sum(0)
    total = torch.zeros_like(observed)
    for begin, end, after in ((low, observed, 0.0), (observed, high, 1.0)):
        panel = (end - begin) / _PANELS
        for k in range(_PANELS):
            for node, width in zip(nodes, widths, strict=True):
                x = begin + panel * (k + 0.5 + 0.5 * node)
                below = law.cdf(x.to(law.mean).expand_as(law.mean))[:, 0].double()
                share = p * below
                mixed = share.sum(0)
                both = mixed.square()
                if fair:
                    both = (both - share.square().sum(0) - ((1 - p) * share).sum(0)) / (1 - own) + mixed
                total = total + 0.5 * panel * width * (both - after * (2 * mixed - 1))
    return total
