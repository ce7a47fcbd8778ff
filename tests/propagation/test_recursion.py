"""Gaussian beliefs carried along: exact answers of linear systems, invariances, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import (
    Gaussian,
    MultivariateGaussian,
    Schema,
    SpecError,
    StructureWorlds,
    Variable,
)
from bayeswm.propagation import Linearized, Method, MomentMatching, MomentReset, Unscented
from bayeswm.structures import Linear, Pendulum
from bayeswm.testing import LinearGaussianSystem
from bayeswm.testing import strategies as systems
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import IN_EACH, POOLED, generator, normal

F64 = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def name(method: Method) -> str:
    return repr(method)


@settings(max_examples=30)
@given(systems.linear_gaussian_systems(uncertain=False), st.integers(0, 6), st.integers(0, 50))
def test_one_linear_world_is_exact_by_every_method(system: LinearGaussianSystem, steps: int, seed: int) -> None:
    size, acts = system.B.shape
    x0, actions = normal(size, seed=seed), normal(steps, acts, seed=seed + 1)
    exact = system.joint(x0, actions)
    for method in (*IN_EACH, *POOLED):
        found = bwm.propagate(system.model(), x0, actions, method=method, horizon=steps, generator=generator(seed))
        torch.testing.assert_close(found.mean.flatten(), exact.mean, **CLOSE)
        for h in range(steps):
            block = exact.aleatoric[h * size : (h + 1) * size, h * size : (h + 1) * size]
            torch.testing.assert_close(found.covariance[h], block, **CLOSE)
        assert bool((found.epistemic_variance == 0).all())


@pytest.mark.parametrize("method", IN_EACH, ids=name)
@pytest.mark.parametrize("exhaustive", [True, False])
def test_weighted_linear_worlds_are_exact_in_each_world(method: Method, exhaustive: bool) -> None:
    worlds, belief, actions = lin.linear_worlds(5, exhaustive=exhaustive), lin.start(), normal(3, 15, 1, seed=11)
    found = bwm.propagate(worlds, belief, actions, method=method, generator=generator())
    exact = lin.in_each_world(worlds, *lin.as_belief(belief), actions)
    torch.testing.assert_close(found.mean, exact.mean, **CLOSE)
    torch.testing.assert_close(found.covariance, exact.covariance, **CLOSE)
    diagonal = {"dim1": -2, "dim2": -1}
    torch.testing.assert_close(found.variance, exact.covariance.diagonal(**diagonal), **CLOSE)
    torch.testing.assert_close(found.aleatoric_variance, exact.aleatoric.diagonal(**diagonal), **CLOSE)
    torch.testing.assert_close(found.aleatoric_variance + found.epistemic_variance, found.variance, **CLOSE)
    assert [law.mean.shape for law in found.laws] == [(5, 1, 3, 2)] * 15
    assert torch.equal(found.weight, worlds.weight)


@pytest.mark.parametrize("method", POOLED, ids=name)
@pytest.mark.parametrize("exhaustive", [True, False])
def test_weighted_linear_worlds_pooled_meet_a_world_anew_at_each_step(method: Method, exhaustive: bool) -> None:
    worlds, belief, actions = lin.linear_worlds(5, exhaustive=exhaustive), lin.start(), normal(3, 15, 1, seed=11)
    found = bwm.propagate(worlds, belief, actions, method=method, generator=generator())
    exact = lin.pooled(worlds, *lin.as_belief(belief), actions)
    torch.testing.assert_close(found.mean, exact.mean, **CLOSE)
    torch.testing.assert_close(found.covariance, exact.covariance, **CLOSE)
    aleatoric = exact.aleatoric.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(found.aleatoric_variance, aleatoric, **CLOSE)
    torch.testing.assert_close(found.epistemic_variance, found.variance - aleatoric, **CLOSE)
    assert found.worlds == 1
    # a part of the batch keeps its split
    torch.testing.assert_close(found[1].aleatoric_variance, aleatoric[1], **CLOSE)
    torch.testing.assert_close(found.flatten().epistemic_variance, found.epistemic_variance)


def test_a_law_in_each_world_as_the_start() -> None:
    worlds, actions = lin.linear_worlds(4), normal(3, 6, 1, seed=2)
    belief = lin.start()
    mean = belief.mean + normal(4, 1, 1, 2, seed=5)
    found = bwm.propagate(worlds, MultivariateGaussian(mean, belief.scale_tril), actions)
    for w in range(4):
        alone = worlds[w].reweight(torch.zeros(1), exhaustive=True)
        one = bwm.propagate(alone, MultivariateGaussian(mean[w : w + 1], belief.scale_tril), actions)
        for law, other in zip(found.laws, one.laws, strict=True):
            torch.testing.assert_close(law.mean[w], other.mean[0])
            torch.testing.assert_close(law.covariance[w], other.covariance[0])
    with pytest.raises(SpecError, match=r"shape \(1, 1, \*batch, 2\)"):
        bwm.propagate(worlds, MultivariateGaussian(mean, belief.scale_tril), actions, method=POOLED[0])


def persistent(sd: float = 0.1) -> StructureWorlds:
    """x' = A x without noise, A ~ Normal(0.9, sd): worlds are Gauss-Hermite nodes, exact to the power 59."""
    node, weight = np.polynomial.hermite_e.hermegauss(30)
    A = 0.9 + sd * torch.tensor(node, dtype=F64)
    line = Schema(state=[Variable("x")], time_step=1.0)
    values = {"A": A.view(-1, 1, 1), "c": torch.zeros(30, 1, dtype=F64), "process_noise": torch.zeros(30, 1, dtype=F64)}
    return StructureWorlds(Linear(line), line, values, log_weight=torch.tensor(weight).log(), exhaustive=True)


@pytest.mark.parametrize("method", IN_EACH, ids=name)
def test_a_persistent_unknown_number_in_each_world(method: Method) -> None:
    """E[A^20] = 0.8531 and Var = 14.42 where A ~ Normal(0.9, 0.1), by the moments of a normal number."""
    exact = lin.normal_moments(0.9, 0.1, 40)
    found = bwm.propagate(persistent(), torch.ones(1), horizon=20, method=method, generator=generator())
    torch.testing.assert_close(float(found.mean[-1]), exact[20], rtol=1e-8, atol=0)
    torch.testing.assert_close(float(found.variance[-1]), exact[40] - exact[20] ** 2, rtol=1e-8, atol=0)
    assert round(float(found.mean[-1]), 4) == 0.8531
    assert round(float(found.variance[-1]), 2) == 14.42
    assert float(found.aleatoric_variance[-1]) == 0


@pytest.mark.parametrize("method", POOLED, ids=name)
def test_a_persistent_unknown_number_pooled_is_forgotten(method: Method) -> None:
    """Pooled: mean 0.9^20 = 0.1216, variance 0.82^20 - 0.9^40 = 0.0041: 3,500 times too small."""
    found = bwm.propagate(persistent(), torch.ones(1), horizon=20, method=method, generator=generator())
    torch.testing.assert_close(float(found.mean[-1]), 0.9**20, rtol=1e-8, atol=0)
    torch.testing.assert_close(float(found.variance[-1]), 0.82**20 - 0.9**40, rtol=1e-7, atol=0)
    assert round(float(found.mean[-1]), 4) == 0.1216
    assert round(float(found.variance[-1]), 4) == 0.0041
    # the square of a rounding error
    assert float(found.aleatoric_variance[-1]) < 1e-30


@settings(max_examples=25)
@given(st.permutations(range(4)), st.sampled_from([*IN_EACH, *POOLED]))
def test_rows_of_the_batch_do_not_meet(order: list[int], method: Method) -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)), noise=0.01)
    worlds, belief = model.draw(3, generator=generator()), lin.start(batch=4)
    actions = normal(4, 5, 1)
    moved = belief.map(lambda v: v[:, :, order])
    one = bwm.propagate(worlds, belief, actions, method=method, generator=generator(1))
    other = bwm.propagate(worlds, moved, actions[order], method=method, generator=generator(1))
    torch.testing.assert_close(other.mean, one.mean[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(other.covariance, one.covariance[order], rtol=0, atol=1e-9)
    torch.testing.assert_close(other.aleatoric_variance, one.aleatoric_variance[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
@pytest.mark.parametrize("start", ["state", "law", "history"])
def test_without_noise_and_doubt_it_is_the_path_of_a_rollout(method: Method, start: str) -> None:
    """Fast enough for the angle to pass pi: it stays on its lift."""
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.0)
    x0, actions = torch.tensor([[0.1, 7.0], [3.0, -5.0]], dtype=F64), normal(2, 20, 1)
    path = bwm.rollout(model, x0, actions, particles=1).particles[0, 0]
    history = bwm.Trajectories(model.schema, state=x0[:, None].expand(-1, 2, -1), action=torch.zeros(2, 1, 1))
    belief = {"state": x0, "law": Gaussian(x0[None, None], torch.zeros(2)), "history": history}[start]
    found = bwm.propagate(model, belief, actions, method=method, generator=generator())
    torch.testing.assert_close(found.mean, path, rtol=0, atol=1e-12)
    assert float(path[0, :, 0].max()) > math.pi
    # pivots of rounding size are cut, so nothing is left
    assert float(found.variance.abs().max()) == 0
    assert bool((found.quantile(0.9) - path).abs().max() < 1e-12)
    assert bool((found.log_prob(found.mean, marginal=True) == 0).all())


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_a_narrow_belief_is_linear(method: Method) -> None:
    """With spreads of 1e-4 all methods agree with the tangent.

    Relative differences are of the second order in the spread; of the first, times the third moment of few draws, for
    particles.
    """
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=1e-5)
    belief = Gaussian(torch.tensor([2.0, 1.0], dtype=F64).view(1, 1, 2), torch.tensor([1e-4, 2e-4], dtype=F64))
    found = bwm.propagate(model, belief, torch.zeros(10, 1), method=method, generator=generator())
    tangent = bwm.propagate(model, belief, torch.zeros(10, 1), method=Linearized())
    torch.testing.assert_close(found.mean, tangent.mean, rtol=0, atol=1e-7)
    order = 1e-2 if isinstance(method, MomentReset) else 1e-5
    torch.testing.assert_close(found.covariance, tangent.covariance, rtol=order, atol=order * 1e-8)


@pytest.mark.parametrize("method", [MomentMatching(), Unscented(), Linearized(), *POOLED], ids=name)
def test_gradients_by_actions_and_belief(method: Method) -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)), noise=0.05)
    worlds = model.draw(2, generator=generator())

    def moments(actions: Tensor, mean: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        belief = MultivariateGaussian(mean[None, None], factor.tril()[None, None])
        found = bwm.propagate(worlds, belief, actions, method=method, generator=generator(2))
        return found.mean, found.covariance, found.aleatoric_variance

    factor = torch.tensor([[[0.3, 0.0], [0.1, 0.2]]], dtype=F64)
    inputs = [v.requires_grad_() for v in (normal(1, 2, 1), normal(1, 2, seed=1), factor)]
    assert torch.autograd.gradcheck(moments, inputs)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_gradients_from_a_known_start_are_finite_and_right(method: Method) -> None:
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise={"velocity": 0.05})

    def moments(actions: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
        found = bwm.propagate(model, x0, actions, method=method, generator=generator(2))
        return found.mean, found.variance

    inputs = [v.requires_grad_() for v in (normal(3, 1), torch.tensor([0.5, 0.1], dtype=F64))]
    assert torch.autograd.gradcheck(moments, inputs)


def test_no_gradient_is_kept_where_none_is_asked() -> None:
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.01)
    for method in (*IN_EACH, *POOLED):
        assert not bwm.propagate(
            model, torch.zeros(2), torch.zeros(3, 1), method=method, generator=generator()
        ).mean.requires_grad
