"""Treatments one after the other: the sequential back-door criterion and the g-formula."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bayeswm.base.errors import SpecError
from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import as_names
from bayeswm.causal.graphs.separation import separated
from bayeswm.causal.identification.algebra import product, sum_over
from bayeswm.causal.identification.estimand import Probability
from bayeswm.causal.identification.verdict import Identifiable, Query


@dataclass(frozen=True)
class SequentialAdjustment:
    """What to adjust for before each treatment, and the g-formula that does so.

    Parameters
    ----------
    treatments : tuple of str
        In the order in which they act.
    sets : tuple of frozenset of str
        For each treatment the variables added to what is adjusted for.
    effect : Identifiable
        The joint effect, by the g-formula.

    Examples
    --------
    >>> from bayeswm.causal import CausalGraph, sequential_backdoor
    >>> graph = CausalGraph([("L", "A"), ("L", "Y"), ("A", "Y")])
    >>> found = sequential_backdoor(graph, ["A"], "Y")
    >>> found.treatments, found.sets
    (('A',), (frozenset({'L'}),))
    """

    treatments: tuple[str, ...]
    sets: tuple[frozenset[str], ...]
    effect: Identifiable


def sequential_backdoor(
    graph: CausalGraph,
    treatments: str | Iterable[str],
    outcome: str | Iterable[str],
    *,
    allowed: str | Iterable[str] | None = None,
) -> SequentialAdjustment | None:
    """Return sets of variables, one for each treatment in turn, that make the joint effect a g-formula.

    A variable that an earlier treatment acts on and that a later one follows cannot be adjusted for once and for all:
    the g-formula weighs it by its law under the earlier treatments. No single variable can be left out of the sets.

    Parameters
    ----------
    graph : CausalGraph
        What is known of causes.
    treatments : str or iterable of str
        Taken in topological order.
    outcome : str or iterable of str
        What the joint effect is on.
    allowed : str or iterable of str, optional
        What may be adjusted for; all by default.

    Returns
    -------
    SequentialAdjustment or None
        None where no sets meet the criterion; the effect may still be identifiable otherwise.

    Raises
    ------
    UnknownVariableError
        If a name is not in the graph.
    SpecError
        If there is no treatment, or treatments and outcome overlap.

    References
    ----------
    Pearl and Robins (1995), Probabilistic evaluation of sequential plans from causal models with hidden variables.

    Examples
    --------
    A later action follows a symptom that the earlier one and a hidden constitution both act on:

    >>> from bayeswm.causal import CausalGraph, sequential_backdoor
    >>> edges = [("A0", "L"), ("L", "A1"), ("L", "Y"), ("A1", "Y"), ("U", "L"), ("U", "Y")]
    >>> print(sequential_backdoor(CausalGraph(edges, latent=["U"]), ["A0", "A1"], "Y").effect)
    P(Y | do(A0, A1)) = sum_{L} P(L | A0) P(Y | A0, L, A1)
    """
    treatments = as_names(treatments)
    x, y = graph.disjoint_masks(treatments=treatments, outcome=outcome)
    if not x or not y:
        raise SpecError("expected at least one treatment and one outcome")
    limit = graph.bits.all if allowed is None else graph.mask(allowed)
    order = list(bits_of(x))
    cuts = [_without_later(graph.bits, order, k) for k in range(len(order))]
    sets = _largest_plan(graph.bits, cuts, y, order=order, limit=limit)
    if not _admissible(cuts, order, y, sets=sets):
        return None
    for i in reversed(range(len(sets))):
        for node in reversed(list(bits_of(sets[i]))):
            less = [*sets[:i], sets[i] & ~(1 << node), *sets[i + 1 :]]
            if _admissible(cuts, order, y, sets=less, first=i):
                sets = less
    named = tuple(graph.order[node] for node in order)
    return SequentialAdjustment(
        named, tuple(frozenset(graph.names(z)) for z in sets), _g_formula(graph, order, y, sets=sets)
    )


def _without_later(bits: BitGraph, order: list[int], k: int) -> BitGraph:
    """Return the graph in which treatment k has no effect and nothing acts on the later ones."""
    return bits.cut(into=sum(1 << node for node in order[k + 1 :]), out_of=1 << order[k])


def _largest_plan(bits: BitGraph, cuts: list[BitGraph], y: int, *, order: list[int], limit: int) -> list[int]:
    """Return for each treatment all that may be adjusted for and can matter: if any plan is admissible, this one is."""
    plan: list[int] = []
    treated, used = sum(1 << node for node in order), 0
    for k, node in enumerate(order):
        later = bits.descendants(sum(1 << other for other in order[k:]))
        matters = cuts[k].ancestors(y | 1 << node)
        plan.append(matters & limit & ~(later | treated | y | used))
        used |= plan[-1]
    return plan


def _admissible(cuts: list[BitGraph], order: list[int], y: int, *, sets: list[int], first: int = 0) -> bool:
    """Return whether the criterion holds for the treatments from the first to be checked on."""
    given = 0
    for k, (cut, node, chosen) in enumerate(zip(cuts, order, sets, strict=True)):
        given |= chosen
        if k >= first and not separated(cut, y, 1 << node, given=given):
            return False
        given |= 1 << node
    return True


def _g_formula(graph: CausalGraph, order: list[int], y: int, *, sets: list[int]) -> Identifiable:
    before, factors = 0, []
    for node, chosen in zip(order, sets, strict=True):
        if chosen:
            factors.append(Probability(graph.names(chosen), graph.names(before)))
        before |= chosen | 1 << node
    factors.append(Probability(graph.names(y), graph.names(before)))
    chosen = before & ~sum(1 << node for node in order)
    treated = graph.names(before & ~chosen)
    return Identifiable(Query(graph.names(y), treated), sum_over(graph.names(chosen), product(factors)))
