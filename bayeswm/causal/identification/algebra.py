"""Sums, products and ratios of formulas, each simplified as it is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bayeswm.causal.identification.estimand import Estimand, Probability, Product, Ratio, Sum


def product(factors: Iterable[Estimand]) -> Estimand:
    """Return a product, flat and with its sums last.

    Examples
    --------
    >>> print(product([product([]), Probability(("X",)), product([Probability(("Y",), ("X",))])]))
    P(X) P(Y | X)
    """
    flat = [part for factor in factors for part in factors_of(factor)]
    flat.sort(key=lambda factor: isinstance(factor, Sum))
    return flat[0] if len(flat) == 1 else Product(tuple(flat))


def factors_of(estimand: Estimand) -> tuple[Estimand, ...]:
    """Return the factors of a product, or the formula itself as the only one.

    Examples
    --------
    >>> factors_of(Probability(("X",)))
    (Probability(of=('X',), given=()),)
    """
    return estimand.factors if isinstance(estimand, Product) else (estimand,)


def sum_over(names: Iterable[str], estimand: Estimand) -> Estimand:
    """Return a sum over variables, without those over which a probability sums to 1, and with the rest drawn out.

    Parameters
    ----------
    names : iterable of str
        Variables, free in the formula.
    estimand : Estimand
        What is summed.

    Examples
    --------
    >>> joint = product([Probability(("X",)), Probability(("Z",), ("X",)), Probability(("Y",), ("X",))])
    >>> print(sum_over(["Z"], joint))
    P(X) P(Y | X)
    >>> print(sum_over(["X"], joint))
    sum_{X} P(X) P(Z | X) P(Y | X)
    """
    left = list(names)
    if isinstance(estimand, Sum):
        left, estimand = [*estimand.over, *left], estimand.term
    factors = list(factors_of(estimand))
    while any(_sum_away(name, left, factors) for name in tuple(left)):
        pass
    inside = [factor for factor in factors if not factor.free.isdisjoint(left)]
    outside = [factor for factor in factors if factor.free.isdisjoint(left)]
    return product([*outside, Sum(tuple(left), product(inside))]) if left else product(outside)


def _sum_away(name: str, left: list[str], factors: list[Estimand]) -> bool:
    """Take a variable out of the one probability, or chain of two, that alone depends on it."""
    found = [factor for factor in factors if name in factor.free]
    merged = found[0] if len(found) == 1 else _chained(*found) if len(found) == 2 else None
    if not isinstance(merged, Probability) or name not in merged.of:
        return False
    where = factors.index(found[0])
    for factor in found:
        factors.remove(factor)
    if rest := tuple(other for other in merged.of if other != name):
        factors.insert(where, Probability(rest, merged.given))
    left.remove(name)
    return True


def _chained(one: Estimand, other: Estimand) -> Probability | None:
    """Return P(B | C) P(A | B, C) as P(B, A | C), or None."""
    for first, second in ((one, other), (other, one)):
        if isinstance(first, Probability) and isinstance(second, Probability):
            apart = not set(first.of) & set(second.of)
            if apart and set(second.given) == set(first.of) | set(first.given):
                return Probability(first.of + second.of, first.given)
    return None


def ratio(numerator: Estimand, denominator: Estimand) -> Estimand:
    """Return a ratio without common factors; P(X, Y) / P(X) is P(Y | X).

    Examples
    --------
    >>> print(ratio(Probability(("X", "Y")), Probability(("X",))))
    P(Y | X)
    """
    above, below = list(factors_of(numerator)), list(factors_of(denominator))
    for factor in tuple(below):
        if factor in above:
            above.remove(factor)
            below.remove(factor)
    for factor in tuple(below):
        whole = next((whole for whole in above if _conditional(whole, factor)), None)
        conditional = whole and _conditional(whole, factor)
        if whole and conditional:
            above[above.index(whole)] = conditional
            below.remove(factor)
    return Ratio(product(above), product(below)) if below else product(above)


def _conditional(whole: Estimand, part: Estimand) -> Probability | None:
    """Return P(A, B | C) / P(B | C) as P(A | B, C), or None."""
    if not isinstance(whole, Probability) or not isinstance(part, Probability):
        return None
    if set(whole.given) != set(part.given) or not set(part.of) < set(whole.of):
        return None
    return Probability(tuple(name for name in whole.of if name not in part.of), part.of + part.given)


def chain(estimand: Estimand) -> Estimand:
    """Return the formula with P(X) P(Y | X) written as P(X, Y) throughout.

    Examples
    --------
    >>> print(chain(product([Probability(("Y",), ("X",)), Probability(("X",))])))
    P(X, Y)
    """
    match estimand:
        case Sum(over, term):
            return sum_over(over, chain(term))
        case Ratio(above, below):
            return ratio(chain(above), chain(below))
        case Product(factors):
            return product(_chain_factors([chain(factor) for factor in factors]))
        case _:
            return estimand


def _chain_factors(factors: Sequence[Estimand]) -> list[Estimand]:
    merged = list(factors)
    for i, one in enumerate(merged):
        for j in range(i + 1, len(merged)):
            if both := _chained(one, merged[j]):
                return _chain_factors([*merged[:i], both, *merged[i + 1 : j], *merged[j + 1 :]])
    return merged
