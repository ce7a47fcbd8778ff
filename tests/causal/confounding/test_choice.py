"""Strategies: textbook cases by hand, and none that the complete algorithm of identification contradicts."""

import random
from collections import Counter

import pytest

from bayeswm.base import UnknownVariableError
from bayeswm.causal import (
    Adjusted,
    FrontDoor,
    Identifiable,
    Instrumented,
    Persistent,
    Proxied,
    TimeGraph,
    Unconfounded,
    Unidentified,
    choose_strategy,
    identify,
)
from bayeswm.causal.confounding.slices import Slices
from tests.causal.confounding.logs import BOW, C2, STATE

MEDIATED = [("s[t]", "s[t+1]"), ("s[t]", "a[t]"), ("a[t]", "m[t]"), ("m[t]", "s[t+1]"), ("s[t]", "m[t]")]


def chosen(graph, *recorded, state=("s",), action=("a",)):
    return choose_strategy(graph, state=state, action=action, recorded=recorded)


@pytest.mark.parametrize(
    ("graph", "recorded", "expected"),
    [
        (TimeGraph(STATE), (), Unconfounded()),
        # what moves the action only is no cause of what follows
        (TimeGraph([*STATE, ("nu[t]", "a[t]")]), (), Unconfounded()),
        # a cause of the state that is seen before the action acts
        (TimeGraph([*STATE, ("e[t]", "s[t+1]"), ("e[t]", "a[t+1]")]), (), Unconfounded()),
        (C2, ("e",), Adjusted(("e",))),
        (C2, ("e", "nu", "z"), Adjusted(("e",))),
        (C2, ("nu",), Instrumented(("nu",), ("a",))),
        (C2, ("z",), Proxied("e", ("z",))),
        (C2, ("z", "y"), Proxied("e", ("z", "y"))),
        (TimeGraph(MEDIATED, BOW), ("m",), FrontDoor(("m",))),
        (TimeGraph([("s[t]", "s[t+1]"), ("u[t]", "u[t+1]"), *[("u[t]", x) for x in ("a[t]", "s[t+1]")]]), (), None),
    ],
)
def test_textbook_cases(graph, recorded, expected):
    assert chosen(graph, *recorded) == (Persistent(("u",)) if expected is None else expected)


@pytest.mark.parametrize(
    ("graph", "recorded"),
    [
        (TimeGraph(STATE, BOW), ()),
        (C2, ()),
        # an instrument that acts on the state itself, that shares a cause with it, or with the action
        (TimeGraph([*STATE, ("nu[t]", "a[t]"), ("nu[t]", "s[t+1]")], BOW), ("nu",)),
        (TimeGraph([*STATE, ("nu[t]", "a[t]")], [*BOW, ("nu[t]", "s[t+1]")]), ("nu",)),
        (TimeGraph([*STATE, ("nu[t]", "a[t]")], [*BOW, ("nu[t]", "a[t]")]), ("nu",)),
        # a mediator past which the action acts, or that shares a cause with it
        (TimeGraph([*MEDIATED, ("a[t]", "s[t+1]")], BOW), ("m",)),
        (TimeGraph(MEDIATED, [*BOW, ("m[t]", "s[t+1]")]), ("m",)),
        # a measurement that the controller acts on, or whose error goes into the state
        (TimeGraph([*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]"), ("e[t]", "z[t]")], [("z[t]", "s[t+1]")]), ("z",)),
        # a recorded cause that lasts: its law is not that given the state
        (TimeGraph([*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]"), ("e[t]", "e[t+1]")]), ("e",)),
        # a cause that comes back a step later
        (TimeGraph(STATE, [("a[t]", "s[t+2]")]), ()),
        (TimeGraph([*STATE, ("s[t]", "s[t+2]")]), ()),
        # an action at work within its own slice is not the action of a schema
        (TimeGraph([("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("a[t]", "s[t]")]), ()),
    ],
)
def test_refused(graph, recorded):
    assert isinstance(chosen(graph, *recorded), Unidentified)


def test_a_refusal_says_what_would_help():
    text = str(chosen(C2))
    assert "a and the next s" in text
    assert "record (e)" in text
    assert "inject noise into a" in text


def test_two_actions_need_two_instruments():
    edges = [("s[t]", "s[t+1]"), *[(f"{a}[t]", "s[t+1]") for a in "ab"], ("nu[t]", "a[t]"), ("mu[t]", "b[t]")]
    graph = TimeGraph(edges, [("a[t]", "s[t+1]"), ("b[t]", "s[t+1]")])
    both = choose_strategy(graph, state=["s"], action=["a", "b"], recorded=["nu", "mu"])
    assert both == Instrumented(("nu", "mu"), ("a", "b"))
    assert isinstance(choose_strategy(graph, state=["s"], action=["a", "b"], recorded=["nu"]), Unidentified)
    one = TimeGraph(edges, [("a[t]", "s[t+1]")])
    assert choose_strategy(one, state=["s"], action=["a", "b"], recorded=["nu"]) == Instrumented(("nu",), ("a",))


def test_unknown_names():
    with pytest.raises(UnknownVariableError, match="speed"):
        choose_strategy(TimeGraph(STATE), state=["speed"], action=["a"])


def random_graph(seed: int) -> TimeGraph:
    """A process of one state, one action and three more variables, with edges at random."""
    rng = random.Random(seed)
    names = ["a", "x", "y", "z"]
    rng.shuffle(names)
    edges = [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]")]
    edges += [("s[t]", f"{v}[t]") for v in names if rng.random() < 0.4]
    edges += [(f"{v}[t]", f"{w}[t]") for i, v in enumerate(names) for w in names[i + 1 :] if rng.random() < 0.4]
    edges += [(f"{v}[t]", "s[t+1]") for v in "xyz" if rng.random() < 0.5]
    if rng.random() < 0.3:  # through the others only
        edges.remove(("a[t]", "s[t+1]"))
    pairs = [(f"{v}[t]", f"{w}[t]") for i, v in enumerate(names) for w in names[i + 1 :] if rng.random() < 0.15]
    pairs += [(f"{v}[t]", "s[t+1]") for v in names if rng.random() < 0.25]
    alone = [v for v in names if not any(v == end[0] for edge in (*edges, *pairs) for end in edge)]
    return TimeGraph([*edges, *[("s[t]", f"{v}[t]") for v in alone]], pairs)


def test_no_strategy_contradicts_the_complete_algorithm():
    """Adjustment and front door claim that the graph alone settles the effect; the others claim that it does not."""
    counts: Counter[str] = Counter()
    for seed in range(150):
        graph = random_graph(seed)
        recorded = ["x", "y", "z"][: seed % 4]
        found = choose_strategy(graph, state=["s"], action=["a"], recorded=recorded)
        hidden = [v for v in "xyz" if v not in recorded]
        k = Slices(graph, state=["s"], action=["a"], hidden=hidden).k
        verdict = identify(graph.with_latent(hidden).unroll(k + 1), f"s[{k + 1}]", do=f"a[{k}]", given=f"s[{k}]")
        settled = isinstance(found, Unconfounded | Adjusted | FrontDoor)
        elsewhere = isinstance(found, Unidentified) and "in principle" in found.reason
        assert isinstance(verdict, Identifiable) == (settled or elsewhere), (graph, recorded, str(found))
        counts[type(found).__name__] += 1
    assert {"Unconfounded", "Adjusted", "FrontDoor", "Instrumented", "Unidentified"} <= set(counts)
