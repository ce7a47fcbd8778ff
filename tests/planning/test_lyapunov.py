import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.planning import LQR, certify, clopper_pearson, closed_loop_jacobian, dare, lyapunov, quadratic
from bayeswm.planning.lyapunov import mean_after, share_of_worlds
from tests.hidden_models import hidden_mode_worlds
from tests.planning.linear_systems import linear_problem, starts


@pytest.mark.parametrize("a", [0.0, 0.5, -0.9, 0.99999])
def test_scalar(a):
    found = lyapunov(torch.tensor([[a]], dtype=torch.float64), torch.tensor([[2.0]]))
    assert float(found.P) == pytest.approx(2 / (1 - a**2), rel=1e-10)
    assert float(found.rate) == pytest.approx(a**2, rel=1e-10)
    assert float(found.spectral_radius) == pytest.approx(abs(a))
    assert bool(found.valid)


@pytest.mark.parametrize("a", [1.0, -1.0, 1.5])
def test_what_is_not_stable_has_none(a):
    found = lyapunov(torch.tensor([[a]]))
    assert not bool(found.valid)
    assert float(found.rate) == float("inf")
    assert bool(found.P.isnan().all())


def stable(count, n, radius, seed=0):
    A = torch.randn(count, n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return A * (radius / torch.linalg.eigvals(A).abs().amax(-1))[:, None, None]


@pytest.mark.parametrize("radius", [0.3, 0.999])
def test_it_solves_the_equation_that_scipy_solves(radius):
    linalg = pytest.importorskip("scipy.linalg")
    A = stable(5, 4, radius)
    found = lyapunov(A)
    assert bool(found.valid.all())
    torch.testing.assert_close(found.spectral_radius, torch.full((5,), radius, dtype=torch.float64))
    for a, P in zip(A, found.P, strict=True):
        exact = linalg.solve_discrete_lyapunov(a.T.numpy(), np.eye(4))
        np.testing.assert_allclose(P.numpy(), exact, rtol=1e-8, atol=1e-8 * np.abs(exact).max())


def test_v_falls_by_q_and_at_most_by_the_rate():
    A = stable(3, 4, 0.95, seed=1)
    root = starts(4)
    Q = root @ root.T + 0.1 * torch.eye(4)
    found = lyapunov(A, Q)
    x = starts(200, seed=7)
    before = ((x @ found.P) * x).sum(-1)
    after = (((x @ A.mT) @ found.P) * (x @ A.mT)).sum(-1)
    torch.testing.assert_close(before - after, ((x @ Q) * x).sum(-1).expand(3, -1), rtol=1e-8, atol=1e-8)
    assert bool((after <= found.rate[:, None] * before * (1 + 1e-10)).all())
    # the rate is reached: the eigenvector
    for a, P, rate in zip(A, found.P, found.rate, strict=True):
        values = torch.linalg.eigvals(torch.linalg.solve(P, a.T @ P @ a)).real
        assert float(values.max()) == pytest.approx(float(rate), rel=1e-8)
    assert bool((found.rate >= found.spectral_radius.square() - 1e-12).all())


def test_a_long_transient_is_still_certified():
    A = torch.tensor([[0.5, 100.0], [0.0, 0.5]])
    found = lyapunov(A)
    assert bool(found.valid)
    torch.testing.assert_close(A.T.double() @ found.P @ A.double() - found.P, -torch.eye(2).double(), rtol=0, atol=1e-9)


def test_input_that_makes_no_sense():
    with pytest.raises(SpecError, match="positive definite"):
        lyapunov(torch.eye(2) / 2, torch.diag(torch.tensor([1.0, -1.0])))
    with pytest.raises(SpecError, match="shape"):
        lyapunov(torch.zeros(2, 3))
    with pytest.raises(DataError, match="finite"):
        lyapunov(torch.full((1, 1), float("nan")))


def uncertain(count=60, spread=0.05):
    p = linear_problem(0)
    law = torch.distributions.Normal(p.A, spread)
    structure = bwm.structures.Linear(p.schema(1e3), A=law, B=p.B)
    worlds = bwm.KnownDynamics(structure=structure).draw(count, generator=torch.Generator().manual_seed(0))
    return p, worlds, dare(p.A, p.B, torch.diag(p.Q), torch.diag(p.R))[0]


def test_jacobian_of_each_world():
    p, worlds, K = uncertain()
    found = closed_loop_jacobian(worlds, lambda x, t: x @ K.T, torch.zeros(3, 4))
    exact = worlds.parameters["A"] + p.B @ K
    torch.testing.assert_close(found, exact[:, None].expand(-1, 3, 4, 4))


def test_certificates_by_world_are_those_of_its_matrix():
    p, worlds, K = uncertain(spread=0.2)
    found = certify(worlds, lambda x, t: x @ K.T, torch.zeros(4), level=0.9)
    A = worlds.parameters["A"] + p.B @ K
    held = torch.linalg.eigvals(A).abs().amax(-1) < 1
    assert 0 < int(held.sum()) < 60
    assert bool((found.each.valid == held).all())
    assert float(found.share) == pytest.approx(float(held.double().mean()))
    exact = clopper_pearson(held.sum(), 60, 0.9)
    assert [float(v) for v in found.interval] == pytest.approx([float(v) for v in exact])
    # one function for all worlds is a stronger demand
    assert bool((held | ~(found.common_rate < 1)).all())
    assert float(found.common_share) <= float(found.share)
    P, x = found.common.P, starts(500, seed=2)
    ratio = (((x @ A.mT) @ P) * (x @ A.mT)).sum(-1) / ((x @ P) * x).sum(-1)
    assert bool((ratio.amax(-1) <= found.common_rate * (1 + 1e-10)).all())


def test_a_gain_that_holds_nothing_is_not_certified():
    _, worlds, _ = uncertain()
    found = certify(worlds, lambda x, t: 50 * x[..., :2], torch.zeros(4))
    assert not bool(found.common.valid)
    assert float(found.share) == 0.0
    assert float(found.common_share) == 0.0
    assert float(found.interval[1]) == pytest.approx(1 - 0.025 ** (1 / 60), rel=1e-6)


def test_pendulum_under_its_regulator():
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium())
    objective = quadratic(torch.tensor([1.0, 0.1]), torch.tensor([0.001]))
    plan = LQR(objective, horizon=2, stationary=True).plan(model, torch.zeros(2))
    found = certify(model.draw(1), plan.feedback, torch.zeros(2))
    # semi-implicit Euler of 15 sin(angle) + 3 torque
    K = plan.feedback.gains[0]
    rate = torch.tensor([[0.75, 1.0]]) + 0.15 * K
    A = torch.cat((torch.tensor([[1.0, 0.0]]) + 0.05 * rate, rate))
    assert float(found.each.spectral_radius) == pytest.approx(float(torch.linalg.eigvals(A).abs().max()), rel=1e-6)
    assert found.share == found.interval[0] == found.interval[1] == 1.0


def test_weighted_worlds_count_as_their_effective_number():
    _, worlds, _ = uncertain(count=4)
    weighted = worlds.reweight(torch.tensor([0.7, 0.1, 0.1, 0.1]).log())
    share, (low, high) = share_of_worlds(weighted, torch.tensor([True, True, False, False]), level=0.9)
    # 1 / (0.49 + 0.03) = 1.9 worlds, rounded down to one of which 0.8 hold: neither side may count it
    assert float(share) == pytest.approx(0.8)
    assert [float(low), float(high)] == [0.0, 1.0]


def test_worlds_that_remember_more_than_the_state_are_refused():
    worlds = hidden_mode_worlds()
    with pytest.raises(SpecError, match="carry is the state"):
        mean_after(worlds, lambda x, t: x[..., :0], torch.zeros(2, 1, 1, worlds.schema.state.size))
