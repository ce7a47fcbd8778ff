"""Growth rates against linear systems, where they are known exactly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.base.errors import DivergenceWarning, SpecError
from bayeswm.diagnostics import energy_residual, forecast, forecast_of, lipschitz, stability
from tests.diagnostics.linear_worlds import LINE, PLANE, linear_worlds


def line(factor: float, noise: float = 0.1) -> bwm.KnownDynamics:
    structure = bwm.structures.Linear(LINE, A=torch.tensor([[factor]], dtype=torch.float64))
    return bwm.KnownDynamics(structure=structure, noise=noise, dtype=torch.float64)


def resting(schema: bwm.Schema, *, episodes: int = 6, steps: int = 8) -> bwm.Trajectories:
    g = torch.Generator().manual_seed(3)
    state = torch.randn(episodes, steps + 1, schema.state.size, generator=g, dtype=torch.float64)
    action = torch.randn(episodes, steps, schema.action.size, generator=g, dtype=torch.float64)
    return bwm.Trajectories(schema, state=state, action=action)


@settings(max_examples=15)
@given(st.floats(0.3, 2.5), st.sampled_from([0.0, 0.2]), st.booleans())
def test_growth_of_a_linear_system_is_its_exponent(factor: float, noise: float, opposite: bool) -> None:
    model = line(-factor if opposite else factor, noise)
    found = stability(forecast(model, resting(LINE), horizon=8, particles=2), bootstrap=20)
    # 1e-5 apart, at states of size s in float64: relative errors of 1e-11 s / factor^8 in a separation
    assert float(found.growth) == pytest.approx(math.log(factor) / 0.1, abs=1e-4)
    assert float(found.growth_se) < 1e-4
    assert found.diverged.values == pytest.approx(0.0)


def test_growth_is_the_weighted_mean_over_worlds_and_every_window_counts() -> None:
    matrices = torch.stack([a * torch.eye(2).double() for a in (0.5, 1.5)])
    worlds = linear_worlds(matrices, torch.tensor([0.25, 0.75]).log())
    parts = list(forecast(worlds, resting(PLANE), horizon=4, chunk=5))
    assert len(parts) > 1
    found = stability(parts, bootstrap=20, scale=torch.tensor([1.0, 5.0]))
    expected = (0.25 * math.log(0.5) + 0.75 * math.log(1.5)) / 0.1
    assert float(found.growth) == pytest.approx(expected, abs=1e-5)


def test_a_separation_lost_in_rounding_does_not_count() -> None:
    # 1e-3 a step leaves 1e-8, 1e-11 of a separation, then rounding; the first steps tell
    found = stability(forecast(line(1e-3, 0.0), resting(LINE), horizon=8), bootstrap=20)
    assert float(found.growth) == pytest.approx(math.log(1e-3) / 0.1, rel=1e-2)


def test_divergence_is_counted_by_step() -> None:
    matrices = torch.stack([torch.eye(2).double(), 1e200 * torch.eye(2).double()])
    worlds = linear_worlds(matrices, torch.tensor([0.7, 0.3]).log())
    with pytest.warns(DivergenceWarning):
        parts = list(forecast(worlds, resting(PLANE, steps=4), horizon=4))
    with pytest.warns(DivergenceWarning):
        found = stability(parts, bootstrap=20)
    diverged = [float(p.predictive.diverged.double().mean((1, 2))[1, 0]) for p in parts]
    assert float(found.diverged[0]) == pytest.approx(0.3 * diverged[0])
    assert float(found.diverged[-1]) == pytest.approx(0.3)


def test_stability_needs_worlds_and_a_displacement() -> None:
    model = line(0.9)
    data = resting(LINE)
    with pytest.raises(SpecError, match="displacement > 0"):
        stability(forecast(model, data, horizon=4), displacement=0.0)
    g = torch.Generator().manual_seed(0)
    alone = bwm.rollout(model, torch.zeros(3, 1), horizon=4, generator=g)
    with pytest.raises(SpecError, match="knows its model"):
        stability(forecast_of(alone, alone.mean))


def test_forecasts_of_measurements_have_no_state_to_displace() -> None:
    structure = bwm.structures.Pendulum()
    belief = {"velocity": torch.distributions.Normal(0.0, 3.0)}
    model = bwm.KnownDynamics(structure=structure, noise=0.1, sensor_noise={"angle": 0.01}, belief=belief)
    data = resting(structure.schema)
    for diagnostic in (stability, lambda parts: energy_residual(parts, lambda x: x[..., 0])):
        with pytest.raises(SpecError, match="forecasts of a state that is measured"):
            diagnostic(forecast(model, data, horizon=4, worlds=1))
    # its worlds go on from a state, which is all that a Jacobian needs
    seen, plain = (m.draw(1) for m in (model, bwm.KnownDynamics(structure=structure, noise=0.1)))
    state, action = data.states()[:, 0], data.action[:, 0]
    assert lipschitz(seen, state, action).equals(lipschitz(plain, state, action))


def test_the_same_seed_gives_the_same_answer_and_the_global_state_stays() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1)
    data = resting(model.schema)
    before = torch.get_rng_state()
    one, other = (stability(forecast(model, data, horizon=4), bootstrap=20, seed=5) for _ in range(2))
    assert one.identical(other)
    assert torch.equal(before, torch.get_rng_state())
