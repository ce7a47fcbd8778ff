"""Gaussian processes with many steps: sparse above a limit, close to the exact one."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import InducingPoints, Matern
from bayeswm.structures import Pendulum
from bayeswm.testing import check_model
from tests.models.test_gaussian_process import LIGHTER, TRUTH, seeded, simulate
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64
POINTS = InducingPoints(count=60, above=200)


def process(**settings):
    return bwm.GaussianProcess(**({"mean": LIGHTER, "restarts": 2, "features": 256, "sparse": POINTS} | settings))


@pytest.fixture(scope="module")
def data():
    return simulate(20, 30)


@pytest.fixture(scope="module")
def fitted(data):
    return process().fit(data, progress=False)


def questions(n=6):
    g = seeded(1)
    return torch.randn(n, 2, generator=g, dtype=F64), torch.randn(n, 1, generator=g, dtype=F64)


def test_it_is_sparse_above_the_limit_and_exact_below(data, fitted):
    assert fitted.inducing.shape == (2, 60, 4)
    assert process(restarts=1).fit(simulate(5, 40), progress=False).inducing is None
    assert process(restarts=1, sparse=None).fit(simulate(7, 30), progress=False).inducing is None


def test_it_answers_as_the_exact_process_does(data, fitted):
    exact = process(sparse=None).fit(data, progress=False)
    for one, other in zip(fitted.fits, exact.fits, strict=True):
        assert other.objective - 1.0 < one.objective <= other.objective + 1e-6
    test = simulate(10, 20, seed=1).transitions()
    p, q = (m.posterior(test.state, test.action) for m in (fitted, exact))
    # the posterior deviation is what either may be off by
    assert bool((((p.mean - q.mean) / q.variance.sqrt()).square().mean(0).sqrt() < 0.3).all())
    assert bool(((p.variance / q.variance).log().mean(0).abs() < 0.2).all())
    torch.testing.assert_close(fitted.hyper.noise, exact.hyper.noise, rtol=0.02, atol=0)


@pytest.mark.statistical
def test_worlds_have_the_mean_and_variance_of_the_posterior(fitted):
    state, action = questions(3)
    worlds = fitted.draw(3000, generator=seeded(2))
    functions = worlds.transition(worlds.start(state), action).mean[:, 0]
    p = fitted.posterior(state, action)
    for i in range(3):
        for p_value in gaussian_p(functions[:, i], p.mean[i], p.covariance[i]):
            assert p_value > BUDGET


def test_a_world_is_one_function_in_any_batch(fitted):
    worlds = fitted.draw(4, generator=seeded())
    state, action = questions()
    together = worlds.transition(worlds.start(state), action).mean
    alone = worlds[2].transition(worlds[2].start(state[3]), action[3]).mean
    torch.testing.assert_close(alone[0, 0], together[2, 0, 3], rtol=0, atol=1e-9)


def test_conditioning_is_having_seen_everything_at_once(data, fitted):
    new = simulate(3, 20, seed=9)
    p = fitted.condition(new).posterior(*questions())
    r = fitted._fitted
    everything = bwm.Trajectories.concatenate([data, new]).transitions()
    blank = type(r.posterior).prior(r.posterior.kernel, r.posterior.centers, r.posterior.hyper)
    whole = blank.condition(r.inputs(*everything[:3]), r.outputs(everything))
    state, action = questions()
    mean, variance = whole.function(r.inputs(state, action, torch.empty(6, 0, dtype=F64)))
    known = bwm.KnownDynamics(structure=LIGHTER).predictive(state, action).mean[:, 0]
    torch.testing.assert_close(p.mean, known + mean.mT * r.output_scale, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.variance, variance.mT * r.output_scale.square(), rtol=1e-6, atol=1e-12)
    assert not torch.equal(p.mean, fitted.posterior(state, action).mean)
    assert fitted.condition(new, in_training=True) is fitted


def test_far_from_the_data_the_physics_answers_with_the_variance_of_the_prior(fitted):
    far, action = torch.tensor([[0.3, 4000.0]], dtype=F64), torch.zeros(1, 1, dtype=F64)
    p = fitted.posterior(far, action)
    torch.testing.assert_close(p.mean, bwm.KnownDynamics(structure=LIGHTER).predictive(far, action).mean[:, 0])
    torch.testing.assert_close(p.variance[0], fitted.hyper.signal.square())


def test_a_model_from_a_file_answers_the_same(fitted, tmp_path):
    fitted.save(tmp_path / "model.bwm")
    loaded = bwm.load(tmp_path / "model.bwm")
    assert loaded.state_dict()[0] == fitted.state_dict()[0]
    assert loaded.sparse == POINTS
    one, other = (m.predictive(*questions(), generator=seeded()) for m in (fitted, loaded))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)
    # the data are not in the file
    sizes = [v.numel() for v in fitted.state_dict()[1].values()]
    assert max(sizes) == 2 * 60 * 60


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


def test_same_seed_same_bits(data, fitted):
    again = process().fit(data, progress=False)
    one, other = (m.draw(2, generator=seeded()).parameters for m in (fitted, again))
    assert all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_many_steps_are_worth_more_than_an_exact_process_of_some():
    physics = Pendulum(length=0.5, mass=0.7, time_step=0.05)
    train, test = simulate(200, 50), simulate(20, 50, seed=1).transitions()
    model = bwm.GaussianProcess(mean=physics, kernel=Matern(nu=2.5), restarts=1).fit(train, progress=False)
    few = bwm.GaussianProcess(mean=physics, kernel=Matern(nu=2.5), restarts=1).fit(train[:20], progress=False)
    assert model.inducing is not None
    assert few.inducing is None

    def surprise(m):
        p = m.posterior(test.state, test.action)
        law = torch.distributions.Normal(p.mean, (p.variance + m.hyper.noise.square()).sqrt())
        return -law.log_prob(test.next_state).mean(0)

    truth = torch.distributions.Normal(
        TRUTH.predictive(test.state, test.action).mean[:, 0], torch.tensor([0.01, 0.05], dtype=F64)
    )
    best = -truth.log_prob(test.next_state).mean(0)
    assert bool((surprise(model) < surprise(few)).all())
    # in nats a step: 10,000 steps leave next to nothing to learn
    assert bool((surprise(model) < best + 0.02).all())
