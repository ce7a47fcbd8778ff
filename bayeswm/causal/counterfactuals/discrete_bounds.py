"""What both branches of a discrete outcome can be together: bounds, where a counterfactual is not identified."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayeswm.base.errors import DataError

# what rounding explains
_ROUNDING = 1e-9

Array = NDArray[np.float64]


class Bounds(NamedTuple):
    """The least and the largest value that a quantity can have; both can be attained."""

    lower: float
    upper: float


class CausationBounds(NamedTuple):
    """Bounds of three probabilities of causation of a binary outcome by a binary treatment.

    Attributes
    ----------
    both : Bounds
        Of necessity and sufficiency: the outcome comes with the treatment and not without it.
    necessity : Bounds or None
        Given treatment and outcome: the outcome would not have come without the treatment.
    sufficiency : Bounds or None
        Given neither: the outcome would have come with the treatment.
    """

    both: Bounds
    necessity: Bounds | None
    sufficiency: Bounds | None


def causation_bounds(treated: float, untreated: float, *, observed: ArrayLike | None = None) -> CausationBounds:
    """Return bounds of the probabilities of causation (Tian & Pearl 2000, Probabilities of causation).

    No experiment sees one unit with the treatment and without it. What is known of the two branches apart leaves an
    interval, which is the smallest: each end belongs to some model with these numbers.

    Parameters
    ----------
    treated, untreated : float
        Probability of the outcome under do(treatment) and under do(no treatment).
    observed : array, shape (2, 2), optional
        Joint law where nobody intervened: rows are no treatment and treatment, columns no outcome and outcome. It
        makes the bounds narrower, and those of necessity and sufficiency need it.

    Returns
    -------
    CausationBounds
        The last two are None without ``observed``, and where nobody was seen that they speak of.

    Raises
    ------
    DataError
        If numbers are no probabilities, or no causal model has all of them.

    Examples
    --------
    The example of Pearl (2009), section 9.3.4: a drug, deaths with it and without it in an experiment, and what
    patients did by themselves. Every death under the drug was due to it.

    >>> found = causation_bounds(0.016, 0.014, observed=[[0.486, 0.014], [0.499, 0.001]])
    >>> [round(v, 3) for v in found.both], [round(v, 3) for v in found.necessity]
    ([0.002, 0.016], [1.0, 1.0])
    """
    y1, y0 = (_probability(v, name) for v, name in ((treated, "treated"), (untreated, "untreated")))
    if observed is None:
        return CausationBounds(Bounds(max(0.0, y1 - y0), min(y1, 1 - y0)), None, None)
    (none, only), (failed, both) = _law(observed, "observed", shape=(2, 2))
    for name, value, least, most in (("treated", y1, both, 1 - failed), ("untreated", y0, only, 1 - none)):
        if not least - _ROUNDING <= value <= most + _ROUNDING:
            raise DataError(
                f"expected {name}= between {least:g} and {most:g}, as every model with this observed= has it, got "
                f"{value:g}; the two do not come from one population"
            )
    y = only + both
    lower = float(max(0.0, y1 - y0, y - y0, y1 - y))
    upper = float(min(y1, 1 - y0, both + none, y1 - y0 + failed + only))
    necessity = _bounds(y - y0, 1 - y0 - none, both)
    sufficiency = _bounds(y1 - y, y1 - both, none)
    return CausationBounds(Bounds(lower, max(lower, upper)), necessity, sufficiency)


def joint_bounds(first: ArrayLike, second: ArrayLike) -> tuple[Array, Array]:
    """Return bounds of the joint law of two discrete outcomes of which only the laws apart are known (Frechet 1940).

    The outcomes are those of two branches: what came under one intervention and what would have come under another.

    Parameters
    ----------
    first, second : array, shape (n,) and (m,)
        The law of each outcome.

    Returns
    -------
    tuple of ndarray, shape (n, m)
        The least and the largest probability that the first is i and the second j. Each entry is attained by some
        joint law, not all of them by one.

    Raises
    ------
    DataError
        If one of them is no law.

    Examples
    --------
    >>> low, high = joint_bounds([0.2, 0.8], [0.5, 0.5])
    >>> low.round(3).tolist(), high.round(3).tolist()
    ([[0.0, 0.0], [0.3, 0.3]], [[0.2, 0.2], [0.5, 0.5]])
    """
    p, q = _law(first, "first")[:, None], _law(second, "second")[None, :]
    return np.maximum(0.0, p + q - 1), np.minimum(p, q)


def benefit_bounds(first: ArrayLike, second: ArrayLike) -> Bounds:
    """Return bounds of the probability that the second of two ordered outcomes is above the first.

    How many are better off under one intervention than under another; with two classes it is the first bound of
    :func:`causation_bounds`. The bounds are those of Makarov (1981) for the difference, and are attained.

    Parameters
    ----------
    first, second : array, shape (n,)
        The law of each outcome, classes from the worst to the best.

    Raises
    ------
    DataError
        If they are no laws of one number of classes.

    Examples
    --------
    >>> found = benefit_bounds([0.5, 0.3, 0.2], [0.2, 0.3, 0.5])
    >>> round(found.lower, 3), round(found.upper, 3)
    (0.3, 0.8)
    """
    p, q = _law(first, "first"), _law(second, "second")
    if p.shape != q.shape:
        raise DataError(f"expected two laws of the same classes, got {len(p)} and {len(q)}")
    upto, other = p.cumsum(), q.cumsum()
    # above by way of one class: the second is better than it, the first is not
    lower = max(0.0, float((upto - other).max()))
    # not above by way of one class: the second is not better than it, the first is no worse
    upper = 1 - max(0.0, float((other - (upto - p)).max()))
    return Bounds(lower, max(lower, upper))


def _bounds(low: float, high: float, share: float) -> Bounds | None:
    if share <= 0:
        return None
    lower = min(max(0.0, float(low) / float(share)), 1.0)
    return Bounds(lower, max(lower, min(1.0, float(high) / float(share))))


def _probability(value: float, name: str) -> float:
    if not 0 <= value <= 1:
        raise DataError(f"expected {name}= as a probability, got {value!r}")
    return float(value)


def _law(values: ArrayLike, name: str, *, shape: tuple[int, ...] | None = None) -> Array:
    law = np.asarray(values, dtype=np.float64)
    fits = law.ndim == 1 and law.size > 0 if shape is None else law.shape == shape
    if not fits or not bool((law >= 0).all()) or not abs(float(law.sum()) - 1) < 1e-6:
        wanted = "(n,)" if shape is None else str(shape)
        raise DataError(
            f"expected {name}= as probabilities of shape {wanted} that sum to 1, got shape {law.shape} and a sum of "
            f"{float(law.sum()):g}"
        )
    return law / law.sum()
