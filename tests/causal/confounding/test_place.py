"""Places keep state, action, context and step together."""

import torch

from bayeswm.causal.confounding.place import Place


def test_rows_and_their_steps_stay_together():
    state = torch.arange(6.0).view(1, 1, 6, 1)
    place = Place(state, 10 * state, state[..., :0], torch.arange(6))
    order = torch.tensor([3, 1, 5])
    found = place.map(lambda v: v[:, :, order])
    assert found.state.flatten().tolist() == [3.0, 1.0, 5.0]
    assert found.action.flatten().tolist() == [30.0, 10.0, 50.0]
    assert found.step.tolist() == [3, 1, 5]
    assert found.context.shape == (1, 1, 3, 0)


def test_an_axis_for_points():
    state = torch.zeros(2, 3, 4, 1)
    assert Place(state, state, state[..., :0], 0).spread().state.shape == (2, 3, 1, 4, 1)
