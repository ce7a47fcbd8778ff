"""The noise that a variable has after all that was done to it."""

import pytest
import torch
from torch.distributions import Normal

from bayeswm.causal import Mechanism, shift
from bayeswm.causal.interventions.assignment import Assignment
from bayeswm.causal.structural.node import Altered, Node, Wired


def wired(coordinate: int | None) -> Wired:
    return Wired(Mechanism(lambda: 0.0).fn, (), 1.0, coordinate)


HARD = Altered(Assignment("X", torch.tensor(1.0)), column=4)
DRAWN = Altered(Assignment("X", Normal(0.0, 1.0)), coordinate=7)
MOVED = Altered(Assignment("X", shift(1.0)))
REPLACED = Altered(Assignment("X", Mechanism(lambda: 0.0, noise=1.0)), mechanism=wired(5))
SET_NOISE = Altered(Assignment("noise.X", torch.tensor(1.0)), column=4)


@pytest.mark.parametrize(
    ("noise", "altered", "coordinate"),
    [
        ((), (), 2),
        ((), (MOVED,), 2),
        ((), (HARD,), None),
        ((), (HARD, MOVED), None),
        ((), (DRAWN,), 7),
        ((), (REPLACED,), 5),
        ((), (DRAWN, REPLACED), 5),
        ((SET_NOISE,), (), None),
        ((SET_NOISE,), (MOVED,), None),
        ((SET_NOISE,), (REPLACED,), None),
        ((SET_NOISE,), (DRAWN,), 7),
    ],
)
def test_coordinate(noise: tuple[Altered, ...], altered: tuple[Altered, ...], coordinate: int | None) -> None:
    assert Node(0, wired(2), noise, altered).coordinate == coordinate
