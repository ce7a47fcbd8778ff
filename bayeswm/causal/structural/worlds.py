"""Worlds of structural causal models: interventions replace mechanisms inside their slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.schema import Schema
from bayeswm.base.shapes import common_shape
from bayeswm.base.worlds import MarkovWorlds, Worlds
from bayeswm.causal.graphs.names import name_and_lag
from bayeswm.causal.graphs.order import topological
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.structural.learned import Learned
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.node import Altered, Node, Source, Wired
from bayeswm.causal.structural.regression import DrawnRegression, Regression
from bayeswm.causal.structural.slice_law import SliceLaw


class StructuralWorlds(MarkovWorlds):
    """Worlds of a :class:`StructuralModel`; interventions replace mechanisms inside their slice.

    Parameters
    ----------
    mechanisms : mapping of str to Mechanism or Learned
        One for each variable of the state.
    schema : Schema
        Variables.
    parameters : mapping of str to Tensor, shape (worlds,)
        Numbers that mechanisms share.
    regressions : mapping of str to Worlds
        Of each learned mechanism, by its variable: as many worlds. Their parameters are among those of these worlds,
        as ``<variable>.<parameter>``.
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
        mechanisms: Mapping[str, Mechanism | Learned],
        schema: Schema,
        parameters: Mapping[str, Tensor],
        *,
        regressions: Mapping[str, Worlds] | None = None,
        log_weight: Tensor,
        exhaustive: bool,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.mechanisms, self.schema, self.shared = dict(mechanisms), schema, dict(parameters)
        self.regressions = dict(regressions or {})
        self.parameters = self.shared | {
            f"{name}.{k}": v for name, worlds in self.regressions.items() for k, v in worlds.parameters.items()
        }
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
        self._noisy = tuple(name for name in columns if self.mechanisms[name].noisy)
        self.noise_size = len(self._noisy)
        self._wired = {
            name: self._wire_learned(name, m) if isinstance(m, Learned) else self._wire(m, self._coordinate(name))
            for name, m in self.mechanisms.items()
        }

    @property
    @override
    def dtype(self) -> torch.dtype:
        return self._dtype

    @override
    def to(self, target: torch.device | str | torch.dtype) -> Self:
        shared = {k: v.to(target) for k, v in self.shared.items()}
        regressions = {k: w.to(target) for k, w in self.regressions.items()}
        number_format = isinstance(target, torch.dtype)
        return type(self)(
            self.mechanisms,
            self.schema,
            shared,
            regressions=regressions,
            log_weight=self.log_weight if number_format else self.log_weight.to(target),
            exhaustive=self.exhaustive,
            dtype=target if number_format else self._dtype,
        )

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
        fresh = own is None and mechanism.noisy
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
        shared = [v.view(-1, *(1,) * (carry.ndim - 2)) for v in self.shared.values()]
        lead = common_shape(
            carry.shape[:-1],
            action.shape[:-1],
            context.shape[:-1],
            (len(self), *(1,) * (carry.ndim - 2)),
            *(one.values(at).shape for given, at in todo for one in given if one.hard),
        )
        known = [v.to(carry).expand(*lead, v.shape[-1]) for v in (carry, action, context)]
        known += [v.to(carry).expand(lead)[..., None] for v in shared]
        width, extra, world = sum(v.shape[-1] for v in known), self.noise_size, None
        if self.regressions:
            index = torch.arange(len(self), dtype=carry.dtype, device=carry.device)
            known.append(index.view(-1, *(1,) * (len(lead) - 1)).expand(lead)[..., None])
            world, width = width, width + 1
        altered: dict[str, list[Altered]] = {}
        noise: dict[str, list[Altered]] = {}
        replaced: dict[str, Mechanism] = {}
        for into, (given, at) in zip((noise, altered), todo, strict=True):
            for one in given:
                name, found = one.name.removeprefix("noise."), Altered(one)
                if one.hard:
                    known.append(one.values(at).to(carry).expand(lead)[..., None])
                    found, width = Altered(one, column=width), width + 1
                elif one.stochastic and into is altered:  # a law of noise has the mechanism's own coordinate
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
        size = max(extra, noise_size or 0)
        return SliceLaw(nodes, torch.cat(known, -1), noise_size=size, step=step + 1, world=world)

    def _coordinate(self, name: str) -> int | None:
        return self._noisy.index(name) if name in self._noisy else None

    def _wire(self, mechanism: Mechanism, coordinate: int | None) -> Wired:
        scale = mechanism.noise
        where = self._source(scale) if isinstance(scale, str) else float(scale)
        return Wired(mechanism.fn, tuple(map(self._source, mechanism.causes)), where, coordinate)

    def _wire_learned(self, name: str, mechanism: Learned) -> Wired:
        if name not in self.regressions:
            raise SpecError(f"expected regressions= with worlds of the learned mechanism of {name!r}, got none")
        fn = DrawnRegression(Regression.of(name, mechanism.causes, self.schema), self.regressions[name])
        return Wired(fn, tuple(map(self._source, mechanism.causes)), 0.0, self._coordinate(name))

    def _source(self, parent: str) -> Source:
        schema = self.schema
        if parent in schema.state.columns:
            return Source(True, schema.state.column(parent))
        before = tuple(f"{c}[t-1]" for c in schema.state.columns)
        known = (*before, *schema.action.columns, *schema.context.columns, *self.shared)
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
        parts = {k: self._own(k, parameters) for k in self.regressions}
        return type(self)(
            self.mechanisms,
            self.schema,
            {k: parameters[k] for k in self.shared},
            regressions={
                k: w._with(parameters=parts[k], log_weight=log_weight, exhaustive=exhaustive)
                for k, w in self.regressions.items()
            },
            log_weight=log_weight,
            exhaustive=exhaustive,
            dtype=self._dtype,
        )

    @override
    def _replaced(self, parameters: Mapping[str, Tensor]) -> Self:
        """Let each regression look at values of its own that were set."""
        return type(self)(
            self.mechanisms,
            self.schema,
            {k: parameters[k] for k in self.shared},
            regressions={k: w._replaced(self._own(k, parameters)) for k, w in self.regressions.items()},
            log_weight=self.log_weight,
            exhaustive=self.exhaustive,
            dtype=self._dtype,
        )

    def _own(self, name: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters of one regression, under the names that it knows them by."""
        return {k: parameters[f"{name}.{k}"] for k in self.regressions[name].parameters}
