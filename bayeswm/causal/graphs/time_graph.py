"""Causal graphs that repeat in time: edges between variables a fixed number of steps apart."""

from __future__ import annotations

from collections.abc import Iterable

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import as_names, as_pairs, at, name_and_lag, name_and_time
from bayeswm.causal.graphs.order import topological


class TimeGraph:
    """The graph of a process: each edge is written once, relative to a time t, and holds at all times.

    Parameters
    ----------
    edges : iterable of (str, str)
        Pairs (cause, effect) such as ``("s[t-1]", "s[t]")``. Only the distance counts: ``("s[t]", "s[t+1]")`` is the
        same.
    confounded : iterable of (str, str)
        Pairs with a hidden common cause of their own at each t: ``("a[t]", "s[t+1]")``.
    latent : iterable of str
        Variables that are not recorded. What lasts longer than a step belongs here: a payload ``u`` with the edge
        ``("u[t]", "u[t+1]")`` confounds all steps with each other.
    variables : iterable of str
        Variables to have even if they have no edges.

    Raises
    ------
    SpecError
        If an effect comes before its cause, or the edges within one time have a cycle, which is named.
    UnknownVariableError
        If ``latent`` names a variable without edges.

    Examples
    --------
    >>> graph = TimeGraph([("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("s[t]", "a[t]")], confounded=[("a[t]", "s[t+1]")])
    >>> graph
    TimeGraph(s[t-1] -> s[t], a[t-1] -> s[t], s[t] -> a[t], a[t-1] <-> s[t])
    >>> graph.unroll(1)
    CausalGraph(s[0] -> a[0], s[0] -> s[1], a[0] -> s[1], s[1] -> a[1], a[0] <-> s[1])
    """

    def __init__(
        self,
        edges: Iterable[tuple[str, str]] = (),
        confounded: Iterable[tuple[str, str]] = (),
        *,
        latent: Iterable[str] = (),
        variables: Iterable[str] = (),
    ) -> None:
        self._edges = dict.fromkeys(_lagged(cause, effect) for cause, effect in as_pairs(edges, what="edges"))
        self._confounded = dict.fromkeys(
            _lagged(*_earlier_first(pair)) for pair in as_pairs(confounded, what="confounded")
        )
        touched = [name for a, b, _ in (*self._edges, *self._confounded) for name in (a, b)]
        names = dict.fromkeys((*touched, *as_names(variables)))
        self._latent = as_names(latent)
        if unknown := [name for name in self._latent if name not in names]:
            raise UnknownVariableError.of(unknown[0], names)
        for a, b, lag in self._confounded:
            if a == b and lag == 0:
                raise SpecError(f"expected confounded pairs of different nodes, got {a}[t] twice; leave it out")
        self._variables = topological(tuple(names), [(a, b) for a, b, lag in self._edges if lag == 0])

    @property
    def variables(self) -> tuple[str, ...]:
        """The recorded variables, causes within a slice before their effects."""
        return tuple(name for name in self._variables if name not in self._latent)

    @property
    def largest_lag(self) -> int:
        """How many steps the longest edge spans."""
        return max((lag for _, _, lag in (*self._edges, *self._confounded)), default=0)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs (cause, effect), relative to the time t of the effect."""
        return tuple((_relative(a, lag), _relative(b, 0)) for a, b, lag in self._edges)

    @property
    def confounded(self) -> tuple[tuple[str, str], ...]:
        """Pairs with a hidden common cause, relative to the time t of the later one."""
        return tuple((_relative(a, lag), _relative(b, 0)) for a, b, lag in self._confounded)

    @property
    def latent(self) -> tuple[str, ...]:
        """The variables that are not recorded."""
        return self._latent

    def with_latent(self, names: Iterable[str]) -> TimeGraph:
        """Return the same process with these variables not recorded, and all others recorded.

        Raises
        ------
        UnknownVariableError
            With the closest names.

        Examples
        --------
        >>> TimeGraph([("e[t]", "s[t+1]"), ("e[t]", "a[t]")], latent=["e"]).with_latent([]).variables
        ('e', 's', 'a')
        """
        names = as_names(names)
        if unknown := [name for name in names if name not in self._variables]:
            raise UnknownVariableError.of(unknown[0], self._variables)
        found = object.__new__(TimeGraph)
        found._edges, found._confounded, found._latent = self._edges, self._confounded, names
        found._variables = self._variables
        return found

    def unroll(self, horizon: int) -> CausalGraph:
        """Return the graph of the slices 0..horizon, with nodes such as ``s[2]``.

        The process starts at time 0: nothing acted on it before. Where records begin later than the process, unroll
        further and leave the earlier slices out by :meth:`CausalGraph.project`.

        Parameters
        ----------
        horizon : int
            Number of steps; a horizon of 0 is one slice.

        Raises
        ------
        SpecError
            If the horizon is negative or no integer.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 0:
            raise SpecError(f"expected a horizon of 0, 1, 2, ... steps, got {horizon!r}")
        pairs = [
            [(at(a, t - lag), at(b, t)) for t in range(horizon + 1) for a, b, lag in kept if t >= lag]
            for kept in (self._edges, self._confounded)
        ]
        nodes = [at(name, t) for t in range(horizon + 1) for name in self._variables]
        hidden = [node for node in nodes if name_and_time(node)[0] in self._latent]
        return CausalGraph(pairs[0], pairs[1], latent=hidden, variables=nodes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TimeGraph):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[frozenset[object], ...]:
        pairs = frozenset((frozenset((a, b)), 0) if lag == 0 else (a, b, lag) for a, b, lag in self._confounded)
        return frozenset(self._edges), pairs, frozenset(self._latent), frozenset(self._variables)

    def __repr__(self) -> str:
        kinds = (("->", self.edges), ("<->", self.confounded))
        parts = [f"{a} {arrow} {b}" for arrow, kept in kinds for a, b in kept]
        hidden = [f"latent {name}" for name in self._latent]
        touched = {name for a, b, _ in (*self._edges, *self._confounded) for name in (a, b)}
        alone = [name for name in self._variables if name not in touched]
        return f"TimeGraph({', '.join(parts + hidden + alone)})"


def _lagged(cause: str, effect: str) -> tuple[str, str, int]:
    (a, start), (b, end) = name_and_lag(cause), name_and_lag(effect)
    if end < start:
        raise SpecError(
            f"expected a cause before its effect, got {cause} -> {effect}; turn it round or correct the times"
        )
    return a, b, end - start


def _relative(name: str, lag: int) -> str:
    return f"{name}[t-{lag}]" if lag else f"{name}[t]"


def _earlier_first(pair: tuple[str, str]) -> tuple[str, str]:
    one, other = pair
    return (one, other) if name_and_lag(one)[1] <= name_and_lag(other)[1] else (other, one)
