import math

import pytest
import torch
from torch import Tensor

import bayeswm as bwm
from bayeswm.causal import Mechanism, StructuralModel, StructuralWorlds, counterfactual
from tests.causal.dense import conditioned, unrolled
from tests.causal.learned_models import learned, linear
from tests.causal.learned_models import recorded as recorded_slices
from tests.causal.reference_models import c1, c6, line

NAN = float("nan")
A = torch.tensor([[0.8, 0.0], [0.4, 0.5]], dtype=torch.float64)
L = torch.tensor([[1.0, 0.0], [0.5, 0.3]], dtype=torch.float64)


def chain() -> StructuralModel:
    """s = 0.8 s[t-1] + a + e1, q = 0.5 s + 0.5 q[t-1] + 0.3 e2: A and L above."""
    schema = bwm.Schema(state=[bwm.Variable("s"), bwm.Variable("q")], action=[bwm.Variable("a")], time_step=1.0)
    return StructuralModel(
        {
            "s": Mechanism(lambda s, a: 0.8 * s + a, ("s[t-1]", "a"), noise=1.0),
            "q": Mechanism(lambda s, q: 0.5 * s + 0.5 * q, ("s", "q[t-1]"), noise=0.3),
        },
        schema=schema,
    )


def recorded(horizon: int) -> tuple[bwm.Trajectories, Tensor]:
    """An episode of which each value is missing with probability 0.4, and which are not."""
    g = torch.Generator().manual_seed(1)
    action = torch.randn(1, horizon, 1, generator=g, dtype=torch.float64)
    x = bwm.rollout(chain(), torch.ones(1, 2), action, particles=1, generator=g).particles[0, 0]
    known = torch.rand(x.shape, generator=g) > 0.4
    states = torch.cat((torch.ones(1, 1, 2).double(), x.where(known, NAN)), 1)
    return bwm.Trajectories(chain().schema, state=states, action=action, allow_missing=True), known[0]


@pytest.mark.parametrize("horizon", [6, 40])
def test_over_time_against_dense_algebra(horizon: int, generator: torch.Generator) -> None:
    data, known = recorded(horizon)
    push = torch.stack((data.action[0, :, 0], 0.5 * data.action[0, :, 0]), -1)
    start = torch.ones(2, dtype=torch.float64)
    b, G = unrolled(A, L, push, start=start)
    mean, covariance = conditioned(G[known], (data.states()[0, 1:] - b)[known])
    other, G2 = unrolled(A, L, torch.tensor([2.0, 1.0]).double().expand(horizon, 2), start=start)
    found = counterfactual(chain(), data, bwm.do(a=2.0), generator=generator)
    torch.testing.assert_close(found.mean[0], other + G2 @ mean, rtol=0, atol=1e-8)
    spread = torch.einsum("hsi,ij,htj->hst", G2, covariance, G2)
    torch.testing.assert_close(found.predictive.covariance[0], spread, rtol=0, atol=1e-8)
    assert found.noise_size == math.inf
    assert found.replayed is not None
    torch.testing.assert_close(found.replayed.mean[0], b + G @ mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.replayed.mean[0][known], data.states()[0, 1:][known])
    assert float(found.replayed.variance[0][known].max()) < 1e-12
    # a state that is set takes part of the noise out of what follows
    held = counterfactual(chain(), data, bwm.do({"s": 0.0}, steps=3))
    A3, L3, drift = A.repeat(horizon, 1, 1), L.repeat(horizon, 1, 1), push.clone()
    A3[2], L3[2], drift[2] = torch.tensor([[0.0, 0.0], [0.0, 0.5]]), torch.tensor([[0.0, 0.0], [0.0, 0.3]]), 0.0
    b3, G3 = unrolled(A3, L3, drift, start=start)
    torch.testing.assert_close(held.mean[0], b3 + G3 @ mean, rtol=0, atol=1e-8)


@pytest.mark.statistical
def test_paths_are_drawn_from_the_exact_law(generator: torch.Generator) -> None:
    data, _ = recorded(4)
    found = counterfactual(chain(), data, bwm.do(a=0.0), particles=4000, generator=generator)
    paths, sd = found.predictive.particles[0, :, 0], found.variance[0].sqrt()
    noisy = sd > 1e-6
    z = (paths.mean(0) - found.mean[0]) / (sd / 4000**0.5)
    assert bool((z[noisy].abs() < 4.5).all())
    z = (paths.var(0) / found.variance[0] - 1) / (2 / 4000) ** 0.5
    assert bool((z[noisy].abs() < 4.5).all())


def test_a_hidden_mediator_with_an_interaction() -> None:
    """C6 with X = 1, Y = 3 seen: Y = 1 + 0.75 M + U, M = 3 + V; V has precision 1 + 0.5625."""
    data = bwm.Trajectories(c6().schema, state=[[[0.0] * 3, [1.0, NAN, 3.0]]], allow_missing=True)
    v = 0.75 * (3 - 1 - 2.25) / 1.5625
    found = counterfactual(c6(), data, bwm.do(X=0.0))
    # under X = 0: M = 1 + V, Y = 0.5 + 0.5 V + U with U = -0.25 - 0.75 V
    assert found.mean[0, 0].tolist() == pytest.approx([0.0, 1 + v, 0.25 - 0.25 * v])
    assert found.variance[0, 0].tolist() == pytest.approx([0.0, 1 / 1.5625, 0.0625 / 1.5625])
    same = counterfactual(c6(), data, bwm.do(X=1.0))
    assert same.mean[0, 0].tolist() == pytest.approx([1.0, 3 + v, 3.0])
    assert same.variance[0, 0].tolist() == pytest.approx([0.0, 1 / 1.5625, 0.0], abs=1e-12)


@pytest.mark.statistical
def test_a_branch_that_is_not_affine_is_drawn(generator: torch.Generator) -> None:
    """The noise has a closed form, what the intervention makes of it has none."""
    data = bwm.Trajectories(c6().schema, state=[[[0.0] * 3, [1.0, NAN, 3.0]]], allow_missing=True)
    bent = bwm.do(Y=Mechanism(lambda M: M.square(), noise=0.0))
    found = counterfactual(c6(), data, bent, particles=20_000, generator=generator)
    mean, variance = 3 + 0.75 * (3 - 1 - 2.25) / 1.5625, 1 / 1.5625
    # moments of the square of a normal number
    expected, spread = mean**2 + variance, 2 * variance**2 + 4 * variance * mean**2
    assert abs(found.mean[0, 0, 2].item() - expected) / (spread / 20_000) ** 0.5 < 4.5
    with pytest.raises(bwm.SpecError, match="generator="):
        counterfactual(c6(), data, bent)


@pytest.mark.statistical
def test_noise_without_a_closed_form_is_drawn_and_says_how_well(generator: torch.Generator) -> None:
    model = StructuralModel({"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X: X * X, noise=0.5)})
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [NAN, 1.0]]], allow_missing=True)
    found = counterfactual(model, data, bwm.do(X=2.0), particles=2000, generator=generator)
    x = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    weight = torch.softmax(-0.5 * x.square() - 0.5 * ((1 - x.square()) / 0.5).square(), 0)
    values = 4 + 1 - x.square()
    mean = float(weight @ values)
    sd = float(weight @ (values - mean).square()) ** 0.5
    size = min(found.noise_size, 2000.0)
    assert 100 < size < math.inf
    assert "draws of the noise" in repr(found)
    assert abs(found.mean[0, 0, 1].item() - mean) / sd < 4.5 / size**0.5
    assert abs(found.variance[0, 0, 1].item() / sd**2 - 1) < 0.5


def test_worlds_are_weighed_by_what_was_recorded() -> None:
    """b = 0 or 1 in Y = b X + U, with Y = 2 seen: densities of N(0, 1) and N(0, 2)."""
    from torch.distributions import Normal

    model = StructuralModel(
        {"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X, b: b * X, noise=1.0)}, parameters={"b": 0.0}
    )
    given = {"b": torch.tensor([0.0, 1.0]).double()}
    both = StructuralWorlds(model.mechanisms, model.schema, given, log_weight=torch.zeros(2), exhaustive=True)
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [NAN, 2.0]]], allow_missing=True)
    found = counterfactual(both, data, bwm.do(X=3.0))
    expected = Normal(0.0, torch.tensor([1.0, 2.0**0.5]).double()).log_prob(torch.tensor(2.0)).softmax(0)
    torch.testing.assert_close(found.predictive.weight, expected)
    # b = 0: Y = U = 2; b = 1: X ~ N(1, 0.5), so that Y = 3 + 2 - X has mean 4
    assert found.mean[0, 0, 1].item() == pytest.approx(float(expected @ torch.tensor([2.0, 4.0]).double()))


def test_learned_mechanisms_leave_a_closed_form_too() -> None:
    """C1 learned: with X and Y seen, Y under do(x') is Y + b (x' - X) in each world, whatever Z was."""
    model = learned(linear(), {"Y": ("X", "Z"), "X": ("Z",), "Z": ()}).fit(recorded_slices(c1(), 500), seed=0)
    worlds = model.draw(5, generator=torch.Generator().manual_seed(0))
    data = bwm.Trajectories(c1().schema, state=[[[0.0] * 3, [1.0, 1.0, NAN]]], allow_missing=True)
    found = counterfactual(worlds, data, bwm.do(X=-1.0), in_training=True)
    slope = worlds.parameters["Y.B"].flatten(1)[:, 0] if "Y.B" in worlds.parameters else None
    assert found.noise_size == math.inf
    assert slope is not None
    each = torch.stack([law.mean[:, 0, 0, 0] for law in found.predictive.laws])[0]
    torch.testing.assert_close(each, 1 - 2 * slope)
    assert float(found.predictive.laws[0].variance[..., 0].max()) < 1e-20


def test_episodes_of_unequal_length_with_gaps() -> None:
    data, _ = recorded(6)
    both = bwm.Trajectories(
        chain().schema,
        state=[data.states()[0], data.states()[0, :4]],
        action=[data.action[0], data.action[0, :3]],
        allow_missing=True,
    )
    found = counterfactual(chain(), both, bwm.do(a=2.0))
    for row, horizon in ((0, 6), (1, 3)):
        alone = counterfactual(chain(), both[row], bwm.do(a=2.0))
        torch.testing.assert_close(found.mean[row, :horizon], alone.mean[0])
        torch.testing.assert_close(found.variance[row, :horizon], alone.variance[0])
    assert bool(found.mean[1, 3:].isnan().all())
    assert bool(found.difference[1, 3:].isnan().all())


def test_hidden_episodes_of_unequal_length() -> None:
    structure = bwm.structures.Linear(line(), A=0.8, B=0.5)
    model = bwm.KnownDynamics(structure=structure, noise=1.0, sensor_noise=0.5)
    states = [[[1.0], [1.0], [0.5], [0.9]], [[0.3], [1.0]]]
    both = bwm.Trajectories(line(), state=states, action=[[[0.0]] * 3, [[1.0]]])
    found = counterfactual(model, both, bwm.do(a=2.0))
    for row, horizon in ((0, 3), (1, 1)):
        alone = counterfactual(model, both[row], bwm.do(a=2.0))
        torch.testing.assert_close(found.mean[row, :horizon], alone.mean[0])
        torch.testing.assert_close(found.variance[row, :horizon], alone.variance[0])
    assert bool(found.variance[1, 1:].isnan().all())


def test_single_precision_and_several_worlds() -> None:
    model = StructuralModel(
        {"X": Mechanism(lambda: 0.0, noise=1.0), "Y": Mechanism(lambda X, b: b * X, noise=0.5)},
        parameters={"b": 0.0},
        dtype=torch.float32,
    )
    given = {"b": torch.tensor([1.0, 2.0, 3.0])}
    worlds = StructuralWorlds(
        model.mechanisms, model.schema, given, log_weight=torch.zeros(3), exhaustive=True, dtype=torch.float32
    )
    data = bwm.Trajectories(model.schema, state=[[[0.0, 0.0], [NAN, 2.0]]], allow_missing=True)
    found = counterfactual(worlds, data, bwm.do(X=1.0), in_training=True)
    assert found.noise_size == math.inf
    assert found.mean.dtype == torch.float32
    # X has precision 1 + 4 b^2; Y = 2 + b (1 - X)
    b = torch.tensor([1.0, 2.0, 3.0])
    precision = 1 + 4 * b.square()
    (law,) = found.predictive.laws
    torch.testing.assert_close(law.mean[:, 0, 0, 1], 2 + b * (1 - 8 * b / precision), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(law.variance[:, 0, 0, 1], b.square() / precision, rtol=1e-4, atol=1e-5)
