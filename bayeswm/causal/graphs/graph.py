"""Causal graphs of one slice: who acts on whom, and which variables share causes that nobody recorded."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import combinations
from typing import Any

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal.graphs.bit_graph import BitGraph, bits_of
from bayeswm.causal.graphs.names import as_names, as_pairs, name_and_time
from bayeswm.causal.graphs.order import topological
from bayeswm.causal.graphs.projection import projected
from bayeswm.causal.graphs.separation import moral_neighbours, separated


class CausalGraph:
    """An acyclic graph of direct causes, with bidirected edges for causes that two variables share and nobody recorded.

    Parameters
    ----------
    edges : iterable of (str, str)
        Pairs (cause, effect).
    confounded : iterable of (str, str)
        Pairs with a hidden common cause, in any order.
    latent : iterable of str
        Names in ``edges`` that are not recorded. They are projected out: what they do to the others becomes edges and
        confounded pairs of these.
    variables : iterable of str
        Names in the order in which they should be listed, and names without edges. Where given, no others are allowed.

    Raises
    ------
    SpecError
        If there is a cycle, which is named, or an edge that is not a pair of different names.
    UnknownVariableError
        If ``variables`` lacks a name, with the closest ones.

    Notes
    -----
    Methods take one name or several. Ancestors and descendants of a variable include itself.

    References
    ----------
    Pearl (2009), Causality, 2nd edition.

    Examples
    --------
    A push and a change of speed, which the slope of the ground (not recorded) both depend on:

    >>> graph = CausalGraph([("speed", "push"), ("speed", "next"), ("push", "next")], confounded=[("push", "next")])
    >>> graph
    CausalGraph(speed -> push, speed -> next, push -> next, push <-> next)
    >>> graph == CausalGraph([*graph.edges, ("slope", "push"), ("slope", "next")], latent=["slope"])
    True
    >>> sorted(graph.parents("next")), graph.d_separated("speed", "next", given="push")
    (['push', 'speed'], False)
    """

    def __init__(
        self,
        edges: Iterable[tuple[str, str]] = (),
        confounded: Iterable[tuple[str, str]] = (),
        *,
        latent: Iterable[str] = (),
        variables: Iterable[str] = (),
    ) -> None:
        directed, paired = as_pairs(edges, what="edges"), as_pairs(confounded, what="confounded")
        latent, listed = as_names(latent), as_names(variables)
        mentioned = dict.fromkeys(name for pair in (*directed, *paired) for name in pair)
        if listed and (unknown := [name for name in (*mentioned, *latent) if name not in listed]):
            raise UnknownVariableError.of(unknown[0], listed)
        if unknown := [name for name in latent if name not in (listed or mentioned)]:
            raise UnknownVariableError.of(unknown[0], mentioned)
        names = listed or tuple(mentioned)
        for name in names:
            name_and_time(name)
        for one, other in paired:
            if one == other:
                raise SpecError(f"expected confounded pairs of different names, got ({one!r}, {one!r}); leave it out")
        if latent:
            whole = CausalGraph(directed, paired, variables=names)
            seen = whole.project(name for name in names if name not in latent)
            self._order, self._bits = seen._order, seen._bits
            return
        self._order = topological(names, directed)
        number = {name: i for i, name in enumerate(self._order)}
        arrows, arcs = ([(number[a], number[b]) for a, b in pairs] for pairs in (directed, paired))
        self._bits = BitGraph.of(arrows, arcs, size=len(names))

    @property
    def order(self) -> tuple[str, ...]:
        """All names in a topological order: causes before effects."""
        return self._order

    @property
    def bits(self) -> BitGraph:
        """The same graph over the numbers of the nodes in :attr:`order`."""
        return self._bits

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """Pairs (cause, effect)."""
        return tuple(
            (name, self._order[j]) for i, name in enumerate(self._order) for j in bits_of(self._bits.children[i])
        )

    @cached_property
    def confounded(self) -> tuple[tuple[str, str], ...]:
        """Pairs with a hidden common cause."""
        spouses = self._bits.spouses
        return tuple((name, self._order[j]) for i, name in enumerate(self._order) for j in bits_of(spouses[i]) if i < j)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._order)}

    def mask(self, names: str | Iterable[str]) -> int:
        """Return names as a set of numbers, one bit for each.

        Raises
        ------
        UnknownVariableError
            With the closest names.
        """
        mask = 0
        for name in as_names(names):
            if name not in self._numbers:
                raise UnknownVariableError.of(str(name), self._order)
            mask |= 1 << self._numbers[name]
        return mask

    def disjoint_masks(self, **sets: str | Iterable[str]) -> tuple[int, ...]:
        """Return several sets of names as sets of numbers.

        Raises
        ------
        SpecError
            If two of them overlap.
        UnknownVariableError
            With the closest names.
        """
        masks = {called: self.mask(names) for called, names in sets.items()}
        for (a, one), (b, other) in combinations(masks.items(), 2):
            if one & other:
                both = ", ".join(self.names(one & other))
                raise SpecError(f"expected sets without common variables, got {both} in {a} and in {b}")
        return tuple(masks.values())

    def names(self, mask: int) -> tuple[str, ...]:
        """Return a set of numbers as names in topological order."""
        return tuple(self._order[i] for i in bits_of(mask))

    def parents(self, names: str | Iterable[str]) -> frozenset[str]:
        """Return the direct causes."""
        return frozenset(self.names(self._bits.parents_of(self.mask(names))))

    def children(self, names: str | Iterable[str]) -> frozenset[str]:
        """Return the direct effects."""
        return frozenset(self.names(self._bits.children_of(self.mask(names))))

    def ancestors(self, names: str | Iterable[str]) -> frozenset[str]:
        """Return these and all that act on them, directly or not."""
        return frozenset(self.names(self._bits.ancestors(self.mask(names))))

    def descendants(self, names: str | Iterable[str]) -> frozenset[str]:
        """Return these and all that they act on, directly or not."""
        return frozenset(self.names(self._bits.descendants(self.mask(names))))

    def district(self, name: str) -> frozenset[str]:
        """Return all that bidirected edges join to a variable, itself included: its c-component."""
        return frozenset(self.names(self._bits.district(self.mask(name))))

    @property
    def districts(self) -> tuple[frozenset[str], ...]:
        """The c-components: sets joined by bidirected edges."""
        return tuple(frozenset(self.names(district)) for district in self._bits.districts())

    def d_separated(self, x: str | Iterable[str], y: str | Iterable[str], *, given: str | Iterable[str] = ()) -> bool:
        """Return whether ``given`` blocks every path between two sets, so that they are independent given it.

        With bidirected edges this is m-separation, which is d-separation with the hidden causes written out.

        Raises
        ------
        SpecError
            If the sets overlap.
        """
        one, other, known = self.disjoint_masks(x=x, y=y, given=given)
        return separated(self._bits, one, other, given=known)

    def moralised(self) -> dict[str, frozenset[str]]:
        """Return each variable's neighbours in the moral graph, in which districts and their parents are joined."""
        found = moral_neighbours(self._bits)
        return {name: frozenset(self.names(beside)) for name, beside in zip(self._order, found, strict=True)}

    def do(self, names: str | Iterable[str]) -> CausalGraph:
        """Return the graph after an intervention: nothing acts on these variables any more."""
        return self._with(self._bits.cut(into=self.mask(names)))

    def without_effects(self, names: str | Iterable[str]) -> CausalGraph:
        """Return the graph in which these variables act on nothing."""
        return self._with(self._bits.cut(out_of=self.mask(names)))

    def subgraph(self, names: str | Iterable[str]) -> CausalGraph:
        """Return the graph with these variables and the edges between them only."""
        keep = set(self.names(self.mask(names)))
        return CausalGraph(
            [edge for edge in self.edges if keep.issuperset(edge)],
            [pair for pair in self.confounded if keep.issuperset(pair)],
            variables=[name for name in self._order if name in keep],
        )

    def ancestral(self, names: str | Iterable[str]) -> CausalGraph:
        """Return the graph with these variables and their ancestors only."""
        return self.subgraph(self.ancestors(names))

    def project(self, names: str | Iterable[str]) -> CausalGraph:
        """Return the graph of these variables when the others are not recorded, by latent projection."""
        keep = self.mask(names)
        edges, pairs = ([(self._order[i], self._order[j]) for i, j in kind] for kind in projected(self._bits, keep))
        return CausalGraph(edges, pairs, variables=self.names(keep))

    def to_networkx(self) -> Any:
        """Return a ``networkx.DiGraph``, with the confounded pairs in its attribute ``graph["confounded"]``."""
        import networkx as nx

        found = nx.DiGraph(confounded=list(self.confounded))
        found.add_nodes_from(self._order)
        found.add_edges_from(self.edges)
        return found

    @classmethod
    def from_networkx(cls, graph: Any) -> CausalGraph:
        """Build from a ``networkx.DiGraph``, with confounded pairs from ``graph.graph["confounded"]`` if it is there.

        Raises
        ------
        SpecError
            If the graph is not directed.
        """
        if not graph.is_directed():
            raise SpecError(f"expected a directed graph such as networkx.DiGraph, got {type(graph).__name__}")
        return cls(graph.edges(), graph.graph.get("confounded", ()), variables=graph.nodes())

    def _with(self, bits: BitGraph) -> CausalGraph:
        found = object.__new__(CausalGraph)
        found._order, found._bits = self._order, bits
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalGraph):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[frozenset[str], frozenset[tuple[str, str]], frozenset[frozenset[str]]]:
        return frozenset(self._order), frozenset(self.edges), frozenset(map(frozenset, self.confounded))

    def __repr__(self) -> str:
        alone = [name for i, name in enumerate(self._order) if not self._touches(i)]
        parts = [f"{a} -> {b}" for a, b in self.edges] + [f"{a} <-> {b}" for a, b in self.confounded]
        return f"CausalGraph({', '.join([*parts, *alone])})"

    def _touches(self, i: int) -> int:
        return self._bits.parents[i] | self._bits.children[i] | self._bits.spouses[i]
