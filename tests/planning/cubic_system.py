"""A closed loop whose basin is known."""

import torch

import bayeswm as bwm


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def cubic(curvature=1.0, noise=0.0):
    """x' = x / 2 + k x^3 under u = -x / 2: falls to 0 where x^2 < 1 / (2 k), grows beyond."""
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)
    structure = bwm.structures.FromFunction(
        lambda x, u, c, p: x + p["k"] * x**3 + u, schema=schema, parameters={"k": curvature}
    )
    return bwm.KnownDynamics(structure=structure, noise=noise)


def damped(x, t):
    return -0.5 * x
