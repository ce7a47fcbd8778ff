"""First stages: by least squares, and what other first stages would have made of the same log."""

import pytest
import torch

from bayeswm.base import FitError, SpecError
from bayeswm.causal.confounding.first_stage import (
    Rows,
    errors_of,
    instrument_control,
    instrument_stage,
    proxy_control,
    proxy_stage,
    strength,
)
from bayeswm.causal.confounding.regression import LinearMap

N = 4000


def rows(instruments: int = 1, actions: int = 1) -> Rows:
    g = torch.Generator().manual_seed(0)
    s, e = torch.randn(2, N, 1, generator=g, dtype=torch.float64)
    nu = torch.randn(N, instruments, generator=g, dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.3], [-0.5, 0.8]], dtype=torch.float64)[:actions, :instruments]
    a = -0.3 * s + e + nu @ weight.mT
    return Rows(torch.cat((torch.ones(N, 1, dtype=torch.float64), s), -1), a, nu)


@pytest.mark.parametrize(("instruments", "actions"), [(1, 1), (2, 2)])
def test_another_first_stage_is_another_reading_of_the_same_step(instruments, actions):
    """What instrument_control gives is the residual that was learned with, whatever first stage a world has."""
    data = rows(instruments, actions)
    index = list(range(actions))
    stage = instrument_stage(data, index)
    drawn = stage.regression.draw(3, generator=torch.Generator().manual_seed(1))
    shifted = LinearMap(drawn.weight + 0.1 * torch.randn_like(drawn.weight), drawn.root)
    both = torch.cat((data.phi, data.recorded), -1)
    learned = data.action - both @ stage.regression.centre().weight[0].mT
    control = instrument_control(stage, shifted, index, actions=actions)
    for w in range(3):
        there = data.action - both @ shifted.weight[w].mT
        given = torch.cat((there, data.phi, data.action), -1)
        torch.testing.assert_close(given @ control[w].mT, learned, rtol=1e-6, atol=1e-6)


def test_more_instruments_than_actions_to_first_order():
    """Exactly it cannot be: the error is of the order of the change times what the instruments have of their own."""
    data = rows(instruments=2)
    stage = instrument_stage(data, [0])
    drawn = stage.regression.draw(50, generator=torch.Generator().manual_seed(1))
    both = torch.cat((data.phi, data.recorded), -1)
    control = instrument_control(stage, drawn, [0], actions=1)
    learned = data.action - both @ stage.regression.centre().weight[0].mT
    there = data.action - both @ drawn.weight.mT
    given = torch.cat((there, data.phi.expand(50, -1, -1), data.action.expand(50, -1, -1)), -1)
    off = given @ control.mT - learned
    assert float((off * data.action).mean(1).abs().max()) < 0.1 * float(
        ((there - learned) * data.action).mean(1).abs().max()
    )


def test_control_of_measurements():
    data = rows()
    g = torch.Generator().manual_seed(2)
    cause = data.action + 0.3 * data.phi[:, 1:] - data.recorded
    proxies = cause + torch.tensor([0.5, 0.8]) * torch.randn(N, 2, generator=g, dtype=torch.float64)
    measured = data._replace(recorded=proxies)
    for errors in (torch.tensor([0.5, 0.8]).double(), None):
        stage = proxy_stage(measured, errors)
        drawn = stage.regression.draw(2, generator=g)
        control = proxy_control(stage, drawn, errors)
        mean = proxies @ stage.weights.mT
        everything = torch.cat((data.phi, data.action, mean), -1)
        learned = everything @ stage.control.mT
        for w in range(2):
            one = LinearMap(drawn.weight[w : w + 1], drawn.root[w : w + 1])
            there = everything @ _conditional_mean(one, stage.weights, errors).mT
            given = torch.cat((there, data.phi, data.action), -1)
            torch.testing.assert_close(given @ control[w].mT, learned, rtol=1e-6, atol=1e-6)


def _conditional_mean(law: LinearMap, weights, errors):
    """E[cause | features, action, mean measurement] as a row, by the joint covariance written out."""
    own = law.covariance[0, :2, :2]
    w = weights[0]
    cause = w @ own @ w - (w.square() * errors.square()).sum() if errors is not None else own[0, 1]
    pick = torch.block_diag(weights, torch.eye(1).double())
    covariance, mean = pick @ law.covariance[0] @ pick.mT, pick @ law.weight[0]
    gain = torch.linalg.solve(covariance, torch.stack((cause, covariance[0, 1])))
    return torch.cat((mean[0] - gain @ mean, gain[1:], gain[:1]))[None]


def test_strength_is_the_partial_f():
    data = rows()
    (f,) = strength(data, [0])
    # nu has as much variance as e: F is near N var(nu) / var(e)
    assert 0.85 * N < f < 1.15 * N
    noise = data._replace(recorded=torch.randn(N, 1, generator=torch.Generator().manual_seed(3)).double())
    assert strength(noise, [0])[0] < 15


def test_measurements_that_make_no_sense():
    data = rows()
    with pytest.raises(FitError, match="proxy_error"):
        proxy_stage(data._replace(recorded=data.action), torch.tensor([5.0]).double())
    with pytest.raises(SpecError, match="proxy_error"):
        errors_of(None, ("z",))
    with pytest.raises(SpecError, match="each of"):
        errors_of({"z": 0.5}, ("z", "y"))
    assert errors_of({"z": 0.5, "y": 1.0}, ("z", "y")).tolist() == [0.5, 1.0]
    assert errors_of(None, ("z", "y")) is None
