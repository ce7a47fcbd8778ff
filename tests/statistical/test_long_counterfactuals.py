"""Counterfactuals of 200 steps against exact answers: conjugate algebra, quadrature, and a process on a dense grid."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import StructureWorlds
from bayeswm.causal import Counterfactual, counterfactual
from bayeswm.inference import RBF, Conjugate
from bayeswm.inference.convergence import ess_mean
from bayeswm.structures import FromFunction, Linear
from tests.statistical.checks import BUDGET, mean_p

pytestmark = pytest.mark.statistical
H, NOISE = 200, 0.2
LINE = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)
PLANE = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=0.1)
TURN = torch.tensor([[0.95, 0.2], [-0.2, 0.9]], dtype=torch.float64)
HMC = bwm.inference.HMC(chains=16, warmup=150, draws=250)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def simulated(truth: bwm.KnownDynamics, steps: int, *, seed: int) -> bwm.Trajectories:
    g = seeded(seed)
    actions = torch.randn(1, steps, 1, generator=g, dtype=torch.float64)
    return bwm.data.simulate(truth, torch.zeros(1, truth.schema.state.size).double(), actions, generator=g)


def other(steps: int = H) -> Tensor:
    """Actions that leave the recorded path for good."""
    return 0.5 + torch.sin(0.1 * torch.arange(steps, dtype=torch.float64))


def states(data: bwm.Trajectories) -> tuple[Tensor, Tensor]:
    """States (H + 1, S) and actions (H, A) of the only episode."""
    assert data.state is not None
    return data.state[0], data.action[0]


def stated(values: Tensor, mean: Tensor, variance: Tensor) -> tuple[float, float, float]:
    """P-values of means and variances of a chain (n, D), Bonferroni-corrected, and the smallest effective size."""
    squares = (values - mean).square()
    p_values, sizes = [], []
    for sample, expected in ((values, mean), (squares, variance)):
        size = ess_mean(sample[None])
        error = sample.std(0) / size.sqrt()
        z = (sample.mean(0) - expected).abs() / error
        p_values.append(float((torch.special.erfc(z / math.sqrt(2)).min() * len(z)).clamp(max=1.0)))
        sizes.append(float(size.min()))
    return p_values[0], p_values[1], min(sizes)


def in_order(found: Counterfactual, posterior: Tensor, name: str) -> Tensor:
    """Counterfactuals (n, H S) in the order of the chain from which the worlds were drawn."""
    drawn = found.worlds.parameters[name].flatten(1)[:, 0]
    place = posterior.flatten(0, 1).flatten(1)[:, 0].argsort().argsort()
    return found.predictive.particles[drawn.argsort()[place], 0, 0].flatten(1)


# --- an unknown gain: everything is Gaussian -----------------------------------------------------------------------


def gain() -> tuple[bwm.BayesianDynamics, bwm.Trajectories, bwm.Trajectories]:
    """A plane that turns, pushed by an unknown B: a model to be fitted, what it learns from, and what happened."""
    truth = bwm.KnownDynamics(structure=Linear(PLANE, A=TURN, B=torch.tensor([[0.3], [-0.4]]).double()), noise=NOISE)
    model = bwm.BayesianDynamics(structure=Linear(PLANE, A=TURN, B=Normal(0.0, 1.0)), noise=NOISE, inference=HMC)
    return model, simulated(truth, 100, seed=1), simulated(truth, H, seed=2)


def of_gain(factual: bwm.Trajectories, known: Sequence[bwm.Trajectories]) -> tuple[Tensor, Tensor]:
    """Exact counterfactual mean and variance (H, S), with B given what is known; its rows do not matter to each other.

    The noise is shared, so that the difference d between the branches obeys d' = A d + B (u of one - u of the other).
    """
    precision, moment = torch.ones((), dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for x, u in map(states, known):
        precision = precision + u.square().sum() / NOISE**2
        moment = moment + ((x[1:] - x[:-1] @ TURN.mT) * u).sum(0) / NOISE**2
    x, u = states(factual)
    response = torch.zeros(2, 2).double()
    means: list[Tensor] = []
    variances: list[Tensor] = []
    for t, change in enumerate(other() - u[:, 0]):
        response = TURN @ response + change * torch.eye(2).double()
        means.append(x[t + 1] + response @ moment / precision)
        variances.append(response.square().sum(-1) / precision)
    return torch.stack(means), torch.stack(variances)


def test_a_conjugate_model_answers_exactly() -> None:
    _, train, factual = gain()
    structure = Linear(PLANE, A=TURN, B=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, noise=NOISE, inference=Conjugate(draws=4000))
    model.fit(train, seed=0, progress=False)
    found = counterfactual(model, factual, bwm.do({"u": other()}), worlds=4000, generator=seeded())
    mean, variance = of_gain(factual, [train, factual])
    paths = found.predictive.particles[:, 0, 0]
    assert mean_p(paths, mean) > BUDGET
    assert mean_p((paths - mean).square(), variance) > BUDGET
    # the episode teaches: without it
    unaware = counterfactual(model, factual, bwm.do({"u": other()}), condition=False, worlds=4000, generator=seeded())
    assert mean_p((unaware.predictive.particles[:, 0, 0] - mean).square(), variance) < 1e-10


@pytest.mark.slow
def test_hmc_worlds_with_an_unknown_gain_agree_with_conjugate_algebra() -> None:
    model, train, factual = gain()
    model.fit(train, seed=0, progress=False)
    given = model.condition(factual)
    assert isinstance(given, bwm.BayesianDynamics)
    draws = given.posterior["B"]
    mean, variance = of_gain(factual, [train, factual])
    worlds = math.prod(draws.shape[:2])
    found = counterfactual(given, factual, bwm.do({"u": other()}), in_training=True, worlds=worlds, generator=seeded())
    p_mean, p_variance, size = stated(in_order(found, draws, "B"), mean.flatten(), variance.flatten())
    assert min(p_mean, p_variance) > BUDGET
    # of 2,048 worlds
    assert size > 1000
    assert given.diagnostics.statistics["weight_share"] > 0.45
    # the query conditions the model by itself in the same way
    itself = counterfactual(model, factual, bwm.do({"u": other()}), worlds=worlds, generator=seeded())
    torch.testing.assert_close(itself.mean, found.mean)


# --- unknown dynamics: paths are polynomials of A, integrated by quadrature ----------------------------------------


def wanderer() -> tuple[bwm.BayesianDynamics, bwm.Trajectories, bwm.Trajectories]:
    """x' = a x + b u, of which neither is known."""
    truth = bwm.KnownDynamics(
        structure=Linear(LINE, A=torch.tensor([[0.93]]).double(), B=torch.tensor([[0.3]]).double()), noise=NOISE
    )
    structure = Linear(LINE, A=Normal(0.5, 0.5), B=Normal(0.0, 1.0))
    model = bwm.BayesianDynamics(structure=structure, noise=NOISE, inference=HMC)
    return model, simulated(truth, 100, seed=3), simulated(truth, H, seed=4)


def regression(known: Sequence[bwm.Trajectories]) -> tuple[Tensor, Tensor]:
    """Posterior mean (2,) and covariance (2, 2) of (a, b)."""
    precision = torch.tensor([[4.0, 0.0], [0.0, 1.0]]).double()
    moment = precision @ torch.tensor([0.5, 0.0]).double()
    for x, u in map(states, known):
        phi = torch.cat((x[:-1], u), -1)
        precision, moment = precision + phi.mT @ phi / NOISE**2, moment + phi.mT @ x[1:, 0] / NOISE**2
    covariance = torch.linalg.inv(precision)
    return covariance @ moment, covariance


def grid(mean: Tensor, covariance: Tensor, points: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite points (n, 2) of a Gaussian and their weights (n,)."""
    nodes, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(points))
    z = torch.cartesian_prod(nodes, nodes)
    return mean + z @ torch.linalg.cholesky(covariance).mT, torch.outer(weight, weight).flatten() / weight.sum() ** 2


def by_quadrature(factual: bwm.Trajectories, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Exact counterfactual mean and variance (H,) with (a, b) Gaussian."""
    points, weight = grid(mean, covariance)
    x, u = states(factual)
    apart, paths = torch.zeros(len(points)).double(), []
    for t, change in enumerate(other() - u[:, 0]):
        apart = points[:, 0] * apart + points[:, 1] * change
        paths.append(x[t + 1, 0] + apart)
    values = torch.stack(paths, -1)
    center = weight @ values
    return center, weight @ (values - center).square()


def test_weighed_worlds_are_as_exact_as_their_points() -> None:
    """Worlds at the quadrature points of the posterior before: the factual episode is in the weights alone."""
    _, train, factual = wanderer()
    points, weight = grid(*regression([train]))
    worlds = StructureWorlds(
        Linear(LINE, A=Normal(0.5, 0.5), B=Normal(0.0, 1.0)),
        LINE,
        {
            "A": points[:, 0].view(-1, 1, 1),
            "B": points[:, 1].view(-1, 1, 1),
            "c": torch.zeros(len(points), 1).double(),
            "process_noise": torch.full((len(points), 1), NOISE, dtype=torch.float64),
        },
        log_weight=weight.log(),
        exhaustive=True,
    )
    found = counterfactual(worlds, factual, bwm.do({"u": other()}))
    mean, variance = by_quadrature(factual, *regression([train, factual]))
    torch.testing.assert_close(found.mean[0, :, 0], mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.variance[0, :, 0], variance, rtol=1e-6, atol=1e-9)
    assert found.effective_share > 0.3


@pytest.mark.slow
def test_hmc_worlds_with_unknown_dynamics_agree_with_quadrature() -> None:
    model, train, factual = wanderer()
    model.fit(train, seed=0, progress=False)
    given = model.condition(factual)
    assert isinstance(given, bwm.BayesianDynamics)
    draws = given.posterior["A"]
    found = counterfactual(
        given,
        factual,
        bwm.do({"u": other()}),
        in_training=True,
        worlds=math.prod(draws.shape[:2]),
        generator=seeded(),
    )
    mean, variance = by_quadrature(factual, *regression([train, factual]))
    p_mean, p_variance, size = stated(in_order(found, draws, "A"), mean, variance)
    assert min(p_mean, p_variance) > BUDGET
    assert size > 1000
    # draws given the training data alone, weighed at once: fewer are left, and their answer is the same
    worlds = model.draw(4000, generator=seeded(1))
    once = counterfactual(worlds, factual, bwm.do({"u": other()}))
    error = (variance / (once.effective_share * 4000)).sqrt()
    z = (once.mean[0, :, 0] - mean).abs() / error
    assert once.effective_share > 0.2
    assert float(torch.special.erfc(z / math.sqrt(2)).min() * H) > BUDGET


# --- an exact process: its function on a dense grid ----------------------------------------------------------------


def bent() -> tuple[bwm.Trajectories, bwm.Trajectories, Linear]:
    """x' = 0.5 x + 0.3 u + 0.6 sin(1.5 x), of which the linear part is known."""

    def step(x: Tensor, u: Tensor) -> Tensor:
        return 0.5 * x + 0.3 * u + 0.6 * torch.sin(1.5 * x)

    truth = bwm.KnownDynamics(structure=FromFunction(step, schema=LINE), noise=NOISE)
    known = Linear(LINE, A=torch.tensor([[0.5]]).double(), B=torch.tensor([[0.3]]).double())
    return simulated(truth, 40, seed=5), simulated(truth, H, seed=6), known


def on_a_grid(
    model: bwm.GaussianProcess, train: bwm.Trajectories, factual: bwm.Trajectories, *, paths: int
) -> tuple[Tensor, Tensor]:
    """Functions of x drawn by dense algebra given both episodes, on a line of points (G,), shape (paths, G)."""
    length, signal, noise = (float(v) for v in (model.hyper["RBF(x).length"], model.hyper.signal, model.hyper.noise))
    length *= float(states(train)[0][:-1].std(correction=0))
    line = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    x, y = (torch.cat(v) for v in zip(*(residuals(d) for d in (train, factual)), strict=True))

    def k(a: Tensor, b: Tensor) -> Tensor:
        return signal**2 * torch.exp(-0.5 * ((a[:, None] - b) / length) ** 2)

    gain = torch.linalg.solve(k(x, x) + noise**2 * torch.eye(len(x)).double(), k(x, line)).mT
    values, vectors = torch.linalg.eigh(k(line, line) - gain @ k(x, line))
    kept = values > 1e-12 * values[-1]
    factor = vectors[:, kept] * values[kept].sqrt()
    return line, gain @ y + torch.randn(paths, int(kept.sum()), generator=seeded(7)).double() @ factor.mT


def residuals(data: bwm.Trajectories) -> tuple[Tensor, Tensor]:
    x, u = states(data)
    return x[:-1, 0], (x[1:] - 0.5 * x[:-1] - 0.3 * u)[:, 0]


def interpolated(line: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """Cubic through the four nearest points: at a spacing of 0.01 the error is some 1e-9."""
    where = (x - line[0]) / (line[1] - line[0])
    first = where.floor().long().clamp(1, len(line) - 3)
    s = where - first
    weights = (
        -s * (s - 1) * (s - 2) / 6,
        (s + 1) * (s - 1) * (s - 2) / 2,
        -(s + 1) * s * (s - 2) / 2,
        (s + 1) * s * (s - 1) / 6,
    )
    return sum((w * values.gather(1, first + i - 1) for i, w in enumerate(weights)), torch.zeros_like(x))


def two_samples(a: Tensor, b: Tensor) -> float:
    """P-value, Bonferroni-corrected, of means, variances and covariances of neighbouring columns of two samples."""
    a, b = a - b.mean(0), b - b.mean(0)
    p_values: list[float] = []
    for x, y in ((a, b), (a.square(), b.square()), (a[:, 1:] * a[:, :-1], b[:, 1:] * b[:, :-1])):
        z = (x.mean(0) - y.mean(0)).abs() / (x.var(0) / len(x) + y.var(0) / len(y)).sqrt()
        p_values.append(float(torch.special.erfc(z / math.sqrt(2)).min() * len(z) * 3))
    return min(1.0, *p_values)


@pytest.mark.slow
def test_an_exact_process_agrees_with_its_function_on_a_dense_grid() -> None:
    train, factual, known = bent()
    model = bwm.GaussianProcess(mean=known, kernel=RBF(active=("x",))).fit(train, seed=0, progress=False)
    done = bwm.do({"u": other()})
    found = counterfactual(model, factual, done, worlds=2000, generator=seeded())
    ours = found.predictive.particles[:, 0, 0, :, 0]
    line, values = on_a_grid(model, train, factual, paths=4000)
    start = states(factual)[0][0]
    noise = residuals(factual)[1] - interpolated(line, values, residuals(factual)[0].expand(len(values), -1))
    state, theirs = start.expand(len(values), 1), []
    for t in range(H):
        state = 0.5 * state + 0.3 * other()[t] + interpolated(line, values, state) + noise[:, t : t + 1]
        theirs.append(state[:, 0])
    exact = torch.stack(theirs, 1)
    # the first step is known: what is not depends on the state alone
    torch.testing.assert_close(ours[:, 0], exact[:1, 0].expand(len(ours)))
    ours, exact = ours[:, 1:], exact[:, 1:]
    assert float(exact.abs().max()) < 7
    assert two_samples(ours, exact) > BUDGET
    # the episode teaches: without it
    unaware = counterfactual(model, factual, done, condition=False, worlds=2000, generator=seeded())
    assert two_samples(unaware.predictive.particles[:, 0, 0, 1:, 0], exact) < 1e-10
