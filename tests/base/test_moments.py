"""Moments of a step against polynomials integrated by hand, dense sums over worlds, and particles."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import DataError, Schema, SpecError, UndefinedWarning, Variable
from bayeswm.base.moments import fifth_degree, pooled_moments, third_degree, world_moments
from bayeswm.structures import FromFunction
from bayeswm.testing import LinearGaussianSystem
from bayeswm.testing import strategies as systems
from tests.hidden_models import hidden_mode_worlds
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64
LINE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=F64)


def covariance(*shape: int, seed: int = 0) -> Tensor:
    half = normal(*shape, shape[-1], seed=seed)
    return half @ half.mT


def gaussian_moment(powers: list[int]) -> float:
    """E of a monomial of independent N(0, 1)."""
    return math.prod(0 if p % 2 else math.prod(range(p - 1, 0, -2)) for p in powers)


@given(st.integers(1, 7), st.data())
def test_rules_are_exact_to_their_degree(size: int, data: st.DataObject) -> None:
    for rule, degree in ((third_degree(size), 3), (fifth_degree(size), 5)):
        columns = data.draw(st.lists(st.integers(0, size - 1), max_size=degree))
        powers = [columns.count(i) for i in range(size)]
        value = rule.weight * torch.stack([rule.points[:, i] ** p for i, p in enumerate(powers)]).prod(0)
        assert float(value.sum()) == pytest.approx(gaussian_moment(powers), abs=1e-12)
    assert bool((third_degree(size).weight >= 0).all())


def test_a_quadratic_function_of_two_inputs_is_exact() -> None:
    """y = x^2 + x u: mean and variance from the moments of a joint Gaussian, by Isserlis' theorem."""
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x.square() + x * u, schema=LINE), noise=0.3)
    mean, cover = torch.tensor([0.7, -0.4], dtype=F64), covariance(2, seed=3)
    found = model.moments(mean, cover)
    # y = m' Q m + 2 m' Q d + d' Q d with Q = [[1, 1/2], [1/2, 0]]
    Q = torch.tensor([[1.0, 0.5], [0.5, 0.0]], dtype=F64)
    spread = Q @ cover
    expected = mean @ Q @ mean + spread.trace()
    variance = 4 * mean @ Q @ cover @ Q @ mean + 2 * (spread @ spread).trace() + 0.09
    torch.testing.assert_close(found.mean, expected[None])
    torch.testing.assert_close(found.covariance, variance[None, None])
    torch.testing.assert_close(found.cross, (2 * cover @ Q @ mean)[:, None])
    torch.testing.assert_close(found.aleatoric, found.covariance)


@given(systems.linear_gaussian_systems(), st.integers(0, 50))
def test_linear_worlds_by_dense_sums(system: LinearGaussianSystem, seed: int) -> None:
    """The drift is what differs between worlds: it adds its sample variance (n - 1) and nothing else."""
    worlds = system.model().draw(4, generator=generator(seed))
    size, acts = system.B.shape
    mean, cover = normal(3, size + acts, seed=seed), covariance(3, size + acts, seed=seed)
    both = torch.cat((system.A.double(), system.B.double()), 1)
    noise = system.noise.square().diag()
    drift = worlds.parameters["drift"]
    found, each = pooled_moments(worlds, mean, cover), world_moments(worlds, mean[None], cover[None])
    within = both @ cover @ both.mT + noise
    between = torch.atleast_2d(drift.mT.cov()) if len(worlds) > 1 else torch.zeros(size, size, dtype=F64)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(found.mean, mean @ both.mT + drift.mean(0), **close)
    torch.testing.assert_close(found.aleatoric, within, **close)
    torch.testing.assert_close(found.covariance, within + between, **close)
    torch.testing.assert_close(found.cross, cover @ both.mT, **close)
    torch.testing.assert_close(each.mean, mean @ both.mT + drift[:, None], **close)
    torch.testing.assert_close(each.covariance, within.expand(len(worlds), -1, -1, -1), **close)
    torch.testing.assert_close(each.cross, (cover @ both.mT).expand(len(worlds), -1, -1, -1), **close)


def test_a_certain_action_is_a_joint_belief_without_variance() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01)
    mean, cover, action = normal(3, 2), covariance(3, 2), normal(3, 1)
    both = torch.zeros(3, 3, 3, dtype=F64)
    both[:, :2, :2] = cover
    one, other = model.moments(mean, cover, action), model.moments(torch.cat((mean, action), -1), both)
    # more inputs have other points; both are exact to the fifth degree, and the belief is wide
    torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=0.1)
    narrow, wide = model.moments(mean, 1e-6 * cover, action), model.moments(torch.cat((mean, action), -1), 1e-6 * both)
    torch.testing.assert_close(narrow.covariance, wide.covariance, rtol=1e-5, atol=1e-14)
    torch.testing.assert_close(narrow.cross, wide.cross[:, :2], rtol=1e-5, atol=1e-14)


@pytest.mark.statistical
def test_worlds_of_a_gaussian_process_against_particles_in_a_fresh_world_each() -> None:
    """A narrow belief, so that what cubature leaves out is below the Monte Carlo error of 4,000 particles."""
    x = 2 * torch.rand(30, 2, generator=generator(1), dtype=F64) - 1
    rows = torch.stack((x[:, 0], 0.9 * x[:, 0] + 0.3 * torch.sin(2 * x[:, 0]) + x[:, 1]), 1)[..., None]
    data = bwm.Trajectories(LINE, state=rows, action=x[:, 1:, None])
    worlds = bwm.GaussianProcess().fit(data, seed=0, progress=False).draw(4000, generator=generator(2))
    mean, cover = torch.tensor([0.2, 0.1], dtype=F64), torch.tensor([[0.01, 0.004], [0.004, 0.01]], dtype=F64)
    found = pooled_moments(worlds, mean, cover)
    points = mean + normal(4000, 1, 2, seed=5) @ torch.linalg.cholesky(cover).mT
    law = worlds.transition(points[..., :1], points[..., 1:])
    samples = law.push(normal(4000, 1, 1, seed=6))[:, 0]
    assert min(gaussian_p(samples, found.mean, found.covariance)) > BUDGET
    assert float(found.aleatoric) <= float(found.covariance)


def test_one_drawn_world_has_no_split() -> None:
    structure = FromFunction(
        lambda x, u, c, p: p["a"] * x, schema=LINE, parameters={"a": torch.distributions.Normal(1, 1)}
    )
    model = bwm.KnownDynamics(structure=structure, noise=0.1)
    with pytest.warns(UndefinedWarning, match="one world"):
        found = model.moments(torch.ones(1), torch.ones(1, 1), torch.ones(1), worlds=1, generator=generator())
    assert bool(found.aleatoric.isnan())
    assert bool(found.covariance.isfinite())


def test_errors_say_what_was_expected() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=0.1)
    one = torch.ones(1, dtype=F64)
    for arguments, text in (
        ((torch.ones(3), torch.eye(3)), "belief about state and action of 2 columns"),
        ((torch.ones(2), torch.eye(2), one), "belief about the state of 1 columns"),
        ((one, torch.eye(1), torch.ones(2)), r"action of shape \(\*batch, 1\)"),
        ((one * math.nan, torch.eye(1), one), "finite values of the belief's mean"),
        ((one, torch.eye(1) * math.inf, one), "finite values of the belief's covariance"),
        ((torch.ones(3, 1), torch.ones(3, 1, 1), torch.ones(2, 1)), "batch shapes that fit"),
    ):
        with pytest.raises(DataError, match=text):
            model.moments(*arguments)
    hidden = hidden_mode_worlds()
    size = hidden.schema.state.size
    with pytest.raises(SpecError, match=r"hidden state.*FixedWorlds"):
        pooled_moments(hidden, torch.zeros(size), torch.eye(size), torch.zeros(hidden.schema.action.size))
    quaternion = Schema(state=[Variable("turn", kind="rotation")], time_step=1.0)
    still = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x, schema=quaternion))
    with pytest.raises(SpecError, match=r"turn: rotation"):
        still.moments(torch.ones(4), torch.eye(4))


def test_context_is_needed_where_there_is_some() -> None:
    schema = Schema(state=[Variable("x")], context=[Variable("wind")], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u, c: x + c, schema=schema))
    found = model.moments(torch.ones(1), torch.eye(1), context=torch.tensor([2.0]))
    assert float(found.mean) == 3.0
    with pytest.raises(DataError, match="context= of 1"):
        model.moments(torch.ones(1), torch.eye(1))


def test_the_step_reaches_dynamics_that_change_with_time() -> None:
    class Clock(FromFunction):
        def transition(self, parameters, state, action, context, step):
            return state + step, None

    worlds = bwm.KnownDynamics(structure=Clock(lambda x, u: x, schema=LINE)).draw(1)
    assert float(pooled_moments(worlds, torch.zeros(1), torch.eye(1), torch.zeros(1), step=3).mean) == 3.0
