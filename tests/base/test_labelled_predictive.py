import pytest
import torch
import xarray as xr

import bayeswm as bwm
from bayeswm.structures import Pendulum

UNCERTAIN = bwm.KnownDynamics(structure=Pendulum(mass=torch.distributions.LogNormal(0.0, 0.2)), noise=0.05)


def rolled(**given: object) -> bwm.Predictive:
    g = torch.Generator().manual_seed(0)
    settings = {"worlds": 5, "particles": 4, **given}
    return bwm.rollout(UNCERTAIN, torch.zeros(3, 2), torch.ones(6, 1), generator=g, **settings)


def test_the_data_set_holds_what_the_predictive_says() -> None:
    r = rolled()
    data = r.to_xarray()
    assert dict(data.sizes) == {"batch_0": 3, "horizon": 6, "variable": 2, "quantile": 5}
    for name in ("mean", "variance", "aleatoric_variance", "epistemic_variance"):
        assert torch.equal(torch.as_tensor(data[name].values), getattr(r, name))
    assert data["horizon"].values.tolist() == [1, 2, 3, 4, 5, 6]
    assert float(data["time"][-1]) == pytest.approx(0.3)
    assert data["variable"].values.tolist() == ["angle", "velocity"]
    assert data["unit"].values.tolist() == ["rad", "rad/s"]
    torch.testing.assert_close(torch.as_tensor(data["quantiles"].sel(quantile=0.5).values), r.quantile(0.5))


def test_undefined_parts_are_left_out() -> None:
    assert "epistemic_variance" not in rolled(fresh_worlds=True).to_xarray()
    assert "variance" in rolled(fresh_worlds=True).to_xarray()


def test_one_step_and_no_step() -> None:
    p = UNCERTAIN.predictive(torch.zeros(2), torch.zeros(1), generator=torch.Generator().manual_seed(0))
    assert p.to_xarray()["mean"].dims == ("horizon", "variable")
    empty = bwm.rollout(UNCERTAIN, torch.zeros(2), torch.zeros(0, 1), generator=torch.Generator().manual_seed(0))
    assert empty.to_xarray().sizes["horizon"] == 0
    with pytest.raises(bwm.SpecError, match="rollout"):
        p.to_datatree()


def test_the_tree_has_the_layout_of_arviz() -> None:
    r = rolled()
    tree = r.to_datatree()
    assert isinstance(tree, xr.DataTree)
    group = tree["posterior_predictive"]
    assert group["angle"].dims == ("chain", "draw", "particle", "batch_0", "horizon")
    assert group["angle"].shape == (1, 5, 4, 3, 6)
    assert torch.equal(torch.as_tensor(group["velocity"].values[0]), r.particles[..., 1])
    assert group["velocity"].attrs["units"] == "rad/s"


def test_weighted_worlds_are_resampled() -> None:
    drawn = UNCERTAIN.draw(4, generator=torch.Generator().manual_seed(0)).reweight(torch.tensor([0.5, 0.5, 0, 0]).log())
    r = bwm.rollout(drawn, torch.zeros(2), torch.ones(3, 1), generator=torch.Generator().manual_seed(0))
    with pytest.raises(bwm.SpecError, match="generator"):
        r.to_datatree()
    values = torch.as_tensor(
        r.to_datatree(generator=torch.Generator().manual_seed(0))["posterior_predictive"]["angle"].values[0]
    )
    for draw in values:
        assert any(torch.equal(draw, r.particles[w, ..., 0]) for w in (0, 1))
