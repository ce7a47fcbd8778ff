"""Which way a graph and a log allow to tell an action's effect from what it shares causes with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import combinations

from bayeswm.base.errors import UnknownVariableError
from bayeswm.causal.adjustment import is_adjustment_set
from bayeswm.causal.confounding.strategies import (
    Adjusted,
    FrontDoor,
    Instrumented,
    Persistent,
    Proxied,
    Strategy,
    Unconfounded,
    Unidentified,
)
from bayeswm.causal.confounding.why_not import reason
from bayeswm.causal.graph import CausalGraph
from bayeswm.causal.names import at
from bayeswm.causal.time_graph import TimeGraph


def choose_strategy(
    graph: TimeGraph, *, state: Sequence[str], action: Sequence[str], recorded: Sequence[str] = ()
) -> Strategy:
    """Return the first way that is valid: adjustment, front door, instrument, measurements, causes of an episode.

    The question is the law of the next state given this one under an action that is set, ``p(s' | s, do(a))``, and that
    it may be composed over steps: given the state and the action, what follows must not depend on the past, neither
    when all actions are set nor on how those of the log were chosen.

    Parameters
    ----------
    graph : TimeGraph
        What is known of causes. Variables that are neither state, action nor recorded count as hidden.
    state, action : sequence of str
        Variables of the system.
    recorded : sequence of str
        Further variables that the log holds.

    Returns
    -------
    Unconfounded, Adjusted, FrontDoor, Instrumented, Proxied, Persistent or Unidentified

    Raises
    ------
    UnknownVariableError
        If the graph does not mention a variable of the state or an action.

    References
    ----------
    Shpitser, VanderWeele and Robins (2010), On the validity of covariate adjustment. Pearl (1995), Causal diagrams for
    empirical research. Imbens and Newey (2009), Identification and estimation of triangular simultaneous equations
    models.

    Examples
    --------
    >>> edges = [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("s[t]", "a[t]"), ("e[t]", "a[t]"), ("e[t]", "s[t+1]")]
    >>> graph = TimeGraph([*edges, ("nu[t]", "a[t]")])
    >>> for recorded in (["e", "nu"], ["nu"]):
    ...     print(choose_strategy(graph, state=["s"], action=["a"], recorded=recorded))
    adjusted for (e)
    instrument (nu) for (a)
    """
    names = graph.with_latent([]).variables
    for name in (*state, *action, *recorded):
        if name not in names:
            raise UnknownVariableError.of(name, names)
    hidden = [name for name in names if name not in {*state, *action, *recorded}]
    why = partial(reason, graph, state=state, action=action, recorded=recorded)
    seen = Slices(graph, state=state, action=action, hidden=hidden)
    if not seen.composes:
        return _persistent(graph, seen) or Unidentified(why(composes=False))
    ways = (seen.adjusted, seen.front_door, seen.instrumented)
    for way in ways:
        found = way(recorded)
        if found is not None:
            return found
    return _proxied(graph, seen, recorded) or Unidentified(why(composes=True))


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
        for chosen in _subsets(moved):
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


def _proxied(graph: TimeGraph, seen: Slices, recorded: Sequence[str]) -> Proxied | None:
    """Return a hidden variable that would close all back doors and was measured with independent errors."""
    for name in seen.hidden:
        rest = [other for other in seen.hidden if other != name]
        shown = Slices(graph, state=seen.state, action=seen.action, hidden=rest)
        if shown.adjusted([name]) != Adjusted((name,)):
            continue
        known = [*shown.now, *shown.done, *shown.after]
        cause = at(name, shown.k)
        proxies = [
            proxy
            for proxy in recorded
            if (cause, at(proxy, shown.k)) in shown.graph.edges
            and shown.graph.d_separated(at(proxy, shown.k), known, given=cause)
        ]
        nodes = shown.nodes(proxies, shown.k)
        apart = all(shown.graph.d_separated(one, other, given=cause) for one, other in combinations(nodes, 2))
        if proxies and apart and shown.graph.d_separated(nodes, known, given=cause):
            return Proxied(name, tuple(proxies))
    return None


def _persistent(graph: TimeGraph, seen: Slices) -> Persistent | None:
    """Return hidden variables that last, given which nothing else is confounded."""
    once = graph.with_latent([]).unroll(max(1, graph.largest_lag))
    lasting = [
        name
        for name in seen.hidden
        if any((at(name, 0), at(name, t)) in once.edges for t in range(1, graph.largest_lag + 1))
    ]
    for chosen in _subsets(lasting, least=1):
        rest = [name for name in seen.hidden if name not in chosen]
        shown = Slices(graph, state=(*seen.state, *chosen), action=seen.action, hidden=rest)
        if shown.composes and shown.adjusted(()) == Unconfounded():
            return Persistent(chosen)
    return None


def _subsets(names: Sequence[str], *, least: int = 0) -> Iterator[tuple[str, ...]]:
    return (chosen for size in range(least, len(names) + 1) for chosen in combinations(names, size))
