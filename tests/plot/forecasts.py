"""A pendulum to forecast, and Axes outside pyplot."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import bayeswm as bwm


def pendulum(*, uncertain: bool) -> bwm.KnownDynamics:
    mass = torch.distributions.LogNormal(0.0, 0.1) if uncertain else 1.0
    return bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=mass, length=0.5), noise=0.05)


def axes() -> Axes:
    return Figure().subplots()
