"""The regression of one variable on its parents, posed as the steps of a system of its own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from bayeswm.base.arrays import bounds_were_checked
from bayeswm.base.errors import DataError, DataWarning, SpecError, UnknownVariableError
from bayeswm.base.kinds import Angle
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.shapes import common_shape
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.graphs.names import name_and_lag


class Column(NamedTuple):
    """Where a parent is recorded: the group of variables, its column there, and the time relative to the slice."""

    group: str
    column: int
    lag: int


@dataclass(frozen=True)
class Regression:
    """A variable given its parents, as a system whose state is the variable and whose actions are the parents.

    The state before is the variable's own value of the slice before, if that is a parent, and 0 otherwise.

    Attributes
    ----------
    name : str
        The variable.
    schema : Schema
        Of that system; a parent ``"Z[t-1]"`` is called ``Z_before`` there.
    target : Column
        Where the variable is recorded.
    parents : tuple of Column
        In the order in which they were named.
    own : int, optional
        Which of the parents is the variable's own value of the slice before.

    Examples
    --------
    >>> whole = Schema(state=[Variable("s"), Variable("q")], action=[Variable("a")], time_step=0.1)
    >>> Regression.of("s", ("q[t-1]", "s[t-1]", "a"), whole).schema.action.names
    ('q_before', 'a')
    """

    name: str
    schema: Schema
    target: Column
    parents: tuple[Column, ...]
    own: int | None

    @classmethod
    def of(cls, name: str, parents: Sequence[str], schema: Schema) -> Self:
        """Find the parents among the variables of a system.

        Raises
        ------
        SpecError
            For a parent named twice, or an angle that does not depend on itself.
        UnknownVariableError
            For a parent that is not recorded, with the closest names.
        """
        columns = tuple(_column(parent, schema) for parent in parents)
        if len(set(columns)) < len(columns):
            raise SpecError(f"{name}: expected different parents, got {tuple(parents)}")
        target = Column("state", schema.state.column(name), 0)
        own = next((i for i, c in enumerate(columns) if c == target._replace(lag=-1)), None)
        if own is None and isinstance(schema.state[name].kind, Angle):
            raise SpecError(
                f"{name}: expected '{name}[t-1]' among the parents of an angle, got {tuple(parents)}: what is learned "
                "of an angle is its change"
            )
        taken, inputs = {name}, list[Variable]()
        for i, column in enumerate(columns):
            if i != own:
                inputs.append(_variable(column, schema, taken))
                taken.add(inputs[-1].name)
        own_schema = Schema(state=[schema.state[name]], action=inputs, time_step=schema.time_step)
        return cls(name, own_schema, target, columns, own)

    def rows(self, trajectories: Trajectories) -> Trajectories:
        """Return one episode of one step for each step of which the variable and its parents were recorded.

        Raises
        ------
        DataError
            If there is none.
        """
        now, *inputs = (_values(trajectories, column) for column in (self.target, *self.parents))
        before = torch.zeros_like(now) if self.own is None else inputs.pop(self.own)
        table = torch.stack((before, now, *inputs), -1)
        complete = trajectories.step_mask & ~table.isnan().any(-1)
        if not bool(complete.any()):
            raise DataError(f"{self.name}: expected at least one step with it and its parents recorded, got none")
        episode, step = complete.nonzero(as_tuple=True)
        values = table[complete]
        with bounds_were_checked():
            return Trajectories(
                self.schema,
                state=values[:, :2, None],
                action=values[:, None, 2:] if inputs else None,
                episode=trajectories.episode[episode],
                start=trajectories.start[episode] + step,
            )

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Leave out warnings that the state before, which is 0 by construction, never varies."""
        with warnings.catch_warnings():
            if self.own is None:
                blank = rf"constant input column\(s\) (state feature 0|{re.escape(self.name)}): "
                warnings.filterwarnings("ignore", message=blank, category=DataWarning)
            yield


@dataclass(frozen=True, eq=False)
class DrawnRegression:
    """A learned mechanism in many worlds: the value and the standard deviation that parents lead to.

    Parameters
    ----------
    regression : Regression
        Of which variable on which.
    worlds : Worlds
        Of the system that it was posed as.
    """

    regression: Regression
    worlds: Worlds

    def __call__(self, parents: Sequence[Tensor], lead: torch.Size, world: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return location and scale, of shapes that broadcast to that of the parents.

        Parameters
        ----------
        parents : sequence of Tensor, broadcastable to (*further, *lead)
            Their values.
        lead : tuple of int
            (worlds, particles, *batch).
        world : Tensor, shape (*lead,), optional
            Index of the world that each point belongs to, where the first axis does not say so.
        """
        first = lead if world is not None else (lead[0], *(1,) * (len(lead) - 1))
        shape = common_shape(first, *(p.shape for p in parents))
        like = self.worlds.log_weight.to(self.worlds.dtype)
        given = [p.to(like).expand(shape) for p in parents]
        table = torch.stack(given, -1) if given else like.new_empty(*shape, 0)
        if world is not None:
            return self._in_lanes(table, world.expand(shape))
        further = len(shape) - len(lead)
        front, back = tuple(range(further)), tuple(range(2, 2 + further))
        mean, scale = self._law(table.movedim(front, back))
        return mean.movedim(back, front), scale.movedim(back, front)

    def _law(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale (worlds, particles, *batch) for parents (worlds, particles, *batch, n)."""
        own = self.regression.own
        before = table.new_zeros(*table.shape[:-1], 1) if own is None else table[..., own : own + 1]
        others = table if own is None else torch.cat((table[..., :own], table[..., own + 1 :]), -1)
        law = self.worlds.transition(before, others)
        if not isinstance(law, Gaussian):
            raise SpecError(
                f"{self.regression.name}: expected a model with Gaussian noise for a learned mechanism, got "
                f"{type(law).__name__}"
            )
        return law.mean[..., 0], law.spread[..., 0]

    def _in_lanes(self, table: Tensor, world: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale of points that belong to worlds in any order: each world gets a lane of its own."""
        flat, index = table.flatten(0, -2), world.reshape(-1).round().long()
        order = index.argsort(stable=True)
        counts = index.bincount(minlength=len(self.worlds))
        place = torch.empty_like(index)
        place[order] = torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[index[order]]
        lanes = flat.new_zeros(len(self.worlds), int(counts.max()), flat.shape[-1])
        mean, scale = self._law(lanes.index_put((index, place), flat))
        return tuple(v.expand(lanes.shape[:-1])[index, place].view(world.shape) for v in (mean, scale))  # pyright: ignore[reportReturnType]


def _column(parent: str, schema: Schema) -> Column:
    name, lag = name_and_lag(parent) if "[" in parent else (parent, 0)
    state, action, context = (g.columns for g in (schema.state, schema.action, schema.context))
    if name in state and lag in (0, -1):
        return Column("state", state.index(name), lag)
    for group, columns in (("action", action), ("context", context)):
        if parent in columns:
            return Column(group, columns.index(parent), 0)
    raise UnknownVariableError.of(parent, (*state, *(f"{c}[t-1]" for c in state), *action, *context))


def _variable(column: Column, schema: Schema, taken: set[str]) -> Variable:
    """Return a parent as a variable of the regression, under a name that is not taken."""
    variables = getattr(schema, column.group)
    name = variables.columns[column.column]
    label = f"{name}_before" if column.lag else name
    others = (*schema.state.columns, *schema.action.columns, *schema.context.columns)
    while label in taken or (column.lag and label in others):
        label += "_"
    if name in variables.names:
        return Variable(label, unit=variables[name].unit, kind=variables[name].kind, bounds=variables[name].bounds)
    return Variable(label)  # one column of several


def _values(trajectories: Trajectories, column: Column) -> Tensor:
    """Return a recorded column, shape (episodes, T)."""
    if column.group == "state":
        states = trajectories.states()[..., column.column]
        return states[:, 1:] if column.lag == 0 else states[:, :-1]
    values = trajectories.action if column.group == "action" else trajectories.step_context()
    return values[..., column.column]
