"""Data sets simulated from forecasts: the level is right on models with particles, also where one world made all."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import calibration_of, calibration_of_parts, forecast, forecast_of
from bayeswm.diagnostics.calibration_test import independent_test, sums_of_scores
from bayeswm.diagnostics.joint_null import JointNull, rank_scores
from bayeswm.structures import FromFunction
from tests.diagnostics.recordings import Linear as System
from tests.diagnostics.recordings import record

F64 = torch.float64


def p_value(parts: object) -> float:
    null = JointNull(seed=0)
    for part in parts:
        null.add(part)
    return float(null.result().p_value)


def test_calibration_carries_the_test(linear: System) -> None:
    right, wrong = (
        calibration_of_parts(forecast(linear.model(share), linear.data[:60], horizon=6)) for share in (1.0, 0.6)
    )
    assert right.attrs["calibration_p_value"] > 1e-3
    assert wrong.attrs["calibration_p_value"] == 0.001
    assert wrong.attrs["calibration_windows"] == 60
    assert wrong.calibration_p.dims == ("horizon", "variable")
    assert wrong.attrs["calibration_statistic"] == pytest.approx(wrong.calibration_statistic.sum().item())
    one_step = linear.truth.predictive(torch.zeros(40, 2), torch.zeros(40, 1))
    g = torch.Generator().manual_seed(0)
    came = one_step.sample(1, generator=g)[0]
    found = calibration_of(one_step, came)
    assert "Cauchy" in found.attrs["calibration_test"]
    assert found.attrs["calibration_p_value"] > 1e-3
    assert calibration_of(one_step, 3 * came).attrs["calibration_p_value"] < 1e-5


@pytest.mark.statistical
def test_the_level_is_right_with_few_particles(linear: System) -> None:
    """Exactly so: what came and the particles are exchangeable, however few they are."""
    g, times = torch.Generator().manual_seed(0), 150
    start, action = torch.zeros(15, 2, dtype=F64), torch.zeros(15, 6, 1, dtype=F64)
    p = list[float]()
    for _ in range(times):
        made = bwm.rollout(linear.truth, start, action, particles=25, generator=g)
        came = bwm.rollout(linear.truth, start, action, particles=1, generator=g).particles[0, 0]
        p.append(p_value([forecast_of(made, came)]))
    share = sum(v <= 0.2 for v in p) / times
    assert share == pytest.approx(0.2, abs=4.3 * math.sqrt(0.2 * 0.8 / times))


@pytest.mark.statistical
def test_windows_that_share_one_uncertain_world_do_not_reject() -> None:
    """A drift is unknown, and as large as the noise: independent windows would reject most of the time."""
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[], time_step=1.0)
    g, times = torch.Generator().manual_seed(1), 100
    start = torch.zeros(30, 1, dtype=F64)
    shared, apart = list[float](), list[float]()
    for _ in range(times):
        drift = torch.randn(65, generator=g, dtype=F64)
        noise = torch.randn(65, 4, 30, 5, 1, generator=g, dtype=F64)
        paths = (drift.view(-1, 1, 1, 1, 1) + noise).cumsum(-2)
        laws = [
            bwm.base.laws.Gaussian(
                (paths[:64, :, :, h - 1] if h else 0 * paths[:64, :, :, 0]) + drift[:64].view(-1, 1, 1, 1),
                torch.ones(1, dtype=F64),
            )
            for h in range(5)
        ]
        made = bwm.Predictive(
            schema.state,
            laws,
            torch.full((64,), 1 / 64, dtype=F64).log(),
            exhaustive=False,
            time_step=1.0,
            particles=paths[:64].movedim(-2, 0),
            initial=start,
        )
        one = forecast_of(made, paths[64, 0])
        shared.append(p_value([one]))
        apart.append(float(independent_test(sums_of_scores(rank_scores(*one[:2])[0], dim=0)).p_value))
    size = sum(v <= 0.1 for v in shared) / times
    assert size == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / times))
    assert sum(v <= 0.1 for v in apart) / times > 0.5


def test_ranks_by_hand() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[], time_step=1.0)
    values = torch.tensor([1.0, 2.0, 3.0], dtype=F64).view(1, 1, 3, 1, 1)
    made = bwm.Predictive(
        schema.state,
        [bwm.base.laws.Gaussian(values[0], torch.ones(1, dtype=F64))],
        torch.zeros(1, dtype=F64),
        exhaustive=True,
        time_step=1.0,
        particles=values,
    )
    came, drawn = (torch.special.ndtr(v).flatten() for v in rank_scores(made, torch.tensor([[[2.5]]])))
    assert came.tolist() == pytest.approx([2.5 / 4])
    assert drawn.tolist() == pytest.approx([0.5 / 4, 1.5 / 4, 3.5 / 4])
    tied = rank_scores(made, torch.tensor([[[2.0]]]))
    assert torch.special.ndtr(tied[0]).item() == pytest.approx(2 / 4)
    assert torch.special.ndtr(tied[1]).flatten().tolist() == pytest.approx([0.5 / 4, 2 / 4, 3.5 / 4])


def test_overlapping_windows_count_once(linear: System) -> None:
    long = record(linear.truth, episodes=6, steps=20, seed=3)
    null = JointNull(seed=0)
    for part in forecast(linear.truth, long, horizon=5, stride=1, chunk=7):
        null.add(part)
    assert null.windows == 6 * 4
    (part,) = forecast(linear.truth, long, horizon=5)
    alone = JointNull(seed=0)
    alone.add(forecast_of(part.predictive, part.outcomes, recording=part.recording))
    assert alone.windows == 6


def test_a_system_without_noise_met_by_its_data_is_not_rejected() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: 0.9 * x, schema=schema, name="decay"), noise=0.0)
    start = torch.randn(8, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    made = bwm.rollout(model, start, horizon=4, particles=20)
    assert p_value([forecast_of(made, made.mean * (1 + 1e-13))]) == 1.0
    assert p_value([forecast_of(made, made.mean + 0.1)]) == 0.001


def test_other_worlds_are_refused(linear: System) -> None:
    g = torch.Generator().manual_seed(0)
    parts = []
    for weight in ([0.5, 0.5], [0.2, 0.8]):
        worlds = linear.truth.draw(1, generator=g)[torch.tensor([0, 0])]
        made = bwm.rollout(worlds, torch.zeros(3, 2), torch.zeros(3, 2, 1), particles=9, generator=g)
        made.log_weight = torch.tensor(weight, dtype=made.log_weight.dtype).log()
        parts.append(forecast_of(made, made.mean, recording=torch.arange(3) + 3 * len(parts)))
    with pytest.raises(bwm.DataError, match="one and the same worlds"):
        p_value(parts)
