"""Worlds around other worlds pass on all that they do not change."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.wrapped import WrappedWorlds


class Same(WrappedWorlds):
    def _around(self, inner):
        return Same(inner)


def process():
    g = torch.Generator().manual_seed(0)
    schema = bwm.structures.Pendulum().schema
    state = torch.randn(2, 9, 2, generator=g, dtype=torch.float64).cumsum(1)
    data = bwm.Trajectories(schema, state=state, action=torch.randn(2, 8, 1, generator=g, dtype=torch.float64))
    return bwm.GaussianProcess(restarts=1, features=16).fit(data, progress=False).draw(3, generator=g)


def test_a_rollout_is_that_of_the_worlds_inside():
    worlds, start = process(), torch.zeros(2, dtype=torch.float64)
    noise = torch.randn(3, 2, 4, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = (
        bwm.rollout(w, start, torch.zeros(4, 1), particles=2, noise=bwm.Noise(step=noise)).particles
        for w in (worlds, Same(worlds))
    )
    assert torch.equal(one, other)


def test_another_number_format_is_that_of_all_that_is_inside():
    # functions of a process hold more than their parameters
    small = Same(process()).to(torch.float32)
    law = small.transition(small.start(torch.zeros(2)), torch.zeros(1))
    assert (small.dtype, law.mean.dtype) == (torch.float32, torch.float32)


def test_forecasts_are_mapped_where_the_worlds_inside_do_or_a_leaf_does():
    class Mapped(Same):
        def finish(self, predictive):
            return predictive

    worlds = process()
    assert not worlds.maps_forecasts
    assert not Same(worlds).maps_forecasts
    assert Mapped(worlds).maps_forecasts
    assert Same(Mapped(worlds)).maps_forecasts


def test_parts_and_weights_are_those_of_the_worlds_inside():
    worlds = Same(process())
    part = worlds[:2].reweight(torch.tensor([0.0, 1.0]))
    assert isinstance(part, Same)
    assert torch.equal(part.inner.log_weight, part.log_weight)
    assert len(part.inner) == 2


def test_what_does_not_say_what_actions_do_is_passed_on():
    worlds = process()
    worlds.check_actionable()
    worlds.confounded = "a cause was not recorded"
    assert Same(worlds).confounded == "a cause was not recorded"
    with pytest.raises(bwm.ConfoundedError, match="a cause was not recorded"):
        Same(worlds).check_actionable()


def test_how_episodes_began_is_what_the_worlds_inside_say():
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1, sensor_noise=0.2).draw(1)
    data = bwm.Trajectories(worlds.schema, state=torch.ones(2, 3, 2), action=torch.zeros(2, 2, 1))
    assert torch.equal(Same(worlds).beginning(data).mean, worlds.beginning(data).mean)
