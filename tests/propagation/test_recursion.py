"""Gaussian beliefs carried along: exact answers of linear systems, splits, policies, gradients, faults."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import (
    DataError,
    DivergenceWarning,
    Gaussian,
    Moments,
    MultivariateGaussian,
    Schema,
    SpecError,
    StructureWorlds,
    UndefinedWarning,
    Variable,
)
from bayeswm.propagation import FixedWorlds, Linearized, Method, MomentMatching, MomentReset, Unscented
from bayeswm.structures import FromFunction, Linear, Pendulum
from bayeswm.testing import LinearGaussianSystem
from bayeswm.testing import strategies as systems
from tests.hidden_models import hidden_mode_worlds
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import IN_EACH, POOLED, generator, normal

F64 = torch.float64
LINE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def name(method: Method) -> str:
    return repr(method)


# --- linear systems: exact -------------------------------------------------------------------------------------------


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
    assert float(found.aleatoric_variance[-1]) == 0
    assert torch.equal(found.epistemic_variance, found.variance)


# --- invariances -----------------------------------------------------------------------------------------------------


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
    """With spreads of 1e-4 all methods agree with the tangent: relative differences are of second order."""
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=1e-5)
    belief = Gaussian(torch.tensor([2.0, 1.0], dtype=F64).view(1, 1, 2), torch.tensor([1e-4, 2e-4], dtype=F64))
    found = bwm.propagate(model, belief, torch.zeros(10, 1), method=method, generator=generator())
    tangent = bwm.propagate(model, belief, torch.zeros(10, 1), method=Linearized())
    torch.testing.assert_close(found.mean, tangent.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(found.covariance, tangent.covariance, rtol=1e-5, atol=1e-13)


# --- context, time, policies -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_context_by_episode_and_by_step(method: Method) -> None:
    schema = Schema(state=[Variable("x")], context=[Variable("wind")], time_step=1.0)
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u, c: 0.5 * x + c, schema=schema), noise=0.1)
    x0, wind = torch.ones(2, 1), torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])[..., None]
    found = bwm.propagate(model, x0, context=wind, horizon=3, method=method, generator=generator())
    expected = [[1.5, 2.75, 4.375], [0.5, -0.75, 3.625]]
    torch.testing.assert_close(found.mean[..., 0], torch.tensor(expected, dtype=F64))
    still = bwm.propagate(model, x0, context=wind[:, 0], horizon=3, method=method, generator=generator())
    torch.testing.assert_close(still.mean[0, :, 0], torch.tensor([1.5, 1.75, 1.875], dtype=F64))
    with pytest.raises(DataError, match="context="):
        bwm.propagate(model, x0, horizon=3, method=method, generator=generator())


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_dynamics_that_change_with_time_see_the_step(method: Method) -> None:
    class Clock(FromFunction):
        def transition(self, parameters, state, action, context, step):
            return state + step, None

    model = bwm.KnownDynamics(structure=Clock(lambda x, u: x, schema=LINE))
    found = bwm.propagate(model, torch.zeros(1), torch.zeros(4, 1), method=method, generator=generator())
    assert found.mean[:, 0].tolist() == [0.0, 1.0, 3.0, 6.0]


GAIN = torch.tensor([[-0.4, 0.3]], dtype=F64)


def feedback(state: Tensor, step: int) -> Tensor:
    return state @ GAIN.mT + 0.1 * step


class NoisyFeedback:
    """Acts as ``feedback`` with a noise of variance 0.04, and says so."""

    def __call__(self, state: Tensor, step: int) -> Tensor:
        return feedback(state, step)

    def moments(self, mean: Tensor, covariance: Tensor, step: int) -> Moments:
        spread = GAIN @ covariance @ GAIN.mT + 0.04
        return Moments(feedback(mean, step), spread, covariance @ GAIN.mT, spread)


def closed_loop(worlds: StructureWorlds, *, noise: float) -> StructureWorlds:
    """The same system with the feedback inside, and the actions as an offset."""
    p = dict(worlds.parameters)
    p["A"] = p["A"] + p["B"] @ GAIN
    return StructureWorlds(worlds.structure, worlds.schema, p, log_weight=worlds.log_weight, exhaustive=True)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_linear_feedback_is_the_closed_loop(method: Method) -> None:
    worlds, belief = lin.linear_worlds(5), lin.start()
    found = bwm.propagate(worlds, belief, feedback, horizon=8, method=method, generator=generator())
    offsets = 0.1 * torch.arange(8, dtype=F64)[None, :, None].expand(3, -1, -1)
    exact = (lin.pooled if method.pooled else lin.in_each_world)(
        closed_loop(worlds, noise=0.0), *lin.as_belief(belief), offsets
    )
    torch.testing.assert_close(found.mean, exact.mean, **CLOSE)
    torch.testing.assert_close(found.covariance, exact.covariance, **CLOSE)


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_a_policy_with_moments_of_its_own_adds_its_noise(method: Method) -> None:
    """One world: the noise of the action enters by B, and is aleatoric."""
    worlds, belief = lin.linear_worlds(1), lin.start()
    found = bwm.propagate(worlds, belief, NoisyFeedback(), horizon=5, method=method, generator=generator())
    loop = closed_loop(worlds, noise=0.2)
    (mean, cover), A, B = lin.as_belief(belief), loop.parameters["A"][0], worlds.parameters["B"][0]
    extra = 0.04 * B @ B.mT + worlds.parameters["process_noise"][0].square().diag()
    for h in range(5):
        mean = mean @ A.mT + (B @ torch.tensor([0.1 * h], dtype=F64)) + worlds.parameters["c"][0]
        cover = A @ cover @ A.mT + extra
        torch.testing.assert_close(found.mean[:, h], mean, **CLOSE)
        torch.testing.assert_close(found.covariance[:, h], cover, **CLOSE)
    assert bool((found.epistemic_variance == 0).all())


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [MomentMatching(), Unscented(), Linearized(), *POOLED], ids=name)
def test_gradients_by_actions_and_belief(method: Method) -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)), noise=0.05)
    worlds = model.draw(2, generator=generator())

    def moments(actions: Tensor, mean: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        belief = MultivariateGaussian(mean[None, None], factor.tril()[None, None])
        found = bwm.propagate(worlds, belief, actions, method=method, generator=generator(2))
        return found.mean, found.covariance, found.aleatoric_variance

    factor = torch.tensor([[0.3, 0.0], [0.1, 0.2]], dtype=F64)
    inputs = [v.requires_grad_() for v in (normal(2, 3, 1), normal(2, 2, seed=1), factor.expand(2, 2, 2).clone())]
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


# --- densities -------------------------------------------------------------------------------------------------------


def test_from_a_known_start_the_joint_density_is_that_of_a_rollout() -> None:
    worlds, x0, actions = lin.linear_worlds(4, noise=0.5), normal(3, 2), normal(3, 6, 1)
    worlds = worlds.replace(process_noise=0.3)
    roll = bwm.rollout(worlds, x0, actions, particles=4, generator=generator())
    found = bwm.propagate(worlds, x0, actions)
    x = roll.particles[0, 0]
    torch.testing.assert_close(found.log_prob(x), roll.log_prob(x))
    for p in (bwm.propagate(worlds, x0, actions, method=POOLED[0]), bwm.propagate(worlds, lin.start(), actions)):
        with pytest.raises(SpecError, match="uncertain start"):
            p.log_prob(x)


def test_moments_have_marginals_and_no_trajectories() -> None:
    worlds = lin.linear_worlds(3, noise=0.5)
    found = bwm.propagate(worlds, normal(2), normal(4, 1))
    assert not found.sampled
    with pytest.raises(SpecError, match="FixedWorlds"):
        _ = found.particles
    with pytest.raises(SpecError, match="FixedWorlds"):
        found.sample(3, generator=generator())
    assert bwm.propagate(worlds, normal(2), normal(1, 1)).sample(3, generator=generator()).shape == (3, 1, 2)
    middle = found.quantile(0.5)
    torch.testing.assert_close(found.cdf(middle)[..., 0], torch.full((4,), 0.5, dtype=F64))
    assert found.to_xarray().sizes["horizon"] == 4
    split = found.to_xarray()["epistemic_variance"] if "epistemic_variance" in found.to_xarray() else None
    assert split is None or split.shape == (4, 2)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_horizon_zero_is_empty_and_a_negative_one_refused(method: Method) -> None:
    worlds = lin.linear_worlds(3)
    found = bwm.propagate(worlds, normal(3, 2), torch.zeros(3, 0, 1), method=method, generator=generator())
    assert found.mean.shape == found.variance.shape == found.epistemic_variance.shape
    assert found.mean.shape[-2:] == (0, 2)
    with pytest.raises(SpecError, match="horizon >= 0"):
        bwm.propagate(worlds, normal(2), feedback, horizon=-1, method=method, generator=generator())


def growing() -> StructureWorlds:
    """x' = x^k: in the second world a start of 2 runs away, in the first it stays."""
    structure = FromFunction(lambda x, u, c, p: x * (1 + p["k"] * x**2), schema=LINE, parameters={"k": 0.0})
    values = {"k": torch.tensor([0.0, 1.0], dtype=F64), "process_noise": torch.full((2, 1), 0.1, dtype=F64)}
    return StructureWorlds(structure, LINE, values, exhaustive=True)


@pytest.mark.parametrize("method", IN_EACH, ids=name)
def test_a_world_that_diverges_is_flagged_and_left_out(method: Method) -> None:
    with pytest.warns(DivergenceWarning, match=r"50.0% of the worlds' beliefs"):
        found = bwm.propagate(growing(), torch.tensor([2.0]), torch.zeros(12, 1), method=method, generator=generator())
    assert found.diverged[:, 0, -1].tolist() == [False, True]
    torch.testing.assert_close(found.mean[-1, 0], torch.tensor(2.0, dtype=F64))
    torch.testing.assert_close(found.variance[-1, 0], torch.tensor(0.12, dtype=F64))
    assert not bool(found.diverged[1, 0, 0])
    assert float(found.mean[0, 0]) == pytest.approx(6.0, abs=0.1)


@pytest.mark.parametrize("method", POOLED, ids=name)
def test_where_everything_diverges_the_answer_is_nan_with_a_warning(method: Method) -> None:
    with pytest.warns(DivergenceWarning, match=r"100.0% of the beliefs"):
        found = bwm.propagate(growing(), torch.tensor([2.0]), torch.zeros(12, 1), method=method, generator=generator())
    with pytest.warns(UndefinedWarning, match="every particle diverged"):
        mean = found.mean
    assert bool(mean[-1].isnan())
    assert bool(mean[0].isfinite())
    with pytest.warns(UndefinedWarning):
        assert bool(found.variance[-1].isnan())


def test_one_drawn_world_has_no_split() -> None:
    worlds = lin.linear_worlds(4, exhaustive=False)[0]
    for method in (IN_EACH[0], POOLED[0]):
        found = bwm.propagate(worlds, lin.start(), normal(3, 4, 1), method=method)
        with pytest.warns(UndefinedWarning, match="one world was drawn"):
            assert bool(found.epistemic_variance.isnan().all())
        assert bool(found.variance.isfinite().all())


def test_what_gaussian_beliefs_cannot_describe_is_refused() -> None:
    hidden = hidden_mode_worlds()
    acts = hidden.schema.action.size
    with pytest.raises(SpecError, match=r"memory in HiddenModeWorlds.*FixedWorlds"):
        bwm.propagate(hidden, torch.zeros(hidden.schema.state.size), torch.zeros(2, acts))
    sensed = bwm.KnownDynamics(
        structure=Pendulum(),
        noise=0.01,
        sensor_noise={"angle": 0.01},
        belief={"velocity": torch.distributions.Normal(0, 1)},
    )
    with pytest.raises(SpecError, match=r"hidden state.*FixedWorlds"):
        bwm.propagate(sensed, torch.zeros(2), torch.zeros(2, 1))
    three = Schema(state=[Variable("mode", kind=bwm.categorical(3))], time_step=1.0)
    with pytest.raises(SpecError, match=r"mode: categorical.*FixedWorlds"):
        bwm.propagate(
            bwm.KnownDynamics(structure=FromFunction(lambda x, u: x, schema=three)), torch.zeros(1), horizon=2
        )


def test_beliefs_that_are_none() -> None:
    worlds, actions = lin.linear_worlds(3), normal(3, 4, 1)
    with pytest.raises(DataError, match="finite states"):
        bwm.propagate(worlds, torch.tensor([0.0, math.nan]), actions)
    with pytest.raises(DataError, match="finite belief"):
        bwm.propagate(worlds, Gaussian(torch.full((1, 1, 3, 2), math.nan), torch.ones(2)), actions)
    with pytest.raises(SpecError, match=r"1 or 3, 1, \*batch, 2"):
        bwm.propagate(worlds, Gaussian(torch.zeros(2, 1, 3, 2), torch.ones(2)), actions)
    law = bwm.propagate(worlds, normal(3, 2), actions).laws[0]

    class Other(type(law)):  # any law that is not one of the two kinds
        pass

    class Strange(bwm.Law):
        exact, noise_size = True, 2
        mean = variance = torch.zeros(1, 1, 3, 2)

        def push(self, noise):
            return noise

        abduct = log_prob = cdf = map = push

    with pytest.raises(SpecError, match=r"got Strange; use FixedWorlds"):
        bwm.propagate(worlds, Strange(), actions)


def test_policies_that_are_none() -> None:
    worlds, x0 = lin.linear_worlds(3), normal(3, 2)
    with pytest.raises(DataError, match="policy's actions of shape"):
        bwm.propagate(worlds, x0, lambda x, t: x, horizon=3)
    with pytest.raises(DataError, match="policy returned NaN"):
        bwm.propagate(worlds, x0, lambda x, t: x[..., :1] * math.nan, horizon=3)

    class Wrong(NoisyFeedback):
        def moments(self, mean: Tensor, covariance: Tensor, step: int) -> Moments:
            return super().moments(mean, covariance, step)._replace(cross=covariance)

    with pytest.raises(DataError, match=r"expected cross of shape .*2, 1"):
        bwm.propagate(worlds, x0, Wrong(), horizon=3)


def test_a_result_that_cannot_fit_is_refused() -> None:
    with pytest.raises(SpecError, match="GB"):
        bwm.propagate(lin.linear_worlds(3), torch.zeros(10**6, 2), feedback, horizon=10**5)


def test_other_default_dtype_and_inference_mode() -> None:
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.01, dtype=torch.float32)
    for method in (*IN_EACH, *POOLED, FixedWorlds(3)):
        expected = bwm.propagate(model, torch.ones(2), torch.zeros(4, 1), method=method, generator=generator()).mean
        assert expected.dtype == torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(F64)
        try:
            with torch.inference_mode():
                found = bwm.propagate(
                    model, torch.ones(2), torch.zeros(4, 1), method=method, generator=generator()
                ).mean
        finally:
            torch.set_default_dtype(before)
        assert torch.equal(found.clone(), expected)


def test_a_closed_form_of_the_family_is_used_where_it_is_pooled() -> None:
    class Closed(bwm.KnownDynamics):
        """x' = x + u with a function variance of 0.25 and a noise of 1, both known in closed form."""

        asked = 0

        def moments(self, mean, covariance, action=None, *, context=None, worlds=64, generator=None):
            self.asked += 1
            noise = torch.eye(1, dtype=F64)
            return Moments(mean + action, covariance + noise + 0.25, covariance, covariance + noise)

    model = Closed(structure=FromFunction(lambda x, u: x + u, schema=LINE), noise=1.0)
    found = bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=MomentMatching(pooled=True))
    assert model.asked == 4 + 3
    torch.testing.assert_close(found.mean[0, :, 0], torch.arange(1.0, 5.0, dtype=F64))
    torch.testing.assert_close(found.variance[0, :, 0], 1.25 * torch.arange(1.0, 5.0, dtype=F64))
    torch.testing.assert_close(found.aleatoric_variance[0, :, 0], torch.arange(1.0, 5.0, dtype=F64))
    model.asked = 0
    bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=MomentMatching())
    bwm.propagate(model, torch.zeros(3, 1), torch.ones(3, 4, 1), method=Unscented(pooled=True))
    assert model.asked == 0


def test_no_method_needs_the_names_of_another() -> None:
    for method in (*IN_EACH, *POOLED):
        assert isinstance(method, Method)
        assert method == type(method)(**vars(method))
    assert MomentReset() != MomentReset(pooled=True)
