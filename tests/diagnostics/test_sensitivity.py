"""Lipschitz estimates against linear systems, where they are known exactly."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeswm as bwm
from bayeswm.base.errors import DataError, SpecError
from bayeswm.diagnostics import lipschitz
from tests.diagnostics.linear_worlds import LINE, linear_worlds

seeds = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(seeds)
def test_the_lipschitz_constant_of_a_linear_system_is_the_norm_of_its_matrix(g: torch.Generator) -> None:
    matrices = torch.randn(3, 2, 2, generator=g, dtype=torch.float64)
    states, actions = torch.randn(5, 2, generator=g), torch.randn(5, 1, generator=g)
    scale = torch.tensor([0.1, 20.0], dtype=torch.float64)
    found = lipschitz(linear_worlds(matrices), states, actions, scale=scale)
    expected = torch.linalg.matrix_norm(torch.diag(1 / scale) @ matrices @ torch.diag(scale), 2)
    assert found.lipschitz.values == pytest.approx(expected.numpy())
    assert found.norm.values == pytest.approx(expected.numpy())
    # units: states divided by their scale are those of a system with a scale of 1
    plain = lipschitz(linear_worlds(matrices), states, actions)
    assert plain.lipschitz.values == pytest.approx(torch.linalg.matrix_norm(matrices, 2).numpy())


def test_the_largest_norm_is_where_a_nonlinear_system_is_steepest() -> None:
    structure = bwm.structures.FromFunction(lambda x, _: torch.sin(3 * x), schema=LINE, name="sine")
    worlds = bwm.KnownDynamics(structure=structure, noise=0.1, dtype=torch.float64).draw(1)
    states = torch.tensor([[math.pi / 6], [math.pi / 9], [0.0], [math.pi / 4]], dtype=torch.float64)
    found = lipschitz(worlds, states, torch.zeros(4, 0))
    slopes = 3 * torch.cos(3 * states[:, 0]).abs()
    assert float(found.lipschitz[0]) == pytest.approx(3.0)
    assert int(found["where"][0]) == 2
    assert float(found.norm[0]) == pytest.approx(float(slopes.mean()))


def test_many_states_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1).draw(1)
    g = torch.Generator().manual_seed(0)
    states, actions = torch.randn(7, 2, generator=g), torch.randn(7, 1, generator=g)
    whole = lipschitz(worlds, states, actions)
    monkeypatch.setattr("bayeswm.diagnostics.sensitivity._CHUNK", 3)
    assert lipschitz(worlds, states, actions).equals(whole)


def test_no_gradient_is_left_and_none_is_needed() -> None:
    with torch.no_grad():
        found = lipschitz(linear_worlds(torch.eye(2).double()[None]), torch.zeros(1, 2), torch.zeros(1, 1))
    assert float(found.lipschitz[0]) == 1.0


def test_what_does_not_fit_is_refused() -> None:
    worlds = linear_worlds(torch.eye(2).double()[None])
    for states, actions in (
        (torch.zeros(3, 3), torch.zeros(3, 1)),
        (torch.zeros(3, 2), torch.zeros(2, 1)),
        (torch.zeros(0, 2), torch.zeros(0, 1)),
        (torch.full((1, 2), float("nan")), torch.zeros(1, 1)),
    ):
        with pytest.raises(DataError, match="expected finite"):
            lipschitz(worlds, states, actions)
    for scale in (torch.ones(3), torch.tensor([1.0, 0.0])):
        with pytest.raises(SpecError, match="positive scale"):
            lipschitz(worlds, torch.zeros(1, 2), torch.zeros(1, 1), scale=scale)
