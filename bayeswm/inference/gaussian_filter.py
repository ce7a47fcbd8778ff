"""Gaussian filtering, batched: beliefs as a mean and a square root of the covariance, moved, updated and smoothed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.laws import MultivariateGaussian
from bayeswm.base.random import standard_normal

# maps states (W, P, K, *batch, S) to the mean of the next state and the standard deviation of its noise, if any
Move = Callable[[Tensor], tuple[Tensor, Tensor | None]]

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
        return MultivariateGaussian(self.mean, _back(factor(_front(self.covariance))))

    def draw(self, noise: Tensor) -> Tensor:
        """Return states for noise of shape (W, P, *batch, S)."""
        return self.mean + (self.root * noise[..., None, :]).sum(-1)

    def moved(self, shift: Tensor) -> GaussianBelief:
        """Return the belief with its mean moved, shift of shape (W, P, *batch, S)."""
        mean = self.mean + shift
        return GaussianBelief(mean, self.root.expand(*mean.shape, self.root.shape[-1]))

    def widened(self, scale: Tensor | None) -> GaussianBelief:
        """Return the belief with independent noise added to each column."""
        covariance = _outer(_front(self.root))
        if scale is not None:
            variance = scale.expand(self.mean.shape).square().movedim(-1, 0)
            identity = torch.eye(len(variance), dtype=variance.dtype, device=variance.device)
            covariance = covariance + identity.view(*identity.shape, *(1,) * (variance.ndim - 1)) * variance
        return GaussianBelief(self.mean, _back(factor(covariance)))

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
        mean, root = self.mean.movedim(-1, 0), _front(self.root)
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
        return GaussianBelief(mean.movedim(0, -1), _back(root)), log_prob.expand(full)


class Passage(NamedTuple):
    """A belief on its way through a transition.

    With ``after`` and ``before`` of shape (W, P, *batch, S, K), the next state has mean ``mean``, covariance
    ``after @ after.mT`` plus the noise, and covariance ``after @ before.mT`` with the state before.
    """

    belief: GaussianBelief
    mean: Tensor
    after: Tensor
    before: Tensor
    scale: Tensor | None

    def settled(self) -> GaussianBelief:
        """Return the belief about the next state without the noise."""
        return GaussianBelief(self.mean, self.after).widened(None)

    def predicted(self) -> GaussianBelief:
        """Return the belief about the next state."""
        return GaussianBelief(self.mean, self.after).widened(self.scale)

    def draw_before(self, state: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the state before, given the state after the step, shape (W, P, *batch, S)."""
        share, whitened = self._regression(state)
        belief = self.belief
        left = _front(belief.covariance) - _outer(share)
        root = _back(factor(left))
        noise = standard_normal(tuple(state.shape), generator, dtype=state.dtype, device=state.device)
        mean = belief.mean + (share * whitened[None]).sum(1).movedim(0, -1)
        return mean + (root * noise[..., None, :]).sum(-1)

    def smoothed(self, later: GaussianBelief) -> GaussianBelief:
        """Return the belief about the state before, given the one about the state after (Rauch-Tung-Striebel)."""
        share, whitened = self._regression(later.mean)
        mean = self.belief.mean + (share * whitened[None]).sum(1).movedim(0, -1)
        reduced = _front(self.belief.covariance) - _outer(share)
        handed = (share[:, :, None] * self._whiten(_front(later.root))[None]).sum(1)
        return GaussianBelief(mean, _back(factor(reduced + _outer(handed))))

    def _regression(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of the state before with the whitened next one, (S, S, ...), and that next one, (S, ...)."""
        after, before = _front(self.after), _front(self.before)
        crossed = (after[:, None] * before[None]).sum(2)
        return self._whiten(crossed).transpose(0, 1), self._whiten((state - self.mean).movedim(-1, 0)[:, None])[:, 0]

    def _whiten(self, values: Tensor) -> Tensor:
        """Divide by the triangular root of the predicted covariance; directions without variance give 0."""
        root, rows = _front(self.predicted().root), list[Tensor]()
        for i in range(root.shape[0]):
            row = values[i]
            for j, known in enumerate(rows):
                row = row - root[i, j] * known
            pivot = root[i, i]
            rows.append(torch.where(pivot > 0, row / torch.where(pivot > 0, pivot, 1.0), 0.0))
        return torch.stack(rows)


class Unscented:
    """Moments of a nonlinear transition from 2 S + 1 points, exact for polynomials up to the third degree in the mean.

    The points lie sqrt(3) standard deviations out for one to three state columns, sqrt(S) above, so that no weight is
    below 0 and the covariance stays one.

    References
    ----------
    Julier and Uhlmann (1997), A new extension of the Kalman filter to nonlinear systems; Arasaratnam and Haykin (2009),
    Cubature Kalman filters.

    Examples
    --------
    The square of N(1, 0.1^2) has mean 1.01 and variance 0.0402.

    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> passage = Unscented().passage(GaussianBelief(one, 0.1 * one[..., None]), lambda x: (x.square(), None))
    >>> round(float(passage.mean), 6), round(float(passage.predicted().covariance), 6)
    (1.01, 0.0402)
    """

    exact = False

    def __repr__(self) -> str:
        return "Unscented()"

    def begin(self, mean: Tensor, root: Tensor) -> GaussianBelief:
        """Return the belief to begin with."""
        return GaussianBelief(mean, root)

    def passage(self, belief: GaussianBelief, move: Move) -> Passage:
        """Send a belief through a transition.

        Parameters
        ----------
        belief : GaussianBelief
            About the state before.
        move : callable
            Maps states (W, P, K, *batch, S) to the mean of the next state, of that shape, and the standard deviation of
            its noise, broadcastable to it, or None.

        Returns
        -------
        Passage
        """
        mean, root = belief.mean.movedim(-1, 0), _front(belief.root)
        count = root.shape[1]
        reach = max(float(count), 3.0) ** 0.5
        central = 1 - count / reach**2
        centre, step = mean[:, None], reach * root
        sides = (centre + step, centre - step)
        points = torch.cat((centre, *sides) if central > 1e-12 else sides, 1)
        moved, scale = _through(points, move)
        weight = [1 / (2 * reach**2)] * (2 * count)
        if central > 1e-12:
            weight = [central, *weight]
        w = moved.new_tensor(weight).view(-1, *(1,) * (moved.ndim - 2))
        centre = (moved * w).sum(1)
        after = (moved - centre[:, None]) * w.sqrt()
        half = root * 0.5**0.5
        before = torch.cat((torch.zeros_like(half[:, :1]), half, -half) if central > 1e-12 else (half, -half), 1)
        if scale is not None:
            scale = (scale.square() * w).sum(1).sqrt().movedim(0, -1)
        return Passage(belief, centre.movedim(0, -1), _back(after), _back(before), scale)


class LinearGaussian:
    """Exact moments of a linear transition (a constant may be added), from S + 1 points.

    Examples
    --------
    >>> one = torch.ones(1, 1, 1, dtype=torch.float64)
    >>> passage = LinearGaussian().passage(GaussianBelief(one, one[..., None]), lambda x: (2 * x + 1, 0.5 * one))
    >>> float(passage.mean), round(float(passage.predicted().covariance), 9)
    (3.0, 4.25)
    """

    exact = True

    def __repr__(self) -> str:
        return "LinearGaussian()"

    def begin(self, mean: Tensor, root: Tensor) -> GaussianBelief:
        """Return the belief to begin with."""
        return GaussianBelief(mean, root)

    def passage(self, belief: GaussianBelief, move: Move) -> Passage:
        """Send a belief through a transition; arguments and result as of :meth:`Unscented.passage`."""
        mean, root = belief.mean.movedim(-1, 0), _front(belief.root)
        size = mean.shape[0]
        aside = torch.eye(size, dtype=mean.dtype, device=mean.device).view(size, size, *(1,) * (mean.ndim - 1))
        moved, scale = _through(torch.cat((mean[:, None], mean[:, None] + aside), 1), move)
        slope = moved[:, 1:] - moved[:, :1]
        after = (slope[:, :, None] * root[None]).sum(1)
        if scale is not None:
            scale = scale[:, 0].movedim(0, -1)
        return Passage(belief, moved[:, 0].movedim(0, -1), _back(after), _back(root.expand_as(after)), scale)


def factor(covariance: Tensor) -> Tensor:
    """Return the lower Cholesky factor of many small matrices whose rows and columns come first, (S, S, ...).

    A direction without variance (a pivot of rounding size) gives a column of zeros instead of an error or an infinite
    gradient. With the lanes last, every operation runs over all of them: several times faster than LAPACK on millions
    of 2 x 2 matrices.

    Examples
    --------
    >>> factor(torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 9.0]])).tolist()
    [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    """
    size, rest, columns = covariance.shape[0], covariance, list[Tensor]()
    tiny = 100 * torch.finfo(covariance.dtype).eps
    for j in range(size):
        pivot = rest[0, 0]
        there = pivot > tiny * covariance[j, j]
        column = rest[:, 0] * torch.where(there, torch.where(there, pivot, 1.0).rsqrt(), 0.0)
        columns.append(torch.cat((column.new_zeros(j, *column.shape[1:]), column)) if j else column)
        if j < size - 1:
            rest = rest[1:, 1:] - column[1:, None] * column[None, 1:]
    return torch.stack(columns, 1)


def _outer(values: Tensor) -> Tensor:
    return (values[:, None] * values[None]).sum(2)


def _front(matrix: Tensor) -> Tensor:
    return matrix.movedim((-2, -1), (0, 1))


def _back(matrix: Tensor) -> Tensor:
    return matrix.movedim((0, 1), (-2, -1))


def _through(points: Tensor, move: Move) -> tuple[Tensor, Tensor | None]:
    """Move points (S, K, W, P, *batch) and return them in that order, with the scale of their noise."""
    mean, scale = move(points.movedim((2, 3, 1, 0), (0, 1, 2, -1)))
    if scale is not None:
        scale = scale.expand(mean.shape).movedim((0, 1, 2, -1), (2, 3, 1, 0))
    return mean.movedim((0, 1, 2, -1), (2, 3, 1, 0)), scale
