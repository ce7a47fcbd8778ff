"""Tubes: regions that are said to hold a whole trajectory, not one step of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, EstimateWarning, SpecError
from bayeswm.base.predictive import Predictive, warn_caller
from bayeswm.base.schema import Variables

if TYPE_CHECKING:
    import xarray as xr

AXES = ("horizon", "variable")


class Tube:
    """A box for every step and variable, that holds them together with the probability ``level``.

    Parameters
    ----------
    lower, upper : Tensor, shape (*batch, H, S)
        Ends; infinite where too little is known for a finite tube.
    level : float
        Probability that the whole trajectory stays inside.
    over : sequence of str
        What is held together: steps ("horizon"), variables ("variable"), or both.
    variables : Variables
        What the last axis holds.
    time_step : float
        Seconds between two steps.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> ends = torch.tensor([[1.0], [2.0]])
    >>> tube = Tube(-ends, ends, level=0.9, over=AXES, variables=Variables([Variable("x")]), time_step=0.1)
    >>> tube.contains(torch.tensor([[0.5], [1.5]])), tube.contains(torch.tensor([[1.5], [0.5]]))
    (tensor(True), tensor(False))
    """

    def __init__(
        self,
        lower: Tensor,
        upper: Tensor,
        *,
        level: float,
        over: Sequence[str],
        variables: Variables,
        time_step: float,
    ) -> None:
        self.lower, self.upper = lower, upper
        self.level = level
        self.over = check_over(over)
        self.variables = variables
        self.time_step = time_step

    def __repr__(self) -> str:
        steps, batch = self.lower.shape[-2], tuple(self.lower.shape[:-2])
        names = ", ".join(self.variables.columns)
        return f"Tube({100 * self.level:g} %, batch {batch}, {steps} steps, ({names}))"

    @property
    def width(self) -> Tensor:
        """Width at each step in each variable's unit, shape (*batch, H, S); lower is sharper."""
        return self.upper - self.lower

    @property
    def mean_width(self) -> Tensor:
        """Width averaged over the steps, in each variable's unit, shape (*batch, S); lower is sharper."""
        return self.width.mean(-2)

    @property
    def log_volume(self) -> Tensor:
        """Logarithm of the volume of each region, shape (*batch,) over both axes; lower is sharper."""
        return self.grouped(self.width).log().sum(-1)

    def contains(self, trajectory: Tensor) -> Tensor:
        """Return whether trajectories stay inside.

        Parameters
        ----------
        trajectory : Tensor, shape (*batch, H, S) or (*more, *batch, H, S)
            What came, x[1..H]; NaN where nothing was recorded counts as inside. A tube without width is met within
            rounding.

        Returns
        -------
        Tensor of bool, shape (*more, *batch); with an axis for each variable or step that has a tube of its own

        Raises
        ------
        DataError
            If the shape does not fit.
        """
        x = self._checked(trajectory)
        rounding = 1e-9 if self.lower.dtype == torch.float64 else 1e-5
        size = torch.maximum(self.lower.abs(), self.upper.abs())
        silent = self.width <= 16 * torch.finfo(self.lower.dtype).eps * size
        reach = torch.where(silent, rounding * size.clamp(min=1.0), 0.0)
        inside = (x >= self.lower - reach) & (x <= self.upper + reach) | x.isnan()
        return self.grouped(inside).all(-1)

    def to_xarray(self) -> xr.Dataset:
        """Return the ends as a labelled data set, by batch_0, ..., horizon and variable."""
        import xarray as xr

        from bayeswm.diagnostics.summary import as_numpy, horizon_coords

        steps = self.lower.shape[-2]
        dims = (*(f"batch_{i}" for i in range(self.lower.ndim - 2)), "horizon", "variable")
        return xr.Dataset(
            {"lower": (dims, as_numpy(self.lower)), "upper": (dims, as_numpy(self.upper))},
            coords=horizon_coords(self.variables, steps=steps, time_step=self.time_step),
            attrs={"level": self.level, "over": " and ".join(self.over)},
        )

    def grouped(self, values: Tensor) -> Tensor:
        """Return values (..., H, S) with what is held together in the last axis; a single region has no axis."""
        found = grouped(values, self.over)
        return found[..., 0, :] if self.over == AXES else found

    def _checked(self, trajectory: Tensor) -> Tensor:
        shape = tuple(self.lower.shape)
        if tuple(trajectory.shape[-len(shape) :]) != shape:
            raise DataError(
                f"expected trajectories of shape {shape}, as the tube has (*batch, horizon, variable), "
                f"got {tuple(trajectory.shape)}; x[1..H] without the start"
            )
        return trajectory.to(self.lower)


class EllipsoidTube(Tube):
    """A tube that is an ellipsoid around a mean trajectory; ``lower`` and ``upper`` are its projection, a larger box.

    Parameters
    ----------
    center, scale : Tensor, shape (*batch, H, S)
        Mean and standard deviation of each step and variable.
    correlation : Tensor, shape (*batch, groups, K, K)
        Of what is held together.
    radius : Tensor, shape (*batch, groups)
        Largest Mahalanobis distance inside.
    level, over, variables, time_step
        As of :class:`Tube`.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> one, close = torch.ones(2, 1), torch.tensor([[[1.0, 0.9], [0.9, 1.0]]])
    >>> tube = EllipsoidTube(0 * one, one, close, 2 * torch.ones(1), level=0.9, over=AXES,
    ...                      variables=Variables([Variable("x")]), time_step=0.1)
    >>> tube.contains(1.5 * one), tube.contains(torch.tensor([[1.5], [-1.5]]))
    (tensor(True), tensor(False))
    """

    def __init__(  # noqa: PLR0917 (four tensors that belong together)
        self,
        center: Tensor,
        scale: Tensor,
        correlation: Tensor,
        radius: Tensor,
        *,
        level: float,
        over: Sequence[str],
        variables: Variables,
        time_step: float,
    ) -> None:
        steps = center.shape[-2]
        half = ungrouped(reach_of(radius[..., None], grouped(scale, over)), over, steps=steps)
        super().__init__(center - half, center + half, level=level, over=over, variables=variables, time_step=time_step)
        self.center, self.scale, self.correlation, self.radius = center, scale, correlation, radius

    @property
    @override
    def log_volume(self) -> Tensor:
        """Logarithm of the volume of each ellipsoid, shape (*batch,) over both axes; lower is sharper."""
        size = self.correlation.shape[-1]
        ball = 0.5 * size * math.log(math.pi) - math.lgamma(0.5 * size + 1)
        spread = grouped(self.scale, self.over).log().sum(-1) + 0.5 * torch.logdet(self.correlation)
        return self._of_region(ball + size * self.radius.log() + spread)

    @override
    def contains(self, trajectory: Tensor) -> Tensor:
        """Return whether trajectories lie in the ellipsoid, as :meth:`Tube.contains`.

        Where some of a trajectory was not recorded, whether any completion of it does.
        """
        inside = super().contains(trajectory)  # also what has no spread
        x = grouped((self._checked(trajectory) - self.center) / self.scale, self.over)
        there = ~x.isnan() & grouped(self.scale > 0, self.over)
        both = there[..., :, None] & there[..., None, :]
        unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        white = whitening(torch.where(both, self.correlation, unit))
        distance = (torch.where(there, x, 0.0)[..., None, :] @ white)[..., 0, :].square().sum(-1).sqrt()
        return inside & self._of_region(distance <= self.radius * (1 + 1e-12))

    def _of_region(self, values: Tensor) -> Tensor:
        return values[..., 0] if self.over == AXES else values


class TubeMethod(Protocol):
    """A way to make a tube of a predictive; ``over`` says what the tube holds together, as :class:`Tube`."""

    @property
    def over(self) -> Sequence[str]:
        """Return the axes that are held together."""
        ...

    def __call__(self, predictive: Predictive, *, level: float) -> Tube:
        """Return the tube that holds ``level`` of the probability."""
        ...


def check_over(over: Sequence[str]) -> tuple[str, ...]:
    """Return the axes that a tube holds together.

    Raises
    ------
    SpecError
        If they are not "horizon", "variable", or both.

    Examples
    --------
    >>> check_over(("horizon",))
    ('horizon',)
    """
    found = tuple(axis for axis in AXES if axis in over)
    if isinstance(over, str) or not found or len(found) != len(over):
        raise SpecError(f"expected over=('horizon', 'variable'), ('horizon',) or ('variable',), got {over!r}")
    return found


def grouped(values: Tensor, over: Sequence[str]) -> Tensor:
    """Return values (..., H, S) as (..., groups, K), with what is held together in the last axis.

    Examples
    --------
    >>> x = torch.zeros(5, 2)
    >>> [tuple(grouped(x, over).shape) for over in (("horizon", "variable"), ("horizon",), ("variable",))]
    [(1, 10), (2, 5), (5, 2)]
    """
    if tuple(over) == AXES:
        return values.flatten(-2)[..., None, :]
    return values.mT if over[0] == "horizon" else values


def ungrouped(values: Tensor, over: Sequence[str], *, steps: int) -> Tensor:
    """Return values (..., groups, K) as (..., H, S): the inverse of :func:`grouped`.

    Examples
    --------
    >>> x = torch.arange(10.0).view(5, 2)
    >>> all(torch.equal(ungrouped(grouped(x, o), o, steps=5), x) for o in (("horizon", "variable"), ("horizon",)))
    True
    """
    if tuple(over) == AXES:
        return values.squeeze(-2).unflatten(-1, (steps, -1))
    return values.mT if over[0] == "horizon" else values


def reach_of(critical: Tensor, scale: Tensor) -> Tensor:
    """Return critical value times scale; infinite where the critical value is, whatever the scale.

    Examples
    --------
    >>> reach_of(torch.tensor([2.0, float("inf")]), torch.tensor([3.0, 0.0]))
    tensor([6., inf])
    """
    return torch.where(critical.isinf(), float("inf"), critical * scale)


def whitening(correlation: Tensor) -> Tensor:
    """Return W with W W' the inverse of a correlation (..., K, K), in the directions in which it has any spread.

    Examples
    --------
    >>> whitening(torch.ones(2, 2, dtype=torch.float64)).square().sum()  # one direction, of variance 2
    tensor(0.5000, dtype=torch.float64)
    """
    values, vectors = torch.linalg.eigh(correlation)
    # rounding leaves about K eps of a direction that the others determine
    least = 1e-10 if correlation.dtype == torch.float64 else 1e-5
    flat = values <= least * values[..., -1:]
    return vectors * torch.where(flat, 0.0, torch.where(flat, 1.0, values).rsqrt())[..., None, :]


def warn_of_infinite(ends: Tensor, level: float) -> None:
    """Warn where draws were too few for a finite tube, at the line of the caller's code.

    Warns
    -----
    EstimateWarning
        If some of the ends are infinite.

    Examples
    --------
    >>> warn_of_infinite(torch.ones(3), 0.9)
    """
    share = float(ends.isinf().double().mean()) if ends.numel() else 0.0
    if share > 0:
        warn_caller(
            f"{share:.0%} of the tubes are infinite: too few draws for {level:.0%} of whole trajectories; draw more "
            "worlds (or particles, where the worlds are the posterior), shorten the horizon, or use SupT()",
            EstimateWarning,
        )
