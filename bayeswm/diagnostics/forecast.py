"""Forecasts of recorded trajectories: what every diagnostic of predictions starts from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, DataWarning, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.predictive import Predictive
from bayeswm.base.random import make_generator
from bayeswm.base.rollout import rollout
from bayeswm.base.schema import Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.diagnostics.pointwise import check_outcomes

# Bytes of particles and laws in one part: large enough for batched speed, small enough for any machine.
_PART = 2**26


class Forecast(NamedTuple):
    """A forecast of some windows, and what came: what every diagnostic takes, one or several.

    ``predictive`` has batch shape (windows,), ``outcomes`` shape (windows, H, M), with NaN where nothing was recorded:
    states, or measurements where the state is hidden. ``recording``, shape (windows,), says which windows belong
    together. Forecasts that :func:`forecast` makes know more: ``worlds`` are those of the forecast, ``windows`` the
    data of the H steps, ``past`` what came before them, where the state is hidden.
    """

    predictive: Predictive
    outcomes: Tensor
    recording: Tensor
    windows: Trajectories | None = None
    worlds: Worlds | None = None
    past: Trajectories | None = None


# what a diagnostic takes: all its windows at once, or in parts
Forecasts = Forecast | Iterable[Forecast]


def forecast_of(predictive: Predictive, outcomes: Tensor, *, recording: Tensor | None = None) -> Forecast:
    """Return a predictive and what came as a forecast, for the diagnostics.

    Parameters
    ----------
    predictive : Predictive
        With any batch shape: its entries are the windows.
    outcomes : Tensor, shape (*batch, H, S)
        What came, x[1..H]; NaN where nothing was recorded.
    recording : Tensor, shape (*batch,), optional
        The recording of each window; by default each is one of its own.

    Returns
    -------
    Forecast
        With one batch axis.

    Raises
    ------
    DataError
        If shapes do not fit.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> forecast_of(model.predictive(torch.zeros(20, 2), torch.zeros(20, 1)), torch.zeros(20, 1, 2)).recording.shape
    torch.Size([20])
    """
    batch = predictive.batch_shape
    check_outcomes(predictive, outcomes)
    if recording is not None and tuple(recording.shape) != batch:
        raise DataError(f"expected recordings of shape {batch}, got {tuple(recording.shape)}")
    count = math.prod(batch)
    recording = torch.arange(count) if recording is None else recording.reshape(-1)
    return Forecast(predictive.flatten(), outcomes.reshape(count, *outcomes.shape[-2:]), recording)


def parts_of(forecasts: Forecasts) -> Iterable[Forecast]:
    """Return forecasts one by one, whether one or several were given.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(2), torch.zeros(1)), torch.zeros(1, 2))
    >>> len(list(parts_of(one))), len(list(parts_of([one, one])))
    (1, 2)
    """
    return [forecasts] if isinstance(forecasts, Forecast) else forecasts


class Windows(NamedTuple):
    """Values of every window, with what labels them.

    ``values`` have shape (windows, ...), ``recording`` and ``start`` (windows,); the start is None where it is unknown.
    """

    values: dict[str, Tensor]
    recording: Tensor
    start: Tensor | None
    variables: Variables
    horizon: int
    time_step: float

    def group(self, prefix: str) -> Windows:
        """Return the values whose name begins with ``prefix``, under the rest of their name."""
        values = {name.removeprefix(prefix): v for name, v in self.values.items() if name.startswith(prefix)}
        return self._replace(values=values)


def gather(forecasts: Forecasts, values: Callable[[Forecast], Mapping[str, Tensor]]) -> Windows:
    """Compute values of each window, part by part, and return them together.

    Parameters
    ----------
    forecasts : Forecast or iterable of Forecast
        What :func:`forecast` or :func:`forecast_of` made.
    values : callable
        Maps one forecast to named values of shape (windows, ...).

    Returns
    -------
    Windows

    Raises
    ------
    DataError
        If there is no forecast.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    >>> one = forecast_of(model.predictive(torch.zeros(2), torch.zeros(1)), torch.zeros(1, 2))
    >>> gather([one, one], lambda part: {"error": part.predictive.mean - part.outcomes}).values["error"].shape
    torch.Size([2, 1, 2])
    """
    found: list[Mapping[str, Tensor]] = []
    recording, start = list[Tensor](), list[Tensor]()
    head: Predictive | None = None
    for part in parts_of(forecasts):
        head = part.predictive
        found.append(values(part))
        recording.append(part.recording.cpu())
        if part.windows is not None:
            start.append(part.windows.start.cpu())
    if head is None:
        raise DataError("expected at least one forecast, got none")
    return Windows(
        {name: torch.cat([part[name] for part in found]) for name in found[0]},
        torch.cat(recording),
        torch.cat(start) if len(start) == len(found) else None,
        head.variables,
        head.horizon,
        head.time_step,
    )


def known(part: Forecast) -> tuple[Trajectories, Worlds]:
    """Return the data and the worlds of a forecast.

    Raises
    ------
    SpecError
        For one that does not know them.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(9, 6, 2), action=torch.zeros(9, 5, 1))
    >>> windows, worlds = known(next(forecast(model, data, horizon=5)))
    >>> len(windows), len(worlds)
    (9, 1)
    """
    if part.windows is None or part.worlds is None:
        raise SpecError(
            "expected a forecast that knows its model and its data, from diagnostics.forecast(), got one "
            "of a predictive alone"
        )
    return part.windows, part.worlds


def forecast(
    model: DynamicsModel | Worlds,
    trajectories: Trajectories,
    *,
    horizon: int,
    stride: int | None = None,
    worlds: int = 64,
    particles: int | None = None,
    seed: int | torch.Generator = 0,
    fresh_worlds: bool = False,
    chunk: int | None = None,
    history: int | None = None,
) -> Iterator[Forecast]:
    """Forecast windows of trajectories from their recorded first state, under their recorded actions.

    Where the model says that the state is hidden, a forecast starts from what all measurements up to its first one
    tell, and is one of measurements. All windows meet the same worlds. They are rolled out part by part, so that memory
    stays bounded.

    Parameters
    ----------
    model : DynamicsModel or Worlds
        What to judge.
    trajectories : Trajectories
        Recorded states and actions, not used for training.
    horizon : int
        Steps of each forecast.
    stride : int, optional
        Steps between the starts of two windows; ``horizon`` by default, so that none overlap.
    worlds : int
        As in :func:`bayeswm.rollout`.
    particles : int, optional
        In each world; by default 20, and more where the worlds are so few that it takes more for 100 in all.
    seed : int or torch.Generator
        Source of all randomness.
    fresh_worlds : bool
        As in :func:`bayeswm.rollout`.
    chunk : int, optional
        Windows in a part; chosen by memory where it is absent. It shapes which random numbers go where.
    history : int, optional
        With a hidden state: steps before each forecast whose measurements the model filters; by default all since the
        episode's beginning. Windows with a shorter past are left out. What a model believes of the start of an episode
        it then believes of the start of that history: for long recordings, where the whole past would cost too much.

    Yields
    ------
    Forecast
        Of some windows; in the order of ``trajectories.windows(horizon, stride=stride)``, those left out missing.

    Raises
    ------
    SpecError, DataError
        If the data do not fit the model, no episode is long enough, or no window starts from a recorded state.

    Warns
    -----
    DataWarning
        For windows left out because their first state was not recorded.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    >>> data = bwm.Trajectories(model.schema, state=torch.zeros(3, 21, 2), action=torch.zeros(3, 20, 1))
    >>> [part.outcomes.shape for part in forecast(model, data, horizon=5, chunk=10)]
    [torch.Size([10, 5, 2]), torch.Size([2, 5, 2])]
    """
    generator = make_generator(seed)
    drawn = model if isinstance(model, Worlds) else model.draw(worlds, generator=generator)
    trajectories = drawn.comparable(trajectories)
    if drawn.state_is_measured:
        windows, past = _from_known_state(trajectories.windows(horizon, stride=stride)), None
        if history:
            raise SpecError("expected no history=, since this model's state is measured: the first tells all")
    else:
        trajectories.measured_as(drawn.schema)  # data that do not fit are refused before anything runs
        windows = trajectories.windows(horizon, stride=stride)
        past = trajectories.histories(horizon, stride=stride, steps=history)
        if history:
            long_enough = (past.lengths == history).nonzero()[:, 0]
            if not len(long_enough):
                raise DataError(f"expected an episode with {history} steps before a window of {horizon}, got none")
            windows, past = windows[long_enough], past[long_enough]
    if particles is None:
        particles = max(20, -(-100 // len(drawn)))
    if chunk is None:
        bits = torch.finfo(drawn.dtype).bits
        chunk = max(1, _PART // (3 * bits // 8 * len(drawn) * particles * horizon * max(drawn.schema.state.size, 1)))
    elif chunk < 1:
        raise SpecError(f"expected chunk >= 1, got {chunk}")
    parts = [slice(at, at + chunk) for at in range(0, len(windows), chunk)]

    def run(rows: slice) -> Forecast:
        part, before = windows[rows], None if past is None else past[rows]
        predictive = rollout(
            drawn,
            part.states()[:, 0] if before is None else before,
            part.action,
            particles=particles,
            generator=generator,
            context=part.step_context() if part.schema.context.size else None,
            fresh_worlds=fresh_worlds,
            of="state" if before is None else "measurement",
        )
        recorded = part.states() if before is None else part.measured_as(drawn.schema)
        outcomes = recorded[:, 1:].to(drawn.device, drawn.dtype)
        return Forecast(predictive, outcomes, part.episode, part, drawn, before)

    def evaluate() -> Iterator[Forecast]:
        for rows in parts:
            with torch.no_grad():
                made = run(rows)
            yield made

    return evaluate()


def _from_known_state(windows: Trajectories) -> Trajectories:
    """Leave out windows that do not start from a recorded state."""
    known = windows.state_mask[:, 0].all(-1)
    if not bool(known.any()):
        raise DataError(
            "expected windows that start from a recorded state, all miss some of it; fill in the states, or use a "
            "model with sensor noise"
        )
    if not bool(known.all()):
        missed = int((~known).sum())
        warnings.warn(f"{missed} window(s) left out: their first state was not recorded", DataWarning, stacklevel=3)
        return windows[known]
    return windows
