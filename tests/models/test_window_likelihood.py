import torch
from torch.distributions import MultivariateNormal

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.inference import LinearGaussian, Unscented
from bayeswm.models.window_likelihood import Windows, open_loop_log_likelihood

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], action=[bwm.Variable("u")], time_step=0.1)
A = torch.tensor([[[1.0, 0.1], [-0.2, 0.9]], [[0.8, 0.3], [0.0, 1.0]]], dtype=F64)
B = torch.tensor([0.0, 0.5], dtype=F64)
NOISE = torch.tensor([[0.1, 0.3], [0.2, 0.1]], dtype=F64)


def recordings(*lengths: int) -> bwm.Trajectories:
    g = make_generator(0)
    states = [standard_normal((n + 1, 2), g, dtype=F64) for n in lengths]
    actions = [standard_normal((n, 1), g, dtype=F64) for n in lengths]
    return bwm.Trajectories(SCHEMA, state=states, action=actions)


def transition(state: torch.Tensor, action: torch.Tensor, context: torch.Tensor, t: int):
    moved = state @ A.view(2, *(1,) * (state.ndim - 3), 2, 2).mT
    return moved + B * action, None


def by_hand(window: bwm.Trajectories, world: int) -> float:
    x, u = window.states()[0], window.action[0]
    mean, covariance, total = x[0], torch.zeros(2, 2, dtype=F64), 0.0
    for t in range(int(window.lengths[0])):
        mean = A[world] @ mean + B * u[t]
        covariance = A[world] @ covariance @ A[world].mT + NOISE[world].square().diag()
        total += float(MultivariateNormal(mean, covariance).log_prob(x[t + 1]))
    return total


def test_forecasts_of_a_linear_system_are_dense_algebra() -> None:
    data = recordings(7, 3, 4)
    windows = Windows.of(data, data.states(), 4)
    assert windows.measured.shape == (4, 5, 2)
    cut = data.windows(4, rest=True)
    assert cut.lengths.tolist() == [4, 3, 3, 4]
    wanted = torch.tensor([[by_hand(cut[i], w) for i in range(4)] for w in range(2)], dtype=F64)
    for method in (LinearGaussian(), Unscented()):
        found = open_loop_log_likelihood(method, transition, windows, process_noise=NOISE)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_windows_know_where_they_come_from() -> None:
    data = recordings(7, 3)
    windows = Windows.of(data, data.states(), 4)
    assert windows.start.tolist() == [0, 4, 0]
    assert windows.episode.tolist() == [0, 0, 1]
    part = windows.rows(torch.tensor([2, 0]))
    assert part.start.tolist() == [0, 0]
    torch.testing.assert_close(part.action, windows.action[[2, 0]], equal_nan=True, rtol=0, atol=0)
    whole = Windows.of(data, data.states(), None)
    assert whole.measured.shape == (2, 8, 2)
