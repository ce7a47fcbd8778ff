import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import MPPI, Objective
from tests.planning.systems import explosive_model, least_squares, linear_model, spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("smooth", "spread"), [(False, 0.04), (True, 0.02)])
def test_linear_quadratic_optimum(smooth: bool, spread: float) -> None:
    """Relative gap to the batch least-squares solution at most 5 %."""
    planner = MPPI(
        squares(),
        horizon=10,
        samples=1000,
        iterations=40,
        temperature=0.01,
        spread=spread,
        smooth=smooth,
        bounds=(-10.0, 10.0),
    )
    plan = planner.plan(linear_model(), START, generator=generator())
    for i in range(2):
        optimum = least_squares(START[i], 10)
        assert optimum - 1e-9 <= float(plan.cost[i]) <= 1.05 * optimum


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("control_weight", [0.0, 0.7])
def test_one_iteration_by_hand(smooth: bool, control_weight: float) -> None:
    planner = MPPI(
        squares(), horizon=4, samples=20, spread=0.25, temperature=0.5, smooth=smooth, control_weight=control_weight
    )
    worlds, state = spring_worlds(noise=0.0), START[0]
    first = planner.plan(worlds, state, generator=generator())
    plan = planner.plan(worlds, state, generator=generator(1), previous=first)
    nominal = torch.cat((first.actions[1:], first.actions[-1:]))
    noise = 0.5 * torch.randn(20, 4, 1, generator=generator(1), dtype=torch.float64)
    tried = (nominal + (noise.cumsum(1) if smooth else noise)).clamp(-2, 2)
    cost = plan.problem.score(tried).cost
    # gamma u' Sigma^-1 e of the paper's equation, for the noise that is left after clipping
    cost = cost + control_weight * (nominal * (tried - nominal)).sum((-1, -2)) / 0.5**2
    weight = torch.softmax(-cost / 0.5, 0)
    torch.testing.assert_close(plan.actions, (weight[:, None, None] * tried).sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e12])
def test_weights_neither_vanish_nor_overflow(scale: float, dtype: torch.dtype) -> None:
    """Costs far above the temperature leave the best sample alone."""
    objective = Objective(stage=lambda x, u, c, t: 1e6 * scale + scale * (u[..., 0] - 0.5).square())
    planner = MPPI(objective, horizon=3, samples=50, temperature=1e-12 * scale, particles=1)
    plan = planner.plan(spring_worlds(noise=0.0).to(dtype), START.to(dtype), generator=generator())
    assert bool(plan.actions.isfinite().all())
    assert not bool(plan.fallback.any())
    assert bool((plan.problem.score(plan.actions[None]).cost[0] <= plan.history[0] * (1 + 1e-6)).all())


def test_by_default_the_unit_of_the_cost_does_not_matter() -> None:
    def plan(scale: float) -> torch.Tensor:
        objective = Objective(stage=lambda x, u, c, t: scale * (x.square().sum(-1) + 0.1 * u[..., 0].square()))
        return MPPI(objective, horizon=4, samples=50).plan(spring_worlds(), START, generator=generator()).actions

    torch.testing.assert_close(plan(1e-6), plan(1.0), rtol=0, atol=1e-9)
    torch.testing.assert_close(plan(1e6), plan(1.0), rtol=0, atol=1e-9)


def test_by_default_nothing_breaks_where_most_diverge_or_all_cost_the_same() -> None:
    planner = MPPI(squares(), horizon=4, samples=50)
    plan = planner.plan(explosive_model(), torch.ones(1), generator=generator())
    assert bool((plan.actions <= 0).all())
    assert not bool(plan.fallback)
    same = MPPI(Objective(stage=lambda x, u, c, t: 0 * u[..., 0] + 3.0), horizon=4, samples=50, spread=0.2)
    drawn = 0.4 * torch.randn(50, 1, 4, 1, generator=generator(), dtype=torch.float64)
    plan = same.plan(spring_worlds(noise=0.0), START, generator=generator())
    torch.testing.assert_close(plan.actions, drawn.clamp(-2, 2).mean(0).expand(2, 4, 1))


def test_a_high_temperature_is_the_mean_of_the_noise() -> None:
    planner = MPPI(squares(), horizon=3, samples=50, temperature=1e9, spread=0.2)
    plan = planner.plan(spring_worlds(), START, generator=generator())
    drawn = 0.4 * torch.randn(50, 1, 3, 1, generator=_after_noise(), dtype=torch.float64)
    torch.testing.assert_close(plan.actions, drawn.clamp(-2, 2).mean(0).expand(2, 3, 1), rtol=0, atol=1e-6)


def _after_noise() -> torch.Generator:
    """The generator where a problem has drawn its noise: 3 worlds x 8 particles x 3 steps."""
    g = generator()
    torch.randn(3, 8, 1, 1, 3, 1, generator=g, dtype=torch.float64)
    return g


def test_noise_on_the_change_makes_smooth_candidates() -> None:
    def relative_roughness(smooth: bool) -> float:
        planner = MPPI(squares(), horizon=20, samples=20, spread=0.1, smooth=smooth, temperature=1e-9)
        actions = planner.plan(spring_worlds(), START, generator=generator()).actions
        return float(actions.diff(dim=-2).std() / actions.std())

    # white noise has the square root of 2, a random walk of 20 steps about a third
    assert relative_roughness(False) > 1.0
    assert relative_roughness(True) < 0.6


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": 0},
        {"iterations": 0},
        {"spread": 0.0},
        {"temperature": 0.0},
        {"temperature": float("nan")},
        {"control_weight": -1.0},
    ],
)
def test_settings_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(bwm.SpecError, match=next(iter(bad))):
        MPPI(squares(), horizon=3, **bad)
