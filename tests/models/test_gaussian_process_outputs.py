"""Coregionalised outputs: what state variables share shows in worlds, variances, files and conditioning."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Coregionalised, InducingPoints, Scaled
from bayeswm.testing import check_model
from tests.models.test_gaussian_process import LIGHTER, TRUTH, seeded, simulate
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64


def process(**settings):
    return bwm.GaussianProcess(
        **({"mean": LIGHTER, "restarts": 2, "features": 256, "outputs": Coregionalised()} | settings)
    )


@pytest.fixture(scope="module")
def data():
    return simulate(6, 30)


@pytest.fixture(scope="module")
def fitted(data):
    return process().fit(data, progress=False)


def questions(n=5):
    g = seeded(1)
    return torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 1, generator=g, dtype=F64)


def dense(model, trajectories, state, action):
    """Mean (m, S) and covariance (S m, S m) of the next state by Kronecker algebra in the state's units."""
    steps, hyper = trajectories.transitions(), model.hyper

    def inputs(x, u):
        return torch.cat((torch.sin(x[:, :1]), torch.cos(x[:, :1]), x[:, 1:], u), -1)

    fitted_on = inputs(*model.train.transitions()[:2])
    center, spread = fitted_on.mean(0), fitted_on.std(0, correction=0)
    a, b = ((inputs(x, u) - center) / spread / hyper["RBF.length"][0] for x, u in (steps[:2], (state, action)))

    def k(p, q):
        return torch.kron(model.output_covariance, torch.exp(-0.5 * (p[:, None] - q).square().sum(-1)))

    known = bwm.KnownDynamics(structure=LIGHTER)
    y = (steps.next_state - known.predictive(*steps[:2]).mean[:, 0]).mT.flatten()
    noise = torch.kron(hyper.noise.square().diag(), torch.eye(len(a), dtype=F64))
    gain = torch.linalg.solve(k(a, a) + noise, k(a, b)).mT
    return known.predictive(state, action).mean[:, 0] + (gain @ y).view(2, -1).mT, k(b, b) - gain @ k(a, b)


def test_the_posterior_is_that_of_dense_algebra(data, fitted):
    fitted.train = data
    state, action = questions()
    mean, covariance = dense(fitted, data, state, action)
    p = fitted.posterior(state, action)
    torch.testing.assert_close(p.mean, mean, rtol=0, atol=1e-9)
    between = covariance.view(2, 5, 2, 5).diagonal(dim1=1, dim2=3).movedim(-1, 0)
    torch.testing.assert_close(p.covariance, between, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(p.variance, between.diagonal(dim1=-2, dim2=-1), rtol=1e-6, atol=1e-12)


def test_angle_and_velocity_share_what_the_physics_misses():
    # a wrong mass changes the acceleration, hence the velocity by it times the time step, and the angle in proportion
    precise = bwm.KnownDynamics(structure=TRUTH.structure, noise=[1e-4, 2e-3])
    model = process(restarts=1).fit(simulate(6, 30, truth=precise), progress=False)
    covariance = model.output_covariance
    # the prior on loadings, whose standard deviation is a correlation of 0.71, keeps it below 1
    assert float(covariance[0, 1] / covariance.diagonal().prod().sqrt()) > 0.8
    far = model.posterior(torch.tensor([0.3, 4000.0], dtype=F64), torch.zeros(1, dtype=F64))
    torch.testing.assert_close(far.covariance, covariance)
    # near the data too, both are off together
    assert float(model.posterior(torch.tensor([4.0, 12.0], dtype=F64), torch.zeros(1)).covariance[0, 1]) > 0


@pytest.mark.statistical
def test_worlds_are_draws_of_both_variables_together(data, fitted):
    fitted.train = data
    state, action = questions(3)
    worlds = fitted.draw(3000, generator=seeded(2))
    functions = worlds.transition(worlds.start(state), action).mean[:, 0]
    mean, covariance = dense(fitted, data, state, action)
    p_mean, p_covariance = gaussian_p(functions.mT.flatten(1), mean.mT.flatten(), covariance)
    assert p_mean > BUDGET
    assert p_covariance > BUDGET


def test_the_noise_of_each_variable_is_its_own(fitted):
    # 180 rows: the standard error of a standard deviation is 5 %
    assert bool(((fitted.hyper.noise / torch.tensor([0.01, 0.05])).log().abs() < 0.25).all()), fitted.hyper.noise
    worlds = fitted.draw(2, generator=seeded())
    torch.testing.assert_close(worlds.parameters["process_noise"][0], fitted.hyper.noise)


def test_conditioning_is_fitting_on_everything_with_the_same_hyper_parameters(data, fitted):
    new = simulate(2, 20, seed=9)
    model = fitted.condition(new)
    model.train = data
    state, action = questions()
    mean, covariance = dense(model, bwm.Trajectories.concatenate([data, new]), state, action)
    p = model.posterior(state, action)
    torch.testing.assert_close(p.mean, mean, rtol=0, atol=1e-9)
    of_each = covariance.diagonal().view(2, 5).mT
    torch.testing.assert_close(p.variance, of_each, rtol=1e-6, atol=1e-12)


def test_a_model_from_a_file_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model.bwm")
    loaded = bwm.load(tmp_path / "model.bwm")
    assert loaded.state_dict()[0] == fitted.state_dict()[0]
    assert (loaded.outputs, loaded.kernel, loaded.fits) == (fitted.outputs, fitted.kernel, fitted.fits)
    assert torch.equal(loaded.output_covariance, fitted.output_covariance)
    one, other = (m.predictive(*questions(), generator=seeded()) for m in (fitted, loaded))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)


def test_a_constant_beside_the_physics_is_learned(tmp_path):
    # a torque that nobody wrote down turns the pendulum at a constant rate
    data = simulate(12, 30)
    state = data.states().clone()
    state[..., 1] += 0.4 * torch.arange(31, dtype=F64)
    drifting = bwm.Trajectories(data.schema, state=state, action=data.action)
    model = process(mean=None, restarts=1, constant=True).fit(drifting, progress=False)
    far, action = torch.tensor([0.0, 1e5], dtype=F64), torch.zeros(1, dtype=F64)
    constant = model.posterior(far, action).mean - far
    assert float(constant.abs().min()) > 0
    torch.testing.assert_close(constant, model._fitted.output_shift, rtol=0, atol=1e-9)
    model.save(tmp_path / "model.bwm")
    assert torch.equal(bwm.load(tmp_path / "model.bwm").posterior(far, action).mean, far + constant)
    # conditioning takes the constant off too: data already seen twice only make the answer surer
    near = drifting.transitions()
    once, twice = (m.posterior(near.state, near.action) for m in (model, model.condition(drifting)))
    assert bool(((once.mean - twice.mean).abs() < 3 * once.variance.sqrt()).all())


def test_it_keeps_the_contract(data, fitted):
    assert check_model(fitted, data).failed == ()


def test_sparse_processes_have_it_too(data):
    exact = process(restarts=1).fit(data, progress=False)
    sparse = process(restarts=1, sparse=InducingPoints(100, above=100)).fit(data, progress=False)
    assert sparse.inducing.shape == (2, 100, 4)
    assert float(sparse.output_covariance[0, 1]) > 0
    # its hyper-parameters come from 100 of the 180 steps
    p, q = (m.posterior(*questions()) for m in (sparse, exact))
    assert bool(((p.mean - q.mean).abs() < 3 * (p.variance + q.variance).sqrt()).all())
    assert check_model(sparse, data).failed == ()


def test_a_signal_of_the_kernel_would_say_the_same_twice(fitted):
    assert process().kernel == process(kernel=Scaled(RBF())).kernel == RBF()
    assert list(fitted.hyper) == ["RBF.length"]
    torch.testing.assert_close(fitted.hyper.signal, fitted.output_covariance.diagonal().sqrt())


def test_independent_outputs_have_a_diagonal_covariance(data):
    model = process(outputs=None, restarts=1).fit(data, progress=False)
    p = model.posterior(*questions())
    assert torch.equal(p.covariance, torch.diag_embed(p.variance))
    torch.testing.assert_close(model.output_covariance, model.hyper.signal.square().diag())
