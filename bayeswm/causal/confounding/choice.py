"""Which way a graph and a log allow to tell an action's effect from what it shares causes with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations

from bayeswm.base.errors import UnknownVariableError
from bayeswm.base.schema import Schema, Variables
from bayeswm.causal.confounding.log import same_but
from bayeswm.causal.confounding.slices import Slices, lasting, subsets
from bayeswm.causal.confounding.strategies import (
    Adjusted,
    Persistent,
    Proxied,
    Strategy,
    Unconfounded,
    Unidentified,
)
from bayeswm.causal.confounding.why_not import reason
from bayeswm.causal.graphs.names import at
from bayeswm.causal.graphs.time_graph import TimeGraph


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
    for chosen in subsets(lasting(graph, seen.hidden), least=1):
        rest = [name for name in seen.hidden if name not in chosen]
        shown = Slices(graph, state=(*seen.state, *chosen), action=seen.action, hidden=rest)
        if shown.composes and shown.adjusted(()) == Unconfounded():
            return Persistent(chosen)
    return None


def plan_for(graph: TimeGraph, schema: Schema) -> tuple[Strategy, Schema]:
    """Return the way for a log's variables, and the schema of the model: without context that the graph names.

    Examples
    --------
    >>> from bayeswm.base.schema import Variable
    >>> graph = TimeGraph([("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("e[t]", "a[t]"), ("e[t]", "s[t+1]")])
    >>> log = Schema(state=[Variable("s")], action=[Variable("a")], context=[Variable("e")], time_step=1.0)
    >>> strategy, public = plan_for(graph, log)
    >>> strategy, public.context.names
    (Adjusted(by=('e',)), ())
    """
    names = graph.with_latent([]).variables
    recorded = [v.name for v in schema.context if v.name in names]
    strategy = choose_strategy(graph, state=schema.state.names, action=schema.action.names, recorded=recorded)
    return strategy, same_but(schema, context=Variables(v for v in schema.context if v.name not in recorded))
