"""The training loop, through the objective that autograd serves and the one that the network brings."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.objective import AutogradObjective
from bayeswm.inference import EpochReport, TrainingState, train_ensemble
from bayeswm.structures import MLP

SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)


class Scaled(bwm.Structure):
    """next = gain x + u with a learned noise: one parameter of each kind, exact optimum by least squares."""

    schema = SCHEMA

    def parameters(self):
        return {"gain": bwm.Parameter(0.0), "log_scale": bwm.Parameter(0.0)}

    def transition(self, parameters, state, action, context, step):
        mean = parameters["gain"] * state + action
        return mean, parameters["log_scale"].exp().expand_as(mean)


def linear_data(n=400, *, gain=0.7, noise=0.2, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, u = torch.randn(n, 1, generator=g, dtype=torch.float64), torch.randn(n, 1, generator=g, dtype=torch.float64)
    after = gain * x + u + noise * torch.randn(n, 1, generator=g, dtype=torch.float64)
    states = torch.stack((x, after), 1)
    return bwm.Trajectories(SCHEMA, state=states, action=u[:, None])


def train(objective, parameters, rows, **settings):
    state = TrainingState(parameters, torch.Generator().manual_seed(3).get_state())
    defaults = {
        "validation_rows": rows[:0],
        "epochs": 60,
        "batch_size": 64,
        "learning_rate": 0.05,
        "weight_decay": 0.0,
        "patience": 1000,
        "progress": False,
    }
    return train_ensemble(objective, state, rows, **(defaults | settings))


def test_any_structure_with_noise_reaches_the_least_squares_solution():
    data = linear_data().transitions()
    parameters = Scaled().initial(3, None, torch.float64)
    state = train(AutogradObjective(Scaled(), parameters, data), parameters, torch.arange(400))
    x, y = data.state[:, 0], (data.next_state - data.action)[:, 0]
    gain = (x @ y) / (x @ x)
    scale = (y - gain * x).square().mean().sqrt()
    # the cosine schedule ends at rate 0, so that only rounding is left of the minibatch noise
    torch.testing.assert_close(state.best["gain"], gain.expand(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(state.best["log_scale"].exp(), scale.expand(3), atol=2e-3, rtol=0)


def test_the_networks_own_gradient_is_that_of_autograd():
    data = linear_data(50).transitions()
    net = MLP(hidden=(8, 8)).bind(SCHEMA)
    parameters = net.initial(2, torch.Generator().manual_seed(0), torch.float64)
    parameters = net.standardise(parameters, data)
    rows = torch.arange(50).expand(2, -1)
    own, plain = net.objective(parameters, data), AutogradObjective(net, parameters, data)
    own.prior = 0.0
    loss, gradient = own.gradient(rows)
    other_loss, other_gradient = plain.gradient(rows)
    torch.testing.assert_close(gradient["network"], other_gradient["network"])
    # the losses differ by what does not depend on the network: units and the Gaussian's constant
    torch.testing.assert_close((loss - other_loss)[0], (loss - other_loss)[1])
    torch.testing.assert_close(own.log_prob(torch.arange(50)), plain.log_prob(torch.arange(50)))


def test_a_structure_without_noise_is_refused():
    drift = bwm.structures.FromFunction(lambda x, u: x + u, schema=SCHEMA, name="drift")
    data = linear_data(10).transitions()
    objective = AutogradObjective(drift, {"unused": torch.zeros(1, 1, dtype=torch.float64)}, data)
    with pytest.raises(bwm.SpecError, match="expected a structure that predicts its noise, drift has none"):
        objective.log_prob(torch.arange(10))


@pytest.mark.parametrize("batch_size", [1, 7, 64, 400, 1000])
@pytest.mark.parametrize("members", [1, 2, 5])
def test_any_batch_size_with_any_number_of_members(batch_size, members):
    data = linear_data(40).transitions()
    parameters = Scaled().initial(members, None, torch.float64)
    objective = AutogradObjective(Scaled(), parameters, data)
    state = train(objective, parameters, torch.arange(40), batch_size=batch_size, epochs=2)
    assert state.epoch == 2
    assert state.steps == 2 * -(-40 // min(batch_size, 40))


def test_members_keep_their_own_best_state_on_held_out_rows():
    data = linear_data(60).transitions()
    parameters = Scaled().initial(3, None, torch.float64)
    parameters["gain"] += torch.tensor([0.0, 0.7, -3.0], dtype=torch.float64)
    objective = AutogradObjective(Scaled(), parameters, data)
    reports: list[EpochReport] = []
    held_out = torch.arange(40, 60)
    state = train(
        objective,
        parameters,
        torch.arange(40),
        validation_rows=held_out,
        learning_rate=0.2,
        callbacks=[reports.append],
        epochs=30,
    )
    losses = torch.stack([r.validation_loss for r in reports])
    best = -AutogradObjective(Scaled(), state.best, data).log_prob(held_out).mean(-1).float()
    torch.testing.assert_close(best, state.best_loss)
    assert bool((best <= losses.min(0).values + 1e-4).all())


def test_patience_ends_a_training_that_no_longer_improves():
    data = linear_data(60).transitions()
    parameters = Scaled().initial(2, None, torch.float64)
    objective = AutogradObjective(Scaled(), parameters, data)
    rows = torch.arange(60)
    state = train(objective, parameters, rows[:40], validation_rows=rows[40:], epochs=5000, patience=10)
    assert state.epoch == state.best_epoch + 10


def test_a_callback_stops_the_training_after_all_were_called():
    data, seen = linear_data(20).transitions(), []
    parameters = Scaled().initial(1, None, torch.float64)
    calls = [lambda r: r.epoch == 3, lambda r: seen.append(r.epoch)]
    state = train(AutogradObjective(Scaled(), parameters, data), parameters, torch.arange(20), callbacks=calls)
    assert state.epoch == 3
    assert seen == [1, 2, 3]


class Matrix(bwm.Structure):
    """next = A x with a learned noise; the transpose gives a gradient of transposed strides."""

    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("y")], time_step=0.1)

    def parameters(self):
        return {"matrix": bwm.Parameter(torch.zeros(2, 2)), "log_scale": bwm.Parameter(torch.zeros(2))}

    def transition(self, parameters, state, action, context, step):
        mean = state @ parameters["matrix"].T
        return mean, parameters["log_scale"].exp().expand_as(mean)


def test_a_matrix_is_learned_the_right_way_round():
    g = torch.Generator().manual_seed(0)
    truth = torch.tensor([[0.9, 0.5], [-0.2, 0.7]], dtype=torch.float64)
    x = torch.randn(400, 2, generator=g, dtype=torch.float64)
    after = x @ truth.T + 0.05 * torch.randn(400, 2, generator=g, dtype=torch.float64)
    data = bwm.Trajectories(Matrix.schema, state=torch.stack((x, after), 1)).transitions()
    parameters = Matrix().initial(2, None, torch.float64)
    state = train(AutogradObjective(Matrix(), parameters, data), parameters, torch.arange(400))
    exact = torch.linalg.lstsq(x, after).solution.T
    torch.testing.assert_close(state.best["matrix"], exact.expand(2, 2, 2), atol=2e-3, rtol=0)


def test_tensors_that_are_views_are_refused():
    data = linear_data(10).transitions()
    parameters = Matrix().initial(3, None, torch.float64)
    parameters["matrix"] = parameters["matrix"].mT
    objective = AutogradObjective(Matrix(), parameters, data)
    with pytest.raises(bwm.SpecError, match="contiguous"):
        train(objective, parameters, torch.arange(10))
