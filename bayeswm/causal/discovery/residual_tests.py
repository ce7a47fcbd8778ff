"""Which causes matter given all others: tests of conditional independence on residuals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.causal.discovery.candidates import Candidates, Design, standardised
from bayeswm.causal.discovery.spike_and_slab import check_degree


@dataclass(frozen=True)
class ResidualTests:
    r"""Tests of conditional independence of each effect and each cause, given all other candidates.

    Outcome and the features that involve the cause are both regressed on the features of the other candidates. What is
    left of them, :math:`r_i` and :math:`z_i` (d columns), is uncorrelated if the cause does nothing, and

    .. math:: u^\top V^{-1} u, \quad u = \sum_i r_i z_i, \quad V = \sum_i r_i^2 z_i z_i^\top

    then tends to a chi-squared law with d degrees of freedom, whatever the noise: it need be neither normal nor of one
    size. With ``degree=1`` and one real cause this is the test of a partial correlation. The p-values of all pairs are
    adjusted for their number by Benjamini and Hochberg, which bounds the expected share of false edges.

    Any number of candidates is allowed. The test sees what the features can express: where they miss what the others
    do, the rest may look like an effect of the cause.

    Parameters
    ----------
    degree : int
        1: the causes as they are (sine and cosine of angles); 2: with squares and products too.

    Raises
    ------
    SpecError
        For another degree.

    References
    ----------
    White (1980), A heteroskedasticity-consistent covariance matrix estimator. Shah and Peters (2020), The hardness of
    conditional independence testing and the generalised covariance measure. Benjamini and Hochberg (1995).

    Examples
    --------
    See :func:`discover`.
    """

    degree: int = 2

    def __post_init__(self) -> None:
        check_degree(self.degree)

    def table(self, given: Candidates) -> Tensor:
        """Return the adjusted p-value of each pair, shape (causes, effects); small where the cause matters.

        Raises
        ------
        DataError
            If there are too few steps for the features.
        """
        found = torch.ones(len(given.causes), len(given.effects), dtype=torch.float64)
        for j in range(len(given.effects)):
            design = given.design(j, degree=self.degree)
            for i in range(len(given.causes)):
                found[i, j] = independence(design, given.outcomes[:, j], i)
        return adjusted(found.flatten()).view_as(found)


def independence(design: Design, outcome: Tensor, cause: int) -> Tensor:
    """Return the p-value of the independence of an outcome and a cause, given all others; 1 if that never varied."""
    design.check_rows()
    count, size = design.columns.shape
    mine = design.owners[:, cause]
    if not bool(mine.any()):
        return outcome.new_ones(())
    both = torch.cat((standardised(outcome)[:, None], design.columns[:, mine]), -1)
    others = design.columns[:, ~mine]
    basis = torch.linalg.svd(others, full_matrices=False)
    rank = int((basis.S / basis.S.amax() > 1e-7).sum()) if others.shape[1] else 0
    span = basis.U[:, :rank]
    left = both - span @ (span.mT @ both)
    # a feature that the others determine says nothing of its own
    own = torch.linalg.svd(left[:, 1:], full_matrices=False)
    free = own.S > 1e-6  # of columns whose length is 1
    if not bool(free.any()):
        return outcome.new_ones(())
    z = own.U[:, free]
    products = left[:, :1] * z
    total, second = products.sum(0), products.mT @ products
    # residuals shrink as the regressions use up degrees of freedom
    shrunk = (count - 1 - size) / count
    statistic = shrunk * (total @ torch.linalg.lstsq(second, total[:, None]).solution[:, 0])
    degrees = torch.tensor(float(z.shape[1]), dtype=torch.float64)
    return torch.special.gammaincc(degrees / 2, statistic / 2)


def adjusted(p_values: Tensor) -> Tensor:
    """Return p-values adjusted for their number by the step-up rule of Benjamini and Hochberg, shape (n,).

    Examples
    --------
    >>> adjusted(torch.tensor([0.01, 0.04, 0.03])).tolist()
    [0.029999999329447746, 0.03999999910593033, 0.03999999910593033]
    """
    order = p_values.argsort(descending=True)
    count = len(p_values)
    scaled = p_values[order] * count / torch.arange(count, 0, -1, dtype=p_values.dtype)
    return torch.empty_like(p_values).scatter_(0, order, scaled.cummin(0).values).clamp(max=1.0)
