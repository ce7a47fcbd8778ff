"""Gaussian filtering, batched: how a belief moves through a transition, forwards and, for smoothing, back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.random import standard_normal
from bayeswm.base.roots import back, factor, front
from bayeswm.inference.gaussian_belief import GaussianBelief, outer

# maps states (W, P, K, *batch, S) to the mean of the next state and the standard deviation of its noise, if any
Move = Callable[[Tensor], tuple[Tensor, Tensor | None]]


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
        left = front(belief.covariance) - outer(share)
        root = back(factor(left))
        noise = standard_normal(tuple(state.shape), generator, dtype=state.dtype, device=state.device)
        mean = belief.mean + (share * whitened[None]).sum(1).movedim(0, -1)
        return mean + (root * noise[..., None, :]).sum(-1)

    def smoothed(self, later: GaussianBelief) -> GaussianBelief:
        """Return the belief about the state before, given the one about the state after (Rauch-Tung-Striebel)."""
        share, whitened = self._regression(later.mean)
        mean = self.belief.mean + (share * whitened[None]).sum(1).movedim(0, -1)
        reduced = front(self.belief.covariance) - outer(share)
        handed = (share[:, :, None] * self._whiten(front(later.root))[None]).sum(1)
        return GaussianBelief(mean, back(factor(reduced + outer(handed))))

    def _regression(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Covariance of the state before with the whitened next one, (S, S, ...), and that next one, (S, ...)."""
        after, before = front(self.after), front(self.before)
        crossed = (after[:, None] * before[None]).sum(2)
        return self._whiten(crossed).transpose(0, 1), self._whiten((state - self.mean).movedim(-1, 0)[:, None])[:, 0]

    def _whiten(self, values: Tensor) -> Tensor:
        """Divide by the triangular root of the predicted covariance; directions without variance give 0."""
        root, rows = front(self.predicted().root), list[Tensor]()
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
        mean, root = belief.mean.movedim(-1, 0), front(belief.root)
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
            variance = (scale.square() * w).sum(1)
            # a column without noise has a root without a derivative
            noisy = variance > 0
            scale = torch.where(noisy, torch.where(noisy, variance, 1.0).sqrt(), 0.0).movedim(0, -1)
        return Passage(belief, centre.movedim(0, -1), back(after), back(before), scale)


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
        mean, root = belief.mean.movedim(-1, 0), front(belief.root)
        size = mean.shape[0]
        aside = torch.eye(size, dtype=mean.dtype, device=mean.device).view(size, size, *(1,) * (mean.ndim - 1))
        moved, scale = _through(torch.cat((mean[:, None], mean[:, None] + aside), 1), move)
        slope = moved[:, 1:] - moved[:, :1]
        after = (slope[:, :, None] * root[None]).sum(1)
        if scale is not None:
            scale = scale[:, 0].movedim(0, -1)
        return Passage(belief, moved[:, 0].movedim(0, -1), back(after), back(root.expand_as(after)), scale)


def _through(points: Tensor, move: Move) -> tuple[Tensor, Tensor | None]:
    """Move points (S, K, W, P, *batch) and return them in that order, with the scale of their noise."""
    mean, scale = move(points.movedim((2, 3, 1, 0), (0, 1, 2, -1)))
    if scale is not None:
        scale = scale.expand(mean.shape).movedim((0, 1, 2, -1), (2, 3, 1, 0))
    return mean.movedim((0, 1, 2, -1), (2, 3, 1, 0)), scale
