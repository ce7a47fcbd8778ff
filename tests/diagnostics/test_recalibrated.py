"""A recalibrated model is a model: rollouts, predictives, planners and files."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import bayeswm as bwm
from bayeswm.diagnostics import RecalibratedModel
from bayeswm.diagnostics.maps import NormalScores, OutcomeMap, Stretch, TwoSided
from bayeswm.testing import check_model
from bayeswm.testing.conformance import CHECKS

COLUMNS = ("angle", "velocity")


def pendulum(**more) -> bwm.DynamicsModel:
    from torch.distributions import LogNormal

    structure = bwm.structures.Pendulum(mass=LogNormal(0.0, 0.3), length=0.5)
    return bwm.KnownDynamics(structure=structure, noise=0.05, **more)


def full(value: float, steps: int = 6) -> torch.Tensor:
    return torch.full((steps, 2), value, dtype=torch.float64)


def maps(factor: float) -> dict[str, OutcomeMap]:
    still = torch.zeros(6, 2, 1, dtype=torch.float64)
    return {
        "stretch": Stretch(COLUMNS, {"factor": full(factor)}),
        "two-sided": TwoSided(COLUMNS, {"lower": full(factor), "upper": full(factor)}),
        "scores": NormalScores(COLUMNS, {"knots": still, "moved": still, "slope": full(factor)}),
    }


def recordings(*, episodes: int = 8, steps: int = 20) -> bwm.Trajectories:
    truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5), noise=0.05)
    g = torch.Generator().manual_seed(0)
    start = 0.5 * torch.randn(episodes, 2, generator=g, dtype=torch.float64)
    actions = 4 * torch.rand(episodes, steps, 1, generator=g, dtype=torch.float64) - 2
    paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    return bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=actions)


def test_the_contract_is_kept_by_a_map_that_changes_nothing() -> None:
    model = RecalibratedModel(pendulum(), maps(1.0)["stretch"])
    assert check_model(model, recordings()).failed == ()


# what compares forecasts, which are mapped, with the steps of the model inside, which are not
STEPWISE = {"stepping_is_rolling_out", "variance_splits_by_world", "smoothed_noise_replays"}
# the map of a particle depends on all others
ALL_PARTICLES = {"chunks_are_independent", "worlds_do_not_mix"}
# no function without noise, and no split
BY_RANK = {"predictive_shapes", "rollout_shapes", "function_has_no_process_noise", "total_is_sum_of_parts"}


@pytest.mark.parametrize("kind", ["stretch", "scores"])
def test_the_contract_is_kept_where_it_makes_sense(kind: str) -> None:
    skip = STEPWISE | ALL_PARTICLES | (BY_RANK if kind == "scores" else set())
    assert skip <= set(CHECKS)
    report = check_model(RecalibratedModel(pendulum(), maps(2.0)[kind]), recordings(), skip=skip)
    assert report.failed == ()


@pytest.mark.parametrize("kind", ["stretch", "two-sided", "scores"])
def test_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    model = RecalibratedModel(RecalibratedModel(pendulum(), maps(1.5)["stretch"]), maps(2.0)[kind])
    model.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm")
    assert repr(again) == repr(model)
    one, other = (
        bwm.rollout(m, torch.ones(2), torch.zeros(6, 1), generator=torch.Generator().manual_seed(0)).particles
        for m in (model, again)
    )
    assert torch.equal(one, other)


def test_loading_needs_no_import_of_diagnostics(tmp_path: Path) -> None:
    RecalibratedModel(pendulum(), maps(1.5)["stretch"]).save(tmp_path / "model.bwm")
    code = "import sys, bayeswm as bwm; print(type(bwm.load(sys.argv[1])).__name__)"
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.bwm")], capture_output=True, text=True)
    assert ran.stdout.strip() == "RecalibratedModel", ran.stderr


def test_own_structures_and_models_inside(tmp_path: Path) -> None:
    schema = pendulum().schema
    own = bwm.structures.FromFunction(lambda x, u: x, schema=schema, name="standstill")

    class Mine(bwm.KnownDynamics):
        pass

    model = RecalibratedModel(Mine(structure=own, noise=0.1), maps(1.5)["stretch"])
    model.save(tmp_path / "model.bwm")
    again = bwm.load(tmp_path / "model.bwm", structures=[own], models=[Mine])
    assert isinstance(again, RecalibratedModel)
    assert type(again.model) is Mine
    with pytest.raises(bwm.CheckpointError, match="models="):
        bwm.load(tmp_path / "model.bwm", structures=[own])
    with pytest.raises(bwm.CheckpointError, match="structures="):
        bwm.load(tmp_path / "model.bwm", models=[Mine])


def test_rollouts_of_model_and_worlds_are_mapped() -> None:
    inner, factor = pendulum(), 2.0
    model = RecalibratedModel(inner, maps(factor)["stretch"])
    worlds = model.draw(9, generator=torch.Generator().manual_seed(1))
    for fresh in (False, True):
        wide, plain = (
            bwm.rollout(
                w, torch.ones(2), torch.zeros(4, 1), generator=torch.Generator().manual_seed(0), fresh_worlds=fresh
            )
            for w in (worlds, worlds.inner)
        )
        assert torch.allclose(wide.stddev, factor * plain.stddev)
        assert torch.allclose(wide.particles, plain.mean + factor * (plain.particles - plain.mean))
    assert torch.allclose(worlds[:3].finish(plain).stddev, wide.stddev)
    assert torch.equal(worlds.replace(mass=2.0).parameters["mass"], torch.full((9,), 2.0).double())
    assert worlds.replace(mass=2.0).outcome_map is model.outcome_map
    assert worlds.reweight(torch.arange(9.0)).finish(plain).particles.shape == plain.particles.shape


def test_a_policy_sees_the_states_of_the_model_inside() -> None:
    seen = []

    def policy(state: torch.Tensor, step: int) -> torch.Tensor:
        seen.append(state)
        return state[..., :1] * 0

    inner = pendulum()
    for model in (inner, RecalibratedModel(inner, maps(3.0)["stretch"])):
        bwm.rollout(model, torch.ones(2), policy, horizon=3, worlds=4, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_a_carry_s_law_is_that_of_the_worlds_inside() -> None:
    worlds = RecalibratedModel(pendulum(), maps(2.0)["stretch"]).draw(3, generator=torch.Generator().manual_seed(0))
    carry = worlds.start(torch.ones(4, 2))
    law = worlds.state_law(carry)
    assert law is not None
    torch.testing.assert_close(law.mean, carry)


def test_measurements_of_a_hidden_state_are_mapped() -> None:
    seen = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.05, sensor_noise=0.1)
    model = RecalibratedModel(seen, maps(2.0)["stretch"])
    g = torch.Generator()
    ends = [
        bwm.rollout(m, torch.zeros(2), torch.zeros(3, 1), generator=g.manual_seed(0), of="measurement").stddev
        for m in (seen, model)
    ]
    assert torch.allclose(ends[1], 2 * ends[0])
    one = [
        m.predictive(torch.zeros(2), torch.zeros(1), generator=g.manual_seed(0), of="measurement").stddev
        for m in (seen, model)
    ]
    assert torch.allclose(one[1], 2 * one[0])


def test_other_columns_than_those_of_the_fit_are_refused() -> None:
    from torch.distributions import Normal

    seen = bwm.KnownDynamics(
        structure=bwm.structures.Pendulum(),
        noise=0.05,
        sensor_noise={"angle": 0.1},
        belief={"velocity": Normal(0.0, 1.0)},
    )
    model = RecalibratedModel(seen, Stretch(("angle",), {"factor": torch.ones(3, 1)}))
    g = torch.Generator().manual_seed(0)
    assert bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), generator=g, of="measurement").horizon == 3
    with pytest.raises(bwm.SpecError, match="of='measurement'"):
        bwm.rollout(model, torch.zeros(2), torch.zeros(3, 1), generator=g)


def test_one_step() -> None:
    inner, g = pendulum(), torch.Generator()
    state, action = torch.ones(3, 2), torch.zeros(3, 1)
    plain = inner.predictive(state, action, generator=g.manual_seed(0))
    wide = RecalibratedModel(inner, maps(2.0)["stretch"]).predictive(state, action, generator=g.manual_seed(0))
    assert torch.allclose(wide.stddev, 2 * plain.stddev)
    assert torch.allclose(wide.epistemic_variance, 4 * plain.epistemic_variance)
    ranks = RecalibratedModel(inner, maps(2.0)["scores"])
    found = ranks.predictive(state, action, generator=g.manual_seed(0), particles=50)
    assert found.particles.shape == (64, 50, 3, 1, 2)
    assert torch.equal(found.particles[:, :, 0], found.particles[:, :, 1])  # the same noise for all rows
    # 3200 draws in 64 worlds: within 5 % of twice the width
    assert torch.allclose(found.stddev, 2 * plain.stddev, rtol=0.05)
    with pytest.raises(bwm.SpecError, match="function"):
        ranks.predictive(state, action, generator=g, of="function")
    with pytest.raises(bwm.SpecError, match="generator"):
        RecalibratedModel(
            bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.1), maps(2.0)["scores"]
        ).predictive(state, action)


def test_what_a_recalibrated_model_does_not_do() -> None:
    model = RecalibratedModel(pendulum(), maps(2.0)["stretch"])
    data = recordings()
    with pytest.raises(bwm.SpecError, match="recalibrate it again"):
        model.fit(data)
    with pytest.raises(bwm.SpecError, match="cannot be conditioned"):
        model.condition(data)
    assert model.condition(data, in_training=True) is model
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = model.to_datatree(data, draws=8)
    assert "posterior" in tree.children


def test_a_hidden_past_is_not_replayed() -> None:
    """A counterfactual is no forecast: the map would stretch what is left open of the noise, and move its mean."""
    seen = bwm.KnownDynamics(structure=bwm.structures.Pendulum(), noise=0.05, sensor_noise=0.1)
    data = bwm.Trajectories(seen.schema, state=torch.zeros(1, 3, 2), action=torch.zeros(1, 2, 1))
    worlds = RecalibratedModel(seen, maps(2.0)["stretch"]).draw(1)
    with pytest.raises(bwm.SpecError, match=r"ask \.model, the model inside"):
        bwm.causal.counterfactual(worlds, data, bwm.do(torque=1.0), generator=torch.Generator().manual_seed(0))
