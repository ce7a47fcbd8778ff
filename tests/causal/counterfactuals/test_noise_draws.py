import pytest
import torch

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel
from bayeswm.causal.counterfactuals.noise_belief import noise_belief
from bayeswm.causal.counterfactuals.noise_draws import noise_draws
from bayeswm.causal.counterfactuals.partly_seen import PartlySeen
from tests.causal.counterfactuals.test_partly_seen import walk

NAN = float("nan")


def squared(noise: float) -> StructuralModel:
    return StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: X * X, noise=noise)})


def seen(model: StructuralModel, y: float) -> PartlySeen:
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [NAN, y]]], allow_missing=True)
    return PartlySeen(model.draw(1), data)


@pytest.mark.statistical
def test_against_integration_on_a_grid(generator: torch.Generator) -> None:
    x = torch.linspace(-6, 6, 400_001, dtype=torch.float64)
    log = -0.5 * x.square() - 0.5 * ((1.5 - x.square()) / 0.3).square()
    weight = torch.softmax(log, 0)
    step = float(x[1] - x[0])
    density = log.logsumexp(0) - torch.tensor(2 * torch.pi * 0.3).log() + torch.tensor(step).log()
    found = noise_draws(seen(squared(0.3), 1.5), 2000, generator=generator)
    assert noise_belief(seen(squared(0.3), 1.5)) is None
    for power in (1, 2):
        value = found.noise[0, :, 0, 0, 0].pow(power)
        mean = float(weight @ x.pow(power))
        sd = float(weight @ (x.pow(power) - mean).square()) ** 0.5
        assert abs(float(value.mean()) - mean) / sd < 4.5 / min(found.size, 2000.0) ** 0.5
    # the weights of n draws: relative error sqrt(n / size) / sqrt(n)
    assert abs(float(found.log_density) - float(density)) < 4.5 / found.size**0.5
    torch.testing.assert_close(found.noise[..., 1], (1.5 - found.noise[..., 0].square()) / 0.3)


@pytest.mark.statistical
def test_a_smoother_over_time_agrees_with_the_closed_form(generator: torch.Generator) -> None:
    states = [[[1.0, 0.0], [NAN, 3.0], [NAN, 2.0], [0.5, NAN], [NAN, -1.0]]]
    data = bwm.Trajectories(walk().schema, state=states, action=torch.zeros(1, 4, 1).double(), allow_missing=True)
    partly = PartlySeen(walk().draw(1), data)
    exact, found = noise_belief(partly), noise_draws(partly, 1000, generator=generator)
    assert exact is not None
    assert found.size > 100
    covariance = exact.root[0, 0] @ exact.root[0, 0].mT
    for i, (t, coordinate) in enumerate(partly.free):
        z = (found.noise[0, :, 0, t, coordinate].mean() - exact.mean[0, 0, i]) / covariance[i, i].sqrt()
        assert abs(float(z)) < 4.5 / min(found.size, 1000.0) ** 0.5
    assert abs(float(found.log_density - exact.log_density)) < 4.5 / found.size**0.5


def test_what_draws_cannot_find_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(bwm.FitError, match="draws of the missing noise"):
        noise_draws(seen(squared(1e-4), 9.0), 10, generator=generator)
    with pytest.raises(bwm.NotInvertible, match="got one without"):
        noise_draws(seen(squared(0.0), 1.0), 10, generator=generator)
