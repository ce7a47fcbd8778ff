"""Arguments of a propagation, what its answers can and cannot say, and what is refused."""

import math

import pytest
import torch
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
from bayeswm.diagnostics.maps import Stretch
from bayeswm.diagnostics.recalibrated import RecalibratedModel
from bayeswm.propagation import FixedWorlds, FreshWorlds, Linearized, Method, MomentMatching, MomentReset, Unscented
from bayeswm.structures import FromFunction, Pendulum
from tests.hidden_models import hidden_mode_worlds
from tests.propagation import linear_systems as lin
from tests.propagation.linear_systems import IN_EACH, POOLED, NoisyFeedback, feedback, generator, normal

F64 = torch.float64
LINE = Schema(state=[Variable("x")], action=[Variable("u")], time_step=1.0)


def name(method: Method) -> str:
    return repr(method)


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
    pooled = bwm.propagate(worlds, normal(2), normal(4, 1), method=POOLED[0])
    torch.testing.assert_close(torch.tensor(pooled.to_xarray()["epistemic_variance"].values), pooled.epistemic_variance)
    # a stretched law no longer knows which part of it was which
    wide = pooled.mapped(pooled.laws, particles=None)
    with pytest.warns(UndefinedWarning):
        assert bool(wide.epistemic_variance.isnan().all())


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


class Indefinite(MultivariateGaussian):
    """A law that says something impossible of its covariance."""

    @property
    def covariance(self) -> Tensor:
        return torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=F64).expand(*self.mean.shape, 2)


def test_one_belief_under_many_plans() -> None:
    worlds, actions = lin.linear_worlds(3), normal(2, 3, 5, 1)
    belief = lin.start(batch=1).map(lambda v: v[:, :, 0])
    for method in (*IN_EACH, *POOLED, FixedWorlds(5)):
        found = bwm.propagate(worlds, belief, actions, method=method, generator=generator())
        assert found.mean.shape == (2, 3, 5, 2)
    exact = bwm.propagate(worlds, lin.start(batch=1), actions[1, 2][None])
    torch.testing.assert_close(bwm.propagate(worlds, belief, actions).covariance[1, 2], exact.covariance[0])


@pytest.mark.parametrize("method", [MomentMatching, "moment_matching", None.__class__], ids=repr)
def test_a_method_is_an_object(method: object) -> None:
    with pytest.raises(SpecError, match=r"expected method=bayeswm.propagation.MomentMatching\(\)"):
        bwm.propagate(lin.linear_worlds(1), normal(2), normal(3, 1), method=method)


def test_by_default_moments_are_matched_in_each_world() -> None:
    worlds, actions = lin.linear_worlds(3), normal(3, 5, 1)
    one = bwm.propagate(worlds, lin.start(), actions)
    other = bwm.propagate(worlds, lin.start(), actions, method=MomentMatching(pooled=False))
    assert torch.equal(one.covariance, other.covariance)
    with pytest.raises(SpecError, match="worlds >= 1"):
        bwm.propagate(worlds, lin.start(), actions, worlds=0)
    with pytest.raises(SpecError, match=r"generator=torch.Generator"):
        bwm.propagate(worlds, lin.start(), actions, generator=3)


def test_beliefs_that_are_none() -> None:
    worlds, actions = lin.linear_worlds(3), normal(3, 4, 1)
    with pytest.raises(DataError, match="finite states"):
        bwm.propagate(worlds, torch.tensor([0.0, math.nan]), actions)
    with pytest.raises(DataError, match="finite belief"):
        bwm.propagate(worlds, Gaussian(torch.full((1, 1, 3, 2), math.nan), torch.ones(2)), actions)
    with pytest.raises(SpecError, match=r"1 or 3, 1, \*batch, 2"):
        bwm.propagate(worlds, Gaussian(torch.zeros(2, 1, 3, 2), torch.ones(2)), actions)
    with pytest.raises(DataError, match="negative eigenvalues"):
        bwm.propagate(worlds, Indefinite(torch.zeros(1, 1, 3, 2, dtype=F64), torch.eye(2, dtype=F64)), actions)

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


@pytest.mark.parametrize("method", [*IN_EACH, *POOLED], ids=name)
def test_a_recalibrated_model_maps_moments_too(method: Method) -> None:
    model = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise=0.1)
    stretch = Stretch(("angle", "velocity"), {"factor": torch.full((4, 2), 2.0)})
    wide = RecalibratedModel(model, stretch)
    one, other = (
        bwm.propagate(m, torch.zeros(2), torch.zeros(4, 1), method=method, generator=generator()) for m in (wide, model)
    )
    torch.testing.assert_close(one.stddev, 2 * other.stddev)


@pytest.mark.parametrize(
    "method", [FixedWorlds(2), MomentReset(9), MomentMatching(), Unscented(), Linearized()], ids=repr
)
def test_beliefs_and_plans_that_are_none(method: Method) -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    g, plan = torch.Generator().manual_seed(0), torch.zeros(2, 1)
    for mean in (torch.zeros(2), torch.zeros(1, 1, 3), torch.zeros(2, 1, 2)):
        with pytest.raises(bwm.SpecError, match=r"law of the state with means of shape \(1, 1, \*batch, 2\)"):
            bwm.propagate(model, bwm.Gaussian(mean), plan, method=method, generator=g)
    nowhere = bwm.Gaussian(torch.full((1, 1, 2), float("nan")))
    with pytest.raises(bwm.DataError, match="finite belief"):
        bwm.propagate(model, nowhere, plan, method=method, generator=g)
    planner = bwm.planning.MPPI(bwm.planning.quadratic(torch.ones(2), torch.ones(1)), horizon=2)
    with pytest.raises(bwm.SpecError, match=r"got a MPPI; bayeswm\.planning\.PlannedPolicy"):
        bwm.propagate(model, torch.zeros(2), planner, horizon=2, method=method, generator=g)


def test_settings_of_the_wrong_kind() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    g, plan = torch.Generator().manual_seed(0), torch.zeros(2, 1)
    for method in (FixedWorlds(1.5), FreshWorlds(0), MomentReset(10.5)):
        with pytest.raises(bwm.SpecError, match="an integer particles >= 1"):
            bwm.propagate(model, torch.zeros(2), plan, method=method, generator=g)
    with pytest.raises(bwm.SpecError, match=r"an integer worlds >= 1, got 1\.5"):
        bwm.propagate(model, torch.zeros(2), plan, worlds=1.5)
    for function in (bwm.propagate, bwm.rollout):
        with pytest.raises(bwm.SpecError, match="expected a model or worlds, got a Pendulum"):
            function(model.structure, torch.zeros(2), plan)
