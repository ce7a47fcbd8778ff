"""Causal dynamics: case C2 fitted to logs, and other logs with effects in closed form."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import ConfoundedError, FitWarning, SpecError, UnknownVariableError
from bayeswm.base.random import make_generator
from bayeswm.causal import (
    Adjusted,
    CausalDynamics,
    FrontDoor,
    Instrumented,
    Proxied,
    TimeGraph,
    Unconfounded,
    Unidentified,
    counterfactual,
)
from bayeswm.testing import check_model
from tests.causal.confounding.logs import BOW, C2, STATE, Z_ERROR, affine, c2_log, schema

ONE = torch.ones(1, dtype=torch.float64)
N = 20_000


def fitted(log, *context, graph=C2, **kwargs):
    model = CausalDynamics(graph, dynamics=affine(*context), **kwargs)
    return model.fit(log, seed=0, progress=False)


def interventional(model, *, worlds=400):
    p = model.predictive(ONE, ONE, worlds=worlds, generator=make_generator(1))
    return float(p.mean), float(p.variance), float(p.epistemic_variance) ** 0.5


CASES = {
    "e": (("e",), ("e",), {}, Adjusted(("e",))),
    "nu": (("nu",), ("a_residual",), {}, Instrumented(("nu",), ("a",))),
    "z": (("z",), ("e",), {"proxy_error": {"z": Z_ERROR}}, Proxied("e", ("z",))),
    "z and y": (("z", "y"), ("e",), {}, Proxied("e", ("z", "y"))),
}


@pytest.mark.statistical
@pytest.mark.parametrize("case", CASES)
def test_c2_from_a_log(case):
    """do(a = 1) has mean 1.4 and variance 1.01, as logged 2.05 and 0.51; the posterior says how far off it may be."""
    recorded, context, given, strategy = CASES[case]
    model = fitted(c2_log(N, *recorded), *context, **given)
    assert model.strategy == strategy
    assert model.schema == schema()
    mean, variance, sd = interventional(model)
    assert abs(mean - 1.4) < 4.42 * sd < 0.15
    # a variance of n Gaussian rows is off by a share of sqrt(2 / n); that of the effect's square comes on top
    assert abs(variance / 1.01 - 1) < 4.42 * (2 / N) ** 0.5 + 8 * sd
    mean, variance, sd = interventional(model.behavioural)
    assert abs(mean - 2.05) < 4.42 * sd + 0.01
    assert abs(variance / 0.51 - 1) < 4.42 * (2 / N) ** 0.5 + 0.02
    coefficient = model.outcome.posterior["B"]
    if case == "e":
        assert abs(float(coefficient.mean()) - 0.5) < 4.42 * float(coefficient.std())


@pytest.mark.statistical
@pytest.mark.parametrize("case", ["e", "nu"])
def test_two_steps(case):
    recorded, context, given, _ = CASES[case]
    model = fitted(c2_log(N, *recorded), *context, **given)
    for which, mean, variance in ((model, 1.76, 1.8281), (model.behavioural, 3.1525, 1.0723)):
        r = bwm.rollout(which, ONE, torch.ones(2, 1), worlds=200, particles=200, generator=make_generator(0))
        sd = float(r.epistemic_variance[1]) ** 0.5
        assert abs(float(r.mean[1]) - mean) < 4.42 * sd + 0.02
        assert abs(float(r.variance[1]) / variance - 1) < 0.06


def test_naive_regression_is_confounded():
    """Without the graph, the very same dynamics learn (1.05, 1.00) from the log."""
    bare = c2_log(N, "e")
    log = bwm.Trajectories(schema(), state=bare.states(), action=bare.action)
    found = affine().fit(log, seed=0, progress=False).posterior
    assert float(found["A"].mean()) == pytest.approx(1.05, abs=0.03)
    assert float(found["B"].mean()) == pytest.approx(1.00, abs=0.03)


@pytest.mark.statistical
def test_uncertainty_of_the_first_stage_reaches_the_worlds():
    """The effect has the standard error of two-stage least squares, sd(e + w) / (sd(nu) sqrt(n)).

    With the residual taken for known, that of the outcome alone would be left, sd(w) / (sd(nu) sqrt(n)): a tenth.
    """
    n = 2000
    model = fitted(c2_log(n, "nu"), "a_residual")
    worlds = model.draw(2000, generator=make_generator(0))
    start = worlds.start(torch.zeros(1, dtype=torch.float64))
    effect = (worlds.transition(start, ONE).mean - worlds.transition(start, 0 * ONE).mean).flatten()
    expected = (1.01 / n) ** 0.5
    assert float(effect.std()) == pytest.approx(expected, rel=4.42 * (2 * 2000) ** -0.5 + 3 * n**-0.5)
    assert abs(float(effect.mean()) - 0.5) < 4.42 * expected


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("case", ["nu", "z and y"])
def test_intervals_of_effects_cover(case):
    """Of 60 logs, the 90 % interval of the effect contains it in a number that a binomial law allows."""
    recorded, context, given, _ = CASES[case]
    inside, logs = 0, 60
    for seed in range(logs):
        model = fitted(c2_log(400, *recorded, seed=seed), *context, **given)
        worlds = model.draw(400, generator=make_generator(seed))
        start = worlds.start(torch.zeros(1, dtype=torch.float64))
        effect = (worlds.transition(start, ONE).mean - worlds.transition(start, 0 * ONE).mean).flatten()
        low, high = effect.quantile(torch.tensor([0.05, 0.95]).double())
        inside += int(low <= 0.5 <= high)
    # P(more than 18 of 60 outside) is 4e-6 at a tenth
    assert logs - inside <= 18


def test_without_e_or_nu_the_effect_is_refused():
    model = fitted(c2_log(500))
    assert isinstance(model.strategy, Unidentified)
    with pytest.raises(ConfoundedError, match=r"record \(e\) or a measurement"):
        model.draw(1, generator=make_generator(0))
    with pytest.raises(ConfoundedError, match="inject noise into a"):
        model.predictive(ONE, ONE, generator=make_generator(0))
    with pytest.raises(ConfoundedError):
        bwm.rollout(model, ONE, torch.ones(2, 1), generator=make_generator(0))
    assert float(model.behavioural.predictive(ONE, ONE, generator=make_generator(0)).mean) == pytest.approx(
        2.05, abs=0.2
    )
    assert model.behavioural.draw(1, generator=make_generator(0)).confounded is not None


def test_planners_refuse_what_was_only_logged():
    log = c2_log(500, "e")
    model = fitted(log, "e")
    objective = bwm.planning.quadratic(torch.ones(1), torch.ones(1))
    planner = bwm.planning.CEM(objective, horizon=3, samples=8, iterations=1, elites=2, bounds=(-1.0, 1.0))
    plan = planner.plan(model, ONE, generator=make_generator(0))
    assert plan.actions.shape == (3, 1)
    with pytest.raises(ConfoundedError, match="adjusted for"):
        planner.plan(model.behavioural, ONE, generator=make_generator(0))


def front_door_log(n: int, *, seed: int = 0) -> bwm.Trajectories:
    """m = 0.8 a + 0.2 s + v, s' = 0.9 s + 0.5 m + u + w, and the controller senses u."""
    g = torch.Generator().manual_seed(seed)
    u, s, v, w, nu = torch.randn(5, n, 1, generator=g, dtype=torch.float64)
    a = -0.3 * s + u + nu
    m = 0.8 * a + 0.2 * s + 0.5 * v
    after = 0.9 * s + 0.5 * m + u + 0.1 * w
    return bwm.Trajectories(schema("m"), state=torch.stack((s, after), 1), action=a[:, None], context=m[:, None])


MEDIATED = TimeGraph(
    [("s[t]", "s[t+1]"), ("s[t]", "a[t]"), ("a[t]", "m[t]"), ("m[t]", "s[t+1]"), ("s[t]", "m[t]")], BOW
)


@pytest.mark.statistical
def test_front_door():
    """do(a): mean 0.9 s + 0.5 (0.8 a + 0.2 s), variance 0.25 * 0.25 + 1 + 0.01; as logged u has mean (a + 0.3 s) / 2."""
    model = CausalDynamics(MEDIATED, dynamics=affine("a_logged", action="m"))
    model.fit(front_door_log(N), seed=0, progress=False)
    assert model.strategy == FrontDoor(("m",))
    mean, variance, sd = interventional(model)
    assert abs(mean - 1.4) < 4.42 * sd < 0.15
    assert abs(variance / 1.0725 - 1) < 4.42 * (2 / N) ** 0.5 + 8 * sd
    mean, variance, sd = interventional(model.behavioural)
    assert abs(mean - 2.05) < 4.42 * sd + 0.01
    assert abs(variance / 0.5725 - 1) < 4.42 * (2 / N) ** 0.5 + 0.02


def test_counterfactuals_behind_a_front_door():
    log = front_door_log(300)
    model = CausalDynamics(MEDIATED, dynamics=affine("a_logged", action="m"))
    model.fit(log, seed=0, progress=False)
    found = counterfactual(
        model, log[:4], bwm.do({"a": bwm.causal.shift(0.0)}), in_training=True, generator=make_generator(0)
    )
    torch.testing.assert_close(found.mean, log[:4].states()[:, 1:])


def test_counterfactuals_with_an_instrument():
    """The gust of a step follows from the action and nu, in each world by its own first stage; doing it again replays."""
    log = c2_log(400, "nu")
    model = fitted(log, "a_residual")
    again = {"in_training": True, "generator": make_generator(0)}
    same = counterfactual(model, log[:4], bwm.do({"a": bwm.causal.shift(0.0)}), **again)
    torch.testing.assert_close(same.mean, log[:4].states()[:, 1:])
    pushed = counterfactual(model, log[:4], bwm.do({"a": bwm.causal.shift(1.0)}), **again)
    moved = (pushed.mean - log[:4].states()[:, 1:]).flatten()
    assert bool((moved - 0.5).abs().max() < 4.42 * float(pushed.variance.max()) ** 0.5)


def test_without_confounding_it_is_the_dynamics_themselves():
    graph = TimeGraph([*STATE, ("nu[t]", "a[t]")])
    model = fitted(c2_log(200, "nu"), graph=graph)
    assert isinstance(model.strategy, Unconfounded)
    assert model.behavioural is model
    plain = model.outcome.predictive(ONE, ONE, generator=make_generator(0)).mean
    assert torch.equal(model.predictive(ONE, ONE, generator=make_generator(0)).mean, plain)


def test_context_that_the_graph_does_not_name_is_asked_for():
    log = c2_log(300, "e", "y")
    graph = TimeGraph([*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]")])
    model = CausalDynamics(graph, dynamics=affine("y", "e")).fit(log, seed=0, progress=False)
    assert model.schema.context.names == ("y",)
    found = model.predictive(ONE, ONE, context=torch.zeros(1), generator=make_generator(0))
    assert found.mean.shape == (1, 1)


def test_weak_instruments_are_warned_of():
    log = c2_log(300, "nu")
    graph = TimeGraph([*STATE, ("nu[t]", "a[t]")], BOW)
    noise = torch.randn(300, 1, 1, generator=make_generator(5), dtype=torch.float64)
    weak = bwm.Trajectories(schema("nu"), state=log.states(), action=log.action, context=noise)
    with pytest.warns(FitWarning, match="F statistic"):
        fitted(weak, "a_residual", graph=graph)


def test_behaviour_that_is_not_linear():
    """A controller that saturates: the linear first stage leaves part of it in the residual, a learned one does not."""
    g = make_generator(0)
    n = 3000
    e, nu, s, w = torch.randn(4, n, 1, generator=g, dtype=torch.float64)
    a = -2 * torch.tanh(2 * s) + e + nu
    after = 0.9 * s + 0.5 * a + e + 0.1 * w
    log = bwm.Trajectories(schema("nu"), state=torch.stack((s, after), 1), action=a[:, None], context=nu[:, None])
    acts = bwm.Schema(state=[bwm.Variable("a")], context=[bwm.Variable("s"), bwm.Variable("nu")], time_step=1.0)
    saturating = bwm.structures.FromFunction(
        lambda x, u, c, p: x + p["k"] * torch.tanh(2 * c[..., :1]) + p["n"] * c[..., 1:],
        schema=acts,
        parameters={"k": Normal(0.0, 3.0), "n": Normal(0.0, 3.0)},
        name="saturating",
    )
    behaviour = bwm.BayesianDynamics(structure=saturating, inference=bwm.inference.Conjugate())
    graph = TimeGraph([*STATE, ("nu[t]", "a[t]")], BOW)
    model = fitted(log, "a_residual", graph=graph, behaviour=behaviour)
    left = model._fitted[0].recipe.outcome_log(log).step_context().flatten()
    # two coefficients from 3,000 rows
    assert float((left - e.flatten()).square().mean()) < 20 * 2 / n
    straight = fitted(log, "a_residual", graph=graph)._fitted[0].recipe.outcome_log(log).step_context().flatten()
    assert float((straight - e.flatten()).square().mean()) > 0.1
    worlds = model.draw(200, generator=make_generator(1))
    assert float(worlds.transition(worlds.start(ONE), ONE).mean.mean()) == pytest.approx(1.4, abs=0.1)


def test_condition_and_save(tmp_path):
    log = c2_log(400, "nu")
    model = fitted(log[:200], "a_residual")
    assert model.condition(log[:200], in_training=True) is model
    bare = bwm.Trajectories(schema(), state=log.states(), action=log.action)
    with pytest.raises(UnknownVariableError, match="nu"):
        model.condition(bare)
    net = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(8,)), members=2, epochs=2)
    learned = CausalDynamics(C2, dynamics=net).fit(log, seed=0, progress=False)
    learned.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm")
    assert isinstance(again, CausalDynamics)
    assert again.strategy == learned.strategy
    assert again.graph == learned.graph
    assert torch.equal(again.predictive(ONE, ONE).mean, learned.predictive(ONE, ONE).mean)
    assert torch.equal(again.behavioural.predictive(ONE, ONE).mean, learned.behavioural.predictive(ONE, ONE).mean)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["e", "nu"])
def test_contract(case):
    recorded, _, _, _ = CASES[case]
    net = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(16,)), members=3, epochs=5)
    log = rolled(recorded)
    model = CausalDynamics(C2, dynamics=net).fit(log, seed=0, progress=False)
    bare = bwm.Trajectories(schema(), state=log.states(), action=log.action)
    assert check_model(model, bare).failed == ()


def rolled(recorded, *, episodes: int = 20, steps: int = 20) -> bwm.Trajectories:
    """Episodes of C2."""
    g = make_generator(3)
    e, w, nu = torch.randn(3, episodes, steps, 1, generator=g, dtype=torch.float64)
    s, actions = [torch.ones(episodes, 1, dtype=torch.float64)], []
    for t in range(steps):
        actions.append(-0.3 * s[-1] + e[:, t] + nu[:, t])
        s.append(0.9 * s[-1] + 0.5 * actions[-1] + e[:, t] + 0.1 * w[:, t])
    context = torch.cat([{"e": e, "nu": nu}[name] for name in recorded], -1)
    return bwm.Trajectories(schema(*recorded), state=torch.stack(s, 1), action=torch.stack(actions, 1), context=context)


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
    mean, _, sd = interventional(model)
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


def test_arguments():
    with pytest.raises(SpecError, match="TimeGraph"):
        CausalDynamics("s -> a", dynamics=affine())
    with pytest.raises(SpecError, match="dynamics="):
        CausalDynamics(C2, dynamics=bwm.structures.MLP())
    with pytest.raises(SpecError, match="neither"):
        CausalDynamics(C2)
    with pytest.raises(SpecError, match="both"):
        CausalDynamics(C2, dynamics=affine(), mechanisms=affine())
    with pytest.raises(SpecError, match="fit"):
        CausalDynamics(C2, dynamics=affine()).draw(1)
    with pytest.raises(SpecError, match="Hierarchical"):
        fitted(c2_log(200), graph=TimeGraph([*STATE, ("u[t]", "u[t+1]"), ("u[t]", "a[t]"), ("u[t]", "s[t+1]")]))
