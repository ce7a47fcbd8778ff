"""Imagined trajectories without a planner, and a linear-Gaussian system that runs into a wall."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import MultivariateGaussian
from bayeswm.base.predictive import Predictive
from bayeswm.base.worlds import StructureWorlds
from bayeswm.planning import CEM, Constraint, HalfSpaces, Imagined, Objective, Plan

A = torch.tensor([[1.0, 0.2], [0.0, 0.6]]).double()
B = torch.tensor([[0.5], [0.8]]).double()
NOISE = torch.tensor([0.03, 0.06]).double()
START = torch.tensor([0.5, 0.0]).double()
STEPS = 6
SCHEMA = bwm.Schema(
    state=[bwm.Variable("place"), bwm.Variable("velocity")],
    action=[bwm.Variable("push", bounds=(-1.0, 1.0))],
    time_step=1.0,
)
STRUCTURE = bwm.structures.FromFunction(lambda x, u: x @ A.to(x).mT + u @ B.to(x).mT, schema=SCHEMA, name="pushed")
TRUTH = bwm.KnownDynamics(
    structure=STRUCTURE, noise={"place": float(NOISE[0]), "velocity": float(NOISE[1])}, dtype=torch.float64
)
WALL = HalfSpaces.between(SCHEMA, {"place": (None, 1.0)})
# wants to be behind the wall, so that whatever is allowed is used
BEHIND = Objective(stage=lambda x, u, c, t: (x[..., 0] - 2.0) ** 2, terminal=lambda x, c: (x[..., 0] - 2.0) ** 2)


def imagined(
    paths: Tensor, *, log_weight: Tensor | None = None, exhaustive: bool = True, schema: bwm.Schema | None = None
) -> Imagined:
    """Paths (worlds, particles, *batch, H, S) as imagined from a start at 0, under no actions."""
    size = paths.shape[-1]
    schema = bwm.Schema(state=[bwm.Variable(f"x{i}") for i in range(size)], time_step=1.0) if schema is None else schema
    log_weight = torch.zeros(len(paths)) if log_weight is None else log_weight
    structure = bwm.structures.FromFunction(lambda x, u: x, schema=schema, name="still")
    worlds = StructureWorlds(structure, schema, {}, log_weight=log_weight, exhaustive=exhaustive)
    states = torch.cat((torch.zeros_like(paths[..., :1, :]), paths), -2)
    batch, steps = paths.shape[2:-2], paths.shape[-2]
    empty = torch.zeros(*batch, steps, 0).to(paths)
    return Imagined(states, empty, empty, worlds, paths.new_zeros(*batch[1:], size))


def exact_moments(_worlds: object, state: Tensor, actions: Tensor, **_: Any) -> Predictive:
    """The law of each step of the system with the wall, exactly."""
    mean, covariance = state, torch.zeros(2, 2).double()
    laws: list[MultivariateGaussian] = []
    for t in range(actions.shape[-2]):
        mean = mean @ A.mT + actions[..., t, :] @ B.mT
        covariance = A @ covariance @ A.mT + NOISE.square().diag()
        tril = torch.linalg.cholesky(covariance)
        laws.append(MultivariateGaussian(mean[None, None], tril.expand(1, 1, *mean.shape, 2)))
    one = torch.zeros(1).double()
    return Predictive(SCHEMA.state, laws, one, exhaustive=True, time_step=1.0, resolved=[True] * len(laws))


def pushed_to_the_wall(
    constraint: Constraint,
    *,
    particles: int,
    generator: torch.Generator,
    spreads: Sequence[float] = (0.5, 0.2, 0.1, 0.05, 0.02),
    previous: Plan | None = None,
) -> Plan:
    """Plan again and again from what was found, in smaller and smaller neighbourhoods."""
    plan, first = previous, CEM(BEHIND, horizon=STEPS, particles=particles, constraints=[constraint], iterations=15)
    for spread in spreads:
        plan = replace(first, spread=spread).plan(TRUTH, START, generator=generator, previous=plan, done=0)
    assert plan is not None
    return plan
