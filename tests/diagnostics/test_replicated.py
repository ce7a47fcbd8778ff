"""Replications: from the recorded starts, under the recorded actions, one a world, in any number of parts."""

import pytest
import torch
from torch.distributions import LogNormal, Normal

import bayeswm as bwm
from bayeswm.base import DataError, SpecError
from bayeswm.base.random import make_generator
from bayeswm.diagnostics import replicated
from bayeswm.diagnostics.replicated import equally_weighted, recorded, replicate, simulated
from bayeswm.structures import Linear, Pendulum

F64 = torch.float64
SCHEMA = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=1.0)


def data() -> bwm.Trajectories:
    state = torch.arange(10.0, dtype=F64).view(2, 5, 1)
    return bwm.Trajectories(SCHEMA, state=state, action=torch.ones(2, 4, 1, dtype=F64), lengths=[4, 2])


def linear(a: float = 1.0, **laws: object) -> Linear:
    """The system x' = a x + u."""
    return Linear(SCHEMA, A=a * torch.eye(1, dtype=F64), B=torch.ones(1, 1), **laws)  # pyright: ignore[reportArgumentType]


def sum_of_actions(noise: float = 1e-9) -> bwm.Worlds:
    return bwm.KnownDynamics(structure=linear(), noise=noise).draw(1)


def test_worlds_run_from_the_recorded_starts_under_the_recorded_actions() -> None:
    (paths,) = replicate(sum_of_actions(), data(), generator=make_generator(0))
    assert paths.shape == (1, 2, 5, 1)
    expected = torch.tensor([[0.0, 1, 2, 3, 4], [5, 6, 7, torch.nan, torch.nan]], dtype=F64)
    torch.testing.assert_close(paths[0, ..., 0], expected, equal_nan=True, atol=1e-6, rtol=0)


def test_parts_hold_all_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bwm.KnownDynamics(structure=linear(c=Normal(torch.zeros(1), 1.0)), noise=1e-9)
    worlds = model.draw(7, generator=make_generator(0))
    (whole,) = replicate(worlds, data(), generator=make_generator(0))
    monkeypatch.setattr(replicated, "_PART", 3 * 24 * 8)  # three worlds of 2 episodes, 4 steps and one variable
    parts = list(replicate(worlds, data(), generator=make_generator(0)))
    assert [len(p) for p in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(parts), whole, equal_nan=True, atol=1e-6, rtol=0)


def test_a_simulated_data_set_has_the_design_of_the_recorded_one() -> None:
    made = simulated(sum_of_actions(0.5), data(), generator=make_generator(0))
    assert torch.equal(made.lengths, data().lengths)
    assert torch.equal(made.state[:, 0], data().state[:, 0])
    assert not torch.equal(made.state[0, 1:], data().state[0, 1:])


def test_weighted_worlds_are_resampled() -> None:
    model = bwm.KnownDynamics(structure=Pendulum(mass=LogNormal(0.0, 0.5)), noise=0.1)
    worlds = model.draw(4, generator=make_generator(0))
    assert equally_weighted(worlds, 4, generator=make_generator(0)) is worlds
    picked = equally_weighted(worlds.reweight(torch.tensor([0.5, 0.5, 0, 0]).log()), 6, generator=make_generator(0))
    assert picked.parameters["mass"].unique().tolist() == sorted(worlds.parameters["mass"][:2].tolist())


def test_starts_must_be_recorded_and_paths_finite() -> None:
    state = torch.full((1, 5, 1), torch.nan, dtype=F64)
    missing = bwm.Trajectories(SCHEMA, state=state, action=torch.ones(1, 4, 1, dtype=F64), allow_missing=True)
    assert recorded(sum_of_actions(), missing).isnan().all()
    with pytest.raises(DataError, match="start from a recorded state"):
        next(replicate(sum_of_actions(), missing, generator=make_generator(0)))
    explosive = bwm.KnownDynamics(structure=linear(1e200), noise=0.1).draw(1)
    with pytest.raises(DataError, match="left the finite numbers"):
        simulated(explosive, data(), generator=make_generator(0))
    hidden = bwm.KnownDynamics(structure=linear(), noise=0.1, sensor_noise=0.1).draw(1)
    with pytest.raises(SpecError, match="function that takes worlds"):
        simulated(hidden, data(), generator=make_generator(0))
