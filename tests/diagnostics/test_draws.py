"""Trajectories by exchangeable unit, and quantiles that count one more."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.diagnostics.draws import draw_quantile, draws_of, upper_quantile
from tests.diagnostics.paths import of_moments, of_paths


def rolled(*, worlds: int, fresh: bool = False) -> bwm.Predictive:
    law = torch.distributions.LogNormal(0.0, 0.3)
    model = bwm.KnownDynamics(structure=bwm.structures.Pendulum(mass=law), noise=0.1)
    g = torch.Generator().manual_seed(0)
    start, still = torch.zeros(2, 3, 2), torch.zeros(4, 1)
    return bwm.rollout(model, start, still, worlds=worlds, particles=5, generator=g, fresh_worlds=fresh)


def test_units_are_drawn_worlds_or_particles() -> None:
    drawn, fresh, posterior = rolled(worlds=4), rolled(worlds=4, fresh=True), of_paths(torch.zeros(4, 5, 6, 4, 2))
    for p, shape in ((drawn, (4, 5, 6, 4, 2)), (fresh, (20, 1, 6, 4, 2)), (posterior, (20, 1, 6, 4, 2))):
        (some,) = draws_of(p)
        assert some.paths.shape == shape
        assert torch.allclose(some.weight.sum((0, 1)), torch.ones(6).double())
        assert torch.equal(some.paths.flatten(0, 1), p.particles.flatten(2, -3).flatten(0, 1))


def test_diverged_particles_have_no_weight_and_windows_without_any_are_undefined() -> None:
    paths = torch.randn(2, 4, 3, 5, 1, generator=torch.Generator().manual_seed(0))
    paths[0, 1, 0, 3:] = float("inf")
    paths[:, :, 2, 4] = float("nan")
    (some,) = draws_of(of_paths(paths, exhaustive=False))
    assert some.weight[:, :, 0].tolist() == [
        [pytest.approx(w) for w in r] for r in ([1 / 6, 0, 1 / 6, 1 / 6], [1 / 8] * 4)
    ]
    assert bool(some.weight[:, :, 2].isnan().all())
    assert bool(some.paths.isfinite().all())


def test_one_step_is_sampled_and_several_without_trajectories_are_refused() -> None:
    one = of_moments(torch.zeros(2, 1, 3).double(), torch.ones(2, 1, 3).double())
    (some,) = draws_of(one)
    assert some.paths.shape == (4096, 1, 2, 1, 3)
    with pytest.raises(bwm.SpecError, match="whole trajectories"):
        next(draws_of(of_moments(torch.zeros(2, 3, 1), torch.ones(2, 3, 1))))
    with pytest.raises(bwm.SpecError, match="horizon 0"):
        next(draws_of(of_paths(torch.zeros(1, 4, 0, 1))))


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),  # ties happen
    st.floats(0.01, 0.99),
)
def test_upper_quantile_is_the_order_statistic(scores: list[int], level: float) -> None:
    n = len(scores)
    x, weight = torch.tensor(scores).double(), torch.full((n,), 1 / n, dtype=torch.float64)
    k = math.ceil((n + 1) * level - 1e-9)
    expected = sorted(scores)[k - 1] if k <= n else math.inf
    assert float(upper_quantile(x, weight, level, units=torch.tensor(n).double())) == expected


@given(st.integers(0, 2**31), st.integers(2, 40), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_upper_quantile_is_monotone_in_the_level_and_ignores_the_order(seed: int, n: int, a: float, b: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x, weight = torch.randn(n, 3, generator=g).double(), torch.rand(n, 1, generator=g).double() + 0.01
    weight, units = weight / weight.sum(0), torch.tensor(float(n)).expand(3)
    low, high = (upper_quantile(x, weight, level, units=units) for level in sorted((a, b)))
    assert bool((low <= high).all())
    turn = torch.randperm(n, generator=g)
    assert torch.equal(upper_quantile(x[turn], weight[turn], min(a, b), units=units), low)


def test_a_score_without_weight_does_not_count() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 1e9]).double().view(4, 1, 1, 1)
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0]).double().view(4, 1, 1) / 3
    assert float(draw_quantile(x, weight, 0.7)) == 3
    assert float(draw_quantile(x, weight, 0.8)) == np.inf
