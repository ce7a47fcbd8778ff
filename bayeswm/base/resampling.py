"""Other time steps, regular steps from irregular stamps, and rates from positions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bayeswm.base.arrays import as_tensor
from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.kinds import Angle, Categorical, Real, Rotation
from bayeswm.base.schema import Variable, Variables
from bayeswm.base.trajectories import Trajectories

# A grid point this close to a recorded one (in steps) is the recorded one: stamps carry rounding, not information.
NEAR = 1e-6


def resample(trajectories: Trajectories, time_step: float) -> Trajectories:
    """Return the trajectories at another time step.

    States and observations: at a multiple of the time step every k-th one, exactly; at any other ratio linear
    interpolation (rotations along the great circle, classes held), where a point between two recorded ones needs both.
    Actions and contexts of each step: the mean over the new interval of the value held in between, so that the impulse
    is kept. Rewards: summed. Steps at the end that fill no interval are dropped, and with them the end's flags;
    ``start`` is rounded down to new steps.

    Parameters
    ----------
    trajectories : Trajectories
        What to resample; it stays as it is.
    time_step : float
        Seconds between two states of the result.

    Raises
    ------
    SpecError
        If the time step is not positive and finite, or rewards meet a ratio that is no integer.
    DataError
        If no episode lasts one new step, or a class or rotation among the actions changes within a new interval.

    Examples
    --------
    >>> from bayeswm.base.schema import Schema
    >>> schema = Schema(state=[Variable("x")], action=[Variable("force")], time_step=0.1)
    >>> fine = Trajectories(schema, state=[[[0.0], [1.0], [4.0], [9.0], [16.0]]], action=[[[1.0], [3.0], [5.0], [7.0]]])
    >>> coarse = resample(fine, 0.2)
    >>> coarse.state.flatten().tolist(), coarse.action.flatten().tolist()
    ([0.0, 4.0, 16.0], [2.0, 6.0])
    """
    old = trajectories
    schema = dataclasses.replace(old.schema, time_step=time_step)
    ratio = schema.time_step / old.schema.time_step
    stride = round(ratio) if round(ratio) >= 1 and abs(ratio - round(ratio)) < 1e-9 * ratio else None
    if old.reward is not None and stride is None:
        raise SpecError(
            f"expected a multiple of {old.schema.time_step:g} s, since rewards can only be summed over whole steps, "
            f"got {schema.time_step:g} s"
        )
    step = stride or ratio
    steps = ((old.lengths.double() + NEAR) / step).floor().long()
    keep = steps >= 1
    if not bool(keep.any()):
        longest = int(old.lengths.max()) * old.schema.time_step
        raise DataError(f"expected an episode of at least {schema.time_step:g} s, the longest has {longest:g} s")
    whole = (steps * step - old.lengths).abs() <= NEAR * step
    rows: dict[str, list[Tensor]] = {}
    for i in keep.nonzero().flatten().tolist():
        length, new = int(old.lengths[i]), int(steps[i])
        knots = torch.arange(length + 1, device=old.device, dtype=torch.float64)
        grid = (torch.arange(new + 1, device=old.device, dtype=torch.float64) * step).clamp(max=length)
        for name in ("state", "observation"):
            values, variables = getattr(old, name), getattr(schema, name)
            if values is not None:
                own = values[i, : length + 1]
                taken = own[::stride][: new + 1] if stride else _interpolate(variables, own, knots=knots, grid=grid)
                rows.setdefault(name, []).append(taken)
        for name in ("action", "context") if old.context.ndim == 3 else ("action",):
            variables = getattr(schema, name)
            own, where = getattr(old, name)[i, :length], f"{name}, episode {i}"
            rows.setdefault(name, []).append(_average(variables, own, knots=knots, grid=grid, name=where))
        if old.reward is not None:
            rows.setdefault("reward", []).append(old.reward[i, : new * step].view(new, -1).sum(-1))
    rest = {
        "terminated": old.terminated & whole,
        "truncated": old.truncated & whole,
        "start": (old.start.double() / step + NEAR).floor().long(),
        "episode": old.episode,
        "lengths": steps,
    }
    if old.context.ndim == 2:
        rest["context"] = old.context
    padded = {name: _pad(values) for name, values in rows.items()}
    return old._like(schema, **padded, **{name: v[keep] for name, v in rest.items()})


def resample_irregular(
    times: Tensor, values: Tensor, *, variables: Variables, time_step: float, hold: bool = False
) -> Tensor:
    """Return one recording with irregular time stamps on a regular grid that starts at the first stamp.

    Parameters
    ----------
    times : Tensor, shape (n,)
        Increasing stamps in s.
    values : Tensor, shape (n, size)
        What was recorded at each; NaN for nothing.
    variables : Variables
        What the columns are: classes are held, rotations follow the great circle, angles are unwrapped first.
    time_step : float
        Seconds between two points of the grid.
    hold : bool
        The values act from their stamp until the next one, as commands do: return the mean over each interval of the
        grid instead of the value at each point. The last row then acts on nothing and is not used.

    Returns
    -------
    Tensor, shape (steps + 1, size), or (steps, size) with ``hold``

    Raises
    ------
    DataError
        If the stamps do not increase (naming the row), or span less than one step.

    Examples
    --------
    >>> times, values = torch.tensor([0.0, 0.25, 1.0]), torch.tensor([[0.0], [1.0], [4.0]])
    >>> resample_irregular(times, values, variables=Variables([Variable("x")]), time_step=0.5).flatten().tolist()
    [0.0, 2.0, 4.0]
    """
    times, values = as_tensor("times", times).double(), as_tensor("values", values)
    if times.ndim != 1 or values.shape != (len(times), variables.size):
        raise DataError(
            f"expected times of shape (n,) and values of shape (n, {variables.size}), got {tuple(times.shape)} and "
            f"{tuple(values.shape)}"
        )
    check_increasing(times)
    steps = int(((times[-1] - times[0]) / time_step + NEAR).floor()) if len(times) else 0
    if steps < 1:
        raise DataError(f"expected stamps that span at least one step of {time_step:g} s, got {len(times)} stamp(s)")
    grid = times[0] + torch.arange(steps + 1, device=times.device, dtype=torch.float64) * time_step
    grid, lifted = grid.clamp(max=float(times[-1])), variables.unwrap(values)
    if hold:
        return _average(variables, lifted[:-1], knots=times, grid=grid, name="values")
    return _interpolate(variables, lifted, knots=times, grid=grid)


def check_increasing(times: Tensor, where: str = "") -> None:
    """Refuse stamps that are not finite and increasing.

    Raises
    ------
    DataError
        Naming the first row that is not after the one before it.

    Examples
    --------
    >>> check_increasing(torch.tensor([0.0, 0.1, 0.2]))
    """
    bad = ~torch.isfinite(times)
    bad[1:] |= ~(times.diff() > 0)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        before = f" after {float(times[row - 1]):g} s" if row else ""
        raise DataError(
            f"time{where}: expected increasing stamps, got {float(times[row]):g} s{before} at row {row} "
            f"({int(bad.sum())} row(s) in all); sort the rows and drop duplicates"
        )


def differentiate(trajectories: Trajectories, rates: Mapping[str, str], *, window: int = 3) -> Trajectories:
    """Estimate rates of change from recorded states and put them into the state.

    Savitzky and Golay's filter: the derivative of a parabola fitted to ``window`` neighbours (at the ends of an episode
    and beside values that were not recorded, of the nearest ``window`` ones). Smoothing makes the errors of
    neighbouring rates correlated. Angles are differentiated on their lift.

    Parameters
    ----------
    trajectories : Trajectories
        Recorded states; they stay as they are.
    rates : mapping of str to str
        New variable and the state variable that it is the rate of: ``{"velocity": "angle"}``. A state variable that
        exists already is replaced. Sources are the recorded values: call again for second derivatives.
    window : int
        Points of each fit, odd, at least 3.

    Raises
    ------
    SpecError, UnknownVariableError
        If the window is even or too small, or a variable is unknown or has no rate (class, rotation).
    DataError
        If an episode is shorter than the window.

    References
    ----------
    Savitzky and Golay (1964), Smoothing and differentiation of data by simplified least squares procedures.

    Examples
    --------
    >>> from bayeswm.base.schema import Schema
    >>> schema = Schema(state=[Variable("angle", unit="rad", kind="angle")], time_step=0.5)
    >>> data = Trajectories(schema, state=[[[0.0], [1.0], [2.0], [3.0]]])
    >>> with_rate = differentiate(data, {"velocity": "angle"})
    >>> with_rate.schema.state.names, with_rate.schema.state["velocity"].unit
    (('angle', 'velocity'), 'rad/s')
    >>> with_rate.state[0, :, 1].round(decimals=6).tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    if isinstance(window, bool) or not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise SpecError(f"expected an odd window of at least 3 points, got {window!r}")
    old, schema, states = trajectories, trajectories.schema, trajectories.states()
    short = (old.lengths + 1 < window).nonzero().flatten().tolist()
    if short:
        points = int(old.lengths[short[0]]) + 1
        raise DataError(f"expected at least {window} states in each episode, got {points} in episode {short[0]}")
    variables, columns = list(schema.state), {v.name: states[..., schema.state.slices[v.name]] for v in schema.state}
    for rate, name in rates.items():
        source = schema.state[name]
        if not isinstance(source.kind, Real | Angle):
            raise SpecError(f"expected a real or an angle to differentiate, got {name!r} of kind {source.kind.name!r}")
        values = states[..., schema.state.column(name)].double()
        slope = _each_run(values, lambda run: _derivative(run, window), window) / schema.time_step
        columns[rate] = slope[..., None].to(states.dtype)
        if rate not in schema.state.names:
            variables.append(Variable(rate, unit=_rate_unit(source.unit)))
            continue
        place = schema.state.names.index(rate)
        held = variables[place]
        if not isinstance(held.kind, Real):
            raise SpecError(f"expected a real variable to hold a rate, got {rate!r} of kind {held.kind.name!r}")
        variables[place] = Variable(rate, unit=held.unit or _rate_unit(source.unit), bounds=held.bounds)
    new = dataclasses.replace(schema, state=Variables(variables))
    return old._like(new, state=torch.cat([columns[v.name] for v in new.state], -1))


def _interpolate(variables: Variables, values: Tensor, *, knots: Tensor, grid: Tensor) -> Tensor:
    index = (torch.searchsorted(knots, grid, right=True) - 1).clamp(0, len(knots) - 2)
    weight = (grid - knots[index]) / (knots[index + 1] - knots[index])
    weight = torch.where(weight < NEAR, 0.0, torch.where(weight > 1 - NEAR, 1.0, weight))[:, None]
    low, high = values[index], values[index + 1]
    parts = []
    for v in variables:
        a, b = low[:, variables.slices[v.name]], high[:, variables.slices[v.name]]
        if isinstance(v.kind, Categorical):
            between = a
        elif isinstance(v.kind, Rotation):
            between = v.kind.add(a, weight.to(a) * v.kind.difference(b, a))
        else:
            between = (a + weight * (b.double() - a)).to(a.dtype)
        parts.append(torch.where(weight == 0, a, torch.where(weight == 1, b, between)))
    return torch.cat(parts, -1) if parts else low


def _average(variables: Variables, values: Tensor, *, knots: Tensor, grid: Tensor, name: str) -> Tensor:
    """Average over each interval of the grid what holds from each knot to the next."""
    index = (torch.searchsorted(knots, grid + NEAR * (grid[1] - grid[0]), right=True) - 1).clamp(0, len(values) - 1)
    last = (torch.searchsorted(knots, grid - NEAR * (grid[1] - grid[0]), right=True) - 1).clamp(0, len(values) - 1)
    lifted = variables.unwrap(values).double()
    span = knots.diff()[:, None]
    impulse = torch.cat((lifted.new_zeros(1, values.shape[-1]), (lifted * span).cumsum(0)))
    upto = impulse[index] + lifted[index] * (grid - knots[index])[:, None]
    mean = (upto.diff(dim=0) / grid.diff()[:, None]).to(values.dtype)
    changed = torch.cat((values.new_zeros(1, values.shape[-1]), (values.diff(dim=0) != 0).to(values.dtype))).cumsum(0)
    moved = changed[last[1:]] != changed[index[:-1]]
    # where nothing changed within the interval, the value itself: free of the rounding of the sums
    mean = torch.where(moved, mean, lifted[index[:-1]].to(values.dtype))
    for v in variables:
        part = moved[:, variables.slices[v.name]]
        if isinstance(v.kind, Categorical | Rotation) and bool(part.any()):
            raise DataError(
                f"{name}: expected {v.name!r} ({v.kind.name}) to stay the same within each new step, since it has no "
                f"mean that acts alike, got a change within new step {int(part.any(-1).nonzero()[0])}; "
                "use a shorter time step"
            )
    return mean


def _each_run(values: Tensor, function: Callable[[Tensor], Tensor], shortest: int) -> Tensor:
    """Apply a function to every unbroken run of known values in each row; runs that are too short give NaN."""
    out = torch.full_like(values, float("nan"))
    for row in range(len(values)):
        edge = torch.nn.functional.pad((~values[row].isnan()).int(), (1, 1)).diff()
        for first, end in zip((edge == 1).nonzero().flatten(), (edge == -1).nonzero().flatten(), strict=True):
            if end - first >= shortest:
                out[row, first:end] = function(values[row, first:end])
    return out


def _derivative(values: Tensor, window: int) -> Tensor:
    """Differentiate one run by local parabolas, for a step of 1."""
    half = window // 2
    offset = torch.arange(-half, half + 1, dtype=values.dtype, device=values.device)
    powers = torch.stack((torch.ones_like(offset), offset, offset.square()), -1)
    slopes = torch.stack((torch.zeros_like(offset), torch.ones_like(offset), 2 * offset), -1)
    weight = slopes @ torch.linalg.pinv(powers)  # row j: the slope at point j of the window
    inner = values.unfold(0, window, 1) @ weight[half]
    return torch.cat((weight[:half] @ values[:window], inner, weight[half + 1 :] @ values[-window:]))


def _rate_unit(unit: str) -> str:
    """Return the unit of a rate: rad -> rad/s -> rad/s^2, and 1/s for a number without unit."""
    found = re.fullmatch(r"(.*)/s(?:\^(\d+))?", unit)
    return f"{found[1]}/s^{int(found[2] or 1) + 1}" if found else f"{unit or '1'}/s"


def _pad(rows: list[Tensor]) -> Tensor:
    out = rows[0].new_full((len(rows), max(len(r) for r in rows), *rows[0].shape[1:]), float("nan"))
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out
