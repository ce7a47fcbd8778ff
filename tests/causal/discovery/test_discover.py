"""Drafts of graphs: systems whose graph is known, and what discovery cannot see."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.base.random import make_generator
from bayeswm.causal import (
    CausalDynamics,
    Learned,
    Mechanism,
    ResidualTests,
    SpikeAndSlab,
    StructuralModel,
    TimeGraph,
    Unconfounded,
    discover,
)
from bayeswm.structures import MLP, Euler, Pendulum

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
    claimed = draft.graph(confounded=[("a[t-1]", "x[t]")])
    assert claimed == TimeGraph(draft.edges(), [("a[t-1]", "x[t]")])
    assert "hidden common causes not looked for" in repr(draft)
    assert "no hidden common causes" in draft.table.attrs["assumes"]


def with_a_thermometer(g, *, episodes=20, steps=15):
    """Return episodes of a system s, and of z, which shows s with an error of 0.1 and moves nothing."""
    schema = bwm.Schema(state=[bwm.Variable("s"), bwm.Variable("z")], action=[bwm.Variable("a")], time_step=0.1)
    s, states, actions = torch.randn(episodes, generator=g, dtype=torch.float64), [], []
    for _ in range(steps + 1):
        states.append(torch.stack((s, s + 0.1 * torch.randn(episodes, generator=g, dtype=torch.float64)), -1))
        a = torch.randn(episodes, generator=g, dtype=torch.float64)
        actions.append(a[:, None])
        s = 0.8 * s + 0.5 * a - 0.2 * s * a + 0.1 * torch.randn(episodes, generator=g, dtype=torch.float64)
    return bwm.Trajectories(schema, state=torch.stack(states, 1), action=torch.stack(actions[:-1], 1))


def errors_before_and_after(seed, template):
    """Return root mean square errors of s, by the parents found and by all candidates, before and after z shifts."""
    g = torch.Generator().manual_seed(seed)
    train, test = with_a_thermometer(g), with_a_thermometer(g).transitions()
    shifted = test.state.clone()
    shifted[:, 1] = 1 + torch.randn(len(shifted), generator=g, dtype=torch.float64)
    found = discover(train).parents("s")
    errors = []
    for parents in (found, ("s[t-1]", "z[t-1]", "a")):
        mechanisms = {"s": Learned(template, parents=parents), "z": Mechanism(lambda s: s, noise=0.1)}
        model = StructuralModel(mechanisms, schema=train.schema).fit(train, seed=0, progress=False)
        for state in (test.state, shifted):
            drawn = {"worlds": 32, "particles": 10, "generator": torch.Generator().manual_seed(0)}
            r = bwm.rollout(model, state, test.action[:, None], **drawn)
            errors.append(float((r.mean[:, 0, 0] - test.next_state[:, 0]).square().mean().sqrt()))
    return found, errors


def test_a_model_of_the_parents_ignores_what_is_spurious():
    ensemble = bwm.DeepEnsemble(structure=MLP(hidden=(32, 32)), members=3, epochs=200)
    found, (before, after, dense, dense_after) = errors_before_and_after(0, ensemble)
    assert found == ("s[t-1]", "a")
    assert after == before
    assert before < 1.1 * dense
    noise = 0.1**2
    assert dense_after**2 - noise > 3 * (after**2 - noise)  # what is lost beyond the noise that nobody can forecast
    assert dense_after > 1.2 * dense


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


def test_a_draft_becomes_dynamics_though_a_variable_has_no_edges():
    g = torch.Generator().manual_seed(0)
    schema = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("idle")], action=[bwm.Variable("u")], time_step=1.0)
    system = StructuralModel(
        {
            "x": Mechanism(lambda x, u: 0.8 * x + u, parents=("x[t-1]", "u"), noise=0.1),
            "idle": Mechanism(lambda: 0.0, noise=1.0),
        },
        schema=schema,
    )
    start, actions = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((40, 2), (40, 10, 1)))
    data = bwm.data.simulate(system, start, actions, generator=g)
    graph = discover(data).graph()
    assert graph == TimeGraph([("x[t-1]", "x[t]"), ("u[t-1]", "x[t]")], variables=["idle"])
    line = bwm.structures.Linear(c=torch.distributions.Normal(0.0, 10.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    model = CausalDynamics(graph, mechanisms=linear).fit(data, seed=0, progress=False)
    assert isinstance(model.strategy, Unconfounded)
    near, far = (model.predictive(torch.tensor([1.0, i]), torch.ones(1), generator=make_generator(0)) for i in (0, 99))
    assert torch.equal(near.mean, far.mean)
    assert abs(near.mean[0, 0].item() - 1.8) < 0.05


def test_confounded_pairs_of_unknown_variables_are_refused():
    draft = discover(swinging(torch.Generator().manual_seed(0)))
    with pytest.raises(UnknownVariableError, match="did you mean 'torque'"):
        draft.graph(confounded=[("torqe[t-1]", "velocity[t]")])
    assert draft.graph(confounded=[("torque[t-1]", "velocity[t]")]).confounded == (("torque[t-1]", "velocity[t]"),)


def test_what_is_no_recorded_data_is_refused():
    with pytest.raises(SpecError, match="expected Trajectories, got int; make them by"):
        discover(3)  # pyright: ignore[reportArgumentType]
