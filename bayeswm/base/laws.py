"""Conditional laws of one step: a push-forward of standard normal noise, with moments, density and cdf."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, override

import torch
from torch import Tensor

from bayeswm.base.errors import NotInvertible, SpecError
from bayeswm.base.shapes import common_shape

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Law(ABC):
    """The law of the next carry in each world and particle, seen through the state's columns.

    Attributes
    ----------
    mean, variance : Tensor, shape (worlds, particles, *batch, S)
        Moments of the next state; the particle axis has size 1 where no noise came before.
    noise_size : int
        Standard normal coordinates that :meth:`push` takes.
    exact : bool
        Whether ``log_prob`` is exact; otherwise it is a bound or an estimate.
    """

    exact: bool = True
    noise_size: int

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """Mean of the next state."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Variance of each variable of the next state, shape as ``mean``."""

    @abstractmethod
    def push(self, noise: Tensor) -> Any:
        """Turn noise of shape (worlds, particles, *batch, noise_size) into the next carry."""

    @abstractmethod
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        """Return the noise that leads to ``next_state``: the exact inverse of :meth:`push`.

        Raises
        ------
        NotInvertible
            If the law is not a bijection in its noise, or a component without noise contradicts ``next_state`` by more
            than ``tolerance`` times its magnitude.
        """

    @abstractmethod
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        """Return the log density of the next state, jointly or (``marginal=True``) for each variable."""

    @abstractmethod
    def cdf(self, state: Tensor) -> Tensor:
        """Return P(next state <= state) for each variable, shape as ``mean``."""

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> Law:
        """Return the law with a change of the leading axes (worlds, particles, *batch) applied to all its tensors."""

    @property
    def covariance(self) -> Tensor:
        """Covariance of the next state, shape (worlds, particles, *batch, S, S); diagonal unless a law says more."""
        return torch.diag_embed(self.variance)


class Gaussian(Law):
    """Independent Gaussian components, some of which may have no noise at all.

    Parameters
    ----------
    mean : Tensor, shape (..., S)
        Means.
    scale : Tensor, broadcastable to (..., S), optional
        Standard deviations; 0 is allowed. None is a law without any noise.
    noisy : tuple of int, optional
        Columns that have a noise coordinate; all by default. Elsewhere ``scale`` must be 0.

    Examples
    --------
    >>> law = Gaussian(torch.zeros(1, 1, 2), torch.tensor([0.5, 0.0]), noisy=(0,))
    >>> law.noise_size, law.push(torch.ones(1, 1, 1))
    (1, tensor([[[0.5000, 0.0000]]]))
    """

    def __init__(self, mean: Tensor, scale: Tensor | None = None, *, noisy: tuple[int, ...] | None = None) -> None:
        if scale is not None and scale.ndim >= mean.ndim:
            # one number a column, in as many axes, is the common case and leaves the mean as it is
            plain = scale.ndim == mean.ndim and scale.numel() == scale.shape[-1] == mean.shape[-1]
            if not plain and scale.shape != mean.shape:
                mean = mean.expand(common_shape(mean.shape, scale.shape))
        self._mean = mean
        self.scale = scale
        self.noisy = None if noisy is None or len(noisy) == mean.shape[-1] else noisy
        if scale is None:
            self.noisy = ()
        self.noise_size = mean.shape[-1] if self.noisy is None else len(self.noisy)

    @property
    @override
    def mean(self) -> Tensor:
        return self._mean

    @property
    @override
    def variance(self) -> Tensor:
        if self.scale is None:
            return torch.zeros_like(self._mean)
        return self.scale.square().expand(common_shape(self._mean.shape, self.scale.shape))

    @property
    def spread(self) -> Tensor:
        """Standard deviations, shape as ``mean``; 0 where there is no noise."""
        if self.scale is None:
            return torch.zeros_like(self._mean)
        return self.scale.expand(common_shape(self._mean.shape, self.scale.shape))

    @override
    def push(self, noise: Tensor) -> Tensor:
        if self.noisy is None and self.scale is not None:
            return torch.addcmul(self._mean, self.scale, noise)
        if not self.noisy:
            lead, given = self._mean.shape[:-1], noise.shape[:-1]
            if given == lead or (given.numel() == 1 and len(given) <= len(lead)):
                return self._mean  # no detour for nothing
            return self._mean.expand(common_shape(lead, given) + self._mean.shape[-1:])
        spread = self.spread[..., list(self.noisy)]
        moved = spread * noise
        shape = common_shape(self._mean.shape[:-1], moved.shape[:-1])
        index = torch.tensor(self.noisy, device=moved.device)
        return self._mean.expand(*shape, -1).index_add(-1, index, moved.expand(*shape, -1))

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        residual = next_state - self._mean
        if self.scale is not None and self.noisy is None and bool((self.scale > 0).all()):
            return residual / self.scale
        spread = self.spread.expand(residual.shape)
        silent = spread <= 0
        contradiction = silent & ~_within(residual, self._mean, tolerance)
        if bool(contradiction.any()):
            column = int(contradiction.nonzero()[0, -1])
            size = float(residual[contradiction].abs().max())
            raise _contradicts(column, size)
        noise = torch.where(silent, 0.0, residual / torch.where(silent, 1.0, spread))
        return noise if self.noisy is None else noise[..., list(self.noisy)]

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        residual = state - self._mean
        if self.scale is None:
            value = _point_mass(residual, self._mean, tolerance)
        else:
            silent = self.scale <= 0
            safe = torch.where(silent, 1.0, self.scale)
            value = -0.5 * (residual / safe).square() - safe.log() - _HALF_LOG_TWO_PI
            if self.noisy is not None or bool(silent.any()):
                value = torch.where(silent, _point_mass(residual, self._mean, tolerance), value)
        return value if marginal else value.sum(-1)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        residual = state - self._mean
        step = torch.where(residual.isnan(), residual, (residual >= 0).to(residual.dtype))
        if self.scale is None:
            return step
        silent = self.scale <= 0
        return torch.where(silent, step, torch.special.ndtr(residual / torch.where(silent, 1.0, self.scale)))

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> Gaussian:
        return Gaussian(change(self._mean), None if self.scale is None else change(self.spread), noisy=self.noisy)


class MultivariateGaussian(Law):
    """A Gaussian with a full covariance, given by its lower Cholesky factor.

    Parameters
    ----------
    mean : Tensor, shape (..., S)
        Means.
    scale_tril : Tensor, broadcastable to (..., S, S)
        Lower-triangular factor. A column of zeros is a direction without noise: a state that leaves what the columns
        before it say by more than rounding has no density, as in :class:`Gaussian` where the scale is 0.

    Raises
    ------
    SpecError
        If the diagonal is negative, or 0 where the rest of the column is not.

    Examples
    --------
    >>> law = MultivariateGaussian(torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    >>> law.variance.tolist(), law.abduct(law.push(torch.tensor([[[0.3, -2.0]]]))).numpy().round(6).tolist()
    ([[[1.0, 2.0]]], [[[0.30000001192092896, -2.0]]])

    Two columns that are the same number:

    >>> law = MultivariateGaussian(torch.zeros(1, 1, 2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    >>> law.log_prob(torch.tensor([[0.0, 0.0], [0.0, 1.0]])).numpy().round(3).tolist()
    [[-0.9190000295639038, -inf]]
    """

    def __init__(self, mean: Tensor, scale_tril: Tensor) -> None:
        diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
        # None where every direction has noise, so that nothing is asked about it later
        self._silent: Tensor | None = None
        if bool((diagonal <= 0).any()):
            self._silent = diagonal == 0
            if bool((diagonal < 0).any()) or bool((self._silent & (scale_tril != 0).any(-2)).any()):
                raise SpecError(
                    "expected a Cholesky factor with a positive diagonal, or a column of zeros for a direction without "
                    "noise, got another; torch.linalg.cholesky(covariance) makes one"
                )
        self._mean = mean
        self.scale_tril = scale_tril
        self.noise_size = mean.shape[-1]

    @property
    @override
    def mean(self) -> Tensor:
        return self._mean

    @property
    @override
    def covariance(self) -> Tensor:
        covariance = self.scale_tril @ self.scale_tril.mT
        return covariance.expand(*self._mean.shape, self._mean.shape[-1])

    @property
    @override
    def variance(self) -> Tensor:
        variance = self.scale_tril.square().sum(-1)
        return variance.expand(common_shape(self._mean.shape, variance.shape))

    @override
    def push(self, noise: Tensor) -> Tensor:
        return self._mean + (self.scale_tril @ noise[..., None]).squeeze(-1)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        white = self._white(next_state)
        if self._silent is None:
            return white
        silent = self._silent.expand(white.shape)
        contradiction = silent & ~_within(white, self._mean, tolerance)
        if bool(contradiction.any()):
            column, size = int(contradiction.nonzero()[0, -1]), float(white[contradiction].abs().max())
            raise _contradicts(column, size)
        return torch.where(silent, 0.0, white)

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        if marginal:
            return self._marginal.log_prob(state, marginal=True, tolerance=tolerance)
        white, diagonal = self._white(state), self.scale_tril.diagonal(dim1=-2, dim2=-1)
        if self._silent is None:
            return -0.5 * white.square().sum(-1) - diagonal.log().sum(-1) - self.noise_size * _HALF_LOG_TWO_PI
        density = -0.5 * white.square() - torch.where(self._silent, 1.0, diagonal).log() - _HALF_LOG_TWO_PI
        return torch.where(self._silent, _point_mass(white, self._mean, tolerance), density).sum(-1)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self._marginal.cdf(state)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> MultivariateGaussian:
        return MultivariateGaussian(change(self._mean), change(self.scale_tril.expand(*self._mean.shape, -1)))

    @property
    def _marginal(self) -> Gaussian:
        variance = self.variance
        # the root has no derivative at 0
        noisy = variance > 0
        return Gaussian(self._mean, torch.where(noisy, torch.where(noisy, variance, 1.0).sqrt(), 0.0))

    def _white(self, state: Tensor) -> Tensor:
        """Return the noise that leads to a state, and in silent directions what contradicts them."""
        residual = (state - self._mean)[..., None]
        factor = self.scale_tril
        if self._silent is not None:
            factor = factor + torch.diag_embed(self._silent.to(factor))
        factor = factor.expand(*residual.shape[:-2], -1, -1)
        return torch.linalg.solve_triangular(factor, residual, upper=False).squeeze(-1)


def _contradicts(column: int, size: float) -> NotInvertible:
    return NotInvertible(
        f"expected column {column} to follow the law without noise, got a deviation of {size:.3g}; "
        "give the variable process noise, or pass a larger tolerance="
    )


def _within(residual: Tensor, reference: Tensor, tolerance: float | None) -> Tensor:
    if tolerance is None:
        tolerance = 1e-9 if residual.dtype == torch.float64 else 1e-5
    return residual.abs() <= tolerance * reference.abs().clamp(min=1.0)


def _point_mass(residual: Tensor, reference: Tensor, tolerance: float | None) -> Tensor:
    inside = _within(residual, reference, tolerance)
    value = torch.where(inside, 0.0, float("-inf")).to(residual.dtype)
    return torch.where(residual.isnan(), residual, value)
