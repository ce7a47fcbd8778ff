"""A topological order of names, or the cycle that forbids one."""

from __future__ import annotations

from collections.abc import Sequence

from bayeswm.base.errors import SpecError


def topological(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the names with causes before effects, otherwise in the order given.

    Raises
    ------
    SpecError
        If there is a cycle, which is named.

    Examples
    --------
    >>> topological(["c", "a", "b"], [("b", "c")])
    ('a', 'b', 'c')
    """
    waiting: dict[str, set[str]] = {name: set() for name in names}
    for cause, effect in edges:
        waiting[effect].add(cause)
    order: list[str] = []
    while waiting:
        free = next((name for name, causes in waiting.items() if not causes), None)
        if free is None:
            raise SpecError(f"expected a graph without cycles, got {_cycle(waiting)}; drop an edge, or add time")
        order.append(free)
        del waiting[free]
        for causes in waiting.values():
            causes.discard(free)
    return tuple(order)


def _cycle(causes: dict[str, set[str]]) -> str:
    """Follow causes until one comes up twice: everything left has a cause that is left."""
    path = [next(iter(causes))]
    while (cause := min(causes[path[-1]])) not in path:
        path.append(cause)
    return " -> ".join([cause, *reversed(path[path.index(cause) :])])
