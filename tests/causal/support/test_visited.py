import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.causal.support.visited import (
    Points,
    Visit,
    WatchedWorlds,
    coordinates,
    epistemic_variance,
    points_of,
    thinned,
)
from tests.causal.reference_models import c1, c3, line


def test_worlds_are_watched() -> None:
    seen = list[Visit]()
    worlds = WatchedWorlds(c3().draw(1), seen)
    held = bwm.causal.intervene(worlds.to(torch.float64), bwm.do(a=[1.0, -1.0]))
    bwm.rollout(held, torch.ones(1), torch.zeros(2, 1), particles=3, generator=torch.Generator().manual_seed(0))
    assert [float(v.action.flatten()[0]) for v in seen] == [1.0, -1.0]
    points = points_of(worlds, seen[1])
    assert points.state.shape == (3, 1)
    assert points.weight.tolist() == pytest.approx([1 / 3] * 3)


def test_points_are_thinned_out_evenly() -> None:
    n = 2000
    values = torch.arange(float(n))[:, None]
    points = thinned(Points(values, values, values[:, :0], torch.ones(n)))
    assert len(points.state) == 256
    assert (points.state[0].item(), points.state[-1].item()) == (0.0, n - 1.0)
    assert points.weight.sum().item() == pytest.approx(1.0)


def test_angles_have_no_seam() -> None:
    worlds = bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium()).draw(1)
    state = torch.tensor([[0.3, 1.0], [0.3 + 2 * torch.pi, 1.0]], dtype=torch.float64)
    found = coordinates(worlds, Points(state, torch.zeros(2, 1), torch.zeros(2, 0), torch.ones(2)))
    assert found.shape == (2, 4)
    torch.testing.assert_close(found[0], found[1])
    sliced = c1().draw(1)
    nothing = torch.zeros(4, 0)
    assert coordinates(sliced, Points(torch.zeros(4, 3), nothing, nothing, torch.ones(4))).shape == (4, 3)


def test_epistemic_variance_of_an_uncertain_gain(generator: torch.Generator) -> None:
    """x' = x + g a: the variance between worlds is Var(g) a^2."""
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: x + p["gain"] * a, schema=line(), parameters={"gain": Normal(1.0, 0.5)}
    )
    model = bwm.KnownDynamics(structure=structure, noise=1.0)
    worlds = model.draw(50, generator=generator)
    action = torch.tensor([[1.0], [3.0]])
    points = Points(torch.zeros(2, 1), action, torch.zeros(2, 0), torch.tensor([0.25, 0.75]))
    found = epistemic_variance(worlds, points)
    assert found is not None
    assert found.item() == pytest.approx(worlds.parameters["gain"].var().item() * (0.25 + 0.75 * 9))
    assert epistemic_variance(model.draw(1, generator=generator), points) is None
    assert epistemic_variance(c1().draw(1), points) is None
