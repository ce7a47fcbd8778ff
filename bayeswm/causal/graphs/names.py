"""How nodes of causal graphs are written: `speed`, `speed[2]` at a time, `speed[t-1]` relative to a time."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bayeswm.base.errors import SpecError

_NODE = re.compile(r"([^\W\d]\w*)(?:\[(-?\d+)\])?")
_LAGGED = re.compile(r"([^\W\d]\w*)\[t(?: ?([+-]) ?(\d+))?\]")


def at(name: str, time: int) -> str:
    """Return the node of a variable at a time.

    Examples
    --------
    >>> at("speed", 2)
    'speed[2]'
    """
    return f"{name}[{time}]"


def name_and_time(node: str) -> tuple[str, int | None]:
    """Return the variable and the time of a node; the time is None where the node has none.

    Raises
    ------
    SpecError
        If this is not how a node is written.

    Examples
    --------
    >>> name_and_time("speed[2]"), name_and_time("speed")
    (('speed', 2), ('speed', None))
    """
    found = _NODE.fullmatch(node) if isinstance(node, str) else None
    if found is None:
        raise SpecError(f"expected a node such as 'speed' or, at a time, 'speed[2]', got {node!r}")
    return found[1], None if found[2] is None else int(found[2])


def name_and_lag(node: str) -> tuple[str, int]:
    """Return the variable of a node relative to time t, and its time minus t.

    Raises
    ------
    SpecError
        If this is not how such a node is written.

    Examples
    --------
    >>> name_and_lag("speed[t-1]"), name_and_lag("speed[t]")
    (('speed', -1), ('speed', 0))
    """
    found = _LAGGED.fullmatch(node) if isinstance(node, str) else None
    if found is None:
        raise SpecError(
            f"expected a variable at a time relative to t, such as 'speed[t]' or 'speed[t-1]', got {node!r}"
        )
    return found[1], int(f"{found[2]}{found[3]}") if found[2] else 0


def as_names(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return one name or several as a tuple, without repetitions.

    Examples
    --------
    >>> as_names("speed"), as_names(["speed", "torque", "speed"])
    (('speed',), ('speed', 'torque'))
    """
    return (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))


def as_pairs(edges: Iterable[tuple[str, str]], *, what: str) -> list[tuple[str, str]]:
    """Return edges as a list of pairs.

    Raises
    ------
    SpecError
        If one of them is not a pair of names.

    Examples
    --------
    >>> as_pairs([["a", "b"]], what="edges")
    [('a', 'b')]
    """
    pairs: list[tuple[str, str]] = []
    for edge in edges:
        if isinstance(edge, str) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
            raise SpecError(f"expected {what} as pairs of names such as ('cause', 'effect'), got {edge!r}")
        pairs.append((edge[0], edge[1]))
    return pairs


def latex_name(node: str) -> str:
    r"""Return a node as LaTeX: one letter as it is, a longer name upright, its time as an index.

    Examples
    --------
    >>> print(latex_name("s[2]"), latex_name("joint_speed"))
    s_{2} \mathrm{joint\_speed}
    """
    name, time = name_and_time(node)
    body = name if len(name) == 1 else rf"\mathrm{{{name.replace('_', r'\_')}}}"
    return body if time is None else f"{body}_{{{time}}}"
