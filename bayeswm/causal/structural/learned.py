"""Mechanisms whose function and noise are learned, by whatever family of models the user chooses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

from bayeswm.base.errors import SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories
from bayeswm.causal.structural.regression import Regression


@dataclass(frozen=True, eq=False)
class Learned:
    """A variable as an unknown function of its parents plus Gaussian noise, learned by a model of the user's choice.

    The model is used as a regression: its state is the variable, its actions are the parents, and its "step" leads
    from the variable's own value of the slice before, if that is a parent, or else from 0. A family that predicts the
    change of state thus predicts the change where there is one, and the value itself otherwise. Parameters that belong
    to a state of 0 (``A`` of a linear structure) say nothing, and keep their prior.

    Parameters
    ----------
    model : DynamicsModel or callable
        An unfitted model, of which the variable gets a copy of its own; or a function that takes the
        :class:`~bayeswm.Schema` of the regression and returns such a model, for structures that need to know the
        variables. A model that was fitted already, by another :class:`StructuralModel`, is used as it is.
    parents : sequence of str
        Variables of the same slice (``"Z"``), of the slice before (``"Z[t-1]"``), actions and context; none by default.

    Raises
    ------
    SpecError
        If the model is neither, or the parents are no sequence of different names.

    Examples
    --------
    Linear in the parents, with Gaussian noise, and the posterior in closed form:

    >>> import bayeswm as bwm
    >>> from torch.distributions import Normal
    >>> line = bwm.structures.Linear(c=Normal(0.0, 10.0))
    >>> linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    >>> Learned(linear, parents=("X", "Z"))
    Learned(BayesianDynamics(structure=Linear), parents=('X', 'Z'))
    """

    model: DynamicsModel | Callable[[Schema], DynamicsModel]
    parents: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.model, DynamicsModel) and not callable(self.model):
            raise SpecError(
                "expected an unfitted model such as GaussianProcess(), or a function of a schema that returns one, "
                f"got {self.model!r}"
            )
        if isinstance(self.parents, str):
            raise SpecError(f"expected parents as a sequence of names, got the string {self.parents!r}")
        object.__setattr__(self, "parents", tuple(self.parents))

    @property
    def causes(self) -> tuple[str, ...]:
        """The parents."""
        return self.parents

    @property
    def noisy(self) -> bool:
        """Whether there is noise: always, and how much is learned."""
        return True

    def fitted(
        self, regression: Regression, trajectories: Trajectories, *, seed: int | None, progress: bool
    ) -> DynamicsModel:
        """Return a copy of the model, fitted to the rows of the regression.

        Raises
        ------
        SpecError
            If the function of a schema returns no model.
        DataError
            If no row is complete.
        """
        model = copy.deepcopy(self.model) if isinstance(self.model, DynamicsModel) else self.model(regression.schema)
        if not isinstance(model, DynamicsModel):
            raise SpecError(
                f"{regression.name}: expected a function that returns a model for a schema, got "
                f"{type(model).__name__} from it"
            )
        with regression.quiet():
            return model.fit(regression.rows(trajectories), seed=seed, progress=progress)

    def __repr__(self) -> str:
        model = self.model if isinstance(self.model, DynamicsModel) else getattr(self.model, "__name__", self.model)
        return f"Learned({model}, parents={self.parents})"
