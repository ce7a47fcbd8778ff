import math
import warnings

import numpy as np
import pytest
import torch
from torch.distributions import Normal

import bayeswm as bwm
from bayeswm.base.errors import SpecError, SupportWarning
from bayeswm.causal import effect, group_effects, mediation, path_effect, positivity
from tests.causal.confounded_logs import TRUE, known
from tests.causal.reference_models import c1, line


def logged(model: bwm.DynamicsModel, episodes: int, steps: int, *, generator: torch.Generator) -> bwm.Trajectories:
    actions = torch.randn(episodes, steps, 1, generator=generator, dtype=torch.float64)
    return bwm.data.simulate(model, torch.zeros(episodes, 1), actions, generator=generator)


def test_what_the_log_did_is_inside_it(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 300, 6, generator=generator)

    def policy(state: torch.Tensor, step: int) -> torch.Tensor:
        return torch.randn((*state.shape[:-1], 1), generator=generator, dtype=torch.float64)

    found = positivity(model, log, actions=policy, state=torch.zeros(1), horizon=6, particles=500, generator=generator)
    # of points like the log's own a share of 0.95 is inside, up to the errors of the radius (from 1,800 rows) and of
    # the share itself
    share = found.dataset.inside.values.mean()
    assert abs(share - 0.95) < 4.5 * math.sqrt(0.95 * 0.05 * (1 / 1800 + 1 / (6 * 256)))
    assert found.supported
    assert found.dataset.effective_rows.max() > 300
    assert "inside the log's support at all 6 steps" in repr(found)
    assert found.dataset.attrs["rows"] == 1800


def test_what_the_log_never_did_is_outside(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 100, 6, generator=generator)
    with pytest.warns(SupportWarning, match="thin support at 3 of 12 steps, first at step 10"):
        found = positivity(
            model,
            log,
            bwm.do({"a": 8.0}, steps=slice(9, 12)),
            state=torch.zeros(1),
            actions=torch.zeros(12, 1),
            horizon=12,
            generator=generator,
        )
    assert found.dataset.inside.values[9:].tolist() == [0, 0, 0]
    assert (found.dataset.distance.values[9:] > 5).all()
    assert (found.dataset.effective_rows.values[9:] < 10).all()
    assert not found.supported
    lines = repr(found).splitlines()
    assert len(lines) == 2 + 7
    assert lines[5].strip() == "..."


def test_growth_of_the_epistemic_variance_is_exact(generator: torch.Generator) -> None:
    """x' = 0.9 x + g a: the variance between worlds is Var(g) a^2, in the log Var(g) mean a^2."""
    structure = bwm.structures.FromFunction(
        lambda x, a, c, p: 0.9 * x + p["gain"] * a, schema=line(), parameters={"gain": Normal(1.0, 0.1)}
    )
    model = bwm.KnownDynamics(structure=structure, noise=1.0)
    log = logged(model, 50, 5, generator=generator)
    found = positivity(model, log, bwm.do(a=[0.5, 1.5]), state=torch.zeros(1), horizon=2, generator=generator)
    mean = float(log.transitions().action.square().mean())
    assert found.dataset.epistemic_growth.values.ravel().tolist() == pytest.approx([0.25 / mean, 2.25 / mean])
    certain = positivity(known(**TRUE), log, bwm.do(a=0.5), state=torch.zeros(1), horizon=2, generator=generator)
    assert np.isnan(certain.dataset.epistemic_growth.values).all()


def test_state_interventions_and_batches(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 200, 6, generator=generator)
    with pytest.warns(SupportWarning, match="first at step 3"):
        found = positivity(
            model,
            log,
            bwm.do({"s": 40.0}, steps=2),
            state=torch.zeros(5, 1),
            actions=torch.zeros(3, 1),
            generator=generator,
        )
    assert found.dataset.supported.values.tolist() == [True, True, False]


def test_slices_are_held_against_slices(generator: torch.Generator) -> None:
    """C1: what is set is part of the slice."""
    model = c1()
    paths = bwm.rollout(model, torch.zeros(800, 3), horizon=1, particles=1, generator=generator).particles[0, 0]
    log = bwm.Trajectories(model.schema, state=torch.cat((torch.zeros(800, 1, 3), paths), 1))
    assert positivity(model, log, bwm.do(X=0.5), state=torch.zeros(3), horizon=1, generator=generator).supported
    with pytest.warns(SupportWarning):
        far = positivity(model, log, bwm.do(X=9.0), state=torch.zeros(3), horizon=1, generator=generator)
    assert far.dataset.inside.item() == 0


def test_effects_say_whether_they_were_checked(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 200, 6, generator=generator)
    query = {"state": torch.zeros(1), "horizon": 2}
    plain = effect(model, bwm.do(a=0.5), bwm.do(a=0.0), **query, generator=torch.Generator().manual_seed(3))
    assert plain.attrs["positivity"].startswith("not checked")
    found = effect(model, bwm.do(a=0.5), bwm.do(a=0.0), **query, logged=log, generator=torch.Generator().manual_seed(3))
    assert found.effect.equals(plain.effect)
    assert found.supported.values.all()
    assert found.inside.sel(branch="control").shape == (2,)
    assert found.attrs["positivity"].startswith("treatment: inside")
    with pytest.warns(SupportWarning, match="treatment: thin support"):
        far = effect(model, bwm.do(a=9.0), bwm.do(a=0.0), **query, logged=log, generator=generator)
    assert far.supported.sel(branch="treatment").values.tolist() == [False, False]
    assert far.supported.sel(branch="control").values.tolist() == [True, True]


def test_the_system_is_held_against_its_own_log(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 20, 6, generator=generator)
    held = bwm.causal.intervene(model, bwm.do(a=0.0))
    with pytest.raises(SpecError, match="as it was logged"):
        positivity(held, log, bwm.do(a=0.0), state=torch.zeros(1), horizon=2, generator=generator)
    with pytest.raises(SpecError, match="expected state"):
        positivity(c1(), log, bwm.do(X=0.0), state=torch.zeros(3), horizon=1, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(SpecError, match="actions="):
            positivity(model, log, state=torch.zeros(1), horizon=2, generator=generator)


def test_every_kind_of_effect_says_whether_it_was_checked(generator: torch.Generator) -> None:
    model = known(**TRUE)
    log = logged(model, 200, 6, generator=generator)
    near, far, rest = bwm.do(a=0.5), bwm.do(a=9.0), bwm.do(a=0.0)
    query = {"state": torch.zeros(2, 1), "by": [0, 1], "horizon": 2, "generator": generator}
    assert group_effects(model, near, rest, **query).attrs["positivity"].startswith("not checked")
    found = group_effects(model, near, rest, **query, logged=log)
    assert found.supported.values.all()
    assert found["count"].values.tolist() == [1, 1]
    with pytest.warns(SupportWarning, match="treatment: thin support"):
        found = mediation(
            model, far, rest, mediator="s", state=torch.zeros(1), horizon=2, generator=generator, logged=log
        )
    assert not found.supported.sel(branch="treatment").values.any()
    slices = c1()
    paths = bwm.rollout(slices, torch.zeros(800, 3), horizon=1, particles=1, generator=generator).particles[0, 0]
    rows = bwm.Trajectories(slices.schema, state=torch.cat((torch.zeros(800, 1, 3), paths), 1))
    query = {"paths": [("X", "Y")], "state": torch.zeros(3), "generator": generator}
    found = path_effect(slices, bwm.do(X=0.5), bwm.do(X=0.0), **query, logged=rows)
    assert (found.effect.item(), bool(found.supported.all())) == (pytest.approx(1.0), True)
