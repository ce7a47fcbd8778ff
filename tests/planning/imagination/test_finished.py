"""Planners see what a recalibrated model answers, as rollouts do."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import Isotonic, Recalibration, Scale, recalibrate
from bayeswm.planning import CEM, ChanceConstraint, GaussianTightening, HalfSpaces, Mean, Objective, Problem
from bayeswm.planning.imagination.finished import finished
from bayeswm.planning.limits import Limits
from tests.planning.walls import START, STEPS, TRUTH, WALL


@pytest.fixture(scope="module")
def data() -> bwm.Trajectories:
    """Recordings of the truth under random pushes."""
    g = torch.Generator().manual_seed(0)
    starts, actions = torch.zeros(300, 2).double(), 0.5 * torch.randn(300, STEPS, 1, generator=g, dtype=torch.float64)
    paths = bwm.rollout(TRUTH, starts, actions.clamp(-1, 1), particles=1, generator=g).particles[0, 0]
    states = torch.cat((starts[:, None], paths), 1)
    return bwm.Trajectories(TRUTH.schema, state=states, action=actions.clamp(-1, 1))


def overconfident() -> bwm.KnownDynamics:
    """A model that believes in half of the noise."""
    return bwm.KnownDynamics(structure=TRUTH.structure, noise={"place": 0.015, "velocity": 0.03}, dtype=torch.float64)


@pytest.mark.parametrize("method", [Scale(), Isotonic()])
def test_imagined_trajectories_are_those_of_a_rollout(data: bwm.Trajectories, method: Recalibration) -> None:
    model = recalibrate(overconfident(), data, horizon=STEPS, method=method)
    worlds = model.draw(1)
    g = torch.Generator().manual_seed(0)
    problem = Problem(
        Objective(terminal=lambda x, c: x[..., 0]),
        worlds,
        START.expand(3, 2),
        horizon=STEPS,
        particles=50,
        risk=Mean(),
        limits=Limits.of(TRUTH.schema, like=torch.empty(1).double()),
        generator=g,
    )
    tried = 0.3 * torch.randn(4, 3, STEPS, 1, generator=g, dtype=torch.float64)
    states = problem.trajectories(tried)
    assert worlds.maps_forecasts
    for one, found in zip(tried, states.unbind(2), strict=True):
        torch.testing.assert_close(found[..., 1:, :], problem.predictive(one).particles)
    torch.testing.assert_close(states[..., 0, :], START.expand_as(states[..., 0, :]))


@pytest.mark.statistical
@pytest.mark.parametrize("method", [Scale(), Isotonic()])
def test_a_recalibrated_model_keeps_its_distance_from_the_wall(data: bwm.Trajectories, method: Recalibration) -> None:
    """The model believes in half of the noise and breaks the constraint far too often in truth; mapped it does not."""
    g = torch.Generator().manual_seed(0)
    objective = Objective(terminal=lambda x, c: (x[..., 0] - 2.0) ** 2)
    planner = CEM(objective, horizon=3, worlds=1, particles=500, samples=64, elites=8, iterations=12,
                  constraints=[ChanceConstraint(WALL, by=GaussianTightening())])  # fmt: skip
    rates: list[float] = []
    for model in (overconfident(), recalibrate(overconfident(), data, horizon=3, method=method)):
        plan = planner.plan(model, START, generator=g)
        rates.append(float(plan.violation(generator=g, particles=20_000, worlds=TRUTH.draw(1))[0].by_step.value[-1]))
    assert rates[0] > 0.15  # ndtr(-1.645 / 2) = 0.205
    # the scale of 300 recordings has an error of 4 %, which is 0.7 % in the probability, 500 particles another 0.7 %
    assert rates[1] < 0.05 + 4.42 * 0.0099


def test_beyond_the_steps_of_the_fit_a_planner_is_refused(data: bwm.Trajectories) -> None:
    model = recalibrate(overconfident(), data, horizon=2, method=Scale())
    planner = CEM(Objective(terminal=lambda x, c: x[..., 0]), horizon=3, particles=10)
    with pytest.raises(bwm.SpecError, match="at most the 2 steps"):
        planner.plan(model, START, generator=torch.Generator().manual_seed(0))


def test_what_diverged_stays_diverged(data: bwm.Trajectories) -> None:
    worlds = recalibrate(overconfident(), data, horizon=2, method=Scale()).draw(1)
    states = torch.randn(1, 20, 2, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    laws = [bwm.Gaussian(states[..., t, :]) for t in (1, 2)]
    whole = finished(worlds, laws, states, fresh_worlds=False)
    states[0, 3, 1, 2] = float("inf")
    laws = [bwm.Gaussian(states[..., t, :]) for t in (1, 2)]
    found = finished(worlds, laws, states, fresh_worlds=False)
    assert bool(found[0, 3, 1, 2].isinf().all())
    assert bool(found[:, [i for i in range(20) if i != 3]].isfinite().all())
    torch.testing.assert_close(found[:, :, 0], whole[:, :, 0])


def test_bounds_on_a_recalibrated_model_are_those_of_its_own_variables() -> None:
    assert HalfSpaces.between(TRUTH.schema, {"place": (None, 1.0)}).columns == WALL.columns
