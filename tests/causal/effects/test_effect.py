import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.causal import effect
from bayeswm.causal.effects.effect import _quantile
from tests.causal.reference_models import c1, c2, c3, c5, cart


def test_effects_inside_a_slice_are_exact(generator: torch.Generator) -> None:
    found = effect(c1(), bwm.do(X=1.0), bwm.do(X=0.0), state=torch.zeros(3), horizon=1, generator=generator)
    assert found.effect.sel(horizon=1).values.tolist() == pytest.approx([2.0, 1.0, 0.0])
    assert found.treatment.sel(horizon=1, variable="Y").item() == pytest.approx(2.0)
    assert float(found.standard_error.max()) == 0
    shifted = effect(
        c1(),
        bwm.do(X=bwm.causal.shift(1.0)),
        bwm.do(Z=bwm.causal.shift(0.0)),
        state=torch.zeros(3),
        horizon=1,
        generator=generator,
    )
    assert shifted.effect.sel(horizon=1, variable="Y").item() == pytest.approx(2.0)


def test_effects_over_time(generator: torch.Generator) -> None:
    found = effect(c2(), bwm.do(a=1.0), bwm.do(a=0.0), state=torch.zeros(2, 3), horizon=2, generator=generator)
    assert found.effect.sel(variable="s").values.tolist() == [pytest.approx([0.5, 0.95])] * 2
    found = effect(
        c5(), bwm.do(A0=1.0, A1=1.0), bwm.do(A0=0.0, A1=0.0), state=torch.zeros(5), horizon=1, generator=generator
    )
    assert found.effect.sel(horizon=1, variable="Y").item() == pytest.approx(2.0)


def test_common_random_numbers_and_effects_by_state(generator: torch.Generator) -> None:
    """x' = x a: the effect of a = 1 against a = 0 is the state itself."""
    schema = c3().schema
    structure = bwm.structures.FromFunction(lambda x, a: x * a, schema=schema)
    model = bwm.KnownDynamics(structure=structure, noise=1.0)
    starts = torch.tensor([[0.0], [1.0], [-2.0]])
    found = effect(model, bwm.do(a=1.0), bwm.do(a=0.0), state=starts, horizon=2, particles=2000, generator=generator)
    assert found.effect.isel(horizon=0, variable=0).values.tolist() == pytest.approx([0.0, 1.0, -2.0])
    error = found.standard_error.isel(horizon=1, variable=0).values
    assert error == pytest.approx(2000**-0.5, rel=0.1)
    off = (found.effect.isel(horizon=1, variable=0).values - [0.0, 1.0, -2.0]) / error
    assert abs(off).max() < 4.5


def test_credible_intervals_are_over_worlds(generator: torch.Generator) -> None:
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: x + p["gain"] * a, schema=c3().schema, parameters={"gain": Normal(1.0, 0.5)}
    )
    model = bwm.KnownDynamics(structure=structure, noise=1.0)
    found = effect(
        model, bwm.do(a=1.0), bwm.do(a=0.0), state=torch.zeros(1), horizon=1, worlds=4000, generator=generator
    )
    # the density of N(1, 0.5) at its 5 % quantile is 0.2063: the quantile's error is sqrt(0.05 0.95 / 4000) / 0.2063
    assert abs(found.lower.item() - (1 - 0.5 * 1.6449)) < 4.5 * (0.05 * 0.95 / 4000) ** 0.5 / 0.2063
    assert abs(found.upper.item() - (1 + 0.5 * 1.6449)) < 4.5 * (0.05 * 0.95 / 4000) ** 0.5 / 0.2063
    assert abs(found.probability_positive.item() - 0.97725) < 4.5 * (0.97725 * 0.02275 / 4000) ** 0.5
    assert abs(found.effect.item() - 1.0) < 4.5 * 0.5 / 4000**0.5


def test_plans_and_policies_otherwise(generator: torch.Generator) -> None:
    plan = torch.ones(4, 1)
    found = effect(
        cart(),
        bwm.do(wind=1.0),
        bwm.do(wind=0.0),
        state=torch.zeros(3),
        actions=plan,
        context=torch.zeros(1),
        generator=generator,
    )
    assert found.effect.sel(variable="v").values.tolist() == pytest.approx([0.5, 0.95, 1.355, 1.7195])
    pendulum = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=LogNormal(0.0, 0.1)))
    found = effect(
        pendulum,
        bwm.do(mass=2.0),
        bwm.do(mass=1.0),
        state=torch.tensor([0.5, 0.0]),
        horizon=3,
        worlds=3,
        actions=lambda state, step: -state[..., :1],
        generator=generator,
    )
    assert dict(found.sizes) == {"horizon": 3, "variable": 2}


def test_stochastic_branches_share_their_draws(generator: torch.Generator) -> None:
    law = Normal(0.0, 1.0)
    found = effect(c3(), bwm.do(a=law), bwm.do(a=law), state=torch.zeros(1), horizon=3, generator=generator)
    assert float(abs(found.effect).max()) == 0


def test_weighted_quantiles() -> None:
    values = torch.tensor([3.0, 1.0, 2.0])
    assert float(_quantile(values, torch.full((3,), 1 / 3), 0.5)) == pytest.approx(2.0)
    assert float(_quantile(values, torch.tensor([0.0, 1.0, 0.0]), 0.5)) == pytest.approx(1.0)
    assert float(_quantile(values[:1], torch.ones(1), 0.9)) == 3.0


def test_what_is_refused(generator: torch.Generator) -> None:
    state = torch.zeros(1)
    with pytest.raises(bwm.SpecError, match="actions=, or interventions"):
        effect(c3(), bwm.do({"a": 1.0}, steps=0), bwm.do(a=0.0), state=state, horizon=2, generator=generator)
    with pytest.raises(bwm.SpecError, match="level="):
        effect(c3(), bwm.do(a=1.0), bwm.do(a=0.0), state=state, horizon=2, level=1.5, generator=generator)
    with pytest.raises(bwm.SpecError, match="horizon="):
        effect(c3(), bwm.do(a=1.0), bwm.do(a=0.0), state=state, generator=generator)
    with pytest.raises(bwm.SpecError, match="generator="):
        effect(c3(), bwm.do(a=1.0), bwm.do(a=0.0), state=state, horizon=2)
    with pytest.raises(bwm.UnknownVariableError):
        effect(c3(), bwm.do(b=1.0), bwm.do(a=0.0), state=state, actions=torch.zeros(2, 1), generator=generator)


@pytest.mark.parametrize("what", [bwm.do(a=bwm.causal.shift(1.0)), bwm.do(a=1.0, when=lambda state, step: step > 0)])
def test_what_changes_a_proposal_needs_one(what: bwm.causal.Intervention, generator: torch.Generator) -> None:
    query = {"state": torch.zeros(1), "horizon": 2, "generator": generator}
    with pytest.raises(bwm.SpecError, match="actions=, or interventions"):
        effect(c3(), what, bwm.do(a=0.0), **query)
    found = effect(c3(), what, bwm.do(a=0.0), actions=torch.zeros(2, 1), **query)
    assert found.effect.sel(horizon=2).item() in (pytest.approx(0.9), pytest.approx(0.5))


def test_the_calls_of_the_design() -> None:
    """As they stand there: positional interventions, and no generator where nothing is drawn."""
    model, x0 = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()), torch.tensor([0.3, 0.0])
    found = bwm.causal.effect(model, bwm.do(torque=1.0), bwm.do(torque=0.0), state=x0, horizon=20)
    assert dict(found.sizes) == {"horizon": 20, "variable": 2}
    test = bwm.data.simulate(model, x0.expand(2, 2), torch.ones(2, 12, 1), generator=torch.Generator().manual_seed(0))
    told = bwm.causal.counterfactual(model, factual=test[0], intervention=bwm.do({"torque": 0.0}, steps=slice(5, 10)))
    off = torch.ones(12, 1)
    off[5:10] = 0.0
    torch.testing.assert_close(told.mean[0], bwm.rollout(model, x0, off).mean)


def test_a_log_that_is_none_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match="expected Trajectories, got str; make them by"):
        effect(c1(), bwm.do(X=1.0), bwm.do(X=0.0), state=torch.zeros(3), horizon=1, logged="x")  # pyright: ignore[reportArgumentType]
