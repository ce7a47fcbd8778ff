"""Structural causal models: a mechanism for each variable of a slice, and noise of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import global_rng, make_generator, spawn_seeds
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.shapes import common_shape
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import MarkovWorlds
from bayeswm.causal.assignment import Assignment
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.names import name_and_lag
from bayeswm.causal.order import topological
from bayeswm.causal.slice_law import Altered, Node, SliceLaw, Source, Wired


class StructuralWorlds(MarkovWorlds):
    """Worlds of a :class:`StructuralModel`; interventions replace mechanisms inside their slice.

    Parameters
    ----------
    mechanisms : mapping of str to Mechanism
        One for each variable of the state.
    schema : Schema
        Variables.
    parameters : mapping of str to Tensor, shape (worlds,)
        Numbers that mechanisms share.
    log_weight : Tensor, shape (worlds,)
        Weights.
    exhaustive : bool
        Whether these worlds are the posterior.
    dtype : torch.dtype
        Number format.

    Attributes
    ----------
    static : bool
        Whether no mechanism sees the slice before, so that nothing is to be set at the start.

    Raises
    ------
    SpecError, UnknownVariableError
        For a variable without a mechanism, an unknown parent, or a cycle, which is named.
    """

    def __init__(
        self,
        mechanisms: Mapping[str, Mechanism],
        schema: Schema,
        parameters: Mapping[str, Tensor],
        *,
        log_weight: Tensor,
        exhaustive: bool,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.mechanisms, self.schema, self.parameters = dict(mechanisms), schema, dict(parameters)
        self.log_weight, self.exhaustive = torch.log_softmax(log_weight.double(), 0), exhaustive
        self._dtype = dtype
        columns = schema.state.columns
        for name in (*columns, *mechanisms):
            if name not in mechanisms:
                raise SpecError(f"expected a mechanism for each variable of the state, got none for {name!r}")
            if name not in columns:
                raise UnknownVariableError.of(name, columns)
        # with nothing before the slice that matters
        self.static = not schema.action.size and not any("[t-" in c for m in self.mechanisms.values() for c in m.causes)
        self._order = self.order({})
        self._noisy = tuple(name for name in columns if self.mechanisms[name].noise)
        self.noise_size = len(self._noisy)
        self._wired = {name: self._wire(m, self._coordinate(name)) for name, m in self.mechanisms.items()}

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self._dtype

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        new = super().to(target)
        if isinstance(target, torch.dtype):
            new._dtype = target
        return new

    def order(self, replaced: Mapping[str, Mechanism]) -> tuple[str, ...]:
        """Return the variables such that each comes after its parents, with some mechanisms replaced.

        Raises
        ------
        SpecError
            If there is a cycle, with its nodes.
        """
        columns = self.schema.state.columns
        edges: list[tuple[str, str]] = []
        for name in columns:
            causes = replaced.get(name, self.mechanisms[name]).causes
            edges += [(c.removesuffix("[t]"), name) for c in causes if c.removesuffix("[t]") in columns]
        return topological(columns, edges)

    def wired(self, mechanism: Mechanism, name: str, *, extra: int) -> tuple[Wired, bool]:
        """Return another mechanism of a variable with its parents found, and whether it needs new noise."""
        own = self._coordinate(name)
        fresh = own is None and bool(mechanism.noise)
        return self._wire(mechanism, extra if fresh else own), fresh

    @override
    def transition(
        self,
        carry: Tensor,
        action: Tensor,
        context: Tensor | None = None,
        *,
        step: int | Tensor = 0,
        changes: Sequence[Assignment] = (),
        noise_changes: Sequence[Assignment] = (),
        noise_size: int | None = None,
    ) -> SliceLaw:
        todo = ((noise_changes, step), (changes, step + 1))
        context = action.new_empty(*action.shape[:-1], 0) if context is None else context
        shared = [v.view(-1, *(1,) * (carry.ndim - 2)) for v in self.parameters.values()]
        lead = common_shape(
            carry.shape[:-1],
            action.shape[:-1],
            context.shape[:-1],
            (len(self), *(1,) * (carry.ndim - 2)),
            *(one.values(at).shape for given, at in todo for one in given if one.hard),
        )
        known = [v.to(carry).expand(*lead, v.shape[-1]) for v in (carry, action, context)]
        known += [v.to(carry).expand(lead)[..., None] for v in shared]
        width, extra = sum(v.shape[-1] for v in known), self.noise_size
        altered: dict[str, list[Altered]] = {}
        noise: dict[str, list[Altered]] = {}
        replaced: dict[str, Mechanism] = {}
        for into, (given, at) in zip((noise, altered), todo, strict=True):
            for one in given:
                name, found = one.name.removeprefix("noise."), Altered(one)
                if one.hard:
                    known.append(one.values(at).to(carry).expand(lead)[..., None])
                    found, width = Altered(one, column=width), width + 1
                elif one.stochastic:
                    found, extra = Altered(one, coordinate=extra), extra + 1
                elif isinstance(one.value, Mechanism):
                    wired, fresh = self.wired(one.value, name, extra=extra)
                    found, extra = Altered(one, mechanism=wired), extra + int(fresh)
                    replaced[name] = one.value
                into.setdefault(name, []).append(found)
        order = self.order(replaced) if replaced else self._order
        columns = self.schema.state.columns
        nodes = tuple(
            Node(columns.index(n), self._wired[n], tuple(noise.get(n, ())), tuple(altered.get(n, ()))) for n in order
        )
        return SliceLaw(nodes, torch.cat(known, -1), noise_size=max(extra, noise_size or 0), step=step + 1)

    def _coordinate(self, name: str) -> int | None:
        return self._noisy.index(name) if name in self._noisy else None

    def _wire(self, mechanism: Mechanism, coordinate: int | None) -> Wired:
        scale = mechanism.noise
        where = self._source(scale) if isinstance(scale, str) else float(scale)
        return Wired(mechanism.fn, tuple(map(self._source, mechanism.causes)), where, coordinate)

    def _source(self, parent: str) -> Source:
        schema = self.schema
        if parent in schema.state.columns:
            return Source(True, schema.state.column(parent))
        before = tuple(f"{c}[t-1]" for c in schema.state.columns)
        known = (*before, *schema.action.columns, *schema.context.columns, *self.parameters)
        if "[" in parent:
            name, lag = name_and_lag(parent)
            parent = name if lag == 0 else f"{name}[t-1]" if lag == -1 else parent
            if lag == 0:
                return Source(True, schema.state.column(name))
        if parent not in known:
            raise UnknownVariableError.of(parent, (*schema.state.columns, *known))
        return Source(False, known.index(parent))

    @override
    def _with(self, *, parameters: Mapping[str, Tensor], log_weight: Tensor, exhaustive: bool) -> Self:
        return type(self)(
            self.mechanisms, self.schema, parameters, log_weight=log_weight, exhaustive=exhaustive, dtype=self._dtype
        )


class StructuralModel(DynamicsModel):
    """A structural causal model whose mechanisms are known: static, or one slice of a process.

    A static model has a horizon of one step: its variables are the next state, and the start, which no mechanism
    mentions, is any number.

    Parameters
    ----------
    mechanisms : mapping of str to Mechanism
        One for each variable of the state.
    schema : Schema, optional
        Needed for units, actions and context; by default the variables are those that have mechanisms, with a time
        step of 1 s.
    parameters : mapping of str to float or Distribution, optional
        Numbers that mechanisms name as parents or as noise; laws are the prior over worlds.
    dtype : torch.dtype
        Number format.

    Raises
    ------
    SpecError, UnknownVariableError
        For a variable without a mechanism, an unknown parent, or a cycle, which is named.

    Examples
    --------
    Z confounds X and Y. Setting X inside the slice leaves Z as it is, and Y sees it:

    >>> import bayeswm as bwm
    >>> model = StructuralModel({
    ...     "Z": Mechanism(lambda: 0.0, noise=1.0),
    ...     "X": Mechanism(lambda Z: Z, noise=1.0),
    ...     "Y": Mechanism(lambda X, Z: 2 * X - 3 * Z, noise=0.5),
    ... })
    >>> static = bwm.causal.intervene(model, bwm.do(X=1.0)).predictive(torch.zeros(3), torch.zeros(0))
    >>> static.mean[0].tolist(), static.variance[0].tolist()
    ([0.0, 1.0, 2.0], [1.0, 0.0, 9.25])
    """

    def __init__(
        self,
        mechanisms: Mapping[str, Mechanism],
        *,
        schema: Schema | None = None,
        parameters: Mapping[str, float | Distribution] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        for name, mechanism in mechanisms.items():
            if not isinstance(mechanism, Mechanism):
                raise SpecError(f"expected a Mechanism for {name!r}, got {type(mechanism).__name__}")
        self.mechanisms, self.laws, self.dtype = dict(mechanisms), dict(parameters or {}), dtype
        self._schema = schema or Schema(state=[Variable(name) for name in mechanisms], time_step=1.0)
        if not self._schema.state.flat:
            raise SpecError("expected real variables and angles in the state: mechanisms are of one number each")
        blank = {name: torch.ones(1, dtype=dtype) for name in self.laws}
        self._worlds(blank, count=1, exhaustive=True)

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Return the model itself: nothing is learned, but the variables must fit."""
        self._schema.check_same(trajectories.schema, who="the structural model")
        return self

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructuralWorlds:
        """Return the system, or that many systems drawn from the laws of its parameters."""
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        uncertain = [name for name, v in self.laws.items() if isinstance(v, Distribution)]
        count = worlds if uncertain else 1
        if uncertain and generator is None:
            raise SpecError(f"parameter {uncertain[0]!r} is uncertain: pass generator= to draw it")
        values: dict[str, Tensor] = {}
        for name, value in self.laws.items():
            if isinstance(value, Distribution) and generator is not None:
                with global_rng(spawn_seeds(make_generator(generator), 1)[0]):
                    values[name] = value.sample((count,)).to(self.dtype)
            else:
                values[name] = torch.full((count,), float(value), dtype=self.dtype)  # pyright: ignore[reportArgumentType]
        return self._worlds(values, count=count, exhaustive=not uncertain)

    def _worlds(self, values: Mapping[str, Tensor], *, count: int, exhaustive: bool) -> StructuralWorlds:
        equal = torch.zeros(count, dtype=torch.float64)
        return StructuralWorlds(
            self.mechanisms, self._schema, values, log_weight=equal, exhaustive=exhaustive, dtype=self.dtype
        )

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> StructuralWorlds:
        return self.draw(worlds, generator=generator)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the model itself: known mechanisms learn nothing.

        Raises
        ------
        SpecError
            If parameters are uncertain: draw worlds, and have :func:`counterfactual` weigh them.
        """
        if in_training or not any(isinstance(v, Distribution) for v in self.laws.values()):
            return self
        raise SpecError("expected known parameters; draw worlds and pass them, so that they are weighed by the data")
