"""Moments of a process at a Gaussian input against the published equations, written as loops, and against limits."""

import dataclasses

import pytest
import torch

from bayeswm.base.errors import SpecError
from bayeswm.inference import RBF, ExactPosterior, Hyper, Matern, RBFMoments, Scaled, SparsePosterior, gp_moment_sweep

F64 = torch.float64


def problem(*, outputs=3, inputs=4, n=15, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, inputs, generator=g, dtype=F64)
    y = torch.sin(x @ torch.randn(inputs, outputs, generator=g, dtype=F64)).mT.contiguous()
    values = torch.exp(0.3 * torch.randn(outputs, inputs + 1, generator=g, dtype=F64))
    return ExactPosterior(Scaled(RBF()), x, y, Hyper(values, torch.full((outputs,), 0.2, dtype=F64)))


def sparse(outputs=2, inputs=2):
    exact = problem(outputs=outputs, inputs=inputs, n=40)
    centers = torch.stack([exact.x[s :: 4 + s][:8] for s in range(outputs)])  # of each output others
    return SparsePosterior.prior(exact.kernel, centers, exact.hyper).condition(exact.x, exact.y)


def beliefs(inputs, batch=2, *, size=0.3, seed=1):
    g = torch.Generator().manual_seed(seed)
    root = size * torch.randn(batch, inputs, inputs, generator=g, dtype=F64)
    return 0.4 * torch.randn(batch, inputs, generator=g, dtype=F64), root @ root.mT


def published(posterior, m, S):
    """Deisenroth, Fox & Rasmussen (2015), equations 16-23 of section 4.2, without noise: mean, gain, covariances."""
    E, D = len(posterior.alpha), len(m)
    one, lengths, signal = torch.eye(D, dtype=F64), posterior.hyper.values[:, :D], posterior.hyper.values[:, D].square()
    mean, gain = torch.zeros(E, dtype=F64), torch.zeros(D, E, dtype=F64)
    for a in range(E):
        away, square = posterior.centers[a] - m, lengths[a].square().diag()
        sharp = torch.linalg.inv(S + square)
        for i, z in enumerate(away):
            fall = torch.linalg.det(S @ torch.linalg.inv(square) + one) ** -0.5
            q = signal[a] * fall * torch.exp(-0.5 * z @ sharp @ z)
            mean[a] += posterior.alpha[a, i] * q
            gain[:, a] += posterior.alpha[a, i] * q * sharp @ z
    covariance, variance = torch.zeros(E, E, dtype=F64), torch.zeros(E, dtype=F64)
    for a in range(E):
        for b in range(E):
            A, B = (torch.linalg.inv(lengths[c].square().diag()) for c in (a, b))
            R = S @ (A + B) + one
            Q = torch.zeros(len(posterior.alpha[a]), len(posterior.alpha[b]), dtype=F64)
            for i, x in enumerate(posterior.centers[a] - m):
                for j, y in enumerate(posterior.centers[b] - m):
                    z = A @ x + B @ y
                    exponent = -0.5 * (x @ A @ x + y @ B @ y) + 0.5 * z @ torch.linalg.solve(R, S) @ z
                    Q[i, j] = signal[a] * signal[b] * torch.linalg.det(R) ** -0.5 * torch.exp(exponent)
            covariance[a, b] = posterior.alpha[a] @ Q @ posterior.alpha[b] - mean[a] * mean[b]
            if a == b:
                variance[a] = signal[a] - (posterior.reduction[a] * Q).sum()
    return mean, gain, covariance, variance


@pytest.mark.parametrize(
    "posterior", [problem(), problem(outputs=1, inputs=1), sparse()], ids=["exact", "one", "sparse"]
)
@pytest.mark.parametrize("size", [1e-3, 0.3, 3.0])
def test_the_published_equations(posterior, size):
    mean, covariance = beliefs(posterior.centers.shape[-1], size=size)
    found = RBFMoments.of(posterior)(mean, covariance)
    for i in range(len(mean)):
        for ours, theirs in zip(found, published(posterior, mean[i], covariance[i]), strict=True):
            assert torch.allclose(ours[i], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("posterior", [problem(), sparse()], ids=["exact", "sparse"])
def test_at_a_known_input_it_is_the_posterior(posterior):
    mean, covariance = beliefs(posterior.centers.shape[-1], 5)
    found = RBFMoments.of(posterior)(mean, 0 * covariance)
    expected, variance = posterior.function(mean)
    assert torch.allclose(found.mean, expected.mT, rtol=0, atol=1e-12)
    assert torch.allclose(found.variance, variance.mT, rtol=0, atol=1e-12)
    assert bool((found.covariance == 0).all())
    slope = torch.autograd.functional.jacobian(lambda x: posterior.function(x)[0].sum(-1), mean)
    assert torch.allclose(found.gain, slope.permute(1, 2, 0), rtol=0, atol=1e-10)


def test_a_nearly_known_input_keeps_its_digits():
    posterior = problem()
    mean, covariance = beliefs(4)
    # large weights that cancel: Q - q q' alone would be off by 1e-9
    big = dataclasses.replace(RBFMoments.of(posterior), alpha=1e4 * posterior.alpha)
    tiny = big(mean, 1e-10 * covariance)
    expected = 1e-10 * tiny.gain.mT @ covariance @ tiny.gain
    assert torch.allclose(tiny.covariance, expected, rtol=1e-5, atol=0)


def test_the_series_and_the_exponential_agree(monkeypatch):
    posterior, (mean, covariance) = problem(), beliefs(4, size=0.02)
    mean.requires_grad_()

    def both():
        found = RBFMoments.of(posterior)(mean, covariance)
        return (*found, *torch.autograd.grad(sum(v.sin().sum() for v in found), mean))

    monkeypatch.setattr("bayeswm.inference.gp_moment_pairs.SMALL", 1.0)
    series = both()
    monkeypatch.setattr("bayeswm.inference.gp_moment_pairs.SMALL", 0.0)
    for a, b in zip(series, both(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("chunk", [40, 100, 230, 2**17])
@pytest.mark.parametrize("size", [0.01, 0.5])
def test_blocks_change_nothing(monkeypatch, chunk, size):
    posterior, (mean, covariance) = problem(), beliefs(4, 3, size=size)
    covariance.requires_grad_()

    def both():
        found = RBFMoments.of(posterior)(mean, covariance)
        return (*found, *torch.autograd.grad(sum(v.sin().sum() for v in found), covariance))

    expected = both()
    monkeypatch.setattr(gp_moment_sweep, "CHUNK", chunk)
    for a, b in zip(expected, both(), strict=True):
        assert torch.allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("posterior", [problem(n=8), problem(outputs=1, n=5), sparse()], ids=["exact", "one", "sparse"])
@pytest.mark.parametrize("size", [0.0, 1e-3, 0.4])
def test_the_gradient(posterior, size):
    mean, covariance = beliefs(posterior.centers.shape[-1], size=size)
    moments = RBFMoments.of(posterior).in_units(
        mean=torch.tensor(0.1, dtype=F64).expand(mean.shape[-1]),
        scale=torch.linspace(0.8, 1.2, mean.shape[-1], dtype=F64),
        output_scale=torch.linspace(0.5, 2.0, len(posterior.alpha), dtype=F64),
    )

    def symmetric(m, s):
        return tuple(moments(m, 0.5 * (s + s.mT)))

    assert torch.autograd.gradcheck(symmetric, (mean.requires_grad_(), covariance.requires_grad_()))


def test_units_are_only_units():
    posterior, (mean, covariance) = problem(outputs=2), beliefs(4)
    shift, scale, output = (
        torch.randn(4, dtype=F64),
        torch.rand(4, dtype=F64) + 0.5,
        torch.tensor([0.1, 7.0], dtype=F64),
    )
    plain = RBFMoments.of(posterior)
    raw = plain.in_units(mean=shift, scale=scale, output_scale=output)
    for factor in (1.0, 0.0):
        found = raw(mean * scale + shift, factor * scale[:, None] * covariance * scale)
        expected = plain(mean, factor * covariance)
        assert torch.allclose(found.mean, expected.mean * output, rtol=1e-12)
        assert torch.allclose(found.gain, expected.gain / scale[:, None] * output, rtol=1e-12)
        assert torch.allclose(found.covariance, expected.covariance * output[:, None] * output, rtol=1e-12)
        assert torch.allclose(found.variance, expected.variance * output.square(), rtol=1e-10)


def test_far_away_and_knowing_nothing_it_is_the_prior():
    posterior = problem()
    moments, signal = RBFMoments.of(posterior), posterior.hyper.values[:, -1].square()
    mean, covariance = torch.full((4,), 1e3, dtype=F64), torch.eye(4, dtype=F64)
    for belief in ((mean, covariance), (mean, 0 * covariance), (0 * mean, 1e12 * covariance)):
        found = moments(*belief)
        assert torch.allclose(found.variance, signal, rtol=1e-6)
        assert float(found.mean.abs().max()) < 1e-6
        assert float(found.covariance.abs().max()) < 1e-6
        assert all(bool(v.isfinite().all()) for v in found)


def test_far_points_do_not_overflow():
    one = torch.ones(1, dtype=F64)
    x = torch.tensor([[0.0], [40.0], [-60.0]], dtype=F64)
    posterior = ExactPosterior(RBF(), x, torch.ones(1, 3, dtype=F64), Hyper(one.view(1, 1), 0.1 * one))
    mean, covariance = (0 * one).requires_grad_(), one.view(1, 1).clone().requires_grad_()
    found = RBFMoments.of(posterior)(mean, covariance)
    assert all(bool(v.isfinite().all()) for v in found)
    slopes = torch.autograd.grad(sum(v.sum() for v in found), (mean, covariance))
    assert all(bool(v.isfinite().all()) for v in slopes)
    # E k(x, 0)^2 of a unit normal is 1 / sqrt(3)
    q, square = 0.5**0.5, 3**-0.5
    assert float(found.covariance.detach()) == pytest.approx((square - q**2) / 1.01**2, rel=1e-9)


def test_a_belief_of_lower_rank():
    posterior, (mean, covariance) = problem(), beliefs(4)
    covariance[:, 1:] = covariance[:, :, 1:] = 0.0
    found = RBFMoments.of(posterior)(mean, covariance)
    nearly = RBFMoments.of(posterior)(mean, covariance + 1e-13 * torch.eye(4, dtype=F64))
    for a, b in zip(found, nearly, strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_a_batch_is_its_rows():
    posterior, (mean, covariance) = problem(), beliefs(4, 6)
    found = RBFMoments.of(posterior)(mean.view(2, 3, 4), covariance.view(2, 3, 4, 4))
    assert found.gain.shape == (2, 3, 4, 3)
    for i in range(6):
        alone = RBFMoments.of(posterior)(mean[i], covariance[i])
        for a, b in zip(found, alone, strict=True):
            assert torch.allclose(a.flatten(0, 1)[i], b, rtol=1e-12, atol=1e-14)


def test_a_second_derivative_is_refused():
    mean, covariance = beliefs(4, 1)
    mean.requires_grad_()
    found = RBFMoments.of(problem())(mean, covariance)
    with pytest.raises(SpecError, match="first derivative"):
        torch.autograd.grad(found.mean.sum(), mean, create_graph=True)


@pytest.mark.parametrize("kernel", [Scaled(Matern()), Scaled(RBF() + RBF())], ids=repr)
def test_other_kernels_have_none(kernel):
    exact = problem()
    values = torch.ones(3, kernel.size(4), dtype=F64)
    assert RBFMoments.of(ExactPosterior(kernel, exact.x, exact.y, Hyper(values, exact.hyper.noise))) is None
