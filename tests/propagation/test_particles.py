"""Particles against the exact moments of linear worlds, with a p-value; fixed and fresh."""

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import UndefinedWarning
from bayeswm.propagation import FixedWorlds, FreshWorlds
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import generator, normal
from tests.statistical.checks import BUDGET, mean_p


@pytest.mark.statistical
@pytest.mark.parametrize("method", [FixedWorlds(40), FreshWorlds(40)], ids=repr)
def test_particles_have_the_exact_moments(method: FixedWorlds | FreshWorlds) -> None:
    """Forty independent runs each, whose means over particles are independent numbers of the right expectation."""
    worlds = lin.linear_worlds(3).reweight(torch.zeros(3))
    belief, actions = lin.start(batch=1), normal(1, 8, 1)
    fixed = isinstance(method, FixedWorlds)
    exact = (lin.in_each_world if fixed else lin.pooled)(worlds, *lin.as_belief(belief), actions)
    means, squares = list[Tensor](), list[Tensor]()
    for seed in range(40):
        paths = bwm.propagate(worlds, belief, actions, method=method, generator=generator(seed)).particles
        means.append(paths.mean((0, 1)))
        squares.append(lin.outer(paths - exact.mean).mean((0, 1)))
    assert mean_p(torch.stack(means), exact.mean) > BUDGET
    assert mean_p(torch.stack(squares), exact.covariance) > BUDGET


def test_fixed_worlds_are_a_rollout() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=torch.distributions.LogNormal(0, 0.1)), noise=0.1)
    for fresh, method in ((False, FixedWorlds(7)), (True, FreshWorlds(7))):
        one = bwm.propagate(model, torch.ones(2), torch.zeros(5, 1), method=method, worlds=4, generator=generator())
        other = bwm.rollout(
            model, torch.ones(2), torch.zeros(5, 1), worlds=4, particles=7, fresh_worlds=fresh, generator=generator()
        )
        assert torch.equal(one.particles, other.particles)
        assert one.fresh_worlds == fresh


def test_fresh_worlds_have_no_split() -> None:
    found = bwm.propagate(lin.linear_worlds(3), normal(2), normal(4, 1), method=FreshWorlds(), generator=generator())
    with pytest.warns(UndefinedWarning, match="fresh world"):
        assert bool(found.epistemic_variance[1:].isnan().all())
