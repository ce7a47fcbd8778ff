"""Recordings from data frames, one row for each point in time."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError, UnknownVariableError
from bayeswm.base.resampling import check_increasing, resample_irregular
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories


def from_dataframe(
    frame: Any,
    *,
    schema: Schema,
    columns: Mapping[str, str] | None = None,
    episode: str | None = None,
    time: str | None = None,
    resample: bool = False,
    tolerance: float = 0.01,
    allow_missing: bool = False,
) -> Trajectories:
    """Return the trajectories in a data frame (pandas, polars or any with ``columns`` and ``to_numpy``).

    A row holds the state at its time and the action that is held from then until the next row, so that the last action,
    reward and context of an episode act on nothing and are left out. The rows of an episode must be in order of time
    and may lie between those of others.

    Parameters
    ----------
    frame : DataFrame
        One row for each point in time.
    schema : Schema
        Variables to read. Where it has an observation, states are read too if all their columns are there. A context
        that is constant in every episode becomes one value an episode.
    columns : mapping of str to str, optional
        Column of each variable whose column has another name (a rotation has four: ``q_w``, ``q_x``, ``q_y``, ``q_z``).
    episode : str, optional
        Column that tells the episodes apart. Without it all rows are one episode.
    time : str, optional
        Column of time stamps, in s or dates, to check. Without it rows are ``schema.time_step`` apart.
    resample : bool
        Bring irregular stamps onto ``schema.time_step``: states and observations by linear interpolation, since they
        are values at a time; actions and contexts by the mean of what was held over the new interval, so that the
        impulse is kept. Rewards are refused, since they cannot be divided.
    tolerance : float
        Largest deviation from a regular step, as a share of it, that counts as regular.
    allow_missing : bool
        Take NaN in states and observations as "not recorded" instead of an error.

    Raises
    ------
    DataError
        For columns that are missing or hold no numbers, for irregular, repeated or decreasing stamps (naming episode
        and row), and for NaN as :class:`~bayeswm.base.trajectories.Trajectories` says.
    SpecError, UnknownVariableError
        For a mapping of a variable that the schema does not have, or an argument that makes no sense.

    Examples
    --------
    >>> import pandas
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], action=[Variable("force", unit="N")], time_step=0.1)
    >>> frame = pandas.DataFrame({"run": [1, 1, 1, 2, 2], "x": [0.0, 1, 2, 5, 6], "force": [1.0, 1, 0, 3, 0]})
    >>> from_dataframe(frame, schema=schema, episode="run")
    Trajectories(2 episodes, 3 transitions, state=(x), action=(force), 0.1 s, float64)
    """
    if resample and time is None:
        raise SpecError("expected time= naming the column of time stamps, to resample, got none")
    if resample and schema.reward:
        raise SpecError("expected a schema without reward to resample: rewards cannot be divided over new steps")
    groups = _groups(frame, schema, columns or {})
    names = {**(columns or {})}
    rows = _episodes(frame, episode)
    tables = {g: np.stack([_numbers(frame, names.get(c, c)) for c in cs], -1) for g, cs in groups.items() if cs}
    stamps = None if time is None else _stamps(frame, time)
    arrays: dict[str, list[Tensor]] = {g: [] for g in tables}
    for label, index in rows:
        where = f", episode {label!r}" if episode else ""
        own = {g: torch.from_numpy(np.ascontiguousarray(t[index])) for g, t in tables.items()}
        if stamps is not None:
            times = torch.from_numpy(stamps[index])
            check_increasing(times, where)
            if resample:
                _resample(own, times, schema=schema, where=where)
            else:
                _check_regular(times, schema.time_step, where=where, tolerance=tolerance)
        for group, values in own.items():
            held = group in ("action", "context", "reward") and not resample
            arrays[group].append(values[:-1] if held else values)
    given: dict[str, Any] = dict(arrays)
    if "reward" in given:
        given["reward"] = [r[:, 0] for r in given["reward"]]
    if "context" in given and all(bool((c == c[:1]).all()) for c in given["context"]):
        given["context"] = [torch.from_numpy(tables["context"][index[0]]) for _, index in rows]
    return Trajectories(schema, **given, allow_missing=allow_missing)


def _groups(frame: Any, schema: Schema, columns: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the columns of each group, with the names of the schema."""
    if not hasattr(frame, "columns"):
        raise DataError(f"expected a data frame, got {type(frame).__name__}")
    groups = {g: getattr(schema, g).columns for g in ("state", "action", "context")}
    if schema.observation is not None:
        groups["observation"] = schema.observation.columns
    if schema.reward:
        groups["reward"] = ("reward",)
    known = [c for cs in groups.values() for c in cs]
    for name in columns:
        if name not in known:
            raise UnknownVariableError.of(name, known)
    present = [str(c) for c in frame.columns]
    if schema.observation is not None and any(columns.get(c, c) not in present for c in groups["state"]):
        del groups["state"]
    for group, cs in groups.items():
        for c in cs:
            column = columns.get(c, c)
            if column not in present:
                close = difflib.get_close_matches(column, present, n=2)
                hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise DataError(
                    f"expected a column {column!r} for the {group}, got {', '.join(present)}{hint} "
                    f"Pass columns={{{c!r}: ...}} if it has another name"
                )
    return groups


def _episodes(frame: Any, episode: str | None) -> list[tuple[Any, np.ndarray]]:
    """Return label and rows of each episode, in order of first appearance."""
    n = len(frame)
    if n == 0:
        raise DataError("expected at least one episode, got a data frame without rows")
    if episode is None:
        return [(0, np.arange(n))]
    if episode not in list(frame.columns):
        raise UnknownVariableError.of(episode, [str(c) for c in frame.columns])
    labels = frame[episode].to_numpy()
    found: dict[Any, list[int]] = {}
    for row, label in enumerate(labels.tolist()):
        if label is None or label != label:  # NaN
            raise DataError(f"expected an episode in every row, got none in row {row} of column {episode!r}")
        found.setdefault(label, []).append(row)
    return [(label, np.array(rows)) for label, rows in found.items()]


def _numbers(frame: Any, column: str) -> np.ndarray:
    values = frame[column]
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"expected numbers in column {column!r}, got {getattr(values, 'dtype', 'others')}") from None


def _stamps(frame: Any, time: str) -> np.ndarray:
    if time not in list(frame.columns):
        raise UnknownVariableError.of(time, [str(c) for c in frame.columns])
    values = frame[time].to_numpy()
    if values.dtype.kind not in "mM":
        return _numbers(frame, time)
    missing = np.isnat(values)
    seconds = (values - values[~missing][:1]) / np.timedelta64(1, "s") if not missing.all() else np.zeros(len(values))
    return np.where(missing, np.nan, seconds).astype(np.float64)


def _check_regular(times: Tensor, time_step: float, *, where: str, tolerance: float) -> None:
    steps = times.diff()
    bad = (steps - time_step).abs() > tolerance * time_step
    if bool(bad.any()):
        row = int(bad.nonzero()[0]) + 1
        raise DataError(
            f"time{where}: expected steps of {time_step:g} s, got {float(steps[row - 1]):g} s before row {row} "
            f"({int(bad.sum())} step(s) in all); pass resample=True, or another tolerance"
        )


def _resample(own: dict[str, Tensor], times: Tensor, *, schema: Schema, where: str) -> None:
    """Replace the tables of one episode by regular ones."""
    if len(times) < 2 or float(times[-1] - times[0]) < schema.time_step * (1 - 1e-6):
        span = float(times[-1] - times[0])
        raise DataError(
            f"time{where}: expected stamps over at least one step of {schema.time_step:g} s, got {span:g} s"
        )
    for group, values in own.items():
        variables: Variables = getattr(schema, group)
        hold = group in ("action", "context")
        try:
            own[group] = resample_irregular(times, values, variables=variables, time_step=schema.time_step, hold=hold)
        except DataError as error:
            raise DataError(f"{group}{where}: {error}") from None
