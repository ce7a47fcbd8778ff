"""Recorded episodes: what a model learns from and what it is judged on."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from bayeswm.base.arrays import as_episodes, check_values
from bayeswm.base.errors import DataError, DataWarning, SpecError
from bayeswm.base.random import make_generator, permutation
from bayeswm.base.schema import Schema

if TYPE_CHECKING:
    import xarray

Array = Tensor | np.ndarray | Sequence[Any]


class Transitions(NamedTuple):
    """Single steps, ready for one-step learning; every value is observed.

    ``state`` and ``next_state`` have shape (n, S), ``action`` (n, A), ``context`` (n, C); ``episode`` is the row in
    the trajectories that each came from and ``step`` its index there, both of shape (n,).
    """

    state: Tensor
    action: Tensor
    context: Tensor
    next_state: Tensor
    episode: Tensor
    step: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Trajectories:
    """Episodes of equal or different length, padded with NaN, never mutated.

    An episode of T transitions has T + 1 states, T actions and T rewards. A value that was not recorded is NaN; so is
    the padding, so that a leak of it is seen. Angles are unwrapped along each episode.

    Parameters
    ----------
    schema : Schema
        Names, units, kinds and time step.
    state : array, shape (N, T + 1, S), or a list of arrays of shape (T_i + 1, S)
        One array of shape (T + 1, S) is one episode. May be absent where the schema has an observation.
    action : array, shape (N, T, A), or a list
        Not needed where the schema has no action.
    observation : array, shape (N, T + 1, O), or a list
        Needed where the schema has an observation.
    context : array, shape (N, C) for one value an episode or (N, T, C) for one a step, or a list
        Environment factors.
    reward : array, shape (N, T), or a list
        Needed where the schema has rewards.
    lengths : sequence of int, shape (N,)
        Transitions in each episode, for padded arrays; the rest of a row is ignored.
    terminated, truncated : sequence of bool, shape (N,)
        How each episode ended.
    episode, start : sequence of int, shape (N,)
        The recording that each row came from and the step in it where the row begins (kept by windows and splits, so
        that error bars can treat the recording as the unit).
    allow_missing : bool
        Take NaN in states and observations as "not recorded" instead of an error.

    Raises
    ------
    DataError
        For NaN (naming episode, time and variable), infinities, wrong shapes or no data at all.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> schema = Schema(state=[Variable("x", unit="m")], action=[Variable("force", unit="N")], time_step=0.1)
    >>> Trajectories(schema, state=[[[0.0], [1.0], [2.0]], [[5.0], [6.0]]], action=[[[1.0], [1.0]], [[1.0]]])
    Trajectories(2 episodes, 3 transitions, state=(x), action=(force), 0.1 s, float64)
    """

    schema: Schema
    state: Tensor | None
    action: Tensor
    observation: Tensor | None
    context: Tensor
    reward: Tensor | None
    lengths: Tensor
    terminated: Tensor
    truncated: Tensor
    episode: Tensor
    start: Tensor

    def __init__(
        self,
        schema: Schema,
        *,
        state: Array | None = None,
        action: Array | None = None,
        observation: Array | None = None,
        context: Array | None = None,
        reward: Array | None = None,
        lengths: Array | None = None,
        terminated: Array | None = None,
        truncated: Array | None = None,
        episode: Array | None = None,
        start: Array | None = None,
        allow_missing: bool = False,
    ) -> None:
        arrays = as_episodes(
            schema, state=state, action=action, observation=observation, context=context, reward=reward, lengths=lengths
        )
        counts = cast(Tensor, arrays["lengths"])
        n = len(counts)
        device = counts.device
        nothing = torch.zeros(n, dtype=torch.int64)
        for name, given in {"terminated": terminated, "truncated": truncated}.items():
            arrays[name] = _row(name, given, default=nothing.bool()).to(device)
        arrays["episode"] = _row("episode", episode, default=torch.arange(n)).to(device)
        arrays["start"] = _row("start", start, default=nothing).to(device)
        empty = counts == 0
        if bool(empty.all()):
            raise DataError("expected at least one transition, got none; an episode needs two states and an action")
        # before the lift, which would turn an infinity into NaN, and before episodes lose their numbers
        check_values(schema, arrays, allow_missing=allow_missing)
        if bool(empty.any()):
            warnings.warn(f"{int(empty.sum())} episode(s) without a transition left out", DataWarning, stacklevel=2)
            arrays = {k: v if v is None else v[~empty] for k, v in arrays.items()}
        for group in ("state", "observation"):
            variables = getattr(schema, group)
            if variables is not None and arrays[group] is not None:
                arrays[group] = variables.unwrap(arrays[group])
        self._set(schema, arrays)

    def _set(self, schema: Schema, arrays: Mapping[str, Tensor | None]) -> None:
        object.__setattr__(self, "schema", schema)
        for name, value in arrays.items():
            object.__setattr__(self, name, value)

    def _like(self, schema: Schema | None = None, /, **arrays: Tensor | None) -> Trajectories:
        """Return these trajectories with some arrays changed, unchecked: for parts of what was checked before."""
        new = object.__new__(Trajectories)
        new._set(schema or self.schema, {**self.arrays(), **arrays})
        return new

    def arrays(self) -> dict[str, Tensor | None]:
        """Return every array by name."""
        return {k: v for k, v in self.__dict__.items() if k != "schema"}

    # --- size and place -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        s = self.schema
        groups = [("state", s.state), ("observation", s.observation), ("action", s.action), ("context", s.context)]
        named = ", ".join(f"{k}=({', '.join(v.names)})" for k, v in groups if v)
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{len(self)} episodes, {self.transition_count} transitions"
        return f"Trajectories({size}, {named}, {s.time_step:g} s, {dtype})"

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the values."""
        return self.action.dtype

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.action.device

    @property
    def horizon(self) -> int:
        """Transitions of the longest episode."""
        return self.action.shape[1]

    @property
    def transition_count(self) -> int:
        """Transitions of all episodes together."""
        return int(self.lengths.sum())

    @property
    def measurement(self) -> Tensor:
        """What was recorded, shape (N, T + 1, M): the observation where the schema has one, else the state."""
        found = self.state if self.schema.observation is None else self.observation
        if found is None:  # the constructor makes sure that it is there
            raise DataError("expected a recorded measurement, got none")
        return found

    @property
    def step_mask(self) -> Tensor:
        """Which steps belong to an episode and are no padding, shape (N, T)."""
        return torch.arange(self.horizon, device=self.device) < self.lengths[:, None]

    @property
    def state_mask(self) -> Tensor:
        """Which state values were recorded, shape (N, T + 1, S)."""
        return ~self.states().isnan()

    @property
    def observation_mask(self) -> Tensor:
        """Which measured values were recorded, shape (N, T + 1, M)."""
        return ~self.measurement.isnan()

    def measured_as(self, schema: Schema) -> Tensor:
        """Return what was recorded of the variables that a schema has as measured, shape (N, T + 1, M).

        They are found by name: in the observation where these trajectories have one, in the state otherwise.

        Raises
        ------
        SpecError
            If states, actions, contexts or the time step differ, or a measured variable was not recorded.
        """
        schema.check_same(self.schema, who="the model")
        have, want = self.schema.measured.columns, schema.measured.columns
        missing = [name for name in want if name not in have]
        if missing:
            raise SpecError(
                f"expected measurements of ({', '.join(want)}), as the model has, got ({', '.join(have)}); "
                "use trajectories of a schema with this observation"
            )
        return self.measurement[..., [have.index(name) for name in want]]

    def states(self) -> Tensor:
        """Return the states, shape (N, T + 1, S).

        Raises
        ------
        DataError
            If only observations were recorded.
        """
        if self.state is None:
            raise DataError("expected recorded states, got observations only; use a model with a hidden state")
        return self.state

    def step_context(self) -> Tensor:
        """Return the context of every step, shape (N, T, C), a static one repeated."""
        c = self.context
        return c if c.ndim == 3 else c[:, None, :].expand(-1, self.horizon, -1)

    def to(self, target: torch.device | str | torch.dtype) -> Trajectories:
        """Return the trajectories on another device or in another number format."""
        floating = {k: v.to(target) for k, v in self.arrays().items() if v is not None and v.is_floating_point()}
        if not isinstance(target, torch.dtype):
            rest = {k: v.to(target) for k, v in self.arrays().items() if v is not None and k not in floating}
            floating |= rest
        return self._like(**floating)

    # --- parts ----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Trajectories:
        """Return some episodes, as trajectories; an integer gives one episode."""
        if isinstance(index, int | np.integer) or (isinstance(index, Tensor) and index.ndim == 0):
            index = operator.index(index)
            if not -len(self) <= index < len(self):
                raise IndexError(f"expected an episode index below {len(self)}, got {index}")
            index = [index % len(self)]
        if not isinstance(index, slice):
            chosen = torch.as_tensor(index, device=self.device)
            index = chosen if chosen.numel() else chosen.long()
        picked = self._like(**{k: v if v is None else v[index] for k, v in self.arrays().items()})
        if len(picked) == 0:
            raise DataError("expected at least one episode in the selection, got none")
        return picked._trim()

    def _trim(self) -> Trajectories:
        longest = int(self.lengths.max())
        if longest == self.horizon:
            return self
        per_step = {"action": 0, "reward": 0, "state": 1, "observation": 1}
        cut = {k: v[:, : longest + per_step[k]] for k, v in self.arrays().items() if k in per_step and v is not None}
        if self.context.ndim == 3:
            cut["context"] = self.context[:, :longest]
        return self._like(**cut)

    def split(
        self, fraction: float, *, seed: int | torch.Generator | None = None, within_episodes: bool = False
    ) -> tuple[Trajectories, Trajectories]:
        """Divide into two parts that share no transition.

        Parameters
        ----------
        fraction : float
            Share of the first part, between 0 and 1.
        seed : int or Generator, optional
            Choose the episodes at random; without it the first ones make the first part.
        within_episodes : bool
            Cut every episode in time instead of dividing the episodes: for one long recording.

        Raises
        ------
        SpecError, DataError
            If the fraction is outside (0, 1), or a part would be empty.
        """
        if not 0 < fraction < 1:
            raise SpecError(f"expected a fraction between 0 and 1, got {fraction}")
        if within_episodes:
            cut = (self.lengths * fraction).round().long().clamp(min=1)
            if bool((cut >= self.lengths).any()):
                short = int(self.lengths.min())
                raise DataError(f"expected episodes long enough to cut, got one of {short} steps; split by episode")
            return self._slices(torch.zeros_like(cut), cut), self._slices(cut, self.lengths - cut)
        n = len(self)
        if n < 2:
            raise DataError("expected at least 2 episodes to split, got 1; pass within_episodes=True to cut it in time")
        first = min(max(round(n * fraction), 1), n - 1)
        order = torch.arange(n) if seed is None else permutation(n, make_generator(seed), device="cpu")
        return self[order[:first].sort().values], self[order[first:].sort().values]

    def windows(self, length: int, *, stride: int | None = None, rest: bool = False) -> Trajectories:
        """Cut every episode into windows of ``length`` transitions; none crosses an episode's end.

        Parameters
        ----------
        length : int
            Transitions in a window.
        stride : int, optional
            Steps between the starts of two windows; by default ``length`` (no overlap).
        rest : bool
            Keep the end of each episode as a shorter window.

        Raises
        ------
        SpecError, DataError
            If the length or stride is below 1, or no episode is long enough.
        """
        row, first, lengths = self._windows(length, stride, rest=rest)
        skipped = len(self) - len(row.unique())
        if skipped:
            warnings.warn(f"{skipped} episode(s) shorter than {length} steps left out", DataWarning, stacklevel=2)
        return self._slices(first, lengths, row)

    def histories(self, length: int, *, stride: int | None = None, steps: int | None = None) -> Trajectories:
        """Return what was recorded before each of :meth:`windows`, its first state or measurement included.

        The history of a window at an episode's beginning has that first measurement and no transition.

        Parameters
        ----------
        length, stride
            Of the windows.
        steps : int, optional
            Transitions of a history at most; by default all since the episode's beginning.

        Raises
        ------
        SpecError, DataError
            As for windows, or if ``steps`` is below 0.

        Examples
        --------
        >>> from bayeswm.base.schema import Variable
        >>> schema = Schema(state=[Variable("x")], time_step=1.0)
        >>> data = Trajectories(schema, state=torch.arange(7.0).view(1, 7, 1))
        >>> data.histories(2).lengths.tolist(), data.histories(2, steps=1).states()[2, :, 0].tolist()
        ([0, 2, 4], [3.0, 4.0])
        """
        if steps is not None and steps < 0:
            raise SpecError(f"expected steps >= 0, got {steps}")
        row, first, _ = self._windows(length, stride)
        begin = torch.zeros_like(first) if steps is None else (first - steps).clamp(min=0)
        return self._slices(begin, first - begin, row)

    def _windows(self, length: int, stride: int | None, *, rest: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Return the row of each window, the step where it begins, and its length."""
        stride = length if stride is None else stride
        if length < 1 or stride < 1:
            raise SpecError(f"expected length >= 1 and stride >= 1, got {length} and {stride}")
        last = self.lengths - 1 if rest else self.lengths - length
        counts = torch.where(last < 0, 0, last // stride + 1)
        if int(counts.sum()) == 0:
            raise DataError(f"expected an episode of at least {length} steps, the longest has {self.horizon}")
        row = torch.repeat_interleave(torch.arange(len(self), device=self.device), counts)
        first = (torch.arange(len(row), device=self.device) - (counts.cumsum(0) - counts)[row]) * stride
        return row, first, (self.lengths[row] - first).clamp(max=length)

    def _slices(self, first: Tensor, lengths: Tensor, row: Tensor | None = None) -> Trajectories:
        """Return parts of episodes: steps ``first`` .. ``first + lengths`` of each ``row``."""
        row = torch.arange(len(self), device=self.device) if row is None else row
        longest = int(lengths.max())
        ends = first + lengths == self.lengths[row]

        def part(values: Tensor, extra: int) -> Tensor:
            index = first[:, None] + torch.arange(longest + extra, device=self.device)
            inside = torch.arange(longest + extra, device=self.device) < (lengths + extra)[:, None]
            taken = values[row[:, None], index.clamp(max=values.shape[1] - 1)]
            inside = inside.view(*inside.shape, *(1,) * (taken.ndim - 2))
            return torch.where(inside, taken, torch.full_like(taken, float("nan")))

        return self._like(
            state=None if self.state is None else part(self.state, 1),
            observation=None if self.observation is None else part(self.observation, 1),
            action=part(self.action, 0),
            reward=None if self.reward is None else part(self.reward, 0),
            context=part(self.context, 0) if self.context.ndim == 3 else self.context[row],
            lengths=lengths,
            terminated=self.terminated[row] & ends,
            truncated=self.truncated[row] & ends,
            episode=self.episode[row],
            start=self.start[row] + first,
        )

    def transitions(self) -> Transitions:
        """Return all single steps whose values were all recorded; none crosses an episode's end.

        Raises
        ------
        DataError
            If no complete step is left.
        """
        state, context = self.states(), self.step_context()
        known = self.state_mask.all(-1)
        complete = self.step_mask & known[:, :-1] & known[:, 1:]
        if not bool(complete.any()):
            raise DataError("expected at least one step with both states recorded, got none")
        episode, step = complete.nonzero(as_tuple=True)
        return Transitions(
            state[:, :-1][complete], self.action[complete], context[complete], state[:, 1:][complete], episode, step
        )

    @staticmethod
    def concatenate(parts: Sequence[Trajectories]) -> Trajectories:
        """Put the episodes of several trajectories together; recordings of different parts stay different.

        Raises
        ------
        SpecError, DataError
            If there is none, or the schemas or devices differ.
        """
        if not parts:
            raise DataError("expected at least one Trajectories to concatenate, got none")
        first = parts[0]
        if any(p.schema != first.schema for p in parts):
            raise SpecError("expected equal schemas to concatenate; rename, resample or differentiate first")
        if len({p.device for p in parts}) > 1:
            raise DataError(f"expected one device, got {sorted({str(p.device) for p in parts})}; use .to(device)")
        dtype = torch.promote_types(*(p.dtype for p in parts[:2])) if len(parts) > 1 else first.dtype
        for p in parts:
            dtype = torch.promote_types(dtype, p.dtype)
        horizon, per_step, offset = max(p.horizon for p in parts), any(p.context.ndim == 3 for p in parts), 0
        rows: dict[str, list[Tensor]] = {}
        for p in parts:
            arrays = p.to(dtype).arrays()
            arrays["context"] = arrays["context"] if not per_step else p.to(dtype).step_context()
            arrays["episode"] = p.episode + offset
            offset = int(arrays["episode"].max()) + 1
            for name, value in arrays.items():
                if value is not None:
                    padded = name in ("state", "observation", "action", "reward") or (name == "context" and per_step)
                    rows.setdefault(name, []).append(_pad_steps(value, horizon - p.horizon) if padded else value)
        if any(len(values) != len(parts) for values in rows.values()):
            raise DataError("expected the same arrays in every part, got states or rewards in some only")
        return first._like(**{name: torch.cat(values) for name, values in rows.items()})

    # --- other forms ----------------------------------------------------------------------------------------------

    def resample(self, time_step: float) -> Trajectories:
        """Return the trajectories at another time step; see :func:`bayeswm.base.resampling.resample`."""
        from bayeswm.base.resampling import resample

        return resample(self, time_step)

    def differentiate(self, rates: Mapping[str, str], *, window: int = 3) -> Trajectories:
        """Return the trajectories with estimated rates; see :func:`bayeswm.base.resampling.differentiate`."""
        from bayeswm.base.resampling import differentiate

        return differentiate(self, rates, window=window)

    def to_xarray(self) -> xarray.Dataset:
        """Return a labelled data set; see :func:`bayeswm.base.labelled.trajectories_to_xarray`."""
        from bayeswm.base.labelled import trajectories_to_xarray

        return trajectories_to_xarray(self)

    @staticmethod
    def from_xarray(dataset: xarray.Dataset) -> Trajectories:
        """Return the trajectories that :meth:`to_xarray` made, bit for bit."""
        from bayeswm.base.labelled import trajectories_from_xarray

        return trajectories_from_xarray(dataset)

    def with_schema(self, schema: Schema) -> Trajectories:
        """Return the same numbers under a schema of the same sizes: other names, units or bounds.

        Raises
        ------
        SpecError
            If a group has another number of columns.
        """
        for group in ("state", "action", "context", "observation"):
            old, new = getattr(self.schema, group), getattr(schema, group)
            if (old and old.size) != (new and new.size):
                raise SpecError(f"expected {group} of {old and old.size} columns, got {new and new.size}")
        return replace_schema(self, schema)


def check_trajectories(given: object) -> None:
    """Refuse what is no recorded data.

    Raises
    ------
    SpecError
        Naming what came.

    Examples
    --------
    >>> check_trajectories({"speed": [0.0, 1.0]})
    Traceback (most recent call last):
    ...
    bayeswm.base.errors.SpecError: expected Trajectories, got dict; make them by Trajectories(schema, state=..., ...)
    """
    if not isinstance(given, Trajectories):
        raise SpecError(
            f"expected Trajectories, got {type(given).__name__}; make them by Trajectories(schema, state=..., ...)"
        )


def replace_schema(trajectories: Trajectories, schema: Schema) -> Trajectories:
    """Return the trajectories under another schema, unchecked."""
    return trajectories._like(schema)


def _row(name: str, given: Array | None, *, default: Tensor) -> Tensor:
    n, dtype = len(default), default.dtype
    if given is None:
        return default
    values = torch.as_tensor(np.asarray(given) if not isinstance(given, Tensor) else given).detach().to(dtype).clone()
    if values.shape != (n,):
        raise DataError(f"expected {name} of shape ({n},), one for each episode, got {tuple(values.shape)}")
    return values


def _pad_steps(values: Tensor, extra: int) -> Tensor:
    if extra == 0:
        return values
    pad = values.new_full((values.shape[0], extra, *values.shape[2:]), float("nan"))
    return torch.cat((values, pad), 1)
