"""Moments of a Gaussian process's step: against particles, its posterior, linear algebra and quadrature."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.inference import RBF, Coregionalised, InducingPoints, Matern, Scaled
from bayeswm.structures import Euler, Linear, Pendulum, SemiImplicitEuler
from tests.models.test_gaussian_process import seeded, simulate
from tests.statistical.checks import BUDGET, mean_p

F64 = torch.float64
CART = bwm.Schema(
    state=[bwm.Variable("position"), bwm.Variable("speed")],
    action=[bwm.Variable("force")],
    context=[bwm.Variable("slope")],
    time_step=0.1,
)
FLAT = bwm.Schema(state=CART.state, action=CART.action, time_step=0.1)
DRIFT = Linear(
    FLAT, A=torch.tensor([[1.0, 0.1], [0.0, 0.9]]), B=torch.tensor([[0.0], [0.1]]), c=torch.tensor([0.0, 0.02])
)
EULER = Pendulum(length=0.5, mass=0.7, upright=0.4, damping=0.1, integrator=Euler())
SEMI = Pendulum(length=0.5, mass=0.7, integrator=SemiImplicitEuler())


def cart_data(schema=CART, n=40):
    g = seeded(3)
    state, action, context = (torch.randn(n, k, generator=g, dtype=F64) for k in (2, 1, 1))
    slope = context[:, 0] if schema.context.size else 0.0
    push = 0.3 * torch.sin(2 * state[:, 1]) + 0.2 * action[:, 0] * torch.cos(state[:, 0]) + 0.1 * slope
    after = state + torch.stack((0.1 * state[:, 1] + 0.1 * torch.sin(state[:, 0]), push), -1)
    after += 0.03 * torch.randn(n, 2, generator=g, dtype=F64)
    given = {"context": context} if schema.context.size else {}
    return bwm.Trajectories(schema, state=torch.stack((state, after), 1), action=action[:, None], **given)


def fit(data, **settings):
    return bwm.GaussianProcess(**({"restarts": 1} | settings)).fit(data, progress=False)


@pytest.fixture(scope="module")
def pendulum():
    return simulate(3, 15)


CASES = {
    "no mean": lambda _: fit(cart_data()),
    "constant": lambda _: fit(cart_data(), constant=True),
    "some inputs": lambda _: fit(cart_data(), kernel=Scaled(RBF(active=("speed", "force"), ard=False), signal=0.8)),
    "linear mean": lambda _: fit(cart_data(FLAT), mean=DRIFT),
    "sparse": lambda _: fit(cart_data(FLAT), mean=DRIFT, sparse=InducingPoints(count=12, above=20)),
    "outputs together": lambda _: fit(cart_data(FLAT), outputs=Coregionalised()),
    "angle": lambda data: fit(data),
    "pendulum, Euler": lambda data: fit(data, mean=EULER, constant=True),
    "pendulum, semi-implicit": lambda data: fit(data, mean=SEMI, outputs=Coregionalised()),
}
STRAIGHT = ["no mean", "constant", "linear mean", "sparse", "outputs together", "some inputs"]


@pytest.fixture(scope="module")
def models(pendulum):
    return {name: make(pendulum) for name, make in CASES.items()}


def belief(model, batch=(), *, size=0.3, seed=5):
    """A belief about state and action, and the context."""
    g, schema = seeded(seed), model.schema
    n = schema.state.size + schema.action.size
    root = size * torch.randn(*batch, n, n, generator=g, dtype=F64)
    context = 0.5 * torch.randn(*batch, schema.context.size, generator=g, dtype=F64)
    return 0.5 * torch.randn(*batch, n, generator=g, dtype=F64), root @ root.mT, context


def particles(model, mean, covariance, context, n):
    """Draws of inputs, and of the next state with a fresh function value at each."""
    g = seeded(9)
    root = torch.linalg.cholesky(covariance)
    inputs = mean + torch.randn(n, len(mean), generator=g, dtype=F64) @ root.mT
    size = model.schema.state.size
    found = model.posterior(inputs[:, :size], inputs[:, size:], context=context)
    noise = torch.linalg.cholesky(found.covariance + model.hyper.noise.square().diag())
    drawn = torch.randn(n, size, 1, generator=g, dtype=F64)
    return inputs, found.mean + (noise @ drawn)[..., 0]


def check_particles(model, n):
    mean, covariance, context = belief(model)
    moments = model.moments(mean, covariance, context=context)
    inputs, after = particles(model, mean, covariance, context, n)
    assert mean_p(after, moments.mean) > BUDGET
    # products about the exact means: their expectation is the exact covariance
    off = after - moments.mean
    rows, columns = torch.triu_indices(*moments.covariance.shape)
    assert mean_p(off[:, rows] * off[:, columns], moments.covariance[rows, columns]) > BUDGET
    assert mean_p((inputs - mean)[:, :, None] * off[:, None], moments.cross) > BUDGET


@pytest.mark.parametrize("name", STRAIGHT)
def test_they_are_those_of_particles(models, name):
    check_particles(models[name], 40_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRAIGHT)
def test_they_are_those_of_a_million_particles(models, name):
    check_particles(models[name], 1_000_000)


@pytest.mark.parametrize("name", CASES)
def test_a_known_input_has_the_posterior_and_noise(models, name):
    model = models[name]
    assert model.moments_in_closed_form
    mean, covariance, context = belief(model, (3,))
    size = model.schema.state.size
    found = model.moments(mean, 0 * covariance, context=context)
    expected = model.posterior(mean[:, :size], mean[:, size:], context=context)
    assert torch.allclose(found.mean, expected.mean, rtol=0, atol=1e-10)
    noise = model.hyper.noise.square().diag()
    assert torch.allclose(found.covariance, expected.covariance + noise, rtol=0, atol=1e-10)
    assert torch.allclose(found.aleatoric, noise.expand_as(found.aleatoric), rtol=0, atol=1e-10)
    assert bool((found.cross == 0).all())


@pytest.mark.parametrize("name", CASES)
def test_a_certain_action_is_a_belief_without_variance(models, name):
    model = models[name]
    mean, covariance, context = belief(model, (2,))
    size = model.schema.state.size
    inner = covariance[:, :size, :size]
    certain = torch.zeros_like(covariance)
    certain[:, :size, :size] = inner
    apart = model.moments(mean[:, :size], inner, mean[:, size:], context=context)
    together = model.moments(mean, certain, context=context)
    for name_, a, b in zip(apart._fields, apart, together, strict=True):
        assert torch.allclose(a, b[:, :size] if name_ == "cross" else b, rtol=1e-12, atol=1e-14)
    assert bool((together.cross[:, size:] == 0).all())
    assert torch.equal(apart.covariance, apart.covariance.mT)
    left = apart.covariance - apart.aleatoric
    assert float(torch.linalg.eigvalsh(left).min()) > -1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_gradient(models, name):
    model = models[name]
    mean, covariance, context = belief(model)
    size = model.schema.state.size
    scale = 1e2 if name == "some inputs" else 1.0

    def moments(m, s, u):
        s = 0.5 * (s + s.mT)
        return tuple(v * scale for v in model.moments(m, s, u, context=context))

    given = mean[:size].clone(), covariance[:size, :size].clone(), mean[size:].clone()
    assert torch.autograd.gradcheck(moments, tuple(v.requires_grad_() for v in given), atol=1e-5, rtol=1e-3)


def test_with_nothing_learned_it_is_linear_algebra():
    data = cart_data(FLAT)
    state, action = data.state[:, 0], data.action[:, 0]
    known = bwm.KnownDynamics(structure=DRIFT, noise=1e-3)
    after = known.draw(1).transition(state[None, None], action).mean[0, 0]
    after = after + 1e-3 * torch.randn(after.shape, generator=seeded(), dtype=F64)
    exactly = bwm.Trajectories(FLAT, state=torch.stack((state, after), 1), action=data.action)
    model = fit(exactly, mean=DRIFT, kernel=Scaled(RBF(), signal=1e-7))
    mean, covariance, _ = belief(model)
    found = model.moments(mean, covariance)
    matrix = torch.cat((DRIFT.values["A"], DRIFT.values["B"]), -1).double()
    noise = model.hyper.noise.square().diag()
    assert torch.allclose(found.mean, matrix @ mean + DRIFT.values["c"].double(), rtol=0, atol=1e-10)
    assert torch.allclose(found.covariance, matrix @ covariance @ matrix.mT + noise, rtol=0, atol=1e-10)
    assert torch.allclose(found.cross, covariance @ matrix.mT, rtol=0, atol=1e-10)


def by_quadrature(model, mean, sd, nodes=200):
    """Mean and standard deviation of the posterior mean's next state, the angle being uncertain alone."""
    side = torch.arange(1, nodes, dtype=F64).sqrt().diag(1)
    x, vectors = torch.linalg.eigh(side + side.mT)
    weight = vectors[0].square()
    states = mean[:2] + torch.stack((sd * x, 0 * x), -1)
    found = model.posterior(states, mean[2:].expand(nodes, 1))
    center = weight @ found.mean
    return center, (weight @ (found.mean - center).square()).sqrt()


@pytest.mark.parametrize(
    ("sd", "of_mean", "of_spread"), [(0.1, 2e-4, 0.02), (0.3, 0.004, 0.08), (0.6, 0.02, 0.12), (1.0, 0.04, 0.12)]
)
def test_angles_are_an_approximation_of_this_size(models, sd, of_mean, of_spread):
    """The errors that the documentation names, in standard deviations of the next state."""
    model = models["angle"]
    worst = torch.zeros(2, dtype=F64)
    for angle in torch.linspace(-2.0, 2.0, 9, dtype=F64).tolist():
        mean = torch.tensor([angle, 0.5, 0.2], dtype=F64)
        covariance = torch.diag(torch.tensor([sd**2, 0.0], dtype=F64))
        found = model.moments(mean[:2], covariance, mean[2:])
        center, spread = by_quadrature(model, mean, sd)
        ours = (found.aleatoric.diagonal() - model.hyper.noise.square()).sqrt()
        off = torch.stack(((found.mean - center).abs() / spread, (ours / spread - 1).abs()))
        worst = torch.maximum(worst, off.amax(-1))
    for found, documented in zip(worst.tolist(), (of_mean, of_spread), strict=True):
        assert documented / 3 < found < documented


def test_what_has_no_closed_form_falls_back_to_cubature(pendulum):
    for settings in ({"kernel": Matern()}, {"mean": Pendulum(length=0.5, mass=0.7)}):
        model = fit(pendulum, **settings)
        assert not model.moments_in_closed_form
        mean, covariance, _ = belief(model, size=0.02)
        found = model.moments(mean, covariance, worlds=32, generator=seeded())
        assert found.covariance.shape == (2, 2)
        with pytest.raises(SpecError, match="generator"):
            model.moments(mean, covariance)


def test_the_closed_form_is_near_cubature_over_worlds(models):
    for name in ("linear mean", "pendulum, Euler"):
        model = models[name]
        mean, covariance, _ = belief(model, size=0.1)
        closed = model.moments(mean, covariance)
        worlds = bwm.DynamicsModel.moments(model, mean, covariance, worlds=400, generator=seeded())
        scale = closed.covariance.diagonal().sqrt()
        assert torch.allclose(closed.mean / scale, worlds.mean / scale, rtol=0, atol=0.1)
        for a, b in ((closed.covariance, worlds.covariance), (closed.aleatoric, worlds.aleatoric)):
            assert torch.allclose(a / scale[:, None] / scale, b / scale[:, None] / scale, rtol=0, atol=0.1)


def test_new_data_and_files_bring_a_closed_form_of_their_own(models, tmp_path):
    model = models["linear mean"]
    mean, covariance, _ = belief(model)
    before = model.moments(mean, covariance)
    later = model.condition(cart_data(FLAT, 60))
    assert not torch.allclose(later.moments(mean, covariance).covariance, before.covariance)
    model.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm").moments(mean, covariance)
    for a, b in zip(again, before, strict=True):
        assert torch.equal(a, b)


def test_what_does_not_fit_is_refused(models):
    model = models["no mean"]
    mean, covariance, context = belief(model)
    with pytest.raises(DataError, match="state and action, mean"):
        model.moments(mean[:2], covariance[:2, :2], context=context)
    with pytest.raises(DataError, match="context of shape"):
        model.moments(mean, covariance)
    with pytest.raises(DataError, match="action of shape"):
        model.moments(mean[:2], covariance[:2, :2], torch.zeros(2), context=context)
    with pytest.raises(DataError, match="finite"):
        model.moments(mean, covariance * float("nan"), context=context)
    with pytest.raises(DataError, match="batch shapes"):
        model.moments(mean.expand(2, 3), covariance.expand(3, 3, 3), context=context)
    with pytest.raises(SpecError, match="fitted"):
        bwm.GaussianProcess().moments(mean, covariance)
