import numpy as np
import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base import Gaussian, StructureWorlds
from bayeswm.causal import Mechanism, StructuralModel, counterfactual, intervene
from bayeswm.causal.interventions.boundary_law import overwritten
from bayeswm.causal.interventions.overwrite import Overwrite
from tests.causal.reference_models import c1, c3, cart, line, observed


def seen() -> bwm.Trajectories:
    return bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5], [0.9]]], action=[[[0.0]] * 3])


def test_a_counterfactual_of_a_slice_is_a_point() -> None:
    found = counterfactual(c1(), observed(c1(), [[2.0, 1.0, 0.5]]), bwm.do(X=-1.0))
    torch.testing.assert_close(
        found.mean[0, 0], torch.tensor([-2.0, -1.0, 0.5], dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert float(found.variance.abs().max()) == 0


def test_noise_is_shared_between_the_branches() -> None:
    plain = c1().draw(1)
    start, none = torch.zeros(1, 1, 3).double(), torch.zeros(0).double()
    first = plain.transition(start, none)
    second = intervene(plain, bwm.do(X=1.0)).transition(start, none)
    eye, zero = torch.eye(3).double(), torch.zeros(1, 3).double()
    a, b = (law.push(eye)[0, :, 0] - law.push(zero)[0, :, 0] for law in (first, second))
    assert float((a @ b) / (a.norm() * b.norm())) == pytest.approx(0.466372, abs=1e-6)
    # were the noise of Y another one in each branch, only Z would join them
    assert float((a[1:] @ b[1:]) / (a.norm() * b.norm())) == pytest.approx(0.430498, abs=1e-6)


def test_a_counterfactual_in_time() -> None:
    worlds = c3().draw(1)
    torch.testing.assert_close(
        worlds.smooth(seen())[0].step.flatten(), torch.tensor([0.2, -0.3, 0.5], dtype=torch.float64)
    )
    found = counterfactual(c3(), seen(), bwm.do({"a": 1.0}, steps=0))
    torch.testing.assert_close(
        found.mean.flatten(), torch.tensor([1.5, 0.9, 1.22], dtype=torch.float64), rtol=0, atol=1e-9
    )
    assert float(found.variance.abs().max()) == 0
    fresh = bwm.propagate(intervene(c3(), bwm.do({"a": 1.0}, steps=0)), torch.tensor([1.0]), torch.zeros(3, 1))
    torch.testing.assert_close(
        fresh.mean.flatten(), torch.tensor([1.3, 1.04, 0.832], dtype=torch.float64), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        fresh.variance.flatten(), torch.tensor([1.0, 1.64, 2.0496], dtype=torch.float64), rtol=0, atol=1e-6
    )


def uncertain(*, at: float = 1.0, sd: float = 1.0) -> StructureWorlds:
    """s1 = theta a + w in worlds at the Gauss-Hermite points of theta ~ N(1, 1): integrals over them are exact."""
    nodes, weight = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(60))
    structure = bwm.structures.FromFunction(product, schema=line(), parameters={"theta": Normal(1.0, 1.0)})
    return StructureWorlds(
        structure,
        line(),
        {"theta": at + sd * nodes, "process_noise": torch.ones(60, 1).double()},
        log_weight=weight.log(),
        exhaustive=True,
    )


def product(state: torch.Tensor, action: torch.Tensor, context: object, p: dict[str, torch.Tensor]) -> torch.Tensor:
    return p["theta"] * action + 0 * state


def test_the_parameter_is_shared_between_the_branches() -> None:
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    found = counterfactual(uncertain(), factual, bwm.do(a=3.0))
    assert found.mean.item() == pytest.approx(5.0, abs=1e-6)
    assert found.variance.item() == pytest.approx(2.0, abs=1e-6)
    same = counterfactual(uncertain(), factual, bwm.do(a=1.0))
    assert same.mean.item() == pytest.approx(2.0, abs=1e-9)
    assert same.variance.item() == pytest.approx(0.0, abs=1e-9)
    # already learned from: the worlds are the posterior
    again = counterfactual(uncertain(at=1.5, sd=0.5**0.5), factual, bwm.do(a=3.0), in_training=True)
    assert again.mean.item() == pytest.approx(5.0, abs=1e-6)
    assert again.variance.item() == pytest.approx(2.0, abs=1e-6)
    assert (again.in_training, again.effective_share) == (True, 1.0)
    fresh = intervene(found.worlds.inner, bwm.do(a=3.0))
    p = bwm.rollout(fresh, torch.zeros(1), torch.zeros(1, 1), generator=torch.Generator().manual_seed(0))
    assert p.mean.item() == pytest.approx(4.5, abs=1e-6)
    assert p.variance.item() == pytest.approx(5.5, abs=1e-6)


def test_a_model_conditions_itself() -> None:
    structure = bwm.structures.FromFunction(product, schema=line(), parameters={"theta": Normal(1.0, 1.0)})
    factual = bwm.Trajectories(line(), state=[[[0.0], [2.0]]], action=[[[1.0]]])
    model = bwm.BayesianDynamics(structure=structure, noise=1.0, inference=bwm.inference.Conjugate(draws=2000))
    model.fit(factual, seed=0, progress=False)
    g = torch.Generator().manual_seed(0)
    found = counterfactual(model, factual, bwm.do(a=3.0), in_training=True, worlds=2000, generator=g)
    # 2 + 2 theta with theta ~ N(1.5, 0.5)
    assert abs(found.mean.item() - 5.0) / (2 / 2000) ** 0.5 < 4.5
    assert abs(found.variance.item() / 2.0 - 1) / (2 / 2000) ** 0.5 < 4.5
    twice = counterfactual(model, factual, bwm.do(a=3.0), worlds=2000, generator=g)
    # counted twice: theta ~ N(5/3, 1/3)
    assert abs(twice.mean.item() - (2 + 10 / 3)) / (4 / 3 / 2000) ** 0.5 < 4.5


def test_a_partly_observed_slice() -> None:
    """With only (X, Y) = (1, 1) seen, Y under do(x') is 1 + 2 (x' - 1) whatever Z was; Z keeps its posterior."""
    factual = bwm.Trajectories(c1().schema, state=[[[0.0] * 3, [1.0, 1.0, float("nan")]]], allow_missing=True)
    for x in (-1.0, 0.0, 4.0):
        found = counterfactual(c1(), factual, bwm.do(X=x))
        assert found.mean[0, 0].tolist() == pytest.approx([1 + 2 * (x - 1), x, 13 / 38], abs=1e-12)
        assert found.variance[0, 0].tolist() == pytest.approx([0.0, 0.0, 1 / 38], abs=1e-12)
    for z in (-2.0, 0.3, 1.7):
        found = counterfactual(c1(), observed(c1(), [[1.0, 1.0, z]]), bwm.do(X=-1.0))
        assert found.mean[0, 0, 0].item() == pytest.approx(-3.0)


def test_episodes_of_unequal_length() -> None:
    nan = float("nan")
    states = [[[1.0], [1.0], [0.5], [0.9]], [[1.0], [1.0]]]
    both = bwm.Trajectories(line(), state=states, action=[[[0.0]] * 3, [[0.0]]])
    found = counterfactual(c3(), both, bwm.do({"a": 1.0}, steps=0))
    expected = torch.tensor([[1.5, 0.9, 1.22], [1.5, nan, nan]], dtype=torch.float64)
    torch.testing.assert_close(found.mean[..., 0], expected, equal_nan=True)
    torch.testing.assert_close(found.variance[..., 0], 0 * expected, equal_nan=True)
    moved = torch.tensor([[0.5, 0.4, 0.32], [0.5, nan, nan]], dtype=torch.float64)
    torch.testing.assert_close(found.difference[..., 0], moved, equal_nan=True)
    # worlds are weighed by all that came
    weighed = counterfactual(uncertain(), both, bwm.do(a=0.0), in_training=True)
    assert bool(weighed.mean[1, 1:].isnan().all())
    one = counterfactual(uncertain(), both[0], bwm.do({"a": 3.0}, steps=2))
    two = counterfactual(uncertain(), both, bwm.do({"a": 3.0}, steps=2))
    torch.testing.assert_close(one.mean[0], two.mean[0])


def test_a_stochastic_counterfactual(generator: torch.Generator) -> None:
    found = counterfactual(c1(), observed(c1(), [[2.0, 1.0, 0.5]]), bwm.do(X=Normal(0.0, 2.0)), generator=generator)
    # Y = 2 X + 0 with the noise that happened
    assert found.mean[0, 0, 0].item() == pytest.approx(0.0, abs=1e-9)
    assert found.variance[0, 0, 0].item() == pytest.approx(16.0, abs=1e-9)
    actions = counterfactual(c3(), seen(), bwm.do(a=Normal(0.0, 1.0)), particles=4000, generator=generator)
    spread = 0.25 * torch.tensor([1.0, 1.64, 2.0496])
    z = (actions.predictive.particles[0, :, 0, :, 0].var(0) / spread - 1) / (2 / 4000) ** 0.5
    assert bool((z.abs() < 4.5).all())
    mean = actions.predictive.particles[0, :, 0, :, 0].mean(0) - torch.tensor([1.0, 0.5, 0.9])
    assert bool((mean.abs() / (spread / 4000).sqrt() < 4.5).all())


def test_replaced_mechanisms_keep_their_noise() -> None:
    factual = observed(c1(), [[2.0, 1.0, 0.5]])
    found = counterfactual(c1(), factual, bwm.do(X=Mechanism(lambda Z: 3 * Z, noise=2.0)))
    # the noise of X was 0.5, and of Y 1.5 / 0.5
    assert found.mean[0, 0].tolist() == pytest.approx([2 * 2.5 - 1.5 + 1.5, 2.5, 0.5])


def test_contexts_parameters_and_states_of_one_block() -> None:
    model, g = cart(), torch.Generator().manual_seed(0)
    start, force, wind = torch.zeros(3), torch.randn(6, 1, generator=g), torch.ones(1)
    x = bwm.rollout(model, start, force, context=wind, particles=1, generator=g).particles[0, 0]
    factual = bwm.Trajectories(model.schema, state=[torch.cat((start[None], x))], action=[force], context=[wind])
    light = counterfactual(model, factual, bwm.do(mass=1.0))
    first = float(x[0, 1]) + 0.5 * float(force[0] + 1)
    assert light.mean[0, 0, 1].item() == pytest.approx(first)
    calm = counterfactual(model, factual, bwm.do({"wind": 0.0}, steps=slice(2, 4)))
    torch.testing.assert_close(calm.difference[0, :2], torch.zeros(2, 3).double())
    torch.testing.assert_close(calm.difference[0, 2:5, 1], torch.tensor([-0.5, -0.95, -0.855], dtype=torch.float64))
    still = counterfactual(model, factual, bwm.do({"v": 0.0}, steps=3))
    torch.testing.assert_close(still.mean[0, 3, 0], x[2, 0] + (x[3, 0] - x[2, 0] - x[2, 1]))
    assert float(calm.variance.max()) == 0


def test_what_cannot_be_answered_is_refused() -> None:
    structure = bwm.structures.FromFunction(product, schema=line(), parameters={"theta": Normal(1.0, 1.0)})
    prior = bwm.KnownDynamics(structure=structure, noise=1.0)
    far = bwm.Trajectories(line(), state=[[[0.0], [40.0]]], action=[[[1.0]]])
    with pytest.raises(bwm.FitError, match="effective share"):
        counterfactual(prior.draw(200, generator=torch.Generator().manual_seed(0)), far, bwm.do(a=3.0))
    silent = bwm.KnownDynamics(structure=c3().structure)
    with pytest.raises(bwm.NotInvertible):
        counterfactual(silent, seen(), bwm.do(a=1.0))
    with pytest.raises(bwm.SpecError, match="under interventions"):
        counterfactual(intervene(c3(), bwm.do(a=1.0)), seen(), bwm.do(a=1.0))
    with pytest.raises(bwm.SpecError, match=r"within 0\.\.2"):
        counterfactual(c3(), seen(), bwm.do({"a": 1.0}, steps=3))
    with pytest.raises(bwm.UnknownVariableError):
        counterfactual(c3(), seen(), bwm.do(b=1.0))


def test_a_clamped_variable_has_no_inverse() -> None:
    clamped = intervene(c1().draw(1), bwm.do(X=bwm.causal.clamp(low=0.0)))
    with pytest.raises(bwm.NotInvertible, match="additive noise"):
        clamped.smooth(observed(c1(), [[2.0, 1.0, 0.5]]))


def test_members_of_an_ensemble_answer(generator: torch.Generator) -> None:
    g = torch.Generator().manual_seed(0)
    start, actions = torch.randn(8, 1, generator=g), torch.randn(8, 10, 1, generator=g)
    x = bwm.rollout(c3(noise=0.1), start, actions, particles=1, generator=g).particles[0, 0]
    data = bwm.Trajectories(line(), state=torch.cat((start[:, None], x), 1), action=actions)
    model = bwm.DeepEnsemble(structure=bwm.structures.MLP(hidden=(8,)), members=2, epochs=3)
    model.fit(data, seed=0, progress=False)
    same = counterfactual(model, data, bwm.do(a=lambda s, t: actions[:, t, 0]), in_training=True, generator=generator)
    torch.testing.assert_close(same.mean, x.to(same.mean), rtol=1e-3, atol=1e-3)
    assert float(same.variance.max()) < 1e-6


def hidden() -> tuple[bwm.KnownDynamics, bwm.Trajectories]:
    """s' = 0.8 s + 0.5 a + w seen through noise of 0.5."""
    model = bwm.KnownDynamics(structure=c3().structure, noise=1.0, sensor_noise=0.5)
    return model, bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5], [0.9]]], action=[[[0.0]] * 3])


def test_a_hidden_state_keeps_the_posterior_of_its_noise(generator: torch.Generator) -> None:
    model, data = hidden()
    found = counterfactual(model, data, bwm.do({"a": 1.0}, steps=0), particles=4000, generator=generator)
    belief = model.draw(1).smoothed(data)  # pyright: ignore[reportAttributeAccessIssue]
    mean = belief.mean[0, 0, 0, 1:, 0]
    variance = belief.covariance[0, 0, 0, 1:, 0, 0]
    moved = torch.tensor([0.5, 0.4, 0.32], dtype=torch.float64)
    torch.testing.assert_close(found.difference[0, :, 0], moved)
    assert bool(((found.mean[0, :, 0] - mean - moved).abs() / (variance / 4000).sqrt() < 4.5).all())
    assert bool(((found.variance[0, :, 0] / variance - 1).abs() / (2 / 4000) ** 0.5 < 4.5).all())
    set_to = counterfactual(model, data, bwm.do({"s": 2.0}, steps=1), particles=4000, generator=generator)
    assert set_to.mean[0, 0, 0].item() == pytest.approx(2.0)
    # what follows has the noise that is believed: s[2] = s[2] believed + 0.8 (2 - s[1] believed)
    at, other = set_to.predictive.particles[0, :, 0, :, 0], set_to.replayed.particles[0, :, 0, :, 0]  # pyright: ignore[reportOptionalMemberAccess]
    torch.testing.assert_close(at[:, 1], other[:, 1] + 0.8 * (2 - other[:, 0]))


def test_a_mechanism_with_a_threshold_is_inverted_exactly() -> None:
    """No moments are asked for, so nothing is warned of."""
    model = StructuralModel(
        {"x": Mechanism(lambda: 0.0, noise=1.0), "y": Mechanism(lambda x: (x > 0.1).double(), noise=0.1)}
    )
    found = counterfactual(model, observed(model, [[0.5, 1.2]]), bwm.do(x=-1.0))
    assert found.mean[0, 0].tolist() == pytest.approx([-1.0, 0.2])


def test_a_law_that_is_no_bijection_is_refused() -> None:
    """A system that keeps its own state above 0 does not say what noise led to 0."""
    (kept,) = bwm.do(s=bwm.causal.clamp(low=0.0)).assignments

    def law(mean: torch.Tensor, scale: object, *, parameters: object, inputs: object) -> bwm.base.Law:
        return overwritten(Gaussian(mean, torch.ones(1)), Overwrite([kept], ("s",), step=1, drawn={}))

    structure = bwm.structures.FromFunction(lambda s, a: s + a, schema=line())
    worlds = StructureWorlds(structure, line(), {}, log_weight=torch.zeros(1), exhaustive=True, law=law)
    with pytest.raises(bwm.NotInvertible, match="lost"):
        counterfactual(worlds, seen(), bwm.do(a=1.0))


def test_classes_have_no_counterfactual() -> None:
    schema = bwm.Schema(state=[bwm.Variable("gear", kind=bwm.categorical(3))], time_step=1.0)
    model = bwm.KnownDynamics(structure=bwm.structures.FromFunction(lambda x, a: x, schema=schema))
    with pytest.raises(bwm.NotInvertible, match="causation_bounds"):
        counterfactual(model, bwm.Trajectories(schema, state=[[[0.0], [1.0]]]), bwm.do(gear=2.0))


def test_episodes_are_trajectories():
    with pytest.raises(bwm.SpecError, match="recorded episodes as Trajectories, got Tensor"):
        counterfactual(c3(), torch.zeros(2, 1), bwm.do(a=1.0))  # pyright: ignore[reportArgumentType]
