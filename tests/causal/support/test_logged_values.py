import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.causal.support.logged_values import complete_episodes, earned_by, folds_of, forecasts, log_ratios
from tests.causal.confounded_logs import known
from tests.causal.reference_models import line


def short_log() -> bwm.Trajectories:
    return bwm.Trajectories(line(), state=[[[1.0], [2.0], [3.0]], [[0.0], [1.0], [1.0]]], action=[[[1.0], [0.0]]] * 2)


def chooses(mean: float) -> object:
    return lambda state, step: bwm.Gaussian(torch.full_like(state, mean + step), torch.ones_like(state))


def test_what_was_earned_adds_up_with_discount_and_terminal_cost() -> None:
    objective = bwm.planning.Objective(
        stage=lambda s, a, c, t: s[..., 0] + a[..., 0], terminal=lambda s, c: 10 * s[..., 0], discount=0.5
    )
    earned = earned_by(complete_episodes(short_log(), None), objective)
    assert earned[0].tolist() == [-(2.0 + 0.5 * 20.0), -(2.0 + 0.5 * 2.0 + 0.25 * 30.0)]


def test_ratios_are_of_densities_at_the_logged_steps() -> None:
    found = log_ratios(complete_episodes(short_log(), None), chooses(0.0), chooses(0.5))
    # N(a; t, 1) / N(a; t + 0.5, 1) at a = 1 in step 0 and a = 0 in step 1
    assert found[0].tolist() == pytest.approx([-0.5 + 0.125, -0.5 + 1.125])


def test_forecasts_are_those_of_the_model(generator: torch.Generator) -> None:
    """s' = s + a without noise, the cost is the last state; the policy does 1 at step 0 and 2 at step 1."""
    model = known(A=1.0, B=1.0, noise=0.0)
    objective = bwm.planning.Objective(terminal=lambda s, c: s[..., 0])

    def policy(state: torch.Tensor, step: int) -> bwm.Gaussian:
        return bwm.Gaussian(torch.full_like(state, 1.0 + step), torch.zeros_like(state))

    with_action, without = forecasts(
        complete_episodes(short_log(), None),
        model.draw(1),
        policy,
        objective=objective,
        particles=2,
        generator=generator,
    )
    # from s0 = 1 the logged 1 and then 2; from s1 = 2 the logged 0, of which nothing follows
    assert with_action[0].tolist() == [-4.0, -2.0]
    assert without[0].tolist() == [-4.0, -4.0]
    assert with_action[1].tolist() == [-3.0, -1.0]


def test_recordings_are_not_divided(generator: torch.Generator) -> None:
    log = bwm.Trajectories(line(), state=torch.zeros(6, 3, 1), action=torch.zeros(6, 2, 1), episode=[0, 0, 1, 1, 2, 2])
    fold = folds_of(log, 3, generator)
    assert fold[::2].tolist() == fold[1::2].tolist()
    assert sorted(fold[::2].tolist()) == [0, 1, 2]
    with pytest.raises(SpecError, match="number of recordings, 3"):
        folds_of(log, 4, generator)


def test_episodes_are_complete() -> None:
    with pytest.raises(DataError, match="shortest episode, 2, got 3"):
        complete_episodes(short_log(), 3)
    hole = bwm.Trajectories(line(), state=[[[1.0], [float("nan")], [1.0]]], action=[[[1.0], [1.0]]], allow_missing=True)
    with pytest.raises(DataError, match="missing values"):
        complete_episodes(hole, None)
    free = bwm.Schema(state=[bwm.Variable("s")], time_step=1.0)
    with pytest.raises(SpecError, match="with actions"):
        complete_episodes(bwm.Trajectories(free, state=torch.zeros(2, 3, 1)), None)
