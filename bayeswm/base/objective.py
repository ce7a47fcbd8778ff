"""The training loss of a structure with its own noise: one step ahead, for many members at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from bayeswm.base.errors import SpecError
from bayeswm.base.laws import Gaussian
from bayeswm.base.trajectories import Transitions

if TYPE_CHECKING:
    from bayeswm.base.structure import Structure


class Objective(Protocol):
    """A loss that knows its data; ``trained`` holds the tensors (members, ...) that an optimiser changes in place."""

    trained: dict[str, Tensor]

    def gradient(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return each member's loss (members,) on its rows (members, batch), and gradients by what is trained."""
        ...

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return the log density of the next states at rows (n,), in the state's units, shape (members, n)."""
        ...


class AutogradObjective:
    """The mean negative log likelihood of any structure that predicts its noise, differentiated by autograd.

    Parameters
    ----------
    structure : Structure
        Its ``transition`` returns a mean and a standard deviation.
    parameters : mapping of str to Tensor, shape (members, ...)
        Those that the structure marks as trained are changed in place.
    data : Transitions
        Rows.

    Raises
    ------
    SpecError
        If the structure says nothing about noise.
    """

    def __init__(self, structure: Structure, parameters: Mapping[str, Tensor], data: Transitions) -> None:
        self.structure, self.parameters = structure, dict(parameters)
        names = [k for k, p in structure.parameters().items() if p.trained]
        self.trained = {k: self.parameters[k] for k in names}
        dtype = next(iter(self.parameters.values())).dtype
        self.data = tuple(v.to(dtype, copy=True) for v in data[:4])

    def gradient(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return losses and gradients; see :class:`Objective`."""
        with torch.enable_grad():
            leaves = {k: v.detach().requires_grad_() for k, v in self.trained.items()}
            loss = -self._log_prob({**self.parameters, **leaves}, rows).mean(-1)
            gradients = torch.autograd.grad(loss.sum(), list(leaves.values()))
        return loss.detach(), dict(zip(leaves, gradients, strict=True))

    def log_prob(self, rows: Tensor) -> Tensor:
        """Return log densities; see :class:`Objective`."""
        members = len(next(iter(self.parameters.values())))
        return self._log_prob(self.parameters, rows.expand(members, -1))

    def _log_prob(self, parameters: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        state, action, context, after = (v[rows][:, None] for v in self.data)
        mean, scale = self.structure.batched(parameters, state, action, context, 0)
        if scale is None:
            raise SpecError(f"expected a structure that predicts its noise, {self.structure.name} has none; use MLP")
        return Gaussian(mean, scale).log_prob(after)[:, 0]
