"""Drafts of graphs: systems whose graph is known, and what discovery cannot see."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import ResidualTests, SpikeAndSlab, TimeGraph, discover
from bayeswm.structures import Euler, Pendulum

METHODS = [SpikeAndSlab(), ResidualTests()]


def swinging(g, *, noise=0.01):
    """Return episodes of a pendulum that is driven over the top; by Euler's step, so that the graph is known."""
    system = bwm.KnownDynamics(structure=Pendulum(length=0.5, damping=0.1, integrator=Euler()), noise=noise)
    start = 4 * torch.randn(15, 2, generator=g, dtype=torch.float64)
    torque = 4 * torch.randn(15, 40, 1, generator=g, dtype=torch.float64)
    return bwm.data.simulate(system, start, torque, generator=g)


@pytest.mark.parametrize("method", METHODS)
def test_pendulum(method):
    draft = discover(swinging(torch.Generator().manual_seed(0)), method=method)
    edges = [("angle[t-1]", "angle[t]"), ("velocity[t-1]", "angle[t]")]
    edges += [(f"{name}[t-1]", "velocity[t]") for name in ("angle", "velocity", "torque")]
    assert draft.graph() == TimeGraph(edges)
    assert draft.parents("velocity") == ("angle[t-1]", "velocity[t-1]", "torque")
    assert draft.parents("angle") == ("angle[t-1]", "velocity[t-1]")
    assert draft.expected_false() < 0.3
    assert draft.tested == isinstance(method, ResidualTests)


@pytest.mark.parametrize("method", [SpikeAndSlab(degree=1), ResidualTests(degree=1)])
def test_two_lags(method):
    g = torch.Generator().manual_seed(1)
    x = [torch.zeros(20, dtype=torch.float64), torch.zeros(20, dtype=torch.float64)]
    actions = torch.randn(20, 41, generator=g, dtype=torch.float64)
    for t in range(1, 41):
        noise = 0.1 * torch.randn(20, generator=g, dtype=torch.float64)
        x.append(0.5 * x[t] - 0.4 * x[t - 1] + 0.3 * actions[:, t - 1] + noise)
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("a")], time_step=0.1)
    data = bwm.Trajectories(schema, state=torch.stack(x, 1)[..., None], action=actions[..., None])
    draft = discover(data, method=method, lags=2)
    assert draft.graph() == TimeGraph([("x[t-1]", "x[t]"), ("x[t-2]", "x[t]"), ("a[t-2]", "x[t]")])
    assert draft.parents("x") == ("x[t-1]", "x[t-2]", "a[t-2]")


def test_a_hidden_cause_is_not_found_and_makes_an_edge():
    g = torch.Generator().manual_seed(2)
    wind = torch.randn(20, 30, generator=g, dtype=torch.float64)  # moves the system, and the controller saw it
    x = [torch.zeros(20, dtype=torch.float64)]
    for t in range(30):
        x.append(0.8 * x[t] + wind[:, t] + 0.1 * torch.randn(20, generator=g, dtype=torch.float64))
    schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("a")], time_step=0.1)
    data = bwm.Trajectories(schema, state=torch.stack(x, 1)[..., None], action=wind[..., None])
    draft = discover(data)
    assert ("a[t-1]", "x[t]") in draft.edges()  # the action does nothing
    assert "hidden common causes not looked for" in repr(draft)
    assert "no hidden common causes" in draft.table.attrs["assumes"]


def test_draft_speaks():
    g = torch.Generator().manual_seed(3)
    schema = bwm.Schema(state=[bwm.Variable("s")], action=[bwm.Variable("a")], context=[bwm.Variable("c")], time_step=1)
    action = torch.randn(40, 1, 1, generator=g, dtype=torch.float64)
    context = torch.randn(40, 1, generator=g, dtype=torch.float64)
    first = torch.randn(40, 1, generator=g, dtype=torch.float64)
    noise = torch.randn(40, 1, generator=g, dtype=torch.float64)
    after = 0.35 * first + action[:, 0] + 2 * context + noise
    data = bwm.Trajectories(schema, state=torch.stack((first, after), 1), action=action, context=context)
    draft = discover(data, method=SpikeAndSlab(degree=1))
    assert draft.table.dims == ("cause", "effect")
    assert draft.table.attrs["steps"] == 40
    probability = draft.table.sel(cause="s[t-1]", effect="s[t]").item()
    assert 0.05 < probability < 0.95
    assert draft.doubtful == (("s[t-1]", "s[t]", probability),)
    sure = probability * 0.99
    assert draft.parents("s", threshold=sure) == ("s[t-1]", "a", "c")
    assert draft.expected_false(sure) == pytest.approx(3 - float(draft.table.sum()))
    assert repr(draft).startswith("GraphDraft(")
    assert "1 of 3 pairs in doubt" in repr(draft)
    tested = discover(data, method=ResidualTests(degree=1))
    assert tested.expected_false() == pytest.approx(0.05 * len(tested.edges()))
    assert "p = " in repr(tested)
    with pytest.raises(UnknownVariableError):
        draft.parents("speed")
    with pytest.raises(SpecError, match="between 0 and 1"):
        draft.graph(1.0)
    with pytest.raises(SpecError, match="SpikeAndSlab"):
        discover(data, method="gibbs")
