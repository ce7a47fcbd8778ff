import warnings

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.base import Schema, Variable
from bayeswm.structures import Pendulum

SCALES = [
    (0.1, [0.1, 0.1], 2),
    ([0.1, 0.0], [0.1, 0.0], 1),
    ({"velocity": 0.2}, [0.0, 0.2], 1),
    (torch.tensor([0.5, 0.25]), [0.5, 0.25], 2),
    (torch.tensor(0.5), [0.5, 0.5], 2),
    (np.float32(0.5), [0.5, 0.5], 2),
    (np.array([0.5, 0.25]), [0.5, 0.25], 2),
    (1, [1.0, 1.0], 2),
    (None, [0.0, 0.0], 0),
]


@pytest.mark.parametrize(("noise", "expected", "size"), SCALES)
def test_ways_to_give_the_noise(noise: object, expected: list[float], size: int) -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=noise)
    drawn = model.draw(3)
    assert drawn.noise_size == size
    law = drawn.transition(drawn.start(torch.zeros(2)), torch.zeros(1, dtype=torch.float64))
    assert law.variance.sqrt()[0, 0].tolist() == pytest.approx(expected)


def test_noise_that_makes_no_sense() -> None:
    with pytest.raises(bwm.UnknownVariableError, match="did you mean 'velocity'"):
        bwm.KnownDynamics(structure=Pendulum(), noise={"velocty": 1.0})
    with pytest.raises(bwm.SpecError, match="2 noise scales"):
        bwm.KnownDynamics(structure=Pendulum(), noise=[0.1, 0.2, 0.3])
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(bwm.SpecError, match="noise scales >= 0"):
            bwm.KnownDynamics(structure=Pendulum(), noise=bad)


def test_a_known_system_is_one_exhaustive_world() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    drawn = model.draw(64)
    assert len(drawn) == 1
    assert drawn.exhaustive
    assert not model.uncertain
    r = bwm.rollout(model, torch.zeros(2), torch.ones(5, 1), generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(r.epistemic_variance.abs().max()) == 0
        torch.testing.assert_close(r.variance, r.aleatoric_variance)


def test_a_known_system_without_noise_needs_no_generator_and_is_certain() -> None:
    model = bwm.KnownDynamics(structure=Pendulum())
    r = bwm.rollout(model, torch.tensor([0.3, 0.0]), torch.zeros(5, 1), particles=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert float(r.variance.max()) == 0
        assert float(r.log_prob(r.mean)) == 0
        assert torch.equal(r.quantile(0.3), r.mean) or float((r.quantile(0.3) - r.mean).abs().max()) < 1e-14
    assert float(r.log_score(r.mean + 0.1).value) == float("-inf")


def test_an_uncertain_system_is_so_many_draws() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(damping=torch.distributions.Uniform(0.1, 0.3)))
    assert model.uncertain
    drawn = model.draw(20, generator=torch.Generator().manual_seed(0))
    assert len(drawn) == 20
    assert not drawn.exhaustive
    with pytest.raises(bwm.SpecError, match="'damping' is uncertain"):
        model.draw(20)
    with pytest.raises(bwm.SpecError, match="worlds >= 1"):
        model.draw(0)


def test_nothing_is_learned() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [0.1, 0.2]]], action=[[[0.0]]])
    assert model.fit(data) is model
    assert model.condition(data) is model
    wrong = bwm.Trajectories(
        Schema(state=[Variable("x")], time_step=0.05), state=[[[0.0], [0.1]]], action=torch.zeros(1, 1, 0)
    )
    with pytest.raises(bwm.SpecError, match="angle"):
        model.fit(wrong)
    uncertain = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.LogNormal(0.0, 1.0)))
    assert uncertain.condition(data, in_training=True) is uncertain
    with pytest.raises(bwm.SpecError, match="Bayesian model"):
        uncertain.condition(data)


def test_a_structure_that_learns_its_variables_is_refused() -> None:
    with pytest.raises(bwm.SpecError, match="with a schema"):
        bwm.KnownDynamics(structure=bwm.structures.MLP())
