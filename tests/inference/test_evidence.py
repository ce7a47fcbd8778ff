import math

import pytest
import torch
from torch import Tensor
from torch.distributions import HalfNormal, LogNormal, MultivariateNormal, Normal

from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.inference import Curvature, Diagonal, FullHessian, GaussNewton, Joint, Kronecker, Laplace, LastLayer
from tests.inference.joints import F64, WAVE, X, by_column, gaussian_joint, network_joint, randn

INPUTS = randn(30, 4, seed=0)
OUTPUTS = INPUTS @ (3 * randn(4, 2, seed=1)) + torch.tensor([0.2, 1.5], dtype=F64) * randn(30, 2, seed=2)
LAW = HalfNormal(torch.tensor(2.0, dtype=F64))


def one_layer(noise: dict[str, float]) -> Joint:
    """Linear regression, written as a network of one layer: 5 coefficients for each of two columns."""
    laws = {"net": Normal(torch.zeros(10, dtype=F64), 1.0)} | {k: LAW for k in ("a", "b") if k in noise}
    return network_joint((4, 2), INPUTS, OUTPUTS, laws=laws, noise=noise)


def exact(factor: Tensor | float, noise: tuple[Tensor | float, ...]) -> Tensor:
    """Log evidence of linear regression with this prior scale."""
    phi = torch.cat((INPUTS, torch.ones(30, 1, dtype=F64)), -1)
    total = torch.zeros((), dtype=F64)
    for i, s in enumerate(noise):
        covariance = factor**2 * phi @ phi.mT + s**2 * torch.eye(30, dtype=F64)
        total = total + MultivariateNormal(torch.zeros(30, dtype=F64), covariance).log_prob(OUTPUTS[:, i])
    return total


@pytest.mark.parametrize("curvature", [FullHessian(), GaussNewton(), Kronecker(), LastLayer()])
def test_prior_scale_is_where_the_exact_evidence_is_highest(curvature: Curvature) -> None:
    joint = one_layer({"x": 0.2, "y": 1.5})
    found = Laplace(curvature=curvature, empirical_bayes=True, starts=1).infer(joint, generator=make_generator(0))
    factor = found.statistics["prior_scale.net"]
    assert found.statistics["log_evidence"] == pytest.approx(float(exact(factor, (0.2, 1.5))), rel=1e-10)
    for other in (0.99, 1.01):
        assert float(exact(other * factor, (0.2, 1.5))) < found.statistics["log_evidence"]
    at = torch.tensor(math.log(factor), dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(exact(at.exp(), (0.2, 1.5)), at)
    assert abs(float(slope)) < 1e-4  # the scale settles to 1e-6, and the curvature of the evidence is near 2 * 10


@pytest.mark.statistical
@pytest.mark.parametrize("curvature", [FullHessian(), Kronecker()])
def test_noise_is_chosen_along_with_the_prior_scale(curvature: Curvature) -> None:
    joint = one_layer({"a": 0.0, "b": 1e-3})
    found = Laplace(curvature=curvature, empirical_bayes=True, starts=1, draws=4000).infer(
        joint, generator=make_generator(0)
    )
    # start at the medians of draws, which scatter around what was chosen, and climb the exact objective from there
    start = [math.log(found.statistics["prior_scale.net"]), *(float(found.values[k].log().mean()) for k in "ab")]
    at = torch.tensor(start, dtype=F64)

    def objective(at: Tensor) -> Tensor:
        a, b = at[1].exp(), at[2].exp()
        # the density of the logarithm of the noise has its volume change
        return exact(at[0].exp(), (a, b + 1e-3)) + LAW.log_prob(a) + LAW.log_prob(b) + at[1] + at[2]

    for _ in range(20):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective(at), at)
        at = at - torch.linalg.solve(torch.autograd.functional.hessian(objective, at.detach()), slope)
    best = at.detach()
    assert found.statistics["prior_scale.net"] == pytest.approx(float(best[0].exp()), rel=1e-5)
    evidence = float(exact(best[0].exp(), (best[1].exp(), best[2].exp() + 1e-3)))
    assert found.statistics["log_evidence"] == pytest.approx(evidence, abs=1e-5)
    # noise is drawn around the choice: n = 30 rows leave log s a deviation of about (2 * 30)^-0.5 = 0.13
    for k, name in enumerate("ab"):
        drawn = found.values[name].log()
        assert abs(float(drawn.mean() - best[1 + k])) < 5 * 0.14 / math.sqrt(4000)
        assert 0.1 < float(drawn.std()) < 0.16


def test_noise_alone_is_chosen_where_there_is_no_network() -> None:
    laws = {"w": Normal(torch.zeros(1, 4, dtype=F64), 3.0), "a": LAW}
    joint = gaussian_joint(by_column(INPUTS), OUTPUTS[:, :1], laws=laws, noise={"a": 0.0})
    found = Laplace(empirical_bayes=True, starts=1).infer(joint, generator=make_generator(0))
    noise = torch.logspace(-2, 0.5, 4001, dtype=F64)
    covariance = 9 * INPUTS @ INPUTS.mT + noise[:, None, None] ** 2 * torch.eye(30, dtype=F64)
    marginal = MultivariateNormal(torch.zeros(30, dtype=F64), covariance).log_prob(OUTPUTS[:, 0])
    best = (marginal + LAW.log_prob(noise) + noise.log()).argmax()
    assert found.statistics["log_evidence"] == pytest.approx(float(marginal[best]), abs=0.02)  # the grid's step


@pytest.mark.parametrize("curvature", [GaussNewton(), Kronecker(), Diagonal(), LastLayer()])
def test_a_prior_of_a_wrong_scale_is_mended(curvature: Curvature) -> None:
    laws = {"net": Normal(torch.zeros(13, dtype=F64), 0.05), "s": LAW}
    joint = network_joint((1, 4, 1), X, WAVE, laws=laws, noise={"s": 1e-5})
    before = Laplace(curvature=curvature, starts=2).infer(joint, generator=make_generator(0))
    after = Laplace(curvature=curvature, starts=2, empirical_bayes=True).infer(joint, generator=make_generator(0))
    assert after.statistics["prior_scale.net"] > 4
    assert after.statistics["log_evidence"] > before.statistics["log_evidence"]


def test_the_prior_alone_is_chosen_where_a_network_says_its_noise() -> None:
    def predict(values, rows):
        out = values["net"][:, :2].unflatten(-1, (1, 2)) * X + values["net"][:, None, 2:]
        mean, sd = out[..., :1], (0.1 * out[..., 1:]).exp()
        return (mean, sd) if rows is None else (mean[:, rows], sd[:, rows])

    def log_likelihood(values, rows):
        return Normal(*predict(values, rows)).log_prob(WAVE if rows is None else WAVE[rows]).sum(-1)

    laws = {"net": Normal(torch.zeros(4, dtype=F64), 30.0)}
    joint = Joint(laws, log_likelihood, terms=24, predict=predict, target=WAVE, layers={"net": ((1, 2),)})
    plain = Laplace(curvature=GaussNewton(), starts=2).infer(joint, generator=make_generator(0))
    found = Laplace(curvature=GaussNewton(), starts=2, empirical_bayes=True).infer(joint, generator=make_generator(0))
    assert found.statistics["prior_scale.net"] < 0.5
    assert found.statistics["log_evidence"] > plain.statistics["log_evidence"]


def test_other_parameters_keep_their_laws() -> None:
    laws = {"gain": LogNormal(torch.tensor(0.0, dtype=F64), 0.5), "a": LAW}

    def mean(values):
        return values["gain"][:, None, None] * (INPUTS @ torch.ones(4, 1, dtype=F64))

    y = 1.5 * INPUTS.sum(-1, keepdim=True) + 0.3 * randn(30, 1, seed=5)
    joint = gaussian_joint(mean, y, laws=laws, noise={"a": 0.0})
    for curvature in (FullHessian(), Diagonal()):
        found = Laplace(curvature=curvature, empirical_bayes=True, starts=2).infer(joint, generator=make_generator(0))
        gain = found.values["gain"][0]
        # deviation of a slope: noise over the norm of its 30 inputs
        spread = 0.3 / float(INPUTS.sum(-1).norm())
        assert abs(float(gain.mean()) - 1.5) < 5 * spread
        assert float(gain.std()) == pytest.approx(spread, rel=0.5)


def test_what_has_no_scale_to_choose_is_refused() -> None:
    laws = {"w": Normal(torch.zeros(1, 4, dtype=F64), 3.0)}
    joint = gaussian_joint(by_column(INPUTS), OUTPUTS[:, :1], laws=laws, noise={"x": 1.0})
    with pytest.raises(SpecError, match="got neither"):
        Laplace(empirical_bayes=True).infer(joint, generator=make_generator(0))
    plain = Joint({"w": Normal(0.0, 1.0)}, lambda v, r: -v["w"][:, None].square(), terms=1)
    with pytest.raises(SpecError, match="Gaussian likelihood"):
        Laplace(empirical_bayes=True).infer(plain, generator=make_generator(0))
