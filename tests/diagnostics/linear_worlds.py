"""Linear systems on a line and in a plane, and worlds of several of them."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.worlds import StructureWorlds

PLANE = bwm.Schema(
    state=[bwm.Variable("x", unit="m"), bwm.Variable("v", unit="m/s")],
    action=[bwm.Variable("force", unit="N")],
    time_step=0.1,
)
LINE = bwm.Schema(state=[bwm.Variable("x", unit="m")], time_step=0.1)


def linear_worlds(matrices: Tensor, weight: Tensor | None = None) -> StructureWorlds:
    structure = bwm.structures.Linear(PLANE)
    n = len(matrices)
    parameters = {"A": matrices, "B": torch.ones(n, 2, 1).double(), "c": torch.zeros(n, 2).double()}
    return StructureWorlds(structure, PLANE, parameters, log_weight=weight, exhaustive=True)
