"""Small discrete models of a graph with their exact laws, by enumeration of all variables and hidden causes."""

import string
from dataclasses import dataclass

import numpy as np

from bayeswm.causal import CausalGraph


@dataclass(frozen=True)
class DiscreteModel:
    """Mechanisms as tables: for each hidden cause its law, for each variable its law over the values of its causes."""

    order: tuple[str, ...]
    tables: dict[str, tuple[tuple[str, ...], np.ndarray]]

    def law(self, do=()):
        """Joint law of the variables, axes in their order; along those of `do` it is a function, not a law."""
        names = list(self.tables)
        letter = dict(zip(names, string.ascii_letters, strict=False))
        used = [(axes, table) for name, (axes, table) in self.tables.items() if name not in do]
        sizes = {axis: n for axes, table in self.tables.values() for axis, n in zip(axes, table.shape, strict=True)}
        used += [((name,), np.ones(sizes[name])) for name in do]
        spec = ",".join("".join(letter[axis] for axis in axes) for axes, _ in used)
        out = "".join(letter[name] for name in self.order)
        return np.einsum(f"{spec}->{out}", *(table for _, table in used), optimize="greedy")

    def effect(self, outcome, do, given=()):
        """P(outcome | do, given) with axes (*do, *given, *outcome)."""
        kept = (*do, *given, *outcome)
        law = self.law(do)
        law = law.sum(tuple(i for i, name in enumerate(self.order) if name not in kept))
        left = [name for name in self.order if name in kept]
        law = law.transpose([left.index(name) for name in kept])
        return law / law.sum(tuple(range(len(kept) - len(outcome), len(kept))), keepdims=True)


def random_model(graph: CausalGraph, rng: np.random.Generator, *, values=2) -> DiscreteModel:
    """A model of the graph with random tables; each bidirected edge is a hidden cause with two or three values."""
    hidden = {pair: f"u{i}" for i, pair in enumerate(graph.confounded)}
    tables = {}
    sizes = dict.fromkeys(graph.order, values)
    for name in hidden.values():
        sizes[name] = int(rng.integers(2, 4))
        tables[name] = ((name,), rng.dirichlet(np.full(sizes[name], 2.0)))
    for name in graph.order:
        causes = (*sorted(graph.parents(name)), *(u for pair, u in hidden.items() if name in pair))
        table = rng.dirichlet(np.full(sizes[name], 0.7), size=[sizes[cause] for cause in causes])
        table = 0.9 * table + 0.1 / sizes[name]
        tables[name] = ((*causes, name), table)
    return DiscreteModel(graph.order, tables)


def random_graph(rng: np.random.Generator, nodes: int, *, edges=0.5, confounded=0.3) -> CausalGraph:
    """A random graph over V0, V1, ..., in which edges go from lower to higher numbers of a random order."""
    names = [f"V{i}" for i in rng.permutation(nodes)]
    pairs = [(a, b) for j, b in enumerate(names) for a in names[:j]]
    return CausalGraph(
        [pair for pair in pairs if rng.random() < edges],
        [pair for pair in pairs if rng.random() < confounded],
        variables=names,
    )


def random_query(graph: CausalGraph, rng: np.random.Generator, *, conditions=0):
    """Outcome, interventions and conditions: disjoint, the outcome last in order among two at least."""
    nodes = list(rng.permutation(graph.order))
    many = 1 + int(rng.random() < 0.3 and len(nodes) > 3 + conditions)
    do, rest = nodes[:many], nodes[many:]
    given, rest = rest[:conditions], rest[conditions:]
    last = max(rest, key=graph.order.index)
    outcome = [last, *[name for name in rest if name != last and rng.random() < 0.2]]
    return tuple(map(str, outcome)), tuple(map(str, do)), tuple(map(str, given))
