"""The derivative of a step, against matrices and finite differences."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics.jacobians import markov_worlds, step_jacobian
from tests.diagnostics.recordings import TRANSITION, linear_system
from tests.models import sensed


def test_of_a_linear_system_it_is_the_matrix_for_every_row() -> None:
    worlds = linear_system().draw(1)
    state = torch.randn(1, 3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, found = step_jacobian(worlds, state, torch.zeros(4, 1, dtype=torch.float64), None)
    torch.testing.assert_close(found, TRANSITION.expand(1, 3, 4, 2, 2))
    torch.testing.assert_close(mean, state @ TRANSITION.T)


def test_of_a_pendulum_it_is_what_differences_say() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    prior = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law), noise=0.1)
    worlds = prior.draw(3, generator=torch.Generator().manual_seed(0))
    state, action = torch.tensor([0.7, -0.4]).double().expand(3, 1, 2), torch.ones(1, dtype=torch.float64)
    with torch.inference_mode():
        _, found = step_jacobian(worlds, state, action, None)
    h = 1e-6
    ends = [worlds.transition(state + s * h * torch.eye(2).double(), action).mean for s in (1, -1)]
    differences = ((ends[0] - ends[1]) / (2 * h)).mT  # the particle axis holds what was moved
    # central differences: error h^2 and rounding 1e-16 / h
    torch.testing.assert_close(found[:, 0], differences, rtol=1e-7, atol=1e-8)


def test_a_hidden_state_has_no_such_derivative() -> None:
    with pytest.raises(bwm.SpecError, match="ask the model without sensors"):
        markov_worlds(sensed.model(), 2, seed=0)
