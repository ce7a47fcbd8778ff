"""Tubes in half-spaces against brute force, and the level of the one-sided tube."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.schema import Variable, Variables
from bayeswm.diagnostics import ConformalTube, Ellipsoid, Ranks, SupT, Tube
from bayeswm.diagnostics.tube import AXES, EllipsoidTube
from bayeswm.planning import ChanceConstraint, HalfSpaces, InsideTube
from bayeswm.planning.safety.inside_tube import one_sided, support
from tests.planning.walls import STEPS, TRUTH, WALL, imagined, pushed_to_the_wall

SAFE = HalfSpaces(torch.tensor([[1.0, 0.5], [-1.0, 0.0]]).double(), torch.tensor([3.0, 2.5]).double())
VARIABLES = Variables([Variable("a"), Variable("b")])


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_corner_of_a_box_is_what_comes_nearest() -> None:
    lower, width = draw(3, 4, 2), draw(3, 4, 2, seed=1).abs()
    tube = Tube(lower, lower + width, level=0.9, over=AXES, variables=VARIABLES, time_step=1.0)
    corners = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).double()
    points = lower[..., None, :] + width[..., None, :] * corners
    torch.testing.assert_close(support(SAFE, tube), SAFE.margins(points).amin(-2))


def test_the_nearest_point_of_an_ellipsoid_is_found() -> None:
    center, scale = draw(3, 2), draw(3, 2, seed=1).abs() + 0.1
    root = draw(6, 6, seed=2)
    covariance = root @ root.mT
    sd = covariance.diagonal().sqrt()
    correlation = covariance / sd[:, None] / sd
    tube = EllipsoidTube(
        center, scale, correlation[None], torch.tensor([1.7]).double(), level=0.9, over=AXES, variables=VARIABLES,
        time_step=1.0,
    )  # fmt: skip
    # the ellipsoid is the image of the ball of that radius
    direction = draw(400_000, 6, seed=3)
    ball = 1.7 * direction / direction.norm(dim=-1, keepdim=True)
    points = center + scale * (ball @ torch.linalg.cholesky(correlation).mT).view(-1, 3, 2)
    brute = SAFE.margins(points).amin(0)
    found = support(SAFE, tube)
    assert bool((found <= brute + 1e-12).all())
    torch.testing.assert_close(found, brute, rtol=0, atol=0.05)


def test_what_is_not_bounded_may_be_infinite() -> None:
    ends = torch.tensor([[1.0, float("inf")]])
    tube = Tube(-ends, ends, level=0.9, over=AXES, variables=VARIABLES, time_step=1.0)
    safe = HalfSpaces(torch.tensor([[1.0, 0.0]]), torch.tensor([1.5]))
    assert support(safe, tube).tolist() == [[0.5]]


@pytest.mark.statistical
def test_the_one_sided_tube_holds_new_trajectories_with_its_probability() -> None:
    """Of correlated walks: 1,000 windows of 200 draws and one more each, on both half-spaces together."""
    windows, draws = 1000, 200
    paths = draw(1, draws + 1, windows, 5, 2).cumsum(-2)
    lower = one_sided(SAFE, imagined(paths[:, 1:]), level=0.9)
    inside = (SAFE.margins(paths[0, 0]) >= lower).all(-1).all(-1)
    error = 4.42 * (0.09 / windows) ** 0.5
    assert 0.9 - error - 1 / draws < float(inside.double().mean()) < 0.9 + error + 2 / draws


def test_where_worlds_are_drawn_they_are_left_out_as_a_whole() -> None:
    """Particles of a world share its error: a tube that took them for independent would be too narrow."""
    paths = draw(25, 1, 40, 1, 2) + 0.1 * draw(25, 8, 40, 3, 2, seed=1)
    drawn, naive = (one_sided(SAFE, imagined(paths, exhaustive=e), level=0.9) for e in (False, True))
    assert float((naive - drawn).mean()) > 0.1


def test_too_few_draws_promise_nothing() -> None:
    shown = imagined(draw(1, 15, 2, 3, 2))
    assert bool(one_sided(SAFE, shown, level=0.95).isinf().all())
    excess = ChanceConstraint(SAFE, jointly=True, by=InsideTube()).excess(shown)
    assert bool((excess == float("inf")).all())


def test_without_spread_the_tube_is_the_trajectory() -> None:
    paths = torch.ones(1, 30, 1, 3, 2).double()
    torch.testing.assert_close(one_sided(SAFE, imagined(paths), level=0.9), SAFE.margins(paths[0, 0]))


@pytest.mark.parametrize("tube", [None, SupT(), Ranks(), Ellipsoid()])
def test_candidates_do_not_see_each_other(tube: SupT | Ranks | Ellipsoid | None) -> None:
    paths = 0.8 * draw(1, 100, 5, 2, 2)
    chance = ChanceConstraint(SAFE, probability=0.2, jointly=True, by=InsideTube(tube))
    excess = chance.excess(imagined(paths))
    assert excess.shape == (5,)
    alone = torch.cat([chance.excess(imagined(paths[:, :, i : i + 1])) for i in range(5)])
    torch.testing.assert_close(excess, alone, rtol=1e-9, atol=1e-12)


def test_a_tube_to_both_sides_asks_for_more_than_one_to_the_side_that_matters() -> None:
    paths = draw(1, 2000, 1, 4, 2)
    safe = HalfSpaces(torch.tensor([[1.0, 0.0]]).double(), torch.tensor([2.3]).double())
    one, both = (
        float(ChanceConstraint(safe, probability=0.1, jointly=True, by=InsideTube(t)).excess(imagined(paths)))
        for t in (None, SupT(over=("horizon",)))
    )
    assert both > one


def test_a_conformal_tube_brings_the_width_of_its_recordings() -> None:
    """A model that believes in half of the noise: the conformal tube is twice as wide as the model's own."""
    model = bwm.KnownDynamics(structure=TRUTH.structure, noise={"place": 0.015, "velocity": 0.03}, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    start, still = torch.zeros(400, 2).double(), torch.zeros(400, STEPS, 1).double()
    came = bwm.rollout(TRUTH, start, still, particles=1, generator=g).particles[0, 0]
    forecast = bwm.rollout(model, start, still, particles=200, generator=g)
    conformal = ConformalTube().fit(bwm.diagnostics.forecast_of(forecast, came))
    paths = bwm.rollout(model, start[:1], still[:1], particles=2000, generator=g).particles
    shown = imagined(paths, schema=bwm.Schema(state=list(TRUTH.schema.state), time_step=1.0))
    reach = [(tube(forecast[:1], level=0.9).upper)[0, :, 0] for tube in (SupT(), conformal)]
    assert float((reach[1] / reach[0]).mean()) == pytest.approx(2.0, rel=0.1)
    near = HalfSpaces.between(TRUTH.schema, {"place": (None, float(reach[1].max()) / 1.5)})
    excess = [
        float(ChanceConstraint(near, probability=0.1, jointly=True, by=InsideTube(t)).excess(shown))
        for t in (SupT(), conformal)
    ]
    assert excess[0] == 0.0 < excess[1]


def test_tubes_need_half_spaces_and_whole_trajectories() -> None:
    for settings in (
        {"inside": SAFE, "jointly": False, "by": InsideTube()},
        {"inside": lambda x, u, c, t: x[..., 0], "jointly": True, "by": InsideTube()},
        {"inside": SAFE, "jointly": True, "by": InsideTube(SupT(over=("variable",)))},
        {"inside": SAFE, "jointly": True, "by": InsideTube(SupT(over=("horizon",)))},
    ):
        with pytest.raises(bwm.SpecError, match="expected"):
            ChanceConstraint(**settings)


@pytest.mark.slow
@pytest.mark.statistical
def test_a_plan_whose_tube_touches_the_wall_breaks_it_nearly_as_often_as_allowed() -> None:
    g = torch.Generator().manual_seed(0)
    chance = ChanceConstraint(WALL, jointly=True, by=InsideTube())
    plan = pushed_to_the_wall(chance, particles=300, generator=g)
    plan = pushed_to_the_wall(chance, particles=4000, generator=g, spreads=(0.1, 0.03), previous=plan)
    rate = float(plan.violation(generator=g, particles=10_000, worlds=TRUTH.draw(1))[0].jointly.value)
    error = (0.05 * 0.95 * (1 / 10_000 + 1 / 4000)) ** 0.5
    assert 0.03 < rate < 0.05 + 4 * error
