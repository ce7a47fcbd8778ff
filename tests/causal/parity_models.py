"""Two models from a hedge that agree on all that is observed and differ in the effect.

Shpitser and Pearl (2006), theorem 4: along the larger forest every variable is the parity of its forest parents and of
the fair coins on its forest's bidirected edges. In the second model the smaller forest ignores all that lies outside
it. The parity of the roots is even in both, and under the intervention in the second only. Here

* a root has a further unfair coin, the same in both models, so that no probability is zero;
* a variable that carries the parity from the roots to the outcome does so in a bit of its own, for it may also be a
  part of the hedge.
"""

import itertools

import numpy as np

from bayeswm.causal import CausalGraph, Hedge
from tests.causal.discrete_models import DiscreteModel

COIN = 0.2  # how often the noise of a root or a carrier turns a bit


def parity_models(graph: CausalGraph, hedge: Hedge, outcome, do) -> tuple[DiscreteModel, DiscreteModel]:
    carriers = carrying_edges(graph, hedge, outcome, do)
    return tuple(_parity_model(graph, hedge, carriers, second=second) for second in (False, True))


def carrying_edges(graph, hedge, outcome, do):
    """For each root, and each variable on the way, one edge towards the outcome that avoids the intervention."""
    towards, done = {}, set(outcome)
    free = [name for name in graph.order if name not in do]
    while new := [(a, b) for a, b in graph.edges if a in free and b in done and a not in done]:
        towards |= dict(new)
        done |= {a for a, _ in new}
    edges, waiting = set(), [root for root in hedge.roots if root not in outcome]
    while waiting:
        name = waiting.pop()
        edges.add((name, towards[name]))
        if towards[name] not in outcome:
            waiting.append(towards[name])
    return edges


def _parity_model(graph, hedge, carriers, *, second):
    hidden = {pair: f"u{i}" for i, pair in enumerate(hedge.confounded)}
    tables = {u: ((u,), np.full(2, 0.5)) for u in hidden.values()}
    carrying = {effect for _, effect in carriers}
    size = {name: 4 if name in carrying and name in hedge.larger else 2 for name in graph.order}
    size |= {name: 1 for name in graph.order if name not in carrying and name not in hedge.larger}
    for name in graph.order:
        inner = second and name in hedge.smaller
        parents = [a for a, b in hedge.edges if b == name and not (inner and a not in hedge.smaller)]
        coins = [
            u for pair, u in hidden.items() if name in pair and not (inner and not set(pair) <= set(hedge.smaller))
        ]
        sources = [a for a, b in carriers if b == name]
        causes = tuple(dict.fromkeys([*parents, *sources, *coins]))
        sizes = [size.get(cause, 2) for cause in causes]
        table = np.zeros([*sizes, size[name]])
        for values in itertools.product(*(range(n) for n in sizes)):
            value = dict(zip(causes, values, strict=True))
            own = sum(value[cause] % 2 for cause in [*parents, *coins]) % 2
            passed = sum(_carried(value[a], a, hedge, carrying) for a in sources) % 2
            own_law = [1.0] if name not in hedge.larger else _bit(own, COIN if name == hedge.roots[0] else 0.0)
            carried_law = _bit(passed, COIN) if name in carrying else [1.0]
            # the bit of the hedge is the lower one
            table[values] = np.outer(carried_law, own_law).ravel()
        tables[name] = ((*causes, name), table)
    return DiscreteModel(graph.order, tables)


def _bit(value, turned):
    return [1 - turned, turned] if value == 0 else [turned, 1 - turned]


def _carried(value, name, hedge, carrying):
    """What a variable passes on: its carried bit, and its own where it is a root."""
    own = value % 2 if name in hedge.roots else 0
    upper = value // 2 if name in hedge.larger else value
    return own + (upper if name in carrying else 0)
