"""One mechanism for each variable of the state, with the parents that a graph gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.schema import Schema
from bayeswm.causal.confounding.log import Recipe
from bayeswm.causal.confounding.slices import Slices
from bayeswm.causal.confounding.strategies import FrontDoor, Instrumented
from bayeswm.causal.graphs.names import at
from bayeswm.causal.graphs.time_graph import TimeGraph
from bayeswm.causal.structural.learned import Learned
from bayeswm.causal.structural.mechanism import Mechanism
from bayeswm.causal.structural.model import StructuralModel

Given = DynamicsModel | Mechanism | Callable[[Schema], DynamicsModel]


def structural_of(graph: TimeGraph, recipe: Recipe, mechanisms: Given | Mapping[str, Given]) -> StructuralModel:
    """Return a model with one mechanism a variable, each of its parents in the graph and the hidden causes it shares.

    Parameters
    ----------
    graph : TimeGraph
        Who acts on whom.
    recipe : Recipe
        What the hidden causes are.
    mechanisms : DynamicsModel, callable or mapping
        What learns each variable (see :class:`bayeswm.causal.Learned`), one for all or by variable; known mechanisms
        stay as they are.

    Raises
    ------
    SpecError, UnknownVariableError
        For a variable without a mechanism, or two that share a hidden cause which the action has no part in: their
        noises would not be independent.
    """
    columns = recipe.public.state.names
    given = dict(mechanisms) if isinstance(mechanisms, Mapping) else dict.fromkeys(columns, mechanisms)
    for name in (*given, *columns):
        if name not in columns:
            raise UnknownVariableError.of(name, columns)
        if name not in given:
            raise SpecError(f"expected a mechanism for each variable of the state, got none for {name!r}")
    known = {*columns, *recipe.public.action.names, *recipe.needed}
    hidden = [name for name in graph.with_latent([]).variables if name not in known]
    seen = Slices(graph, state=columns, action=recipe.public.action.names, hidden=hidden)
    shared = {name: _shares(seen, name) for name in columns}
    for one, other in combinations(columns, 2):
        pair = {at(one, seen.k + 1), at(other, seen.k + 1)}
        if any(pair == set(p) for p in seen.graph.confounded) and not (shared[one] and shared[other]):
            raise SpecError(
                f"expected no hidden cause of both {one} and {other}, whose mechanisms would not be independent; "
                "give one model of all variables as dynamics="
            )
    found: dict[str, Mechanism | Learned] = {}
    for name, mechanism in given.items():
        if isinstance(mechanism, Mechanism):
            found[name] = mechanism
        else:
            found[name] = Learned(mechanism, parents=_parents(graph, recipe, name, shared=shared[name]))
    return StructuralModel(found, schema=recipe.inner)


def _shares(seen: Slices, name: str) -> tuple[str, ...]:
    """Return the actions that share a hidden cause with the next value of a variable."""
    node = at(name, seen.k + 1)
    return tuple(a for a in seen.action if any({at(a, seen.k), node} == set(p) for p in seen.graph.confounded))


def _parents(graph: TimeGraph, recipe: Recipe, name: str, *, shared: tuple[str, ...]) -> tuple[str, ...]:
    """Return the causes of a variable by their names in a slice of the model of outcomes."""
    inner = recipe.inner
    now = {cause.removesuffix("[t]") for cause, effect in graph.edges if effect == f"{name}[t]" and "-" not in cause}
    before = {
        cause.removesuffix("[t-1]") for cause, effect in graph.edges if effect == f"{name}[t]" and "[t-1]" in cause
    }
    parents = [v for v in inner.state.names if v in now]
    parents += [f"{v}[t-1]" for v in inner.state.names if v in before]
    parents += [v for v in inner.action.names if v in before]
    parents += recipe.public.context.names
    for cause in recipe.causes.names:
        match recipe.strategy:
            case FrontDoor():
                takes_part = cause.removesuffix("_logged") in shared
            case Instrumented():
                takes_part = cause.removesuffix("_residual") in shared
            case _:
                takes_part = cause in before
        parents += [cause] if takes_part else []
    return tuple(parents)
