"""Rollouts, scores and the split of the variance of linear-Gaussian systems, against exact answers."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, Uniform

import bayeswm as bwm
from bayeswm.structures import FromFunction
from tests.statistical.checks import BUDGET, gaussian_p, mean_p
from tests.statistical.linear import LINE, SCHEMA, START, A, B, LinearWorlds, joint_moments, quadrature

pytestmark = pytest.mark.statistical
ACTIONS = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
SCALES = torch.tensor([0.1, 0.3], dtype=torch.float64)


def linear(x: Tensor, u: Tensor) -> Tensor:
    return x @ A.mT + B * u


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uncertain_line(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p["a"] * x


def line(low: float = 0.5, high: float = 0.9, *, noise: float = 0.3) -> bwm.KnownDynamics:
    """x' = a x + noise with a ~ Uniform(low, high)."""
    law = Uniform(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64))
    return bwm.KnownDynamics(structure=FromFunction(uncertain_line, schema=LINE, parameters={"a": law}), noise=noise)


def test_known_system_has_the_exact_joint_law_of_20_steps() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(linear, schema=SCHEMA), noise=SCALES)
    r = bwm.rollout(model, START, ACTIONS, particles=20000, generator=generator())
    mean, covariance = joint_moments(A, SCALES.diag(), ACTIONS)
    assert min(gaussian_p(r.particles[0].flatten(-2), mean, covariance)) > BUDGET
    assert float(r.epistemic_variance.abs().max()) == 0


def test_full_noise_covariance_has_the_exact_joint_law_of_20_steps() -> None:
    factor = torch.tensor([[0.2, 0.0], [0.15, 0.1]], dtype=torch.float64)
    worlds = LinearWorlds({"A": A[None], "factor": factor[None]}, exhaustive=True)
    r = bwm.rollout(worlds, START, ACTIONS, particles=20000, generator=generator(1))
    mean, covariance = joint_moments(A, factor, ACTIONS)
    assert min(gaussian_p(r.particles[0].flatten(-2), mean, covariance)) > BUDGET
    exact = MultivariateNormal(mean, covariance)
    seen = mean + torch.linalg.cholesky(covariance) @ torch.randn(40, generator=generator(2), dtype=torch.float64)
    score = r.log_score(seen.view(20, 2))
    assert float(score.value) == pytest.approx(float(exact.log_prob(seen)), abs=1e-8)
    assert float(score.standard_error) == 0
    # entry h of the covariance is that of x[h + 1]
    last = covariance[-2:, -2:]
    assert float((r.covariance[-1] - last).abs().max()) < 5 * float(last.abs().max()) * math.sqrt(2 / 20000)


def test_uncertain_system_is_exact_in_each_world_and_by_quadrature_between_them() -> None:
    def system(x: Tensor, u: Tensor, c: Tensor, p: dict[str, Tensor]) -> Tensor:
        return x @ A.mT + B * u + torch.cat((torch.zeros_like(x[..., :1]), p["a"] * x[..., 1:]), -1)

    structure = FromFunction(system, schema=SCHEMA, parameters={"a": Uniform(-0.3, 0.05)})
    model = bwm.KnownDynamics(structure=structure, noise=SCALES)
    worlds = model.draw(400, generator=generator(2))
    r = bwm.rollout(worlds, START, ACTIONS, particles=30, generator=generator(3))
    white, drift = [], []
    for w in range(400):
        matrix = A + torch.diag(torch.tensor([0.0, float(worlds.parameters["a"][w])], dtype=torch.float64))
        mean, covariance = joint_moments(matrix, SCALES.diag(), ACTIONS)
        factor = torch.linalg.cholesky(covariance)
        white.append(torch.linalg.solve_triangular(factor, (r.particles[w].flatten(-2) - mean).mT, upper=False).mT)
        drift.append(mean)
    assert min(gaussian_p(torch.cat(white), torch.zeros(40), torch.eye(40, dtype=torch.float64))) > BUDGET

    def means(values: Tensor) -> Tensor:
        return torch.stack(
            [
                joint_moments(A + torch.diag(torch.tensor([0.0, float(v)]).double()), SCALES.diag(), ACTIONS)[0]
                for v in values
            ]
        )

    exact = quadrature(means, -0.3, 0.05, points=100)
    assert mean_p(r.particles.mean(1).flatten(-2), exact) > BUDGET
    torch.testing.assert_close(r.particles.mean((0, 1)), torch.stack(drift).mean(0).view(20, 2), atol=0.05, rtol=0)


def test_one_step_log_score_is_exact() -> None:
    model = bwm.KnownDynamics(structure=FromFunction(linear, schema=SCHEMA), noise=SCALES)
    x = torch.tensor([[0.7, -0.2], [1.2, -1.0]], dtype=torch.float64)
    p = model.predictive(START.expand(2, 2), torch.tensor([0.5], dtype=torch.float64))
    exact = Normal(linear(START, torch.tensor([0.5])), SCALES).log_prob(x)
    torch.testing.assert_close(p.log_prob(x[:, None]), exact.sum(-1), atol=1e-12, rtol=0)
    torch.testing.assert_close(p.log_prob(x[:, None], marginal=True)[:, 0], exact, atol=1e-12, rtol=0)
    assert bool((p.log_score(x[:, None]).standard_error == 0).all())


def test_joint_log_score_of_drawn_worlds_keeps_its_stated_error() -> None:
    """The density estimate is unbiased, and its spread over repetitions is the standard error that it states."""
    model, seen = line(), torch.tensor([1.4, 0.7, 0.6, 0.1, 0.3], dtype=torch.float64)[:, None]
    start = torch.tensor([2.0], dtype=torch.float64)
    past = torch.cat((start, seen[:-1, 0]))

    def density(a: Tensor) -> Tensor:
        return Normal(a[:, None] * past, 0.3).log_prob(seen[:, 0]).sum(-1).exp()

    exact = float(quadrature(density, 0.5, 0.9).log())
    scores = [
        bwm.rollout(model, start, torch.zeros(5, 0), worlds=64, particles=1, generator=generator(s)).log_score(seen)
        for s in range(300)
    ]
    value = torch.stack([s.value for s in scores])
    stated = torch.stack([s.standard_error for s in scores]).square().mean().sqrt()
    assert mean_p((value - exact).exp(), 1.0) > BUDGET
    # the sd of 300 values has a relative error of 1 / sqrt(600) = 4 %; five of them
    assert float(value.std() / stated) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("known", [True, False])
def test_marginal_log_score_keeps_its_stated_error(known: bool) -> None:
    low, high = (0.7, 0.7 + 1e-9) if known else (0.5, 0.9)
    worlds = line(low, high)
    start, x = torch.tensor([2.0], dtype=torch.float64), torch.tensor([[1.2], [1.0], [0.9]], dtype=torch.float64)

    def density(a: Tensor) -> Tensor:
        steps = torch.arange(1, 4)
        variance = 0.09 * torch.stack([(a[:, None] ** (2 * torch.arange(h))).sum(-1) for h in (1, 2, 3)], -1)
        return Normal(2.0 * a[:, None] ** steps, variance.sqrt()).log_prob(x[:, 0]).exp()

    exact = quadrature(density, low, high).log()
    value, error = [], []
    for seed in range(200):
        drawn = worlds.draw(1 if known else 40, generator=generator(seed))
        if known:
            drawn = drawn.reweight(drawn.log_weight, exhaustive=True)
        r = bwm.rollout(drawn, start, torch.zeros(3, 0), particles=40, generator=generator(1000 + seed))
        score = r.log_score(x, marginal=True)
        value.append(score.value[:, 0])
        error.append(score.standard_error[:, 0])
    gap = (torch.stack(value) - exact).exp()
    assert mean_p(gap[:, 1:], 1.0) > BUDGET
    stated = torch.stack(error).square().mean(0).sqrt()
    if known:
        assert float((torch.stack(value)[:, 0] - exact[0]).abs().max()) < 1e-6
        assert float(stated[0]) == 0
    assert bool(((gap[:, 1:].std(0) / stated[1:] - 1).abs() < 0.25).all())  # five times 1 / sqrt(400)


def exact_split(a: Tensor, weight: Tensor, *, steps: int, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Aleatoric and epistemic variance at each step of x' = a x + noise from 2, for worlds a with weights."""
    powers = a[:, None] ** torch.arange(1, steps + 1)
    within = noise**2 * torch.stack([(a[:, None] ** (2 * torch.arange(h))).sum(-1) for h in range(1, steps + 1)], -1)
    mean = (weight[:, None] * 2 * powers).sum(0)
    return (weight[:, None] * within).sum(0), (weight[:, None] * (2 * powers - mean).square()).sum(0)


@pytest.mark.parametrize("weights", [(0.25, 0.25, 0.25, 0.25), (0.6, 0.25, 0.1, 0.05)])
def test_split_is_unbiased_with_3_particles_in_exhaustive_worlds(weights: tuple[float, ...]) -> None:
    a, weight = torch.tensor([0.5, 0.7, 0.8, 0.95], dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    drawn = line().draw(4, generator=generator()).replace(a=a).reweight(weight.log(), exhaustive=True)
    repeats = torch.full((4000, 1), 2.0, dtype=torch.float64)  # rows of a batch have independent noise
    r = bwm.rollout(drawn, repeats, torch.zeros(6, 0), particles=3, generator=generator(1))
    aleatoric, epistemic = exact_split(a, weight, steps=6)
    assert mean_p(r.aleatoric_variance[..., 0], aleatoric) > BUDGET
    assert mean_p(r.unclamped_epistemic_variance[..., 0], epistemic) > BUDGET
    total = r.aleatoric_variance + r.epistemic_variance
    torch.testing.assert_close(r.variance, total)


@pytest.mark.parametrize("weights", [(0.25, 0.25, 0.25, 0.25), (0.6, 0.25, 0.1, 0.05)])
def test_split_is_unbiased_with_3_particles_in_drawn_worlds(weights: tuple[float, ...]) -> None:
    weight = torch.tensor(weights, dtype=torch.float64)
    aleatoric, epistemic, matrix = [], [], []
    for seed in range(600):
        drawn = line().draw(4, generator=generator(seed)).reweight(weight.log())
        start = torch.tensor([2.0], dtype=torch.float64)
        r = bwm.rollout(drawn, start, torch.zeros(4, 0), particles=3, generator=generator(10000 + seed))
        aleatoric.append(r.aleatoric_variance[:, 0])
        epistemic.append(r.unclamped_epistemic_variance[:, 0])
        matrix.append(r._split_at(3, matrix=True).between[0, 0])
    grid = torch.linspace(0.5, 0.9, 2001, dtype=torch.float64)
    exact = exact_split(0.5 * (grid[1:] + grid[:-1]), torch.full((2000,), 1 / 2000, dtype=torch.float64), steps=4)
    assert mean_p(torch.stack(aleatoric), exact[0]) > BUDGET
    assert mean_p(torch.stack(epistemic), exact[1]) > BUDGET
    torch.testing.assert_close(torch.stack(matrix), torch.stack(epistemic)[:, 3])


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1)])
def test_fresh_worlds_have_the_exact_marginal_moments(weights: tuple[float, float]) -> None:
    """E x' = E a E x and E x'^2 = E a^2 E x^2 + q^2: the parameter is drawn anew at every step."""
    a, weight = torch.tensor([0.4, 1.0], dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    drawn = line().draw(2, generator=generator()).replace(a=a).reweight(weight.log(), exhaustive=True)
    first, second, mean, variance = 2.0, 4.0, [], []
    for _ in range(5):
        first, second = float((weight * a).sum()) * first, float((weight * a**2).sum()) * second + 0.09
        mean.append(first)
        variance.append(second - first**2)
    got = []
    for seed in range(60):
        start = torch.tensor([2.0], dtype=torch.float64)
        r = bwm.rollout(drawn, start, torch.zeros(5, 0), particles=1000, fresh_worlds=True, generator=generator(seed))
        samples = r.sample(2000, generator=generator(seed + 500))[..., 0]
        got.append(torch.stack((r.mean[:, 0], r.variance[:, 0], samples.mean(0))))
    table = torch.stack(got)
    assert mean_p(table[:, 0], torch.tensor(mean, dtype=torch.float64)) > BUDGET
    assert mean_p(table[:, 1], torch.tensor(variance, dtype=torch.float64)) > BUDGET
    assert mean_p(table[:, 2], torch.tensor(mean, dtype=torch.float64)) > BUDGET


def test_fresh_worlds_have_the_exact_probabilities() -> None:
    a, weight = torch.tensor([0.4, 1.0], dtype=torch.float64), torch.tensor([0.9, 0.1], dtype=torch.float64)
    drawn = line().draw(2, generator=generator()).replace(a=a).reweight(weight.log(), exhaustive=True)
    start, x = torch.tensor([2.0], dtype=torch.float64), torch.tensor([[1.0], [0.8]], dtype=torch.float64)
    # after two steps: x = a2 (2 a1 + n1 / .3 ...) is a mixture of four Gaussians
    exact = sum(
        weight[i] * weight[j] * torch.special.ndtr((0.8 - 2 * a[i] * a[j]) / (0.3 * (1 + a[j] ** 2).sqrt()))
        for i in range(2)
        for j in range(2)
    )
    got, density = [], []
    for seed in range(60):
        r = bwm.rollout(drawn, start, torch.zeros(2, 0), particles=500, fresh_worlds=True, generator=generator(seed))
        got.append(r.cdf(x)[1, 0])
        density.append(r.log_prob(x))
    assert mean_p(torch.stack(got)[:, None], torch.as_tensor(exact)) > BUDGET
    # the joint density along what was seen multiplies the mixtures: exact, since each one-step law is
    product = sum(
        torch.log((weight * Normal(a * before, 0.3).log_prob(now).exp()).sum())
        for before, now in ((torch.tensor(2.0), x[0, 0]), (x[0, 0], x[1, 0]))
    )
    torch.testing.assert_close(torch.stack(density), torch.as_tensor(product).expand(60).double())


def test_a_belief_about_the_start_has_the_exact_law() -> None:
    factor = torch.tensor([[0.5, 0.0], [0.2, 0.3]], dtype=torch.float64)
    belief = bwm.MultivariateGaussian(START.view(1, 1, 2), factor)
    model = bwm.KnownDynamics(structure=FromFunction(linear, schema=SCHEMA), noise=SCALES)
    r = bwm.rollout(model, belief, ACTIONS[:5], particles=20000, generator=generator(4))
    mean, covariance = joint_moments(A, SCALES.diag(), ACTIONS[:5])
    lift = torch.cat([torch.linalg.matrix_power(A, h) @ factor for h in range(1, 6)])
    assert min(gaussian_p(r.particles[0].flatten(-2), mean, covariance + lift @ lift.mT)) > BUDGET


def test_a_belief_without_noise_meets_every_world() -> None:
    """A law without noise is broadcast to all worlds, each with its own parameter."""
    belief = bwm.Gaussian(torch.full((1, 1, 1), 2.0, dtype=torch.float64))
    drawn = line(noise=0.0).draw(3, generator=generator()).replace(a=torch.tensor([0.5, 0.6, 0.7]))
    r = bwm.rollout(drawn, belief, torch.zeros(1, 0), particles=2)
    torch.testing.assert_close(r.particles[:, 0, 0, 0], torch.tensor([1.0, 1.2, 1.4], dtype=torch.float64))


def test_one_particle_a_world_leaves_the_split_undefined_and_the_total_defined() -> None:
    drawn = line().draw(50, generator=generator())
    r = bwm.rollout(drawn, torch.tensor([2.0]), torch.zeros(3, 0), particles=1, generator=generator(1))
    with pytest.warns(bwm.UndefinedWarning, match="2 particles"):
        aleatoric = r.aleatoric_variance
    assert bool(aleatoric[1:].isnan().all())
    assert bool(aleatoric[0].isfinite().all())  # the first step needs no particles
    law = r.laws[2]
    expected = law.variance.mean() + law.mean[:, 0, 0].var()
    torch.testing.assert_close(r.variance[2, 0], expected)


def test_one_drawn_world_has_no_epistemic_variance_to_tell() -> None:
    drawn = line().draw(1, generator=generator())
    r = bwm.rollout(drawn, torch.tensor([2.0]), torch.zeros(3, 0), particles=30, generator=generator(1))
    with pytest.warns(bwm.UndefinedWarning, match="one world was drawn"):
        assert bool(r.epistemic_variance.isnan().all())
    torch.testing.assert_close(r.variance, r.aleatoric_variance)
    p = line().predictive(torch.tensor([2.0]), torch.zeros(0), worlds=1, generator=generator())
    torch.testing.assert_close(p.variance, torch.full((1, 1), 0.09, dtype=torch.float64))
