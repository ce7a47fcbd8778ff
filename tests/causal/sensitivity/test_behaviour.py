import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.causal import LinearBehaviour, fit_behaviour
from tests.causal.confounded_logs import confounded_log
from tests.causal.reference_models import line


def test_the_law_of_a_log_is_found(generator: torch.Generator) -> None:
    """a = -0.3 s + e + nu: slope -0.3, residual variance 2."""
    log = confounded_log(500, 20, generator=generator)
    found = fit_behaviour(log)
    rows = log.transitions()
    # standard error of the slope: sqrt(2 / sum s^2)
    assert abs(float(found.coefficients[1, 0]) + 0.3) < 4.5 * math.sqrt(2 / float(rows.state.square().sum()))
    assert abs(float(found.covariance) - 2) < 4.5 * 2 * math.sqrt(2 / 10_000)
    law = found(torch.tensor([[2.0]], dtype=torch.float64), 0)
    assert law.mean.item() == pytest.approx(found.coefficients[0].item() + 2 * found.coefficients[1].item())
    assert law.variance.item() == pytest.approx(found.covariance.item())
    assert "residual sd [1.4" in repr(found)


def test_an_action_is_standardised_given_the_others() -> None:
    """Residuals e of covariance S: the first given the second has mean S12 / S22 e2 and variance S11 - S12^2 / S22."""
    schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a"), bwm.Variable("b")], time_step=1.0)
    covariance = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)
    behaviour = LinearBehaviour(schema, torch.tensor([[0.0, 1.0], [0.5, 0.0]], dtype=torch.float64), covariance)
    action, state = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 3.0], [2.0]))
    off = behaviour.standardised(action, state, None, column=0)
    e1, e2 = 1.0 - 1.0, 3.0 - 1.0
    assert off.item() == pytest.approx((e1 - 0.6 * e2) / math.sqrt(2 - 0.36))


def test_context_and_angles_are_features(generator: torch.Generator) -> None:
    schema = bwm.Schema(
        state=[bwm.Variable("angle", kind="angle")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("c"), bwm.Variable("wind", kind="angle")],
        time_step=1.0,
    )
    angle = 6 * torch.rand(40, 2, 1, generator=generator, dtype=torch.float64) - 3
    c = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    noise = 0.01 * torch.randn(40, 1, 1, generator=generator, dtype=torch.float64)
    wind = 6 * torch.rand(40, 1, generator=generator, dtype=torch.float64) - 3
    action = 1 + 2 * angle[:, :1].sin() - c[:, None] + 3 * wind[:, None].cos() + noise
    found = fit_behaviour(bwm.Trajectories(schema, state=angle, action=action, context=torch.cat((c, wind), -1)))
    state, context = ([0.5 + 2 * math.pi], [0.3, 1.0 - 2 * math.pi])
    at = found.mean(*(torch.tensor(v, dtype=torch.float64) for v in (state, context)))
    assert at.item() == pytest.approx(1 + 2 * math.sin(0.5) - 0.3 + 3 * math.cos(1.0), abs=0.02)
    with pytest.raises(SpecError, match="expected context"):
        found.mean(torch.zeros(1))


def test_actions_that_follow_from_the_state_are_refused(generator: torch.Generator) -> None:
    s = torch.randn(30, 3, 1, generator=generator, dtype=torch.float64)
    with pytest.raises(DataError, match="exploration noise"):
        fit_behaviour(bwm.Trajectories(line(), state=s, action=-0.3 * s[:, :-1]))
    with pytest.raises(DataError, match="exploration noise"):
        fit_behaviour(bwm.Trajectories(line(), state=s, action=torch.ones(30, 2, 1)))
    with pytest.raises(DataError, match="more than 3"):
        fit_behaviour(bwm.Trajectories(line(), state=s[:1], action=s[:1, :-1]))
    free = bwm.Schema(state=[bwm.Variable("s")], time_step=1.0)
    with pytest.raises(SpecError, match="with actions"):
        fit_behaviour(bwm.Trajectories(free, state=s))


def test_what_is_no_recorded_data_is_refused() -> None:
    with pytest.raises(SpecError, match="expected Trajectories, got int; make them by"):
        fit_behaviour(3)  # pyright: ignore[reportArgumentType]
