"""Lyapunov exponents where they are exact, and the share that diverges."""

import math

import numpy as np
import pytest
import torch

import bayeswm as bwm
from bayeswm.base import SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import stability
from bayeswm.structures import FromFunction, Linear, Pendulum

F64 = torch.float64
PAIR = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.5)
LINE = bwm.Schema(state=[bwm.Variable("x")], time_step=1.0)


def test_exponents_of_linear_systems_are_the_logarithms_of_their_eigenvalues() -> None:
    for A in ([[1.2, 0.7], [0.0, -0.6]], [[0.9, -0.4], [0.4, 0.9]]):  # real ones, and a pair on a circle
        matrix = torch.tensor(A, dtype=F64)
        model = bwm.KnownDynamics(structure=Linear(PAIR, A=matrix), noise=0.1)
        found = stability(model, torch.ones(2, 2), None, horizon=120, discard=60, particles=2)
        exact = torch.linalg.eigvals(matrix).abs().log().sort(descending=True).values / 0.5
        # the frame has turned by (0.6 / 1.2)^60; a rotation is exact at once
        np.testing.assert_allclose(found["exponent"].values[0], exact, atol=1e-9)
        assert float(found["exponent_se"].max()) < 1e-9
        assert float(found["diverged"].max()) == 0.0


def test_the_sum_is_the_growth_of_volume_at_any_horizon() -> None:
    matrix = torch.tensor([[1.2, 0.7], [0.3, -0.6]], dtype=F64)
    found = stability(bwm.KnownDynamics(structure=Linear(PAIR, A=matrix), noise=0.1), torch.ones(1, 2), None, horizon=3)
    volume = float(torch.linalg.det(matrix).abs().log()) / 0.5
    assert float(found["exponent"].sum()) == pytest.approx(volume, abs=1e-12)
    assert bool(found["exponent_se"].isnull().all())  # a single path


@pytest.mark.statistical
def test_the_chaotic_logistic_map_has_the_exponent_log_2() -> None:
    structure = FromFunction(lambda x, u: 4 * x * (1 - x), schema=LINE, name="logistic")
    start = torch.rand(200, 1, generator=make_generator(0), dtype=F64)
    found = stability(bwm.KnownDynamics(structure=structure), start, None, horizon=200, discard=20)
    error = float(found["exponent_se"][0, 0])
    assert abs(float(found["exponent"][0, 0]) - math.log(2)) < 4.4 * error
    assert error < 0.01


def test_a_damped_pendulum_forgets_and_each_world_has_its_own_rate() -> None:
    damping = torch.distributions.LogNormal(math.log(0.5), 0.3)
    model = bwm.KnownDynamics(structure=Pendulum(damping=damping), noise=0.0)
    found = stability(model, torch.tensor([[0.1, 0.0]]), torch.zeros(100, 1), worlds=3)
    assert found["exponent"].shape == (3, 2)
    assert bool((found["exponent"] < 0).all())
    assert len(set(found["exponent"].sum("index").values.round(6).tolist())) == 3


def test_what_diverges_is_counted_and_left_out() -> None:
    # x' = x^2 leaves the finite numbers from above 1, and dies out below
    model = bwm.KnownDynamics(structure=FromFunction(lambda x, u: x**2, schema=LINE, name="square"))
    found = stability(model, torch.tensor([[2.0], [0.5], [3.0], [0.9]], dtype=F64), None, horizon=15)
    assert float(found["diverged"][0]) == 0.0
    assert float(found["diverged"][-1]) == 0.5
    assert bool(found["exponent"].notnull().all())
    gone = stability(model, torch.tensor([[2.0]], dtype=F64), None, horizon=15)
    assert bool(gone["exponent"].isnull().all())


def test_what_makes_no_sense_is_refused() -> None:
    model = bwm.KnownDynamics(structure=Linear(PAIR, A=torch.eye(2, dtype=F64)), noise=0.1)
    with pytest.raises(SpecError, match="discard"):
        stability(model, torch.zeros(1, 2), None, horizon=5, discard=5)
    with pytest.raises(SpecError, match=r"starts of shape \(n, 2\)"):
        stability(model, torch.zeros(2), None, horizon=5)
