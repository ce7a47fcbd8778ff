"""What must not happen on the way: constraints on imagined trajectories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from torch import Tensor

from bayeswm.base.worlds import Belief, Worlds


@dataclass(frozen=True, eq=False)
class Imagined:
    """What a planner imagines of its candidates, for a constraint to look at.

    Attributes
    ----------
    states : Tensor, shape (worlds, particles, *batch, H + 1, S)
        Imagined trajectories, the start included; NaN or infinite where they diverged. Those of a recalibrated model
        are mapped.
    actions : Tensor, shape (*batch, H, A)
        Candidates; the batch is (candidates, *starts).
    context : Tensor, broadcastable to (*batch, H, C)
        Context of each step.
    worlds : Worlds
        What the system may be.
    belief : Tensor of shape (*starts, S), Law or Trajectories
        Where it is.
    fresh_worlds : bool
        Whether each particle meets another world at each step.
    """

    states: Tensor
    actions: Tensor
    context: Tensor
    worlds: Worlds
    belief: Belief
    fresh_worlds: bool = False

    @property
    def reached(self) -> Tensor:
        """The states after each step, shape (worlds, particles, *batch, H, S)."""
        return self.states[..., 1:, :]

    def first(self, steps: int) -> Imagined:
        """Return the first steps of it."""
        return replace(
            self,
            states=self.states[..., : steps + 1, :],
            actions=self.actions[..., :steps, :],
            context=self.context[..., :steps, :],
        )

    @property
    def log_weight(self) -> Tensor:
        """Normalised log weights of the worlds, shape (worlds,)."""
        return self.worlds.log_weight

    @property
    def clustered(self) -> bool:
        """Whether the particles of a world share its error: worlds are drawn, more than one, and kept."""
        return len(self.worlds) > 1 and not self.worlds.exhaustive and not self.fresh_worlds

    @property
    def units(self) -> float:
        """How many independent draws there are: worlds where these are drawn, else particles; fewer if weighted."""
        particles = 1 if self.clustered else self.states.shape[1]
        return particles / float(self.log_weight.exp().square().sum())


class Constraint(ABC):
    """Says how far imagined trajectories break a promise."""

    penalty: float | None = None
    """Cost of each unit of excess (a soft constraint); None is hard: any plan that keeps it beats all that do not."""

    @abstractmethod
    def excess(self, imagined: Imagined) -> Tensor:
        """Return how far each candidate exceeds what is allowed: 0 where the promise is kept.

        Returns
        -------
        Tensor, shape (*batch), at least 0
        """

    @abstractmethod
    def broken(self, imagined: Imagined) -> Tensor:
        """Return which particles are where they must not be after each step; those that diverged are.

        Returns
        -------
        Tensor of bool, shape (worlds, particles, *batch, H)
        """
