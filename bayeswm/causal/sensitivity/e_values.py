"""E-values: how strongly a hidden confounder would have to act on the scale of risk ratios."""

from __future__ import annotations

import math
from typing import NamedTuple

from bayeswm.base.errors import SpecError


class EValue(NamedTuple):
    """An E-value and that of the limit of the interval that is closer to no effect (NaN without one)."""

    point: float
    limit: float


def e_value(risk_ratio: float, *, lower: float | None = None, upper: float | None = None) -> EValue:
    """Return the least strength of a hidden confounder that explains a risk ratio away.

    The strength is the risk ratio of the confounder with the treatment and, at the same time, with the outcome, both
    given what was adjusted for: ``RR + sqrt(RR (RR - 1))``, and the same of ``1 / RR`` for a protective treatment. No
    weaker confounder can do it. Higher is more robust; 1 is no robustness at all.

    Parameters
    ----------
    risk_ratio : float
        Estimated risk ratio, above 0.
    lower, upper : float, optional
        Limits of its interval; the one closer to 1 counts. An interval that contains 1 has the E-value 1.

    Returns
    -------
    EValue

    Raises
    ------
    SpecError
        For a ratio that is not above 0, or limits that do not enclose it.

    References
    ----------
    VanderWeele and Ding (2017), Sensitivity analysis in observational research: introducing the E-value.

    Examples
    --------
    Smoking and lung cancer, from the paper:

    >>> found = e_value(10.73, lower=8.02, upper=14.36)
    >>> round(found.point, 1), round(found.limit, 1)
    (20.9, 15.5)
    """
    if not 0 < risk_ratio < math.inf:
        raise SpecError(f"expected a risk ratio above 0 and finite, got {risk_ratio!r}")
    low, high = (risk_ratio if limit is None else limit for limit in (lower, upper))
    if not 0 < low <= risk_ratio <= high:
        raise SpecError(f"expected limits above 0 around {risk_ratio}, got lower={lower} and upper={upper}")
    limit = lower if risk_ratio >= 1 else upper
    if limit is None:
        return EValue(_strength(risk_ratio), math.nan)
    return EValue(_strength(risk_ratio), 1.0 if low <= 1 <= high else _strength(limit))


def e_value_of_difference(difference: float, *, standard_error: float | None = None) -> EValue:
    """Return the E-value of a difference of means in units of the outcome's standard deviation.

    It is that of the risk ratio ``exp(0.91 d)``, which a difference d amounts to approximately, with the interval
    ``exp(0.91 d +- 1.78 se)`` of level 95 %.

    Parameters
    ----------
    difference : float
        Standardised mean difference d.
    standard_error : float, optional
        Of d; 0 or more.

    Returns
    -------
    EValue

    Raises
    ------
    SpecError
        For numbers that are not finite, or a negative standard error.

    References
    ----------
    VanderWeele and Ding (2017), table 2; Chinn (2000), A simple method for converting an odds ratio to effect size.

    Examples
    --------
    >>> found = e_value_of_difference(0.5, standard_error=0.1)
    >>> round(found.point, 2), round(found.limit, 2)
    (2.53, 1.97)
    """
    if not math.isfinite(difference):
        raise SpecError(f"expected a finite difference, got {difference!r}")
    ratio = math.exp(0.91 * difference)
    if standard_error is None:
        return e_value(ratio)
    if not 0 <= standard_error < math.inf:
        raise SpecError(f"expected standard_error >= 0 and finite, got {standard_error!r}")
    half = math.exp(1.78 * standard_error)
    return e_value(ratio, lower=ratio / half, upper=ratio * half)


def _strength(ratio: float) -> float:
    ratio = max(ratio, 1 / ratio)
    return ratio + math.sqrt(ratio * (ratio - 1))
