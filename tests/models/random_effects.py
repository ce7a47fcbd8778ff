"""A random walk with a drift of each episode: everything about it is known in closed form."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

import bayeswm as bwm
from bayeswm.base.random import make_generator, standard_normal

F64 = torch.float64
MEAN, SPREAD, KICK, SENSOR = 0.3, 0.5, 0.2, 0.1
SCHEMA = bwm.Schema(state=[bwm.Variable("x", unit="m")], time_step=1.0)


def drift(location: object = MEAN) -> bwm.structures.FromFunction:
    law = bwm.Hierarchical(location, SPREAD)
    return bwm.structures.FromFunction(
        lambda x, u, c, p: x + p["drift"][..., None], schema=SCHEMA, parameters={"drift": law}, name="walk"
    )


def recordings(*, episodes: int = 5, steps: int = 8, seed: int = 0, sensor: float = 0.0) -> bwm.Trajectories:
    g = make_generator(seed)
    own = MEAN + SPREAD * standard_normal((episodes, 1, 1), g, dtype=F64)
    kicks = KICK * standard_normal((episodes, steps, 1), g, dtype=F64)
    start = standard_normal((episodes, 1, 1), g, dtype=F64)
    x = torch.cat((start, start + (own + kicks).cumsum(1)), 1)
    return bwm.Trajectories(SCHEMA, state=x + sensor * standard_normal(tuple(x.shape), g, dtype=F64))


def changes_law(steps: int) -> MultivariateNormal:
    """Law of the changes of an episode that is measured as it is."""
    covariance = KICK**2 * torch.eye(steps, dtype=F64) + SPREAD**2
    return MultivariateNormal(torch.full((steps,), MEAN, dtype=F64), covariance)


def drift_given(changes: Tensor) -> tuple[Tensor, float]:
    """Mean and standard deviation of an episode's drift given its changes (episodes, steps)."""
    precision = 1 / SPREAD**2 + changes.shape[1] / KICK**2
    mean = (MEAN / SPREAD**2 + changes.sum(1) / KICK**2) / precision
    return mean, precision**-0.5


def location_given(data: bwm.Trajectories, prior: Normal) -> tuple[float, float]:
    """Mean and standard deviation of the population's location given whole episodes and a normal prior."""
    changes = data.states()[:, 1:, 0] - data.states()[:, :-1, 0]
    each = SPREAD**2 + KICK**2 / changes.shape[1]
    precision = 1 / float(prior.scale) ** 2 + len(data) / each
    mean = (float(prior.loc) / float(prior.scale) ** 2 + float(changes.mean(1).sum()) / each) / precision
    return mean, precision**-0.5
