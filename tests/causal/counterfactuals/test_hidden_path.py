import torch

import bayeswm as bwm
from bayeswm.causal.counterfactuals.hidden_path import HiddenPath
from bayeswm.causal.counterfactuals.noise_belief import noise_belief
from tests.causal.reference_models import c3, line


def hidden(**given: object) -> bwm.Worlds:
    structure = given.pop("structure", c3().structure)
    return bwm.KnownDynamics(structure=structure, noise=1.0, sensor_noise=0.5, **given).draw(1)  # pyright: ignore[reportArgumentType]


DATA = bwm.Trajectories(line(), state=[[[1.0], [1.0], [0.5], [0.9]], [[0.0], [2.0]]], action=[[[0.0]] * 3, [[1.0]]])


def test_residuals_are_those_of_the_sensors() -> None:
    path = HiddenPath(hidden(), DATA)
    assert (path.size, path.episodes, path.records) == (4, 2, 6)
    found = path.fit(torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 5.0, 5.0]]).double()[None, None])
    # the start is the first measurement plus its noise; s = 1.5, 1.2, 0.96, 0.768 and 0, 0.5 + 1
    off = torch.tensor([[1.0 - 1.2, 0.5 - 0.96, 0.9 - 0.768], [2.0 - 1.5, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found.solved[0, 0], off / 0.5)
    assert float(found.gap.abs().max()) == 0


def test_the_belief_of_a_linear_system_is_its_smoother() -> None:
    worlds = hidden()
    path = HiddenPath(worlds, DATA)
    assert path.may_be_affine()
    belief = noise_belief(path)
    assert belief is not None
    smoothed = worlds.smoothed(DATA)  # pyright: ignore[reportAttributeAccessIssue]
    start = path.start.mean + path.start.spread * belief.mean[:, None, :, :1]  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(start[..., 0], smoothed.mean[..., 0, 0])
    filtered = worlds.smooth(DATA, generator=torch.Generator().manual_seed(0))[1][:, 0]
    # the first measurement is what the start is made of
    torch.testing.assert_close(belief.log_density, filtered)


def test_what_is_not_affine_or_not_small() -> None:
    bent = bwm.structures.FromFunction(lambda s, a: s - 0.1 * s**3 + a, schema=line())
    assert not HiddenPath(hidden(structure=bent), DATA).may_be_affine()
    states = torch.zeros(40, 701, 1)
    long = bwm.Trajectories(line(), state=states, action=torch.zeros(40, 700, 1))
    assert not HiddenPath(hidden(), long).may_be_affine()
