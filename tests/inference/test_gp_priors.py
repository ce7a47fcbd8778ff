"""Priors of hyper-parameters: densities, files, and BoTorch's own."""

import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, HyperPriors, Periodic, Scaled, log_marginal
from bayeswm.inference.gp_priors import limits
from tests.inference.test_gp_fit import drawn, fit

F64 = torch.float64


def test_medians_spreads_and_limits_follow_kind_and_usual_size():
    kernel = Scaled(RBF() * Periodic(period=3.0, learn_period=True, active=0))
    parameters = kernel.parameters(4)
    priors = HyperPriors(period=(1.1, 0.2), named={"Periodic(0).length": (0.5, 0.7)})
    density = priors.density(parameters)
    expected = [*[2.0] * 4, 0.5, 3.3, 1.0, 0.1]
    torch.testing.assert_close(density.mean.exp(), torch.tensor(expected, dtype=F64))
    assert density.scale.tolist() == [*[1.5] * 4, 0.7, 0.2, 1.5, 2.0]
    box = limits(parameters, 0.01).exp()
    torch.testing.assert_close(box[5], torch.tensor([0.3, 30.0], dtype=F64))
    torch.testing.assert_close(box[-1], torch.tensor([0.01, 10.0], dtype=F64))
    starts = density.starts(5000, torch.Generator().manual_seed(0))
    # length scales start half as long: from long ones everything may be taken for noise
    torch.testing.assert_close(starts[0].exp(), torch.tensor([*[1.0] * 4, 0.25, 3.3, 1.0, 0.1], dtype=F64))
    z = (starts[1:].mean(0) - density.mean) / (density.scale / 4999**0.5)
    assert float(z.abs().max()) < 5


@pytest.mark.parametrize("named", [False, True])
def test_a_law_is_the_density_of_the_value_itself(named):
    x, y = drawn(80, (0.8, 2.0))
    kernel, law = Scaled(RBF()), torch.distributions.Gamma(3.0, 6.0)
    priors = HyperPriors(named={"RBF.length": law}) if named else HyperPriors(length=law)
    hyper, (report,) = fit(x, y, kernel=kernel, priors=priors)
    at = torch.cat((hyper.values[0], hyper.noise)).log().requires_grad_()
    usual = (at[[2, 3]] - torch.tensor([0.0, math.log(0.1)], dtype=F64)) / torch.tensor([1.5, 2.0], dtype=F64)
    prior = law.log_prob(at[:2].exp()).sum() - 0.5 * usual.square().sum()
    value, gradient, _ = log_marginal(kernel, x, y[0], log_hyper=at.detach())
    assert abs(value + float(prior.detach()) - report.objective) < 1e-6
    assert float((gradient + torch.autograd.grad(prior, at)[0]).abs().max()) < 0.05


def test_botorchs_model_has_no_better_point_than_ours():
    import gpytorch
    from gpytorch.constraints import GreaterThan
    from gpytorch.priors import LogNormalPrior
    from scipy.optimize import minimize

    x, y = drawn(60, (0.8, 2.0, 1.5), seed=2)
    y = (y - y.mean()) / y.std()
    # as SingleTaskGP defines them
    likelihood = gpytorch.likelihoods.GaussianLikelihood(
        noise_prior=LogNormalPrior(-4.0, 1.0), noise_constraint=GreaterThan(1e-4, transform=None, initial_value=0.018)
    ).double()
    lengths = LogNormalPrior(math.sqrt(2) + math.log(3) / 2, math.sqrt(3))
    kernel = gpytorch.kernels.RBFKernel(
        ard_num_dims=3,
        lengthscale_prior=lengths,
        lengthscale_constraint=GreaterThan(2.5e-2, transform=None, initial_value=lengths.mode),
    ).double()

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(x, y[0], likelihood)
            self.mean, self.kernel = gpytorch.means.ConstantMean().double(), kernel

        def forward(self, inputs):
            return gpytorch.distributions.MultivariateNormal(self.mean(inputs), self.kernel(inputs))

    model = Model().train()
    mll = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]

    def negative(at):
        with torch.no_grad():
            for p, v in zip(parameters, torch.tensor(at, dtype=F64).split(sizes), strict=True):
                p.copy_(v.view_as(p))
        value = -60 * mll(model(x), y[0])
        return value.item(), torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters)]).numpy()

    named = dict(model.named_parameters())
    limits = {"likelihood.noise_covar.raw_noise": 1e-4, "mean.raw_constant": None, "kernel.raw_lengthscale": 2.5e-2}
    bounds = [(limits[name], None) for name, p in named.items() for _ in range(p.numel())]
    start = torch.cat([p.detach().flatten() for p in parameters]).numpy()
    theirs = -minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds).fun
    fixed = Scaled(RBF(), signal=1.0)
    hyper, (report,) = fit(x, y, kernel=fixed, priors=HyperPriors.botorch(), noise_floor=0.01, constant=True)
    ours = {"noise_covar.raw_noise": hyper.noise.square(), "raw_lengthscale": hyper.values[0]}
    ours["raw_constant"] = torch.tensor([report.constant], dtype=F64)
    at = torch.cat([next(v for k, v in ours.items() if name.endswith(k)) for name in named])
    assert -negative(at.numpy())[0] > theirs - 1e-3
    # the two objectives differ by a constant: their gradient is nearly 0 at our point
    assert float((torch.as_tensor(negative(at.numpy())[1]) * at).abs().max()) < 0.05


def test_priors_come_back_from_plain_values():
    priors = HyperPriors(noise=(0.2, 1.0), named={"RBF.length": torch.distributions.Gamma(3.0, 6.0), "noise": (0.1, 1)})
    again = HyperPriors.from_dict(priors.to_dict())
    assert again.to_dict() == priors.to_dict()
    assert again.named["RBF.length"].rate == 6.0


def test_priors_that_make_no_sense_are_refused():
    with pytest.raises(bwm.SpecError, match="prior of noise"):
        HyperPriors(noise=(0.0, 1.0))
    with pytest.raises(bwm.SpecError, match=r"among RBF\.length, RBF\.signal, noise, got 'length'"):
        fit(*drawn(10, (1.0,)), priors=HyperPriors(named={"length": (1.0, 1.0)}))
