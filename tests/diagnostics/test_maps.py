"""Maps of outcomes keep worlds, particles and ranks, and every answer of the mapped predictive is right."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.predictive import Predictive
from bayeswm.diagnostics import crps
from bayeswm.diagnostics.maps import NormalScores, OutcomeMap, Stretch, TwoSided, as_points, stretched
from bayeswm.diagnostics.univariate_scores import crps_mixture
from bayeswm.inference.student import StudentT
from tests.diagnostics.recordings import Linear

COLUMNS = ("x", "v")


def imagine(model: bwm.DynamicsModel, *, particles: int = 30, seed: int = 0, steps: int = 4, **more) -> Predictive:
    g = torch.Generator().manual_seed(seed)
    start = torch.tensor([[0.5, -0.5], [2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    return bwm.rollout(model, start, torch.zeros(3, steps, 1), particles=particles, generator=g, **more)


def some_map(kind: str, factor: float = 1.7, steps: int = 4) -> OutcomeMap:
    full = torch.full((steps, 2), factor, dtype=torch.float64)
    if kind == "stretch":
        return Stretch(COLUMNS, {"factor": full})
    if kind == "two-sided":
        return TwoSided(COLUMNS, {"lower": full / 2, "upper": full})
    knots = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64).expand(steps, 2, 3)
    return NormalScores(COLUMNS, {"knots": knots, "moved": factor * knots + 0.3, "slope": full})


KINDS = ("stretch", "two-sided", "scores")


def order(p: Predictive) -> Tensor:
    return p.particles.flatten(0, 1).argsort(0)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_worlds_and_particles_are_kept(linear: Linear, kind: str) -> None:
    before = imagine(linear.truth)
    after = some_map(kind)(before)
    assert after.particles.shape == before.particles.shape
    assert torch.equal(order(after), order(before))
    assert torch.equal(after.log_weight, before.log_weight)
    assert after.initial is before.initial
    assert not torch.allclose(after.particles, before.particles)


@pytest.mark.parametrize("kind", KINDS)
def test_identity(linear: Linear, kind: str) -> None:
    before = imagine(linear.truth)
    one = torch.ones(4, 2, dtype=torch.float64)
    still = torch.zeros(4, 2, 1, dtype=torch.float64)
    tensors = {
        "stretch": {"factor": one},
        "two-sided": {"lower": one, "upper": one},
        "scores": {"knots": still, "moved": still, "slope": one},
    }
    after = type(some_map(kind))(COLUMNS, tensors[kind])(before)
    assert torch.allclose(after.particles, before.particles, atol=1e-12)


def test_stretch_scales_both_parts_of_the_variance(linear: Linear) -> None:
    members = bwm.Gaussian(
        torch.tensor([0.0, 2.0, 3.0]).double().view(3, 1, 1).expand(3, 1, 2), torch.ones(3, 1, 2).double()
    )
    variables = linear.truth.schema.state
    weight = torch.tensor([0.5, 0.3, 0.2]).double().log()
    p = Predictive(variables, [members], weight, exhaustive=False, time_step=0.1)
    q = Stretch(COLUMNS, {"factor": torch.tensor([[2.0, 0.5]]).double()})(p)
    square = torch.tensor([4.0, 0.25]).double()
    assert torch.allclose(q.mean, p.mean)
    for name in ("variance", "aleatoric_variance", "epistemic_variance"):
        assert torch.allclose(getattr(q, name), square * getattr(p, name))
    y = torch.tensor([[1.7, -0.4]]).double()
    back = p.mean + (y - p.mean) / square.sqrt()
    assert torch.allclose(q.cdf(y), p.cdf(back))
    assert torch.allclose(q.quantile(0.3), p.mean + square.sqrt() * (p.quantile(0.3) - p.mean))
    # the score in closed form, of the components of the stretched mixture
    center = p.mean[0]
    mean, scale = center + square.sqrt() * (members.mean[:, 0] - center), square.sqrt().expand(3, 2)
    expected = crps_mixture(mean, scale, y[0], weight=weight.exp()[:, None].expand(3, 2), fair=True)
    assert torch.allclose(crps(q, y)[0], expected)
    draws = q.sample(4000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(draws.mean(0), q.mean, atol=5 * float(q.stddev.max()) / 4000**0.5)
    with pytest.raises(bwm.SpecError, match="density"):
        q.log_prob(y)


@pytest.mark.parametrize("law", ["student", "full"])
def test_laws_of_other_kinds_are_stretched_too(law: str) -> None:
    mean = torch.tensor([[[0.3, -1.0]]]).double()
    root = torch.tensor([[0.5, 0.0], [0.4, 0.9]]).double()
    inner = StudentT(mean, torch.tensor([0.5, 2.0]).double(), torch.tensor(5.0).double())
    if law == "full":
        inner = bwm.MultivariateGaussian(mean, root)
    center, factor = torch.tensor([0.0, 1.0]).double(), torch.tensor([2.0, 3.0]).double()
    wide = stretched(inner, center, factor)
    noise = torch.randn(1, 1, inner.noise_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(wide.push(noise), center + factor * (inner.push(noise) - center))
    assert torch.allclose(wide.mean, center + factor * (mean - center))
    assert torch.allclose(wide.covariance, factor[:, None] * inner.covariance * factor)
    assert torch.allclose(wide.variance, factor.square() * inner.variance)
    y = torch.tensor([1.0, 2.0]).double()
    assert torch.allclose(wide.cdf(y), inner.cdf(center + (y - center) / factor))
    cut = wide.map(lambda v: v[:, :, None])
    assert cut.mean.shape == (1, 1, 1, 2)


@pytest.mark.parametrize("kind", ["two-sided", "scores"])
def test_maps_by_rank_say_that_the_split_is_gone(linear: Linear, kind: str) -> None:
    after = some_map(kind)(imagine(linear.truth))
    for name in ("aleatoric_variance", "epistemic_variance", "unclamped_epistemic_variance"):
        with pytest.warns(bwm.UndefinedWarning, match="mapped by their ranks"):
            assert getattr(after, name).isnan().all()
    flat = after.particles.flatten(0, 1)
    assert torch.allclose(after.variance, flat.var(0))
    assert torch.allclose(after.mean, flat.mean(0))
    assert "epistemic_variance" not in after.to_xarray()
    with pytest.warns(bwm.UndefinedWarning):
        assert after[1].epistemic_variance.isnan().all()
    assert not after.flatten().has_split
    with pytest.raises(bwm.SpecError, match="density"):
        after.log_prob(after.mean)


@pytest.mark.parametrize("kind", ["two-sided", "scores"])
def test_answers_are_those_of_the_mapped_particles(linear: Linear, kind: str) -> None:
    after = some_map(kind)(imagine(linear.truth, particles=50))
    flat = after.particles.flatten(0, 1)
    y = after.mean + 0.3
    assert torch.allclose(after.cdf(y), (flat <= y).double().mean(0))
    # the smallest x with cdf(x) >= 0.3 among 50 is the 15th
    assert torch.allclose(after.quantile(0.3), flat.sort(0).values[14], atol=1e-9)
    fair = (flat - y).abs().mean(0) - (flat[:, None] - flat).abs().sum((0, 1)) / (2 * 50 * 49)
    assert torch.allclose(crps(after, y), fair)


def test_events_see_the_map(linear: Linear) -> None:
    before = imagine(linear.truth, particles=4000)
    after = some_map("stretch", 2.0)(before)
    limit = before.mean[..., 3, 0] + before.stddev[..., 3, 0]

    def above(paths: Tensor) -> Tensor:
        return paths[..., 3, 0] > limit

    # one standard deviation of the old law is half a one of the new: 1 - Phi(1) and 1 - Phi(1/2)
    for p, exact in ((before, 0.158655), (after, 0.308538)):
        found = p.probability(above)
        assert bool(((found.value - exact).abs() < 4.5 * found.standard_error).all())


def test_gaussian_windows_are_widened_by_the_slope_of_scores(linear: Linear) -> None:
    before = imagine(linear.truth, particles=2000)
    zero = torch.zeros(4, 2, 1, dtype=torch.float64)
    slope = torch.full((4, 2), 1.5, dtype=torch.float64)
    after = NormalScores(COLUMNS, {"knots": zero, "moved": zero + 0.5, "slope": slope})(before)
    # x = m + s z goes to m + s (1.5 z + 0.5); the middle half lies far inside 2000 draws: their quartiles are its knots
    low, middle, high = (torch.special.ndtri(torch.tensor(q).double()) for q in (0.25, 0.5, 0.75))
    for p in (low, middle, high):
        at = torch.special.ndtr(1.5 * p + 0.5)
        assert torch.allclose(after.quantile(torch.special.ndtr(p)), as_points(before).quantile(at), atol=0.01)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.0, 1.0, 1.5, -2.0]), min_size=6, max_size=6),
    st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3),
    st.sampled_from(KINDS),
)
def test_ties_weights_and_zero_spread(values: list[float], weights: list[float], kind: str) -> None:
    particles = torch.tensor(values, dtype=torch.float64).view(1, 3, 2, 1).expand(1, 3, 2, 2).clone()
    weight = torch.tensor(weights, dtype=torch.float64)
    law = bwm.Gaussian(particles[0])
    variables = bwm.base.Variables([bwm.Variable("x"), bwm.Variable("v")])
    p = Predictive(
        variables, [law], torch.log_softmax(weight.log(), 0), exhaustive=True, time_step=1.0, particles=particles
    )
    x, y = p.particles.flatten(), some_map(kind)(p).particles.flatten()
    assert bool(y.isfinite().all())
    rising = x.argsort()
    assert bool((y[rising].diff() >= -1e-9).all())
    same = x[:, None] == x
    assert torch.allclose(torch.where(same, y[:, None] - y, 0.0), torch.zeros(()).double(), atol=1e-9)


def test_particles_that_diverged_stay_out(linear: Linear) -> None:
    before = imagine(linear.truth, particles=6)
    lost = torch.zeros(4, 1, 6, 3, dtype=torch.bool)
    lost[2:, :, 0] = True
    paths = before.particles.movedim(-2, 0).clone()
    paths[2:, :, 0] = float("inf")
    broken = Predictive(
        before.variables, before.laws, before.log_weight, exhaustive=True, time_step=0.1, particles=paths, diverged=lost
    )
    fewer = Predictive(
        before.variables,
        [law.map(lambda v: v[:, 1:] if v.shape[1] > 1 else v) for law in before.laws],
        before.log_weight,
        exhaustive=True,
        time_step=0.1,
        particles=paths[:, :, 1:],
    )
    after, expected = (some_map("scores")(p) for p in (broken, fewer))
    assert torch.allclose(after.particles[:, 1:, :, 2:], expected.particles[..., 2:, :])
    assert torch.allclose(after.mean[..., 2:, :], expected.mean[..., 2:, :])
    assert bool(after.diverged[:, 0, :, 2:].all())


def test_a_point_of_a_silent_system_needs_one_particle() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    points = as_points(bwm.rollout(model, torch.ones(2), torch.zeros(3, 1), particles=1))
    assert points.variance.tolist() == [[0.0, 0.0]] * 3


def test_wrong_variables_and_long_horizons_are_refused(linear: Linear) -> None:
    p = imagine(linear.truth)
    with pytest.raises(bwm.SpecError, match="at most the 3 steps"):
        some_map("stretch", steps=3)(p)
    one = torch.ones(4, 1)
    with pytest.raises(bwm.SpecError, match=r"of \(y\)"):
        Stretch(("y",), {"factor": one})(p)
    with pytest.raises(bwm.SpecError, match="shape"):
        Stretch(COLUMNS, {"factor": one})
    with pytest.raises(bwm.SpecError, match="finite"):
        Stretch(("y",), {"factor": one * float("nan")})
    assert some_map("scores")(imagine(linear.truth, steps=0)).particles.shape == (1, 30, 3, 0, 2)
    assert np.isclose(float(some_map("stretch", steps=9)(p).stddev[0, 0, 0]), 1.7 * 0.3)


def test_gradients_pass_through(linear: Linear) -> None:
    start = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    for kind in KINDS:
        g = torch.Generator().manual_seed(0)
        p = bwm.rollout(linear.truth, start, torch.zeros(2, 1), particles=9, generator=g)
        (slope,) = torch.autograd.grad(some_map(kind)(p).particles.mean((0, 1))[-1, 0], start, retain_graph=True)
        (plain,) = torch.autograd.grad(p.particles.mean((0, 1))[-1, 0], start)
        # the start moves all particles of a linear system alike, and so it does after the map
        assert torch.allclose(slope, plain)
