"""What must not happen on the way: constraints on imagined trajectories."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Constraint(ABC):
    """Says how far imagined trajectories break a promise."""

    penalty: float | None = None
    """Cost of each unit of excess (a soft constraint); None is hard: any plan that keeps it beats all that do not."""

    @abstractmethod
    def excess(self, states: Tensor, actions: Tensor, context: Tensor, log_weight: Tensor) -> Tensor:  # noqa: PLR0917
        """Return how far each candidate exceeds what is allowed: 0 where the promise is kept.

        Parameters
        ----------
        states : Tensor, shape (worlds, particles, *batch, H + 1, S)
            Imagined trajectories, the start included; NaN or infinite where they diverged, which breaks any promise.
        actions : Tensor, shape (*batch, H, A)
            Candidates.
        context : Tensor, broadcastable to (*batch, H, C)
            Context of each step.
        log_weight : Tensor, shape (worlds,)
            Normalised log weights of the worlds.

        Returns
        -------
        Tensor, shape (*batch), at least 0
        """
