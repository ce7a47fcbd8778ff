from pathlib import Path

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


# --- the layout of ArviZ's checks ------------------------------------------------------------------------------------


def checked(*, windows: int = 40) -> tuple[bwm.Predictive, torch.Tensor]:
    """Forecasts of 3 steps, and outcomes drawn from them."""
    g = torch.Generator().manual_seed(1)
    start = torch.randn(windows, 2, generator=g, dtype=torch.float64)
    p = bwm.rollout(UNCERTAIN, start, torch.ones(3, 1), worlds=5, particles=20, generator=g)
    return p, p.sample(1, generator=g)[0]


def test_per_variable_has_one_vector_of_observations_for_each_column_and_step() -> None:
    p, outcomes = checked()
    tree = p.to_datatree(layout="per_variable", outcomes=outcomes)
    group = tree["posterior_predictive"]
    assert [*group.data_vars] == [f"{c}[{h}]" for c in ("angle", "velocity") for h in (1, 2, 3)]
    assert group["velocity[2]"].dims == ("chain", "draw", "window")
    assert group["velocity[2]"].attrs == {"units": "rad/s", "time": pytest.approx(0.1)}
    assert torch.equal(torch.as_tensor(group["velocity[2]"].values[0]), p.particles[..., 1, 1].flatten(0, 1))
    assert torch.equal(torch.as_tensor(tree["observed_data"]["angle[3]"].values), outcomes[:, 2, 0])
    whole = p.to_datatree(outcomes=outcomes)
    assert whole["observed_data"]["angle"].dims == ("batch_0", "horizon")


def test_what_arviz_would_misread_is_refused() -> None:
    p, outcomes = checked(windows=2)
    with pytest.raises(bwm.DataError, match="leave out windows that miss some"):
        p.to_datatree(layout="per_variable", outcomes=outcomes.where(outcomes != outcomes[0, 0, 0], torch.nan))
    with pytest.raises(bwm.DataError, match="expected outcomes of shape"):
        p.to_datatree(layout="per_variable", outcomes=outcomes[0])
    with pytest.raises(bwm.SpecError, match="expected layout"):
        p.to_datatree(layout="flat")  # pyright: ignore[reportArgumentType]
    growth = bwm.structures.Linear(UNCERTAIN.schema, A=1e200 * torch.eye(2, dtype=torch.float64), B=torch.ones(2, 1))
    explosive = bwm.KnownDynamics(structure=growth, noise=0.1)
    g = torch.Generator().manual_seed(0)
    with pytest.warns(bwm.base.DivergenceWarning):
        gone = bwm.rollout(explosive, torch.ones(2, 2), torch.ones(3, 1), particles=2, generator=g)
    with pytest.raises(bwm.DataError, match="some diverged"):
        gone.to_datatree(layout="per_variable")


def test_arviz_draws_and_measures_what_per_variable_gives(tmp_path: Path) -> None:
    az = pytest.importorskip("arviz")
    p, outcomes = checked()
    tree = p.to_datatree(layout="per_variable", outcomes=outcomes)
    names = ["angle[1]", "angle[3]", "velocity[3]"]
    pit = az.plot_ppc_pit(tree, var_names=names, backend="matplotlib")
    dist = az.plot_ppc_dist(tree, var_names=names, num_samples=20, backend="matplotlib")
    for name, plot in (("pit", pit), ("dist", dist)):
        drawn = plot.viz["plot"]
        assert {*(drawn.data_vars if isinstance(drawn, xr.Dataset) else drawn)} >= {*names}
        plot.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    error = az.metrics(tree, kind="rmse", var_name="angle[3]")
    expected = (p.particles[..., 2, 0].mean((0, 1)) - outcomes[:, 2, 0]).square().mean().sqrt()
    assert error.mean == pytest.approx(float(expected), abs=0.006)  # ArviZ rounds
