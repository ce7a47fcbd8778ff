"""What data teach: the variance between worlds shrinks with every transition, as the model's algebra says."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator
from bayeswm.inference import RBF, Conjugate
from bayeswm.structures import MLP, Linear
from tests.statistical.checks import BUDGET, chi_square_p

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=0.1)
NOISE, WORLDS = 0.3, 4000
SIZES = (1, 4, 16, 64, 256)


def transitions(n: int, *, seed: int = 0) -> bwm.Trajectories:
    """Steps from scattered states, each of its own episode: x' = x + 0.1 y, y' = y - 0.2 sin(2 x) + 0.1 u + noise."""
    g = make_generator(seed)
    x, u = torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 1, generator=g, dtype=F64)
    change = torch.stack((0.1 * x[:, 1], 0.1 * u[:, 0] - 0.2 * torch.sin(2 * x[:, 0])), -1)
    after = x + change + NOISE * torch.randn(n, 2, generator=g, dtype=F64)
    return bwm.Trajectories(SCHEMA, state=torch.stack((x, after), 1), action=u[:, None])


def places(n: int, *, seed: int = 99) -> tuple[Tensor, Tensor]:
    g = make_generator(seed)
    return torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 1, generator=g, dtype=F64)


def between(model: bwm.DynamicsModel, *, at: tuple[Tensor, Tensor], worlds: int) -> Tensor:
    """Return the variance between worlds at each place, (places, S)."""
    return model.predictive(*at, worlds=worlds, generator=make_generator(1)).epistemic_variance[:, 0]


def spread_p(found: Tensor, exact: Tensor, *, draws: int) -> float:
    """Two-sided p-value of the sample variance of Gaussian draws, Bonferroni-corrected."""
    upper = [
        chi_square_p((draws - 1) * f / e, draws - 1) for f, e in zip(found.flatten(), exact.flatten(), strict=True)
    ]
    return min(1.0, 2 * len(upper) * min(min(p, 1 - p) for p in upper))


@pytest.mark.statistical
def test_of_a_linear_model_it_is_the_exact_one_and_falls_with_every_row() -> None:
    """With known noise the posterior covariance is (1 + X' X / noise^2)^-1, whatever the outcomes were."""
    zero, one = torch.zeros(2, 2, dtype=F64), torch.zeros(2, 1, dtype=F64)
    structure = Linear(SCHEMA, A=Normal(zero, 1.0), B=Normal(one, 1.0), c=0.0)
    model = bwm.BayesianDynamics(structure=structure, noise=NOISE, inference=Conjugate(draws=WORLDS))
    at, data = places(5), transitions(SIZES[-1])
    rows = torch.cat((data.states()[:, 0], data.action[:, 0]), -1)
    new = torch.cat(at, -1)
    before = torch.full((5, 2), float("inf"), dtype=F64)
    for n in SIZES:
        precision = torch.eye(3, dtype=F64) + rows[:n].mT @ rows[:n] / NOISE**2
        exact = (new * torch.linalg.solve(precision, new.mT).mT).sum(-1, keepdim=True).expand(5, 2)
        found = between(model.fit(data[:n], seed=0, progress=False), at=at, worlds=WORLDS)
        assert spread_p(found, exact, draws=WORLDS) > BUDGET
        assert bool((exact < before).all())
        before = exact


@pytest.mark.statistical
def test_of_a_gaussian_process_it_is_the_exact_one_and_falls_with_every_row() -> None:
    """k(x, x) - k(x, X) (k(X, X) + noise^2)^-1 k(X, x), with the hyper-parameters of the first fit."""
    data, at = transitions(SIZES[-1] + 12), places(6)
    model = bwm.GaussianProcess(kernel=RBF(), sparse=None, restarts=1, features=64).fit(
        data[:12], seed=0, progress=False
    )
    scale, signal, noise = model.hyper["RBF.length"], model.hyper.signal, model.hyper.noise
    inputs = data.states()[:, 0], data.action[:, 0]
    whole = [torch.cat(pair, -1) for pair in (inputs, at)]
    center, size = whole[0][:12].mean(0), whole[0][:12].std(0, correction=0)
    rows, new = ((v - center) / size for v in whole)

    def kernel(a: Tensor, b: Tensor, k: int) -> Tensor:
        gap = (a[:, None] - b) / scale[k]
        return signal[k] ** 2 * (-0.5 * gap.square().sum(-1)).exp()

    before, known = model.posterior(*at).variance, 12
    for n in SIZES:
        model = model.condition(data[known : n + 12])
        known = n + 12
        exact = torch.stack(
            [
                signal[k] ** 2
                - (
                    kernel(new, rows[:known], k)
                    * torch.linalg.solve(
                        kernel(rows[:known], rows[:known], k) + noise[k] ** 2 * torch.eye(known, dtype=F64),
                        kernel(rows[:known], new, k),
                    ).mT
                ).sum(-1)
                for k in range(2)
            ],
            -1,
        )
        now = model.posterior(*at).variance
        torch.testing.assert_close(now, exact, rtol=1e-6, atol=1e-10)
        assert bool((now < before).all())
        assert spread_p(between(model, at=at, worlds=400), now, draws=400) > BUDGET
        before = now


def test_of_a_process_that_learns_its_kernel_it_falls_on_average() -> None:
    def fitted(n: int, seed: int) -> bwm.GaussianProcess:
        return bwm.GaussianProcess(restarts=1).fit(transitions(n, seed=seed), seed=0, progress=False)

    at = places(50)
    mean = [sum(float(fitted(n, seed).posterior(*at).variance.mean()) for seed in range(8)) for n in (20, 60, 180)]
    assert mean == sorted(mean, reverse=True)


def test_of_an_ensemble_it_falls_on_average() -> None:
    x, u = places(200)
    found = list[float]()
    for n in (50, 500, 5000):
        model = bwm.DeepEnsemble(structure=MLP(hidden=(32, 32)), members=5, epochs=60)
        model.fit(transitions(n), seed=0, progress=False)
        found.append(float(between(model, at=(x.float(), u.float()), worlds=5).mean()))
    assert found == sorted(found, reverse=True)
