"""Distribution sampling: matched draws, policies in every particle, and agreement with quadrature."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Gaussian, Schema, SpecError, Variable
from bayeswm.propagation import MomentMatching, MomentReset
from bayeswm.propagation.moment_reset import matched
from bayeswm.structures import FromFunction
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import generator, normal
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64


@given(st.integers(1, 4), st.integers(1, 20), st.integers(0, 100))
def test_matched_draws_have_the_moments_of_the_standard_normal(size: int, more: int, seed: int) -> None:
    drawn = matched(normal(3, size + more, size, seed=seed))
    torch.testing.assert_close(drawn.mean(1), torch.zeros(3, size, dtype=F64), rtol=0, atol=1e-9)
    covariance = drawn.mT @ drawn / (size + more)
    torch.testing.assert_close(covariance, torch.eye(size, dtype=F64).expand(3, -1, -1), rtol=0, atol=1e-8)


def test_same_generator_same_answer_and_new_points_each_step() -> None:
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.3).draw(1)
    x0, actions, method = torch.zeros(2), torch.zeros(4, 1), MomentReset(particles=10)
    one, same, other = (
        bwm.propagate(worlds, x0, actions, method=method, generator=generator(s)).covariance for s in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.statistical
@pytest.mark.parametrize("pooled", [False, True])
def test_a_bent_function_against_quadrature(pooled: bool) -> None:
    """x' = a sin(x) from N(0.5, 1), one step: E sin = exp(-1/2) sin(1/2) and so on, in closed form."""
    line = Schema(state=[Variable("x")], time_step=1.0)
    a = torch.tensor([0.5, 1.5], dtype=F64)
    structure = FromFunction(lambda x, u, c, p: p["a"] * torch.sin(x), schema=line, parameters={"a": 0.0})
    worlds = bwm.StructureWorlds(structure, line, {"a": a}, exhaustive=True)
    belief = Gaussian(torch.full((1, 1, 1), 0.5, dtype=F64), torch.ones(1, dtype=F64))
    method = MomentReset(particles=400, pooled=pooled)
    runs = [bwm.propagate(worlds, belief, horizon=1, method=method, generator=generator(i)) for i in range(60)]
    e, s, c = torch.tensor(1.0, dtype=F64).exp(), torch.tensor(0.5).double().sin(), torch.tensor(1.0).double().cos()
    mean, second = e**-0.5 * s, (1 - e**-2 * c) / 2  # E sin x, E sin^2 x
    exact = a.square().mean() * second - (a.mean() * mean) ** 2
    assert mean_p(torch.stack([r.mean[0] for r in runs]), a.mean() * mean) > BUDGET
    # matched draws bias the variance by O(1 / particles); its error over 60 runs is 20 times that
    assert mean_p(torch.stack([r.variance[0] for r in runs]), exact) > BUDGET


def test_a_policy_acts_in_every_particle() -> None:
    """A bang-bang policy is no Gaussian action: what matters is that it saw 50 states of each world."""
    seen = list[torch.Size]()

    def policy(state: Tensor, step: int) -> Tensor:
        seen.append(state.shape)
        return state[..., :1].sign()

    worlds = lin.linear_worlds(3)
    for pooled, beliefs in ((False, 3), (True, 1)):
        method = MomentReset(particles=50, pooled=pooled)
        found = bwm.propagate(worlds, lin.start(), policy, horizon=4, method=method, generator=generator())
        assert seen[-1] == (beliefs, 50, 3, 2)
        assert found.mean.shape == (3, 4, 2)


def test_it_converges_to_moment_matching() -> None:
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.05).draw(1)
    belief = Gaussian(torch.tensor([1.0, 0.0], dtype=F64).view(1, 1, 2), torch.tensor([0.1, 0.1], dtype=F64))
    one = bwm.propagate(worlds, belief, torch.zeros(10, 1), method=MomentReset(20_000), generator=generator())
    other = bwm.propagate(worlds, belief, torch.zeros(10, 1), method=MomentMatching())
    # relative errors of 1 / sqrt(20,000) = 0.7 % a step in what is bent, far less in all
    torch.testing.assert_close(one.stddev, other.stddev, rtol=0.02, atol=0)


def test_arguments() -> None:
    worlds, actions = lin.linear_worlds(2), normal(3, 1)
    with pytest.raises(SpecError, match=r"expected generator=torch.Generator, since particles"):
        bwm.propagate(worlds, normal(2), actions, method=MomentReset())
    with pytest.raises(SpecError, match="more than 2 particles for 2 columns, got 2"):
        bwm.propagate(worlds, normal(2), actions, method=MomentReset(particles=2), generator=generator())
