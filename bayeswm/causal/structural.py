"""Structural causal models: a mechanism for each variable of a slice, and noise of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.priors import decode, encode
from bayeswm.base.random import global_rng, make_generator, spawn_seeds
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.shapes import common_shape
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import MarkovWorlds, Worlds
from bayeswm.causal.assignment import Assignment
from bayeswm.causal.joint_worlds import joint_worlds
from bayeswm.causal.learned import Learned
from bayeswm.causal.mechanism import Mechanism
from bayeswm.causal.names import name_and_lag
from bayeswm.causal.order import topological
from bayeswm.causal.regression import DrawnRegression, Regression
from bayeswm.causal.slice_law import Altered, Node, SliceLaw, Source, Wired


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


class StructuralModel(DynamicsModel):
    """A structural causal model: static, or one slice of a process. Its mechanisms are known, or learned from data.

    A static model has a horizon of one step: its variables are the next state, and the start, which no mechanism
    mentions, is any number.

    Learned mechanisms are independent of each other given the data, as long as no hidden variable acts on two of them:
    each world has its own draw of each. Where all posteriors are a few worlds (members of ensembles), the joint one is
    all combinations of them, as long as these are at most 128, else combinations are drawn.

    Parameters
    ----------
    mechanisms : mapping of str to Mechanism or Learned
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

    The same from data, of which only the parents are known:

    >>> g = torch.Generator().manual_seed(0)
    >>> data = bwm.data.simulate(model, torch.zeros(2000, 3), torch.zeros(1, 0), generator=g)
    >>> line = bwm.structures.Linear(c=torch.distributions.Normal(0.0, 10.0))
    >>> linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    >>> learned = StructuralModel({
    ...     "Z": Learned(linear),
    ...     "X": Learned(linear, parents=("Z",)),
    ...     "Y": Learned(linear, parents=("X", "Z")),
    ... })
    >>> learned = learned.fit(data, seed=0, progress=False)
    >>> found = bwm.causal.intervene(learned, bwm.do(X=1.0)).predictive(torch.zeros(3), torch.zeros(0), generator=g)
    >>> round(found.mean[0, 2].item(), 1)
    2.0
    """

    def __init__(
        self,
        mechanisms: Mapping[str, Mechanism | Learned],
        *,
        schema: Schema | None = None,
        parameters: Mapping[str, float | Distribution] | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        for name, mechanism in mechanisms.items():
            if not isinstance(mechanism, Mechanism | Learned):
                raise SpecError(f"expected a Mechanism or Learned for {name!r}, got {type(mechanism).__name__}")
        self.mechanisms, self.laws, self.dtype = dict(mechanisms), dict(parameters or {}), dtype
        self._schema = schema or Schema(state=[Variable(name) for name in mechanisms], time_step=1.0)
        if not self._schema.state.flat:
            raise SpecError("expected real variables and angles in the state: mechanisms are of one number each")
        self._regressions = {
            name: Regression.of(name, m.causes, self._schema)
            for name, m in mechanisms.items()
            if isinstance(m, Learned) and name in self._schema.state.columns
        }
        self._fitted: dict[str, DynamicsModel] = {}
        # whether mechanisms and variables fit together shows before anything is learned
        blank = {name: torch.ones(1, dtype=dtype) for name in self.laws}
        known = {k: _blank(m) if isinstance(m, Learned) else m for k, m in mechanisms.items()}
        StructuralWorlds(known, self._schema, blank, log_weight=torch.zeros(1), exhaustive=True, dtype=dtype)

    @property
    @override
    def schema(self) -> Schema:
        return self._schema

    @property
    def regressions(self) -> dict[str, DynamicsModel]:
        """The fitted model of each learned mechanism, by its variable.

        Raises
        ------
        SpecError
            If it has not been fitted.
        """
        found: dict[str, DynamicsModel] = {}
        for name, regression in self._regressions.items():
            mechanism = self.mechanisms[name]
            model = self._fitted.get(name, mechanism.model if isinstance(mechanism, Learned) else None)
            if not isinstance(model, DynamicsModel):
                raise SpecError("expected a fitted model: call .fit(trajectories, seed=0) first")
            regression.schema.check_same(model.schema, who=f"the regression of {name!r}")
            found[name] = model
        return found

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Learn the mechanisms that are to be learned, each from all steps of which its variables were recorded.

        Parameters
        ----------
        trajectories : Trajectories
            Recorded slices. Of a static model each is an episode of one step, whose start is ignored (see
            :func:`bayeswm.data.from_rows`).
        seed : int, optional
            For families that need one.
        progress : bool
            Show progress bars.

        Returns
        -------
        StructuralModel
            The model itself.

        Raises
        ------
        SpecError, DataError, FitError
            For variables that do not fit, and as the families say.
        """
        self._schema.check_same(trajectories.schema, who="the structural model")
        count = len(self._regressions)
        seeds: list[int] | list[None] = [None] * count
        if seed is not None:
            seeds = spawn_seeds(make_generator(seed), count)
        fitted: dict[str, DynamicsModel] = {}
        for (name, regression), own in zip(self._regressions.items(), seeds, strict=True):
            mechanism = self.mechanisms[name]
            if isinstance(mechanism, Learned):
                fitted[name] = mechanism.fitted(regression, trajectories, seed=own, progress=progress)
        self._fitted = fitted
        return self

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> StructuralWorlds:
        """Return the system where it is known, else draws from the posterior of its mechanisms and parameters.

        Raises
        ------
        SpecError
            Without a generator where one is needed, or if mechanisms have not been learned.
        """
        models = self.regressions
        return self._draw(
            {k: m.draw(worlds, generator=generator) for k, m in models.items()}, worlds, generator=generator
        )

    @override
    def prior(self, worlds: int, *, generator: torch.Generator) -> StructuralWorlds:
        models = self.regressions
        return self._draw(
            {k: m.prior(worlds, generator=generator) for k, m in models.items()}, worlds, generator=generator
        )

    def _draw(
        self, regressions: Mapping[str, Worlds], worlds: int, *, generator: torch.Generator | None
    ) -> StructuralWorlds:
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        uncertain = [name for name, v in self.laws.items() if isinstance(v, Distribution)]
        if uncertain and generator is None:
            raise SpecError(f"parameter {uncertain[0]!r} is uncertain: pass generator= to draw it")
        joint = joint_worlds(regressions, worlds, exhaustive=not uncertain, generator=generator)
        count, values = len(joint.log_weight), dict[str, Tensor]()
        for name, value in self.laws.items():
            if isinstance(value, Distribution) and generator is not None:
                with global_rng(spawn_seeds(make_generator(generator), 1)[0]):
                    values[name] = value.sample((count,)).to(self.dtype)
            else:
                values[name] = torch.full((count,), float(value), dtype=self.dtype)  # pyright: ignore[reportArgumentType]
        return StructuralWorlds(
            self.mechanisms,
            self._schema,
            values,
            regressions={k: w.to(self.dtype) for k, w in joint.regressions.items()},
            log_weight=joint.log_weight,
            exhaustive=joint.exhaustive,
            dtype=self.dtype,
        )

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> DynamicsModel:
        """Return the model with each learned mechanism given these trajectories too, as its family does it.

        Known mechanisms learn nothing but the parameters that have laws.

        Raises
        ------
        FitError, SpecError, DataError
            As the families say, and :class:`ConditionedModel` for parameters with laws.
        """
        if in_training:
            return self
        if any(isinstance(v, Distribution) for v in self.laws.values()):
            from bayeswm.causal.conditioned import ConditionedModel

            return ConditionedModel(self, trajectories)
        if not self._regressions:
            return self
        self._schema.check_same(trajectories.schema, who="the structural model")
        new = copy.copy(self)
        new._fitted = {k: m.condition(self._regressions[k].rows(trajectories)) for k, m in self.regressions.items()}
        return new

    # --- files ----------------------------------------------------------------------------------------------------

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        known = [name for name, m in self.mechanisms.items() if not isinstance(m, Learned)]
        if known:
            raise SpecError(
                f"cannot save the mechanisms of {', '.join(known)}, which are Python code: save each of .regressions, "
                "and after loading build the model anew, with Learned(loaded, parents=...) beside known mechanisms"
            )
        config = {
            "schema": self._schema.to_dict(),
            "parents": {name: list(m.causes) for name, m in self.mechanisms.items()},
            "dtype": str(self.dtype).removeprefix("torch."),
            "parameters": {k: encode(v) for k, v in self.laws.items()},
        }
        return {**plain(config), **{f"mechanism.{k}": m for k, m in self.regressions.items()}}, {}

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> StructuralModel:
        parents = {name: tuple(found) for name, found in config["parents"].items()}
        return cls(
            {name: Learned(config[f"mechanism.{name}"], found) for name, found in parents.items()},
            schema=Schema.from_dict(config["schema"]),
            parameters={k: decode(v) for k, v in config["parameters"].items()},
            dtype=getattr(torch, config["dtype"]),
        )


def _blank(mechanism: Learned) -> Mechanism:
    """Return a mechanism with the parents of one that is still to be learned."""
    return Mechanism(lambda *_: 0.0, mechanism.causes, 1.0)
