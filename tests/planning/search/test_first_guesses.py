import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.planning import Limits, Mean, Problem, quadratic
from bayeswm.planning.search.first_guesses import first_guesses


def problem(starts, *, horizon=40, change=None, bounds=(-2.0, 2.0)):
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    return Problem(
        quadratic(torch.ones(2), torch.ones(1)),
        worlds,
        torch.zeros(*starts, 2),
        horizon=horizon,
        particles=1,
        risk=Mean(),
        limits=Limits.between(*bounds, change=change, like=torch.empty(1, dtype=torch.float64)),
    )


def guesses(given, memory=None, count=200):
    return first_guesses(given, memory or {}, count=count, generator=torch.Generator().manual_seed(0))


def test_the_first_is_rest_or_what_is_remembered():
    assert not bool(guesses(problem((3,)))[0].any())
    assert bool((guesses(problem((3,), bounds=(0.5, 2.0)))[0] == 0.5).all())
    known = torch.full((3, 40, 1), 1.5, dtype=torch.float64)
    torch.testing.assert_close(guesses(problem((3,)), {"actions": known})[0], known)


def test_others_that_are_remembered_come_next():
    known, others = torch.zeros(3, 40, 1).double(), torch.ones(2, 3, 40, 1).double()
    found = guesses(problem((3,)), {"actions": known, "others": others}, count=5)
    torch.testing.assert_close(found[1:3], others)
    assert not bool((found[3] == found[4]).all())
    assert guesses(problem((3,)), {"actions": known, "others": others}, count=2).shape == (2, 3, 40, 1)


def test_random_ones_are_possible_the_same_for_all_starts_and_slow_to_fast():
    found = guesses(problem((3,), change=None))
    assert found.shape == (200, 3, 40, 1)
    assert bool((found.abs() <= 2.0).all())
    assert bool((found[:, 0] == found[:, 2]).all())
    speed = found[1:, 0, :, 0].diff(dim=-1).square().mean(-1).sqrt()
    assert float(speed.max() / speed.min()) > 5
    limited = guesses(problem((), change=0.1))
    assert float(limited.diff(dim=-2).abs().max()) <= 0.1 + 1e-12


@pytest.mark.statistical
def test_the_process_has_unit_variance_at_every_step():
    # what is not clipped at one standard deviation
    inside = guesses(problem((), horizon=20, bounds=(-1.0, 1.0)), count=4001)[1:, :, 0]
    share = (inside.abs() < 1).double().mean(0)
    exact = 0.682689492
    assert float((share - exact).abs().max()) < 5.0 * (exact * (1 - exact) / 4000) ** 0.5  # 20 steps, p > 1e-5


def test_more_than_one_needs_a_generator():
    with pytest.raises(SpecError, match="generator"):
        first_guesses(problem(()), {}, count=2, generator=None)
    assert first_guesses(problem(()), {}, count=1, generator=None).shape == (1, 40, 1)
