"""A test of calibration that is valid on trajectories: its null law is simulated, with whatever dependence there is."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.diagnostics.row_sort import sorted_rows

_EDGE = 2.0**-53  # PIT values of 0 and 1 count as the nearest that have a finite normal score


class NormalSums(NamedTuple):
    """Number, sum and sum of squares of normal scores z = Phi^-1(PIT), of equal shape (..., *cells).

    A cell is one step and variable. The sums are over windows, so that those of parts add up.
    """

    number: Tensor
    first: Tensor
    second: Tensor


class CalibrationTest(NamedTuple):
    """Statistic and p-value of each cell, and of all together (tensors without axes).

    ``by_cell`` says only where to look: among many cells some p-values are small by chance. ``statistic`` is the sum
    of those of the cells.
    """

    statistic: Tensor
    p_value: Tensor
    by_cell: Tensor
    p_by_cell: Tensor


def calibration_test(pit: Tensor, simulated: Tensor) -> CalibrationTest:
    r"""Test whether forecasts are calibrated, given what they would look like if they were.

    With normal scores z of n windows, each cell (step and variable) has the statistic

    .. math:: A = n \bar z^2 + \frac{(\sum z^2 - n)^2}{2 n}

    for bias and spread, and the sum of squares, two-sided, for spread alone; its p-value is that of the smaller of the
    two. All cells together are judged by the sum of A and by the two-sided sum of squares over all cells. The smaller
    of two p-values is held against its own law in the simulations. No independence between cells is assumed; the level
    is exact where what came and the simulations are exchangeable.

    Parameters
    ----------
    pit : Tensor, shape (n, *cells)
        Probability integral transforms of what came; NaN where nothing was recorded.
    simulated : Tensor, shape (simulations, n, *cells)
        The same for data sets drawn from the forecasts' own joint law of trajectories.

    Returns
    -------
    CalibrationTest

    Raises
    ------
    DataError
        For shapes that do not fit, fewer than 19 simulations (no p-value could reach 5 %), or values outside [0, 1].

    References
    ----------
    Berkowitz (2001), Testing density forecasts; Dufour (2006), Monte Carlo tests with nuisance parameters.

    Examples
    --------
    Forecasts of random walks that are 30 % too narrow.

    >>> def pit_of_walks(*shape, scale=1.0):
    ...     steps = torch.arange(1, shape[-1] + 1).sqrt()
    ...     return torch.special.ndtr(torch.randn(*shape, generator=g).cumsum(-1) / (scale * steps))
    >>> g = torch.Generator().manual_seed(0)
    >>> found = calibration_test(pit_of_walks(50, 20, scale=0.7), pit_of_walks(999, 50, 20))
    >>> bool(found.p_value < 0.05)
    True
    """
    if simulated.shape[1:] != pit.shape:
        raise DataError(
            f"expected simulated values of shape (simulations, {', '.join(map(str, pit.shape))}), as what came has "
            f"{tuple(pit.shape)}, got {tuple(simulated.shape)}"
        )
    return sums_test(normal_sums(pit), normal_sums(simulated, dim=1))


def normal_sums(pit: Tensor, *, dim: int = 0) -> NormalSums:
    """Return number, sum and sum of squares of the normal scores along an axis of windows.

    Parameters
    ----------
    pit : Tensor
        Between 0 and 1; NaN is left out.
    dim : int
        The axis.

    Raises
    ------
    DataError
        For values outside [0, 1].

    Examples
    --------
    >>> [float(v) for v in normal_sums(torch.tensor([0.5, 0.5, float("nan")]))]
    [2.0, 0.0, 0.0]
    """
    if bool(((pit < 0) | (pit > 1)).any()):
        raise DataError("expected probability integral transforms between 0 and 1, got values outside")
    return sums_of_scores(torch.special.ndtri(pit.double().clamp(_EDGE, 1 - _EDGE)), dim=dim)


def sums_of_scores(z: Tensor, *, dim: int) -> NormalSums:
    """Return number, sum and sum of squares along an axis, NaN left out, in float64.

    Examples
    --------
    >>> [float(v) for v in sums_of_scores(torch.tensor([1.0, 2.0, float("nan")]), dim=0)]
    [2.0, 3.0, 5.0]
    """
    there = ~z.isnan()
    z = torch.where(there, z, 0.0)
    return NormalSums(there.sum(dim).double(), z.sum(dim).double(), z.square().sum(dim).double())


def sums_test(observed: NormalSums, simulated: NormalSums) -> CalibrationTest:
    """Return the test of :func:`calibration_test` from sums over windows.

    Parameters
    ----------
    observed : NormalSums, shape (*cells)
        Of what came.
    simulated : NormalSums, shape (simulations, *cells)
        Of data sets drawn from the forecasts' own joint law.

    Returns
    -------
    CalibrationTest
        NaN in cells where nothing was recorded.

    Raises
    ------
    DataError
        For fewer than 19 simulations.

    Examples
    --------
    >>> g = torch.Generator().manual_seed(0)
    >>> null = sums_of_scores(torch.randn(999, 50, 1, generator=g), dim=1)
    >>> found = sums_test(NormalSums(*(torch.tensor([v]).double() for v in (50, 25.0, 50))), null)
    >>> float(found.statistic), bool(found.p_value < 0.01)
    (12.5, True)
    """
    draws = len(simulated.number)
    if draws < 19:
        raise DataError(f"expected at least 19 simulated data sets, got {draws}: no p-value could reach 5 %")
    cells = observed.number.shape
    count, first, second = (torch.cat((o[None], s)).flatten(1) for o, s in zip(observed, simulated, strict=True))
    there = observed.number.flatten() > 0
    nothing = torch.full((), float("nan"), dtype=torch.float64, device=first.device)
    if not bool(there.any()):
        return CalibrationTest(nothing, nothing.clone(), *(nothing.expand(cells).clone() for _ in range(2)))
    each = score_statistic(NormalSums(count, first, second))[:, there]
    squares = (second / count)[:, there]
    total = each.sum(-1)
    overall = torch.stack((_right(total), _two_sided(squares.mean(-1))))
    p_value = _smallest(overall)
    by_cell, p_by_cell = (nothing.expand(there.shape).clone() for _ in range(2))
    by_cell[there] = each[0]
    p_by_cell[there] = _smallest(torch.stack((_right(each), _two_sided(squares))))
    return CalibrationTest(total[0], p_value, by_cell.view(cells), p_by_cell.view(cells))


def score_statistic(sums: NormalSums) -> Tensor:
    r"""Return :math:`n \bar z^2 + (\sum z^2 - n)^2 / 2n`: for independent windows about chi-square(2) if calibrated.

    Examples
    --------
    >>> float(score_statistic(NormalSums(*map(torch.tensor, (50.0, 5.0, 60.0)))))
    1.5
    """
    n = sums.number
    return sums.first.square() / n + (sums.second - n).square() / (2 * n)


def independent_test(observed: NormalSums) -> CalibrationTest:
    """Return the test where no joint law is known: each cell by its own law, all by the Cauchy combination.

    The windows are taken as independent. A has the law chi-square(2) for many windows, the sum of squares
    chi-square(n) for any number.

    Parameters
    ----------
    observed : NormalSums, shape (*cells)
        Of what came.

    Examples
    --------
    >>> sums = NormalSums(*(torch.tensor([v]).double() for v in (50, 25.0, 50)))
    >>> round(float(independent_test(sums).p_value), 4)
    0.004
    """
    n = torch.where(observed.number > 0, observed.number, float("nan"))
    each = score_statistic(observed._replace(number=n))
    below = torch.special.gammainc(n / 2, observed.second / 2)
    pair = torch.stack((torch.exp(-each / 2), 2 * torch.minimum(below, 1 - below)), -1)
    there = observed.number > 0
    nothing = torch.full((), float("nan"), dtype=torch.float64, device=n.device)
    if not bool(there.any()):
        return CalibrationTest(nothing, nothing.clone(), each, each.clone())
    return CalibrationTest(
        each[there].sum(), cauchy_combination(pair[there].flatten()), each, cauchy_combination(pair, dim=-1)
    )


def cauchy_combination(p_values: Tensor, *, dim: int = 0) -> Tensor:
    r"""Combine p-values of tests that may depend on each other in any way.

    .. math:: p = \tfrac12 - \tfrac1\pi \arctan\Bigl(\tfrac1d \sum_i \tan\bigl((\tfrac12 - p_i) \pi\bigr)\Bigr)

    Small p are accurate whatever the dependence; at 5 % the level is approximate.

    Parameters
    ----------
    p_values : Tensor
        Between 0 and 1.
    dim : int
        The axis to combine.

    References
    ----------
    Liu and Xie (2020), Cauchy combination test: a powerful test with analytic p-value calculation under arbitrary
    dependency structures.

    Examples
    --------
    >>> round(float(cauchy_combination(torch.tensor([0.03, 0.03, 0.03]))), 4)
    0.03
    """
    p = p_values.double().clamp(1e-300, 1 - _EDGE)
    # the tangent of a p-value below 1e-15 is 1 / (pi p) to all digits, which the subtraction would lose
    heavy = torch.where(p < 1e-15, 1 / (math.pi * p), torch.tan((0.5 - p) * math.pi)).mean(dim)
    return torch.where(heavy > 1e15, 1 / (math.pi * heavy), 0.5 - torch.atan(heavy) / math.pi)


def _right(values: Tensor) -> Tensor:
    """Return for each entry the share of entries along the first axis that are as large or larger."""
    return _shares(values)[1]


def _two_sided(values: Tensor) -> Tensor:
    return (2 * torch.minimum(*_shares(values))).clamp(max=1.0)


def _smallest(p_values: Tensor) -> Tensor:
    """Return the p-value of the smallest of several (tests, draws, ...) for the first draw."""
    least = p_values.amin(0)
    return (least <= least[0]).double().mean(0)


def _shares(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of entries along the first axis that are as small or smaller, and as large or larger."""
    rows = values.movedim(0, -1).contiguous()
    ordered = sorted_rows(rows)
    small = torch.searchsorted(ordered, rows, right=True)
    large = len(values) - torch.searchsorted(ordered, rows)
    low, high = ((count.double() / len(values)).movedim(-1, 0) for count in (small, large))
    return low, high
