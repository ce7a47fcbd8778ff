"""Hyper-parameters of sparse processes: an optimum of the bound, close to the exact process."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import (
    RBF,
    ExactPosterior,
    HyperPriors,
    InducingPoints,
    Scaled,
    SparsePosterior,
    collapsed_bound,
    fit_hyper,
    fit_sparse,
)

F64 = torch.float64


def problem(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=g, dtype=F64)
    y = torch.sin(2 * x[:, 0]) + 0.3 * x[:, 1] + 0.1 * torch.randn(n, generator=g, dtype=F64)
    return x, y[None]


def fit(x, y, inducing, **settings):
    defaults = {"priors": HyperPriors(), "restarts": 2, "noise_floor": 3e-3, "seed": 0}
    return fit_sparse(Scaled(RBF()), x, y, inducing=inducing, **(defaults | settings))


@pytest.mark.parametrize("learned", [False, True])
def test_the_end_is_an_optimum_of_the_stated_bound(learned):
    x, y = problem(500)
    hyper, points, (report,) = fit(x, y, InducingPoints(15, learned=learned), priors=None)
    at = torch.cat((hyper.values[0], hyper.noise)).log()
    bound = collapsed_bound(Scaled(RBF()), x, y[0], inducing=points[0], log_hyper=at)
    assert abs(bound.value - report.log_likelihood) < 1e-6
    assert report.log_likelihood == report.objective
    assert report.converged
    # where steps gain less than 1e-6 of the bound (500 nats), curvatures of 100 leave slopes of 0.3
    assert float(bound.by_hyper.abs().max()) < 1.0


def test_it_comes_close_to_the_exact_process():
    x, y = problem(600)
    settings = {"priors": HyperPriors(), "restarts": 2, "noise_floor": 3e-3, "seed": 0}
    exact, (best,) = fit_hyper(Scaled(RBF()), x, y, **settings)
    hyper, points, (report,) = fit(x, y, InducingPoints(80))
    assert best.objective - 0.5 < report.objective <= best.objective + 1e-6
    torch.testing.assert_close(hyper.values, exact.values, rtol=0.1, atol=0)
    new, _ = problem(200, seed=1)
    one = SparsePosterior.prior(Scaled(RBF()), points, hyper).condition(x, y).function(new)
    other = ExactPosterior(Scaled(RBF()), x, y, exact).function(new)
    assert float((one[0] - other[0]).abs().mean()) < 0.01


def test_learned_points_raise_the_bound():
    x, y = problem(400)
    _, _, (chosen,) = fit(x, y, InducingPoints(6))
    _, moved, (learned,) = fit(x, y, InducingPoints(6, learned=True))
    assert learned.objective > chosen.objective + 1
    assert not bool((moved[0][:, None] == x).all(-1).any())


def test_the_same_seed_gives_the_same_bits():
    x, y = problem(300)
    first, second = fit(x, y, InducingPoints(10)), fit(x, y, InducingPoints(10))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert torch.equal(first[1], second[1])
    assert first[2] == second[2]


def test_values_that_are_not_finite_are_an_error_that_names_kernel_and_size():
    x, y = problem(300)
    with pytest.raises(bwm.FitError, match=r"kernel Scaled\(RBF\(\)\) at n = \d+"):
        fit(x, 1e300 * y, InducingPoints(10))


@pytest.mark.parametrize("settings", [{"count": 0}, {"above": -1}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(bwm.SpecError, match="count >= 1"):
        InducingPoints(**settings)
