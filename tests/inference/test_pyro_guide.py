import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal

from bayeswm.base import FitError, FitWarning, SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import SVI
from tests.inference.test_svi import COVARIANCE, LOG_EVIDENCE, MEAN, SIZE, regression
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64


def by_hand() -> None:
    """Independent normal laws, written as a function."""
    loc = pyro.param("loc", torch.zeros(SIZE, dtype=F64))
    scale = pyro.param("scale", torch.full((SIZE,), 0.1, dtype=F64), constraint=dist.constraints.positive)
    pyro.sample("w", dist.Normal(loc, scale).to_event(1))


@pytest.mark.statistical
def test_a_guide_class_of_pyro_finds_the_posterior() -> None:
    settings = SVI(guide=AutoMultivariateNormal, particles=2, steps=1500, draws=500)
    found = settings.infer(regression(), generator=make_generator(0))
    w = found.values["w"]
    assert w.shape == (1, 500, SIZE)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(COVARIANCE), (w[0] - MEAN).mT, upper=False)
    # the steps of Pyro's estimate have noise: a tenth of a standard deviation stays in the mean
    assert chi_square_p(white.mean(1).square().sum() / (1 / 500 + 0.1**2), SIZE) > BUDGET
    assert LOG_EVIDENCE - 0.3 < found.statistics["elbo"] < LOG_EVIDENCE + 4 * found.statistics["elbo_error"]
    assert found.statistics["pareto_k"] < 0.7


@pytest.mark.parametrize("batch", [None, 20])
@pytest.mark.filterwarnings("ignore::bayeswm.base.errors.FitWarning")
def test_a_guide_that_is_a_function(batch: int | None) -> None:
    settings = SVI(guide=by_hand, particles=2, steps=600, batch=batch, draws=300)
    one, two = (settings.infer(regression(), generator=make_generator(3)) for _ in range(2))
    assert torch.equal(one.values["w"], two.values["w"])
    spread = COVARIANCE.diagonal().sqrt()
    assert bool(((one.values["w"].mean((0, 1)) - MEAN).abs() < spread).all())
    stats = one.sample_stats
    torch.testing.assert_close(one.statistics["elbo"], float((stats["lp"] - stats["log_q"]).mean()), rtol=1e-9, atol=0)


def test_sites_are_checked() -> None:
    def misspelt() -> None:
        pyro.sample("W", dist.Normal(pyro.param("a", torch.zeros(SIZE)), 1.0).to_event(1))

    def more() -> None:
        by_hand()
        pyro.sample("bias", dist.Normal(0.0, 1.0))

    def shape() -> None:
        pyro.sample("w", dist.Normal(pyro.param("a", torch.zeros(2)), 1.0).to_event(1))

    def fixed() -> None:
        pyro.sample("w", dist.Normal(torch.zeros(SIZE), 1.0).to_event(1))

    cases = {
        misspelt: r"the guide misspelt to have the sites w: w is missing \(did you mean 'W'\?\); W is unknown",
        more: "bias is unknown",
        shape: r"the guide shape, w: expected shape \(5,\), got \(2,\)",
        fixed: "expected parameters in the guide fixed",
        (lambda model: 3): "to make a guide from a model, got 3",
    }
    for guide, message in cases.items():
        with pytest.raises(SpecError, match=message):
            SVI(guide=guide).infer(regression(), generator=make_generator(0))


def test_a_step_that_is_not_finite_names_the_parameter() -> None:
    steps = 0

    def breaks() -> None:
        nonlocal steps
        steps += 1
        loc = pyro.param("loc", torch.zeros(SIZE, dtype=F64))
        bad = math.nan if steps > 4 else 1.0
        pyro.sample("w", dist.Normal(bad * loc, 0.1).to_event(1))

    before = dict(pyro.get_param_store().items())
    with pytest.raises(
        FitError, match=r"step 4: .* the gradient is not finite in loc"
    ):  # the first run finds the sites
        SVI(guide=breaks, particles=1).infer(regression(), generator=make_generator(0))
    assert dict(pyro.get_param_store().items()) == before


@pytest.mark.filterwarnings("ignore:Pareto k:bayeswm.base.errors.FitWarning")
def test_parameters_that_appear_later_are_fitted_too() -> None:
    steps = 0

    def grows() -> None:
        nonlocal steps
        steps += 1
        loc = 0 * pyro.param("loc", torch.zeros(SIZE, dtype=F64))
        if steps > 10:
            loc = loc + pyro.param("more", torch.zeros(SIZE, dtype=F64))
        pyro.sample("w", dist.Normal(loc, 0.1).to_event(1))

    found = SVI(guide=grows, particles=1, steps=400, draws=40).infer(regression(), generator=make_generator(0))
    assert bool(((found.values["w"].mean((0, 1)) - MEAN).abs() < 0.3).all())


@pytest.mark.filterwarnings("ignore:Pareto k:bayeswm.base.errors.FitWarning")
def test_an_interrupted_run_keeps_its_state() -> None:
    steps = 0

    def interrupted() -> None:
        nonlocal steps
        steps += 1
        if steps == 30:
            raise KeyboardInterrupt
        by_hand()

    with pytest.warns(FitWarning, match="interrupted after 28 steps"):
        SVI(guide=interrupted, particles=1, draws=40).infer(regression(), generator=make_generator(0))
