"""What a log tells of hidden causes: their laws, and how they follow from what was recorded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from bayeswm.base.errors import FitWarning, SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.random import make_generator
from bayeswm.base.schema import Schema, Variables
from bayeswm.base.trajectories import Trajectories
from bayeswm.base.worlds import Worlds
from bayeswm.causal.confounding.behaviour import fit_action_model
from bayeswm.causal.confounding.first_stage import (
    FirstStage,
    Rows,
    errors_of,
    instrument_control,
    instrument_stage,
    proxy_control,
    proxy_stage,
    strength,
)
from bayeswm.causal.confounding.log import Recipe, columns_of, with_context
from bayeswm.causal.confounding.regression import LinearMap, LinearRegression
from bayeswm.causal.confounding.strategies import FrontDoor, Instrumented, Proxied, Strategy
from bayeswm.causal.confounding.worlds import CausalWorlds, Wiring

_WEAK = 10.0


@dataclass(frozen=True, eq=False)
class Causes:
    """Hidden causes as learned from a log.

    Parameters
    ----------
    recipe : Recipe
        How they follow from what was recorded.
    laws : mapping of str to LinearRegression
        ``cause`` given the state, ``logged`` given state and action, and behind a front door ``mediator``.
    stage : FirstStage, optional
        Where they follow by a map that was learned.
    errors : Tensor, shape (R,), optional
        Of measurements.
    """

    recipe: Recipe
    laws: Mapping[str, LinearRegression]
    stage: FirstStage | None = None
    errors: Tensor | None = None

    def worlds(self, inner: Worlds, generator: torch.Generator | None, *, logged: bool) -> Worlds:
        """Return worlds of outcomes with their causes drawn: as the state has it, or as in the log.

        Raises
        ------
        SpecError
            Without a generator, where worlds are drawn.
        """
        front = isinstance(self.recipe.strategy, FrontDoor)
        # worlds that are the posterior are the same each time; one source, so that their laws are independent
        fixed = make_generator(0)

        def map_of(law: LinearRegression) -> LinearMap:
            if inner.exhaustive:
                return law.spread(len(inner), generator=fixed)
            if generator is None:
                raise SpecError("expected generator=torch.Generator, since laws of causes are drawn, got none")
            return law.draw(len(inner), generator=make_generator(generator))

        given: dict[str, Tensor] = {}
        for name, law in {"cause": "logged" if logged and not front else "cause", "mediator": "mediator"}.items():
            if law in self.laws:
                found = map_of(self.laws[law])
                given |= {f"{name}.weight": found.weight, f"{name}.root": found.root}
        if self.stage is not None and not logged:
            given["control"] = self._control(self.stage, map_of(self.stage.regression))
        given = {k: v.to(inner.device, inner.dtype) for k, v in given.items()}
        through = self.recipe.inner.action.size if front else 0
        wiring = Wiring(mediators=through, causes=self.recipe.causes.size, logged=logged)
        why = f"what went together in a log of confounded actions; use the model itself ({self.recipe.strategy})"
        return CausalWorlds(inner, self.recipe, wiring, parameters=given, confounded=why if logged else None)

    def _control(self, stage: FirstStage, drawn: LinearMap) -> Tensor:
        recipe = self.recipe
        if isinstance(recipe.strategy, Instrumented):
            index = [recipe.public.action.column(a) for a in recipe.strategy.actions]
            return instrument_control(stage, drawn, index, actions=recipe.public.action.size)
        return proxy_control(stage, drawn, self.errors)

    @property
    def proxy_error(self) -> dict[str, float] | None:
        """Errors of measurements by their names, where they were given."""
        strategy = self.recipe.strategy
        if self.errors is None or not isinstance(strategy, Proxied):
            return None
        return dict(zip(strategy.by, self.errors.tolist(), strict=True))

    # --- saving -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return plain values and models, and tensors."""
        recipe, stage = self.recipe, self.stage
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(recipe.strategy).items()}
        config: dict[str, Any] = {
            "strategy": {"name": type(recipe.strategy).__name__, **fields},
            "public": recipe.public.to_dict(),
            "log": recipe.log.to_dict(),
        }
        if recipe.behaviour is not None:
            config["behaviour"] = recipe.behaviour
        regressions = dict(self.laws) | ({} if stage is None else {"stage": stage.regression})
        tensors = {f"{name}.{k}": v for name, law in regressions.items() for k, v in law.tensors().items()}
        loose = {"errors": self.errors}
        if stage is not None:
            loose |= {"control": stage.control, "weights": stage.weights, "inverse": stage.inverse}
        return config, tensors | {k: v for k, v in loose.items() if v is not None}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Causes:
        """Rebuild them from :meth:`state_dict`."""
        given = dict(config["strategy"])
        kind = {one.__name__: one for one in get_args(Strategy)}[given.pop("name")]
        strategy = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
        laws: dict[str, LinearRegression] = {}
        for name in ("cause", "logged", "mediator", "stage"):
            found = {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            if found:
                laws[name] = LinearRegression.from_tensors(found)
        stage, weights = None, tensors.get("weights")
        if "stage" in laws:
            stage = FirstStage(tensors["control"], laws.pop("stage"), weights, tensors.get("inverse"))
        recipe = Recipe(
            strategy,
            Schema.from_dict(config["public"]),
            Schema.from_dict(config["log"]),
            control=None if stage is None else stage.control,
            weights=weights,
            behaviour=config.get("behaviour"),
        )
        return cls(recipe, laws, stage, tensors.get("errors"))


def learn_causes(
    recipe: Recipe,
    log: Trajectories,
    *,
    behaviour: DynamicsModel | None = None,
    proxy_error: Mapping[str, float] | None = None,
    seed: int | None = None,
) -> tuple[Causes, Trajectories]:
    """Learn hidden causes from a log, and return it as the model of outcomes sees it.

    Parameters
    ----------
    recipe : Recipe
        With a strategy.
    log : Trajectories
        With all that was recorded.
    behaviour : DynamicsModel, optional
        What learns the logged actions, with an instrument.
    proxy_error : mapping of str to float, optional
        Errors of measurements.
    seed : int, optional
        Of the fit of ``behaviour``.

    Raises
    ------
    SpecError, UnknownVariableError, DataError, FitError
        For causes that are no real numbers, errors of what was not recorded, too few steps, or measurements without a
        cause in them.

    Warns
    -----
    FitWarning
        If instruments are weak.
    """
    recipe.check()
    for name in proxy_error or ():
        if name not in log.schema.context.names:
            raise UnknownVariableError.of(name, log.schema.context.names)
    public = with_context(log, recipe.public)
    recorded = columns_of(log.step_context(), log.schema.context, recipe.needed)
    inside = public.step_mask & public.state_mask[:, :-1].all(-1) & public.state_mask[:, 1:].all(-1)
    phi = recipe.features(public.states()[:, :-1], public.step_context())
    rows = Rows(*(v[inside].double() for v in (phi, public.action, recorded)))
    stage, errors, strategy = None, None, recipe.strategy
    if isinstance(strategy, Instrumented):
        index = [log.schema.action.column(a) for a in strategy.actions]
        _warn_if_weak(strategy, strength(rows, index))
        if behaviour is None:
            stage = instrument_stage(rows, index)
        else:
            columns = Variables(log.schema.context[name] for name in strategy.by)
            fitted = fit_action_model(
                behaviour, public, recorded, actions=strategy.actions, instruments=columns, seed=seed
            )
            recipe = replace(recipe, behaviour=fitted)
    elif isinstance(strategy, Proxied):
        errors = errors_of(proxy_error, strategy.by)
        stage = proxy_stage(rows, errors)
    if stage is not None:
        recipe = replace(recipe, control=stage.control, weights=stage.weights)
    whole = recipe.outcome_log(log)
    if not recipe.causes:
        return Causes(recipe, {}), whole
    cause = whole.step_context()[inside][:, recipe.public.context.size :].double()
    laws = {"cause": LinearRegression.fit(rows.phi, cause)}
    both = recipe.with_action(rows.phi, rows.action)
    if isinstance(strategy, FrontDoor):
        laws["mediator"] = LinearRegression.fit(both, rows.recorded)
    else:
        laws["logged"] = LinearRegression.fit(both, cause)
    return Causes(recipe, laws, stage, errors), whole


def _warn_if_weak(strategy: Instrumented, strengths: list[float]) -> None:
    for name, f in zip(strategy.actions, strengths, strict=True):
        if f < _WEAK:
            warnings.warn(
                f"instruments ({', '.join(strategy.by)}) for {name} have an F statistic of {f:.1f}: below {_WEAK:.0f} "
                "effects are biased towards the confounded ones, and their intervals are too narrow",
                FitWarning,
                stacklevel=4,
            )
