"""Linear feedback whose gains are parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import override

import torch
from torch import Tensor

from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.planning.policies.policy import ParametricPolicy
from bayeswm.planning.policies.squashing import Squash


class LinearPolicy(ParametricPolicy):
    """``f = gain features + bias``: near the middle of the bounds, the feedback of a linear regulator.

    Parameters
    ----------
    schema, scale, bounds, squash
        As of every :class:`ParametricPolicy`.

    Attributes
    ----------
    parameters : dict of str to Tensor
        ``gain`` (A, E) and ``bias`` (A,), both 0 at first.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.gymnasium().schema  # the features are sine, cosine and velocity
    >>> policy = LinearPolicy(schema).replace(gain=torch.tensor([[-8.0, 0.0, -2.0]]))
    >>> policy(torch.tensor([[0.01, 0.0], [0.5, 0.0]]), 0)
    tensor([[-0.0800],
            [-1.9155]])
    """

    def __init__(
        self,
        schema: Schema,
        *,
        scale: Mapping[str, float] | None = None,
        bounds: tuple[float | Tensor, float | Tensor] | None = None,
        squash: Squash = torch.tanh,
    ) -> None:
        super().__init__(schema, scale=scale, bounds=bounds, squash=squash)
        actions = schema.action.size
        gain = torch.zeros(actions, schema.state.embedding_size, dtype=torch.float64)
        self.parameters = {"gain": gain, "bias": torch.zeros(actions, dtype=torch.float64)}

    @override
    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return gains that turn features of size 1 into about half the bounds, and no bias."""
        shape = tuple(self.parameters["gain"].shape)
        drawn = standard_normal(shape, generator, dtype=torch.float64, device="cpu") / shape[1] ** 0.5
        return {"gain": 0.5 * self._unit[:, None] * drawn, "bias": torch.zeros_like(self.parameters["bias"])}

    @override
    def value(self, features: Tensor, step: int) -> Tensor:
        """Return ``gain features + bias``."""
        return torch.nn.functional.linear(features, self._like("gain", features), self._like("bias", features))
