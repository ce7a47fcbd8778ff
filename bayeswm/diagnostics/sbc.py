"""Simulation-based calibration of a model: any structure under any way of inference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator, spawn_seeds
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.replicated import simulated
from bayeswm.diagnostics.simulated import Values, simulation_based_calibration

Design = Trajectories | Callable[[Worlds, torch.Generator], Trajectories]


def sbc(
    model: DynamicsModel,
    design: Design,
    *,
    repetitions: int = 100,
    draws: int = 63,
    given: Trajectories | None = None,
    levels: Sequence[float] = (0.5, 0.9),
    seed: int | torch.Generator = 0,
) -> xr.Dataset:
    """Check a model's inference by simulation: worlds from its prior make data, from which it is fitted afresh.

    What is ranked are the parameters of the worlds and the log likelihood of the simulated data: see
    :func:`simulation_based_calibration`, which this calls. A cheaper way of inference may well be useful without
    passing; the coverage says by how much it is off.

    Parameters
    ----------
    model : DynamicsModel
        With a prior that does not depend on data: state the laws of the noise, whose default comes from the data's
        scale. It is not changed.
    design : Trajectories or callable
        Experiments to simulate: where they start and what is done. A callable takes one world and a generator and
        returns what that world did; a design that is random, or starts in a hidden state, needs one.
    repetitions : int
        Fits: 100 tell of gross errors, 400 of a posterior whose width is 10 % off.
    draws : int
        Worlds of each posterior to rank among; far fewer than the effective draws of the posterior.
    given : Trajectories, optional
        Observed data: truths are then drawn from the posterior given these, and each fit is given these and the
        simulated data (posterior SBC). This checks the inference where it is used, and not where the prior reaches.
    levels : sequence of float
        Of the intervals whose coverage is reported.
    seed : int or torch.Generator
        Source of all randomness.

    Returns
    -------
    xarray.Dataset
        As of :func:`simulation_based_calibration`; noise is named by its column.

    Raises
    ------
    SpecError
        If the model has no prior, or one that moves with the data.
    DataError, FitError
        If the design does not fit, or every fit failed.

    Warns
    -----
    EstimateWarning
        If fits failed and were left out.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    >>> drift = bwm.structures.Linear(schema, A=torch.eye(1), c=Normal(torch.zeros(1), 1.0))
    >>> model = bwm.BayesianDynamics(structure=drift, noise=0.5, inference=bwm.inference.Conjugate())
    >>> found = sbc(model, bwm.Trajectories(schema, state=torch.zeros(1, 5, 1)), repetitions=50)
    >>> found["quantity"].values.tolist(), bool(found.attrs["p_value"] > 0.01)
    (['c[0]', 'log_likelihood'], True)
    """
    generator = make_generator(seed)
    base = model if given is None else _fitted(model, given, generator)
    before = base.prior if given is None else base.draw
    checked = False

    def truth(g: torch.Generator) -> dict[str, Tensor]:
        nonlocal world
        world = before(1, generator=g)
        return _parameters(world)

    def simulate(_: Values, g: torch.Generator) -> Trajectories:
        return simulated(world, design, generator=g) if isinstance(design, Trajectories) else design(world, g)

    def posterior(data: Trajectories, g: torch.Generator) -> dict[str, Tensor]:
        nonlocal checked, drawn
        fitted = _fitted(model, data if given is None else Trajectories.concatenate([given, data]), g)
        if given is None and not checked:
            _check_same_prior(base, fitted)
            checked = True
        drawn = fitted.draw(draws, generator=g)
        return _parameters(drawn)

    def log_likelihood(values: Values, data: Trajectories) -> Tensor:
        worlds = world if len(next(iter(values.values()))) == 1 else drawn
        return _log_likelihood(worlds, data)

    world = drawn = before(1, generator=make_generator(0))
    return simulation_based_calibration(
        truth,
        simulate,
        posterior,
        repetitions=repetitions,
        draws=draws,
        quantities={"log_likelihood": log_likelihood},
        levels=levels,
        seed=generator,
    )


def _fitted(model: DynamicsModel, data: Trajectories, generator: torch.Generator) -> DynamicsModel:
    seed = spawn_seeds(generator, 1)[0] % 2**31
    return copy.deepcopy(model).fit(data, seed=seed, progress=False)


def _check_same_prior(model: DynamicsModel, fitted: DynamicsModel) -> None:
    one, two = (m.prior(1, generator=make_generator(0)).parameters for m in (model, fitted))
    moved = [k for k in one if k not in two or not torch.equal(one[k], two[k])]
    if moved:
        raise SpecError(
            f"expected a prior that does not depend on data, that of {', '.join(moved)} moved when the model was "
            "fitted; state the laws of the noise"
        )


def _parameters(worlds: Worlds) -> dict[str, Tensor]:
    """Return the parameters by name, noise by column."""
    found: dict[str, Tensor] = {}
    columns: Mapping[str, Any] = {
        "process_noise": worlds.schema.state.columns,
        "sensor_noise": worlds.schema.measured.columns,
    }
    for name, value in worlds.parameters.items():
        labels = columns.get(name, ())
        if value.ndim == 2 and value.shape[1] == len(labels):
            found |= {f"{name}.{label}": value[:, i] for i, label in enumerate(labels)}
        else:
            found[name] = value
    return found if len(worlds) > 1 else {k: v[0] for k, v in found.items()}


def _log_likelihood(worlds: Worlds, data: Trajectories) -> Tensor:
    """Return the log density of the data in each world, shape (worlds,)."""
    with torch.no_grad():
        if not worlds.state_is_measured:
            return worlds.smooth(data, generator=make_generator(0))[1].sum(-1).mean(1)
        states = data.states().to(worlds.device, worlds.dtype)
        action, context = (v.to(states) for v in (data.action, data.step_context()))
        each = worlds.log_likelihood(worlds.start(states[:, 0]), states[:, 1:], action, context)
        return each.sum((-2, -1))[:, 0]
