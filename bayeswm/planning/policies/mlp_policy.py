"""A small network as a policy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import override

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.random import standard_normal
from bayeswm.base.schema import Schema
from bayeswm.planning.policies.policy import ParametricPolicy
from bayeswm.planning.policies.squashing import Squash


class MLPPolicy(ParametricPolicy):
    """A network of tanh layers; its last, linear layer is multiplied by half the distance of the bounds.

    Parameters
    ----------
    schema, scale, bounds, squash
        As of every :class:`ParametricPolicy`; scaled features are to be of size 1.
    hidden : sequence of int
        Units of each hidden layer.
    generator : torch.Generator
        Draws the first parameters.

    Attributes
    ----------
    parameters : dict of str to Tensor
        ``weight_i`` (out, in) and ``bias_i`` (out,) of each layer.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.structures.Pendulum.gymnasium().schema
    >>> policy = MLPPolicy(schema, hidden=(16,), generator=torch.Generator().manual_seed(0))
    >>> policy(torch.zeros(5, 2), 0).shape, {k: tuple(v.shape) for k, v in policy.parameters.items()}
    (torch.Size([5, 1]), {'weight_0': (16, 3), 'bias_0': (16,), 'weight_1': (1, 16), 'bias_1': (1,)})
    """

    def __init__(
        self,
        schema: Schema,
        *,
        hidden: Sequence[int] = (32, 32),
        generator: torch.Generator,
        scale: Mapping[str, float] | None = None,
        bounds: tuple[float | Tensor, float | Tensor] | None = None,
        squash: Squash = torch.tanh,
    ) -> None:
        super().__init__(schema, scale=scale, bounds=bounds, squash=squash)
        if any(n < 1 for n in hidden):
            raise SpecError(f"expected hidden layers of 1 unit or more, got {tuple(hidden)}")
        self.hidden = tuple(hidden)
        self.parameters = self.initial(generator)

    @override
    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weights of variance 1 / inputs (the last layer a tenth of the size), without biases."""
        sizes = (self.schema.state.embedding_size, *self.hidden, self.schema.action.size)
        found: dict[str, Tensor] = {}
        for i, (before, after) in enumerate(itertools.pairwise(sizes)):
            size = (0.1 if i == len(self.hidden) else 1.0) / before**0.5
            drawn = standard_normal((after, before), generator, dtype=torch.float64, device="cpu")
            found[f"weight_{i}"] = size * drawn
            found[f"bias_{i}"] = torch.zeros(after, dtype=torch.float64)
        return found

    @override
    def value(self, features: Tensor, step: int) -> Tensor:
        """Return what the last layer says."""
        x = features
        for i in range(len(self.hidden) + 1):
            x = torch.tanh(x) if i else x
            x = torch.nn.functional.linear(x, self._like(f"weight_{i}", x), self._like(f"bias_{i}", x))
        return self._unit.to(x) * x
