"""GaussianProcess with every kernel: promises, saved files, caches, contradictory data."""

import dataclasses
import math

import pytest
import torch

import bayeswm as bwm
from bayeswm.inference import RBF, Matern, Periodic, Scaled
from bayeswm.testing import check_model
from tests.models.test_gaussian_process import jumps, process, quietly, seeded, simulate

F64 = torch.float64


@pytest.fixture(scope="module")
def data():
    return simulate(3, 25)


FAMILIES = [
    RBF(),
    Matern(nu=0.5),
    Matern(nu=1.5),
    Matern(nu=2.5),
    Periodic(active="angle") * RBF(active=("velocity", "torque")),
    RBF(active="torque") + Periodic() * Matern(nu=2.5, active="velocity"),
]


def test_a_periodic_kernel_sees_the_raw_angle_and_its_covariance_is_the_definition(data):
    model = process(mean=None, kernel=Periodic() * RBF(active=("velocity", "torque")), restarts=1)
    model.fit(data, progress=False)
    assert list(model.hyper) == [
        "Periodic.length",
        "RBF(velocity, torque).length",
        "Periodic*RBF(velocity, torque).signal",
    ]
    assert model.hyper.inputs["Periodic.length"] == ("angle",)
    (length, others, _), noise = (v[0] for v in model.hyper.values()), model.hyper.noise[0]
    steps = data.transitions()
    state, action = torch.randn(5, 2, generator=seeded(), dtype=F64), torch.zeros(5, 1, dtype=F64)
    rest, new = torch.cat((steps.state[:, 1:], steps.action), -1), torch.cat((state[:, 1:], action), -1)
    center, spread = rest.mean(0), rest.std(0, correction=0)

    def k(a, p, b, q):
        turn = torch.sin(0.5 * (a[:, None] - b)) / length
        distance = (((p - center) / spread)[:, None] - (q - center) / spread) / others
        return model.hyper.signal[0] ** 2 * torch.exp(-2 * turn.square() - 0.5 * distance.square().sum(-1))

    angles, y = steps.state[:, 0], steps.next_state[:, 0] - steps.state[:, 0]
    y = torch.atan2(torch.sin(y), torch.cos(y))
    covariance = k(angles, rest, angles, rest) + noise**2 * torch.eye(len(y), dtype=F64)
    mean = k(state[:, 0], new, angles, rest) @ torch.linalg.solve(covariance, y)
    torch.testing.assert_close(model.posterior(state, action).mean[:, 0] - state[:, 0], mean, rtol=0, atol=1e-8)


def test_a_constant_is_learned_beside_the_mean_and_stays_far_from_the_data(tmp_path):
    changes = torch.tensor([[5.0, -2.0]], dtype=F64) + 0.3 * torch.randn(60, 2, generator=seeded(), dtype=F64)
    actions = torch.randn(60, 1, 1, generator=seeded(1), dtype=F64)
    train = jumps(changes, actions)
    model = quietly(process(mean=None, constant=True), train)
    far = torch.full((2,), 1e6, dtype=F64), torch.full((1,), 1e6, dtype=F64)
    answer = model.posterior(*far)
    # the standard error of a mean of 60 values is 0.04
    torch.testing.assert_close(answer.mean - far[0], torch.tensor([5.0, -2.0], dtype=F64), rtol=0, atol=0.16)
    assert bool((quietly(process(mean=None), train).posterior(*far).mean == far[0]).all())
    law = model.draw(2000, generator=seeded())
    assert check_model(model, train).failed == ()
    drawn = law.transition(law.start(far[0]), far[1]).mean[:, 0]
    z = (drawn.mean(0) - answer.mean) / (answer.variance / 2000).sqrt()
    assert float(z.abs().max()) < 5
    model.save(tmp_path / "model.bwm")
    assert torch.equal(bwm.load(tmp_path / "model.bwm").posterior(*far).mean, answer.mean)
    again = model.condition(jumps(changes[:5], actions[:5]))
    assert torch.equal(again.posterior(*far).mean, answer.mean)


@pytest.mark.parametrize("kernel", FAMILIES, ids=repr)
def test_every_family_keeps_the_promises(kernel, data, tmp_path):
    model = process(kernel=kernel, restarts=1, features=64).fit(data, progress=False)
    assert check_model(model, data).failed == ()
    a, b = (
        model.posterior(torch.tensor([angle, 1.0], dtype=F64), torch.zeros(1)) for angle in (0.3, 0.3 + 4 * math.pi)
    )
    torch.testing.assert_close(b.mean - a.mean, torch.tensor([4 * math.pi, 0.0], dtype=F64), rtol=0, atol=1e-9)
    model.save(tmp_path / "model.bwm")
    loaded = bwm.load(tmp_path / "model.bwm")
    assert loaded.kernel == model.kernel
    assert repr(loaded.hyper) == repr(model.hyper)
    c = loaded.posterior(torch.tensor([0.3, 1.0], dtype=F64), torch.zeros(1))
    assert torch.equal(a.mean, c.mean)


def check_answer(model, state, action):
    """Compare the answer at one point with dense algebra on what the model holds now."""
    r, answer = model._residual, model.posterior(state, action)
    x, y, (values, noise) = r.posterior.x, r.posterior.y, r.posterior.hyper
    point, known = r.inputs(state, action, torch.empty(0, dtype=F64))[None], r.known(state, action, torch.empty(0), 0)
    for s in range(2):
        k = r.posterior.kernel.covariance(x, x, values[s]) + noise[s] ** 2 * torch.eye(len(x), dtype=F64)
        cross = r.posterior.kernel.covariance(point, x, values[s])
        mean = cross @ torch.linalg.solve(k, y[s]) * r.output_scale[s]
        variance = r.posterior.kernel.variance(values[s], x.shape[1]) - cross @ torch.linalg.solve(k, cross.mT)
        torch.testing.assert_close(answer.mean[s], known[s] + mean[0], rtol=0, atol=1e-8)
        torch.testing.assert_close(answer.variance[s], variance[0, 0] * r.output_scale[s] ** 2, rtol=1e-6, atol=1e-12)
    return answer


@pytest.mark.parametrize("kernel", FAMILIES, ids=repr)
def test_nothing_old_is_kept_when_data_or_hyper_parameters_change(kernel, data, tmp_path):
    question = torch.tensor([0.3, 1.0], dtype=F64), torch.zeros(1, dtype=F64)
    model = process(kernel=kernel, restarts=1, features=64).fit(data, progress=False)
    answers = [check_answer(model, *question)]
    model = model.condition(simulate(2, 10, seed=9))
    answers.append(check_answer(model, *question))
    r = model._residual
    hyper = r.posterior.hyper._replace(noise=2 * r.posterior.hyper.noise)
    model._residual = dataclasses.replace(r, posterior=dataclasses.replace(r.posterior, hyper=hyper))
    answers.append(check_answer(model, *question))
    model.save(tmp_path / "model.bwm")
    torch.testing.assert_close(check_answer(bwm.load(tmp_path / "model.bwm"), *question), answers[-1])
    model.fit(data, progress=False)
    torch.testing.assert_close(check_answer(model, *question), answers[0])
    assert len({float(a.variance[1]) for a in answers}) == 3


def test_kernels_of_gpytorch_are_accepted(data):
    from gpytorch.kernels import PeriodicKernel, RBFKernel, RQKernel, ScaleKernel

    theirs = ScaleKernel(RBFKernel(ard_num_dims=2, active_dims=[1, 2])) * PeriodicKernel(active_dims=[0])
    model = process(kernel=theirs, restarts=1).fit(data, progress=False)
    assert list(model.hyper) == ["RBF(1, 2).length", "RBF(1, 2).signal", "Periodic(0).length", "Periodic(0).period"]
    assert model.hyper.inputs["RBF(1, 2).length"] == ("velocity", "torque")
    with pytest.raises(bwm.SpecError, match="RQKernel"):
        process(kernel=ScaleKernel(RQKernel()))


def test_a_fixed_signal_is_a_share_of_the_outputs_root_mean_square(data):
    model = process(mean=None, kernel=Scaled(RBF(), signal=1.0), restarts=1).fit(data, progress=False)
    assert list(model.hyper) == ["RBF.length"]
    steps = data.transitions()
    change = data.schema.state.difference(steps.next_state, steps.state)
    torch.testing.assert_close(model.hyper.signal, change.square().mean(0).sqrt())


@pytest.mark.parametrize(
    "kernel", [*FAMILIES[:4], Periodic(active="x"), RBF() * Periodic(active="y"), RBF() + Matern()], ids=repr
)
def test_contradictory_duplicates_raise_the_noise_to_their_spread(kernel):
    train = jumps([[1.0, 3.0]] * 50 + [[-1.0, -3.0]] * 50)
    model = quietly(process(mean=None, kernel=kernel), train)
    # the priors pull the noise by less than 2 % against 100 rows
    torch.testing.assert_close(model.hyper.noise, torch.tensor([1.0, 3.0], dtype=F64), rtol=0.05, atol=0)
    p = model.posterior(torch.zeros(2), torch.zeros(1))
    assert bool((p.mean.abs() < 0.05).all())
