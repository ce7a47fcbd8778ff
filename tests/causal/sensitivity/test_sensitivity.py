import math

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.causal import TimeGraph, fit_behaviour, sensitivity_of_choice, sensitivity_of_effect
from tests.causal.confounded_logs import NAIVE, confounded_log, known
from tests.causal.confounding.logs import ONE, STATE, c2_log, fitted
from tests.causal.reference_models import line


def closed_form(f2: float) -> float:
    """The robustness value of a squared Cohen's f."""
    return 0.5 * (math.sqrt(f2**2 + 4 * f2) - f2)


def test_one_step_of_a_linear_model_has_the_robustness_value(generator: torch.Generator) -> None:
    log = confounded_log(200, 10, generator=generator)
    variance = float(fit_behaviour(log).covariance)
    found = sensitivity_of_effect(
        known(**NAIVE),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        variable="s",
        horizon=1,
        generator=generator,
    )
    exact = closed_form(1.0 * variance / 0.51)
    assert found.strength == pytest.approx(exact, abs=1e-5)
    assert (found.lower, found.upper) == pytest.approx((exact, exact), abs=1e-5)
    assert found.sign == 1
    assert found.value == pytest.approx(1.0)
    assert f"explains {exact:.1%} of what is left of a and of s" in repr(found)
    # the sign of an effect below 0 is changed by a confounder of the other sign
    turned = sensitivity_of_effect(
        known(A=1.05, B=-1.0, noise=0.51**0.5),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        variable="s",
        horizon=1,
        generator=generator,
    )
    assert (turned.sign, turned.strength) == (-1, pytest.approx(exact, abs=1e-5))


def test_every_world_has_its_own_strength(generator: torch.Generator) -> None:
    log = confounded_log(200, 10, generator=generator)
    variance = float(fit_behaviour(log).covariance)
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: 1.05 * x + p["gain"] * a, schema=line(), parameters={"gain": Normal(1.0, 0.2)}
    )
    worlds = bwm.KnownDynamics(structure=structure, noise=0.51**0.5).draw(31, generator=generator)
    found = sensitivity_of_effect(
        worlds,
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        variable="s",
        horizon=1,
        particles=1,
        level=0.8,
        generator=generator,
    )
    gains = worlds.parameters["gain"].flatten().sort().values.tolist()
    each = [closed_form(g**2 * variance / 0.51) for g in gains]
    # of 31 equal weights the quantile 0.1 is the 4th and 0.9 the 28th
    assert (found.lower, found.upper) == pytest.approx((each[3], each[27]), abs=1e-5)
    assert found.strength == pytest.approx(
        closed_form(torch.tensor(gains).mean().item() ** 2 * variance / 0.51), abs=1e-5
    )


def test_what_no_confounder_can_do(generator: torch.Generator) -> None:
    """Nearly without noise there is nothing left for a confounder to explain."""
    log = confounded_log(200, 10, generator=generator)
    found = sensitivity_of_effect(
        known(A=0.9, B=1.0, noise=1e-3),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        variable="s",
        horizon=1,
        generator=generator,
    )
    assert (found.strength, found.sign) == (1.0, 0)
    assert "no confounder overturns it" in repr(found)
    none = sensitivity_of_effect(
        known(A=0.9, B=0.0, noise=1.0),
        bwm.do(a=1.0),
        bwm.do(a=0.0),
        logged=log,
        state=torch.ones(1),
        variable="s",
        horizon=1,
        generator=generator,
    )
    assert none.strength == 0.0


def test_the_choice_between_two_plans(generator: torch.Generator) -> None:
    """One step from s = 0 to the cost -s' + 0.6 a: a = 1 costs -B + 0.6, a = 0 nothing.

    The effect B = 1 has to fall to 0.6, so that f^2 = 0.4^2 var(a | s) / 0.51.
    """
    log = confounded_log(200, 10, generator=generator)
    behaviour = fit_behaviour(log)

    def stage(state: torch.Tensor, action: torch.Tensor, context: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
        return 0.6 * action[..., 0]

    objective = bwm.planning.Objective(stage=stage, terminal=lambda state, context: -state[..., 0])
    found = sensitivity_of_choice(
        known(**NAIVE),
        torch.ones(1, 1),
        torch.zeros(1, 1),
        logged=log,
        state=torch.zeros(1),
        objective=objective,
        generator=generator,
    )
    assert found.value == pytest.approx(-0.4)
    exact = closed_form(0.4**2 * float(behaviour.covariance) / 0.51)
    assert (found.strength, found.sign) == (pytest.approx(exact, abs=1e-5), 1)


def test_policies_are_compared_as_plans_are(generator: torch.Generator) -> None:
    log = confounded_log(200, 10, generator=generator)
    objective = bwm.planning.quadratic(torch.tensor([1.0]), torch.tensor([0.1]))
    ask = {"logged": log, "state": torch.ones(4, 1), "objective": objective, "horizon": 3}
    push, rest = torch.full((3, 1), -0.5), torch.zeros(3, 1)
    plans = sensitivity_of_choice(known(**NAIVE), push, rest, **ask, generator=torch.Generator().manual_seed(1))
    policies = sensitivity_of_choice(
        known(**NAIVE),
        lambda state, step: push[step],
        lambda state, step: rest[step],
        **ask,
        generator=torch.Generator().manual_seed(1),
    )
    assert 0 < plans.strength < 1
    assert policies.strength == pytest.approx(plans.strength, abs=1e-6)
    with pytest.raises(SpecError, match="horizon="):
        sensitivity_of_choice(
            known(**NAIVE),
            lambda s, t: s,
            lambda s, t: s,
            logged=log,
            state=torch.ones(1),
            objective=objective,
            generator=generator,
        )


def test_noise_needs_a_generator(generator: torch.Generator) -> None:
    log = confounded_log(20, 10, generator=generator)
    with pytest.raises(SpecError, match="generator="):
        sensitivity_of_effect(
            known(**NAIVE), bwm.do(a=1.0), bwm.do(a=0.0), logged=log, state=torch.ones(1), variable="s", horizon=1
        )


def test_plans_are_no_interventions():
    objective = bwm.planning.quadratic(torch.ones(1), torch.ones(1))
    with pytest.raises(SpecError, match="got Intervention"):
        sensitivity_of_choice(
            known(A=0.9, B=0.5, noise=0.5),
            bwm.do(a=1.0),  # pyright: ignore[reportArgumentType]
            bwm.do(a=0.0),  # pyright: ignore[reportArgumentType]
            logged=confounded_log(20, 3, generator=torch.Generator().manual_seed(0)),
            objective=objective,
            state=torch.zeros(1),
            horizon=2,
            generator=torch.Generator().manual_seed(0),
        )


def test_models_freed_of_hidden_causes_say_what_they_rest_on(generator: torch.Generator) -> None:
    def found(model: bwm.DynamicsModel, log: bwm.Trajectories, **given) -> bwm.causal.Sensitivity:
        return sensitivity_of_effect(
            model, bwm.do(a=1.0), bwm.do(a=0.0), logged=log, state=ONE, variable="s", horizon=1, worlds=4, particles=1,
            generator=generator, **given,
        )  # fmt: skip

    log = c2_log(200, "e")
    model = fitted(log, "e")
    with pytest.raises(SpecError, match=r"ask its \.outcome, of which \(e\) is context"):
        found(model, log)
    assert found(model.outcome, log, context=torch.zeros(1)).strength > 0
    other = c2_log(200, "nu")
    with pytest.raises(SpecError, match="what they rest on is the graph"):
        found(fitted(other, "a_residual"), other)


def test_what_is_recorded_only_is_no_context_of_the_log(generator: torch.Generator) -> None:
    free = TimeGraph([*STATE, ("nu[t]", "a[t]")])
    log = c2_log(200, "nu")
    model = fitted(log, graph=free)
    given = {"state": ONE, "variable": "s", "horizon": 1, "worlds": 4, "particles": 1}
    one, other = (
        sensitivity_of_effect(
            model, bwm.do(a=1.0), bwm.do(a=0.0), logged=data, generator=torch.Generator().manual_seed(0), **given
        )
        for data in (log, c2_log(200))
    )
    assert one == other
