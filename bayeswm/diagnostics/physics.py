"""Whether worlds keep the books of physics: balances of energy or momentum along rollouts, and symmetries."""

from __future__ import annotations

from collections.abc import Callable

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import DataError
from bayeswm.base.mixture import weighted_mean
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.forecast import Forecast, Forecasts, Windows, gather, known
from bayeswm.diagnostics.sensitivity import check_states, known_carry, world_coords
from bayeswm.diagnostics.summary import Summary, as_numpy

Energy = Callable[[Tensor], Tensor]
Work = Callable[[Tensor, Tensor], Tensor]
Transform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def energy_residual(
    forecasts: Forecasts, energy: Energy, *, work: Work | None = None, bootstrap: int = 1000, seed: int = 0
) -> xr.Dataset:
    """Measure the energy that rollouts gain or lose beside the work done on them.

    The residual after h steps is E(x[h]) - E(x[0]) - the work of the actions until then. Any quantity with a balance
    will do: for a momentum, give it in place of the energy, and the impulse of the actions in place of their work.
    Where the system itself loses energy (friction), the residual is that loss, unless ``work`` has it.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        Rollouts; what came is not looked at.
    energy : callable
        Maps states (..., S) to the energy (...).
    work : callable, optional
        Maps states (..., H + 1, S), start included, and actions (..., H, A) to the work of each step, (..., H): for a
        torque that is held during the step, ``torque * states[..., 0].diff()``. By default nothing is done.
    bootstrap, seed : int
        Resamples and seed of the cluster bootstrap.

    Returns
    -------
    xarray.Dataset
        By ``horizon``, in the unit of the energy:

        * ``residual``: mean over worlds, particles and windows; closest to 0 is best;
        * ``residual_rms``: root mean square; lower is better;
        * ``residual_sd``: standard deviation over the worlds and particles of a window;
        * each with ``_se``, ``_lower`` and ``_upper`` (95 %) from the cluster bootstrap over recordings.

        Particles that diverged do not count.

    Raises
    ------
    SpecError
        If particles or (with ``work``) actions are not known, or the forecasts are of measurements.
    DataError
        If the shape of an energy or a work does not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.0)
    >>> start = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    >>> swing = bwm.rollout(model, start, torch.zeros(9, 20, 1), particles=1)
    >>> one = bwm.diagnostics.forecast_of(swing, swing.mean)
    >>> found = energy_residual(one, lambda x: x[..., 1] ** 2 / 2 - 9.81 * torch.cos(x[..., 0]))
    >>> bool(found.residual_rms.max() < 1e-4)
    True
    """
    found = gather(forecasts, lambda part: window_energy(part, energy, work))
    return summarise_energy(found, bootstrap=bootstrap, seed=seed)


def summarise_energy(found: Windows, *, bootstrap: int, seed: int) -> xr.Dataset:
    """Return :func:`energy_residual` of what :func:`window_energy` gave of each window.

    Examples
    --------
    See :func:`energy_residual`.
    """
    summary = Summary(found.recording, resamples=bootstrap, seed=seed)
    attrs = {"long_name": "mean energy residual"}
    summary.add("residual", found.values["mean"], ("horizon",), attrs=attrs)
    attrs = {"long_name": "root mean square of the energy residual", "better": "lower"}
    summary.add("residual_rms", found.values["square"], ("horizon",), statistic=torch.sqrt, attrs=attrs)
    attrs = {"long_name": "standard deviation of the energy residual over worlds and particles"}
    summary.add("residual_sd", found.values["variance"], ("horizon",), statistic=torch.sqrt, attrs=attrs)
    return summary.dataset(found, coords={}).drop_vars(["variable", "unit"])


def window_energy(part: Forecast, energy: Energy, work: Work | None = None) -> dict[str, Tensor]:
    """Return mean, mean square and variance of the energy residual in each window, shape (windows, H).

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.0)
    >>> still = bwm.rollout(model, torch.zeros(1, 2), torch.zeros(1, 3, 1), particles=1)
    >>> one = bwm.diagnostics.forecast_of(still, still.mean)
    >>> {name: tuple(value.shape) for name, value in window_energy(one, lambda x: x[..., 1].square()).items()}
    {'mean': (1, 3), 'square': (1, 3), 'variance': (1, 3)}
    """
    check_states(part)
    predictive = part.predictive
    particles = predictive.particles.double()
    if predictive.initial is None:
        raise DataError("expected rollouts that know their start, got none; make them with bayeswm.rollout()")
    start = predictive.initial.to(particles).expand(*particles.shape[:3], -1)
    states = torch.cat((start[..., None, :], particles), -2)
    level = _shaped("the energy", energy(states), states.shape[:-1])
    residual = level[..., 1:] - level[..., :1]
    if work is not None:
        windows, _ = known(part)
        actions = windows.action[:, : predictive.horizon].to(particles)
        actions = actions.expand(*particles.shape[:2], *actions.shape)
        residual = residual - _shaped("the work", work(states, actions), residual.shape).cumsum(-1)
    valid = residual.isfinite() & ~predictive.diverged

    def average(values: Tensor) -> Tensor:
        return weighted_mean(values[..., None], predictive.weight, valid=valid)[..., 0]

    mean = average(residual)
    return {"mean": mean, "square": average(residual.square()), "variance": average((residual - mean).square())}


def symmetry_residual(
    worlds: Worlds, states: Tensor, actions: Tensor, *, transform: Transform, context: Tensor | None = None
) -> xr.Dataset:
    """Measure how far worlds are from a symmetry T that the system should have: T f(x, u) = f(T x, T u).

    f is the mean of the next state.

    Parameters
    ----------
    worlds : Worlds
        What to judge, as ``model.draw(64, generator=...)``.
    states, actions : Tensor, shapes (n, S) and (n, A)
        Where.
    transform : callable
        Maps a state (..., S) and an action (..., A) to what the symmetry makes of them: for a pendulum that hangs at
        0, a reflection is ``lambda x, u: (-x, -u)``.
    context : Tensor, shape (n, C), optional
        Context, which the symmetry leaves as it is.

    Returns
    -------
    xarray.Dataset
        By ``world`` and ``variable``, in the variable's unit (angles wrapped; rotations by the columns of a change):
        ``residual``, the mean of abs(T f(x, u) - f(T x, T u)) over the states, and ``largest``; lower is better. The
        coordinate ``weight`` has the worlds' weights.

    Raises
    ------
    DataError, SpecError
        If shapes do not fit, or the worlds need more than a state to start from.

    Examples
    --------
    Gymnasium's pendulum can be mirrored, and shifting its angle changes gravity's torque.

    >>> import bayeswm as bwm
    >>> worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1).draw(1)
    >>> x, u = torch.tensor([[0.3, 1.0], [2.0, -1.0]]), torch.tensor([[1.0], [0.5]])
    >>> symmetry_residual(worlds, x, u, transform=lambda x, u: (-x, -u)).largest.values
    array([[0., 0.]])
    >>> shifted = symmetry_residual(worlds, x, u, transform=lambda x, u: (x + torch.tensor([1.0, 0.0]), u))
    >>> bool((shifted.residual > 0.01).all())
    True
    """
    carry, actions, context = known_carry(worlds, states, actions, context=context)
    schema = worlds.schema
    with torch.no_grad():
        after = worlds.transition(carry, actions, context).mean
        mirrored, _ = transform(after, actions.expand(*after.shape[:-1], -1))
        moved, acted = transform(carry, actions.expand(*carry.shape[:-1], -1))
        if mirrored.shape != after.shape or moved.shape != carry.shape or acted.shape[-1] != actions.shape[-1]:
            raise DataError(
                f"expected a transform that keeps the shapes of state {tuple(carry.shape)} and action, got "
                f"{tuple(moved.shape)} and {tuple(acted.shape)}"
            )
        error = schema.state.difference(mirrored, worlds.transition(moved, acted, context).mean).abs()
    error = error[:, 0].double()
    names = schema.state.columns
    coords = {"variable": list(names), "unit": ("variable", [v.unit for v in schema.state for _ in v.columns])}
    if error.shape[-1] != len(names):  # a rotation's change has a column less than its value
        coords = {"variable": [f"change {i}" for i in range(error.shape[-1])]}
    attrs = {"better": "lower"}
    return xr.Dataset(
        {
            "residual": (("world", "variable"), as_numpy(error.mean(1)), {"long_name": "mean residual", **attrs}),
            "largest": (("world", "variable"), as_numpy(error.amax(1)), {"long_name": "largest residual", **attrs}),
        },
        coords={**world_coords(worlds), **coords},
        attrs={"states": error.shape[1]},
    )


def _shaped(name: str, values: Tensor, shape: torch.Size) -> Tensor:
    if values.shape != shape:
        raise DataError(f"expected {name} of shape {tuple(shape)}, got {tuple(values.shape)}")
    return values
