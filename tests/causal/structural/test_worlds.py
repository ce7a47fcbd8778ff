import itertools
from typing import Any

import pytest
import torch
from torch.distributions import LogNormal, Normal, Uniform

import bayeswm as bwm
from bayeswm.base import MultivariateGaussian, StructureWorlds
from bayeswm.causal import Mechanism, StructuralModel, intervene
from tests.causal.reference_models import EMPTY, c1, c2, c5

DO = [
    (bwm.do(X=1.0), 2.0, 9.25),
    (bwm.do(X=bwm.causal.shift(1.0)), 2.0, 5.25),
    (bwm.do(X=Normal(0.0, 2.0)), 0.0, 25.25),
    (bwm.do(X=Mechanism(lambda: 0.0, noise=1.0)), 0.0, 13.25),
    (bwm.do(X=lambda state, step: 1.5 * state[..., 2]), 0.0, 0.25),
    (bwm.do(X=Mechanism(lambda Z: 1.5 * Z)), 0.0, 0.25),
    (bwm.do({"noise.X": 1.0}), 2.0, 1.25),
    (bwm.do({"noise.X": bwm.causal.shift(1.0)}), 2.0, 5.25),
    # X = Z + 2 z and Y = 2 X - 3 Z + 0.5 e = -Z + 4 z + 0.5 e
    (bwm.do({"noise.X": Normal(0.0, 2.0)}), 0.0, 17.25),
    (bwm.do({"noise.X": Normal(1.5, 2.0)}), 3.0, 17.25),
    (bwm.do({"noise.X": Normal(1.5, 2.0), "X": bwm.causal.shift(1.0)}), 5.0, 17.25),
]


def one_slice(model: bwm.DynamicsModel, *interventions: bwm.causal.Intervention) -> bwm.Predictive:
    return intervene(model, *interventions).predictive(torch.zeros(model.schema.state.size), EMPTY)


@pytest.mark.parametrize(("intervention", "mean", "variance"), DO)
def test_every_kind_of_intervention_inside_a_slice_is_exact(
    intervention: bwm.causal.Intervention, mean: float, variance: float
) -> None:
    p = one_slice(c1(), intervention)
    assert p.mean[0, 0].item() == pytest.approx(mean, abs=1e-9)
    assert p.variance[0, 0].item() == pytest.approx(variance, abs=1e-9)


@pytest.mark.parametrize(
    ("values", "mean", "variance"),
    [
        ((Normal(5.0, 2.0), 1.0), 2.0, 1.25),
        ((1.0, 2.0), 4.0, 1.25),
        ((1.0, bwm.causal.shift(0.5)), 3.0, 1.25),
        ((bwm.causal.shift(0.5), 1.0), 2.0, 1.25),
        ((1.0, Normal(0.0, 2.0), bwm.causal.shift(0.5)), 1.0, 17.25),
        ((Uniform(0.0, 1.0), Normal(0.0, 2.0)), 0.0, 17.25),
    ],
)
def test_interventions_on_one_noise_are_applied_in_turn(values: tuple[Any, ...], mean: float, variance: float) -> None:
    p = one_slice(c1(), *(bwm.do({"noise.X": v}) for v in values))
    assert p.mean[0, 0].item() == pytest.approx(mean, abs=1e-9)
    assert p.variance[0, 0].item() == pytest.approx(variance, abs=1e-9)


def test_a_normal_law_of_noise_keeps_density_and_inverse(generator: torch.Generator) -> None:
    start = torch.zeros(1, 1, 3).double()
    law = intervene(c1(), bwm.do({"noise.X": Normal(0.5, 2.0)})).draw(1).transition(start, EMPTY.double())
    noise = torch.randn(1, 1, 3, generator=generator, dtype=torch.float64)
    x = law.push(noise)
    torch.testing.assert_close(law.abduct(x), noise)
    joint = MultivariateGaussian(law.mean, torch.linalg.cholesky(law.covariance))
    torch.testing.assert_close(law.log_prob(x), joint.log_prob(x))
    assert x[0, 0, 1].item() == pytest.approx((x[0, 0, 2] + 0.5 + 2 * noise[0, 0, 1]).item())


def test_a_law_of_noise_that_is_not_normal(generator: torch.Generator) -> None:
    start = torch.zeros(1, 1, 3).double()
    law = intervene(c1(), bwm.do({"noise.X": LogNormal(0.0, 0.5)})).draw(1).transition(start, EMPTY.double())
    mean, variance = LogNormal(0.0, 0.5).mean.item(), LogNormal(0.0, 0.5).variance.item()
    # X = Z + u and Y = -Z + 2 u + 0.5 e, u independent of Z
    torch.testing.assert_close(law.mean[0, 0], torch.tensor([2 * mean, mean, 0.0]).double(), rtol=1e-6, atol=1e-9)
    cov = torch.tensor(
        [[4 * variance + 1.25, 2 * variance - 1, -1.0], [2 * variance - 1, variance + 1, 1.0], [-1.0, 1.0, 1.0]]
    )
    torch.testing.assert_close(law.covariance[0, 0], cov.double(), rtol=1e-5, atol=1e-9)
    noise = torch.randn(1, 1, 3, generator=generator, dtype=torch.float64)
    x = law.push(noise)[0, 0]
    assert x[1].item() == pytest.approx((x[2] + (0.5 * noise[0, 0, 1]).exp()).item(), rel=1e-6)
    with pytest.raises(bwm.SpecError, match="joint density"):
        law.log_prob(x.view(1, 1, 3))
    with pytest.raises(bwm.SpecError, match="normal noise for a density, got noise"):
        law.log_prob(x.view(1, 1, 3), marginal=True)
    with pytest.raises(bwm.NotInvertible, match="additive noise"):
        law.abduct(x.view(1, 1, 3))
    set_by_hand = intervene(c1(), bwm.do({"noise.X": LogNormal(0.0, 0.5), "X": 1.0})).draw(1)
    y = set_by_hand.transition(start, EMPTY.double())
    assert y.log_prob(torch.zeros(1, 1, 3).double(), marginal=True)[0, 0, 2].item() == pytest.approx(-0.9189, abs=1e-4)


def test_noise_as_a_function_of_the_slice_before() -> None:
    start = torch.tensor([0.0, 0.0, 2.0])
    p = one_slice(c1(), bwm.do({"noise.X": 1.0}))
    assert p.variance[0, 1].item() == pytest.approx(1.0)
    # s = 0.9 s[t-1] + 0.5 a + e + 0.1 noise, the noise is 3 s[t-1] in step 0
    done = intervene(c2(), bwm.do({"noise.s": lambda state, step: 3.0 * state[..., 2] + step}))
    plain, found = (m.predictive(start, EMPTY) for m in (c2(), done))
    assert (found.mean - plain.mean)[0].tolist() == pytest.approx([0.0, 0.0, 0.6])
    assert (plain.variance - found.variance)[0].tolist() == pytest.approx([0.0, 0.0, 0.01])
    with pytest.raises(bwm.SpecError, match="without a past"):
        one_slice(c1(), bwm.do({"noise.X": lambda state, step: state[..., 0]}))


def test_seeing_is_not_doing() -> None:
    law = c1().draw(1).transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    cov = law.covariance[0, 0]
    assert (cov[0, 1] / cov[1, 1]).item() == pytest.approx(0.5)
    assert (cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]).item() == pytest.approx(4.75)


def test_an_iid_confounder_of_a_logged_action() -> None:
    start = torch.tensor([0.0, 0.0, 1.0])
    model = c2()
    done = intervene(model, bwm.do(a=1.0))
    p = done.predictive(start, EMPTY)
    assert p.mean[0, 2].item() == pytest.approx(1.4)
    assert p.variance[0, 2].item() == pytest.approx(1.01)
    cov = model.draw(1).transition(start.double().view(1, 1, 3), EMPTY.double())
    mean, cov = cov.mean[0, 0], cov.covariance[0, 0]
    assert (mean[2] + cov[2, 1] / cov[1, 1] * (1 - mean[1])).item() == pytest.approx(2.05)
    assert (cov[2, 2] - cov[2, 1] ** 2 / cov[1, 1]).item() == pytest.approx(0.51)
    r = bwm.propagate(done, start, horizon=2)
    assert r.mean[1, 2].item() == pytest.approx(1.76, abs=1e-6)
    assert r.variance[1, 2].item() == pytest.approx(1.8281, abs=1e-6)


def test_the_g_formula() -> None:
    p = one_slice(c5(), bwm.do(A0=1.0, A1=0.0))
    assert p.mean[0, 4].item() == pytest.approx(1.0)
    assert p.variance[0, 4].item() == pytest.approx(6.0)


def test_a_slice_that_is_one_block_answers_another_question() -> None:
    """C1 as one block: X is overwritten after the step, which its effect within the slice never sees."""
    schema = c1().schema

    root = torch.tensor([[0.5, 2.0, -1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def law(mean: torch.Tensor, scale: object, *, parameters: object, inputs: object) -> MultivariateGaussian:
        return MultivariateGaussian(mean, torch.linalg.cholesky(root @ root.T))

    structure = bwm.structures.FromFunction(lambda s, a: 0 * s, schema=schema)
    block = StructureWorlds(structure, schema, {}, log_weight=torch.zeros(1), exhaustive=True, law=law, noisy=None)
    done = intervene(block, bwm.do(X=1.0))
    assert done.at_boundary == ("X",)
    found = done.transition(torch.zeros(1, 1, 3).double(), EMPTY.double())
    assert found.mean[0, 0].tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-9)
    assert found.variance[0, 0].tolist() == pytest.approx([5.25, 0.0, 1.0], abs=1e-9)


def test_of_several_interventions_on_one_variable_each_acts_on_what_the_last_left() -> None:
    """Two values that contradict each other: the later one holds."""
    for interventions, mean in (
        ((bwm.do(X=5.0), bwm.do(X=1.0)), 1.0),
        ((bwm.do(X=1.0), bwm.do(X=bwm.causal.shift(0.5))), 1.5),
        ((bwm.do(X=bwm.causal.shift(0.5)), bwm.do(X=1.0)), 1.0),
        ((bwm.do(X=5.0), bwm.do(X=bwm.causal.clamp(high=1.0))), 1.0),
    ):
        p = one_slice(c1(), *interventions)
        assert p.mean[0].tolist() == pytest.approx([2 * mean, mean, 0.0])
        assert p.variance[0].tolist() == pytest.approx([9.25, 0.0, 1.0])


def test_the_cost_inside_a_slice_grows_with_the_number_of_interventions() -> None:
    """Calls are counted: each mechanism runs once, however many variables are set."""
    calls = 0

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return torch.sin(x)

    names = [f"x{i}" for i in range(13)]
    model = StructuralModel(
        {names[0]: Mechanism(lambda: 0.0, noise=1.0)}
        | {b: Mechanism(counted, (a,), noise=1.0) for a, b in itertools.pairwise(names)}
    )
    start = torch.zeros(1, 5, 13, dtype=torch.float64)

    def cost(*interventions: bwm.causal.Intervention) -> int:
        nonlocal calls
        law = intervene(model, *interventions).draw(1).transition(start, EMPTY.double())
        calls = 0
        law.push(torch.randn(1, 5, law.noise_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
        return calls

    shifts = [bwm.do({name: bwm.causal.shift(0.1)}) for name in names[1:]]
    hard = [bwm.do({name: 0.1}) for name in names[1:]]
    assert [cost(*shifts[:n]) for n in (0, 1, 6, 12)] == [12] * 4
    assert [cost(*hard[:n]) for n in (0, 1, 6, 12)] == [12] * 4
