"""Worlds with hidden causes: case C2 exactly, with what is known put in."""

import pytest
import torch

import bayeswm as bwm
from bayeswm.base import ConfoundedError, NotInvertible
from bayeswm.base.random import make_generator
from bayeswm.causal import Adjusted, counterfactual, intervene, shift
from bayeswm.causal.confounding.log import Recipe
from bayeswm.causal.confounding.worlds import CausalWorlds, Wiring
from bayeswm.structures import FromFunction
from tests.causal.confounding.logs import schema

ONE = torch.ones(1, dtype=torch.float64)


def c2(*, logged: bool = False) -> CausalWorlds:
    """s' = 0.9 s + 0.5 a + e + w with e ~ N(0, 1), or given a = -0.3 s + e + nu."""
    structure = FromFunction(lambda s, a, c: 0.9 * s + 0.5 * a + c, schema=schema("e"), name="c2")
    inner = bwm.KnownDynamics(structure=structure, noise=0.1).draw(1)
    recipe = Recipe(Adjusted(("e",)), schema(), schema("e"))
    weight, root = [[[0.0, 0.15, 0.5]]] if logged else [[[0.0, 0.0]]], [[[0.5**0.5 if logged else 1.0]]]
    given = {"cause.weight": torch.tensor(weight).double(), "cause.root": torch.tensor(root, dtype=torch.float64)}
    why = "e is in both" if logged else None
    return CausalWorlds(inner, recipe, Wiring(causes=1, logged=logged), parameters=given, confounded=why)


def one_step(worlds, state, action):
    law = worlds.transition(worlds.start(torch.tensor([state])), torch.tensor([action]).double())
    return float(law.mean), float(law.variance)


def test_one_step():
    assert one_step(c2(), 1.0, 1.0) == pytest.approx((1.4, 1.01), abs=1e-6)
    assert one_step(c2(logged=True), 1.0, 1.0) == pytest.approx((2.05, 0.51), abs=1e-6)


@pytest.mark.parametrize(("logged", "mean", "variance"), [(False, 1.76, 1.8281), (True, 3.1525, 1.0723)])
def test_two_steps(logged, mean, variance):
    """The law of two linear steps follows from the first by its slope."""
    worlds = c2(logged=logged)
    first = one_step(worlds, 1.0, 1.0)
    second, spread = one_step(worlds, first[0], 1.0)
    slope = one_step(worlds, first[0] + 1.0, 1.0)[0] - second
    assert (second, spread + slope**2 * first[1]) == pytest.approx((mean, variance), abs=5e-5)


@pytest.mark.statistical
def test_rollout_draws_the_cause_anew():
    count = 200_000
    found = bwm.rollout(c2(), ONE, torch.ones(2, 1), particles=count, generator=make_generator(0)).particles[0, :, 1, 0]
    z = (found.mean() - 1.76) / (1.8281 / count) ** 0.5
    assert abs(float(z)) < 4.42  # p > 1e-5
    z = (found.var() / 1.8281 - 1) / (2 / count) ** 0.5
    assert abs(float(z)) < 4.42


def test_worlds_that_only_say_what_was_logged_are_no_ground_to_act_on():
    worlds = c2(logged=True)
    with pytest.raises(ConfoundedError, match="e is in both"):
        intervene(worlds, bwm.do(a=1.0))
    for kept in (worlds[0], worlds.to(torch.float32), worlds.replace(process_noise=0.2)):
        assert kept.confounded == "e is in both"
    assert c2().confounded is None


def test_interventions_on_actions_set_them():
    set_to = intervene(c2(), bwm.do(a=1.0))
    found = bwm.rollout(set_to, ONE, torch.zeros(1, 1), particles=2, generator=make_generator(0))
    assert float(found.mean) == pytest.approx(1.4, abs=1e-6)


def recorded(n: int = 5, steps: int = 3):
    """Episodes of C2 with e, of which one is shorter."""
    g = make_generator(3)
    e, w, nu = torch.randn(3, n, steps, 1, generator=g, dtype=torch.float64)
    s, actions = [torch.ones(n, 1, dtype=torch.float64)], []
    for t in range(steps):
        actions.append(-0.3 * s[-1] + e[:, t] + nu[:, t])
        s.append(0.9 * s[-1] + 0.5 * actions[-1] + e[:, t] + 0.1 * w[:, t])
    data = bwm.Trajectories(schema("e"), state=torch.stack(s, 1), action=torch.stack(actions, 1), context=e)
    return data, e, w


def test_noise_of_recorded_causes_is_exact():
    data, e, w = recorded()
    noise, _ = c2().smooth(data)
    torch.testing.assert_close(noise.step, torch.cat((e, w), -1)[None, None])


def test_counterfactual_of_recorded_causes():
    """Under another action the same gust blows: s1 moves by half the change, and 0.9 of that at each later step."""
    data, _, _ = recorded()
    found = counterfactual(c2(), data, bwm.do({"a": lambda x, t: 2.0 + 0 * x[..., 0]}, steps=0))
    change = 0.5 * (2.0 - data.action[:, 0, 0])
    expected = data.states()[:, 1:, 0] + change[:, None] * 0.9 ** torch.arange(3)
    torch.testing.assert_close(found.mean[..., 0], expected)
    assert float(found.variance.abs().max()) == 0.0
    same = counterfactual(c2(), data, bwm.do({"a": shift(0.0)}))
    torch.testing.assert_close(same.mean, data.states()[:, 1:])


def test_noise_of_causes_that_were_not_recorded():
    data, _, _ = recorded()
    bare = bwm.Trajectories(schema(), state=data.states(), action=data.action)
    with pytest.raises(NotInvertible, match="recorded"):
        c2().smooth(bare)
    with pytest.raises(NotInvertible, match="log"):
        counterfactual(c2(), bare, bwm.do(a=0.0))


def test_a_history_with_more_columns_is_taken():
    data, _, _ = recorded()
    assert torch.equal(c2().start(data)[0, 0], data.states()[:, -1])


def test_densities_of_trajectories():
    """Along known states the density is that of each step, cause and noise together."""
    data, _, _ = recorded()
    found = bwm.rollout(c2(), ONE, data.action, particles=1, generator=make_generator(0)).log_prob(data.states()[:, 1:])
    before, after = data.states()[:, :-1], data.states()[:, 1:]
    law = torch.distributions.Normal(0.9 * before + 0.5 * data.action, 1.01**0.5)
    torch.testing.assert_close(found, law.log_prob(after).sum((-2, -1)))
