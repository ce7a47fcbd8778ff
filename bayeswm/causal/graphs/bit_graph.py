"""Graphs over numbered nodes in which a set of nodes is the bits of one integer: the arithmetic behind all queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_


def bits_of(mask: int) -> Iterator[int]:
    """Yield the numbers of the nodes in a set, in increasing order.

    Examples
    --------
    >>> list(bits_of(0b1101))
    [0, 2, 3]
    """
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def union(masks: Iterable[int]) -> int:
    """Return the union of sets.

    Examples
    --------
    >>> union([0b001, 0b100])
    5
    """
    return reduce(or_, masks, 0)


@dataclass(frozen=True)
class BitGraph:
    """Directed and bidirected edges over nodes 0, 1, ..., numbered in a topological order.

    Parameters
    ----------
    parents : tuple of int
        For each node the set of its parents.
    spouses : tuple of int
        For each node the set of nodes that share a hidden cause with it.
    children : tuple of int
        For each node the set of its children.

    Examples
    --------
    >>> chain = BitGraph.of([(0, 1), (1, 2)], [(0, 2)], size=3)
    >>> chain.ancestors(0b100), chain.district(0b100), chain.cut(into=0b010).ancestors(0b100)
    (7, 5, 6)
    """

    parents: tuple[int, ...]
    spouses: tuple[int, ...]
    children: tuple[int, ...]

    @classmethod
    def of(cls, edges: Iterable[tuple[int, int]], confounded: Iterable[tuple[int, int]], *, size: int) -> BitGraph:
        """Build from pairs of numbers."""
        parents, spouses = [0] * size, [0] * size
        for cause, effect in edges:
            parents[effect] |= 1 << cause
        for one, other in confounded:
            spouses[one] |= 1 << other
            spouses[other] |= 1 << one
        return cls._from_parents(parents, spouses)

    @classmethod
    def _from_parents(cls, parents: Sequence[int], spouses: Sequence[int]) -> BitGraph:
        children = [0] * len(parents)
        for node, causes in enumerate(parents):
            for cause in bits_of(causes):
                children[cause] |= 1 << node
        return cls(tuple(parents), tuple(spouses), tuple(children))

    @property
    def all(self) -> int:
        """The set of all nodes."""
        return (1 << len(self.parents)) - 1

    def parents_of(self, nodes: int) -> int:
        """Return all parents of the nodes."""
        return union(self.parents[i] for i in bits_of(nodes))

    def children_of(self, nodes: int) -> int:
        """Return all children of the nodes."""
        return union(self.children[i] for i in bits_of(nodes))

    def ancestors(self, nodes: int, *, within: int = -1) -> int:
        """Return the nodes with a directed path to one of these inside ``within``, these included."""
        return _closure(self.parents, nodes, within)

    def descendants(self, nodes: int, *, within: int = -1) -> int:
        """Return the nodes to which a directed path leads from one of these inside ``within``, these included."""
        return _closure(self.children, nodes, within)

    def district(self, nodes: int, *, within: int = -1) -> int:
        """Return the nodes joined to these by bidirected edges inside ``within``, these included."""
        return _closure(self.spouses, nodes, within)

    def districts(self, *, within: int = -1) -> Iterator[int]:
        """Yield the districts of the graph on ``within``."""
        left = self.all & within
        while left:
            found = self.district(left & -left, within=within)
            yield found
            left &= ~found

    def cut(self, *, into: int = 0, out_of: int = 0) -> BitGraph:
        """Return the graph without arrowheads at ``into`` and without directed edges out of ``out_of``."""
        size = range(len(self.parents))
        parents = [0 if into >> i & 1 else self.parents[i] & ~out_of for i in size]
        spouses = [0 if into >> i & 1 else self.spouses[i] & ~into for i in size]
        return self._from_parents(parents, spouses)

    def without(self, edges: Iterable[tuple[int, int]]) -> BitGraph:
        """Return the graph without some directed edges."""
        parents = list(self.parents)
        for cause, effect in edges:
            parents[effect] &= ~(1 << cause)
        return self._from_parents(parents, self.spouses)


def _closure(neighbours: Sequence[int], nodes: int, within: int) -> int:
    reached = new = nodes & within
    while new:
        new = union(neighbours[i] for i in bits_of(new)) & within & ~reached
        reached |= new
    return reached
