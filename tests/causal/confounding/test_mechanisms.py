"""One mechanism a variable: its parents, and the same answers."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import ConfoundedError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.causal import CausalDynamics, TimeGraph
from tests.causal.confounding.logs import C2, CASES, ONE, c2_log, one_step


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


def test_effects_and_plans(tmp_path):
    """Whatever takes a model takes this one: effects, planners with derivatives, moments, files."""
    model = CausalDynamics(C2, mechanisms=line()).fit(c2_log(4000, "nu"), seed=0, progress=False)
    given = {"state": ONE, "horizon": 2, "generator": make_generator(0)}
    found = bwm.causal.effect(model, bwm.do(a=1.0), bwm.do(a=0.0), **given)
    # the error of two-stage least squares, (1.01 / 4000)^0.5 = 0.016
    assert float(found.effect[0, 0]) == pytest.approx(0.5, abs=4.42 * 0.016)
    with pytest.raises(ConfoundedError):
        bwm.causal.effect(model.behavioural, bwm.do(a=1.0), bwm.do(a=0.0), **given)
    objective = bwm.planning.quadratic(torch.ones(1), torch.ones(1))
    plan = bwm.planning.ILQR(objective, horizon=5, bounds=(-1.0, 1.0)).plan(model, ONE, generator=make_generator(0))
    # s' = 0.9 s + 0.5 a at s = 1: five steps of the Riccati recursion give -0.62
    assert float(plan.actions[0]) == pytest.approx(-0.62, abs=0.06)
    assert float(model.moments(ONE, torch.eye(1), ONE, generator=make_generator(0)).covariance) > 1.5
    model.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm")
    one, other = (m.predictive(ONE, ONE, generator=make_generator(1)).mean for m in (model, again))
    assert torch.equal(one, other)
