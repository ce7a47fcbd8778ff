"""Structural causal models: a mechanism for each variable of a slice, and noise of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self, override

import torch
from torch import Tensor
from torch.distributions import Distribution

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.priors import decode, encode
from bayeswm.base.random import global_rng, make_generator, spawn_seeds
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema, Variable
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.structural.joint_worlds import joint_worlds
from bayeswm.causal.structural.learned import Learned
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.regression import Regression
from bayeswm.causal.structural.worlds import StructuralWorlds


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

    @override
    def __repr__(self) -> str:
        causes = {name: m.causes for name, m in self.mechanisms.items()}
        shown = [f"{name} <- {', '.join(given)}" if given else name for name, given in causes.items()]
        return f"StructuralModel({'; '.join(shown)})"

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
        check_trajectories(trajectories)
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
        count, device, values = len(joint.log_weight), joint.log_weight.device, dict[str, Tensor]()
        for name, value in self.laws.items():
            if isinstance(value, Distribution) and generator is not None:
                with global_rng(spawn_seeds(make_generator(generator), 1)[0]):
                    values[name] = value.sample((count,)).to(device, self.dtype)
            else:
                values[name] = torch.full((count,), float(value), dtype=self.dtype, device=device)  # pyright: ignore[reportArgumentType]
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
            from bayeswm.causal.structural.conditioned import ConditionedModel

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
