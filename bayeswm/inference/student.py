"""Student's t as the law of a step: noise with heavy tails, still a push-forward of standard normal noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Law


class StudentT(Law):
    """Independent Student-t components; noise n becomes the quantile of t at the normal probability of n.

    Parameters
    ----------
    mean : Tensor, shape (..., S)
        Locations.
    scale : Tensor, broadcastable to (..., S)
        Scales > 0: the standard deviation is scale * sqrt(nu / (nu - 2)).
    degrees_of_freedom : Tensor, broadcastable to (..., S)
        nu > 0; the variance is infinite up to 2.

    Raises
    ------
    SpecError
        If a scale or number of degrees of freedom is not above 0.

    Examples
    --------
    >>> law = StudentT(torch.zeros(1, 1, 1), torch.ones(1), torch.tensor([4.0]))
    >>> law.variance.item(), round(law.push(torch.full((1, 1, 1), 2.0)).item(), 3)  # t_4 at the 97.7 % point
    (2.0, 2.869)
    """

    def __init__(self, mean: Tensor, scale: Tensor, degrees_of_freedom: Tensor) -> None:
        if bool((scale <= 0).any()) or bool((degrees_of_freedom <= 0).any()):
            raise SpecError("expected scales and degrees of freedom > 0 of Student's t")
        self._mean, self.scale, self.degrees_of_freedom = torch.broadcast_tensors(mean, scale, degrees_of_freedom)
        self.noise_size = mean.shape[-1]

    @property
    @override
    def mean(self) -> Tensor:
        return self._mean

    @property
    @override
    def variance(self) -> Tensor:
        nu = self.degrees_of_freedom
        return torch.where(nu > 2, self.scale.square() * nu / (nu - 2).clamp(min=1e-300), torch.inf)

    @override
    def push(self, noise: Tensor) -> Tensor:
        from scipy.special import stdtrit

        nu = self.degrees_of_freedom.expand(torch.broadcast_shapes(self.degrees_of_freedom.shape, noise.shape))
        # through the lower tail, where probabilities keep their digits
        tail = (0.5 * torch.erfc(noise.detach().double().abs() * 0.5**0.5)).clamp(min=1e-300)
        size = torch.from_numpy(-stdtrit(nu.detach().double().cpu().numpy(), tail.expand(nu.shape).cpu().numpy()))
        quantile = (size.to(noise.device) * noise.sign()).to(self._mean.dtype)
        return self._mean + self.scale * _with_gradient(quantile, noise, nu)

    @override
    def abduct(self, next_state: Tensor, *, tolerance: float | None = None) -> Tensor:
        standard = (next_state - self._mean) / self.scale
        tail = self._lower_tail(-standard.abs())
        return torch.special.ndtri(tail).to(standard.dtype) * -standard.sign()

    @override
    def log_prob(self, state: Tensor, *, marginal: bool = False, tolerance: float | None = None) -> Tensor:
        nu = self.degrees_of_freedom
        standard = (state - self._mean) / self.scale
        value = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * (nu * math.pi).log() - self.scale.log()
        value = value - (nu + 1) / 2 * torch.log1p(standard.square() / nu)
        return value if marginal else value.sum(-1)

    @override
    def cdf(self, state: Tensor) -> Tensor:
        return self._lower_tail((state - self._mean) / self.scale).to(self._mean.dtype)

    def _lower_tail(self, standard: Tensor) -> Tensor:
        from scipy.special import stdtr

        nu = self.degrees_of_freedom.expand(standard.shape)
        numbers = (v.detach().double().cpu().numpy() for v in (nu, standard))
        return torch.from_numpy(stdtr(*numbers)).to(standard.device)

    @override
    def map(self, change: Callable[[Tensor], Tensor]) -> StudentT:
        return StudentT(change(self._mean), change(self.scale), change(self.degrees_of_freedom))


def _with_gradient(quantile: Tensor, noise: Tensor, nu: Tensor) -> Tensor:
    """Return the quantile with its derivative by the noise: the normal density over Student's."""
    if not noise.requires_grad:
        return quantile
    fixed, nu = quantile.detach(), nu.detach()
    log_t = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2) - 0.5 * (nu * math.pi).log()
    log_t = log_t - (nu + 1) / 2 * torch.log1p(fixed.square() / nu)
    log_normal = -0.5 * noise.detach().square() - 0.5 * math.log(2 * math.pi)
    return fixed + (log_normal - log_t).exp() * (noise - noise.detach())
