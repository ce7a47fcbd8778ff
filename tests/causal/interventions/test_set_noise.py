import pytest
import torch
from torch.distributions import Normal, Uniform

import bayeswm as bwm
from bayeswm.base import Gaussian, MultivariateGaussian
from bayeswm.causal.interventions.set_noise import SetNoise, settled, with_noise

MEAN = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)


def test_noise_is_set_or_shifted() -> None:
    law = Gaussian(MEAN, torch.tensor([0.5, 2.0], dtype=torch.float64))
    hard, soft = (bwm.do({"noise.y": value}).assignments[0] for value in (3.0, bwm.causal.shift(0.5)))
    found = with_noise(law, [hard], column=1, step=0)
    assert (found.mean.flatten().tolist(), found.spread.flatten().tolist()) == ([1.0, 5.0], [0.5, 0.0])
    found = with_noise(law, [soft], column=1, step=0)
    assert (found.mean.flatten().tolist(), found.spread.flatten().tolist()) == ([1.0, 0.0], [0.5, 2.0])
    assert law.mean.flatten().tolist() == [1.0, -1.0]


def test_correlated_noise_is_refused() -> None:
    (one,) = bwm.do({"noise.y": 0.0}).assignments
    with pytest.raises(bwm.SpecError, match="independent Gaussian noise"):
        with_noise(MultivariateGaussian(MEAN, torch.eye(2).double()), [one], column=1, step=0)


def test_a_normal_law_scales_the_noise() -> None:
    law = Gaussian(MEAN, torch.tensor([0.5, 2.0], dtype=torch.float64))
    todo = [bwm.do({"noise.y": value}).assignments[0] for value in (7.0, Normal(1.0, 3.0), bwm.causal.shift(0.5))]
    found = with_noise(law, todo, column=1, step=0)
    assert (found.mean.flatten().tolist(), found.spread.flatten().tolist()) == ([1.0, 2.0], [0.5, 6.0])


def test_a_law_that_is_not_normal_bends_it() -> None:
    todo = [bwm.do({"noise.y": value}).assignments[0] for value in (Uniform(0.0, 2.0), bwm.causal.shift(0.5))]
    found = SetNoise.of(((one, None) for one in todo), MEAN)
    assert found.bend is not None
    assert (found.offset.item(), found.bend(torch.zeros(1)).item()) == (0.5, 1.0)


def test_a_callable_becomes_its_value() -> None:
    state = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    (one,) = bwm.do({"noise.y": lambda state, step: state[..., 1] + step}).assignments
    found = settled(one, state, step=5, drawn=None)
    assert (found.hard, found.values(5).tolist()) == (True, [[7.0, 9.0]])
    with pytest.raises(bwm.SpecError, match="one step at a time"):
        settled(one, state, step=torch.arange(2), drawn=None)
    (wrong,) = bwm.do({"noise.y": lambda state, step: state}).assignments
    with pytest.raises(bwm.SpecError, match="one value for each state"):
        settled(wrong, state, step=0, drawn=None)
    (hard,) = bwm.do({"noise.y": 1.0}).assignments
    assert settled(hard, state, step=0, drawn=None) is hard
