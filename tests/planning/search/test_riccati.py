import numpy as np
import pytest
import torch

from bayeswm.base.errors import SpecError
from bayeswm.planning import dare, riccati
from tests.planning.linear_systems import linear_problem, starts

HORIZON = 25


def along(matrix, horizon=HORIZON):
    return matrix.expand(horizon, *matrix.shape)


def test_cost_to_go_is_the_dense_optimum():
    p = linear_problem(0)
    _, P = riccati(along(p.A), along(p.B), along(torch.diag(p.Q)), along(torch.diag(p.R)), last=torch.diag(p.last))
    for x0 in starts(3):
        torch.testing.assert_close(x0 @ P[0] @ x0, p.optimum(x0, HORIZON)[1], rtol=1e-10, atol=0)


def test_gains_give_the_dense_optimal_actions():
    p = linear_problem(1)
    K, _ = riccati(along(p.A), along(p.B), along(torch.diag(p.Q)), along(torch.diag(p.R)), last=torch.diag(p.last))
    x0 = starts(1)[0]
    x, actions = x0, []
    for t in range(HORIZON):
        actions.append(K[t] @ x)
        x = p.A @ x + p.B @ actions[-1]
    torch.testing.assert_close(torch.stack(actions), p.optimum(x0, HORIZON)[0], rtol=1e-8, atol=1e-10)


def test_crossed_costs_are_a_feedback_in_disguise():
    # x'Qx + 2x'Nu + u'Ru with v = u + R^-1 N'x is x'(Q - N R^-1 N')x + v'Rv for A - B R^-1 N'
    p = linear_problem(2)
    Q, R, N = torch.diag(p.Q) + torch.eye(4), torch.diag(p.R), 0.1 * starts(4)[:, :2]
    shift = torch.linalg.solve(R, N.T)
    crossed = riccati(along(p.A), along(p.B), along(Q), along(R), last=torch.diag(p.last), cross=along(N))
    plain = riccati(along(p.A - p.B @ shift), along(p.B), along(Q - N @ shift), along(R), last=torch.diag(p.last))
    torch.testing.assert_close(crossed[1], plain[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(crossed[0], plain[0] - shift, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        dare(p.A, p.B, Q, R, cross=N)[1], dare(p.A - p.B @ shift, p.B, Q - N @ shift, R)[1], rtol=1e-9, atol=1e-12
    )


def test_a_batch_is_its_parts():
    problems = [linear_problem(seed) for seed in range(3)]
    A, B, Q, R, last = (
        torch.stack([f(p) for p in problems])
        for f in (
            lambda p: along(p.A),
            lambda p: along(p.B),
            lambda p: along(torch.diag(p.Q)),
            lambda p: along(torch.diag(p.R)),
            lambda p: torch.diag(p.last),
        )
    )
    K, P = riccati(A, B, Q, R, last=last)
    for i in range(3):
        one = riccati(A[i], B[i], Q[i], R[i], last=last[i])
        torch.testing.assert_close(K[i], one[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(P[i], one[1], rtol=1e-12, atol=1e-12)


def test_horizon_zero_costs_the_end():
    one = torch.eye(2, dtype=torch.float64)
    K, P = riccati(one[None][:0], one[None][:0], one[None][:0], one[None][:0], last=3 * one)
    assert K.shape == (0, 2, 2)
    torch.testing.assert_close(P, 3 * one[None])


def test_an_action_that_costs_nothing_is_refused():
    one = torch.ones(3, 1, 1)
    with pytest.raises(SpecError, match="rises with every action"):
        riccati(one, one, one, 0 * one, last=0 * one[0])


@pytest.mark.parametrize("seed", range(5))
def test_infinite_horizon_agrees_with_scipy(seed):
    linalg = pytest.importorskip("scipy.linalg")
    p = linear_problem(seed, states=5)
    Q, R = torch.diag(p.Q), torch.diag(p.R)
    K, P = dare(p.A, p.B, Q, R)
    exact = linalg.solve_discrete_are(*(v.numpy() for v in (p.A, p.B, Q, R)))
    np.testing.assert_allclose(P.numpy(), exact, rtol=1e-8)
    torch.testing.assert_close(P, Q + p.A.T @ P @ (p.A + p.B @ K), rtol=1e-9, atol=1e-9)


def test_a_long_horizon_is_an_infinite_one():
    p = linear_problem(3)
    n = 400
    K, P = riccati(
        along(p.A, n), along(p.B, n), along(torch.diag(p.Q), n), along(torch.diag(p.R), n), last=torch.diag(p.last)
    )
    gain, cost = dare(p.A, p.B, torch.diag(p.Q), torch.diag(p.R))
    torch.testing.assert_close(K[0], gain, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(P[0], cost, rtol=1e-9, atol=1e-9)


def test_scalar_with_a_slow_mode():
    # p = q + a^2 p r / (r + p): the positive root
    a, q, r = 0.9999, 1e-6, 1.0
    p = dare(*(torch.tensor([[v]], dtype=torch.float64) for v in (a, 1.0, q, r)))[1].item()
    b = r * (1 - a**2) - q
    assert p == pytest.approx((-b + (b**2 + 4 * q * r) ** 0.5) / 2, rel=1e-9)


@pytest.mark.parametrize(
    ("A", "Q"),
    [
        (torch.diag(torch.tensor([0.5, 1.2])), torch.eye(2)),  # the unstable mode is out of reach
        (torch.diag(torch.tensor([1.0, 0.5])), torch.diag(torch.tensor([0.0, 1.0]))),  # a drift that costs nothing
    ],
)
def test_what_cannot_be_made_stable_is_refused(A, Q):
    B = torch.tensor([[1.0], [0.0]]) if A[1, 1] > 1 else torch.tensor([[0.0], [1.0]])
    with pytest.raises(SpecError, match="stable"):
        dare(A, B, Q, torch.eye(1))


def test_an_indefinite_cost_of_actions_is_refused():
    one = torch.ones(1, 1)
    with pytest.raises(SpecError, match="positive definite"):
        dare(one, one, one, -one)
