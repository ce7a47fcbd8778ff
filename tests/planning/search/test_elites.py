import torch

from bayeswm.planning import Constraint, Limits, Mean, Problem
from bayeswm.planning.search.elites import Best, Elites, settle
from tests.planning.systems import NotAbove, explosive_model, squares

G = torch.Generator().manual_seed(0)
TRIED = torch.randn(9, 2, 4, 1, generator=G, dtype=torch.float64)
KEY = torch.randn(9, 2, generator=G, dtype=torch.float64)
INF = float("inf")


def test_the_best_come_first() -> None:
    elites = Elites.of(TRIED, KEY, 3)
    for start in range(2):
        order = KEY[:, start].argsort()[:3]
        assert torch.equal(elites.key[:, start], KEY[order, start])
        assert torch.equal(elites.actions[:, start], TRIED[order, start])


def test_moments_mix_with_the_old_ones() -> None:
    elites = Elites.of(TRIED, KEY, 4)
    old_mean, old_sd = torch.full((2, 4, 1), 7.0).double(), torch.full((2, 4, 1), 2.0).double()
    mean, sd = elites.moments(old_mean, old_sd, momentum=0.25)
    torch.testing.assert_close(mean, 0.75 * elites.actions.mean(0) + 0.25 * old_mean)
    torch.testing.assert_close(sd, 0.75 * elites.actions.std(0, correction=0) + 0.25 * old_sd)


def test_what_diverged_is_no_elite() -> None:
    key = KEY.clone()
    key[2:, 0] = INF
    key[:, 1] = INF
    old_mean, old_sd = torch.full((2, 4, 1), 7.0).double(), torch.full((2, 4, 1), 2.0).double()
    mean, sd = Elites.of(TRIED, key, 4).moments(old_mean, old_sd, momentum=0.0)
    torch.testing.assert_close(mean[0], TRIED[:2, 0].mean(0))
    torch.testing.assert_close(sd[0], TRIED[:2, 0].std(0, correction=0))
    assert torch.equal(mean[1], old_mean[1])
    assert torch.equal(sd[1], old_sd[1])


def test_the_best_so_far() -> None:
    best = Best.none(torch.zeros(2, 4, 1).double())
    assert best.key.tolist() == [INF, INF]
    best = best.or_better(Elites(TRIED[:1], torch.tensor([[2.0, INF]]).double()))
    best = best.or_better(Elites(TRIED[1:2], torch.tensor([[3.0, 1.0]]).double()))
    assert best.key.tolist() == [2.0, 1.0]
    assert torch.equal(best.actions[0], TRIED[0, 0])
    assert torch.equal(best.actions[1], TRIED[1, 1])


def problem(*constraints: Constraint) -> Problem:
    worlds = explosive_model().draw(1)
    limits = Limits.of(worlds.schema, like=torch.empty(1, dtype=torch.float64))
    return Problem(
        squares(),
        worlds,
        torch.ones(2, 1),
        horizon=4,
        particles=1,
        risk=Mean(),
        limits=limits,
        constraints=constraints,
    )


def test_a_mean_that_diverges_gives_way_to_the_best_tried() -> None:
    mean = torch.stack((torch.full((4, 1), 0.5), torch.full((4, 1), -0.5))).double()
    best = Best(torch.full((2, 4, 1), -0.1).double(), torch.tensor([3.0, 0.0]).double())
    found, key = settle(problem(), mean, best, diverged=torch.full((2,), 0.5).double())
    assert torch.equal(found[0], best.actions[0])
    assert torch.equal(found[1], mean[1])
    assert float(key[0]) == 3.0
    torch.testing.assert_close(key[1], problem().score(mean[None]).key[0, 1])


def test_a_mean_without_reason_for_doubt_is_taken() -> None:
    mean = torch.full((2, 4, 1), -0.5).double()
    best = Best(torch.full((2, 4, 1), -0.1).double(), torch.tensor([3.0, 0.0]).double())
    found, key = settle(problem(), mean, best, diverged=torch.zeros(2).double())
    assert torch.equal(found, mean)
    assert torch.equal(key, best.key)
    # which does not depend on the other starts
    found, key = settle(problem(), mean, best, diverged=torch.tensor([0.5, 0.0]).double())
    assert torch.equal(found, mean)
    assert key[1] == best.key[1]


def test_a_mean_that_breaks_a_constraint_gives_way_to_a_plan_that_does_not() -> None:
    mean = torch.tensor([-0.5, -0.2]).double()[:, None, None].expand(2, 4, 1)
    best = Best(torch.full((2, 4, 1), -0.6).double(), torch.tensor([3.0, 9.0]).double())
    found, key = settle(problem(NotAbove(-0.3)), mean, best, diverged=torch.zeros(2).double())
    assert torch.equal(found[0], mean[0])
    assert torch.equal(found[1], best.actions[1])
    assert float(key[1]) == 9.0
