"""PIT and CRPS of predictives, one value for each window, step and variable."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import bayeswm as bwm
from bayeswm.base.laws import Gaussian
from bayeswm.base.schema import Variables
from bayeswm.diagnostics import crps, crps_gaussian, crps_mixture, pit

X = Variables([bwm.Variable("x", unit="m")])


class LogNormal(Gaussian):
    """The law of exp(x) for a Gaussian x: only what a PIT needs."""

    def cdf(self, state: Tensor) -> Tensor:
        return super().cdf(state.log())


def mixture(mean: Tensor, scale: Tensor, *, exhaustive: bool = True, kind: type[Gaussian] = Gaussian) -> bwm.Predictive:
    """One step of one variable: a Gaussian in each world, (worlds,) means and scales."""
    worlds = len(mean)
    law = kind(mean.view(worlds, 1, 1), scale.view(worlds, 1, 1))
    weight = torch.full((worlds,), -math.log(worlds), dtype=torch.float64)
    return bwm.Predictive(X, [law], weight, exhaustive=exhaustive, time_step=1.0)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(st.floats(-3, 3), st.floats(0.1, 4), st.floats(-5, 5))
def test_pit_ignores_rising_linear_maps_and_mirrors_falling_ones(y: float, factor: float, shift: float) -> None:
    m, s = column(-1, 0.5, 2), column(0.5, 1, 0.3)
    base = pit(mixture(m, s), column(y)[None])
    rising = pit(mixture(factor * m + shift, factor * s), (factor * column(y) + shift)[None])
    falling = pit(mixture(-m, s), -column(y)[None])
    assert float(rising) == pytest.approx(float(base), abs=1e-9)
    assert float(falling) == pytest.approx(1 - float(base), abs=1e-12)


@given(st.floats(-3, 3))
def test_pit_ignores_a_monotone_map(y: float) -> None:
    m, s = column(-1, 0.5, 2), column(0.5, 1, 0.3)
    straight = pit(mixture(m, s), column(y)[None])
    mapped = pit(mixture(m, s, kind=LogNormal), column(y).exp()[None])
    assert float(mapped) == pytest.approx(float(straight), abs=1e-9)


def test_a_point_prediction_has_defined_values() -> None:
    p = mixture(column(2), column(0))
    assert [float(pit(p, column(y)[None])) for y in (1.9, 2.0, 2.1)] == [0.0, 0.5, 1.0]
    assert [float(crps(p, column(y)[None])) for y in (1.5, 2.0, 2.25)] == [0.5, 0.0, 0.25]
    assert float(pit(p, column(2.0 * (1 + 2e-16))[None])) == 0.5  # met within rounding


def test_ties_with_atoms_take_the_middle_of_the_jump() -> None:
    p = mixture(column(0, 1, 1, 2), torch.zeros(4, dtype=torch.float64))
    assert [float(pit(p, column(y)[None])) for y in (-1, 0, 0.5, 1, 2, 3)] == [0, 0.125, 0.25, 0.5, 0.875, 1]


def test_missing_outcomes_stay_missing() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise={"velocity": 0.1})
    p = bwm.rollout(model, torch.zeros(2, 2), torch.zeros(2, 3, 1), generator=torch.Generator().manual_seed(0))
    outcomes = p.mean.clone()
    outcomes[1, 2, 0] = float("nan")
    for score in (pit, crps):
        found = score(p, outcomes)
        assert found.shape == (2, 3, 2)
        assert found.isnan().nonzero().tolist() == [[1, 2, 0]]


def test_first_step_is_the_closed_form_and_fair_for_drawn_worlds() -> None:
    m, s, y = column(-1, 0.5, 2), column(0.5, 1, 0.3), column(0.1)
    for exhaustive in (True, False):
        found = crps(mixture(m, s, exhaustive=exhaustive), y[None])
        assert float(found) == pytest.approx(float(crps_mixture(m, s, y[0], fair=not exhaustive)), rel=1e-12)
    single = crps(mixture(m[:1], s[:1], exhaustive=False), y[None])
    assert float(single) == pytest.approx(float(crps_gaussian(m[0], s[0], y[0])), rel=1e-12)


def test_fresh_worlds_are_one_pool_of_draws() -> None:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law, length=0.5), noise=0.1)
    p = bwm.rollout(
        model,
        torch.ones(2),
        torch.zeros(3, 1),
        worlds=4,
        particles=3,
        fresh_worlds=True,
        generator=torch.Generator().manual_seed(0),
    )
    found = crps(p, torch.ones(3, 2).double())
    x = p.particles.flatten(0, 1)[:, 2]
    pairs = (x[:, None] - x).abs().sum((0, 1)) / (12 * 11)
    assert torch.allclose(found[2], (x - 1).abs().mean(0) - pairs / 2, rtol=1e-10)


def test_diverged_particles_do_not_count() -> None:
    schema = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)
    # the square of a square: values beyond 1 explode, those below settle
    structure = bwm.structures.FromFunction(lambda x, u: 1e30 * (x - 1).clamp(min=0) ** 2 + 0.5, schema=schema)
    model = bwm.KnownDynamics(structure=structure, noise=0.5)
    with pytest.warns(bwm.DivergenceWarning):
        p = bwm.rollout(
            model, torch.zeros(1), torch.zeros(6, 0), particles=50, generator=torch.Generator().manual_seed(0)
        )
    alive = ~p.diverged[0, :, -1]
    assert 2 < int(alive.sum()) < 50
    x = p.particles[0, alive, -1, 0]
    pairs = (x[:, None] - x).abs().sum() / (len(x) * (len(x) - 1))
    expected = float((x - 0.3).abs().mean() - pairs / 2)
    found = crps(p, torch.full((6, 1), 0.3, dtype=torch.float64))
    assert float(found[-1, 0]) == pytest.approx(expected, rel=1e-9)


def test_one_particle_in_one_world_shows_no_spread() -> None:
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.1)
    p = bwm.rollout(model, torch.zeros(2), torch.zeros(2, 1), particles=2, generator=torch.Generator().manual_seed(0))
    assert bool(crps(p, p.mean).isfinite().all())


def test_wrong_shapes_and_infinities_are_named() -> None:
    p = mixture(column(0), column(1))
    with pytest.raises(bwm.DataError, match=r"expected outcomes of shape \(1, 1\).*without the start"):
        pit(p, torch.zeros(2, 1))
    with pytest.raises(bwm.DataError, match=r"infinity first at \(0, 0\)"):
        crps(p, torch.full((1, 1), float("inf")))


def test_crps_of_a_step_that_is_not_gaussian_is_that_of_its_draws():
    model = bwm.causal.StructuralModel(
        {
            "z": bwm.causal.Mechanism(lambda: 0.0, noise=1.0),
            "y": bwm.causal.Mechanism(lambda z: z.square(), noise=0.5),
        }
    )
    p = model.predictive(torch.zeros(2), torch.zeros(0))
    outcome = torch.tensor([[0.3, 2.0]], dtype=torch.float64)
    score = crps(p, outcome)[0]
    torch.testing.assert_close(score[:1], crps_gaussian(torch.zeros(1), torch.ones(1), outcome[0, :1]).double())
    z, e = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = z.square() + 0.5 * e
    terms = (y - 2.0).abs() - 0.5 * (y - y.roll(1)).abs()
    assert abs(score[1] - terms.mean()) < 4.5 * terms.std() / math.sqrt(len(y) / 3)  # neighbours are correlated
