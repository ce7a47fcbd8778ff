import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import Noise, Schema, Variable
from bayeswm.planning import frozen
from bayeswm.structures import FromFunction, Pendulum
from tests.hidden_models import hidden_mode_worlds
from tests.planning.systems import spring_worlds

G = torch.Generator().manual_seed(0)
STATE = torch.randn(7, 2, generator=G, dtype=torch.float64)
ACTION = torch.randn(7, 1, generator=G, dtype=torch.float64)


@pytest.mark.parametrize("world", [0, 2])
def test_the_mean_in_one_world(world: int) -> None:
    worlds = spring_worlds()
    expected = worlds.transition(worlds.start(STATE), ACTION).mean[world, 0]
    torch.testing.assert_close(frozen(worlds, world=world)(STATE, ACTION), expected, rtol=0, atol=1e-14)


def test_given_noise() -> None:
    worlds = spring_worlds()
    noise = torch.tensor([[1.5], [-0.5]], dtype=torch.float64)
    for step in range(2):
        found = frozen(worlds, world=1, noise=Noise(step=noise))(STATE, ACTION, step)
        mean = frozen(worlds, world=1)(STATE, ACTION)
        torch.testing.assert_close(found - mean, (0.05 * noise[step]) * torch.tensor([0.0, 1.0]).double().expand(7, 2))
    held = frozen(worlds, world=1, noise=Noise(step=noise[0]))(STATE, ACTION, 40)
    assert torch.equal(held, frozen(worlds, world=1, noise=Noise(step=noise))(STATE, ACTION))
    with pytest.raises(bwm.SpecError, match="expected a step below 2"):
        frozen(worlds, noise=Noise(step=noise))(STATE, ACTION, 2)
    with pytest.raises(bwm.SpecError, match=r"step noise of 1 number\(s\)"):
        frozen(worlds, noise=Noise(step=torch.zeros(2)))


def test_many_steps_are_a_rollout() -> None:
    worlds = spring_worlds()
    noise = torch.randn(5, 1, generator=G, dtype=torch.float64)
    plan = torch.randn(5, 1, generator=G, dtype=torch.float64)
    given = Noise(step=noise.expand(3, 1, 5, 1))
    forecast = bwm.rollout(worlds, STATE[0], plan, particles=1, noise=given)
    f, x = frozen(worlds, world=2, noise=Noise(step=noise)), STATE[:1]
    for t in range(5):
        x = f(x, plan[t : t + 1], t)
        torch.testing.assert_close(x[0], forecast.particles[2, 0, t], rtol=0, atol=1e-12)


def test_a_model_is_drawn() -> None:
    f = frozen(bwm.KnownDynamics(structure=Pendulum.gymnasium()))
    assert f(STATE.float(), ACTION.float()).dtype == torch.float32
    assert not f(STATE.requires_grad_(), ACTION).requires_grad


def test_context_and_time() -> None:
    schema = Schema(state=[Variable("x")], action=[Variable("u")], context=[Variable("wind")], time_step=1.0)
    structure = FromFunction(lambda x, u, c: x + u + 10 * c, schema=schema, name="wind")
    f = frozen(bwm.KnownDynamics(structure=structure), context=torch.tensor([0.5]))
    assert f(torch.ones(3, 1), torch.ones(3, 1)).tolist() == [[7.0]] * 3


def test_a_memory_begins_anew() -> None:
    f = frozen(hidden_mode_worlds(), world=1)
    x = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    first = f(x, torch.zeros(2, 1).double())
    assert torch.equal(first, f(x, torch.zeros(2, 1).double()))


def test_a_world_that_is_not_there() -> None:
    for bad in (3, -1):
        with pytest.raises(bwm.SpecError, match="one of 3 worlds"):
            frozen(spring_worlds(), world=bad)


def test_as_other_planners_call_it() -> None:
    """pytorch-mppi hands over (K, S) and (K, A), in its own number format, and the step as a third argument."""
    f = frozen(bwm.KnownDynamics(structure=Pendulum.gymnasium()))

    def costs(dynamics: object, state: Tensor, plan: Tensor) -> Tensor:
        total = torch.zeros(len(plan))
        for t in range(plan.shape[1]):
            state = dynamics(state, plan[:, t], t)  # type: ignore[operator]
            total = total + state[:, 0].square()
        return total

    plan = torch.zeros(5, 8, 1)
    found = costs(f, torch.tensor([[0.5, 0.0]]).expand(5, 2), plan)
    assert found.shape == (5,)
    assert found.dtype == torch.float32
