import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError
from bayeswm.causal.support.played import action_law, drawn_from, play
from tests.causal.confounded_logs import known


def test_states_and_actions_belong_together(generator: torch.Generator) -> None:
    played = play(
        known(A=0.5, B=1.0, noise=0.0).draw(1),
        lambda state, step: state + step,
        torch.ones(3, 1),
        horizon=2,
        particles=2,
        generator=generator,
    )
    assert played.states.shape == (1, 2, 3, 3, 1)
    assert played.states[0, 1, 2].flatten().tolist() == [1.0, 1.5, 3.25]
    assert played.actions[0, 1, 2].flatten().tolist() == [1.0, 2.5]


def test_actions_are_drawn_for_each_particle(generator: torch.Generator) -> None:
    asked = list[int]()

    def policy(state: torch.Tensor, step: int) -> bwm.Gaussian:
        asked.append(step)
        return bwm.Gaussian(state, torch.ones_like(state))

    act = drawn_from(policy, generator, later=3)
    found = act(torch.zeros(1, 4000, 1), 2)
    assert asked == [5]
    assert found.shape == (1, 4000, 1)
    assert abs(float(found.mean())) < 4.5 / 4000**0.5
    assert abs(float(found.var()) - 1) < 4.5 * (2 / 4000) ** 0.5


def test_what_cannot_be_played(generator: torch.Generator) -> None:
    with pytest.raises(SpecError, match="got a Tensor"):
        action_law(lambda state, step: state, torch.zeros(1), 0)
    with pytest.warns(bwm.DivergenceWarning), pytest.raises(SpecError, match="stay finite"):
        play(
            known(A=1e200, B=1.0, noise=0.0).draw(1),
            torch.zeros(3, 1),
            torch.ones(1),
            horizon=3,
            particles=1,
            generator=generator,
        )
