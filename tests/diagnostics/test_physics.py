"""Physics checks of single steps against exact answers: norms of matrices and mirrored pendulums."""

import math

import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.base import DataError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.base.worlds import StructureWorlds
from bayeswm.diagnostics import lipschitz, symmetry
from bayeswm.diagnostics.jacobians import step_jacobian
from bayeswm.structures import MLP, FromFunction, Linear, Pendulum

F64 = torch.float64
PAIR = bwm.Schema(state=[bwm.Variable("x"), bwm.Variable("v")], time_step=0.1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=make_generator(seed), dtype=F64)


def network(*, seed: int = 0, worlds: int = 4) -> StructureWorlds:
    """Random networks of the pendulum's variables, an angle among them, with uneven scales."""
    structure = MLP(hidden=(16, 16)).bind(Pendulum().schema)
    values = structure.sample(worlds, make_generator(seed), F64)
    for name in ("input_scale", "change_scale"):
        values[name] = values[name] * (0.5 + torch.rand(values[name].shape[1:], generator=make_generator(1), dtype=F64))
    return StructureWorlds(structure, Pendulum().schema, values, exhaustive=False)


# --- Lipschitz --------------------------------------------------------------------------------------------------------


def test_the_constant_of_a_linear_system_is_the_norm_of_its_matrix() -> None:
    law = torch.distributions.Normal(torch.zeros(2, 2, dtype=F64), 1.0)
    model = bwm.KnownDynamics(structure=Linear(PAIR, A=law), noise=0.1)
    worlds, scale = model.draw(5, generator=make_generator(0)), torch.tensor([2.0, 0.5], dtype=F64)
    found = lipschitz(worlds, normal(3, 2), torch.zeros(1, 0), scale=scale)
    exact = torch.linalg.matrix_norm(worlds.parameters["A"] * scale / scale[:, None], 2)
    torch.testing.assert_close(torch.as_tensor(found["lower_bound"].values), exact)
    torch.testing.assert_close(torch.as_tensor(found["upper_bound"].values), exact)


def test_many_states_are_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds, x, u = network(), normal(7, 2), normal(7, 1, seed=1)
    whole = lipschitz(worlds, x, u)
    monkeypatch.setattr("bayeswm.diagnostics.physics._CHUNK", 3)
    xr.testing.assert_allclose(lipschitz(worlds, x, u), whole, rtol=1e-12)


def test_derivatives_are_those_of_finite_differences() -> None:
    worlds, x, u = network(), normal(4, 1, 7, 2), normal(7, 1, seed=1)
    mean, jacobian = step_jacobian(worlds, x, u, None)
    h = 1e-6
    for j in range(2):
        step = torch.zeros(2, dtype=F64)
        step[j] = h
        high, low = (worlds.transition(x + s * step, u).mean for s in (1, -1))
        # central differences: error of order h^2, rounding of order 1e-16 / h
        torch.testing.assert_close(jacobian[..., j], (high - low) / (2 * h), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(mean, worlds.transition(x, u).mean)
    with torch.inference_mode():
        again = step_jacobian(worlds, x.clone(), u.clone(), None)[1]
    torch.testing.assert_close(again.clone(), jacobian)


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_of_a_network_is_above_every_stretch(seed: int) -> None:
    worlds, scale = network(seed=seed), torch.tensor([1.0, 4.0], dtype=F64)
    x, u = 2 * normal(400, 2), normal(400, 1, seed=1)
    found = lipschitz(worlds, x, u, scale=scale)
    assert bool((found["lower_bound"] <= found["upper_bound"]).all())
    # distances of far states under one action
    mean = worlds.transition(worlds.start(x), u[:1].expand(400, -1)).mean[:, 0]
    stretch = ((mean[:, 1:] - mean[:, :-1]) / scale).norm(dim=-1) / ((x[1:] - x[:-1]) / scale).norm(dim=-1)
    assert bool((stretch.amax(1) <= torch.as_tensor(found["upper_bound"].values)).all())


def test_the_lower_bound_is_attained_where_it_says() -> None:
    # x' = sin x: the derivative is cos x
    structure = FromFunction(lambda x, u: torch.sin(x), schema=bwm.Schema(state=[bwm.Variable("x")], time_step=1.0))
    x = torch.tensor([[1.0], [0.5], [-2.0]], dtype=F64)
    found = lipschitz(bwm.KnownDynamics(structure=structure, noise=0.1), x, torch.zeros(3, 0))
    assert float(found["lower_bound"][0]) == pytest.approx(math.cos(0.5))
    assert float(found["at"][0, 0]) == 0.5
    assert bool(found["upper_bound"].isnull().all())  # none is known


# --- symmetry ---------------------------------------------------------------------------------------------------------


def test_a_mirrored_pendulum_swings_alike_and_a_shifted_one_does_not() -> None:
    model, x, u = bwm.KnownDynamics(structure=Pendulum(), noise=0.1), normal(50, 2), normal(50, 1, seed=1)
    mirror = symmetry(model, x, u, of_state=torch.neg, of_action=torch.neg)
    assert float(mirror["worst"].max()) < 1e-12
    # a whole turn is a symmetry too, and none of an angle's numbers
    turn = torch.tensor([2 * math.pi, 0.0], dtype=F64)
    assert float(symmetry(model, x, u, of_state=lambda s: s + turn)["worst"].max()) < 1e-9
    half = torch.tensor([math.pi, 0.0], dtype=F64)
    assert float(symmetry(model, x, u, of_state=lambda s: s + half)["relative"].min()) > 0.01


def test_a_linear_systems_residual_is_exact() -> None:
    # x' = A x: the swap P x has the residual (A P - P A) x
    A, x = normal(2, 2, seed=3), normal(20, 2)
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    model = bwm.KnownDynamics(structure=Linear(PAIR, A=A), noise=0.1)
    found = symmetry(model, x, torch.zeros(20, 0), of_state=lambda s: s @ swap)
    gap, moved = x @ (A @ swap - swap @ A).mT, x @ (A - torch.eye(2)).mT
    exact = gap.square().mean(0).sqrt()
    torch.testing.assert_close(torch.as_tensor(found["residual"].values[0]), exact)
    torch.testing.assert_close(torch.as_tensor(found["relative"].values[0]), exact / moved.square().mean(0).sqrt())
    with pytest.raises(SpecError, match="keep the shapes"):
        symmetry(model, x, torch.zeros(20, 0), of_state=lambda s: s[:, :1])


def test_inputs_that_make_no_sense_are_refused() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(), noise=0.1)
    with pytest.raises(DataError, match=r"states of shape \(n, 2\)"):
        lipschitz(model, torch.zeros(2), torch.zeros(1))
    with pytest.raises(SpecError, match="positive scale"):
        lipschitz(model, torch.zeros(1, 2), torch.zeros(1, 1), scale=torch.tensor([1.0, 0.0]))
    hidden = bwm.KnownDynamics(structure=Pendulum(), noise=0.1, sensor_noise=0.1)
    with pytest.raises(SpecError, match="hidden state"):
        lipschitz(hidden, torch.zeros(1, 2), torch.zeros(1, 1))
