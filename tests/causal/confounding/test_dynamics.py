"""Causal dynamics: case C2 fitted to logs, and other logs with effects in closed form."""

import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import ConfoundedError, SpecError, UnknownVariableError
from bayeswm.base.random import make_generator
from bayeswm.causal import (
    CausalDynamics,
    FrontDoor,
    TimeGraph,
    Unconfounded,
    Unidentified,
    counterfactual,
)
from bayeswm.testing import check_model
from tests.causal.confounding.logs import (
    BOW,
    C2,
    CASES,
    ONE,
    STATE,
    affine,
    c2_log,
    fitted,
    one_step,
    schema,
)

N = 20_000


@pytest.mark.statistical
@pytest.mark.parametrize("case", CASES)
def test_c2_from_a_log(case):
    """do(a = 1) has mean 1.4 and variance 1.01, as logged 2.05 and 0.51; the posterior says how far off it may be."""
    recorded, context, given, strategy = CASES[case]
    model = fitted(c2_log(N, *recorded), *context, **given)
    assert model.strategy == strategy
    assert model.schema == schema()
    mean, variance, sd = one_step(model)
    assert abs(mean - 1.4) < 4.42 * sd < 0.15
    # a variance of n Gaussian rows is off by a share of sqrt(2 / n); that of the effect's square comes on top
    assert abs(variance / 1.01 - 1) < 4.42 * (2 / N) ** 0.5 + 8 * sd
    mean, variance, sd = one_step(model.behavioural)
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
    """do(a): mean 0.9 s + 0.5 (0.8 a + 0.2 s), variance 0.0625 + 1 + 0.01; as logged u has mean (a + 0.3 s) / 2."""
    model = CausalDynamics(MEDIATED, dynamics=affine("a_logged", action="m"))
    model.fit(front_door_log(N), seed=0, progress=False)
    assert model.strategy == FrontDoor(("m",))
    mean, variance, sd = one_step(model)
    assert abs(mean - 1.4) < 4.42 * sd < 0.15
    assert abs(variance / 1.0725 - 1) < 4.42 * (2 / N) ** 0.5 + 8 * sd
    mean, variance, sd = one_step(model.behavioural)
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
    """The gust of a step follows from the action and nu, in each world by its own first stage."""
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


def test_what_was_loaded_can_learn_again(tmp_path):
    log, error = c2_log(200, "z"), {"z": 0.5}
    net = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(8,)), members=2, epochs=2)
    learned = CausalDynamics(C2, dynamics=net, proxy_error=error).fit(log, seed=0, progress=False)
    learned.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm")
    assert isinstance(again, CausalDynamics)
    assert again.proxy_error == error
    again.fit(log, seed=0, progress=False)
    assert torch.equal(again.predictive(ONE, ONE).mean, learned.predictive(ONE, ONE).mean)
    with pytest.raises(UnknownVariableError, match="vane"):
        fitted(c2_log(200, "z", "y"), "e", proxy_error={"vane": 0.5})


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


@pytest.mark.parametrize("recorded", ["nu", "e"])
def test_linear_mechanisms_have_the_closed_density_of_linear_dynamics(recorded):
    line = bwm.structures.Linear(c=Normal(0.0, 10.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    graph = TimeGraph([*STATE, ("e[t]", "a[t]"), ("e[t]", "s[t+1]"), ("nu[t]", "a[t]")])
    model = CausalDynamics(graph, mechanisms=linear).fit(c2_log(500, recorded), seed=0, progress=False)
    law = bwm.rollout(model, ONE, ONE[None], worlds=8, particles=1, generator=make_generator(0)).laws[0]
    normal = bwm.Gaussian(law.mean, law.variance.sqrt())
    for x in (-1.0, 0.5, 3.0):
        state = torch.full_like(law.mean, x)
        torch.testing.assert_close(law.log_prob(state), normal.log_prob(state))
        torch.testing.assert_close(law.cdf(state), normal.cdf(state))


@pytest.mark.parametrize("batch", [(), (3,), (8, 2)])
def test_a_state_can_be_set(batch):
    line = bwm.structures.Linear(c=Normal(0.0, 10.0))
    linear = bwm.BayesianDynamics(structure=line, inference=bwm.inference.Conjugate())
    model = CausalDynamics(C2, mechanisms=linear).fit(c2_log(500, "nu"), seed=0, progress=False)
    held = bwm.causal.intervene(model, bwm.do(s=1.0, steps=1))
    found = bwm.rollout(
        held, ONE.expand(*batch, 1), torch.zeros(2, 1), worlds=8, particles=6, generator=make_generator(0)
    )
    assert found.mean.shape == (*batch, 2, 1)
    torch.testing.assert_close(found.mean[..., 0, 0], torch.ones(batch, dtype=torch.float64))
    torch.testing.assert_close(found.variance[..., 0, 0], torch.zeros(batch, dtype=torch.float64))
    after = torch.stack([law.mean.expand(8, 6, *batch, 1) for law in found.laws])[1]
    torch.testing.assert_close(found.mean[..., 1, 0], after.mean((0, 1))[..., 0])


def test_proxy_errors_of_unknown_measurements_are_refused():
    with pytest.raises(UnknownVariableError, match="'zz'"):
        CausalDynamics(C2, dynamics=affine("e"), proxy_error={"zz": 0.5}).fit(c2_log(50, "z"), progress=False)


def test_effect_takes_the_log_that_the_model_was_fitted_to():
    model = CausalDynamics(C2, dynamics=affine("e")).fit(c2_log(500, "e"), seed=0)
    found = bwm.causal.effect(
        model, bwm.do(a=1.0), bwm.do(a=0.0), state=ONE, horizon=1, logged=c2_log(500, "e"), generator=make_generator(0)
    )
    assert "inside" in found.attrs["positivity"]


def test_variables_without_edges_are_saved(tmp_path):
    graph = TimeGraph([("s[t]", "s[t+1]")], variables=["a"])
    log = c2_log(50)
    linear = bwm.BayesianDynamics(structure=bwm.structures.Linear(), inference=bwm.inference.Conjugate())
    CausalDynamics(graph, dynamics=linear).fit(log, seed=0, progress=False).save(tmp_path / "model.bwm")
    assert bwm.load(tmp_path / "model.bwm").graph == graph


def test_its_own_log_is_held_against_what_was_logged():
    """A log does not show what actions do that are set, but what goes together with actions that were chosen."""
    log = c2_log(400, "e")
    model = fitted(log, "e")
    with pytest.raises(SpecError, match=r"judge the model's \.behavioural by the log"):
        bwm.diagnostics.calibration(model, log, horizon=1)
    found = bwm.diagnostics.calibration(model.behavioural, log, horizon=1, worlds=4)
    without = bwm.diagnostics.calibration(model.behavioural, c2_log(400), horizon=1, worlds=4)
    assert found.equals(without)
    # data of set actions come without the causes, or with them left out
    bwm.diagnostics.calibration(model, c2_log(400), horizon=1, worlds=4)
    hidden = fitted(c2_log(400, "z"), graph=TimeGraph([*STATE, ("z[t]", "z[t+1]")], BOW))
    bwm.diagnostics.calibration(hidden.behavioural, c2_log(400, "z"), horizon=1, worlds=4)


def test_what_is_no_recorded_data_is_refused():
    with pytest.raises(SpecError, match="expected Trajectories, got dict; make them by"):
        CausalDynamics(C2, dynamics=affine("e")).fit({"s": [0.0]})  # pyright: ignore[reportArgumentType]
