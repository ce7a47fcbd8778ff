"""The sparse process against the exact one and against dense algebra."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.inference import (
    RBF,
    ExactPosterior,
    Hyper,
    Matern,
    Periodic,
    Scaled,
    SparsePosterior,
    collapsed_bound,
    draw_paths,
    evaluate_paths,
    log_marginal,
)
from bayeswm.inference.gp_sparse import check_sparse_memory, choose_inducing
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64
KERNELS = [Scaled(RBF()), Scaled(Matern(nu=0.5)), Scaled(Matern(nu=2.5)), RBF(active=0) + RBF(active=1) * Periodic()]


def problem(n=40, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=g, dtype=F64)
    return x, torch.sin(x.sum(-1)) + 0.2 * torch.randn(n, generator=g, dtype=F64)


def log_hyper_of(kernel, seed=0, noise=-1.5):
    drawn = 0.3 * torch.randn(kernel.size(2), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return torch.cat((drawn, torch.tensor([noise], dtype=F64)))


def hyper_of(*log_hyper):
    both = torch.stack(log_hyper).exp()
    return Hyper(both[:, :-1], both[:, -1])


def dense(kernel, x, y, *, inducing, log_hyper):
    """Titsias' bound and the mean and covariance of inducing values, by dense algebra."""
    values, noise = log_hyper[:-1].exp(), float((2 * log_hyper[-1]).exp())
    among = kernel.covariance(inducing, inducing, values)
    among = among + 1e-10 * among.diagonal().mean() * torch.eye(len(inducing), dtype=F64)
    across = kernel.covariance(inducing, x, values)
    explained = across.mT @ torch.linalg.solve(among, across)
    law = torch.distributions.MultivariateNormal(torch.zeros_like(y), explained + noise * torch.eye(len(y), dtype=F64))
    prior = kernel.covariance(x, x, values).diagonal().sum()
    bound = law.log_prob(y) - 0.5 * (prior - explained.trace()) / noise
    inner = torch.linalg.inv(among + across @ across.mT / noise)
    return bound, among @ inner @ across @ y / noise, among @ inner @ among


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_with_the_data_as_inducing_points_it_is_the_exact_process(kernel):
    x, y = problem()
    log_hyper = log_hyper_of(kernel)
    exact, slope, _ = log_marginal(kernel, x, y, log_hyper=log_hyper)
    bound = collapsed_bound(kernel, x, y, inducing=x, log_hyper=log_hyper)
    # n jitter variance / 2 noise^2 = 40 * 1e-10 * 3 / 0.1 is 1e-7 nats
    assert 0 <= exact - bound.value < 1e-6
    torch.testing.assert_close(bound.by_hyper, slope, rtol=0, atol=1e-5)
    posterior = ExactPosterior(kernel, x, y[None], hyper_of(log_hyper))
    sparse = SparsePosterior.prior(kernel, x[None], hyper_of(log_hyper)).condition(x, y[None])
    new = 2 * torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=F64)
    for one, other in zip(sparse.function(new), posterior.function(new), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_best_constant_is_that_of_the_exact_process():
    x, y = problem()
    kernel = Scaled(Matern(nu=1.5))
    settings = {"log_hyper": log_hyper_of(kernel), "constant": True}
    exact = log_marginal(kernel, x, y + 2, **settings)
    bound = collapsed_bound(kernel, x, y + 2, inducing=x, **settings)
    assert 0 <= exact.value - bound.value < 1e-6
    assert abs(exact.constant - bound.constant) < 1e-6
    torch.testing.assert_close(bound.by_hyper, exact.gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_bound_and_posterior_are_those_of_dense_algebra(kernel):
    x, y = problem()
    inducing, log_hyper = x[::5] + 0.1, log_hyper_of(kernel)
    expected, mean, covariance = dense(kernel, x, y, inducing=inducing, log_hyper=log_hyper)
    bound = collapsed_bound(kernel, x, y, inducing=inducing, log_hyper=log_hyper)
    assert abs(bound.value - float(expected)) < 1e-6
    sparse = SparsePosterior.prior(kernel, inducing[None], hyper_of(log_hyper)).condition(x, y[None])
    new, values = torch.randn(9, 2, generator=torch.Generator().manual_seed(1), dtype=F64), log_hyper[:-1].exp()
    among = kernel.covariance(inducing, inducing, values)
    among = among + 1e-10 * among.diagonal().mean() * torch.eye(8, dtype=F64)
    gain = kernel.covariance(new, inducing, values) @ torch.linalg.inv(among)
    of_new = kernel.covariance(new, new, values) - gain @ kernel.covariance(inducing, new, values)
    of_new = of_new + gain @ covariance @ gain.mT
    found = sparse.function(new)
    torch.testing.assert_close(found[0][0], gain @ mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(found[1][0], of_new.diagonal(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_the_gradient_is_that_of_differences(kernel):
    x, y = problem()
    inducing, log_hyper = x[::5] + 0.1, log_hyper_of(kernel)
    bound = collapsed_bound(kernel, x, y, inducing=inducing, log_hyper=log_hyper)

    def slope(change_hyper, change_inducing):
        ends = [
            collapsed_bound(
                kernel, x, y, inducing=inducing + s * change_inducing, log_hyper=log_hyper + s * change_hyper
            ).value
            for s in (1e-5, -1e-5)
        ]
        return (ends[0] - ends[1]) / 2e-5

    for i in range(len(log_hyper)):
        unit = torch.zeros_like(log_hyper)
        unit[i] = 1.0
        expected = slope(unit, torch.zeros_like(inducing))
        assert abs(float(bound.by_hyper[i]) - expected) < 1e-5 * max(abs(expected), 10.0), i
    direction = torch.randn(inducing.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
    expected = slope(torch.zeros_like(log_hyper), direction)
    assert abs(float((bound.by_inducing * direction).sum()) - expected) < 1e-5 * max(abs(expected), 10.0)


@given(st.sampled_from(KERNELS), st.integers(1, 30), st.integers(1, 20), st.integers(0, 10_000), st.floats(-5.0, 1.0))
def test_the_bound_never_exceeds_the_likelihood(kernel, n, m, seed, noise):
    x, y = problem(n, seed)
    inducing = torch.randn(m, 2, generator=torch.Generator().manual_seed(seed + 1), dtype=F64)
    log_hyper = log_hyper_of(kernel, seed, noise)
    exact, *_ = log_marginal(kernel, x, y, log_hyper=log_hyper)
    bound = collapsed_bound(kernel, x, y, inducing=inducing, log_hyper=log_hyper).value
    # rounding: 1e-16 times the terms that are added, which are of the size of y'y / noise^2
    assert bound <= exact + 1e-9 * (1 + float(y @ y + n) / float((2 * log_hyper[-1]).exp()))


def test_loops_over_the_data_change_nothing(monkeypatch):
    x, y = problem()
    kernel, inducing = Scaled(Matern(nu=1.5)), x[::5]
    log_hyper = log_hyper_of(kernel)

    def everything():
        bound = collapsed_bound(kernel, x, y, inducing=inducing, log_hyper=log_hyper)
        sparse = SparsePosterior.prior(kernel, inducing[None], hyper_of(log_hyper)).condition(x, y[None])
        return [torch.tensor(bound.value, dtype=F64), *bound[1:], sparse.square, sparse.cross, *sparse.function(x)]

    whole = everything()
    for kept in (2**24, 0):
        monkeypatch.setattr("bayeswm.inference.gp_sparse._CHUNK", 7 * len(inducing))
        monkeypatch.setattr("bayeswm.inference.gp_sparse._KEPT", kept)
        for one, parts in zip(whole, everything(), strict=True):
            torch.testing.assert_close(parts, one, rtol=1e-9, atol=1e-9)


def test_data_may_come_in_parts():
    x, y = problem()
    kernel = Scaled(RBF())
    start = SparsePosterior.prior(kernel, torch.stack((x[::4], x[1::4])), hyper_of(*[log_hyper_of(kernel)] * 2))
    both = torch.stack((y, -y))
    whole = start.condition(x, both)
    parts = start.condition(x[:13], both[:, :13]).condition(x[13:], both[:, 13:])
    for one, other in zip(whole.function(x), parts.function(x), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    # and without any, it is the prior
    mean, variance = start.function(x)
    assert float(mean.abs().max()) == 0
    torch.testing.assert_close(variance, start.hyper.values[:, -1:].square().expand_as(variance))


@pytest.mark.statistical
@pytest.mark.parametrize("kernel", [KERNELS[0], KERNELS[2], KERNELS[3]], ids=repr)
def test_drawn_functions_have_the_mean_and_covariance_of_the_variational_posterior(kernel):
    x, y = problem(60)
    log_hyper, inducing = log_hyper_of(kernel), x[::6]
    sparse = SparsePosterior.prior(kernel, inducing[None], hyper_of(log_hyper)).condition(x, y[None])
    new, values = torch.tensor([[0.0, 0.0], [0.4, -0.3], [1.5, 1.0], [-3.0, 3.5]], dtype=F64), log_hyper[:-1].exp()
    paths = draw_paths(sparse, 4000, features=1024, generator=torch.Generator().manual_seed(1))
    drawn = evaluate_paths(sparse, paths, new[None])[..., 0]
    _, mean, covariance = dense(kernel, x, y, inducing=inducing, log_hyper=log_hyper)
    gain = torch.linalg.solve(
        kernel.covariance(inducing, inducing, values), kernel.covariance(inducing, new, values)
    ).mT
    expected = kernel.covariance(new, new, values) - gain @ kernel.covariance(inducing, new, values)
    p_mean, p_covariance = gaussian_p(drawn, gain @ mean, expected + gain @ covariance @ gain.mT)
    assert p_mean > BUDGET
    assert p_covariance > BUDGET


def test_inducing_points_are_chosen_where_most_is_left_to_explain():
    g = torch.Generator().manual_seed(0)
    near, far = 0.01 * torch.randn(50, 2, generator=g, dtype=F64), torch.tensor([[5.0, 0.0], [0.0, 5.0]], dtype=F64)
    x = torch.cat((near, far))
    one = torch.ones(3, dtype=F64)
    first = choose_inducing(Scaled(RBF()), x, one, count=3)
    assert {tuple(p) for p in far.tolist()} < {tuple(p) for p in first.tolist()}
    assert torch.equal(first, choose_inducing(Scaled(RBF()), x, one, count=3))
    # each is the row with the largest variance given those before, by dense algebra
    chosen = choose_inducing(Scaled(RBF()), torch.randn(40, 2, generator=g, dtype=F64), one, count=8)
    for i in range(1, 8):
        k = RBF().covariance(chosen, chosen, one[1:])
        left = 1 - (k[i:, :i] @ torch.linalg.inv(k[:i, :i]) * k[i:, :i]).sum(-1)
        assert int(left.argmax()) == 0


def test_repeated_inputs_leave_a_process_that_works():
    x = torch.zeros(30, 2, dtype=F64)
    points = choose_inducing(Scaled(RBF()), x, torch.ones(3, dtype=F64), count=5)
    assert points.shape == (5, 2)
    sparse = SparsePosterior.prior(
        Scaled(RBF()), points[None], hyper_of(torch.tensor([0.0, 0.0, 0.0, -2.0], dtype=F64))
    )
    mean, _ = sparse.condition(x, torch.ones(1, 30, dtype=F64)).function(x[:1])
    # 30 values 1 with noise exp(-4): shrunk towards 0 by their share, 1 / (1 + exp(-4) / 30)
    assert abs(float(mean) - 1 / (1 + torch.exp(torch.tensor(-4.0)).item() / 30)) < 1e-6
    assert 0 < sparse.jitter[0] < 1e-5


def test_too_many_inducing_points_are_refused_before_anything_is_allocated():
    with pytest.raises(bwm.SpecError, match=r"1000000 inducing points need .* GB .* fewer than \d+"):
        check_sparse_memory(2_000_000, 1_000_000, outputs=2, device=torch.device("cpu"))
