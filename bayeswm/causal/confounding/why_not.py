"""Why an effect does not follow from a log, in words, with what would help."""

from __future__ import annotations

from collections.abc import Sequence

from bayeswm.causal.confounding.slices import lasting
from bayeswm.causal.graphs.graph import CausalGraph
from bayeswm.causal.graphs.names import at, name_and_time
from bayeswm.causal.graphs.time_graph import TimeGraph
from bayeswm.causal.identification.identify import identify
from bayeswm.causal.identification.verdict import NotIdentifiable


def reason(
    graph: TimeGraph, *, state: Sequence[str], action: Sequence[str], recorded: Sequence[str], composes: bool
) -> str:
    """Return what stands between a log and the law of the next state under actions that are set.

    Parameters
    ----------
    graph : TimeGraph
        The process.
    state, action, recorded : sequence of str
        What the log holds.
    composes : bool
        Whether the law of one step would serve for several.

    Examples
    --------
    >>> bow = TimeGraph([("s[t]", "s[t+1]"), ("a[t]", "s[t+1]")], confounded=[("a[t]", "s[t+1]")])
    >>> print(reason(bow, state=["s"], action=["a"], recorded=[], composes=True))
    hidden causes join a and the next s; record them, inject noise into a and record it (an instrument), or record what
    a acts through
    """
    names = graph.with_latent([]).variables
    hidden = [name for name in names if name not in {*state, *action, *recorded}]
    known = graph.with_latent(hidden).unroll(1)
    if not composes:
        last = lasting(graph, hidden)
        what = f"({', '.join(last)}) lasts" if last else "what is hidden, or was recorded beside the state, lasts"
        cure = (
            "give the dynamics a parameter that differs between episodes (base.Hierarchical) if it is constant along "
            "an episode and the only thing that is hidden, or make it a variable of the state if it was recorded"
        )
        return f"given state and action, what follows still depends on the past: {what} beyond one step; {cure}"
    pairs = [(a, s) for a in action for s in state if _joined(known, at(a, 0), at(s, 1))]
    joined = "; ".join(f"{a} and the next {s}" for a, s in pairs) or "actions and what follows"
    causes = sorted({name for pair in pairs for name in _common(graph, pair)} & set(hidden))
    record = f"record ({', '.join(causes)}) or a measurement of it" if causes else "record them"
    actions = ", ".join(dict.fromkeys(a for a, _ in pairs)) or ", ".join(action)
    text = f"hidden causes join {joined}; {record}, inject noise into {actions} and record it (an instrument), or "
    text += f"record what {actions} acts through"
    verdict = identify(
        known,
        [at(name, 1) for name in state],
        do=[at(name, 0) for name in action],
        given=[at(name, 0) for name in state],
    )
    if isinstance(verdict, NotIdentifiable):
        return text
    return f"the effect is identifiable in principle ({verdict}), but no way that is implemented uses that; {text}"


def _joined(graph: CausalGraph, action: str, state: str) -> bool:
    return any({action, state} == set(pair) for pair in graph.confounded)


def _common(graph: TimeGraph, pair: tuple[str, str]) -> set[str]:
    """Return variables that act on an action and, not only through it, on the next state."""
    whole = graph.with_latent([]).unroll(1)
    action, state = at(pair[0], 0), at(pair[1], 1)
    found = whole.ancestors(action) & whole.without_effects(action).ancestors(state)
    return {name_and_time(node)[0] for node in found}
