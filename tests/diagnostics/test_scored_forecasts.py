"""Scores of forecasts as labelled data: exact numbers, worlds, particles that diverged, missing values."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Variables
from bayeswm.diagnostics import (
    energy_score,
    forecast,
    forecast_of,
    interval_score,
    log_score_gaussian,
    pinball_loss,
    scores,
    variogram_score,
)
from bayeswm.diagnostics.scored_forecasts import joint_scores, marginal_scores
from tests.diagnostics.recordings import NOISE, Linear
from tests.diagnostics.test_univariate_scores import normal, one
from tests.models import sensed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.statistical
def test_expected_scores_of_the_exact_model_are_those_of_its_gaussians(linear: Linear) -> None:
    """Scores of an exact Gaussian forecast: CRPS s / sqrt(pi), log density -0.5 log(2 pi e s^2), 0.5 log s^2 + 1."""
    found = scores(forecast(linear.truth, linear.data[:150], horizon=4, particles=250), levels=(0.9,), bootstrap=400)
    variance = linear.variance(4).numpy()
    z = stats.norm.ppf(0.95)
    for name, exact in (
        ("crps", np.sqrt(variance / math.pi)),
        ("log_score", -0.5 * np.log(2 * math.pi * math.e * variance)),
        ("dawid_sebastiani", np.log(variance) + 1),
        ("interval_score", (4 / 0.1 * stats.norm.pdf(z) * np.sqrt(variance))[..., None]),
        ("joint_log_score", -0.5 * np.log(2 * math.pi * math.e * np.array(NOISE) ** 2).sum()),
    ):
        # the first step is exact; the later ones rest on 250 particles, whose share of the error is 1 / 250
        steps = slice(0, 1 if name == "joint_log_score" else None)
        values, se = (found[n].values[steps] for n in (name, f"{name}_se"))
        assert (2 * stats.norm.sf(np.abs(values - exact) / (1.1 * se))).min() > 1e-5, name


def test_single_scores_are_those_of_the_tensor_functions(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:20], horizon=3)
    p, y = part.predictive, part.outcomes
    found = marginal_scores(part, levels=(0.5, 0.9))
    low, high = p.interval(0.9)
    assert torch.allclose(found["interval_score"][..., 1], interval_score(low, high, y, level=0.9), atol=1e-3)
    tau = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()
    loss = torch.stack([pinball_loss(p.quantile(float(t)), y, probability=float(t)) for t in tau], -1)
    assert torch.allclose(found["pinball"], loss, atol=1e-5)
    assert torch.allclose(found["weighted_interval_score"], 2 * found["pinball"].mean(-1), rtol=1e-9)
    exact = log_score_gaussian(p.mean[:, 0], p.stddev[:, 0], y[:, 0])
    assert torch.allclose(found["log_score"][:, 0], exact, rtol=1e-9)
    x, scale = p.particles.flatten(0, 1), torch.tensor([2.0, 0.5]).double()
    joint = joint_scores(part, scale=scale, generator=generator())
    assert torch.allclose(joint["energy_score"], energy_score(x / scale, y / scale), rtol=1e-9)
    assert torch.allclose(joint["variogram_score"], variogram_score(x / scale, y / scale), rtol=1e-9)
    whole = energy_score((x / scale).flatten(-2), (y / scale).flatten(-2))
    assert torch.allclose(joint["trajectory_energy_score"], whole, rtol=1e-9)
    assert torch.allclose(joint["joint_log_score"][:, 0], exact.sum(-1), rtol=1e-9)
    assert torch.allclose(joint["trajectory_log_score"], p.log_score(y).value, rtol=1e-12)


def test_energy_of_one_variable_is_its_crps_where_particles_make_both() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    structure = bwm.structures.FromFunction(lambda x, u: 0.9 * x, schema=schema)
    model = bwm.KnownDynamics(structure=structure, noise=0.5)
    p = bwm.rollout(model, torch.zeros(7, 1), torch.zeros(7, 3, 0), generator=generator())
    part = forecast_of(p, normal(7, 3, 1))
    joint = joint_scores(part, scale=torch.ones(1), generator=generator())
    marginal = marginal_scores(part, levels=(0.9,))
    assert torch.allclose(joint["energy_score"][:, 1:], marginal["crps"][:, 1:, 0], rtol=1e-9)
    assert torch.allclose(joint["joint_log_score"], marginal["log_score"][..., 0], rtol=1e-9)
    assert bool((joint["variogram_score"] == 0).all())


def test_diverged_particles_do_not_count() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=1.0)
    structure = bwm.structures.FromFunction(lambda x, u: 1e30 * (x - 1).clamp(min=0) ** 2 + 0.5, schema=schema)
    model = bwm.KnownDynamics(structure=structure, noise=0.5)
    with pytest.warns(bwm.DivergenceWarning):
        p = bwm.rollout(model, torch.zeros(1, 2), torch.zeros(1, 4, 0), particles=80, generator=generator())
    alive = ~p.diverged[0, :, 0, -1]
    assert 2 < int(alive.sum()) < 80
    y = torch.full((1, 4, 2), 0.3, dtype=torch.float64)
    found = joint_scores(forecast_of(p, y), scale=torch.ones(2), generator=generator())
    x = p.particles[0, alive]
    assert torch.allclose(found["energy_score"][:, -1], energy_score(x[:, :, -1], y[:, -1]), rtol=1e-9)
    assert torch.allclose(found["variogram_score"][:, -1], variogram_score(x[:, :, -1], y[:, -1]), rtol=1e-9)


def test_weights_of_worlds_count_and_fresh_worlds_are_one_pool() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law, length=0.5), noise=0.1)
    options = {"worlds": 4, "particles": 3, "generator": generator()}
    p = bwm.rollout(model, torch.ones(1, 2), torch.zeros(1, 3, 1), fresh_worlds=True, **options)
    y = torch.ones(1, 3, 2).double()
    found = joint_scores(forecast_of(p, y), scale=torch.ones(2), generator=generator())
    pool = p.particles.flatten(0, 1).double()
    assert torch.allclose(found["energy_score"][:, 1:].double(), energy_score(pool, y)[:, 1:], rtol=1e-5)


def test_a_single_step_without_particles_is_sampled() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=1.0)
    p = model.predictive(torch.zeros(300, 2).double(), torch.zeros(300, 1))
    y = p.sample(1, generator=generator(5))[0]
    found = scores(forecast_of(p, y), scale=torch.ones(2), bootstrap=200)
    # a calibrated N(0, I) has the energy score 0.886227
    assert abs(float(found.energy_score[0]) - 0.886227) < 5 * float(found.energy_score_se[0])


def test_missing_outcomes_count_in_no_score_that_needs_them(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:20], horizon=3)
    gaps = part.outcomes.clone()
    gaps[3, 1, 0] = float("nan")
    holed = forecast_of(part.predictive, gaps, recording=part.recording)
    whole = part._replace(windows=None)
    found, full = (
        marginal_scores(f, levels=(0.5, 0.9)) | joint_scores(f, scale=torch.ones(2), generator=generator())
        for f in (holed, whole)
    )
    for name, values in found.items():
        where = {1: (3,), 2: (3, 1), 3: (3, 1, 0), 4: (3, 1, 0)}[values.ndim]
        assert bool(values[where].isnan().all()), name
        kept = torch.ones_like(values, dtype=torch.bool)
        kept[where] = False
        assert torch.allclose(values[kept], full[name][kept], equal_nan=True), name
    assert bool(np.isfinite(scores(holed, bootstrap=50).energy_score).all())


def test_scale_is_the_spread_of_the_outcomes_by_default_and_said(linear: Linear) -> None:
    parts = list(forecast(linear.truth, linear.data[:30], horizon=3))
    found = scores(parts, bootstrap=50)
    spread = parts[0].outcomes.flatten(0, 1).std(0, correction=0)
    assert np.allclose(found.scale, spread)
    assert np.allclose(scores(parts, scale=spread, bootstrap=50).energy_score, found.energy_score)
    with pytest.raises(bwm.SpecError, match="positive, finite scale"):
        scores(parts, scale=torch.tensor([1.0, 0.0]))
    with pytest.raises(bwm.SpecError, match="levels between 0 and 1"):
        scores(parts, levels=[90])
    with pytest.raises(bwm.DataError, match="at least one forecast"):
        scores([])


def test_parts_change_nothing(linear: Linear) -> None:
    (part,) = forecast(linear.truth, linear.data[:24], horizon=3)
    halves = [
        forecast_of(part.predictive[rows], part.outcomes[rows], recording=part.recording[rows])
        for rows in (slice(0, 20), slice(20, None))
    ]
    scale = torch.tensor([1.0, 2.0]).double()
    one_by_one, together = (scores(f, scale=scale, bootstrap=50) for f in (halves, part))
    for name in together.data_vars:
        assert np.allclose(one_by_one[name], together[name], rtol=1e-9), name


def test_hidden_states_have_no_score_of_trajectories() -> None:
    data, model = sensed.record(episodes=20, steps=12, seed=3), sensed.model()
    found = scores(forecast(model, data, horizon=4), bootstrap=50)
    assert "trajectory_log_score" not in found
    assert bool(np.isfinite(found.trajectory_energy_score))
    assert found.attrs["windows"] == 60


def test_point_predictions_and_outcomes_without_spread_are_defined() -> None:
    law = Gaussian(torch.zeros(1, 1, 6, 1).double())
    variables = Variables([bwm.Variable("x")])
    p = bwm.Predictive(variables, [law], one(0)[None], exhaustive=True, time_step=1.0)
    found = scores(forecast_of(p, torch.full((6, 1, 1), 2.0).double()), bootstrap=50)
    for name in ("crps", "energy_score", "weighted_interval_score"):  # two medians' distance, at every level
        expected = 2 * (0.5 + 4) / 4.5
        assert found[name].item() == pytest.approx(expected), name
    assert found.scale.item() == 1
