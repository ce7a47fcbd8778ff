"""Graphs in time."""

import pytest

from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import CausalGraph, TimeGraph

POLICY = [("s[t]", "s[t+1]"), ("a[t]", "s[t+1]"), ("s[t]", "a[t]")]


def test_only_distances_count():
    earlier = TimeGraph([("s[t-1]", "s[t]"), ("a[t-1]", "s[t]"), ("s[t+3]", "a[t+3]")], [("s[t]", "a[t-1]")])
    assert earlier == TimeGraph(POLICY, [("a[t]", "s[t+1]")])
    assert hash(earlier) == hash(TimeGraph(POLICY, [("a[t]", "s[t+1]")]))
    assert earlier != TimeGraph(POLICY)
    assert earlier.largest_lag == 1
    assert earlier.variables == ("s", "a")


def test_pairs_within_a_slice_have_no_direction():
    assert TimeGraph(POLICY, [("a[t]", "s[t]")]) == TimeGraph(POLICY, [("s[t]", "a[t]")])


def test_unrolled_edges_start_inside():
    graph = TimeGraph([("x[t-2]", "x[t]"), ("u[t]", "x[t]")], [("x[t-1]", "x[t]")]).unroll(3)
    assert graph == CausalGraph(
        [("x[0]", "x[2]"), ("x[1]", "x[3]"), *((f"u[{t}]", f"x[{t}]") for t in range(4))],
        [("x[0]", "x[1]"), ("x[1]", "x[2]"), ("x[2]", "x[3]")],
    )
    assert graph.order == tuple(f"{name}[{t}]" for t in range(4) for name in "ux")


def test_horizon_zero_is_one_slice():
    assert TimeGraph(POLICY).unroll(0) == CausalGraph([("s[0]", "a[0]")])


def test_hidden_cause_that_lasts_confounds_all_times():
    payload = TimeGraph([*POLICY, ("u[t]", "u[t+1]"), ("u[t]", "s[t+1]")], latent=["u"])
    assert payload.variables == ("s", "a")
    assert payload.unroll(3).confounded == (("s[1]", "s[2]"), ("s[1]", "s[3]"), ("s[2]", "s[3]"))


def test_hidden_cause_of_each_time_is_a_confounded_pair():
    disturbed = TimeGraph([*POLICY, ("e[t]", "a[t]"), ("e[t]", "s[t+1]")], latent=["e"])
    assert disturbed.unroll(4) == TimeGraph(POLICY, [("a[t]", "s[t+1]")]).unroll(4)


def test_a_process_that_ran_before_the_records():
    # x follows hidden w, so that without what came before the first two recorded x look unrelated to later ones
    whole = TimeGraph([("x[t]", "w[t+1]"), ("w[t]", "x[t+1]")]).unroll(4)
    recorded = whole.project(["x[3]", "x[4]", "w[3]", "w[4]"])
    assert ("x[3]", "w[4]") in recorded.edges
    assert recorded.confounded == ()
    assert TimeGraph([("w[t]", "w[t+1]"), ("w[t]", "x[t]")]).unroll(2).project(["x[1]", "x[2]"]).confounded


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimeGraph([("x[t]", "x[t-1]")]), "cause before its effect, got x\\[t\\] -> x\\[t-1\\]"),
        (lambda: TimeGraph([("x[t]", "y[t]"), ("y[t]", "x[t]")]), "without cycles, got (x -> y -> x|y -> x -> y)"),
        (lambda: TimeGraph([("x", "y")]), "relative to t"),
        (lambda: TimeGraph([("x[t]", "y[t]")], [("x[t]", "x[t]")]), "different nodes"),
        (lambda: TimeGraph(POLICY).unroll(-1), "horizon"),
        (lambda: TimeGraph(POLICY).unroll(2.0), "horizon"),
    ],
)
def test_nonsense_is_refused(make, message):
    with pytest.raises(SpecError, match=message):
        make()


def test_edges_relative_to_the_effect():
    graph = TimeGraph([("x[t]", "x[t+2]"), ("u[t]", "x[t]")], [("x[t+1]", "y[t]")], latent=["u"])
    assert graph.edges == (("x[t-2]", "x[t]"), ("u[t]", "x[t]"))
    assert graph.confounded == (("y[t-1]", "x[t]"),)
    assert TimeGraph(graph.edges, graph.confounded, latent=graph.latent) == graph


def test_other_latent_variables():
    graph = TimeGraph([("u[t]", "x[t]"), ("u[t]", "y[t]")], latent=["u"])
    assert set(graph.with_latent([]).variables) == {"u", "x", "y"}
    assert graph.with_latent(["x"]) == TimeGraph(graph.edges, latent=["x"])
    with pytest.raises(UnknownVariableError, match="'z'"):
        graph.with_latent(["z"])


def test_unknown_latent():
    with pytest.raises(UnknownVariableError, match="'payload'"):
        TimeGraph(POLICY, latent=["payload"])


def test_text():
    graph = TimeGraph([("x[t-2]", "x[t]"), ("u[t]", "x[t]")], [("y[t]", "x[t]")], latent=["u"])
    assert repr(graph) == "TimeGraph(x[t-2] -> x[t], u[t] -> x[t], y[t] <-> x[t], latent u)"


def test_variables_without_edges_are_kept():
    graph = TimeGraph([("s[t]", "s[t+1]")], variables=["s", "idle"])
    assert graph.variables == ("s", "idle")
    assert graph != TimeGraph([("s[t]", "s[t+1]")])
    assert repr(graph) == "TimeGraph(s[t-1] -> s[t], idle)"
    assert "idle[1]" in repr(graph.unroll(1))
