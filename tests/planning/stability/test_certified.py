import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import LQR, certify, clopper_pearson, closed_loop_jacobian, dare, quadratic
from bayeswm.planning.stability.certified import mean_after, share_of_worlds
from tests.hidden_models import hidden_mode_worlds
from tests.planning.linear_systems import linear_problem, starts


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
