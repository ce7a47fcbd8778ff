import math

import pytest
import torch
from torch.distributions import HalfNormal, Normal

import bayeswm as bwm
from bayeswm.base.errors import SpecError, UnknownVariableError
from bayeswm.causal import LinearBehaviour, assume_confounder, effect, fit_behaviour
from tests.causal.confounded_logs import NAIVE, TRUE, confounded_log, known
from tests.causal.reference_models import c1, line

BEHAVIOUR = LinearBehaviour(
    line(), torch.tensor([[0.0], [-0.3]], dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
)
# e explains half of the action's variance at equal states, and 0.5 of the 0.51 that the regression leaves
STRENGTH = {"action_r2": 0.5, "outcome_r2": 0.5 / 0.51}


def test_with_the_true_confounder_the_effect_is_the_true_one(generator: torch.Generator) -> None:
    naive = known(**NAIVE).draw(1)
    right = assume_confounder(naive, BEHAVIOUR, **STRENGTH)
    query = {"state": torch.ones(1), "horizon": 2, "generator": generator}
    before = effect(naive, bwm.do(a=1.0), bwm.do(a=0.0), **query)
    after = effect(right, bwm.do(a=1.0), bwm.do(a=0.0), **query)
    assert before.effect.values.ravel().tolist() == pytest.approx([1.0, 2.05])
    assert after.effect.values.ravel().tolist() == pytest.approx([0.5, 0.95])


def test_mean_and_variance_of_two_steps_are_the_interventional_ones() -> None:
    right = assume_confounder(known(**NAIVE).draw(1), BEHAVIOUR, **STRENGTH)
    one = torch.ones(1, dtype=torch.float64)
    law = right.transition(right.start(one), one)
    assert law.mean.item() == pytest.approx(1.4)
    assert law.variance.item() == pytest.approx(1.01)
    zero, unit = (right.transition(right.start(v * one), one) for v in (0.0, 1.0))
    slope = (unit.mean - zero.mean).item()
    assert slope == pytest.approx(0.9)
    assert zero.mean.item() + slope * 1.4 == pytest.approx(1.76)
    assert slope**2 * 1.01 + 1.01 == pytest.approx(1.8281)


def test_the_worlds_behave_as_the_true_system_in_every_call(generator: torch.Generator) -> None:
    right, true = assume_confounder(known(**NAIVE).draw(1), BEHAVIOUR, **STRENGTH), known(**TRUE).draw(1)
    data = bwm.data.simulate(
        true, torch.randn(5, 1, generator=generator), torch.randn(5, 4, 1, generator=generator), generator=generator
    )
    for found, wanted in zip(right.smooth(data), true.smooth(data), strict=True):
        found, wanted = (v if isinstance(v, torch.Tensor) else v.step for v in (found, wanted))
        torch.testing.assert_close(found, wanted)
    start, action, after = data.states()[:, 0], data.action[:, 0], data.states()[:, 1]
    found, wanted = (w.filter(w.start(start), action, None, after)[1] for w in (right, true))
    torch.testing.assert_close(found, wanted)
    assert right.to(torch.float32).dtype == torch.float32
    assert len(right[[0, 0]]) == 2


def test_no_confounder_and_the_other_sign() -> None:
    naive, one = known(**NAIVE).draw(1), torch.ones(1, dtype=torch.float64)
    for given in ({"action_r2": 0.0, "outcome_r2": 1.0}, {"action_r2": 0.9, "outcome_r2": 0.0}):
        same = assume_confounder(naive, BEHAVIOUR, **given)
        law, plain = (w.transition(w.start(one), one) for w in (same, naive))
        assert (law.mean.item(), law.variance.item()) == (plain.mean.item(), plain.variance.item())
    other = assume_confounder(naive, BEHAVIOUR, **STRENGTH, sign=-1)
    law = other.transition(other.start(one), one)
    assert law.mean.item() == pytest.approx(2.05 + 0.65)
    assert law.variance.item() == pytest.approx(1.01)


def test_strengths_may_differ_between_worlds() -> None:
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: 1.05 * x + p["gain"] * a, schema=line(), parameters={"gain": Normal(1.0, 0.1)}
    )
    g = torch.Generator().manual_seed(0)
    worlds = bwm.KnownDynamics(structure=structure, noise=0.51**0.5).draw(3, generator=g)
    r2 = torch.tensor([0.0, 0.2, 0.8], dtype=torch.float64)
    shifted = assume_confounder(worlds, BEHAVIOUR, action_r2=r2, outcome_r2=0.5)
    one = torch.ones(1, dtype=torch.float64)
    moved = worlds.transition(worlds.start(one), one).mean - shifted.transition(shifted.start(one), one).mean
    expected = [math.sqrt(0.5 * r / (1 - r)) * math.sqrt(0.51) * 1.3 / math.sqrt(2) for r in r2.tolist()]
    assert moved.flatten().tolist() == pytest.approx(expected)
    for index in ([2], [1, 0, 2], [2, 2, 0]):
        law = shifted[index].transition(shifted[index].start(one), one)
        torch.testing.assert_close(law.mean, shifted.transition(shifted.start(one), one).mean[index])
    assert len(shifted.replace(gain=0.0)) == 3
    none = shifted.replace(confounder_gain=0.0)
    torch.testing.assert_close(
        none.transition(none.start(one), one).mean, worlds.transition(worlds.start(one), one).mean
    )


def test_worlds_may_be_corrected_twice() -> None:
    one = torch.ones(1, dtype=torch.float64)
    once = assume_confounder(known(**NAIVE).draw(1), BEHAVIOUR, action_r2=0.2, outcome_r2=0.5)
    twice = assume_confounder(once, BEHAVIOUR, action_r2=0.2, outcome_r2=0.5, sign=-1)
    assert set(twice.parameters) >= {"confounder_gain", "confounder_gain_"}
    same = twice[[0, 0]].replace(confounder_gain_=0.0)
    law, wanted = same.transition(same.start(one), one), once.transition(once.start(one), one)
    torch.testing.assert_close(law.mean[1], wanted.mean[0])


def test_what_makes_no_sense_is_refused() -> None:
    naive = known(**NAIVE)
    worlds = naive.draw(1)
    for given, match in (
        ({"action_r2": 1.0, "outcome_r2": 0.5}, "action_r2"),
        ({"action_r2": 0.5, "outcome_r2": 1.5}, "outcome_r2"),
        ({"action_r2": 0.5, "outcome_r2": 0.5, "sign": 0}, "sign"),
    ):
        with pytest.raises(SpecError, match=match):
            assume_confounder(worlds, BEHAVIOUR, **given)
    with pytest.raises(UnknownVariableError, match="'b'"):
        assume_confounder(worlds, BEHAVIOUR, **STRENGTH, action="b")
    with pytest.raises(SpecError, match="without interventions"):
        assume_confounder(bwm.causal.intervene(worlds, bwm.do(a=1.0)), BEHAVIOUR, **STRENGTH)
    with pytest.raises(SpecError, match="expected state"):
        assume_confounder(c1().draw(1), BEHAVIOUR, **STRENGTH)
    cart = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    behaviour = LinearBehaviour(cart.schema, torch.zeros(4, 1).double(), torch.eye(1).double())
    with pytest.raises(SpecError, match="expected outcome=, one of"):
        assume_confounder(cart.draw(1), behaviour, **STRENGTH)


FLAT = Normal(torch.zeros(1, 1), 10.0)
FAMILIES = {
    "conjugate": lambda: bwm.BayesianDynamics(
        structure=bwm.structures.Linear(line(), A=FLAT, B=FLAT),
        inference=bwm.inference.Conjugate(draws=100),
        noise=HalfNormal(2.0),
    ),
    "Gaussian process": bwm.GaussianProcess,
    "ensemble": lambda: bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(32,)), members=5, epochs=30),
}


class Corrected(bwm.DynamicsModel):
    """A model that draws corrected worlds, to ask for the contract."""

    def __init__(self, inner: bwm.DynamicsModel) -> None:
        self.inner = inner

    @property
    def schema(self) -> bwm.Schema:
        return self.inner.schema

    def fit(self, trajectories: bwm.Trajectories, *, seed: int | None = None, progress: bool = True) -> "Corrected":
        self.inner.fit(trajectories, seed=seed, progress=progress)
        return self

    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> bwm.Worlds:
        return assume_confounder(self.inner.draw(worlds, generator=generator), BEHAVIOUR, **STRENGTH)


@pytest.mark.parametrize("family", ["conjugate", "Gaussian process"])
def test_corrected_worlds_keep_the_contract(family: str, generator: torch.Generator) -> None:
    log = confounded_log(60, 5, generator=generator)
    model = Corrected(FAMILIES[family]()).fit(log, seed=0, progress=False)
    assert bwm.testing.check_model(model, log).failed == ()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_corrected(family: str, generator: torch.Generator) -> None:
    """Within 0.05 standard deviations of the outcome."""
    rows = (60, 10) if family == "Gaussian process" else (400, 10)
    log = confounded_log(*rows, generator=generator)
    worlds = FAMILIES[family]().fit(log, seed=0, progress=False).draw(32, generator=generator)
    right = assume_confounder(worlds, fit_behaviour(log), **STRENGTH)
    found = effect(right, bwm.do(a=1.0), bwm.do(a=0.0), state=torch.zeros(1), horizon=1, generator=generator)
    assert abs(found.effect.item() - 0.5) < 0.05 * float(log.transitions().next_state.std())
