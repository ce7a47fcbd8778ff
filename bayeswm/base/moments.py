"""Moments of a step from a Gaussian belief: cubature in each world, or pooled over worlds."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError, UndefinedWarning
from bayeswm.base.laws import Gaussian
from bayeswm.base.predictive import warn_caller
from bayeswm.base.roots import covariance_root
from bayeswm.base.worlds import Worlds


class Moments(NamedTuple):
    """Moments of the next state from a Gaussian belief about n inputs: the state, or the state and the action.

    ``mean`` (*batch, S) and ``covariance`` (*batch, S, S) are of the next state, process noise included. ``cross``
    (*batch, n, S) is the covariance between the inputs and the next state. ``aleatoric`` (*batch, S, S) is what the
    covariance would be if the function were known and were the mean one: its variance between worlds at a fixed input
    is left out. What is left, ``covariance - aleatoric``, is that variance, averaged over the belief.
    """

    mean: Tensor
    covariance: Tensor
    cross: Tensor
    aleatoric: Tensor


class Cubature(NamedTuple):
    """Points and weights that integrate over N(0, I): ``points`` (K, n) or (W, K, n), ``weight`` (K,) of sum 1."""

    points: Tensor
    weight: Tensor


def third_degree(size: int) -> Cubature:
    """Return 2 n + 1 points, exact for polynomials up to the third degree; no weight is negative.

    They lie sqrt(3) from the centre for one to three inputs, sqrt(n) above.

    References
    ----------
    Julier and Uhlmann (1997), A new extension of the Kalman filter to nonlinear systems; Arasaratnam and Haykin (2009),
    Cubature Kalman filters.

    Examples
    --------
    >>> rule = third_degree(2)
    >>> rule.points.shape, round(float((rule.weight * rule.points[:, 0] ** 2).sum()), 12)
    (torch.Size([5, 2]), 1.0)
    """
    square = max(float(size), 3.0)
    axis = square**0.5 * torch.eye(size, dtype=torch.float64)
    points = torch.cat((torch.zeros(1, size, dtype=torch.float64), axis, -axis))
    weight = torch.full((2 * size + 1,), 0.5 / square, dtype=torch.float64)
    weight[0] = 1 - size / square
    return Cubature(points, weight)


def fifth_degree(size: int) -> Cubature:
    """Return 2 n^2 + 1 points, exact for polynomials up to the fifth degree: the variance of quadratic functions too.

    For n = 1 these are the three Gauss-Hermite points. Above four inputs some weights are negative, so that a
    covariance could come out with a negative eigenvalue; that is repaired with a warning.

    References
    ----------
    McNamee and Stenger (1967), Construction of fully symmetric numerical integration formulas; Jia, Xin and Cheng
    (2013), High-degree cubature Kalman filter.

    Examples
    --------
    >>> rule = fifth_degree(3)
    >>> rule.points.shape, round(float((rule.weight * rule.points[:, 0] ** 4).sum()), 12)
    (torch.Size([19, 3]), 3.0)
    """
    reach = (size + 2) ** 0.5
    axis = reach * torch.eye(size, dtype=torch.float64)
    pairs = list(itertools.combinations(range(size), 2))
    corner = axis.new_zeros(len(pairs), 4, size)
    for row, (i, j) in enumerate(pairs):
        corner[row, :, i] = reach / 2**0.5 * corner.new_tensor([1.0, 1.0, -1.0, -1.0])
        corner[row, :, j] = reach / 2**0.5 * corner.new_tensor([1.0, -1.0, 1.0, -1.0])
    square = (size + 2.0) ** 2
    points = torch.cat((axis.new_zeros(1, size), axis, -axis, corner.flatten(0, 1)))
    weight = axis.new_full((len(points),), 1 / square)
    weight[0] = 2 / (size + 2)
    weight[1 : 2 * size + 1] = (4 - size) / (2 * square)
    return Cubature(points, weight)


class Cloud(NamedTuple):
    """A belief's cubature points, and what becomes of each in each world.

    ``before`` (W or 1, K, *batch, n) are the points less the mean of the belief, ``after`` (W, K, *batch, S) the means
    of the next state, ``noise`` (W, *batch, S, S) the covariance of the process noise, averaged over the points.
    """

    before: Tensor
    after: Tensor
    noise: Tensor
    weight: Tensor

    def by_world(self) -> Moments:
        """Return the moments in each world; there the covariance is all aleatoric."""
        weight = self.weight.view(-1, *(1,) * (self.after.ndim - 2))
        # from one of the points: where all are equal, rounding leaves no variance
        origin = self.after[:, :1]
        off = self.after - origin
        shift = (weight * off).sum(1, keepdim=True)
        off = off - shift
        before = self.before.expand(len(off), *self.before.shape[1:])
        covariance = torch.einsum("wk...i,wk...j->w...ij", weight * off, off) + self.noise
        cross = torch.einsum("wk...i,wk...j->w...ij", weight * before, off)
        return Moments((origin + shift)[:, 0], covariance, cross, covariance)

    def pooled(self, world_weight: Tensor, *, exhaustive: bool) -> Moments:
        """Return the moments over worlds and belief together, of a world that is met for this step only.

        Parameters
        ----------
        world_weight : Tensor, shape (W,)
            Weights of the worlds, of sum 1.
        exhaustive : bool
            Whether the worlds are the posterior; the variance between draws is divided by 1 - sum w^2. From a single
            draw the covariance is that in this world, and ``aleatoric`` is NaN.
        """
        axes = (1,) * (self.after.ndim - 2)
        weight, worlds = self.weight.view(-1, *axes), world_weight.to(self.after).view(-1, 1, *axes)
        origin = self.after[:1, :1]
        relative = self.after - origin
        common = (worlds * relative).sum(0)
        shift = (weight * common).sum(0)
        off = common - shift
        within = torch.einsum("k...i,k...j->...ij", weight * off, off) + (worlds * self.noise).sum(0)
        single = not exhaustive and float(worlds.square().sum()) > 1 - 1e-12
        if single:
            between, aleatoric = 0.0, torch.full_like(within, float("nan"))
        else:
            apart = relative - common
            between = torch.einsum("wk...i,wk...j->...ij", worlds * weight * apart, apart)
            between = between if exhaustive else between / (1 - worlds.square().sum())
            aleatoric = within
        cross = torch.einsum("k...i,k...j->...ij", weight * self.before[0], off)
        return Moments(origin[0, 0] + shift, within + between, cross, aleatoric)


def pooled_moments(  # noqa: PLR0917 (as DynamicsModel.moments)
    worlds: Worlds,
    mean: Tensor,
    covariance: Tensor,
    action: Tensor | None = None,
    *,
    context: Tensor | None = None,
    step: int = 0,
) -> Moments:
    """Return moments of the next state where the belief meets a world of the posterior for this step only.

    By cubature of the fifth degree: exact where the mean of the step is at most quadratic in the belief's inputs.

    Parameters
    ----------
    worlds : Worlds
        Whose carry is the state.
    mean : Tensor, shape (*batch, n)
        Mean of the state (n = S), or without ``action`` of state and action (n = S + A).
    covariance : Tensor, shape (*batch, n, n)
        Its covariance, which may be singular.
    action : Tensor, shape (*batch, A), optional
        A certain action.
    context : Tensor, shape (*batch, C), optional
        Environment factors.
    step : int
        Index of the step.

    Returns
    -------
    Moments

    Raises
    ------
    SpecError, DataError
        For a hidden state, wrong shapes, or numbers that are not finite.

    Warns
    -----
    UndefinedWarning
        If one world was drawn: its variance between worlds is unknown, and ``aleatoric`` is NaN.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01).draw(1)
    >>> found = pooled_moments(worlds, torch.zeros(2), 0.01 * torch.eye(2), torch.zeros(1))
    >>> found.mean.shape, found.covariance.shape, found.cross.shape
    (torch.Size([2]), torch.Size([2, 2]), torch.Size([2, 2]))
    """
    cloud = _cloud(worlds, mean[None], covariance[None], action, context=context, step=step)
    found = cloud.pooled(worlds.weight, exhaustive=worlds.exhaustive)
    if bool(found.aleatoric.isnan().any()):
        warn_caller("the split of the covariance is undefined and is NaN: one world was drawn", UndefinedWarning)
    return found


def world_moments(  # noqa: PLR0917 (as DynamicsModel.moments)
    worlds: Worlds,
    mean: Tensor,
    covariance: Tensor,
    action: Tensor | None = None,
    *,
    context: Tensor | None = None,
    step: int = 0,
) -> Moments:
    """Return moments of the next state in each world; all of the covariance there is aleatoric.

    Arguments, method and errors as of :func:`pooled_moments`, but the belief has an axis of worlds in front: ``mean``
    (W or 1, *batch, n), ``covariance`` (W or 1, *batch, n, n). So have the moments, (W, *batch, ...).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> belief = bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2))
    >>> worlds = bwm.KnownDynamics(structure=belief, noise=0.01).draw(5, generator=torch.Generator().manual_seed(0))
    >>> world_moments(worlds, torch.zeros(1, 2), torch.zeros(1, 2, 2), torch.ones(1)).mean.shape
    torch.Size([5, 2])
    """
    return _cloud(worlds, mean, covariance, action, context=context, step=step).by_world()


def _cloud(  # noqa: PLR0917 (as DynamicsModel.moments)
    worlds: Worlds, mean: Tensor, covariance: Tensor, action: Tensor | None, *, context: Tensor | None, step: int
) -> Cloud:
    """Check a belief and send it through a step by the rule of the fifth degree."""
    state, acts = worlds.schema.state.size, worlds.schema.action.size
    mean, covariance = (torch.as_tensor(v).to(worlds.device, worlds.dtype) for v in (mean, covariance))
    size = state + (acts if action is None else 0)
    if mean.shape[-1] != size or covariance.shape[-2:] != (size, size):
        what = "state and action" if action is None and acts else "the state"
        raise DataError(
            f"expected a belief about {what} of {size} columns, mean (*batch, {size}) and covariance "
            f"(*batch, {size}, {size}), got {tuple(mean.shape)} and {tuple(covariance.shape)}"
        )
    given = {"action": (action, acts), "context": (context, worlds.schema.context.size)}
    tensors: dict[str, Tensor | None] = {}
    for name, (values, columns) in given.items():
        if values is not None:
            values = torch.as_tensor(values).to(worlds.device, worlds.dtype)
            if values.ndim < 1 or values.shape[-1] != columns:
                raise DataError(f"expected {name} of shape (*batch, {columns}), got {tuple(values.shape)}")
        elif name == "context" and columns:
            raise DataError(f"expected context= of {columns} value(s), got none")
        tensors[name] = values
    for name, values in {"the belief's mean": mean, "the belief's covariance": covariance, **tensors}.items():
        if values is not None and not bool(values.isfinite().all()):
            raise DataError(f"expected finite values of {name}, got NaN or infinity")
    action, context = tensors["action"], tensors["context"]
    batches = [mean.shape[1:-1], covariance.shape[1:-2], *(v.shape[:-1] for v in (action, context) if v is not None)]
    try:
        batch = torch.broadcast_shapes(*batches)
    except RuntimeError:
        raise DataError(f"expected batch shapes that fit, got {[tuple(b) for b in batches]}") from None
    mean = mean.expand(mean.shape[0], *batch, size)
    covariance = covariance.expand(covariance.shape[0], *batch, size, size)
    check_markov(worlds, "moments of a step")
    rule = fifth_degree(size)
    points = cubature_points(mean, covariance_root(covariance), rule)
    return send(worlds, points, mean, rule=rule, action=action, context=context, step=step)


def check_markov(worlds: Worlds, who: str) -> None:
    """Refuse worlds that a Gaussian belief about the state does not describe.

    Raises
    ------
    SpecError
        If the state is hidden, an episode has noise of its own, or a variable is no number on a line.
    """
    schema = worlds.schema
    plain = worlds.state_is_measured and not worlds.episode_noise_size
    if plain:
        blank = torch.zeros(schema.state.size, dtype=worlds.dtype, device=worlds.device)
        plain = isinstance(worlds.start(blank, blank.new_zeros(schema.context.size)), Tensor)
    if not plain:
        raise SpecError(
            f"expected worlds whose carry is the state for {who}, got a hidden state, numbers of an episode or a "
            f"memory in {type(worlds).__name__}; use rollout(), or propagate() with FixedWorlds or FreshWorlds"
        )
    if not worlds.schema.state.flat:
        kinds = ", ".join(f"{v.name}: {v.kind.name}" for v in worlds.schema.state)
        raise SpecError(
            f"expected real variables and angles for {who}, got ({kinds}); use rollout(), or propagate() with "
            "FixedWorlds or FreshWorlds"
        )


def cubature_points(mean: Tensor, root: Tensor, rule: Cubature) -> Tensor:
    """Return the points of a rule for Gaussian beliefs.

    Parameters
    ----------
    mean : Tensor, shape (W or 1, *batch, n)
        Means.
    root : Tensor, shape (W or 1, *batch, n, n)
        Roots of the covariances.
    rule : Cubature
        Of n inputs.

    Returns
    -------
    Tensor, shape (W or 1, K, *batch, n)
    """
    points = rule.points.to(mean)
    points = points if points.ndim == 3 else points[None]
    return mean[:, None] + torch.einsum("w...ij,wkj->wk...i", root, points)


def send(
    worlds: Worlds,
    points: Tensor,
    mean: Tensor,
    *,
    rule: Cubature,
    action: Tensor | None,
    context: Tensor | None,
    step: int,
) -> Cloud:
    """Send points (W or 1, K, *batch, n) through a step of each world.

    Parameters
    ----------
    worlds : Worlds
        Whose carry is the state.
    points : Tensor
        States, or without ``action`` states and actions.
    mean : Tensor, shape (W or 1, *batch, n)
        Of the belief.
    rule : Cubature
        Whose weights the points have.
    action : Tensor, shape (*batch, A), optional
        A certain action.
    context : Tensor, shape (*batch, C), optional
        Environment factors.
    step : int
        Index of the step.

    Returns
    -------
    Cloud
    """
    size, batch = worlds.schema.state.size, tuple(points.shape[2:-1])
    carry = points[..., :size].expand(len(worlds), *points.shape[1:-1], size)
    if action is None:
        action = points[..., size:].expand(len(worlds), *points.shape[1:-1], -1)
    else:
        action = action.expand(*batch, action.shape[-1])
    if context is None:
        context = points.new_empty(*batch, 0)
    law = worlds.transition(carry, action, context.expand(*batch, context.shape[-1]), step=step)
    after = law.mean.expand(len(worlds), *points.shape[1:-1], size)
    weight = rule.weight.to(points)
    lanes = weight.view(-1, *(1,) * (after.ndim - 2))
    if isinstance(law, Gaussian):
        noise = torch.diag_embed((lanes * law.variance).sum(1))
    else:
        noise = (lanes[..., None] * law.covariance).sum(1)
    noise = noise.expand(len(worlds), *batch, size, size)
    return Cloud(points - mean[:, None], after, noise, weight)
