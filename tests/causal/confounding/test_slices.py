"""One step of a graph in time: what it takes into account of the past."""

from bayeswm.causal import Adjusted, TimeGraph
from bayeswm.causal.confounding.slices import Slices
from tests.causal.confounding.logs import C2, STATE


def test_a_hidden_path_of_several_steps_is_seen():
    """A cause of the action comes back three steps later, through variables that are hidden all along."""
    edges = [*STATE, ("u[t]", "a[t]"), ("u[t]", "v[t+1]"), ("v[t]", "w[t+1]"), ("w[t]", "s[t+1]")]
    assert not Slices(TimeGraph(edges), state=["s"], action=["a"], hidden=["u", "v", "w"]).composes
    assert Slices(TimeGraph(edges[:-1]), state=["s"], action=["a"], hidden=["u", "v", "w"]).composes


def test_no_recorded_variable_too_many():
    seen = Slices(C2, state=["s"], action=["a"], hidden=[])
    assert seen.adjusted(["nu", "e", "z", "y"]) == Adjusted(("e",))
    assert seen.adjusted(["nu", "z", "y"]) is None


def test_what_the_action_changes_is_no_adjustment():
    edges = [*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]"), ("a[t]", "x[t]"), ("e[t]", "x[t]")]
    seen = Slices(TimeGraph(edges), state=["s"], action=["a"], hidden=["e"])
    assert seen.adjusted(["x"]) is None
