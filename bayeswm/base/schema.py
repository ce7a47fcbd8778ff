"""What a system's variables are: names, units, kinds and bounds, and the seconds between two states."""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.kinds import Angle, Categorical, Kind, Real, Rotation, categorical, kind_of, wrap
from bayeswm.base.shapes import common_shape


@dataclass(frozen=True)
class Variable:
    """One named quantity of a system.

    Parameters
    ----------
    name : str
        A Python identifier.
    unit : str
        Unit, SI where there is one; empty for none.
    kind : str or Kind
        ``"real"``, ``"angle"``, ``"rotation"`` (unit quaternion w, x, y, z) or ``categorical(n)``.
    bounds : tuple of float, optional
        Lowest and highest value that is physically possible.

    Raises
    ------
    SpecError
        If the name is no identifier, the kind is unknown or the bounds are not increasing.

    Examples
    --------
    >>> Variable("torque", unit="N m", bounds=(-2, 2)).bounds
    (-2.0, 2.0)
    """

    name: str
    unit: str = ""
    kind: Kind = field(default_factory=Real)
    bounds: tuple[float, float] | None = None

    def __init__(
        self, name: str, *, unit: str = "", kind: str | Kind = "real", bounds: tuple[float, float] | None = None
    ) -> None:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
            raise SpecError(
                f"expected a Python identifier as the variable's name, got {name!r}; use letters, digits, _"
            )
        if bounds is not None:
            try:
                low, high = (float(b) for b in bounds)
            except (TypeError, ValueError):
                raise SpecError(f"variable {name!r}: expected bounds=(low, high), got {bounds!r}") from None
            if not low < high:
                raise SpecError(f"variable {name!r}: expected bounds with low < high, got {bounds!r}")
            bounds = (low, high)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "unit", str(unit))
        object.__setattr__(self, "kind", kind_of(kind))
        object.__setattr__(self, "bounds", bounds)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that hold the variable: one, or four for a rotation."""
        return tuple(self.name + suffix for suffix in self.kind.suffixes)

    def to_dict(self) -> dict[str, Any]:
        """Return the variable as plain values for JSON."""
        kind = {"categorical": self.kind.n} if isinstance(self.kind, Categorical) else self.kind.name
        return {"name": self.name, "unit": self.unit, "kind": kind, "bounds": self.bounds and list(self.bounds)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Variable:
        """Rebuild a variable from :meth:`to_dict`."""
        kind = values["kind"]
        kind = categorical(int(kind["categorical"])) if isinstance(kind, Mapping) else str(kind)
        bounds = values["bounds"]
        return cls(values["name"], unit=values["unit"], kind=kind, bounds=bounds and (bounds[0], bounds[1]))


class Variables(tuple[Variable, ...]):
    """An ordered group of variables and its arithmetic on the last axis of a tensor.

    Examples
    --------
    >>> group = Variables([Variable("angle", kind="angle"), Variable("speed")])
    >>> group.difference(torch.tensor([3.1, 1.0]), torch.tensor([-3.1, 0.0]))
    tensor([-0.0832,  1.0000])
    """

    def __new__(cls, variables: Iterable[Variable] = ()) -> Variables:
        """Check that the names differ."""
        group = super().__new__(cls, tuple(variables))
        for v in group:
            if not isinstance(v, Variable):
                raise SpecError(f"expected bayeswm.Variable, got {type(v).__name__} {v!r}")
        seen: set[str] = set()
        for v in group:
            if v.name in seen or seen & set(v.columns):
                raise SpecError(f"expected different names, got {v.name!r} twice; rename one")
            seen |= {v.name, *v.columns}
        return group

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the variables."""
        return tuple(v.name for v in self)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: a rotation has four."""
        return tuple(c for v in self for c in v.columns)

    @cached_property
    def size(self) -> int:
        """Number of columns of a value."""
        return sum(v.kind.size for v in self)

    @cached_property
    def tangent_size(self) -> int:
        """Number of columns of a change."""
        return sum(v.kind.tangent_size for v in self)

    @cached_property
    def embedding_size(self) -> int:
        """Number of columns of :meth:`embed`."""
        return sum(v.kind.embedding_size for v in self)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Columns of each variable, by name."""
        return _slices(self, [v.kind.size for v in self])

    @cached_property
    def angles(self) -> tuple[int, ...]:
        """Columns that are angles."""
        return tuple(self.slices[v.name].start for v in self if isinstance(v.kind, Angle))

    @cached_property
    def flat(self) -> bool:
        """Whether every variable is a real or an angle, so that a change is one column for each."""
        return all(isinstance(v.kind, Real | Angle) for v in self)

    def column(self, name: str) -> int:
        """Return the index of a column.

        Raises
        ------
        UnknownVariableError
            With the closest names.
        """
        if name not in self.columns:
            raise UnknownVariableError.of(name, self.columns)
        return self.columns.index(name)

    @overload
    def __getitem__(self, key: str) -> Variable: ...
    @overload
    def __getitem__(self, key: int) -> Variable: ...
    @overload
    def __getitem__(self, key: slice) -> Variables: ...
    def __getitem__(self, key: Any) -> Variable | Variables:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a variable by name or position, or a part of the group."""
        if isinstance(key, str):
            if key not in self.names:
                raise UnknownVariableError.of(key, self.names)
            key = self.names.index(key)
        found = super().__getitem__(key)
        return Variables(found) if isinstance(key, slice) else found

    def difference(self, new: Tensor, old: Tensor) -> Tensor:
        """Return the change from ``old`` to ``new``: wrapped for angles, shape (..., tangent_size)."""
        if self.flat:
            change = new - old
            if not self.angles:
                return change
            index = list(self.angles)
            if len(index) == change.shape[-1]:
                return wrap(change)
            return change.index_copy(-1, torch.tensor(index, device=change.device), wrap(change[..., index]))
        new, old = torch.broadcast_tensors(new, old)
        parts = [v.kind.difference(new[..., s], old[..., s]) for v, s in self._slots()]
        return torch.cat(parts, -1) if parts else new

    def add(self, value: Tensor, change: Tensor) -> Tensor:
        """Apply a change to a value; angles stay on their lift, shape (..., size)."""
        if self.flat:
            return value + change
        batch = common_shape(value.shape[:-1], change.shape[:-1])
        value, change = value.expand(*batch, value.shape[-1]), change.expand(*batch, change.shape[-1])
        tangent = _slices(self, [v.kind.tangent_size for v in self])
        return torch.cat([v.kind.add(value[..., s], change[..., tangent[v.name]]) for v, s in self._slots()], -1)

    def mean(self, values: Tensor, weight: Tensor | None = None) -> Tensor:
        """Average over the first axis, each kind in its own way (angles: the mean direction).

        Parameters
        ----------
        values : Tensor, shape (n, ..., size)
            Values.
        weight : Tensor, shape (n,), optional
            Weights; equal by default.

        Returns
        -------
        Tensor, shape (..., size)
        """
        weight = values.new_ones(len(values)) if weight is None else weight.to(values)
        weight = weight / weight.sum()
        return torch.cat([v.kind.mean(values[..., s], weight) for v, s in self._slots()], -1)

    def embed(self, value: Tensor) -> Tensor:
        """Return features without jumps: sine and cosine of angles, one-hot classes, shape (..., embedding_size)."""
        if all(isinstance(v.kind, Real) for v in self):
            return value
        return torch.cat([v.kind.embed(value[..., s]) for v, s in self._slots()], -1)

    def wrap(self, value: Tensor) -> Tensor:
        """Return the value with every angle in [-pi, pi]: off the lift, for pictures and circular statistics."""
        if not self.angles:
            return value
        wrapped = value.clone()
        index = list(self.angles)
        wrapped[..., index] = wrap(value[..., index])
        return wrapped

    def unwrap(self, value: Tensor) -> Tensor:
        """Lift angles and quaternions along the second-to-last axis: no step longer than pi, no sign flip."""
        if value.shape[-2] < 2:
            return value
        for v, s in self._slots():
            if isinstance(v.kind, Rotation):
                value = value.clone()
                value[..., s] = _same_sign(value[..., s])
        if not self.angles:
            return value
        index = list(self.angles)
        lifted, angle = value.clone(), value[..., index].double()
        known = ~angle.isnan()
        order = torch.arange(angle.shape[-2], device=angle.device).view(-1, 1)
        last = torch.where(known, order, torch.zeros_like(order)).cummax(-2).values  # carry the last known angle on
        filled = torch.nan_to_num(angle.gather(-2, last), nan=0.0)
        started = known.cummax(-2).values
        jump = torch.round(filled.diff(dim=-2) / (2 * math.pi)) * (started[..., :-1, :])
        shift = torch.cat((torch.zeros_like(jump[..., :1, :]), jump.cumsum(-2)), -2)
        lifted[..., index] = torch.where(shift == 0, value[..., index], (angle - 2 * math.pi * shift).to(value.dtype))
        return lifted

    def _slots(self) -> Iterable[tuple[Variable, slice]]:
        return ((v, self.slices[v.name]) for v in self)


@dataclass(frozen=True)
class Schema:
    """The variables of a system and its time step.

    Parameters
    ----------
    state : sequence of Variable
        What the future depends on. May be empty for a static causal model.
    action : sequence of Variable
        What is done to the system.
    context : sequence of Variable
        Environment factors that the system does not change.
    observation : sequence of Variable, optional
        What sensors report where that is not the state itself.
    reward : bool
        Whether rewards are recorded.
    time_step : float
        Seconds between two states.

    Raises
    ------
    SpecError
        If a name appears twice or the time step is not positive and finite.

    Examples
    --------
    >>> schema = Schema(state=[Variable("angle", unit="rad", kind="angle"), Variable("velocity", unit="rad/s")],
    ...                 action=[Variable("torque", unit="N m", bounds=(-2, 2))], time_step=0.05)
    >>> schema.state.size, schema.action.names
    (2, ('torque',))
    """

    state: Variables
    action: Variables
    context: Variables
    observation: Variables | None
    reward: bool
    time_step: float

    def __init__(
        self,
        *,
        state: Sequence[Variable],
        action: Sequence[Variable] = (),
        context: Sequence[Variable] = (),
        observation: Sequence[Variable] | None = None,
        reward: bool = False,
        time_step: float,
    ) -> None:
        try:
            step = float(time_step)
        except (TypeError, ValueError):
            step = math.nan
        if not (math.isfinite(step) and step > 0):
            raise SpecError(f"expected time_step > 0 in seconds, got {time_step!r}")
        groups = {"state": Variables(state), "action": Variables(action), "context": Variables(context)}
        Variables(v for g in groups.values() for v in g)  # names must differ across groups too
        for name, group in groups.items():
            object.__setattr__(self, name, group)
        object.__setattr__(self, "observation", None if observation is None else Variables(observation))
        object.__setattr__(self, "reward", bool(reward))
        object.__setattr__(self, "time_step", step)

    @property
    def measured(self) -> Variables:
        """What is recorded: the observation where there is one, the state otherwise."""
        return self.state if self.observation is None else self.observation

    def group_of(self, name: str) -> str:
        """Return ``"state"``, ``"action"`` or ``"context"`` for a variable's name.

        Raises
        ------
        UnknownVariableError
            With the closest names.
        """
        for group in ("state", "action", "context"):
            if name in getattr(self, group).names:
                return group
        raise UnknownVariableError.of(name, (*self.state.names, *self.action.names, *self.context.names))

    def check_same(self, other: Schema, *, who: str) -> None:
        """Refuse data of other variables, or of another time step.

        Parameters
        ----------
        other : Schema
            Of the data.
        who : str
            Whose variables these are, for the message.

        Raises
        ------
        SpecError
            Naming what differs.
        """
        for group in ("state", "action", "context"):
            want, have = getattr(self, group), getattr(other, group)
            if want.columns != have.columns or [v.kind for v in want] != [v.kind for v in have]:
                extra = [name for name in have.names if name not in want.names]
                cure = "order the columns so, or rename them by trajectories.with_schema(...)"
                if extra and have.names != want.names and [n for n in have.names if n not in extra] == list(want.names):
                    cure = f"leave out {', '.join(extra)}"
                raise SpecError(f"expected {group} ({_kinds(want)}), as {who} has, got ({_kinds(have)}); {cure}")
        if abs(self.time_step - other.time_step) > 1e-9 * self.time_step:
            raise SpecError(
                f"expected a time step of {self.time_step:g} s, as {who} has, got {other.time_step:g} s; "
                "use trajectories.resample(...)"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain values for JSON."""
        return {
            "state": [v.to_dict() for v in self.state],
            "action": [v.to_dict() for v in self.action],
            "context": [v.to_dict() for v in self.context],
            "observation": None if self.observation is None else [v.to_dict() for v in self.observation],
            "reward": self.reward,
            "time_step": self.time_step,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Schema:
        """Rebuild a schema from :meth:`to_dict`."""
        groups = {
            name: None if values[name] is None else [Variable.from_dict(v) for v in values[name]]
            for name in ("state", "action", "context", "observation")
        }
        return cls(reward=values["reward"], time_step=values["time_step"], **groups)  # pyright: ignore[reportArgumentType]


def _kinds(variables: Variables) -> str:
    return ", ".join(v.name if isinstance(v.kind, Real) else f"{v.name}: {v.kind.name}" for v in variables)


def _slices(variables: Variables, sizes: Sequence[int]) -> dict[str, slice]:
    edges = [0]
    for size in sizes:
        edges.append(edges[-1] + size)
    return {v.name: slice(a, b) for v, a, b in zip(variables, edges, edges[1:], strict=False)}


def _same_sign(quaternion: Tensor) -> Tensor:
    """Flip quaternions along the second-to-last axis so that neighbours have a positive product."""
    product = (quaternion[..., 1:, :] * quaternion[..., :-1, :]).sum(-1, keepdim=True)
    sign = torch.where(product < 0, -1.0, 1.0).to(quaternion.dtype).cumprod(-2)
    return torch.cat((quaternion[..., :1, :], quaternion[..., 1:, :] * sign), -2)
