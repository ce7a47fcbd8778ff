"""Radial basis functions as a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.planning.policies.policy import ParametricPolicy
from bayeswm.planning.policies.squashing import Squash


class RBFPolicy(ParametricPolicy):
    """A weighted sum of Gaussian bumps, ``f = radius sum_k weight_k exp(-sum_i (x_i - center_ki)^2 / (2 width_i^2))``.

    Parameters
    ----------
    schema, scale, bounds, squash
        As of every :class:`ParametricPolicy`; scaled features are to be of size 1.
    basis : int
        How many bumps.
    generator : torch.Generator
        Draws the first parameters.

    Attributes
    ----------
    parameters : dict of str to Tensor
        ``center`` (K, E) and ``log_width`` (E,) of scaled features, and ``weight`` (A, K).

    References
    ----------
    Deisenroth and Rasmussen (2011), PILCO; the weights are free here instead of those of a Gaussian process.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.gymnasium().schema
    >>> g = torch.Generator().manual_seed(0)
    >>> policy = RBFPolicy(schema, basis=20, scale={"velocity": 4.0}, generator=g)
    >>> policy(torch.zeros(5, 2), 0).shape, policy.parameters["center"].shape
    (torch.Size([5, 1]), torch.Size([20, 3]))
    """

    def __init__(
        self,
        schema: Schema,
        *,
        basis: int = 30,
        generator: torch.Generator,
        scale: Mapping[str, float] | None = None,
        bounds: tuple[float | Tensor, float | Tensor] | None = None,
        squash: Squash = torch.tanh,
    ) -> None:
        super().__init__(schema, scale=scale, bounds=bounds, squash=squash)
        if basis < 1:
            raise SpecError(f"expected basis >= 1, got {basis}")
        self.basis = basis
        self.parameters = self.initial(generator)

    @override
    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return bumps of width 1 at standard normal places, with small weights."""
        size = self.schema.state.embedding_size
        drawn = standard_normal(
            (self.basis, size + self.schema.action.size), generator, dtype=torch.float64, device="cpu"
        )
        return {
            "center": drawn[:, :size].clone(),
            "log_width": torch.zeros(size, dtype=torch.float64),
            "weight": 0.1 * drawn[:, size:].mT.contiguous(),
        }

    @override
    def value(self, features: Tensor, step: int) -> Tensor:
        """Return the sum of the bumps."""
        per_width = (-self._like("log_width", features)).exp()
        # by differences: far away |x|^2 - 2 x c + |c|^2 is infinity less infinity
        away = (features[..., None, :] - self._like("center", features)) * per_width
        bumps = (-0.5 * away.square().sum(-1)).exp()
        return self._unit.to(features) * torch.nn.functional.linear(bumps, self._like("weight", features))
