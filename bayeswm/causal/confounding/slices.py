"""A graph in time around one step: which recorded variables tell an action's effect from what it shares causes with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import combinations

from bayeswm.causal.confounding.strategies import Adjusted, FrontDoor, Instrumented, Unconfounded
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import at
from bayeswm.causal.graphs.time_graph import TimeGraph
from bayeswm.causal.identification.adjustment import is_adjustment_set


class Slices:
    """A graph in time around one step, from time K to K + 1, with a past that is long enough and one step more.

    Parameters
    ----------
    graph : TimeGraph
        The process.
    state, action : sequence of str
        What is conditioned on and what is set.
    hidden : sequence of str
        Variables that are not recorded.
    """

    def __init__(self, graph: TimeGraph, *, state: Sequence[str], action: Sequence[str], hidden: Sequence[str]) -> None:
        self.state, self.action, self.hidden = tuple(state), tuple(action), tuple(hidden)
        # a path between two steps can stay among hidden variables for as many steps as there are of them
        self.k = max(1, graph.largest_lag) * (len(hidden) + 1)
        self.graph = graph.with_latent(hidden).unroll(self.k + 2)
        self.now, self.after = self.nodes(state, self.k), self.nodes(state, self.k + 1)
        self.done = self.nodes(action, self.k)

    @staticmethod
    def nodes(names: Iterable[str], time: int) -> list[str]:
        """Return variables at a time."""
        return [at(name, time) for name in names]

    @cached_property
    def composes(self) -> bool:
        """Whether one step's law under an action serves for all steps, however earlier actions came about."""
        steps = range(self.k + 1)
        every = [node for t in range(self.k + 3) for node in self.nodes(self.action, t)]
        past = [node for t in steps for node in self.nodes((*self.state, *self.action), t)]
        later = self.nodes(self.state, self.k + 2)
        known = [*self.after, *self.nodes(self.action, self.k + 1)]
        if not self.graph.do(every).d_separated(later, past, given=known):
            return False
        chosen = [(f"policy_of_{a}[{t}]", at(a, t)) for a in self.action for t in range(self.k)]
        if not chosen:
            return True
        names = [*self.graph.order, *(policy for policy, _ in chosen)]
        graph = CausalGraph([*self.graph.edges, *chosen], self.graph.confounded, variables=names).do(self.done)
        return graph.d_separated(self.after, [policy for policy, _ in chosen], given=self.now)

    def adjusted(self, recorded: Sequence[str]) -> Unconfounded | Adjusted | None:
        """Return recorded variables, which the action does not change, that close all back doors, and none too many.

        If any do, those that are ancestors of state or action do (van der Zander, Textor and Liskiewicz 2014).
        """
        if not self.action:
            return Unconfounded()
        acting = self.graph.ancestors([*self.now, *self.done, *self.after])
        chosen = [name for name in self._unmoved(recorded) if at(name, self.k) in acting]
        if not self._closes(chosen):
            return None
        for name in reversed(chosen.copy()):
            less = [other for other in chosen if other != name]
            chosen = less if self._closes(less) else chosen
        return Adjusted(tuple(chosen)) if chosen else Unconfounded()

    def _closes(self, names: Sequence[str]) -> bool:
        given = [*self.now, *self.nodes(names, self.k)]
        return is_adjustment_set(self.graph, self.done, self.after, given=given)

    def front_door(self, recorded: Sequence[str]) -> FrontDoor | None:
        """Return the smallest set that meets the front-door criterion given the state."""
        moved = [name for name in recorded if name not in self._unmoved(recorded)]
        for chosen in subsets(moved):
            through = self.nodes(chosen, self.k)
            rest = self.graph.subgraph(name for name in self.graph.order if name not in through)
            if not rest.descendants(self.done).isdisjoint(self.after):
                continue
            unset, unmoved = self.graph.without_effects(self.done), self.graph.without_effects(through)
            if unset.d_separated(self.done, through, given=self.now) and unmoved.d_separated(
                through, self.after, given=[*self.now, *self.done]
            ):
                return FrontDoor(chosen)
        return None

    def instrumented(self, recorded: Sequence[str]) -> Instrumented | None:
        """Return recorded causes of the confounded actions that are joined to what follows in no other way."""
        unset = self.graph.without_effects(self.done)
        confounded = [
            name
            for name in self.action
            if not unset.d_separated(at(name, self.k), self.after, given=[*self.now, *self._others(name)])
        ]
        found = [name for name in self._unmoved(recorded) if self._is_instrument(name, confounded)]
        nodes = self.nodes(found, self.k)
        reached = all(self._moves(found, name) for name in confounded)
        if len(found) < len(confounded) or not reached or not confounded:
            return None
        if not unset.d_separated(nodes, self.after, given=self.now):
            return None
        return Instrumented(tuple(found), tuple(confounded))

    def _is_instrument(self, name: str, confounded: Sequence[str]) -> bool:
        node = at(name, self.k)
        treated = self.nodes(confounded, self.k)
        joined = self.graph.without_effects(node)
        return (
            self.graph.without_effects(self.done).d_separated(node, self.after, given=self.now)
            and joined.d_separated(node, self.done, given=self.now)
            and not self.graph.descendants(node).isdisjoint(treated)
        )

    def _moves(self, instruments: Sequence[str], action: str) -> bool:
        return any(at(action, self.k) in self.graph.descendants(at(name, self.k)) for name in instruments)

    def _others(self, action: str) -> list[str]:
        return self.nodes((name for name in self.action if name != action), self.k)

    def _unmoved(self, recorded: Sequence[str]) -> list[str]:
        moved = self.graph.descendants(self.done)
        return [name for name in recorded if at(name, self.k) not in moved]


def lasting(graph: TimeGraph, names: Sequence[str]) -> list[str]:
    """Return the variables that act on themselves later.

    Examples
    --------
    >>> lasting(TimeGraph([("b[t]", "b[t+1]"), ("b[t]", "s[t+1]")]), ["b", "s"])
    ['b']
    """
    lags = range(1, graph.largest_lag + 1)
    whole = graph.with_latent([]).unroll(max(1, graph.largest_lag))
    return [name for name in names if any((at(name, 0), at(name, t)) in whole.edges for t in lags)]


def subsets(names: Sequence[str], *, least: int = 0) -> Iterator[tuple[str, ...]]:
    """Yield the subsets with a number of names or more, small ones first.

    Examples
    --------
    >>> list(subsets(["a", "b"], least=1))
    [('a',), ('b',), ('a', 'b')]
    """
    return (chosen for size in range(least, len(names) + 1) for chosen in combinations(names, size))
