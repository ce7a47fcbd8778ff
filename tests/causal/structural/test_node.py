"""The noise that a variable has after all that was done to it."""

import pytest
import torch
from torch.distributions import Normal, Uniform

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
MOVED_NOISE = Altered(Assignment("noise.X", shift(1.0)))
NORMAL_NOISE, BENT_NOISE = (Altered(Assignment("noise.X", law)) for law in (Normal(0.0, 2.0), Uniform(0.0, 1.0)))


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
        ((NORMAL_NOISE, SET_NOISE, MOVED_NOISE), (), None),
        ((SET_NOISE, NORMAL_NOISE), (), 2),
        ((BENT_NOISE,), (MOVED,), 2),
    ],
)
def test_coordinate(noise: tuple[Altered, ...], altered: tuple[Altered, ...], coordinate: int | None) -> None:
    assert Node(0, wired(2), noise, altered).coordinate == coordinate


def test_noise_is_bent_by_the_last_law_only() -> None:
    def bent(*noise: Altered) -> bool:
        return Node(0, wired(2), noise).bent

    assert [bent(), bent(NORMAL_NOISE), bent(SET_NOISE), bent(BENT_NOISE, NORMAL_NOISE)] == [False] * 4
    assert [bent(BENT_NOISE), bent(SET_NOISE, BENT_NOISE, MOVED_NOISE)] == [True] * 2
