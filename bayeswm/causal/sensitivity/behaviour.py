"""How a log's actions were chosen: a linear-Gaussian law of the action given the state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.laws import MultivariateGaussian
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories, check_trajectories
from bayeswm.causal.confounding.regression import features_of

# residual standard deviation of an action, as a share of its own, below which the state settles it
_LEAST = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class LinearBehaviour:
    """The law of a logged action: linear in the state's features and the context, with Gaussian residuals.

    Called as (state, step), it is a stochastic policy as :func:`policy_value` takes them.

    Attributes
    ----------
    schema : Schema
        Variables.
    coefficients : Tensor, shape (features, A)
        Of 1, the state and the context, angles by sine and cosine.
    covariance : Tensor, shape (A, A)
        Of the residuals.
    """

    schema: Schema
    coefficients: Tensor
    covariance: Tensor

    def __call__(self, state: Tensor, step: int) -> MultivariateGaussian:  # noqa: ARG002
        """Return the law of the action in states (..., S) of a system without context."""
        return self.law(state)

    def law(self, state: Tensor, context: Tensor | None = None) -> MultivariateGaussian:
        """Return the law of the action in states (..., S) and contexts (..., C).

        Raises
        ------
        SpecError
            Without the context that the log has.
        """
        return MultivariateGaussian(self.mean(state, context), torch.linalg.cholesky(self.covariance).to(state))

    def mean(self, state: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the mean action in states (..., S) and contexts (..., C), shape (..., A)."""
        return features_of(self.schema, state, context) @ self.coefficients.to(state)

    def standardised(self, action: Tensor, state: Tensor, context: Tensor | None, *, column: int) -> Tensor:
        """Return how many residual standard deviations an action is off, given the state and the other actions.

        Parameters
        ----------
        action, state, context : Tensor, shapes (..., A), (..., S) and (..., C)
            What was done, where.
        column : int
            Which action.

        Returns
        -------
        Tensor, shape (...)
        """
        precision = torch.linalg.inv(self.covariance).to(state)
        residual = action - self.mean(state, context)
        return residual @ precision[:, column] / precision[column, column].sqrt()

    def __repr__(self) -> str:
        actions, size = ", ".join(self.schema.action.columns), self.covariance.diagonal().sqrt()
        return f"LinearBehaviour({actions} | state, residual sd {[round(float(v), 4) for v in size]})"


def fit_behaviour(logged: Trajectories) -> LinearBehaviour:
    """Fit the law by which a log's actions were chosen, by least squares.

    Parameters
    ----------
    logged : Trajectories
        With measured states.

    Returns
    -------
    LinearBehaviour

    Raises
    ------
    SpecError, DataError
        For a system without actions, too few rows, or an action that the state settles: it says nothing about what
        another action would do there.

    Examples
    --------
    >>> import bayeswm as bwm
    >>> schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], time_step=1.0)
    >>> s = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [0.0]])
    >>> log = bwm.Trajectories(schema, state=s, action=torch.tensor([[0.6], [0.4], [0.4], [0.6]]))
    >>> found = fit_behaviour(log)
    >>> found.mean(torch.zeros(1)).round(decimals=3), found.covariance.sqrt().round(decimals=3)
    (tensor([0.5000]), tensor([[0.1410]], dtype=torch.float64))
    """
    check_trajectories(logged)
    if not logged.schema.action.size:
        raise SpecError("expected a log with actions to say how they were chosen, got a system without")
    rows = logged.transitions()
    phi, action = features_of(logged.schema, rows.state.double(), rows.context.double()), rows.action.double()
    n, size = phi.shape
    if n <= size + action.shape[1]:
        raise DataError(f"expected more than {size + action.shape[1]} logged steps to fit the actions' law, got {n}")
    # by singular values, since features may repeat each other
    coefficients = torch.linalg.pinv(phi) @ action
    residual = action - phi @ coefficients
    covariance = residual.mT @ residual / (n - size)
    least = _LEAST * action.std(0).clamp(min=1e-12)
    roots = torch.linalg.eigvalsh(covariance / (least[:, None] * least)).clamp(min=0).sqrt()
    if bool((roots < 1).any()):
        raise DataError(
            f"expected logged actions ({', '.join(logged.schema.action.columns)}) that vary at equal states, got ones "
            "that follow from the state and each other; log some exploration noise"
        )
    return LinearBehaviour(logged.schema, coefficients, covariance)
