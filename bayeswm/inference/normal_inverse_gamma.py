"""Bayesian linear regression in closed form, with known and with unknown noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Gamma, StudentT

from bayeswm.base.errors import SpecError
from bayeswm.base.random import global_rng, spawn_seeds, standard_normal


@dataclass(frozen=True)
class NormalRegression:
    """Coefficients w ~ N(mean, precision^-1) of rows y = phi' w + e, with e ~ N(0, 1).

    Noise of another, known size s is served by phi / s and y / s.

    Parameters
    ----------
    mean : Tensor, shape (*batch, D)
        Mean of the coefficients; the batch axes are regressions of their own.
    precision : Tensor, shape (*batch, D, D)
        Inverse of their covariance.

    Raises
    ------
    SpecError
        If shapes differ or a precision is not positive definite.

    Examples
    --------
    >>> before = NormalRegression(torch.zeros(1), torch.eye(1))
    >>> after = before.update(torch.ones(3, 1), torch.tensor([1.0, 2.0, 3.0]))
    >>> after.mean.item(), after.precision.item()
    (1.5, 4.0)
    """

    mean: Tensor
    precision: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", torch.as_tensor(self.mean).double())
        precision = torch.as_tensor(self.precision).double()
        if self.mean.ndim < 1 or precision.shape != (*self.mean.shape, self.mean.shape[-1]):
            raise SpecError(
                f"expected mean (*batch, D) and precision (*batch, D, D), got {tuple(self.mean.shape)} and "
                f"{tuple(precision.shape)}"
            )
        object.__setattr__(self, "precision", precision)
        object.__setattr__(self, "_factor", _cholesky(precision))

    @property
    def covariance(self) -> Tensor:
        """Covariance of the coefficients, shape (*batch, D, D)."""
        return torch.cholesky_inverse(self._lower)

    @property
    def _lower(self) -> Tensor:
        return self.__dict__["_factor"]

    def update(self, phi: Tensor, y: Tensor) -> NormalRegression:
        """Return the posterior given rows phi (*batch, n, D) and y (*batch, n)."""
        phi, y = phi.double(), y.double()
        precision = self.precision + phi.mT @ phi
        error = y - _times(phi, self.mean)
        # the step from the old mean, not the mean itself, is solved for: the larger part then has no rounding error
        step = torch.cholesky_solve((phi.mT @ error[..., None]), _cholesky(precision))[..., 0]
        return NormalRegression(self.mean + step, precision)

    def surprise(self, phi: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the marginal law of y (*batch, n) at rows phi (*batch, n, D) is made of.

        Returns
        -------
        tuple of Tensor, each of shape (*batch,)
            Square of y's distance from its mean in the metric of its covariance 1 + phi precision^-1 phi', and the log
            determinant of that covariance.
        """
        after = self.update(phi, y)
        error = y.double() - _times(phi.double(), after.mean)
        moved = _times(self._lower.mT, after.mean - self.mean)
        log_det = 2 * (_log_diagonal(after._lower) - _log_diagonal(self._lower))
        return error.square().sum(-1) + moved.square().sum(-1), log_det

    def log_evidence(self, phi: Tensor, y: Tensor) -> Tensor:
        """Return the log density of y (*batch, n) at rows phi (*batch, n, D) before they are seen, shape (*batch,)."""
        square, log_det = self.surprise(phi, y)
        return -0.5 * (square + log_det + y.shape[-1] * math.log(2 * math.pi))

    def leverage(self, phi: Tensor) -> Tensor:
        """Return phi' precision^-1 phi (*batch, n) at rows phi (*batch, n, D)."""
        white = torch.linalg.solve_triangular(self._lower, phi.double().mT, upper=False)
        return white.square().sum(-2)

    def expected_information_gain(self, phi: Tensor) -> Tensor:
        """Return what one row would tell of the coefficients, in nats: 0.5 log(1 + phi' precision^-1 phi).

        Parameters
        ----------
        phi : Tensor, shape (*batch, n, D)
            Rows, each by itself; higher is more informative.

        Returns
        -------
        Tensor, shape (*batch, n)
        """
        return 0.5 * torch.log1p(self.leverage(phi))

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw coefficients, shape (n, *batch, D)."""
        noise = standard_normal((n, *self.mean.shape), generator, dtype=torch.float64, device=self.mean.device)
        return self.mean + torch.linalg.solve_triangular(self._lower.mT, noise[..., None], upper=True)[..., 0]


@dataclass(frozen=True)
class NormalInverseGamma:
    """Coefficients w and noise variance v of rows y = phi' w + e, with e ~ N(0, v).

    v ~ InverseGamma(shape, scale) and w | v ~ N(mean, v precision^-1). Conjugate: :meth:`update` stays in the family,
    and every answer is in closed form (Bishop 2006, section 3.3; Murphy 2012, section 7.6.3). By themselves,
    coefficients are Student-t with 2 shape degrees of freedom, location mean and squared scale (scale / shape)
    precision^-1. All algebra is in float64.

    Parameters
    ----------
    mean : Tensor, shape (*batch, D)
        Mean of the coefficients; the batch axes are regressions of their own.
    precision : Tensor, shape (*batch, D, D)
        Inverse of their covariance in units of the noise variance.
    shape, scale : Tensor, shape (*batch,)
        Of the noise variance; its density goes as v^(-shape - 1) exp(-scale / v).

    Raises
    ------
    SpecError
        If shapes differ, or a number that has to be positive is not.

    Examples
    --------
    >>> before = NormalInverseGamma(torch.zeros(1), torch.eye(1), shape=torch.tensor(1.0), scale=torch.tensor(1.0))
    >>> after = before.update(torch.ones(3, 1), torch.tensor([1.0, 2.0, 3.0]))
    >>> after.mean.item(), after.shape.item(), after.scale.item()
    (1.5, 2.5, 3.5)
    """

    mean: Tensor
    precision: Tensor
    shape: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        unit = NormalRegression(self.mean, self.precision)
        for name, value in {"mean": unit.mean, "precision": unit.precision, "_unit": unit}.items():
            object.__setattr__(self, name, value)
        for name in ("shape", "scale"):
            value = torch.as_tensor(getattr(self, name), device=unit.mean.device).double().expand(unit.mean.shape[:-1])
            if not bool(((value > 0) & value.isfinite()).all()):
                raise SpecError(f"expected {name} > 0 and finite, got {getattr(self, name)}")
            object.__setattr__(self, name, value)

    @property
    def unit(self) -> NormalRegression:
        """Law of the coefficients where the noise variance is 1."""
        return self.__dict__["_unit"]

    def update(self, phi: Tensor, y: Tensor) -> Self:
        """Return the posterior given rows phi (*batch, n, D) and y (*batch, n); in parts or at once, it is the same."""
        after = self.unit.update(phi, y)
        square, _ = self.unit.surprise(phi, y)
        return type(self)(
            after.mean, after.precision, shape=self.shape + 0.5 * y.shape[-1], scale=self.scale + 0.5 * square
        )

    def log_evidence(self, phi: Tensor, y: Tensor) -> Tensor:
        """Return the log density of y (*batch, n) at rows phi (*batch, n, D) before they are seen, shape (*batch,)."""
        square, log_det = self.unit.surprise(phi, y)
        half = 0.5 * y.shape[-1]
        return (
            torch.lgamma(self.shape + half)
            - torch.lgamma(self.shape)
            - half * (2 * math.pi * self.scale).log()
            - (self.shape + half) * torch.log1p(0.5 * square / self.scale)
            - 0.5 * log_det
        )

    def predictive(self, phi: Tensor) -> StudentT:
        """Return the law of a new y at each of the rows phi (*batch, n, D), by itself: Student-t, shape (*batch, n)."""
        spread = (self.scale / self.shape)[..., None] * (1 + self.unit.leverage(phi))
        return StudentT(2 * self.shape[..., None], _times(phi.double(), self.mean), spread.sqrt())

    def expected_information_gain(self, phi: Tensor) -> Tensor:
        """Return what one row would tell of the coefficients, whatever the noise variance v, in nats.

        This is 0.5 log(1 + phi' S phi / v) with S = v precision^-1, the covariance of the coefficients given v.

        Parameters
        ----------
        phi : Tensor, shape (*batch, n, D)
            Rows, each by itself; higher is more informative.

        Returns
        -------
        Tensor, shape (*batch, n)
        """
        return self.unit.expected_information_gain(phi)

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw coefficients (n, *batch, D) and noise variances (n, *batch)."""
        with global_rng(spawn_seeds(generator, 1)[0]):
            variance = self.scale / Gamma(self.shape, 1.0).sample((n,))
        centred = self.unit.draw(n, generator) - self.mean
        return self.mean + variance.sqrt()[..., None] * centred, variance


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _log_diagonal(factor: Tensor) -> Tensor:
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _cholesky(precision: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(precision)
    if bool((failed != 0).any()) or not bool(factor.isfinite().all()):
        raise SpecError("expected a positive definite precision: priors of finite spread, and finite data")
    return factor
