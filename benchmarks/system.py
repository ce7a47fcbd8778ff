"""The system of the ensemble benchmarks: 17 states, 6 actions, five networks of 4 x 200 SiLU units."""

import itertools

import torch

from bayeswm import Schema, Variable
from bayeswm.base.random import make_generator, standard_normal
from bayeswm.base.trajectories import Transitions
from bayeswm.structures import MLP

STATES, ACTIONS, MEMBERS = 17, 6, 5
HIDDEN = (200,) * 4
SCHEMA = Schema(
    state=[Variable(f"state_{i}") for i in range(STATES)],
    action=[Variable(f"action_{i}") for i in range(ACTIONS)],
    time_step=0.05,
)


def products(rows: int) -> int:
    """Flops of the matrix products of one evaluation of one member."""
    sizes = (STATES + ACTIONS, *HIDDEN, 2 * STATES)
    return sum(2 * rows * i * o for i, o in itertools.pairwise(sizes))


def network() -> tuple[MLP, dict[str, torch.Tensor]]:
    """A bound network and the random parameters of the members."""
    structure = MLP(hidden=HIDDEN, schema=SCHEMA)
    return structure, structure.initial(MEMBERS, make_generator(0), torch.float32)


def transitions(n: int) -> Transitions:
    """Random transitions: what they hold does not matter to the cost."""
    g = make_generator(1)
    state, change = (standard_normal((n, STATES), g) for _ in range(2))
    action, index = standard_normal((n, ACTIONS), g), torch.arange(n)
    return Transitions(state, action, torch.empty(n, 0), state + change, torch.zeros_like(index), index)
