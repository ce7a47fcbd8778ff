"""One mechanism a variable: its parents, and the same answers."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.causal import CausalDynamics, TimeGraph
from tests.causal.confounding.logs import C2, CASES, c2_log, one_step


def line(*, wide: float = 10.0) -> bwm.BayesianDynamics:
    """Learns a variable as a linear function of whatever its parents are."""
    return bwm.BayesianDynamics(
        structure=bwm.structures.Linear(c=Normal(0.0, wide)), inference=bwm.inference.Conjugate()
    )


@pytest.mark.statistical
@pytest.mark.parametrize("case", ["e", "nu"])
def test_mechanisms(case):
    """The same answers from one mechanism a variable, whose parents are those of the graph."""
    recorded, context, _, strategy = CASES[case]
    model = CausalDynamics(C2, mechanisms=line()).fit(c2_log(4000, *recorded), seed=0, progress=False)
    assert model.strategy == strategy
    assert model.outcome.mechanisms["s"].parents == ("s[t-1]", "a", *context)
    mean, _, sd = one_step(model)
    assert abs(mean - 1.4) < 4.42 * sd < 0.3


def test_mechanisms_take_their_parents_from_the_graph():
    graph = TimeGraph(
        [
            ("x[t]", "x[t+1]"),
            ("v[t]", "x[t+1]"),
            ("v[t]", "v[t+1]"),
            ("a[t]", "v[t+1]"),
            ("e[t]", "v[t+1]"),
            ("e[t]", "a[t]"),
        ]
    )
    wide = bwm.Schema(
        state=[bwm.Variable("x"), bwm.Variable("v")],
        action=[bwm.Variable("a")],
        context=[bwm.Variable("e")],
        time_step=1.0,
    )
    g = make_generator(0)
    state, action, e = (torch.randn(200, n, k, generator=g).double() for n, k in ((2, 2), (1, 1), (1, 1)))
    log = bwm.Trajectories(wide, state=state, action=action, context=e)
    model = CausalDynamics(graph, mechanisms={"x": line(), "v": line()}).fit(log, seed=0, progress=False)
    assert model.outcome.mechanisms["x"].parents == ("x[t-1]", "v[t-1]")
    assert model.outcome.mechanisms["v"].parents == ("v[t-1]", "a", "e")
    with pytest.raises(SpecError, match="none for 'v'"):
        CausalDynamics(graph, mechanisms={"x": line()}).fit(log, seed=0, progress=False)
    joined = TimeGraph(graph.edges, [("x[t]", "v[t]")])
    with pytest.raises(SpecError, match="both x and v"):
        CausalDynamics(joined, mechanisms=line()).fit(log, seed=0, progress=False)
