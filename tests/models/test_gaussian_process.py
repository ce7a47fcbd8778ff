"""GaussianProcess: what it learns, what it promises, and the faults it survives."""

import dataclasses
import math
import warnings

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, HyperPriors, InducingPoints, Matern
from bayeswm.structures import MLP, Pendulum
from bayeswm.testing import check_model
from tests.statistical.checks import BUDGET, gaussian_p

F64 = torch.float64
TRUTH = bwm.KnownDynamics(structure=Pendulum(length=0.5, damping=0.05, time_step=0.05), noise=[0.01, 0.05])
LIGHTER = Pendulum(length=0.5, mass=0.7, time_step=0.05)


def simulate(episodes=5, steps=30, *, seed=0, truth=TRUTH):
    g = torch.Generator().manual_seed(seed)
    start = torch.stack((3 * torch.randn(episodes, generator=g), torch.randn(episodes, generator=g)), -1).double()
    actions = 2 * torch.rand(episodes, steps, 1, generator=g).double() - 1
    paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=actions)


def process(**settings):
    return bwm.GaussianProcess(**({"mean": LIGHTER, "restarts": 2, "features": 256} | settings))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data():
    return simulate()


@pytest.fixture(scope="module")
def fitted(data):
    return process().fit(data, progress=False)


def dense(model, trajectories, state, action):
    """Mean and covariance of the first variable's function at new inputs, by dense algebra in the state's units."""
    steps, hyper = trajectories.transitions(), model.hyper

    def inputs(x, u):
        return torch.cat((torch.sin(x[:, :1]), torch.cos(x[:, :1]), x[:, 1:], u), -1)

    fitted_on = inputs(*model.train.transitions()[:2])
    center, spread = fitted_on.mean(0), fitted_on.std(0, correction=0)
    a, b = ((inputs(x, u) - center) / spread / hyper["RBF.length"][0] for x, u in (steps[:2], (state, action)))

    def k(p, q):
        return hyper.signal[0] ** 2 * torch.exp(-0.5 * (p[:, None] - q).square().sum(-1))

    known = bwm.KnownDynamics(structure=model.mean)
    y = steps.next_state[:, 0] - known.predictive(*steps[:2]).mean[:, 0, 0]
    gain = torch.linalg.solve(k(a, a) + hyper.noise[0] ** 2 * torch.eye(len(a), dtype=F64), k(a, b)).mT
    return known.predictive(state, action).mean[:, 0, 0] + gain @ y, k(b, b) - gain @ k(a, b)


# --- what it learns -------------------------------------------------------------------------------------------------


def test_it_learns_what_the_physics_misses_and_the_noise(fitted):
    test = simulate(10, 20, seed=1).transitions()
    truth = TRUTH.predictive(test.state, test.action).mean[:, 0]
    learned = fitted.posterior(test.state, test.action).mean - truth
    physics = bwm.KnownDynamics(structure=LIGHTER).predictive(test.state, test.action).mean[:, 0] - truth
    assert float(learned[:, 1].square().mean()) < 0.1 * float(physics[:, 1].square().mean())
    # 150 rows: the standard error of a standard deviation is 6 %
    assert bool(((fitted.hyper.noise / torch.tensor([0.01, 0.05])).log().abs() < 0.25).all()), fitted.hyper.noise


@pytest.mark.parametrize("kernel", [RBF(), Matern(nu=2.5), Matern(nu=1.5)], ids=repr)
def test_without_physics_it_learns_the_change_of_state(kernel):
    model = process(mean=None, kernel=kernel).fit(simulate(10, 40), progress=False)
    test = simulate(10, 20, seed=1).transitions()
    truth = TRUTH.predictive(test.state, test.action).mean[:, 0]
    error = model.posterior(test.state, test.action).mean - truth
    r_squared = 1 - error.square().mean(0) / (truth - test.state).var(0)
    assert bool((r_squared > 0.95).all()), r_squared


def test_the_posterior_is_that_of_dense_algebra(data, fitted):
    fitted.train = data
    state, action = torch.randn(6, 2, generator=seeded(), dtype=F64), torch.randn(6, 1, generator=seeded(1), dtype=F64)
    mean, covariance = dense(fitted, data, state, action)
    p = fitted.posterior(state, action)
    torch.testing.assert_close(p.mean[:, 0], mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.variance[:, 0], covariance.diagonal(), rtol=1e-6, atol=1e-12)


@pytest.mark.statistical
def test_worlds_are_draws_of_the_whole_function(data, fitted):
    fitted.train = data
    state, action = 2 * torch.randn(4, 2, generator=seeded(), dtype=F64), torch.zeros(4, 1, dtype=F64)
    worlds = process().fit(data, progress=False).draw(3000, generator=seeded(2))
    functions = worlds.transition(worlds.start(state), action).mean[:, 0, :, 0]
    p_mean, p_covariance = gaussian_p(functions, *dense(fitted, data, state, action))
    assert p_mean > BUDGET
    assert p_covariance > BUDGET


def test_far_from_the_data_the_physics_answers_with_the_variance_of_the_prior(fitted):
    far, action = torch.tensor([[0.3, 4000.0], [1.0, -4000.0]], dtype=F64), torch.zeros(1, dtype=F64)
    physics = bwm.KnownDynamics(structure=LIGHTER).predictive(far, action.expand(2, 1)).mean[:, 0]
    p = fitted.posterior(far, action)
    torch.testing.assert_close(p.mean, physics)
    torch.testing.assert_close(p.variance, fitted.hyper.signal.square().expand(2, 2))
    drawn = fitted.predictive(far, action, worlds=2000, generator=seeded())
    # the standard error of a variance from 2,000 draws is 3 %
    assert bool(((drawn.epistemic_variance[:, 0] / p.variance).log().abs() < 0.16).all())
    near = fitted.posterior(torch.tensor([0.3, 0.0]), action)
    assert bool((near.variance < 0.5 * p.variance[0]).all())


def test_a_turn_more_is_the_same_angle(fitted):
    action = torch.zeros(1)
    a, b = (fitted.posterior(torch.tensor([angle, 1.0], dtype=F64), action) for angle in (0.3, 0.3 + 4 * math.pi))
    torch.testing.assert_close(b.mean - a.mean, torch.tensor([4 * math.pi, 0.0], dtype=F64), rtol=0, atol=1e-9)
    torch.testing.assert_close(a.variance, b.variance)


# --- what it promises -----------------------------------------------------------------------------------------------


def test_the_predictive_agrees_with_the_exact_posterior(fitted):
    state, action = torch.randn(5, 2, generator=seeded(), dtype=F64), torch.zeros(5, 1, dtype=F64)
    p = fitted.predictive(state, action, worlds=2000, generator=seeded(1))
    exact = fitted.posterior(state, action)
    z = (p.mean[:, 0] - exact.mean) / (exact.variance / 2000).sqrt()
    assert float(z.abs().max()) < 5
    noise = fitted.hyper.noise.square().expand(5, 2)
    torch.testing.assert_close(p.aleatoric_variance[:, 0], noise)
    assert bool(((p.epistemic_variance[:, 0] / exact.variance).log().abs() < 0.16).all())


def test_a_world_is_one_function_along_a_trajectory_and_in_any_batch(fitted):
    worlds = fitted.draw(4, generator=seeded())
    assert not worlds.exhaustive
    state, plan = torch.randn(3, 2, generator=seeded(1), dtype=F64), torch.zeros(3, 8, 1, dtype=F64)
    r = bwm.rollout(worlds, state, plan, particles=2, generator=seeded(2))
    before = torch.cat((r.initial.expand(4, 2, 3, 2)[..., None, :], r.particles[..., :-1, :]), -2)
    for h, law in enumerate(r.laws):
        again = worlds.transition(before[..., h, :], plan[:, h]).mean
        torch.testing.assert_close(law.mean.expand_as(again), again, rtol=0, atol=1e-10)
    alone = worlds[2].transition(before[2:3, :1, :1, 5], plan[:1, 5]).mean
    torch.testing.assert_close(alone[0, 0, 0], worlds.transition(before[..., 5, :], plan[:, 5]).mean[2, 0, 0])


def test_conditioning_is_fitting_on_everything_with_the_same_hyper_parameters(data, fitted):
    new = simulate(2, 20, seed=9)
    model = fitted.condition(new)
    fitted.train = model.train = data
    everything = bwm.Trajectories.concatenate([data, new])
    state, action = torch.randn(6, 2, generator=seeded(), dtype=F64), torch.zeros(6, 1, dtype=F64)
    mean, covariance = dense(model, everything, state, action)
    p = model.posterior(state, action)
    torch.testing.assert_close(p.mean[:, 0], mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(p.variance[:, 0], covariance.diagonal(), rtol=1e-6, atol=1e-12)
    assert torch.equal(model.hyper["RBF.length"], fitted.hyper["RBF.length"])
    assert torch.equal(model.hyper.noise, fitted.hyper.noise)
    assert not torch.equal(p.mean, fitted.posterior(state, action).mean)
    assert fitted.condition(new, in_training=True) is fitted


def test_a_second_fit_forgets_the_first(data, fitted):
    again = process().fit(simulate(2, 10, seed=3), progress=False)
    again.predictive(torch.zeros(2), torch.zeros(1), generator=seeded())
    again.fit(data, progress=False)
    one, other = (m.posterior(torch.zeros(2), torch.zeros(1)) for m in (again, fitted))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)


def test_same_seed_same_bits_and_the_caller_is_left_alone(data, fitted):
    copies = [v.clone() for v in (data.states(), data.action)]
    before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads())
    torch.set_default_dtype(F64)
    try:
        with torch.inference_mode():
            again = process().fit(data, seed=0, progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    drawn = [m.draw(3, generator=seeded(1)).parameters for m in (fitted, again)]
    assert all(torch.equal(drawn[0][k], drawn[1][k]) for k in drawn[0])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.get_default_dtype(), torch.get_num_threads())
    assert torch.equal(copies[0], data.states())
    assert torch.equal(copies[1], data.action)


def test_a_model_from_a_file_answers_the_same(data, tmp_path):
    settings = {"kernel": Matern(nu=1.5), "priors": HyperPriors(noise=(0.2, 1.0)), "restarts": 1, "noise_floor": 2e-3}
    model = process(**settings).fit(data, progress=False)
    model.save(tmp_path / "model.bwm")
    loaded = bwm.load(tmp_path / "model.bwm")
    assert loaded.state_dict()[0] == model.state_dict()[0]
    assert (loaded.kernel, loaded.priors, loaded.fits) == (model.kernel, model.priors, model.fits)
    action = torch.zeros(1)
    one, other = (m.predictive(torch.ones(2), action, generator=seeded()) for m in (model, loaded))
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.variance, other.variance)


def test_gradients_pass_through_a_rollout(fitted):
    worlds = fitted.draw(3, generator=seeded())
    state = torch.tensor([0.5, 0.1], dtype=F64, requires_grad=True)
    plan = torch.zeros(10, 1, dtype=F64, requires_grad=True)
    r = bwm.rollout(worlds, state, plan, particles=2, generator=seeded(1))
    gradients = torch.autograd.grad(r.mean[-1].sum(), (state, plan))
    for gradient in gradients:
        assert bool(gradient.isfinite().all())
        assert bool((gradient != 0).all())


# --- faults -----------------------------------------------------------------------------------------------------------

REAL = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], action=[bwm.Variable("u")], time_step=0.1)


def jumps(changes, actions=None):
    """Single steps from 0 with given changes (n, 2)."""
    changes = torch.as_tensor(changes, dtype=F64)
    actions = torch.zeros(len(changes), 1, 1) if actions is None else actions
    return bwm.Trajectories(REAL, state=torch.stack((torch.zeros_like(changes), changes), 1), action=actions)


def quietly(model, trajectories):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bwm.DataWarning)
        return model.fit(trajectories, progress=False)


def test_two_contradictory_rows_are_noise_as_well():
    model = quietly(process(mean=None), jumps([[1.0, 3.0], [-1.0, -3.0]]))
    assert bool((model.hyper.noise > torch.tensor([0.4, 1.2])).all()), model.hyper.noise


def test_one_transition_gives_a_finite_answer_that_the_priors_decide():
    model = process(mean=None).fit(jumps([[2.0, -1.0]]), progress=False)
    p = model.posterior(torch.zeros(2), torch.zeros(1))
    assert bool((p.mean * torch.tensor([1.0, -1.0]) > 0).all())
    assert bool((p.mean.abs() <= torch.tensor([2.0, 1.0])).all())
    assert bool((p.variance > 0).all())
    # a single value cannot tell length scales: they stay at the priors' median, sqrt(3)
    torch.testing.assert_close(model.hyper["RBF.length"], torch.full((2, 3), 3**0.5, dtype=F64), rtol=1e-3, atol=0)


def test_constant_targets_keep_a_floor_of_noise():
    actions = torch.randn(30, 1, 1, generator=seeded(), dtype=F64)
    with pytest.warns(bwm.DataWarning, match="constant input"):
        model = process(mean=None, noise_floor=5e-3).fit(jumps([[2.0, 0.5]] * 30, actions), progress=False)
    torch.testing.assert_close(model.hyper.noise, 5e-3 * torch.tensor([2.0, 0.5], dtype=F64), rtol=1e-6, atol=0)
    p = model.posterior(torch.zeros(2), torch.zeros(1))
    torch.testing.assert_close(p.mean, torch.tensor([2.0, 0.5], dtype=F64), rtol=1e-2, atol=0)


def test_physics_that_explains_everything_leaves_a_small_noise(data):
    exact = simulate(truth=bwm.KnownDynamics(structure=LIGHTER, noise=0.0))
    with pytest.warns(bwm.DataWarning, match="nothing to learn in angle, velocity"):
        model = process().fit(exact, progress=False)
    test = exact.transitions()
    p = model.posterior(test.state, test.action)
    torch.testing.assert_close(p.mean, test.next_state, rtol=0, atol=1e-6)
    assert bool((model.hyper.noise > 0).all())
    assert bool((model.hyper.noise < 0.01 * (test.next_state - test.state).std(0)).all())


@pytest.mark.parametrize("kernel", [RBF(), Matern(nu=2.5)], ids=repr)
def test_data_without_noise_leave_an_answer_that_float64_carries(kernel):
    exact = bwm.KnownDynamics(structure=TRUTH.structure, noise=0.0)
    train, test = simulate(10, 40, truth=exact), simulate(10, 20, seed=1, truth=exact)
    model = process(mean=None, kernel=kernel).fit(train, progress=False)
    assert model.jitter == (0.0, 0.0)
    steps = test.transitions()
    error = model.posterior(steps.state, steps.action).mean - steps.next_state
    assert bool((error.square().mean(0).sqrt() < 0.02 * (steps.next_state - steps.state).std(0)).all())
    # rows, worlds and chunks agree to 1e-9 although the covariance is nearly singular
    assert check_model(model, train).failed == ()


def test_huge_values_are_rescaled():
    x = 1e15 + 1e12 * torch.randn(4, 21, 2, generator=seeded(), dtype=F64).cumsum(1)
    model = quietly(process(mean=None), bwm.Trajectories(REAL, state=x, action=torch.ones(4, 20, 1)))
    p = model.predictive(x[0, 0], torch.ones(1), generator=seeded())
    assert bool(((p.mean[0] - x[0, 0]).abs() < 1e13).all())
    assert bool((p.stddev > 1e11).all() and (p.stddev < 1e13).all())


def test_padding_and_missing_values_never_enter(data):
    holes = data.states().clone()
    holes[2, 10, 1] = float("nan")
    lengths = [30, 1, 30, 12, 30]
    train = bwm.Trajectories(TRUTH.schema, state=holes, action=data.action, lengths=lengths, allow_missing=True)
    model = process(restarts=1).fit(train, progress=False)
    assert model.state_dict()[1]["x"].shape == (sum(lengths) - 2, 4)
    assert all(bool(v.isfinite().all()) for v in model.state_dict()[1].values())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_questions_that_are_no_numbers_are_refused(fitted, bad):
    action = torch.zeros(1)
    for ask in (lambda s: fitted.posterior(s, action), lambda s: fitted.predictive(s, action, generator=seeded())):
        with pytest.raises(bwm.DataError, match="state"):
            ask(torch.tensor([0.0, bad]))
    with pytest.raises(bwm.DataError, match="action"):
        fitted.posterior(torch.zeros(2), torch.zeros(2))


def test_too_many_steps_are_refused_before_anything_is_allocated():
    n = 1_000_000
    train = bwm.Trajectories(REAL, state=torch.zeros(1, n + 1, 2), action=torch.zeros(1, n, 1))
    with pytest.raises(bwm.SpecError, match=r"1000000 steps need .* GB .* use at most \d+ steps .* sparse"):
        process(mean=None, sparse=None).fit(train, progress=False)
    with pytest.raises(bwm.SpecError, match=r"200000 inducing points need .* GB .* use fewer than \d+"):
        process(mean=None, sparse=InducingPoints(200_000)).fit(train, progress=False)


def test_a_covariance_that_is_lost_is_an_error_and_leaves_the_model_as_it_was(data):
    model = process(restarts=1).fit(data, progress=False)
    before = model.posterior(torch.zeros(2), torch.zeros(1))

    class Broken(RBF):
        def with_gradient(self, x, values):
            covariance, gradient = super().with_gradient(x, values)
            return -covariance, gradient

    model.kernel = Broken()
    with pytest.raises(bwm.FitError, match=r"kernel .*Broken\(\) at n = 150 points is not positive definite"):
        model.fit(data, progress=False)
    after = model.posterior(torch.zeros(2), torch.zeros(1))
    assert torch.equal(before.mean, after.mean)


def test_a_kernel_of_ones_own_cannot_be_saved(data, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Own(RBF):
        """Another class."""

    model = process(kernel=Own(), restarts=1).fit(data, progress=False)
    with pytest.raises(bwm.SpecError, match="kernel of the library"):
        model.save(tmp_path / "model.bwm")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"restarts": 0}, "restarts >= 1"),
        ({"features": 0}, "features >= 1"),
        ({"noise_floor": 0.0}, r"noise_floor in \(0, 1\)"),
        ({"kernel": "RBF"}, "kernel of bayeswm.inference or gpytorch"),
        ({"mean": MLP()}, "learns its own"),
        ({"mean": Pendulum(mass=torch.distributions.LogNormal(0.0, 0.1))}, "laws for mass"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(bwm.SpecError, match=message):
        process(**settings)


def test_what_is_missing_is_said(data, fitted):
    with pytest.raises(bwm.SpecError, match="fit"):
        process().draw(3, generator=seeded())
    with pytest.raises(bwm.SpecError, match="generator"):
        fitted.draw(3)
    with pytest.raises(bwm.SpecError, match="worlds >= 1"):
        fitted.draw(0, generator=seeded())
    with pytest.raises(bwm.SpecError, match="schema"):
        fitted.condition(jumps([[1.0, 1.0]]))
    with pytest.raises(bwm.SpecError, match=r"0\.05 s, as Pendulum has, got 0\.1 s"):
        process().fit(data.resample(0.1), progress=False)


def test_other_kinds_of_state_are_refused():
    schema = bwm.Schema(state=[bwm.Variable("mode", kind=bwm.categorical(2))], time_step=0.1)
    train = bwm.Trajectories(schema, state=torch.zeros(1, 4, 1))
    with pytest.raises(bwm.SpecError, match="real or angle"):
        process(mean=None).fit(train, progress=False)
