"""Forecasts of independent normal variables, one step, and what came."""

import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.diagnostics import Forecast, forecast_of

SCHEMA = bwm.Schema(state=[bwm.Variable("x", unit="m")], action=[], time_step=0.1)


def gaussian_forecast(mean: Tensor, scale: Tensor, came: Tensor) -> Forecast:
    """Return forecasts N(mean, scale^2), each of shape (n,), of what came."""
    law = Gaussian(mean.view(1, 1, -1, 1), scale.view(1, 1, -1, 1))
    predictive = bwm.Predictive(SCHEMA.state, [law], torch.zeros(1, dtype=mean.dtype), exhaustive=True, time_step=0.1)
    return forecast_of(predictive, came.view(-1, 1, 1))


def path_forecast(paths: Tensor, came: Tensor) -> Forecast:
    """Return forecasts by equally likely paths (particles, n, H) of what came (n, H)."""
    particles = paths.movedim(-1, 0)[:, None, ..., None]
    laws = [Gaussian(values, torch.full((1,), 1e-3, dtype=paths.dtype)) for values in particles]
    predictive = bwm.Predictive(
        SCHEMA.state, laws, torch.zeros(1, dtype=paths.dtype), exhaustive=True, time_step=0.1, particles=particles
    )
    return forecast_of(predictive, came[..., None])
