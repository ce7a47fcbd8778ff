"""A Gaussian belief about the state: a mean and a square root of the covariance, and its update on measurements."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.laws import MultivariateGaussian
from bayeswm.base.roots import back, factor, front

_LOG_TWO_PI = math.log(2 * math.pi)


class Sensors(NamedTuple):
    """Independent sensors of some columns of the state.

    ``columns`` are the measured columns, ``scale`` of shape (W, M) the standard deviations of their noise, above 0.
    """

    columns: tuple[int, ...]
    scale: Tensor

    def of(self, index: int, lanes: int) -> Tensor:
        """Return the standard deviation of one sensor, broadcastable to (W, P, *batch) of so many axes."""
        return self.scale[:, index].view(-1, *(1,) * (lanes - 1))


class GaussianBelief(NamedTuple):
    """A Gaussian belief about the state: ``mean`` (W, P, *batch, S) and ``root`` (W, P, *batch, S, S).

    The covariance is ``root @ root.mT``, so that it cannot lose its positive sign, however small the process noise is;
    0 where the state is known. The root need not be triangular.

    Examples
    --------
    A position and a velocity known to 1 and 2; a sensor with noise 1 reports the position.

    >>> root = torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)).expand(1, 1, 2, 2)
    >>> belief = GaussianBelief(torch.zeros(1, 1, 2, dtype=torch.float64), root)
    >>> sensors = Sensors((0,), torch.ones(1, 1, dtype=torch.float64))
    >>> updated, log_prob = belief.update(torch.tensor([1.0], dtype=torch.float64), None, sensors)
    >>> updated.mean.tolist(), updated.covariance.diagonal(dim1=-2, dim2=-1).numpy().round(9).tolist()
    ([[[0.5, 0.0]]], [[[0.5, 4.0]]])
    """

    mean: Tensor
    root: Tensor

    @property
    def noise_size(self) -> int:
        """Standard normal coordinates that :meth:`draw` takes."""
        return self.mean.shape[-1]

    @property
    def covariance(self) -> Tensor:
        """Covariance, shape (W, P, *batch, S, S)."""
        return self.root @ self.root.mT

    def law(self) -> MultivariateGaussian:
        """Return the belief as a law of the state; its covariance must not be singular."""
        return MultivariateGaussian(self.mean, back(factor(front(self.covariance))))

    def draw(self, noise: Tensor) -> Tensor:
        """Return states for noise of shape (W, P, *batch, S)."""
        return self.mean + (self.root * noise[..., None, :]).sum(-1)

    def moved(self, shift: Tensor) -> GaussianBelief:
        """Return the belief with its mean moved, shift of shape (W, P, *batch, S)."""
        mean = self.mean + shift
        return GaussianBelief(mean, self.root.expand(*mean.shape, self.root.shape[-1]))

    def widened(self, scale: Tensor | None) -> GaussianBelief:
        """Return the belief with independent noise added to each column."""
        covariance = outer(front(self.root))
        if scale is not None:
            variance = scale.expand(self.mean.shape).square().movedim(-1, 0)
            identity = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
            covariance = covariance + identity.view(*identity.shape, *(1,) * (variance.ndim - 1)) * variance
        return GaussianBelief(self.mean, back(factor(covariance)))

    def update(self, measured: Tensor, seen: Tensor | None, sensors: Sensors) -> tuple[GaussianBelief, Tensor]:
        """Return the belief given a measurement, and the measurement's log density.

        Sensors are independent, so each is one scalar update of the square root (Potter's form).

        Parameters
        ----------
        measured : Tensor, shape (*batch, M)
            What the sensors reported, angles on the belief's lift.
        seen : Tensor of bool, shape (*batch, M), optional
            Which values are there; all by default.
        sensors : Sensors
            What they measure.

        Returns
        -------
        tuple of GaussianBelief and Tensor, shape (W, P, *batch)

        References
        ----------
        Bierman (1977), Factorization Methods for Discrete Sequential Estimation, section II.5.
        """
        mean, root = self.mean.movedim(-1, 0), front(self.root)
        lanes = mean.ndim - 1
        log_prob = mean.new_zeros(())
        for i, column in enumerate(sensors.columns):
            noise, value = sensors.of(i, lanes), measured[..., i]
            if seen is not None:
                value = torch.where(seen[..., i], value, 0.0)
            cross = root[column]
            spread = (cross * cross).sum(0) + noise.square()
            inverse = spread.reciprocal()
            miss = value - mean[column]
            density = -0.5 * (miss.square() * inverse + spread.log() + _LOG_TWO_PI)
            shrink = 1 / (spread + noise * spread.sqrt())
            if seen is not None:
                density, inverse, shrink = (torch.where(seen[..., i], v, 0.0) for v in (density, inverse, shrink))
            gain = (root * cross).sum(1)
            mean = mean + gain * (inverse * miss)
            root = root - gain[:, None] * (cross * shrink)
            log_prob = log_prob + density
        full = torch.broadcast_shapes(mean.shape[1:], root.shape[2:], log_prob.shape)
        mean, root = mean.expand(-1, *full), root.expand(*root.shape[:2], *full)
        return GaussianBelief(mean.movedim(0, -1), back(root)), log_prob.expand(full)


def outer(values: Tensor) -> Tensor:
    """Return values @ values.T where rows and columns come first, (S, K, ...)."""
    return (values[:, None] * values[None]).sum(2)
