import pytest
import torch

import bayeswm as bwm
from bayeswm.planning import CEM, ICEM
from tests.planning.systems import least_squares, linear_model, spring_worlds, squares

START = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_linear_quadratic_optimum() -> None:
    """Relative gap to the batch least-squares solution at most 5 %."""
    planner = ICEM(
        squares(), horizon=10, samples=300, elites=20, iterations=15, bounds=(-5.0, 5.0), exponent=0.5, decay=1.0
    )
    plan = planner.plan(linear_model(), START, generator=generator())
    for i in range(2):
        optimum = least_squares(START[i], 10)
        assert optimum - 1e-9 <= float(plan.cost[i]) <= 1.05 * optimum


def test_fewer_samples_in_later_iterations() -> None:
    planner = ICEM(squares(), horizon=4, samples=100, elites=20, iterations=5, decay=2.0)
    plan = planner.plan(spring_worlds(), START, generator=generator())
    # 100, 50, then never below twice the elites; the mean is one more
    assert plan.evaluations == 100 + 50 + 40 + 40 + 40 + 1
    # the elites of the last plan come on top
    again = planner.plan(spring_worlds(), START, generator=generator(), previous=plan)
    assert again.evaluations == plan.evaluations + 6


def test_the_best_never_gets_lost() -> None:
    planner = ICEM(squares(), horizon=6, samples=40, elites=5, iterations=8, particles=2)
    history = planner.plan(spring_worlds(), START, generator=generator()).history
    assert bool((history[1:] <= history[:-1]).all())


def test_elites_of_the_last_plan_compete_again() -> None:
    planner = ICEM(squares(), horizon=6, samples=40, elites=10, kept=0.5, iterations=3)
    worlds = spring_worlds(noise=0.0)
    plan = planner.plan(worlds, START, generator=generator())
    elites = plan.memory["elites"]
    assert elites.shape == (5, 2, 6, 1)
    few = ICEM(squares(), horizon=6, samples=10, elites=10, kept=0.5, iterations=1)
    again = few.plan(worlds, START, generator=generator(7), previous=plan, done=0)
    best = plan.problem.score(elites).cost.amin(0)
    assert bool((again.history[0] <= best + 1e-12).all())


def test_without_its_additions_it_samples_as_the_plain_method() -> None:
    settings = {"horizon": 5, "samples": 40, "elites": 8, "particles": 2}
    plain = CEM(squares(), iterations=1, **settings)
    more = ICEM(squares(), iterations=2, exponent=0.0, kept=0.0, decay=1.0, **settings)
    first = plain.plan(spring_worlds(), START, generator=generator())
    torch.testing.assert_close(
        more.plan(spring_worlds(), START, generator=generator()).history[0], first.history[0], rtol=0, atol=1e-12
    )


def test_red_noise_makes_smoother_plans() -> None:
    def roughness(exponent: float) -> float:
        planner = ICEM(squares(), horizon=20, samples=60, elites=10, iterations=1, exponent=exponent)
        return float(planner.plan(spring_worlds(), START, generator=generator()).actions.diff(dim=-2).square().mean())

    assert roughness(2.0) < 0.5 * roughness(0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"elites": 0},
        {"elites": 201},
        {"iterations": 0},
        {"spread": 0.0},
        {"momentum": 1.0},
        {"exponent": -1.0},
        {"kept": 1.1},
        {"decay": 0.9},
    ],
)
def test_settings_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(bwm.SpecError, match=next(iter(bad))):
        ICEM(squares(), horizon=3, **bad)
