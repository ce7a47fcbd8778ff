"""Omitted variable bias of a linear regression, in partial R^2: closed forms."""

from __future__ import annotations

import math
from typing import NamedTuple

from bayeswm.base.errors import SpecError
from bayeswm.causal.effects.effect import check_level


class AdjustedEstimate(NamedTuple):
    """A coefficient and its standard error, had the confounder been in the regression."""

    value: float
    standard_error: float


def robustness_value(
    estimate: float,
    standard_error: float,
    *,
    degrees_of_freedom: int,
    share: float = 1.0,
    level: float | None = None,
) -> float:
    """Return how strong a hidden confounder must be to take a regression coefficient down to nothing.

    The robustness value RV is a partial R^2: a confounder that explains the share RV of what is left of the treatment,
    and the share RV of what is left of the outcome, given the other regressors, changes the estimate by just so much.
    With Cohen's ``f = share t / sqrt(degrees of freedom)``,

        RV = (sqrt(f^4 + 4 f^2) - f^2) / 2.

    Higher is more robust, from 0 to 1. :func:`sensitivity_of_effect` answers the same for any model and horizon.

    Parameters
    ----------
    estimate, standard_error : float
        Of the coefficient.
    degrees_of_freedom : int
        Of the regression's residuals, above 1.
    share : float
        Share of the estimate to be taken away; 1 is all of it.
    level : float, optional
        Not until the estimate is 0, but until its confidence interval of this level contains it.

    Returns
    -------
    float

    Raises
    ------
    SpecError
        For numbers that make no sense.

    References
    ----------
    Cinelli and Hazlett (2020), Making sense of sensitivity: extending omitted variable bias, section 4.

    Examples
    --------
    Exposure to violence and attitudes to peace, from the paper:

    >>> found = (robustness_value(0.0973, 0.0233, degrees_of_freedom=783, level=l) for l in (None, 0.95))
    >>> [round(100 * value, 1) for value in found]
    [13.9, 7.6]
    """
    _check(estimate, standard_error, degrees_of_freedom)
    if not 0 < share < math.inf:
        raise SpecError(f"expected share > 0 and finite, got {share!r}")
    f = share * abs(estimate / standard_error) / math.sqrt(degrees_of_freedom)
    if level is not None:
        f -= critical_value(level, degrees_of_freedom - 1) / math.sqrt(degrees_of_freedom - 1)
    f = max(f, 0.0)
    value = 0.5 * (math.sqrt(f**4 + 4 * f**2) - f**2)
    if level is None or f == 0:
        return value
    # a confounder of the treatment alone also widens the interval: beyond this it need not touch the outcome so much
    critical = critical_value(level, degrees_of_freedom - 1) / math.sqrt(degrees_of_freedom - 1)
    first = f + critical
    return value if first * critical < 1 else (first**2 - critical**2) / (1 + first**2)


def adjusted_estimate(
    estimate: float,
    standard_error: float,
    *,
    degrees_of_freedom: int,
    treatment_r2: float,
    outcome_r2: float,
) -> AdjustedEstimate:
    """Return a regression coefficient as a confounder of given strength, had it been seen, would have left it.

    The bias is ``se sqrt(df R_y^2 R_d^2 / (1 - R_d^2))``, taken to have inflated the estimate; a confounder of the
    other sign moves it as far the other way.

    Parameters
    ----------
    estimate, standard_error : float
        Of the coefficient, without the confounder.
    degrees_of_freedom : int
        Of the regression's residuals, above 1.
    treatment_r2, outcome_r2 : float
        Partial R^2 of the confounder with the treatment given the other regressors, in [0, 1), and with the outcome
        given these and the treatment, in [0, 1].

    Returns
    -------
    AdjustedEstimate

    Raises
    ------
    SpecError
        For numbers that make no sense.

    References
    ----------
    Cinelli and Hazlett (2020), equations 9 and 10.

    Examples
    --------
    >>> found = adjusted_estimate(0.0973, 0.0233, degrees_of_freedom=783, treatment_r2=0.05, outcome_r2=0.05)
    >>> round(found.value, 3), round(found.standard_error, 3)
    (0.064, 0.023)
    """
    _check(estimate, standard_error, degrees_of_freedom)
    if not 0 <= treatment_r2 < 1 or not 0 <= outcome_r2 <= 1:
        raise SpecError(f"expected treatment_r2 in [0, 1) and outcome_r2 in [0, 1], got {treatment_r2}, {outcome_r2}")
    bias = standard_error * math.sqrt(degrees_of_freedom * outcome_r2 * treatment_r2 / (1 - treatment_r2))
    factor = (1 - outcome_r2) / (1 - treatment_r2) * degrees_of_freedom / (degrees_of_freedom - 1)
    return AdjustedEstimate(estimate - math.copysign(bias, estimate), standard_error * math.sqrt(factor))


def _check(estimate: float, standard_error: float, degrees_of_freedom: int) -> None:
    if not math.isfinite(estimate) or not 0 < standard_error < math.inf or degrees_of_freedom < 2:
        raise SpecError(
            "expected a finite estimate, standard_error > 0 and degrees_of_freedom > 1, got "
            f"{estimate}, {standard_error} and {degrees_of_freedom}"
        )


def critical_value(level: float, degrees_of_freedom: int) -> float:
    """Return the two-sided critical value of Student's t."""
    from scipy.special import stdtrit

    check_level(level)
    return float(stdtrit(degrees_of_freedom, 0.5 + level / 2))
